"""The written world, as the devkit reads and scores it."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from nuscenes import NuScenes
from nuscenes.eval.detection.config import config_factory
from nuscenes.eval.detection.evaluate import DetectionEval
from nuscenes.utils.data_classes import LidarPointCloud
from nuscenes.utils.geometry_utils import points_in_box
from pyquaternion import Quaternion

from common.errors import UserError
from models.names import CAMERAS, CATEGORY_TO_CLASS, CLASSES, LIDAR, OCCUPANCY_CLASSES
from models.occupancy import LOW, SHAPE, VOXEL, occupancy_path
from simulate.config import SimulateConfig
from simulate.rig import RIG
from simulate.write import simulate

CONFIG = SimulateConfig(keyframes=3, image_scale=0.1, lidar_rate=4, camera_sweeps=True, workers=1)
SCENES = ("scene-0061", "scene-0916")


@pytest.fixture(scope="module")
def dataroot(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("simulated") / "world"
    summary = simulate(CONFIG, out, SCENES)
    assert summary["scenes"] == 2
    assert summary["samples"] == 6
    return out


@pytest.fixture(scope="module")
def nusc(dataroot) -> NuScenes:
    return NuScenes("v1.0-mini", str(dataroot), verbose=False)


def digests(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_same_config_same_bytes_in_any_number_of_processes(dataroot, tmp_path):
    before = dict(os.environ)
    simulate(CONFIG.model_copy(update={"workers": 2}), tmp_path / "again", SCENES)
    assert dict(os.environ) == before
    assert digests(dataroot) == digests(tmp_path / "again")


def test_another_seed_is_another_town(dataroot, tmp_path):
    config = SimulateConfig(seed=1, keyframes=2, image_scale=0.05, lidar_rate=2, workers=1)
    simulate(config, tmp_path / "other", SCENES[:1])
    mine, other = (json.loads((p / "v1.0-mini" / "ego_pose.json").read_text()) for p in (dataroot, tmp_path / "other"))
    assert mine[0]["translation"] != other[0]["translation"]


def test_points_are_counted_as_the_devkit_does(nusc):
    counted = 0
    for sample in nusc.sample:
        path, boxes, _ = nusc.get_sample_data(sample["data"][LIDAR])
        points = LidarPointCloud.from_file(path).points[:3]
        for box in boxes:
            want = nusc.get("sample_annotation", box.token)["num_lidar_pts"]
            assert points_in_box(box, points).sum() == want
            counted += want
    assert counted > 1000


def test_ground_truth_scores_one(nusc, tmp_path):
    results = {}
    for sample in nusc.sample:
        if nusc.get("scene", sample["scene_token"])["name"] != "scene-0916":
            continue
        results[sample["token"]] = [detection(nusc, token) for token in sample["anns"]]
    path = tmp_path / "submission.json"
    modalities = dict.fromkeys(("use_camera", "use_lidar", "use_radar", "use_map", "use_external"), False)
    path.write_text(json.dumps({"meta": modalities, "results": results}))
    evaluation = DetectionEval(
        nusc, config_factory("detection_cvpr_2019"), str(path), "mini_val", str(tmp_path / "out"), verbose=False
    )
    metrics, _ = evaluation.evaluate()
    metrics = metrics.serialize()
    assert {box.detection_name for box in evaluation.gt_boxes.all} == set(CLASSES)
    assert metrics["mean_ap"] == pytest.approx(1.0)
    assert metrics["nd_score"] == pytest.approx(1.0)


def detection(nusc: NuScenes, token: str) -> dict:
    record = nusc.get("sample_annotation", token)
    attribute = record["attribute_tokens"]
    return {
        "sample_token": record["sample_token"],
        "translation": record["translation"],
        "size": record["size"],
        "rotation": record["rotation"],
        "velocity": nusc.box_velocity(token)[:2].tolist(),
        "detection_name": CATEGORY_TO_CLASS[record["category_name"]],
        "detection_score": 1.0,
        "attribute_name": nusc.get("attribute", attribute[0])["name"] if attribute else "",
    }


def test_velocities_are_known_and_fit_the_attributes(nusc):
    for record in nusc.sample_annotation:
        speed = np.linalg.norm(nusc.box_velocity(record["token"])[:2])
        attribute = nusc.get("attribute", record["attribute_tokens"][0])["name"] if record["attribute_tokens"] else ""
        moving = attribute in ("vehicle.moving", "cycle.with_rider", "pedestrian.moving")
        assert 0.5 < speed < 15 if moving else speed < 1e-6


def test_instances_are_chains(nusc):
    for instance in nusc.instance:
        token, length, last = instance["first_annotation_token"], 0, ""
        while token:
            record = nusc.get("sample_annotation", token)
            assert record["prev"] == last
            assert record["instance_token"] == instance["token"]
            last, token, length = token, record["next"], length + 1
        assert last == instance["last_annotation_token"]
        assert length == instance["nbr_annotations"] >= 2


@pytest.mark.parametrize("channel", [LIDAR, *CAMERAS])
def test_frames_of_a_sensor(nusc, dataroot, channel):
    frames_a_key = 2 if channel == LIDAR else 6
    delay = 0.0 if channel == LIDAR else RIG[CAMERAS.index(channel)].delay
    for scene in nusc.scene:
        sample = nusc.get("sample", scene["first_sample_token"])
        frame = nusc.get("sample_data", sample["data"][channel])
        assert frame["prev"] == ""
        frames = [frame]
        while frame["next"]:
            frame = nusc.get("sample_data", frame["next"])
            frames.append(frame)
        stamps = np.array([f["timestamp"] for f in frames])
        assert len(frames) == 2 * frames_a_key + 1
        assert np.allclose(np.diff(stamps) * 1e-6, 0.5 / frames_a_key, atol=1e-5)
        assert stamps[0] - sample["timestamp"] == round(delay * 1e6)
        assert [f["is_key_frame"] for f in frames] == [i % frames_a_key == 0 for i in range(len(frames))]
        assert all(f["filename"].startswith("samples/" if f["is_key_frame"] else "sweeps/") for f in frames)
        for f in frames:
            path = dataroot / f["filename"]
            if channel == LIDAR:
                assert path.stat().st_size % 20 == 0
            else:
                assert simplejpeg.decode_jpeg_header(path.read_bytes())[:2] == (f["height"], f["width"]) == (90, 160)


def test_ego_drives_on_the_drivable_area(nusc):
    for scene in nusc.scene:
        mask = nusc.get("map", nusc.get("log", scene["log_token"])["map_token"])["mask"]
        sample = nusc.get("sample", scene["first_sample_token"])
        x, y, _ = nusc.get("ego_pose", sample["data"][LIDAR])["translation"]
        assert mask.is_on_mask(x, y).all()
        assert 0.05 < (mask.mask() > 0).mean() < 0.7


def test_occupancy_is_there_for_every_sample(nusc, dataroot):
    """Occ3D's files; what the cameras see of the road is where the map says one can drive."""
    on_road = []
    for sample in nusc.sample:
        scene = nusc.get("scene", sample["scene_token"])
        with np.load(dataroot / occupancy_path(scene["name"], sample["token"])) as file:
            arrays = {name: file[name] for name in file.files}
        assert set(arrays) == {"semantics", "mask_lidar", "mask_camera"}
        assert {(a.shape, a.dtype) for a in arrays.values()} == {(SHAPE, np.dtype(np.uint8))}
        assert set(np.unique(arrays["mask_camera"])) == set(np.unique(arrays["mask_lidar"])) == {0, 1}
        pose = nusc.get("ego_pose", nusc.get("sample_data", sample["data"][LIDAR])["ego_pose_token"])
        drivable = arrays["semantics"] == OCCUPANCY_CLASSES.index("driveable_surface")
        road = np.argwhere(drivable & (arrays["mask_camera"] > 0))
        centres = np.array(LOW) + (road + 0.5) * VOXEL
        x, y, _ = (centres @ Quaternion(pose["rotation"]).rotation_matrix.T + pose["translation"]).T
        mask = nusc.get("map", nusc.get("log", scene["log_token"])["map_token"])["mask"]
        on_road.append(mask.is_on_mask(x, y))
        assert len(road) > 1000
    assert np.concatenate(on_road).mean() > 0.98


def test_visibility_uses_all_levels(nusc):
    tokens = [a["visibility_token"] for a in nusc.sample_annotation]
    assert set(tokens) == {"1", "2", "3", "4"}
    assert tokens.count("4") > len(tokens) / 4


def test_a_finished_world_is_left_alone_and_others_are_refused(dataroot, tmp_path):
    before = digests(dataroot)
    assert simulate(CONFIG, dataroot, SCENES)["samples"] == 6
    assert digests(dataroot) == before
    with pytest.raises(UserError, match=r"seed 0 -> 7"):
        simulate(CONFIG.model_copy(update={"seed": 7}), dataroot, SCENES)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="not empty"):
        simulate(CONFIG, tmp_path / "photos", SCENES)
    with pytest.raises(UserError, match="is a file"):
        simulate(CONFIG, tmp_path / "photos" / "cat.jpg", SCENES)


def test_an_interrupted_world_is_started_afresh(tmp_path):
    out = tmp_path / "world"
    (out / "samples" / "CAM_FRONT").mkdir(parents=True)
    (out / "samples" / "CAM_FRONT" / "half.jpg").write_bytes(b"x")
    (out / "simulating.json").write_text("{")
    config = SimulateConfig(keyframes=2, image_scale=0.05, lidar_rate=2, workers=1)
    simulate(config, out, SCENES[:1])
    assert not (out / "samples" / "CAM_FRONT" / "half.jpg").exists()
    assert (out / "simulated.json").is_file()
    assert not (out / "simulating.json").exists()


def test_another_kind_of_cpu_writes_the_same_tables(tmp_path):
    """So that keys are the same on every machine: BLAS adds in another order on each, and some have no FMA."""
    from simulate.write import __file__ as module

    code = (
        "from pathlib import Path; from simulate.config import SimulateConfig; from simulate.write import simulate; "
        "simulate(SimulateConfig(keyframes=3, image_scale=0.05, lidar_rate=2, workers=1, occupancy=False), "
        f"Path('OUT'), {SCENES[:1]!r})"
    )
    kinds = {
        "as it is": {},
        "old": {"OPENBLAS_CORETYPE": "Nehalem", "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-AVX2_Usable"}
        | {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX"},
    }
    tables = {}
    for kind, variables in kinds.items():
        out = tmp_path / kind
        done = subprocess.run(
            [sys.executable, "-c", code.replace("OUT", str(out))],
            env={**os.environ, **variables},
            cwd=Path(module).parents[1],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        tables[kind] = {path.name: path.read_text() for path in sorted((out / "v1.0-mini").glob("*.json"))}
    assert len(tables["old"]) == 13
    assert tables["old"] == tables["as it is"]
