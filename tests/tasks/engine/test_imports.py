"""What a stage's process imports: none waits for packages that it does not use."""

import subprocess
import sys

CODE = """
import importlib, sys
import tasks.engine.child, tasks.engine.execute
from tasks.engine.config import PipelineConfig
from tasks.engine.stage import STAGES

for stage in STAGES.values():
    importlib.import_module(stage.entry.split(":")[0])

from tasks.finetune import network as cameras
from tasks.teacher import network as lidar

config = PipelineConfig(preset="demo")
lidar.build_detector(config.fit)
lidar.build_encoder(config.teacher.lidar)
cameras.build_detector(config.finetune)

slow = {"mmdet3d", "mmdet", "mmcv", "mmengine", "nuscenes", "pandas", "sklearn", "torch._dynamo"}
print(*sorted(slow & sys.modules.keys()))
"""


def test_no_stage_imports_openmmlab_the_devkit_or_a_compiler():
    """Which take seconds: but for the teacher that `teacher.mmdet3d` names, every network is our own, and the devkit is
    for scores alone."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
