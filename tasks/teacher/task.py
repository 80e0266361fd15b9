"""The Prefect tasks of the teacher: fitting the LiDAR detector, and its BEV features."""

from tasks.task import stage_task

fit = stage_task("fit")
teacher = stage_task("teacher")
