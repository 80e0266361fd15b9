"""The Prefect task of the depth stage."""

from tasks.task import stage_task

depth = stage_task("depth")
