"""Cars with other cameras and another LiDAR than nuScenes': the same world must come out of their recordings."""

import shutil

import numpy as np
import pytest
import torch

from batches.frames import boxes_in_key_ego
from batches.lidar import sample_boxes
from common.errors import DataError, UserError
from finetune_world import World, world, world_of
from gallery.opened import open_dataroot
from in_parts import run_whole
from models.boxes import Boxes
from models.center_codes import PARTS
from models.geometry import inverse
from models.names import CAMERAS
from other_rig import FIVE, FIVE_IN_ORDER, RESIZED, SMALL, rewrite, turn, without_lidar
from storage.artifact import Artifact
from storage.depth import DepthReader
from storage.index import Index, write_index
from tasks.depth import run as depth
from tasks.depth.config import DepthConfig
from tasks.engine.stage import Inputs
from tasks.finetune.config import EvaluateConfig
from tasks.finetune.goals.detection import Detection
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest
from tasks.teacher.config import FitConfig
from tasks.teacher.fit import run as run_fit

__all__ = ["world"]

SEVEN = {name: [name] for name in CAMERAS} | {"CAM_FRONT": ["CAM_FRONT", "CAM_FRONT_TELE"]}
THREE = {"CAM_FRONT": ["c"], "CAM_FRONT_LEFT": ["b"], "CAM_BACK": ["a"]}
RIGS = {
    "five": (FIVE, SMALL, turn(45)),
    "seven": (SEVEN, (), turn(-120, 6, -9)),
    "three": (THREE, ("b", "c"), turn(10, -25, 15)),
}
IN_ORDER = {"five": FIVE_IN_ORDER, "seven": (*CAMERAS, "CAM_FRONT_TELE"), "three": ("a", "b", "c")}


@pytest.fixture(scope="module")
def other(world, tmp_path_factory):
    """The world of a rig by its name, made once."""
    made: dict[str, World] = {}

    def of(name: str) -> World:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = world_of(rewrite(world.inputs.dataroot, folder / "data", *RIGS[name]), folder)
        return made[name]

    return of


def old_places(name: str) -> list[int]:
    """Of each camera of a rig the number of the one that it was made from."""
    made_from = {new: old for old, names in RIGS[name][0].items() for new in names}
    return [CAMERAS.index(made_from[camera]) for camera in IN_ORDER[name]]


def global_boxes(world: World, sample: int) -> Boxes:
    index, rows = world.index, world.index.box_rows(sample)
    values = (getattr(index, f"box_{name}")[rows] for name in ("center", "size", "yaw", "velocity", "label"))
    return Boxes(*values).levelled(index.lidar_to_global(sample))


def assert_same(found: Boxes, expected: Boxes) -> None:
    np.testing.assert_allclose(found.centers, expected.centers, atol=1e-6)
    np.testing.assert_allclose(np.exp(1j * found.yaws), np.exp(1j * expected.yaws), atol=1e-7)
    np.testing.assert_allclose(found.velocities, expected.velocities, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.labels)


@pytest.mark.parametrize("name", RIGS)
def test_cameras_are_those_of_the_tables_in_their_order(world, other, name):
    index, old = other(name).index, old_places(name)
    assert index.cameras == IN_ORDER[name]
    small = np.isin(index.cameras, RIGS[name][1])
    assert len(set(map(tuple, index.image_size[0].tolist()))) == (2 if small.any() else 1)
    np.testing.assert_array_equal(
        index.image_size, world.index.image_size[:, old] * np.where(small, RESIZED, 1)[:, None]
    )
    np.testing.assert_allclose(index.camera_to_global(0), world.index.camera_to_global(0)[old], atol=1e-9)


@pytest.mark.parametrize("name", RIGS)
def test_boxes_stand_where_they_stood(world, other, name):
    for sample in range(len(world.index)):
        assert len(world.index.box_token[world.index.box_rows(sample)]) > 10
        assert_same(global_boxes(other(name), sample), global_boxes(world, sample))
        ours, theirs = (
            boxes_in_key_ego(w.index, sample, sample_boxes(w.index, sample, 0)) for w in (other(name), world)
        )
        assert_same(ours, theirs)
    turned = inverse(world.index.lidar_to_ego[0]) @ other(name).index.lidar_to_ego[0]
    np.testing.assert_allclose(turned[:3, :3], RIGS[name][2], atol=1e-6)  # else the test would say nothing


@pytest.mark.parametrize("name", RIGS)
def test_points_fall_on_the_pixels_that_they_fell_on(world, other, name):
    """All but those at an image's border, where rounding decides."""
    before, after = (DepthReader(w.inputs["depth"].path / "depth.zarr") for w in (world, other(name)))
    assert after.cameras == IN_ORDER[name]
    for sample in range(len(world.index)):
        olds, news = before.read(sample), after.read(sample)
        for camera, old in enumerate(old_places(name)):
            scale = RESIZED if after.cameras[camera] in RIGS[name][1] else 1.0
            one, two = np.stack(olds.camera(old), 1), np.stack(news.camera(camera), 1) / [scale, scale, 1]
            size = world.index.image_size[sample, old]
            one, two = (p[((p[:, :2] > 3) & (p[:, :2] < size - 3)).all(1)] for p in (one, two))
            assert len(one) == len(two) > 50
            np.testing.assert_allclose(two, one, atol=0.01)  # in scan order


def perfect(head, boxes):
    """The predictions that say exactly what the head's own targets ask for."""
    predictions = []
    for heatmap, codes, cells, used in head.targets([boxes]):
        maps = torch.zeros(1, 10, heatmap[0, 0].numel())
        maps[0, :, cells[0, used[0]]] = codes[0, used[0]].nan_to_num().T
        parts = maps.unflatten(2, heatmap.shape[2:]).split(list(PARTS.values()), 1)
        logits = torch.logit(heatmap.clamp(1e-4, 1 - 1e-4))
        predictions.append(dict(zip(PARTS, parts)) | {"heatmap": logits})
    return predictions


def scores_of_truth(world: World, folder) -> dict:
    """The official scores of true boxes that were drawn as the head's targets, and read again as its predictions."""
    evaluate = EvaluateConfig(score_threshold=0.9, nms="circle")
    config = world.configured(bev_cell=0.8)
    goal = Detection(config, world.index, world.inputs.dataroot, evaluate)
    head = Detection.head(config, evaluate)
    low, high = np.array(head.spec.bev_range[:2]), np.array(head.spec.bev_range[3:5])

    def results():
        for sample in world.index.samples("val").tolist():
            boxes = boxes_in_key_ego(world.index, sample, sample_boxes(world.index, sample, 1))
            boxes = boxes[boxes.centred_in(low, high)]
            yield sample, head.predict(perfect(head, boxes))[0], None

    folder.mkdir()
    scores = goal.evaluate(goal.collected(results()), folder)
    assert scores is not None
    return scores


def test_truth_through_the_head_scores_as_before(world, other, tmp_path):
    before = scores_of_truth(world, tmp_path / "before")
    assert before["mAP"] > 0.5
    for name in RIGS:
        after = scores_of_truth(other(name), tmp_path / name)
        assert after["predictions"] == before["predictions"]
        for score in ("mAP", "NDS", "mATE", "mASE", "mAOE", "mAVE"):
            assert after[score] == pytest.approx(before[score], abs=1e-6), (name, score)


def test_a_detector_is_trained_and_scored_on_five_cameras(other, tmp_path):
    five = other("five")
    trained = five.finetune(tmp_path / "trained")
    folder, summary = five.evaluate(tmp_path / "scored", trained)
    assert 0 <= summary["mAP"] <= 1
    assert (folder / "detections_1.png").is_file()


def test_finetuning_and_evaluation_need_no_lidar_file(world, tmp_path):
    """The detector of images alone is the same; a stage that reads points says in a sentence that there are none."""
    data = tmp_path / "data"
    shutil.copytree(world.inputs.dataroot, data, ignore=shutil.ignore_patterns("LIDAR_TOP"))
    arrays, attributes, _ = ingest(data, "v1.0-mini", IngestConfig(lidar=False))
    artifacts = dict(world.inputs.artifacts) | {"ingest": Artifact(tmp_path, "ingest", "ingest")}
    artifacts["ingest"].path.mkdir(parents=True)
    write_index(artifacts["ingest"].path / "index.zarr", arrays, attributes)
    inputs = Inputs(data, "v1.0-mini", artifacts)
    told = r"^depth reads the LiDAR's files, .*: set ingest\.lidar=true where there are any; finetuning reads none"
    with pytest.raises(UserError, match=told):
        run_whole(depth, DepthConfig(sweeps=0, workers=1), inputs, Artifact(tmp_path, "depth", "depth"))
    with pytest.raises(UserError, match=r"^fit reads the LiDAR's files"):
        run_fit(FitConfig(), inputs, Artifact(tmp_path, "fit", "fit"))
    del artifacts["depth"]
    trained = world.finetune(tmp_path / "trained", inputs=inputs, depth_weight=0.0)
    folder, summary = world.evaluate(tmp_path / "scored", trained, inputs=inputs, depth_weight=0.0)
    alike = world.finetune(tmp_path / "alike", inputs=world.without("depth"), depth_weight=0.0)
    assert summary == world.evaluate(tmp_path / "alike", alike, inputs=world.without("depth"), depth_weight=0.0)[1]
    assert (folder / "detections_1.png").is_file()


@pytest.fixture(scope="module")
def blind(world, tmp_path_factory) -> World:
    """The world of a car that has no LiDAR."""
    folder = tmp_path_factory.mktemp("blind")
    data = without_lidar(world.inputs.dataroot, folder / "data")
    arrays, attributes, facts = ingest(data, "v1.0-mini", IngestConfig(lidar=False))
    assert facts["warnings"]["no_lidar"].startswith("the tables have no LIDAR_TOP: ")
    ingested = Artifact(folder, "ingest", "ingest")
    ingested.path.mkdir(parents=True)
    write_index(ingested.path / "index.zarr", arrays, attributes)
    artifacts = {"ingest": ingested, "pretrain": world.inputs.artifacts["pretrain"]}
    index = Index.open(ingested.path / "index.zarr")
    return World(Inputs(data, "v1.0-mini", artifacts), index, world.configured(depth_weight=0.0))


def test_without_a_lidar_the_nearest_key_frame_says_where_the_car_was(world, blind):
    index = blind.index
    nearest = np.abs(index.camera_timestamp - index.timestamp[:, None]).argmin(1)
    rows = np.arange(len(index))
    np.testing.assert_array_equal(index.lidar_ego_to_global, index.camera_ego_to_global[rows, nearest])
    np.testing.assert_array_equal(index.lidar_timestamp, index.camera_timestamp[rows, nearest])
    assert not np.array_equal(index.lidar_timestamp, world.index.lidar_timestamp)  # else the test would say nothing
    for sample in range(len(index)):
        assert_same(global_boxes(blind, sample), global_boxes(world, sample))
        assert len(sample_boxes(index, sample, 1)) == len(sample_boxes(index, sample)) > 0
    np.testing.assert_allclose(
        index.lidar_to_ego, world.index.lidar_to_ego, atol=0.05
    )  # the simulated car is nuScenes'


def test_without_a_lidar_a_detector_is_trained_and_scored(world, blind, tmp_path):
    trained = blind.finetune(tmp_path / "trained")
    folder, summary = blind.evaluate(tmp_path / "scored", trained)
    assert 0 <= summary["mAP"] <= 1
    assert (folder / "detections_1.png").is_file()
    assert scores_of_truth(blind, tmp_path / "truth")["mAP"] > 0.5


def test_what_needs_a_lidar_that_is_not_there_says_so(blind, tmp_path):
    inputs = blind.inputs
    with pytest.raises(DataError, match=r"no sensor is LIDAR_TOP \(.*where there is no LiDAR, set ingest\.lidar=false"):
        ingest(inputs.dataroot, inputs.version, IngestConfig())
    with pytest.raises(
        UserError, match=r"^depth reads the LiDAR's files, .* where there are any; finetuning reads none"
    ):
        run_whole(depth, DepthConfig(sweeps=0, workers=1), inputs, Artifact(tmp_path, "depth", "depth"))
    with pytest.raises(UserError, match=r"^fit reads the LiDAR's files"):
        run_fit(FitConfig(), inputs, Artifact(tmp_path, "fit", "fit"))


def test_a_dataroot_without_a_lidar_can_be_looked_at(blind):
    index = open_dataroot(blind.inputs.dataroot, "v1.0-mini").index
    assert index.token.tolist() == blind.index.token.tolist()
