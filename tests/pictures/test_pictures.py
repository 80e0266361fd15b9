"""Where things are drawn, against projections written out by hand; and in which colours."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from models.boxes import Boxes
from models.geometry import rotation_z
from models.names import CAMERAS, CLASSES
from pictures import palette
from pictures.above import above, front_of, reach_of
from pictures.cameras import DEPTHS, camera_tile, depth_colours, rows_of
from pictures.features import PrincipalColours, activity, one_channel, principal
from pictures.sheet import GAP, camera_rows, sheet
from pictures.strokes import Stroke, draw_line, legend

RED = (255, 0, 0)


class OneCamera:
    """An index of one sample: cameras at the LiDAR's place that look ahead, to the left, back and to the right."""

    def __init__(self, headings, size=(320, 180), focal=160.0):
        self.cameras = tuple(f"CAM_{heading}" for heading in headings)
        count = len(headings)
        self.image_size = np.tile(np.array(size), (1, count, 1))
        lens = np.array([[focal, 0, size[0] / 2], [0, focal, size[1] / 2], [0, 0, 1]])
        self.intrinsics = np.tile(lens, (1, count, 1, 1))
        self.camera_to_ego = np.stack([looking(heading) for heading in headings])[None]
        self.camera_path = np.array([["black.jpg"] * count])

    def camera_to_global(self, sample):
        return self.camera_to_ego[sample]

    def lidar_to_global(self, sample):
        return lidar_to_ego()


def looking(degrees):
    """camera_to_ego: z ahead at so many degrees to the left, x to the right, y down."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    out = np.eye(4)
    out[:3, :3] = np.stack([[s, -c, 0], [0, 0, -1], [c, s, 0]], 1)
    return out


def lidar_to_ego():
    out = np.eye(4)
    out[:2, :2] = [[0, 1], [-1, 0]]  # LIDAR_TOP: x right, y ahead
    return out


def boxes_at(*centers, size=(4.0, 2.0, 1.5), yaw=np.pi / 2):
    n = len(centers)
    return Boxes(
        np.array(centers, float),
        np.tile(size, (n, 1)).astype(float),
        np.full(n, float(yaw)),
        np.zeros((n, 2)),
        np.zeros(n, int),
    )


def drawn(image):
    """(rows, columns) of the pixels that are red, a line's thin edges included."""
    red, *others = np.moveaxis(np.asarray(image).astype(int), 2, 0)
    return np.nonzero(red - np.maximum(*others) > 60)


@pytest.fixture(scope="module")
def black(tmp_path_factory):
    """A folder with the image of all cameras."""
    folder = tmp_path_factory.mktemp("black")
    Image.new("RGB", (320, 180)).save(folder / "black.jpg")
    return folder


@given(
    x=st.floats(-3, 3),
    y=st.floats(8, 30),
    z=st.floats(-1.5, 1.5),
    yaw=st.floats(-3.1, 3.1),
    width=st.sampled_from([320, 640]),
)
def test_a_box_is_drawn_where_its_corners_fall(black, x, y, z, yaw, width):
    index = OneCamera([0])
    boxes = boxes_at((x, y, z), yaw=yaw)
    tile = camera_tile(index, black, 0, 0, width, [(boxes, Stroke(RED))])
    assert tile.size == (width, width * 180 // 320)
    rows, columns = drawn(tile)
    u, v = [], []
    for right, ahead, up in boxes.corners()[0]:  # a pinhole's arithmetic
        u.append((160 * right / ahead + 160) * width / 320)
        v.append((160 * -up / ahead + 90) * width / 320)
    expected = [min(u), max(u), min(v), max(v)]
    expected = np.clip(expected, 0, [width, width, tile.height, tile.height])
    assert np.allclose([columns.min(), columns.max() + 1, rows.min(), rows.max() + 1], expected, atol=4)


def test_what_is_behind_a_camera_is_not_drawn(black):
    for center in ((0, -10, 0), (30, 2, 0)):
        tile = camera_tile(OneCamera([0]), black, 0, 0, 320, [(boxes_at(center), Stroke(RED))])
        assert not len(drawn(tile)[0])


def test_a_box_around_the_camera_is_cut_and_not_folded_over(black):
    box = boxes_at((0, 1.0, 0), size=(6.0, 2.0, 1.5))  # from 2 m behind to 4 m ahead
    rows, columns = drawn(camera_tile(OneCamera([0]), black, 0, 0, 320, [(box, Stroke(RED))]))
    assert rows.min() < 3  # the sides run out of the image
    assert rows.max() > 176
    front = 160 * 1.0 / 4.0  # half the front's width, px
    assert ((columns > 160 - front + 5) & (columns < 160 + front - 5) & (np.abs(rows - 90) < 20)).sum() < 200


def test_points_have_their_depths_colours_and_the_near_ones_cover_the_far(black):
    u, v, depth = np.array([100.0, 101.0, 250.0]), np.array([50.0, 50.0, 100.0]), np.array([3.0, 50.0, 20.0])
    tile = np.asarray(camera_tile(OneCamera([0]), black, 0, 0, 960, points=(u, v, depth)))
    for place in (0, 2):
        pixel = tile[round(3 * v[place]), round(3 * u[place])].astype(int)
        assert np.abs(pixel - depth_colours(depth[place])).max() < 12
    lightness = [float(depth_colours(d).astype(int) @ [299, 587, 114]) for d in np.geomspace(*DEPTHS, 30)]
    assert all(a > b for a, b in pairwise(lightness))  # readable in grey, too


def test_cameras_stand_as_one_sees_them():
    nuscenes = {"FRONT": 0, "FRONT_RIGHT": -55, "FRONT_LEFT": 55, "BACK": 180, "BACK_LEFT": 110, "BACK_RIGHT": -110}
    index = OneCamera([nuscenes[name.removeprefix("CAM_")] for name in CAMERAS])
    names = [[CAMERAS[camera].removeprefix("CAM_") for camera in row] for row in rows_of(index, 0)]
    assert names == [["FRONT_LEFT", "FRONT", "FRONT_RIGHT"], ["BACK_LEFT", "BACK", "BACK_RIGHT"]]
    assert rows_of(OneCamera([-30, 30, 0]), 0) == [[1, 2, 0]]


def test_images_of_any_height_are_shown_whole():
    """1920x886 beside 1920x1280: nothing of a high image is covered, and rows do not overlap."""
    index = OneCamera([55, 0, -55, 110, 180, -110])
    heights = [221, 320, 221, 320, 221, 270]
    index.image_size = np.array([[(480, height) for height in heights]])
    shown = np.asarray(
        camera_rows(
            index,
            0,
            lambda camera, width: Image.new("RGB", (width, heights[camera]), (camera + 1, 0, 0)),
            480,
            palette.LIGHT,
        )
    )
    assert shown.shape == (640 + GAP, 3 * 480 + 2 * GAP, 3)
    for camera, height in enumerate(heights):
        row, column = divmod(camera, 3)
        top, left = (320 + GAP) * row + (320 - height) // 2, (480 + GAP) * column
        own = shown[top : top + height, left : left + 480, 0]
        assert (own[60:] == camera + 1).all()  # below its name
        assert (shown[..., 0] == camera + 1).sum() == (own == camera + 1).sum()


def test_a_sheet_has_room_for_all():
    index = OneCamera([55, 0, -55, 110, 180, -110])
    sizes = []
    made = sheet(
        index,
        0,
        lambda camera, width: Image.new("RGB", (width, width * 180 // 320), (9, 9, 9)),
        lambda size: sizes.append(size) or Image.new("RGB", (size, size), RED),
        "title",
        [("true", Stroke((0, 158, 115))), ("predicted", Stroke((86, 180, 233), dashed=True))],
        palette.LIGHT,
        1200,
        depth_bar=True,
    )
    assert made.width == 1200
    assert (np.asarray(made) == RED).all(2).sum() == sizes[0] ** 2  # the view from above lies within


def test_from_above_ahead_is_up_and_the_right_is_right():
    for center, row, column in (((0, 10, 0), 0.25, 0.5), ((10, 0, 0), 0.5, 0.75), ((-5, -5, 0), 0.625, 0.375)):
        boxes = boxes_at(center, size=(1.0, 1.0, 1.0))
        rows, columns = drawn(above(400, 20.0, [(boxes, Stroke(RED))]))
        assert np.allclose([rows.mean() / 400, columns.mean() / 400], [row, column], atol=0.02)


def test_an_arrow_shows_where_a_box_goes():
    still = boxes_at((0, 5, 0))
    moving = Boxes(still.centers, still.sizes, still.yaws, np.array([[0.0, 10.0]]), still.labels)
    top = [drawn(above(400, 20.0, [(boxes, Stroke(RED))]))[0].min() for boxes in (still, moving)]
    assert np.isclose(top[0] - top[1], 5 / 40 * 400, atol=4)  # half a second's way


def test_a_maps_cells_lie_where_its_range_says():
    cells = np.zeros((4, 8, 3), np.uint8)  # X, Y
    cells[3, 7] = RED  # farthest right, farthest ahead
    rows, columns = drawn(above(400, 20.0, map=(cells, (-20, -20, -5, 20, 20, 3))))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (0, 49, 300, 399)


@given(st.lists(st.tuples(st.floats(-90, 90), st.floats(-90, 90)), max_size=5))
def test_a_view_reaches_to_every_box(centers):
    reach = reach_of(np.array(centers).reshape(-1, 2))
    assert 15 <= reach <= 54
    assert reach == 54 or all(max(abs(x), abs(y)) < reach for x, y in centers)


@given(length=st.floats(4, 300), width=st.integers(1, 6))
def test_a_dashed_line_reaches_both_its_ends(length, width):
    image = Image.new("RGB", (320, 40))
    line = np.array([[10.0, 20.0], [10.0 + length, 20.0]])
    draw_line(ImageDraw.Draw(image), line, Stroke(RED, dashed=True), width)
    covered = (np.asarray(image)[..., 0] > 0).any(0)
    assert covered[10:12].any()
    assert covered[round(8 + length) : round(12 + length)].any()
    if length > 20 * width:
        assert 0.4 < covered[10 : round(10 + length)].mean() < 0.9


def test_a_legend_breaks_its_lines():
    entries = [(f"a rather long name {n}", Stroke(RED)) for n in range(6)]
    wide, narrow = legend(entries, palette.LIGHT, 2000), legend(entries, palette.LIGHT, 300)
    assert (wide.width, narrow.width) == (2000, 300)
    assert narrow.height == 6 * wide.height
    assert legend([], palette.LIGHT, 300).height == 0


# Machado, Oliveira and Fernandes (2009), severity 1: linear RGB as seen without one kind of cone.
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "none": np.eye(3).tolist(),
}


def seen(colour, kind):
    """CIE L*a*b* of a colour as somebody sees it."""
    linear = (np.array(colour) / 255) ** 2.2
    linear = np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ linear / [0.9505, 1, 1.089], 0.0089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_everybody_tells_the_boxes_apart(kind):
    """Of two just noticeable differences is 2.3; those of the same dash are ten times as far apart, or nearly."""
    pairs = [(palette.GREEN, palette.VERMILLION), (palette.SKY, palette.PURPLE)]
    for a, b in pairs:
        assert np.linalg.norm(seen(a, kind) - seen(b, kind)) > 18


def test_every_class_has_a_kind():
    assert {palette.kind_of(label) for label in range(len(CLASSES))} == set(palette.KINDS)
    assert palette.kind_of(-1) == palette.NO_CLASS


def test_principal_colours_are_those_of_a_singular_value_decomposition():
    random = np.random.default_rng(0)
    cells = random.normal(size=(300, 8)) * np.array([5, 4, 3, 1, 1, 0.5, 0.2, 0.1]) + 7
    colours = PrincipalColours.of(cells)
    _, values, directions = np.linalg.svd(cells - cells.mean(0))
    cosines = np.abs((colours.directions * directions[:3].T).sum(0))
    assert np.allclose(cosines, 1)
    assert np.allclose(colours.reach, 2.5 * values[:3] / np.sqrt(299))
    assert np.allclose(colours(cells.mean(0)), 0.5)


def test_cells_that_hold_nothing_are_grey():
    bev = np.zeros((5, 3, 4), np.float16)
    bev[:, 1, 2] = [1, 2, 3, 4, 5]
    image = principal(bev, PrincipalColours.of(np.eye(5)))
    assert (image.reshape(-1, 3) == 96).all(1).sum() == 11
    assert (activity(bev)[1, 2] == palette.VIRIDIS[-1]).all()
    assert (activity(np.zeros_like(bev)) == palette.VIRIDIS[0]).all()
    assert (one_channel(bev, 4)[1, 2] == palette.VIRIDIS[-1]).all()


@pytest.mark.parametrize("channels", [1, 2])
def test_fewer_than_three_channels_have_colours_too(channels):
    bev = np.random.default_rng(0).normal(size=(channels, 4, 4))
    assert principal(bev, PrincipalColours.of(bev.reshape(channels, -1).T)).shape == (4, 4, 3)


@pytest.mark.parametrize("degrees", [90, -135, 30])
def test_from_above_the_car_s_front_is_up_however_the_lidar_is_turned(degrees):
    """The same scene in the frame of a LiDAR that is turned gives the same picture, but for rounding."""
    front = np.deg2rad(degrees)
    back = rotation_z(front)  # of the car's frame, as it was, to that in which its front is there
    lidar_to_ego = np.eye(4)[None].copy()
    lidar_to_ego[0, :3, :3] = rotation_z(-np.pi / 2) @ back.T
    assert front_of(SimpleNamespace(lidar_to_ego=lidar_to_ego), 0) == pytest.approx(front)
    boxes, cells = boxes_at((3, 8, 0), yaw=0.4), np.zeros((40, 40, 3), np.uint8)
    cells[25:, 10:15] = 200
    turned = boxes_at(back @ [3, 8, 0], yaw=0.4 + front)
    points = np.random.default_rng(0).uniform(-9, 9, (50, 3)) * [1, 1, 0]
    straight = np.asarray(above(400, 20.0, [(boxes, Stroke(RED))], points)).astype(int)
    other = np.asarray(above(400, 20.0, [(turned, Stroke(RED))], points @ back.T, front=front)).astype(int)
    assert (np.abs(straight - other).max(2) > 100).mean() < 0.001
    assert (straight < 250).any(2).mean() > 0.01
    bright = np.argwhere(
        np.asarray(above(400, 20.0, map=(cells, (-20, -20, -5, 20, 20, 3)), front=front)).min(2) == 200
    ).mean(0)
    x, y = np.array([12.5, -7.5]) @ back[:2, :2]  # of the bright cells' middle in the car's frame
    np.testing.assert_allclose(bright, [200 - 10 * y, 200 + 10 * x], atol=4)
