"""`ingest.scenes`: a dataroot of which a part is there, as of one blob of trainval."""

import shutil

import numpy as np
import pytest

from common.errors import DataError
from gallery.opened import open_dataroot
from storage.digests import Digests
from tasks.ingest.config import IngestConfig
from tasks.ingest.digests import dataroot_digests
from tasks.ingest.run import ingest

AVAILABLE = IngestConfig(sweeps=3, frames=2, scenes="available")
FIRST, SECOND = "scene-0103", "scene-0061"  # of the world, in the order of its tables; val and train


def part(world, scene: int, folder: str = "", channel: str = "") -> list[str]:
    """Files of the number of a scene, of a folder and a sensor where they are named."""
    names = [row["filename"] for row in world.table("sample_data") if row["filename"].split("/")[2][0] == str(scene)]
    return [name for name in names if name.startswith(folder) and f"/{channel}" in name and "RADAR" not in name]


def remove(world, names: list[str]) -> None:
    assert names
    for name in names:
        (world.root / name).unlink()


def take(world, config: IngestConfig = AVAILABLE):
    return ingest(world.root, world.version, config)


def fault(world, config: IngestConfig) -> str:
    """The one line of a report that has one fault."""
    with pytest.raises(DataError) as raised:
        take(world, config)
    head, _, *lines = str(raised.value).splitlines()
    assert head.endswith(": 1 fault"), head
    return lines[0]


def test_what_is_whole_is_taken_and_the_rest_is_named(world):
    whole, _, _ = take(world, IngestConfig(sweeps=3, frames=2))
    remove(world, part(world, 1))
    arrays, _, facts = take(world)
    assert arrays["token"].tolist() == whole["token"][:3].tolist()
    assert (arrays["scene_name"][arrays["scene"]] == FIRST).all()
    assert (arrays["split"] == "val").all()
    for name in ("camera_path", "lidar_path", "sweep_path", "frame_path", "previous", "timestamp"):
        np.testing.assert_array_equal(arrays[name], whole[name][:3])
    for name in ("box_token", "box_center", "box_velocity"):
        np.testing.assert_array_equal(arrays[name], whole[name][: whole["box_offsets"][3]])
    told = facts["warnings"]["scenes"]
    assert told.startswith(
        "1 of 2 scenes are left out by ingest.scenes, available (scene-0061 lacks samples/CAM_FRONT/1-0"
    )
    with pytest.raises(DataError, match=r"the file is missing.*or take the scenes that are whole with ingest\.scenes"):
        take(world, IngestConfig(sweeps=3, frames=2))


def test_a_part_of_a_dataset_is_looked_at_without_the_rest(world):
    remove(world, part(world, 1))
    assert open_dataroot(world.root, world.version).index.token.tolist() == ["sample-0-0", "sample-0-2", "sample-0-4"]


def test_of_a_whole_dataset_all_is_taken_in_silence(world):
    whole, _, _ = take(world, IngestConfig(sweeps=3, frames=2))
    arrays, _, facts = take(world)
    assert facts["warnings"] == take(world, IngestConfig(sweeps=3, frames=2))[2]["warnings"]
    for name in whole:
        np.testing.assert_array_equal(arrays[name], whole[name])


@pytest.mark.parametrize(
    ("folder", "channel", "config", "needed"),
    [
        ("samples", "LIDAR_TOP", {}, True),
        ("samples", "CAM_BACK/", {}, True),
        ("sweeps", "LIDAR_TOP", {}, True),
        ("sweeps", "LIDAR_TOP", {"sweeps": 0}, False),
        ("sweeps", "CAM_BACK/", {}, True),
        ("sweeps", "CAM_BACK/", {"frames": 0}, False),
        ("samples", "CAM_BACK/", {"cameras": ("CAM_FRONT", "CAM_BACK_LEFT")}, False),
    ],
)
def test_a_scene_needs_what_the_index_names(world, folder, channel, config, needed):
    """One file that is gone takes its scene along, if the index would have named it."""
    remove(world, part(world, 0, folder, channel)[-1:])
    arrays, _, facts = take(world, IngestConfig.model_validate(AVAILABLE.model_dump() | config))
    assert len(arrays["token"]) == (3 if needed else 6)
    assert ("scenes" in facts["warnings"]) == needed


def test_a_file_that_is_there_and_broken_is_still_a_fault(world):
    (world.root / part(world, 0, "samples", "LIDAR_TOP")[0]).write_bytes(b"")
    assert "the file is empty" in fault(world, AVAILABLE)


def test_a_scene_without_a_camera_s_key_frame_is_not_whole(world):
    gone = "CAM_BACK-1-2"
    world.edit("sample_data", lambda rows: [row.update(is_key_frame=False) for row in rows if row["token"] == gone])
    arrays, _, facts = take(world)
    assert len(arrays["token"]) == 3
    assert "scene-0061 lacks a key frame of CAM_BACK" in facts["warnings"]["scenes"]
    assert "1 row without a key frame of CAM_BACK" in fault(world, IngestConfig())


def test_without_the_lidar_s_files(world, tmp_path):
    """As of the archives of cameras alone: what the tables say of the LiDAR stays, and its files are not asked for."""
    whole, _, _ = take(world, IngestConfig(sweeps=3))
    config = IngestConfig(sweeps=3, lidar=False, scenes="available")

    def key():
        return dataroot_digests(world.root, world.version, config, Digests(tmp_path / "no-memory"))

    before = key()
    for folder in ("samples", "sweeps"):
        shutil.rmtree(world.root / folder / "LIDAR_TOP")
    arrays, _, counts = take(world, config)
    assert key() == before
    assert set(arrays["lidar_path"].tolist()) == {""}
    assert arrays["sweep_path"].size == 0
    for name in ("token", "camera_path", "lidar_to_ego", "lidar_ego_to_global", "box_center", "box_lidar_points"):
        np.testing.assert_array_equal(arrays[name], whole[name])
    assert counts["files"] == 6 * 6 + 1  # images and a map
    with pytest.raises(DataError, match="the file is missing"):
        take(world, IngestConfig(sweeps=3))


def test_nothing_whole_is_a_fault(world):
    remove(world, part(world, 0, "sweeps", "LIDAR_TOP") + part(world, 1, "sweeps", "LIDAR_TOP"))
    told = fault(world, AVAILABLE)
    assert f"no scene has all of its files: {FIRST} lacks sweeps/LIDAR_TOP/0-1.pcd.bin, {SECOND} lacks" in told
    assert "ask for fewer files with ingest.sweeps or ingest.frames" in told
    assert len(take(world, IngestConfig(sweeps=0, scenes="available"))[0]["token"]) == 6


def test_scenes_by_name(world):
    remove(world, part(world, 0))
    config = IngestConfig(scenes=(SECOND,))
    arrays, _, facts = take(world, config)
    assert arrays["token"].tolist() == ["sample-1-0", "sample-1-2", "sample-1-4"]
    assert "1 of 2 scenes are left out by ingest.scenes, the names (1 are named, scene-0061)" in str(facts["warnings"])
    assert IngestConfig(scenes=[SECOND, FIRST, SECOND]) == IngestConfig(scenes=[FIRST, SECOND])
    with pytest.raises(DataError, match="the file is missing"):  # what is named is to be there
        take(world, IngestConfig(scenes=(FIRST,)))


def test_a_scene_that_is_not_there_has_a_sentence_with_what_is_near(world):
    told = fault(world, IngestConfig(scenes=("scene-0062", SECOND)))
    what = "v1.0-mini/scene.json  name   no scene is 'scene-0062', which ingest.scenes names"
    assert told == f"{what} | name scenes of scene.json in ingest.scenes: did you mean scene-0061 or scene-0103?"


@pytest.mark.parametrize("scenes", ["scene-0061", [], 7, [7]])
def test_what_scenes_may_be(scenes):
    with pytest.raises(ValueError, match=r"is neither all, available nor a list of names such as \[scene-0061\]"):
        IngestConfig(scenes=scenes)


def test_what_comes_later_makes_another_key(world, tmp_path):
    """Nothing of a partial dataset's cache is used for the whole; and what nobody chose has the key that it had."""

    def ask():
        return dataroot_digests(world.root, world.version, AVAILABLE, Digests(tmp_path / "no-memory"))

    whole, stored = ask(), {name: (world.root / name).read_bytes() for name in part(world, 1)}
    remove(world, list(stored))
    less = ask()
    assert {name for name in whole if whole[name] != less[name]} == {"samples", "sweeps/LIDAR_TOP", "sweeps/CAM_*"}
    for name, data in stored.items():
        (world.root / name).write_bytes(data)
    assert ask() == whole
    assert "scenes" not in IngestConfig().key_fields()
    assert "cameras" not in IngestConfig().key_fields()
    assert AVAILABLE.key_fields()["scenes"] == "available"
