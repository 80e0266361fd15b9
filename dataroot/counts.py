"""How many points annotated boxes hold, as far as anybody counted."""

import numpy as np

from dataroot.selection import Selection
from dataroot.tables import Table
from storage.index import UNCOUNTED


def lidar_points(box: Table, selection: Selection) -> np.ndarray:
    """(rows of sample_annotation,) LiDAR points of each box; UNCOUNTED of all in tables without a LiDAR and a count.

    Elsewhere a box without a point is one that nobody could see, which is neither learnt from nor looked for.
    """
    points = box["num_lidar_pts"]
    return np.full_like(points, UNCOUNTED) if selection.without_lidar and not points.any() else points
