"""Logs of py123d, written by its own writer: what the devkit and ingest find in the dataroot that is made of them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

pytest.importorskip("py123d", reason="py123d is not installed: geomim import says how")

from nuscenes import NuScenes
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion

import py123d_logs as made
from children import children_with
from common.errors import DataError, UserError
from dataroot.imported.write import TABLES, import_logs
from driver import wait_for
from models.geometry import apply, inverse, transform
from models.names import CLASSES, LIDAR
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

REPOSITORY = Path(__file__).parents[3]
CAMERAS = {"ring_front": "ring front", "side": "side"}  # channel -> py123d's name
THINGS = dict(zip(("vehicle.car", "human.pedestrian.adult", "bollard"), made.THINGS, strict=True))
KEYS = (0, 5, 10, 15)  # the rows that are half a second apart


@pytest.fixture(scope="module")
def logs(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("py123d") / "logs"
    made.write_log(root, "made_train", "log-a")
    made.write_log(root, "made_train", "log-b")
    made.write_log(root, "made_val", "log-c", stored="png_binary")
    return root


@pytest.fixture(scope="module")
def imported(logs, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("imported") / "world"
    return out, import_logs(logs, out)


@pytest.fixture
def one_core():
    """What is imported then is imported in this process: others take seconds to begin."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def nusc(imported) -> NuScenes:
    return NuScenes(TABLES, str(imported[0]), verbose=False)


def samples_of(nusc, scene: str) -> list[dict]:
    (record,) = (s for s in nusc.scene if s["name"] == scene)
    out, token = [], record["first_sample_token"]
    while token:
        out.append(nusc.get("sample", token))
        token = out[-1]["next"]
    assert len(out) == record["nbr_samples"]
    assert out[-1]["token"] == record["last_sample_token"]
    return out


def sensor_to_global(nusc, data: dict) -> np.ndarray:
    ego, mounted = (nusc.get(t, data[f"{t}_token"]) for t in ("ego_pose", "calibrated_sensor"))
    return transform(ego["rotation"], ego["translation"]) @ transform(mounted["rotation"], mounted["translation"])


def test_key_frames_are_half_a_second_apart_at_the_time_of_their_points(nusc, imported):
    assert imported[1]["samples"] == 3 * len(KEYS)
    for scene in ("log-a", "log-b", "log-c"):
        samples = samples_of(nusc, scene)
        assert [s["timestamp"] for s in samples] == [made.pose_time(row) for row in KEYS]
        for sample, row in zip(samples, KEYS):
            for channel, name in CAMERAS.items():
                data = nusc.get("sample_data", sample["data"][channel])
                late = made.row_time(row) + made.CAMERA_LATE[name]
                assert data["timestamp"] == nusc.get("ego_pose", data["ego_pose_token"])["timestamp"] == late


def test_sweeps_between_are_chained_to_the_last_key_frame(nusc, imported):
    assert imported[1]["sweeps"] == 3 * (KEYS[-1] + 1)
    data, times = nusc.get("sample_data", samples_of(nusc, "log-b")[-1]["data"][LIDAR]), []
    while True:
        times.append(data["timestamp"])
        assert data["filename"].startswith("samples/" if data["is_key_frame"] else "sweeps/")
        assert nusc.get("sample", data["sample_token"])["timestamp"] - times[-1] in range(-200_000, 200_001)
        if not data["prev"]:
            break
        data = nusc.get("sample_data", data["prev"])
    assert times[::-1] == [made.pose_time(row) for row in range(KEYS[-1] + 1)]


def test_the_lidar_stands_where_it_is_mounted_with_nuscenes_axes(nusc):
    data = nusc.get("sample_data", samples_of(nusc, "log-a")[0]["data"][LIDAR])
    mounted = nusc.get("calibrated_sensor", data["calibrated_sensor_token"])
    lidar_to_ego = transform(mounted["rotation"], mounted["translation"])
    ego_to_imu = made.REAR_AXLE_TO_IMU
    assert (ego_to_imu @ lidar_to_ego)[:3, 3] == pytest.approx(made.LIDAR_TO_IMU[:3, 3], abs=1e-9)
    assert lidar_to_ego[:3, :3] == pytest.approx(np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]]), abs=1e-9)


def test_points_are_where_they_were(nusc, imported):
    for row, sample in zip(KEYS, samples_of(nusc, "log-a")):
        data = nusc.get("sample_data", sample["data"][LIDAR])
        points = np.fromfile(imported[0] / data["filename"], np.float32).reshape(-1, 5)
        given = made.sweep(row)
        placed = apply(sensor_to_global(nusc, data), points[:, :3].astype(np.float64))
        expected = apply(made.imu_to_global(made.pose_time(row)), given.xyz.astype(np.float64))
        assert placed == pytest.approx(expected, abs=1e-4)
        assert placed[-1] == pytest.approx(made.PLACE + made.LANDMARK, abs=1e-4)
        assert (points[:, 3] == given.intensity).all()
        assert (points[:, 4] == given.channel).all()


@pytest.mark.parametrize("scene", ["log-a", "log-c"])  # as JPEG, as PNG
@pytest.mark.parametrize("channel", CAMERAS)
def test_a_point_of_the_cloud_is_seen_where_it_projects_to(nusc, imported, channel, scene):
    """Through all four transforms and the intrinsics alone: of the lens that bends, what it bent is taken out."""
    for sample in samples_of(nusc, scene):
        lidar, camera = (nusc.get("sample_data", sample["data"][name]) for name in (LIDAR, channel))
        points = np.fromfile(imported[0] / lidar["filename"], np.float32).reshape(-1, 5)[-1:, :3].astype(np.float64)
        there = apply(inverse(sensor_to_global(nusc, camera)) @ sensor_to_global(nusc, lidar), points)
        mounted = nusc.get("calibrated_sensor", camera["calibrated_sensor_token"])
        u, v, z = np.array(mounted["camera_intrinsic"]) @ there[0]
        image = np.asarray(Image.open(imported[0] / camera["filename"]).convert("L"), float)
        assert image.shape == (made.SIZE[1], made.SIZE[0]) == (camera["height"], camera["width"])
        bright = np.argwhere(image > 200).mean(0)
        assert z > 0
        assert bright[::-1] == pytest.approx([u / z, v / z], abs=0.6)


def test_a_jpeg_that_needs_nothing_is_the_original(nusc, imported):
    sample = samples_of(nusc, "log-a")[1]
    path = imported[0] / nusc.get("sample_data", sample["data"]["ring_front"])["filename"]
    assert path.read_bytes() == made.images(KEYS[1])[0]._byte_string


def test_boxes_are_those_that_were_put_in(nusc):
    for row, sample in zip(KEYS, samples_of(nusc, "log-c")):
        assert len(sample["anns"]) == len(made.THINGS)
        points = LidarPointCloud.from_file(nusc.get_sample_data_path(sample["data"][LIDAR])).points[:3]
        _, in_lidar, _ = nusc.get_sample_data(sample["data"][LIDAR])
        for token, seen in zip(sample["anns"], in_lidar):
            record, box = nusc.get("sample_annotation", token), nusc.get_box(token)
            thing = THINGS[record["category_name"]]
            assert box.center == pytest.approx(thing.center(made.pose_time(row)), abs=1e-6)
            assert box.wlh == pytest.approx(np.array(thing.size)[[1, 0, 2]])
            assert Quaternion(record["rotation"]).yaw_pitch_roll[0] == pytest.approx(thing.yaw, abs=1e-9)
            assert record["num_lidar_pts"] == thing.points == points_in_box(seen, points).sum()


def test_an_object_is_one_instance_with_its_velocity(nusc):
    assert len(nusc.instance) == 3 * len(made.THINGS)
    for record in nusc.instance:
        annotation, count = nusc.get("sample_annotation", record["first_annotation_token"]), 0
        thing = THINGS[nusc.get("category", record["category_token"])["name"]]
        while True:
            count += 1
            assert nusc.box_velocity(annotation["token"])[:2] == pytest.approx(thing.velocity, abs=1e-6)
            if not annotation["next"]:
                break
            annotation = nusc.get("sample_annotation", annotation["next"])
        assert count == record["nbr_annotations"] == len(KEYS)
        assert annotation["token"] == record["last_annotation_token"]


def test_ingest_takes_it(imported, tmp_path):
    config = IngestConfig(sweeps=3, cameras=("side", "ring_front"), classes={"bollard": "barrier"}, deep=True)
    arrays, attributes, summary = ingest(imported[0], TABLES, config, tmp_path)
    assert list(attributes.cameras) == ["side", "ring_front"]
    assert np.unique(arrays["split"], return_counts=True)[1].tolist() == [2 * len(KEYS), len(KEYS)]
    assert {CLASSES[label] for label in arrays["box_label"]} == {"car", "pedestrian", "barrier"}
    odd = {"camera_axes", "ego_speed", "attributes"} & set(summary.get("warnings", {}))
    assert not odd, summary["warnings"]


def test_what_is_said(imported):
    summary = imported[1]
    assert summary["splits"] == {"train": 2, "val": 1}
    assert summary["cameras"] == ["ring_front", "side"]
    assert summary["categories"]["BOLLARD"] == {"category": "bollard", "boxes": 3 * len(KEYS)}
    told = " ".join(summary["said"])
    for words in (
        "2 LiDARs",
        "up",
        "side: the lens's distortion",
        "camera fish (fisheye_mei) is left out",
        "bollard (",
    ):
        assert words in told
    assert "validation" not in told


def test_splits_by_name(logs, tmp_path, one_core):
    import_logs(logs, tmp_path / "world", rate=1, val=["log-a"])
    splits = json.loads((tmp_path / "world" / TABLES / "splits.json").read_text())
    assert splits == {"train": ["log-b", "log-c"], "val": ["log-a"]}


def stamps(out: Path, scene: str) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in out.glob(f"s*/*/{scene}__*")}


def test_a_finished_import_is_left_and_another_is_refused(imported, logs):
    out, summary = imported
    before = stamps(out, "log-a")
    assert import_logs(logs, out) == summary | {"seconds": 0.0}
    assert stamps(out, "log-a") == before
    with pytest.raises(UserError, match="holds an import of other logs or options"):
        import_logs(logs, out, rate=5)


def test_killed_it_leaves_nothing_that_opens_and_goes_on(imported, logs, tmp_path):
    out = tmp_path / "world"
    command = [sys.executable, "-m", "flows.cli", "import", str(logs), str(out)]
    process = subprocess.Popen(command, cwd=REPOSITORY)
    while not (finished := list(out.glob(".parts/*.json"))):
        assert process.poll() is None
        time.sleep(0.001)
    workers = children_with("spawn_main", psutil.Process(process.pid))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(workers, timeout=30)[1]  # that go on
    assert not (out / TABLES).exists()
    before = {path: stamps(out, path.stem) for path in finished}
    summary = import_logs(logs, out)
    assert {path: stamps(out, path.stem) for path in finished} == before
    assert summary | {"seconds": 0} == imported[1] | {"seconds": 0}
    for file in (imported[0] / TABLES).iterdir():
        assert (out / TABLES / file.name).read_bytes() == file.read_bytes()
    assert not (out / ".parts").exists()


def test_a_worker_that_was_killed_is_one_sentence(logs, tmp_path):
    """As where memory is short."""
    out = tmp_path / "world"
    command = [sys.executable, "-m", "flows.cli", "import", str(logs), str(out)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: children_with("spawn_main", psutil.Process(process.pid)))[0].kill()
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert told.splitlines()[-1].startswith("geomim: import: one of its processes was killed, most likely for lack of ")
    assert "Traceback" not in told


def test_a_log_of_the_same_name_from_elsewhere_is_another(tmp_path, one_core):
    """What an import that was stopped has of it is not taken for it."""
    out = tmp_path / "world"
    for root, name in (("one", "log"), ("one", "log-without"), ("other", "log")):
        made.write_log(tmp_path / root, "made_val", name, lidar=name == "log", boxes=root == "one")
    with pytest.raises(DataError, match="without a LiDAR"):
        import_logs(tmp_path / "one", out)
    assert (out / ".parts" / "log.json").is_file()
    assert import_logs(tmp_path / "other", out)["annotations"] == 0


def test_a_log_that_lacks_something_is_named_and_can_be_left_out(tmp_path, one_core):
    root, out = tmp_path / "logs", tmp_path / "world"
    made.write_log(root, "made_train", "good", boxes=False)
    made.write_log(root, "made_train", "no-lidar", lidar=False)
    with pytest.raises(DataError, match=r"no-lidar: is a log without a LiDAR; leave it out with --leave-out no-lidar$"):
        import_logs(root, out)
    assert not (out / TABLES).exists()
    broken = Path(shutil.copytree(root / "made_train" / "good", root / "made_train" / "broken"))
    (broken / "sync.arrow").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"broken: cannot be read by py123d \(.*--leave-out broken$"):
        import_logs(root, out, leave_out=["no-lidar"])
    summary = import_logs(root, out, leave_out=["no-lidar", "broken"])
    assert summary["annotations"] == 0
    assert "no log has boxes" in " ".join(summary["said"])
    assert "no scene is for validation" in " ".join(summary["said"])


def test_mistakes(logs, tmp_path):
    with pytest.raises(UserError, match=r"holds no logs of py123d"):
        import_logs(tmp_path, tmp_path / "world")
    with pytest.raises(UserError, match=r"--val log-z: is none of what .* holds: made_train, made_val, log-a"):
        import_logs(logs, tmp_path / "world", val=["log-z"])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is not empty and no import"):
        import_logs(logs, tmp_path)
    with pytest.raises(UserError, match="is a file"):
        import_logs(logs, tmp_path / "file")
