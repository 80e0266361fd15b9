"""LiDAR points: of one file, and of a sample, previous sweeps included, in the key frame's LIDAR_TOP frame."""

from pathlib import Path

import numpy as np

from common.errors import DataError, UserError
from common.files import read_file
from storage.index import Index

CLOSE = 1.0  # m: returns nearer than this along x AND y are the car itself
FARTHEST = 1e5  # m along an axis
UNMEASURED = "NaN, infinity or places over 100 km away"
FETCH = "get the file again and rerun"


def need_lidar(index: Index, reader: str) -> None:
    """Raise UserError where the index goes without the LiDAR's files."""
    if not index.has_lidar:
        raise UserError(
            f"{reader} reads the LiDAR's files, without which the index was made: set ingest.lidar=true where "
            "there are any; finetuning reads none with finetune.depth_weight=0 and finetune.init a file or random"
        )


def load_points(index: Index, dataroot: Path, sample: int, sweeps: int) -> np.ndarray:
    """(N, 5) float32: x, y, z (m, key LIDAR_TOP frame), intensity (0 to 255), dt (s, age against the key sweep).

    The key sweep comes first, whole, then up to `sweeps` previous ones, nearest first, without the points on the car
    itself. Upstream draws nine of ten sweeps at random even at test time; the nearest are taken here, so that a cache
    is what it says. Upstream also fills in copies of the key sweep where a scene has no earlier ones; here a short
    history stays short: the network sees voxel means only, which copies change merely where ten points are too many,
    and they would take ten times the work. Raises DataError and FileSystemError as `read_cloud` does.
    """
    clouds = [_aged(read_cloud(dataroot / str(index.lidar_path[sample]), index.lidar_columns), 0.0)]
    for s in range(min(sweeps, int(index.sweep_count[sample]))):
        cloud = without_car(read_cloud(dataroot / str(index.sweep_path[sample, s]), index.lidar_columns))
        age = (index.lidar_timestamp[sample] - index.sweep_timestamp[sample, s]) * 1e-6
        cloud = _aged(cloud, age)
        to_key = index.sweep_to_lidar[sample, s]
        cloud[:, :3] = cloud[:, :3].astype(np.float64) @ to_key[:3, :3].T + to_key[:3, 3]
        clouds.append(cloud)
    return np.concatenate(clouds)


def read_cloud(path: Path, columns: int) -> np.ndarray:
    """(N, 4) float32 x, y, z (m, the sweep's own LIDAR_TOP frame), intensity: the first of a file's `columns`.

    Raises DataError where the file is gone, cut short or damaged since ingest, FileSystemError as `read_file` does.
    """
    data = read_file(path, FETCH)
    if len(data) == 0 or len(data) % (4 * columns):
        raise DataError(f"{path}: {len(data)} bytes are no point cloud ({4 * columns} a point); {FETCH}")
    points = np.frombuffer(data, np.float32).reshape(-1, columns)[:, :4]
    if bad := unmeasured(points):
        raise DataError(f"{path}: {bad:,} of {len(points):,} points hold {UNMEASURED}; {FETCH}")
    return points


def unmeasured(points: np.ndarray) -> int:
    """How many of points (N, >=4) x, y, z (m), intensity were never measured: they are UNMEASURED."""
    with np.errstate(invalid="ignore"):
        if np.abs(points[:, :4]).max(initial=0) <= FARTHEST:  # the usual case, in a sixth of the time
            return 0
        good = (np.abs(points[:, :3]) <= FARTHEST).all(1) & np.isfinite(points[:, 3])
    return len(points) - np.count_nonzero(good)


def without_car(points: np.ndarray) -> np.ndarray:
    """Points (N, >=2) without those on the car itself: of a previous sweep they would stand in the road."""
    return points[~(np.abs(points[:, :2]) < CLOSE).all(1)]


def _aged(points: np.ndarray, age: float) -> np.ndarray:
    """A copy (N, 5) of points (N, 4), with their age (s) behind."""
    out = np.empty((len(points), 5), np.float32)
    out[:, :4], out[:, 4] = points, age
    return out
