"""What is trained on: the samples of the train split and their boxes; and what to say where there are none."""

from collections import Counter

import numpy as np

from common.errors import UserError
from storage.index import Index, has_points

SHOWN = 5  # categories named


def training_samples(index: Index, stage: str) -> np.ndarray:
    """Rows (n,) of the train split, ascending. Raises UserError where there are none."""
    samples = index.samples("train")
    if len(samples) == 0:
        names = ", ".join(map(str, index.scene_name[:3])) + (", ..." if len(index.scene_name) > 3 else "")
        raise UserError(
            f"{stage}: none of the {len(index.scene_name)} scenes of {index.version} ({names}) is in the train split; "
            f'name those to train on in {index.version}/splits.json: {{"train": [scene names], "val": [...]}}'
        )
    return samples


def check_boxes(index: Index, samples: np.ndarray, min_lidar_points: int, stage: str) -> None:
    """Raise UserError where these samples have no box of a detection class with so many LiDAR points to learn from."""
    rows = np.concatenate([np.arange(r.start, r.stop) for r in map(index.box_rows, samples.tolist())])
    classed = rows[index.box_label[rows] >= 0]
    if has_points(index.box_lidar_points[classed], min_lidar_points).any():
        return
    if len(classed):
        remedy = f"lower {stage}.min_lidar_points or give num_lidar_pts in sample_annotation.json"
        what = f"none of the {len(classed):,} boxes to train on has {min_lidar_points} LiDAR points or more"
    elif len(rows):
        counts = Counter(index.box_category[rows].tolist()).most_common(SHOWN)
        named = ", ".join(f"{name} {count:,}" for name, count in counts)
        what = f"none of the {len(rows):,} boxes to train on is of a detection class ({named})"
        remedy = "map their categories with ingest.classes={category: class}"
    else:
        what, remedy = "there is no box to train on", "annotate the train split in sample_annotation.json"
    raise UserError(f"{stage}: {what}: {remedy}")
