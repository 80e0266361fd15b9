"""Which cameras the index has: any number, under any names, in an order that is known."""

import numpy as np
import pytest

from common.errors import DataError
from dataroot.cameras import cameras_among
from models.names import CAMERAS
from storage.digests import Digests
from tasks.ingest.config import IngestConfig
from tasks.ingest.digests import RIG, dataroot_digests
from tasks.ingest.run import ingest

OWN = dict(zip(CAMERAS, ("front", "CAM_FRONT_RIGHT", "Left", "rear", "CAM_BACK_LEFT", "07")))
OWN_IN_ORDER = ("CAM_FRONT_RIGHT", "CAM_BACK_LEFT", "07", "Left", "front", "rear")


def rename(world, names=OWN) -> None:
    world.edit("sensor", lambda rows: [row.update(channel=names.get(row["channel"], row["channel"])) for row in rows])


def add_seventh(world, samples: int = 6) -> None:
    """A camera more, which has seen what CAM_FRONT has seen, in the first so many samples."""
    for table, links in (("sensor", ()), ("calibrated_sensor", ("sensor_token",))):
        row = next(row for row in world.table(table) if row["token"].endswith("-CAM_FRONT"))
        more = row | {link: row[link] + "-7" for link in ("token", *links)} | ({"channel": "tele"} if not links else {})
        world.edit(table, lambda rows, more=more: rows.append(more))
    keys = [row for row in world.table("sample_data") if "/CAM_FRONT/" in row["filename"] and row["is_key_frame"]]
    more = [
        row
        | {"token": row["token"] + "-7", "calibrated_sensor_token": "calibration-CAM_FRONT-7", "prev": "", "next": ""}
        for row in keys[:samples]
    ]
    world.edit("sample_data", lambda rows: rows.extend(more))


def take(world, **fields):
    return ingest(world.root, world.version, IngestConfig(**fields))


def faults(world, **fields) -> list[str]:
    with pytest.raises(DataError) as raised:
        take(world, **fields)
    return str(raised.value).splitlines()[2:]


def digests(world, tmp_path, **fields):
    return dataroot_digests(world.root, world.version, IngestConfig(**fields), Digests(tmp_path / "no-memory"))


def test_nuscenes_order_comes_first_then_names():
    sensors = [(name, "camera") for name in ("b", *reversed(CAMERAS), "a")] + [("LIDAR_TOP", "lidar"), ("b", "camera")]
    assert cameras_among(sensors) == (*CAMERAS, "a", "b")
    assert cameras_among([("x", "radar"), ("CAM_BACK", "?"), ("CAM_FRONT", "camera")]) == ("CAM_FRONT", "CAM_BACK")


def test_other_names_are_the_same_cameras(world):
    before, _, _ = take(world, sweeps=3, frames=2)
    rename(world)
    arrays, attributes, _ = take(world, sweeps=3, frames=2)
    assert attributes.cameras == OWN_IN_ORDER
    was = {new: old for old, new in OWN.items()}
    places = [CAMERAS.index(was[name]) for name in OWN_IN_ORDER]
    for name in ("camera_path", "camera_timestamp", "intrinsics", "camera_to_ego", "image_size", "frame_path"):
        np.testing.assert_array_equal(arrays[name], before[name][:, places])
    for name in ("box_center", "lidar_path", "sweep_path", "token"):
        np.testing.assert_array_equal(arrays[name], before[name])


def test_a_seventh_camera_is_taken(world, tmp_path):
    before, key = take(world)[0], digests(world, tmp_path)
    assert RIG not in key
    add_seventh(world)
    arrays, attributes, _ = take(world)
    assert attributes.cameras == (*CAMERAS, "tele")
    np.testing.assert_array_equal(arrays["camera_path"][:, :6], before["camera_path"])
    np.testing.assert_array_equal(arrays["camera_path"][:, 6], before["camera_path"][:, 0])
    assert RIG in digests(world, tmp_path)  # there may be an index of when it was passed over
    assert RIG not in digests(world, tmp_path, cameras=CAMERAS)
    assert take(world, cameras=CAMERAS)[1].cameras == CAMERAS


def test_cameras_are_chosen_and_ordered(world):
    whole, _, _ = take(world, frames=1)
    arrays, attributes, counts = take(world, frames=1, cameras=("CAM_BACK", "CAM_FRONT_LEFT"))
    assert attributes.cameras == ("CAM_BACK", "CAM_FRONT_LEFT")
    for name in ("camera_path", "frame_path", "intrinsics", "frame_count"):
        np.testing.assert_array_equal(arrays[name], whole[name][:, [3, 2]])
    assert counts["files"] < take(world, frames=1)[2]["files"]
    (world.root / whole["camera_path"][0, 0]).unlink()  # CAM_FRONT's, which nobody reads
    take(world, frames=1, cameras=("CAM_BACK", "CAM_FRONT_LEFT"))


def test_a_name_that_is_not_there(world):
    rename(world)
    (told,) = faults(world, cameras=("frnt", "rear"))
    assert "no camera is 'frnt', which ingest.cameras names" in told
    assert "name cameras of sensor.json in ingest.cameras: did you mean front?" in told
    (told,) = faults(world, cameras=("RADAR_FRONT", "rear"))
    assert "no camera is 'RADAR_FRONT'" in told
    with pytest.raises(ValueError, match="rear stands there twice"):
        IngestConfig(cameras=("rear", "front", "rear"))


def test_a_camera_that_some_samples_lack(world):
    add_seventh(world, samples=4)
    (told,) = faults(world)
    assert "2 rows without a key frame of tele in sample_data.json" in told
    arrays, attributes, facts = take(world, scenes="available")
    assert attributes.cameras == (*CAMERAS, "tele")
    assert len(arrays["token"]) == 3
    assert "lacks a key frame of tele" in facts["warnings"]["scenes"]
    assert len(take(world, cameras=CAMERAS)[0]["token"]) == 6


def test_earlier_frames_of_any_camera_are_in_the_key(world, tmp_path):
    rename(world)
    old, new = world.root / "sweeps" / "CAM_FRONT", world.root / "sweeps" / "front"
    old.rename(new)
    before = digests(world, tmp_path, frames=1)
    min(new.iterdir()).unlink()
    after = digests(world, tmp_path, frames=1)
    assert {name for name in before if before[name] != after[name]} == {"sweeps/CAM_*"}
