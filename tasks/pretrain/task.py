"""The Prefect task of the pretrain stage."""

from tasks.task import stage_task

pretrain = stage_task("pretrain")
