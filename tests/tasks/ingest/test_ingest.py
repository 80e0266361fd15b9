"""The index against the devkit, on a tiny dataset and on the real key frame."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError, UserError
from dataroot import tables as tables_module
from models.boxes import Boxes
from models.geometry import inverse
from models.names import CAMERAS, CLASSES, LIDAR
from storage.index import Index
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest, run

REAL = Path(__file__).resolve().parents[4] / "shared" / "real-keyframe"


@dataclass
class Inputs:
    dataroot: Path
    version: str


@dataclass
class Place:
    path: Path
    written: dict = field(default_factory=dict)


@pytest.fixture(scope="module")
def index(pristine, tmp_path_factory) -> Index:
    folder = tmp_path_factory.mktemp("artifact")
    summary = run(IngestConfig(sweeps=3, frames=2), Inputs(pristine.root, pristine.version), Place(folder))
    assert summary["samples"] == 6
    assert summary["splits"] == {"train": 3, "val": 3}
    return Index.open(folder / "index.zarr")


@pytest.fixture(scope="module")
def devkit(pristine):
    from nuscenes.nuscenes import NuScenes

    return NuScenes(pristine.version, str(pristine.root), verbose=False)


def pose(record: dict) -> np.ndarray:
    """The devkit's own matrix of a translation and a rotation."""
    from nuscenes.utils.geometry_utils import transform_matrix
    from pyquaternion import Quaternion

    return transform_matrix(record["translation"], Quaternion(record["rotation"]))


def reading(devkit, token: str) -> tuple[dict, np.ndarray, np.ndarray]:
    data = devkit.get("sample_data", token)
    calibration = devkit.get("calibrated_sensor", data["calibrated_sensor_token"])
    return data, pose(calibration), pose(devkit.get("ego_pose", data["ego_pose_token"]))


def test_samples_are_in_the_order_of_scenes_and_time(index):
    assert index.scene_name.tolist() == ["scene-0103", "scene-0061"]
    assert index.token.tolist() == [f"sample-{scene}-{k}" for scene in (0, 1) for k in (0, 2, 4)]
    assert index.previous.tolist() == [-1, 0, 1, -1, 3, 4]
    assert index.split.tolist() == ["val"] * 3 + ["train"] * 3
    assert index.split_names == {"train": "mini_train", "val": "mini_val"}


def test_maps_are_the_devkits(index, devkit):
    for path, location, name in zip(index.map_path, index.map_location, index.scene_name):
        scene = next(s for s in devkit.scene if s["name"] == name)
        log = devkit.get("log", scene["log_token"])
        assert path == devkit.get("map", log["map_token"])["filename"]
        assert location == log["location"] == "simulated-town"


def test_sensors_are_the_devkits(index, devkit):
    for s, token in enumerate(index.token):
        sample = devkit.get("sample", token)
        data, to_ego, to_global = reading(devkit, sample["data"][LIDAR])
        assert index.lidar_path[s] == data["filename"]
        assert index.lidar_timestamp[s] == data["timestamp"]
        np.testing.assert_allclose(index.lidar_to_ego[s], to_ego, atol=1e-12)
        np.testing.assert_allclose(index.lidar_ego_to_global[s], to_global, atol=1e-12)
        for c, channel in enumerate(CAMERAS):
            data, to_ego, to_global = reading(devkit, sample["data"][channel])
            assert index.camera_path[s, c] == data["filename"]
            assert index.image_size[s, c].tolist() == [32, 16]
            np.testing.assert_allclose(index.camera_to_ego[s, c], to_ego, atol=1e-12)
            np.testing.assert_allclose(index.camera_ego_to_global[s, c], to_global, atol=1e-12)
            np.testing.assert_array_equal(index.intrinsics[s, c], [[20, 0, 16], [0, 20, 8], [0, 0, 1]])


def test_sweeps_and_frames_follow_prev(index, devkit):
    assert index.sweep_count.tolist() == [0, 2, 3, 0, 2, 3]
    for s, token in enumerate(index.token):
        sample = devkit.get("sample", token)
        key, key_to_ego, key_to_global = reading(devkit, sample["data"][LIDAR])
        for k in range(3):
            if k >= index.sweep_count[s]:
                assert index.sweep_path[s, k] == ""
                assert np.isnan(index.sweep_to_lidar[s, k]).all()
                continue
            key, to_ego, to_global = reading(devkit, key["prev"])
            assert index.sweep_path[s, k] == key["filename"]
            assert index.sweep_timestamp[s, k] == key["timestamp"]
            expected = np.linalg.inv(key_to_global @ key_to_ego) @ to_global @ to_ego
            np.testing.assert_allclose(index.sweep_to_lidar[s, k], expected, atol=1e-9)
        for c, channel in enumerate(CAMERAS):
            data = devkit.get("sample_data", sample["data"][channel])
            for k in range(index.frame_count[s, c]):
                data, to_ego, to_global = reading(devkit, data["prev"])
                assert index.frame_path[s, c, k] == data["filename"]
                np.testing.assert_allclose(index.frame_ego_to_global[s, c, k], to_global, atol=1e-12)
            assert index.frame_count[s, c] == min(2, 2 * (s % 3))


def check_boxes(index: Index, devkit) -> None:
    """Every box against the devkit's `get_boxes` and `box_velocity`, moved by the one box type."""
    for s, token in enumerate(index.token):
        records = [devkit.get("sample_annotation", t) for t in devkit.get("sample", token)["anns"]]
        rows = {t: r for r, t in enumerate(index.box_token)}
        assert sorted(rows[r["token"]] for r in records) == list(range(*index.box_rows(s).indices(len(rows))))
        global_to_lidar = inverse(index.lidar_ego_to_global[s] @ index.lidar_to_ego[s])
        for record in records:
            row = rows[record["token"]]
            velocity = devkit.box_velocity(record["token"])
            expected = Boxes.from_nuscenes(
                [record["translation"]], [record["size"]], [record["rotation"]], [velocity], [0]
            ).moved(global_to_lidar)
            np.testing.assert_allclose(index.box_center[row], expected.centers[0], atol=1e-9)
            np.testing.assert_allclose(index.box_size[row], expected.sizes[0])
            np.testing.assert_allclose(index.box_yaw[row], expected.yaws[0], atol=1e-12)
            np.testing.assert_allclose(index.box_velocity[row], expected.velocities[0], rtol=1e-9)
            assert index.box_category[row] == record["category_name"]
            assert index.box_instance[row] == record["instance_token"]
            assert index.box_lidar_points[row] == record["num_lidar_pts"]
            assert index.box_radar_points[row] == record["num_radar_pts"]
            assert index.box_visibility[row] == int(record["visibility_token"])
            attributes = [devkit.get("attribute", t)["name"] for t in record["attribute_tokens"]]
            assert index.box_attribute[row] == "".join(attributes)


def test_boxes_are_the_devkits(index, devkit):
    check_boxes(index, devkit)
    assert np.isfinite(index.box_velocity).all(1).tolist().count(True) == 10  # all but the two lone animals
    labels = {"vehicle.car": "car", "human.pedestrian.adult": "pedestrian"}
    expected = [CLASSES.index(labels[c]) if c in labels else -1 for c in index.box_category]
    assert index.box_label.tolist() == expected


def test_velocity_is_unknown_over_more_than_three_seconds(world):
    def spread(rows):
        for row in rows:
            row["timestamp"] += 2_000_000 * int(row["token"][-1])

    world.edit("sample", spread)
    arrays, _, _ = ingest(world.root, world.version, IngestConfig())
    assert np.isnan(arrays["box_velocity"]).all()


def test_custom_splits(world):
    (world.root / world.version / "splits.json").write_text(
        json.dumps({"val": ["scene-0061", "elsewhere"], "mine": []})
    )
    arrays, attributes, _ = ingest(world.root, world.version, IngestConfig())
    assert arrays["split"].tolist() == [""] * 3 + ["val"] * 3
    assert attributes.split_names == {"val": "val"}


def test_a_big_table_read_in_pieces_is_the_same(pristine, monkeypatch):
    whole, _, _ = ingest(pristine.root, pristine.version, IngestConfig())
    monkeypatch.setattr(tables_module, "PIECE", 700)
    pieces, _, _ = ingest(pristine.root, pristine.version, IngestConfig())
    for name, value in whole.items():
        np.testing.assert_array_equal(pieces[name], value, err_msg=name)


@pytest.mark.parametrize("what", ["no annotations", "no sweeps", "empty val split", "no visibility", "no radar files"])
def test_what_is_no_fault(world, what):
    if what == "no annotations":
        for name in ("sample_annotation", "instance"):
            world.write(name, [])
    elif what == "no sweeps":
        world.edit("sample_data", lambda rows: rows.__setitem__(slice(None), [r for r in rows if r["is_key_frame"]]))
        world.edit("sample_data", lambda rows: [r.update(prev="", next="") for r in rows])
    elif what == "empty val split":
        world.edit("scene", lambda rows: rows[0].update(name="scene-0553"))
    elif what == "no visibility":
        world.edit("sample_annotation", lambda rows: [r.pop("visibility_token") for r in rows])
    else:
        world.file_of("RADAR_FRONT").unlink()
    arrays, _, _ = ingest(world.root, world.version, IngestConfig())
    assert len(arrays["token"]) == 6


def test_a_folder_without_the_version(world):
    with pytest.raises(UserError, match="no folder of tables"):
        ingest(world.root, "v1.0-trainval", IngestConfig())


def test_nothing_is_written_on_a_fault(world, tmp_path):
    world.file_of(LIDAR).unlink()
    with pytest.raises(DataError):
        run(IngestConfig(), Inputs(world.root, world.version), Place(tmp_path / "artifact"))
    assert not (tmp_path / "artifact").exists()


def test_what_is_odd_is_said_and_kept(drive, tmp_path, capsys):
    for table in ("sample", "sample_data"):  # ten times as fast
        drive.edit(table, lambda rows: [row.update(timestamp=row["timestamp"] // 10) for row in rows])
    drive.edit("category", lambda rows: [row.update(name=row["name"].replace("vehicle.car", "Car")) for row in rows])
    (tmp_path / "artifact").mkdir()
    summary = run(IngestConfig(), Inputs(drive.root, drive.version), Place(tmp_path / "artifact"))
    said, report = capsys.readouterr().err, (tmp_path / "artifact" / "report.md").read_text()
    assert {"ego_speed", "unknown_categories"} <= summary["warnings"].keys()
    for name, sentence in summary["warnings"].items():
        assert f"ingest: warning: {sentence}" in said
        assert f"- {name}: {sentence}." in report
    cars = summary["of_no_class"]["Car"]
    assert f"| of no class: Car | {cars} |" in report
    assert "| car | 0 |" in report
    assert sum(summary["classes"].values()) + cars == summary["boxes"]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real key frame is not beside the repository")
def test_the_real_key_frame(tmp_path):
    from nuscenes.nuscenes import NuScenes

    run(IngestConfig(), Inputs(REAL, "v1.0-mini"), Place(tmp_path))
    index = Index.open(tmp_path / "index.zarr")
    assert len(index) == 1
    assert len(index.box_token) == 68
    assert np.isnan(index.box_velocity).all()
    check_boxes(index, NuScenes("v1.0-mini", str(REAL), verbose=False))
