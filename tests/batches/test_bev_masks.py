"""Masks against the devkit's map reader and boxes asked cell by cell."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.path import Path as Outline
from PIL import Image

from batches import drivable
from batches.bev_masks import BevMasks, footprints, vehicles
from batches.drivable import Maps, MaskArea, PolygonArea
from common.errors import UserError
from models.boxes import Boxes
from models.geometry import apply

RANGE, CELL = 32.0, 0.8


def centres() -> np.ndarray:
    """(Y, X, 3) middles of the cells, one by one."""
    size = round(2 * RANGE / CELL)
    cells = [[(-RANGE + (i + 0.5) * CELL, -RANGE + (j + 0.5) * CELL, 0.0) for i in range(size)] for j in range(size)]
    return np.array(cells)


@pytest.fixture(scope="module")
def masks(simulated) -> BevMasks:
    return BevMasks(simulated.index, simulated.dataroot, RANGE, CELL)


def test_drivable_area_is_the_devkits(simulated, masks):
    from nuscenes.utils.map_mask import MapMask

    index = simulated.index
    assert index.map_location[0] == "simulated-scene-0061"
    devkit = MapMask(str(simulated.dataroot / index.map_path[0]))
    for sample in (0, 1):
        x, y, _ = apply(index.lidar_ego_to_global[sample], centres().reshape(-1, 3)).T
        made = masks.read(sample)[0]
        np.testing.assert_array_equal(made.ravel(), devkit.is_on_mask(x, y))
        assert 0.1 < made.mean() < 0.9


def test_vehicle_cells_lie_in_a_vehicles_box(simulated, masks):
    index = simulated.index
    names = [str(index.box_category[row]) for row in range(*index.box_rows(0).indices(10**6))]
    boxes = vehicles(index, 0).moved(index.lidar_to_ego[0])
    assert len(boxes) == sum(name.split(".")[0] == "vehicle" for name in names) > 5
    points = centres().reshape(-1, 3)
    expected = np.zeros(len(points), bool)
    for i in range(len(boxes)):
        at_its_height = points + np.array([0, 0, boxes.centers[i, 2]])
        expected |= boxes[i : i + 1].contains(at_its_height)[0]
    made = masks.read(0)[1]
    np.testing.assert_array_equal(made.ravel(), expected)
    assert 0.001 < made.mean() < 0.2


def test_masks_move_with_the_scene(simulated, masks):
    plain = masks.read(1)
    mirrored = masks.read(1, np.diag([1.0, -1.0, 1.0, 1.0]))  # y, dim -2
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    quarter = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # x to y
    turned = masks.read(1, quarter)
    assert (turned == np.swapaxes(plain, 1, 2)[:, :, ::-1]).mean() > 0.998  # centres on a border, rounded
    larger = masks.read(1, np.diag([1.05, 1.05, 1.05, 1.0]))
    assert larger[1].sum() > plain[1].sum()


@given(
    st.floats(-3, 3),
    st.tuples(st.floats(0.5, 4), st.floats(0.5, 4)),
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
)
def test_footprints_are_rectangles(yaw, size, middle):
    center, lwh = np.array([[*middle, 1.0]]), np.array([[*size, 2.0]])
    box = Boxes(center, lwh, np.array([yaw]), np.zeros((1, 2)), np.zeros(1, int))
    xy = np.stack(np.meshgrid(np.linspace(-4, 4, 23), np.linspace(-4, 4, 19)), -1).reshape(-1, 2)
    grown, shrunk = (Outline(middle + (box.corners()[0, :4, :2] - middle) * f) for f in (1 + 1e-6, 1 - 1e-6))
    made = footprints(box, xy)
    assert (made <= grown.contains_points(xy)).all()
    assert (made >= shrunk.contains_points(xy)).all()


def expansion(path, polygons):
    """A map expansion file of polygons [(outer, [hole, ...]), ...], all of the drivable area."""
    nodes, out = [], []

    def ring(points):
        tokens = [f"n{len(nodes) + i}" for i in range(len(points))]
        nodes.extend({"token": t, "x": float(x), "y": float(y)} for t, (x, y) in zip(tokens, points))
        return tokens

    for outer, holes in polygons:
        out.append(
            {
                "token": f"p{len(out)}",
                "exterior_node_tokens": ring(outer),
                "holes": [{"node_tokens": ring(hole)} for hole in holes],
            }
        )
    area = [{"token": "d", "polygon_tokens": [p["token"] for p in out]}]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"node": nodes, "polygon": out, "drivable_area": area}))


def test_polygons_join_and_have_holes(tmp_path):
    square, hole = [(0, 0), (10, 0), (10, 10), (0, 10)], [(4, 4), (6, 4), (6, 6), (4, 6)]
    other = [(5, 5), (20, 5), (9, 20)]
    expansion(tmp_path / "map.json", [(square, [hole]), (other, [])])
    xy = np.random.default_rng(0).uniform(-2, 22, (4000, 2))
    expected = (Outline(square).contains_points(xy) & ~Outline(hole).contains_points(xy)) | Outline(
        other
    ).contains_points(xy)
    area = PolygonArea(tmp_path / "map.json")
    np.testing.assert_array_equal(area.contains(xy), expected)
    assert area.contains(np.zeros((0, 2))).shape == (0,)


def test_the_expansion_goes_before_the_mask(simulated, tmp_path):
    index = simulated.index
    x, y = index.lidar_ego_to_global[0, :2, 3]
    triangle = [(x - 1, y - 1), (x + 1, y - 1), (x, y + 1)]
    expansion(tmp_path / "maps" / "expansion" / "simulated-scene-0061.json", [(triangle, [])])
    area = Maps(index, tmp_path).of(0)
    assert area.contains(np.array([[x, y], [x + 5, y]])).tolist() == [True, False]


def test_a_mask_of_any_width_is_read_bit_by_bit(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 2, (1030, 13)).astype(np.uint8) * 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    row, column = (i.ravel() for i in np.mgrid[0:1030, 0:13])
    made = MaskArea(tmp_path / "mask.png").contains(np.stack([column, 1030 - row], 1) * 0.1)
    np.testing.assert_array_equal(made, pixels.ravel() > 0)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "is missing"),
        (b"no png", "cannot be read"),
        ("colour", "several channels"),
        ("cut", "cannot be read"),
    ],
)
def test_a_bad_mask_is_one_sentence(simulated, tmp_path, content, sentence):
    path = tmp_path / str(simulated.index.map_path[0])
    path.parent.mkdir()
    if content == "colour":
        Image.new("RGB", (9, 9)).save(path)
    elif content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)).save(path)
        path.write_bytes(path.read_bytes()[:2000])
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        Maps(simulated.index, tmp_path).of(0)


@pytest.mark.parametrize(
    ("content", "sentence"), [("{", "cannot be read"), ("{}", "lacks 'node'"), ("[]", "is no map expansion")]
)
def test_a_bad_expansion_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        PolygonArea(tmp_path / "map.json")


def test_a_map_is_opened_once_whatever_asks_for_it(simulated, monkeypatch):
    opened, real = [], drivable.MaskArea
    monkeypatch.setattr(drivable, "MaskArea", lambda path: (time.sleep(0.05), opened.append(path), real(path))[2])
    maps = drivable.Maps(simulated.index, simulated.dataroot)
    with ThreadPoolExecutor(8) as pool:
        areas = list(pool.map(maps.of, [0] * 8))
    assert len(opened) == len(set(map(id, areas))) == 1


def test_vehicles_of_own_categories_are_those_of_their_class():
    names = ["vehicle.car", "vehicle.emergency.police", "Car", "Bike", "Walker", "Tram", "vehicle.bus.rigid", "animal"]
    index = SimpleNamespace(
        box_rows=lambda sample: slice(0, len(names)),
        box_category=np.array(names, object),
        own_classes={"Car": "car", "Bike": "bicycle", "Walker": "pedestrian", "vehicle.bus.rigid": "ignore"},
        box_center=np.arange(24.0).reshape(8, 3),
        box_size=np.ones((8, 3)),
        box_yaw=np.zeros(8),
        box_velocity=np.zeros((8, 2)),
        box_label=np.full(8, -1, np.int8),
    )
    assert vehicles(index, 0).centers[:, 0].tolist() == [0, 3, 6, 9]
