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

loaded = {name.split(".")[0] for name in sys.modules}
print(*sorted(loaded & {"mmdet3d", "mmdet", "mmcv", "mmengine"}))
"""


def test_no_stage_imports_openmmlab():
    """Which takes seconds: but for the teacher that `teacher.mmdet3d` names, every network is our own."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
