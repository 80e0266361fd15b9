"""A sample's LiDAR points, previous sweeps included, in the key frame's LIDAR_TOP frame."""

from pathlib import Path

import numpy as np

from storage.index import Index
from tasks.errors import UserError

COLUMNS = 5  # of a nuScenes .bin: x, y, z, intensity, ring
CLOSE = 1.0  # m: returns nearer than this along x AND y are the car itself


def load_points(index: Index, dataroot: Path, sample: int, sweeps: int) -> np.ndarray:
    """(N, 5) float32: x, y, z (m, key LIDAR_TOP frame), intensity (0 to 255), dt (s, age against the key sweep).

    The key sweep comes first, whole, then up to `sweeps` previous ones, nearest first, without the points on the car
    itself. Upstream draws nine of ten sweeps at random even at test time; the nearest are taken here, so that a cache
    is what it says. Upstream also fills in copies of the key sweep where a scene has no earlier ones; here a short
    history stays short: the network sees voxel means only, which copies change merely where ten points are too many,
    and they would take ten times the work. Raises UserError for a file that is missing or of a wrong size.
    """
    clouds = [_read(dataroot / str(index.lidar_path[sample]))]
    clouds[0][:, 4] = 0
    for s in range(min(sweeps, int(index.sweep_count[sample]))):
        cloud = _read(dataroot / str(index.sweep_path[sample, s]))
        cloud = cloud[~(np.abs(cloud[:, :2]) < CLOSE).all(1)]
        to_key = index.sweep_to_lidar[sample, s]
        cloud[:, :3] = cloud[:, :3].astype(np.float64) @ to_key[:3, :3].T + to_key[:3, 3]
        cloud[:, 4] = (index.lidar_timestamp[sample] - index.sweep_timestamp[sample, s]) * 1e-6
        clouds.append(cloud)
    return np.concatenate(clouds)


def _read(path: Path) -> np.ndarray:
    try:
        values = np.fromfile(path, np.float32)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); complete the dataroot") from None
    if len(values) == 0 or len(values) % COLUMNS:
        raise UserError(f"{path}: {4 * len(values)} bytes are no LiDAR sweep (20 a point); fetch the file again")
    return values.reshape(-1, COLUMNS)
