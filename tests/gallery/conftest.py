"""The finished run that the end-to-end tests share."""

from finished_run import common, finished, world

__all__ = ["common", "finished", "world"]
