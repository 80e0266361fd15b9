"""The Prefect task of the ingest stage."""

from tasks.task import stage_task

ingest = stage_task("ingest")
