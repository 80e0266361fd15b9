"""The Prefect task of the finetune stage."""

from tasks.task import stage_task

finetune = stage_task("finetune")
