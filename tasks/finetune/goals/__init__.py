"""What a detector's bird's-eye-view map is finetuned for, `finetune.task`: boxes, map layers or voxels."""

from tasks.finetune.config import FinetuneConfig
from tasks.finetune.goals.detection import Detection
from tasks.finetune.goals.goal import Goal
from tasks.finetune.goals.occupancy import VoxelOccupancy
from tasks.finetune.goals.segmentation import Segmentation

GOALS: dict[str, type[Goal]] = {"detection": Detection, "segmentation": Segmentation, "occupancy": VoxelOccupancy}


def goal_of(config: FinetuneConfig) -> type[Goal]:
    """The config's."""
    return GOALS[config.task]
