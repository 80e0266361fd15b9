"""Point files of every layout, told apart by their values alone."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError
from dataroot.clouds import TAKE_OUT, _all_near, cloud_fault
from dataroot.points import read_cloud
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

REAL = Path(__file__).resolve().parents[4] / "shared" / "real-keyframe"
N = 20_000  # 20,000 points of 4 are 16,000 of 5: the sizes all divide


def street(n: int = N, seed: int = 0) -> np.ndarray:
    """(n, 6) float32: x, y, z (m), intensity, ring, seconds of a ground with things on it, in no order."""
    random = np.random.default_rng(seed)
    distance, azimuth = random.exponential(12, n) + 2, random.uniform(-np.pi, np.pi, n)
    z = np.where(random.random(n) < 0.6, -1.84 + random.normal(0, 0.05, n), random.uniform(-1.8, 6, n))
    xyz = np.c_[distance * np.cos(azimuth), distance * np.sin(azimuth), z]
    return np.c_[xyz, random.integers(0, 256, n), random.integers(0, 32, n), azimuth / 60 + 0.05].astype(np.float32)


def written(points: np.ndarray, columns: int, kind: type = np.float32) -> bytes:
    return np.ascontiguousarray(points[:, :columns].astype(kind)).tobytes()


@pytest.fixture(scope="module", params=["street", "real", "simulated"])
def points(request) -> np.ndarray:
    """(N, 6): real ones where they are there, and made-up seconds in the last column. Not to be written to."""
    if request.param == "street":
        return street()
    if request.param == "real":
        if not REAL.is_dir():
            pytest.skip("the real key frame is not beside the repository")
        (file,) = (REAL / "samples" / "LIDAR_TOP").iterdir()
        cloud = np.fromfile(file, np.float32).reshape(-1, 5)
    else:
        from simulate.cast import cast_lidar
        from simulate.config import SimulateConfig
        from simulate.rig import LIDAR_TO_EGO, lidar_directions
        from simulate.world import World

        world = World(SimulateConfig(), "scene-0103")
        directions = lidar_directions()
        noise = np.zeros((*directions.shape[:2], 2))
        noise[..., 1] = 1
        pose = world.ego_to_global(0.5) @ LIDAR_TO_EGO
        cloud = cast_lidar(world.solids(0.5), pose, directions, world.town.ground, noise)
    cloud = np.c_[np.resize(cloud, (N, 5)), np.linspace(0, 0.05, N)].astype(np.float32)
    cloud.flags.writeable = False
    return cloud


@pytest.mark.parametrize("wanted", [4, 5, 6])
@pytest.mark.parametrize("columns", [3, 4, 5, 6])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_layout_is_seen_in_the_values(points, wanted, columns, kind):
    found = cloud_fault(written(points, columns, kind), wanted)
    if (columns, kind) == (wanted, np.float32):
        assert found is None
        return
    assert found.what == f"looks like {columns} {np.dtype(kind)} columns, not {wanted} float32 columns"
    offered = columns > 3 and kind is np.float32
    assert found.remedy.startswith(f"set ingest.lidar_columns={columns}" if offered else "write x, y, z, intensity")


@pytest.mark.parametrize("columns", [4, 5, 6])
@pytest.mark.parametrize("change", ["no intensity", "intensity to 1", "padded", "no ring", "in one direction"])
def test_other_peoples_columns_are_no_fault(points, columns, change):
    points = points.copy()
    if change == "no intensity":
        points[:, 3] = 0
    elif change == "intensity to 1":
        points[:, 3] /= 255
    elif change == "padded":
        points[N // 3 :] = 0
    elif change == "no ring":
        points[:, 4] = -1
    else:
        points = points[np.abs(np.arctan2(points[:, 1], points[:, 0])) < 0.5]
    assert cloud_fault(written(points, columns), columns) is None


def test_small_and_shapeless_clouds_are_left_alone():
    random = np.random.default_rng(0)
    assert cloud_fault(street(30).tobytes()[: 20 * 30], 5) is None
    assert cloud_fault(random.normal(scale=20, size=(N, 5)).astype(np.float32).tobytes(), 5) is None
    assert cloud_fault(np.zeros((N, 5), np.float32).tobytes(), 5) is None


@pytest.mark.parametrize(
    ("damage", "words", "remedy"),
    [
        (lambda p: p.__setitem__((7, 1), np.nan), "NaN, infinity or places over 100 km away", TAKE_OUT),
        (lambda p: p.__setitem__((7, 1), 1e30), "places over 100 km away", TAKE_OUT),
        (lambda p: p.__setitem__((slice(None), 0), 1e30), "places over 100 km away", TAKE_OUT),
        (lambda p: p.__setitem__((slice(0, N // 5), 0), 500), "points over 300 m away", ""),
        (lambda p: p.__imul__([1000, 1000, 1000, 1, 1, 1]), "looks like millimetres", "write metres"),
        (lambda p: p.__imul__([100, 100, 100, 1, 1, 1]), "or centimetres", "write metres"),
    ],
)
def test_places_that_no_lidar_measures(damage, words, remedy):
    points = street()
    damage(points)
    found = cloud_fault(written(points, 5), 5)
    assert words in found.what
    assert found.remedy == remedy


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [">f4", "<i2", "<u2"])
def test_other_numbers_are_refused_without_noise(kind):
    points = (street() * (1 if "f" in kind else 100)).astype(kind)
    assert cloud_fault(points[:, :5].tobytes(), 5) is not None


@pytest.mark.parametrize("head", [b"# .PCD v0.7\n", b"\x93NUMPY\x01\x00", b"ply\nformat"])
def test_files_with_a_header_are_told(head):
    assert "not plain numbers" in cloud_fault(head.ljust(80, b" ") + street().tobytes(), 5).what


@pytest.mark.parametrize("columns", [4, 6])
def test_a_dataset_of_other_columns_says_what_to_set_and_then_passes(world, columns):
    files = [path for folder in ("samples", "sweeps") for path in (world.root / folder / "LIDAR_TOP").iterdir()]
    for seed, path in enumerate(files):
        path.write_bytes(written(street(1200, seed), columns))
    with pytest.raises(DataError) as raised:
        ingest(world.root, world.version, IngestConfig())
    assert f"looks like {columns} float32 columns, not 5" in str(raised.value)
    assert f"| set ingest.lidar_columns={columns}" in str(raised.value)
    arrays, attributes, _ = ingest(world.root, world.version, IngestConfig(lidar_columns=columns))
    assert attributes.lidar_columns == columns
    assert len(read_cloud(world.root / arrays["lidar_path"][0], columns)) == 1200


def test_the_layout_is_in_the_key():
    assert IngestConfig().key_fields() != IngestConfig(lidar_columns=4).key_fields()
    with pytest.raises(ValueError, match="lidar_columns"):
        IngestConfig(lidar_columns=3)


@pytest.mark.parametrize("columns", [4, 5, 6])
@pytest.mark.parametrize("written_in", [4, 5, 6])
def test_points_that_are_all_near_are_judged_as_column_by_column(monkeypatch, points, columns, written_in):
    """One pass over the numbers, whose slow way is each column's own."""
    data = written(points, written_in)
    fast = cloud_fault(data, columns)
    monkeypatch.setattr("dataroot.clouds._all_near", lambda data: False)
    assert cloud_fault(data, columns) == fast


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 301, -301])
def test_one_number_is_enough_not_to_be_all_near(value):
    points = street()[:, :5].copy()
    assert _all_near(points.tobytes())
    points[-1, 2] = value
    assert not _all_near(points.tobytes())
