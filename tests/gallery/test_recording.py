"""A scene for Rerun's viewer, read back by Rerun's own reader; what is said without it needs no Rerun."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError, UserError
from dataroot.points import load_points
from gallery.look import Gallery, Look
from gallery.opened import open_artifact
from gallery.page.shelf import Shelf
from gallery.recording import LIDAR, PACKAGES, rerun_package, with_scene, write_recording
from models.geometry import apply, quaternion_to_rotation, transform
from pictures.palette import PURPLE

CAMERA = "world/ego/CAM_BACK_LEFT"
EVERY = 0.0  # score: all predicted boxes are shown


class Read:
    """A recording: columns of an entity by sample."""

    def __init__(self, path):
        self._recording = pytest.importorskip("rerun").dataframe.load_recording(path)
        self.entities = {c.entity_path.strip("/") for c in self._recording.schema().component_columns()}

    def __call__(self, entity, component):
        """Sample -> the values of a component that the viewer shows then: the last that were logged."""
        table = self._recording.view(index="sample", contents=f"/{entity}").fill_latest_at().select().read_all()
        column = f"/{entity}:{component}"
        values = table.column(column).to_pylist() if column in table.column_names else [None] * len(table)
        return {sample: value or [] for sample, value in zip(table.column("sample").to_pylist(), values)}

    def times(self):
        table = self._recording.view(index="sample", contents="/world/ego").select().read_all()
        return dict(zip(table.column("sample").to_pylist(), np.array(table.column("time")).astype("datetime64[us]")))

    def static(self, entity, name):
        table = self._recording.view(index="sample", contents=f"/{entity}").select_static().read_all()
        return table.column(f"/{entity}:{name}").to_pylist()[0]

    def transform(self, entity, sample):
        """(4, 4) to the entity above."""
        columns = np.reshape(self(entity, "TransformMat3x3")[sample], (3, 3))  # Rerun keeps columns
        return transform(columns.T, np.array(self(entity, "Translation3D")[sample][0]))


@pytest.fixture(scope="module")
def gallery(finished):
    return Gallery(open_artifact(finished[0].path("evaluate")))


@pytest.fixture(scope="module")
def scene(gallery):
    index = gallery.opened.index
    return str(index.scene_name[index.scene[gallery.opened.samples[0]]])


@pytest.fixture(scope="module")
def samples(gallery, scene):
    index = gallery.opened.index
    return [int(s) for s in gallery.opened.samples if index.scene_name[index.scene[s]] == scene]


@pytest.fixture(scope="module")
def read(gallery, scene, samples, tmp_path_factory):
    pytest.importorskip("rerun")
    out = tmp_path_factory.mktemp("recording") / "scene.rrd"
    assert write_recording(out, gallery, scene, EVERY) == len(samples)
    return Read(out)


def test_the_extra_is_what_the_sentence_says():
    import tomllib

    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert tuple(pyproject["project"]["optional-dependencies"]["rerun"]) == PACKAGES


def test_without_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match=r"needs the Rerun SDK.*pip install 'rerun-sdk==[\d.]+' 'pyarrow<26'$"):
        rerun_package()


def test_no_such_scene(finished):
    with pytest.raises(UserError, match=r"scene-9999: is no scene here; there are scene-\d+, scene-"):
        with_scene(Shelf([finished[0].root]).galleries(), "scene-9999")


def test_of_a_root_the_artifact_that_shows_most_is_taken(finished, scene):
    """For a scene of val the pretrained arm's evaluation, which has the teacher's map; else the teacher."""
    shelf = Shelf([finished[0].root])
    assert with_scene(shelf.galleries(), scene).opened.path == finished[0].path("evaluate")
    index = open_artifact(finished[0].path("ingest")).index
    training = str(index.scene_name[index.scene[index.samples("train")[0]]])
    assert with_scene(shelf.galleries(), training).opened.path == finished[0].path("teacher")
    with pytest.raises(UserError, match="is no scene here"):  # named: no other is taken
        with_scene(Shelf([finished[0].path("evaluate")]).galleries(), training)


def test_in_a_root_what_is_damaged_is_passed_over(finished, scene, tmp_path):
    root = Path(shutil.copytree(finished[0].root, tmp_path / "root", ignore=shutil.ignore_patterns(".prefect*")))
    evaluation = root / "evaluate" / finished[0].path("evaluate").name
    (evaluation / "results_nusc.json").write_bytes(b"{}")
    assert with_scene(Shelf([root]).galleries(), scene).opened.path != evaluation
    (evaluation / "manifest.json").write_bytes(b"{}")
    assert with_scene(Shelf([root]).galleries(), scene).opened.stage in ("evaluate", "teacher")
    with pytest.raises(DataError, match=r"manifest\.json"):  # named: said
        with_scene(Shelf([evaluation]).galleries(), scene)


def test_of_a_dataroot_that_was_never_ingested(world, tmp_path):
    pytest.importorskip("rerun")
    gallery = with_scene(Shelf([world]).galleries(), "scene-0061")
    write_recording(tmp_path / "scene.rrd", gallery, "scene-0061")
    assert {LIDAR, CAMERA, "world/truth/car"} <= (entities := Read(tmp_path / "scene.rrd").entities)
    assert f"{LIDAR}/map" not in entities


def test_every_sample_has_its_time(read, gallery, samples):
    index = gallery.opened.index
    assert read.times() == {s: np.datetime64(int(index.timestamp[s]), "us") for s in samples}


def test_what_is_there(read, gallery):
    cameras = {f"world/ego/{name}" for name in gallery.opened.index.cameras}
    boxes = {"world/truth/found", "world/truth/missed", "world/predictions/right", "world/predictions/false"}
    assert {"world", "world/ego", LIDAR, f"{LIDAR}/map", *cameras, *boxes} <= read.entities


def test_points_stand_where_they_do_in_the_global_frame(read, gallery, samples):
    index, origin = gallery.opened.index, np.array(read.static("world", "global_origin"))
    first = np.flatnonzero(index.scene == index.scene[samples[0]])[0]
    assert np.array_equal(origin, index.lidar_ego_to_global[first, :3, 3])
    positions = read(LIDAR, "Position3D")
    assert [*positions] == samples
    for sample, points in positions.items():
        there = load_points(index, gallery.opened.dataroot, sample, 0)[:, :3].astype(np.float64)
        to_world = read.transform("world/ego", sample) @ read.transform(LIDAR, sample)
        assert len(points) == len(there)
        expected = apply(index.lidar_to_global(sample), there)
        assert apply(to_world, np.array(points)) + origin == pytest.approx(expected, abs=1e-4)  # m


def test_cameras_stand_where_they_were_at_their_own_time(read, gallery, samples):
    index, origin = gallery.opened.index, np.array(read.static("world", "global_origin"))
    number = index.cameras.index("CAM_BACK_LEFT")
    for sample in samples:
        to_world = read.transform("world/ego", sample) @ read.transform(CAMERA, sample)
        to_world[:3, 3] += origin
        assert to_world == pytest.approx(index.camera_to_global(sample)[number], abs=1e-4)
        lens = np.reshape(read(CAMERA, "PinholeProjection")[sample], (3, 3)).T
        assert lens == pytest.approx(index.intrinsics[sample, number], rel=1e-6)
        file = gallery.opened.dataroot / str(index.camera_path[sample, number])
        assert bytes(read(CAMERA, "Blob")[sample][0]) == file.read_bytes()  # encoded as it was


def test_boxes_stand_where_the_annotations_do(read, gallery, samples):
    index, origin = gallery.opened.index, np.array(read.static("world", "global_origin"))
    compared = 0
    layers = {s: {name: boxes for name, boxes, _ in gallery.layers(s, Look(score=EVERY))} for s in samples}
    places = {
        "world/truth/found": "true, found",
        "world/truth/missed": "true, missed",
        "world/predictions/right": "predicted, right",
        "world/predictions/false": "predicted, false",
    }
    for entity, name in places.items():
        columns = [read(entity, c) for c in ("PoseTranslation3D", "HalfSize3D", "PoseRotationQuat", "Text", "Color")]
        for sample in samples:
            centres, halves, turns, texts, colours = (column[sample] for column in columns)
            expected = layers[sample][name].levelled(index.lidar_to_global(sample))
            assert len(centres) == len(expected)
            compared += len(expected)
            if len(expected):
                assert np.array(centres) + origin == pytest.approx(expected.centers, abs=1e-4)
                assert np.array(halves) * 2 == pytest.approx(expected.sizes, rel=1e-6)
                ahead = quaternion_to_rotation(np.array(turns)[:, [3, 0, 1, 2]])[:, :2, 0]
                yaws = np.stack([np.cos(expected.yaws), np.sin(expected.yaws)], -1)
                assert ahead == pytest.approx(yaws, abs=1e-6)
            if len(expected) and name == "predicted, false":
                assert texts[0].split()[1] == f"{expected.required_scores[0]:.2f}"
                assert set(colours) == {int.from_bytes((*PURPLE, 255), "big")}
    assert compared > 10


def test_boxes_go_with_the_sample_that_they_are_of(gallery, scene, samples, tmp_path, monkeypatch):
    """The viewer shows the last that it was given, until it is given something else."""
    pytest.importorskip("rerun")
    layers = gallery.layers
    monkeypatch.setattr(gallery, "layers", lambda s, look: layers(s, look) if s == samples[0] else [])
    write_recording(tmp_path / "scene.rrd", gallery, scene)
    shown = Read(tmp_path / "scene.rrd")("world/truth/missed", "PoseTranslation3D")
    assert len(shown[samples[0]]) > 0
    assert len(shown[samples[1]]) == 0


def test_the_map_lies_on_the_road(read, gallery, samples):
    corners = np.array(read(f"{LIDAR}/map", "Position3D")[samples[0]])
    low, high = np.split(np.array(gallery.opened.bev.attributes.point_range), 2)
    assert corners[:, :2].min(0) == pytest.approx(low[:2])
    assert corners[:, :2].max(0) == pytest.approx(high[:2])
    road = apply(read.transform(LIDAR, samples[0]), corners)[:, 2]
    assert road == pytest.approx(0, abs=0.5)  # m: the LiDAR may tilt
    picture = np.array(read(f"{LIDAR}/map", "ImageBuffer")[samples[0]][0], np.uint8)
    colours, _ = gallery.map(samples[0], Look())
    assert (picture.reshape(*colours.shape[1::-1], 3)[0] == colours[:, -1]).all()  # the first row is the farthest


def test_of_a_teacher_boxes_are_shown_by_class(finished, samples, scene, tmp_path):
    pytest.importorskip("rerun")
    gallery = Gallery(open_artifact(finished[0].path("teacher")))
    write_recording(tmp_path / "scene.rrd", gallery, scene)
    read = Read(tmp_path / "scene.rrd")
    assert "world/truth/car" in read.entities
    assert not [entity for entity in read.entities if entity.startswith("world/predictions")]


def test_an_image_that_is_gone_leaves_no_half_file(finished, scene, tmp_path):
    pytest.importorskip("rerun")
    gallery = Gallery(open_artifact(finished[0].path("evaluate"), dataroot=tmp_path / "moved"))
    (tmp_path / "scene.rrd").write_text("an older one")
    with pytest.raises(DataError, match="is missing"):
        write_recording(tmp_path / "scene.rrd", gallery, scene)
    assert [path.name for path in tmp_path.iterdir()] == ["scene.rrd"]
    assert (tmp_path / "scene.rrd").read_text() == "an older one"
