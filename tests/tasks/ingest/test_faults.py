"""Every kind of fault, on a damaged copy of a tiny dataset: named by file and field, and without noise around it."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from common.errors import DataError
from dataroot.jpeg import jpeg_head
from models.names import LIDAR
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest


def report_of(world, config=None) -> list[list[str]]:
    """The faults as rows (file, field, fault and remedy)."""
    with pytest.raises(DataError) as raised:
        ingest(world.root, world.version, config or IngestConfig(sweeps=3, frames=1))
    head, _, *lines = str(raised.value).splitlines()
    assert f": {len(lines)} fault" in head
    return [[part.strip() for part in line.split("  ", 2)[:1] + line.split(None, 2)[1:]] for line in lines]


def first(field, value):
    """A damage: set a field of a table's first row."""
    return lambda rows: rows[0].__setitem__(field, value)


TABLE_FAULTS = [
    # table, damage, field, words
    ("scene", lambda rows: rows[0].pop("name"), "name", "without this field"),
    ("scene", first("name", 7), "name", "not a token"),
    ("scene", lambda rows: rows.append("x"), "-", "not objects"),
    (
        "sensor",
        lambda rows: [r.update(channel="TOP") for r in rows if r["channel"] == "LIDAR_TOP"],
        "channel",
        "no sensor is LIDAR_TOP (there are",
    ),
    (
        "sensor",
        lambda rows: [r.update(channel=r["token"], modality="lidar") for r in rows if r["modality"] == "camera"],
        "modality",
        "no sensor is a camera (there are",
    ),
    ("sample", first("timestamp", "noon"), "timestamp", "not a whole number"),
    ("sample", first("timestamp", float("nan")), "timestamp", "not a whole number"),
    ("sample_data", first("is_key_frame", 2), "is_key_frame", "not true or false"),
    ("sample_data", lambda rows: [r.update(is_key_frame="yes") for r in rows], "is_key_frame", "not true or false"),
    ("sample", lambda rows: [r.update(timestamp=r["timestamp"] / 1e6) for r in rows], "timestamp", "of microseconds"),
    (
        "sample_data",
        lambda rows: [r.update(timestamp=r["timestamp"] + 0.5) for r in rows],
        "timestamp",
        "of microseconds",
    ),
    ("sample_data", first("filename", ""), "filename", "not a token"),
    ("sample_data", first("filename", None), "filename", "null"),
    ("ego_pose", first("translation", [1, 2]), "translation", "3 numbers"),
    ("ego_pose", first("translation", [1, 2, "3"]), "translation", "3 numbers"),
    ("ego_pose", first("translation", [1, 2, True]), "translation", "3 numbers"),
    ("ego_pose", first("translation", [1, 2, float("nan")]), "translation", "NaN or infinity"),
    ("ego_pose", first("rotation", [float("inf"), 0, 0, 0]), "rotation", "NaN or infinity"),
    ("ego_pose", first("rotation", [0.9, 0, 0, 0]), "rotation", "unit length"),
    ("ego_pose", lambda rows: rows[1].update(token=rows[0]["token"]), "token", "earlier row"),
    ("calibrated_sensor", first("camera_intrinsic", []), "camera_intrinsic", "without intrinsics"),
    ("calibrated_sensor", first("camera_intrinsic", [[1, 0], [0, 1]]), "camera_intrinsic", "3x3"),
    ("calibrated_sensor", first("camera_intrinsic", [[1, 0, 0], [2, 0, 0], [0, 0, 1]]), "camera_intrinsic", "singular"),
    ("calibrated_sensor", first("camera_intrinsic", [[-9, 0, 0], [0, 9, 0], [0, 0, 1]]), "camera_intrinsic", "pinhole"),
    (
        "calibrated_sensor",
        first("camera_intrinsic", [[float("nan"), 0, 0], [0, 9, 0], [0, 0, 1]]),
        "camera_intrinsic",
        "NaN",
    ),
    ("calibrated_sensor", first("rotation", [0, 0, 0, 0]), "rotation", "unit length"),
    ("sample_annotation", first("rotation", [1, 1, 0, 0]), "rotation", "unit length"),
    ("sample_annotation", first("size", [1, -1, 1]), "size", "negative size"),
    ("sample_annotation", first("size", [1, 0, 1]), "size", "negative size"),
    ("sample_annotation", first("size", [1, float("inf"), 1]), "size", "NaN or infinity"),
    ("sample_annotation", first("num_lidar_pts", -1), "num_lidar_pts", "negative"),
    ("sample_annotation", first("attribute_tokens", ["gone"]), "attribute_tokens", "attribute.json"),
    ("sample_annotation", first("attribute_tokens", "att0"), "attribute_tokens", "list of tokens"),
    ("sample_annotation", first("attribute_tokens", ["att0", "att1"]), "attribute_tokens", "several attributes"),
    ("sample_annotation", first("visibility_token", "9"), "visibility_token", "visibility.json"),
    ("instance", first("category_token", "gone"), "category_token", "category.json"),
    ("scene", first("log_token", "gone"), "log_token", "log.json"),
    ("sample_data", first("ego_pose_token", "gone"), "ego_pose_token", "ego_pose.json (row 0: gone)"),
    ("sample_data", first("width", 0), "width,", "without a size"),
    ("sample_data", first("filename", "/etc/passwd"), "filename", "out of the dataroot"),
    ("sample_data", first("filename", "samples/../../x.jpg"), "filename", "out of the dataroot"),
    ("map", first("filename", "../map.png"), "filename", "out of the dataroot"),
    ("log", first("location", "../../etc/hosts"), "location", "no file can be named by"),
    ("log", first("location", "/etc/hosts"), "location", "no file can be named by"),
    ("log", first("location", "x" * 300), "location", "no file can be named by"),
    ("scene", first("name", "../scene-1"), "name", "no file can be named by"),
    ("scene", first("name", "a\0b"), "name", "no file can be named by"),
    ("map", first("log_tokens", ["gone", "log0"]), "log_tokens", "log.json"),
    ("map", first("log_tokens", []), "token", "without a map"),
    (
        "sample_data",
        lambda rows: rows[1].update(is_key_frame=True, sample_token="sample-0-0"),
        "is_key_frame",
        "only key",
    ),
    ("sample_data", lambda rows: rows[0].update(is_key_frame=False), "token", "key frame of CAM_FRONT"),
    ("sample_data", lambda rows: rows[1].update(timestamp=rows[0]["timestamp"]), "timestamp", "does not ascend"),
    ("sample_data", lambda rows: rows[1].update(prev=""), "next", "does not name them"),
]
FOUND_IN = {"without a map": "log", "key frame of CAM_FRONT": "sample"}


@pytest.mark.parametrize(("table", "damage", "field", "words"), TABLE_FAULTS)
def test_a_fault_in_a_table(world, table, damage, field, words):
    world.edit(table, damage)
    faults = report_of(world)
    file = f"v1.0-mini/{FOUND_IN.get(words, table)}.json"
    assert any(f[0] == file and f[1] == field and words in f[2] for f in faults), faults
    # A blank in a row may leave that row unreachable; nothing else may be blamed.
    assert len(faults) <= 3, faults


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "missing"),
        ("folder", "is a folder"),
        (b"", "not a JSON list"),
        (b"[{", "not a JSON list"),
        (b"\xff\xfe[]", "not a JSON list"),
        (b'{"a": 1}', "dict stands at the top"),
        (b"\xef\xbb\xbf[]", "begins with a byte order mark, at which the devkit stops"),
        ("[]".encode("utf-16"), "begins with a byte order mark"),
        (b"[" * 100_000, "nested too deeply"),
        ("pipe", "is no regular file"),
        (b"[]", "empty"),
    ],
)
@pytest.mark.parametrize("table", ["scene", "sample_data", "ego_pose"])
def test_a_table_that_is_none(world, table, content, words):
    path = world.root / "v1.0-mini" / f"{table}.json"
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content == "pipe":
        os.mkfifo(path)
    elif content is not None:
        path.write_bytes(content)
    faults = report_of(world)
    assert [f for f in faults if f[0] == f"v1.0-mini/{table}.json" and f[1] == "-" and words in f[2]]
    if content != b"[]":
        assert len(faults) == 1, faults


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def replace(value):
    def damage(path):
        points = np.fromfile(path, np.float32)
        points[7] = value
        points.tofile(path)

    return damage


def resize(path):
    Image.new("RGB", (16, 16)).save(path)


def flip_byte(path):
    data = bytearray(path.read_bytes())
    data[45] ^= 1
    path.write_bytes(data)


def to_folder(path):
    path.unlink()
    path.mkdir()


FILE_FAULTS = [
    (LIDAR, lambda path: path.unlink(), "missing"),
    (LIDAR, to_folder, "folder"),
    (LIDAR, lambda path: cut(path, 0), "empty"),
    (LIDAR, lambda path: cut(path, 39), "multiple of 20"),
    (LIDAR, replace(np.nan), "NaN, infinity"),
    (LIDAR, replace(np.inf), "NaN, infinity"),
    ("CAM_BACK", lambda path: path.unlink(), "missing"),
    ("CAM_BACK", to_folder, "folder"),
    ("CAM_BACK", lambda path: cut(path, 0), "empty"),
    ("CAM_BACK", lambda path: cut(path, 300), "cut short"),
    ("CAM_BACK", lambda path: path.write_bytes(b"GIF89a" + path.read_bytes()[6:]), "does not start"),
    ("CAM_BACK", lambda path: path.write_bytes(b"\xff\xd8\xff\xd9"), "no header"),
    ("CAM_BACK", resize, "16x16, not 32x16"),
]


@pytest.mark.parametrize("key", [True, False])
@pytest.mark.parametrize(("channel", "damage", "words"), FILE_FAULTS)
def test_a_fault_in_a_file(world, channel, damage, words, key):
    path = world.file_of(channel, key)
    damage(path)
    faults = report_of(world)
    assert len(faults) == 1, faults
    assert faults[0][:2] == [str(path.relative_to(world.root)), "sample_data.filename"]
    assert words in faults[0][2]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.unlink(), "missing"),
        (to_folder, "folder"),
        (lambda path: cut(path, 40), "cut short"),
        (lambda path: path.write_bytes(b"x" * 100), "no PNG"),
        (flip_byte, "checksum"),
    ],
)
def test_a_fault_in_a_map(world, damage, words):
    damage(world.root / "maps" / "map0.png")
    faults = report_of(world)
    assert [fault[:2] for fault in faults] == [["maps/map0.png", "map.filename"]]
    assert words in faults[0][2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "JSON"),
        ("[]", "not splits by name"),
        ('{"val": "scene-0061"}', "list of scene names"),
        ('{"mine": []}', "none of the splits"),
        ('{"val": ["scene-0061"], "train": ["scene-0061"]}', "scene-0061 is in"),
        ('{"val": [], "mini_val": []}', "both would be val"),
        ('\ufeff{"val": ["scene-0061"]}', "byte order mark"),
    ],
)
def test_a_fault_in_custom_splits(world, content, words):
    (world.root / "v1.0-mini" / "splits.json").write_text(content)
    faults = report_of(world)
    assert [fault[0] for fault in faults] == ["v1.0-mini/splits.json"]
    assert words in faults[0][2]


def test_all_faults_come_in_one_report(world):
    world.edit("ego_pose", first("rotation", [2, 0, 0, 0]))
    world.edit("sample_annotation", first("size", [0, 1, 1]))
    (world.root / "v1.0-mini" / "visibility.json").unlink()
    (world.root / "maps" / "map0.png").unlink()
    world.file_of(LIDAR).unlink()
    cut(world.file_of("CAM_FRONT"), 100)
    assert sorted(fault[0].split("/")[1].split(".")[0] for fault in report_of(world)) == sorted(
        ["ego_pose", "sample_annotation", "visibility", "map0", "LIDAR_TOP", "CAM_FRONT"]
    )


def test_many_faults_of_a_kind_are_counted(world):
    world.edit("ego_pose", lambda rows: [row.update(rotation=[2, 0, 0, 0]) for row in rows])
    for path in (world.root / "samples" / "CAM_FRONT").iterdir():
        path.unlink()
    for path in (world.root / "samples" / "CAM_BACK").iterdir():
        path.unlink()
    faults = report_of(world)
    assert faults[0][2].startswith("80 rows with a quaternion")
    assert faults[0][2].count("length 2") == 5
    assert faults[-1][0] == "..."
    assert "7 more files" in faults[-1][2]


def test_files_that_nothing_asks_for_are_not_looked_at(world):
    world.file_of(LIDAR, key=False).unlink()
    world.file_of("CAM_FRONT", key=False).unlink()
    arrays, _, counts = ingest(world.root, world.version, IngestConfig(sweeps=0, frames=0))
    assert arrays["sweep_path"].shape == (6, 0)
    assert counts["files"] == 6 * 7 + 1


def test_clouds_past_the_budget_are_checked_by_size_only(world):
    replace(np.nan)(world.file_of(LIDAR, key=False))
    size = 40 * 20
    _, _, counts = ingest(world.root, world.version, IngestConfig(read_gigabytes=6 * size / 1e9))
    assert counts["clouds_read"] == 6  # the key frames
    report_of(world, IngestConfig(read_gigabytes=1))


def test_a_nan_in_a_big_table_is_found_by_row(world, monkeypatch):
    monkeypatch.setattr("dataroot.tables.PIECE", 700)
    world.edit("ego_pose", lambda rows: rows[37]["translation"].__setitem__(1, float("nan")))
    assert "row 37" in report_of(world)[0][2]


@pytest.mark.parametrize("text", ["}, {", '}", {"', "[", "}]"])
def test_pieces_are_never_cut_inside_a_text(world, monkeypatch, text):
    world.edit("scene", lambda rows: [row.update(description=text * 20) for row in rows])
    monkeypatch.setattr("dataroot.tables.PIECE", 10)
    arrays, _, _ = ingest(world.root, world.version, IngestConfig())
    assert arrays["scene_name"].tolist() == ["scene-0103", "scene-0061"]


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0" + b"\xff\xc0" * 3000}])
def test_jpeg_size_is_pillows(tmp_path, options):
    Image.new("RGB", (123, 45)).save(tmp_path / "x.jpg", **options)
    data = (tmp_path / "x.jpg").read_bytes()
    assert jpeg_head(data)[:2] == (123, 45)
    assert jpeg_head(data[:20]) is None


def test_json_with_nan_text_is_read(world):
    text = (world.root / "v1.0-mini" / "ego_pose.json").read_text()
    row = json.loads(text)[0]
    (world.root / "v1.0-mini" / "ego_pose.json").write_text(
        text.replace(json.dumps(row["translation"]), "[Infinity, -Infinity, NaN]", 1)
    )
    assert "inf, -inf, nan" in report_of(world)[0][2]


def test_splits_that_are_a_pipe_do_not_hang(world):
    os.mkfifo(world.root / "v1.0-mini" / "splits.json")
    assert "is no regular file" in report_of(world)[0][2]


def test_flags_as_numbers_and_whole_stamps_as_floats_are_what_the_devkit_takes_them_for(world):
    """Other people's writers make 1 of true and 5.0 of 5; the devkit's own sums and questions come out the same."""
    plain, _, _ = ingest(world.root, world.version, IngestConfig(sweeps=3, frames=2))
    world.edit("sample_data", lambda rows: [row.update(is_key_frame=int(row["is_key_frame"])) for row in rows])
    for table in ("sample", "sample_data"):
        world.edit(table, lambda rows: [row.update(timestamp=float(row["timestamp"])) for row in rows])
    arrays, _, _ = ingest(world.root, world.version, IngestConfig(sweeps=3, frames=2))
    for name, value in plain.items():
        np.testing.assert_array_equal(arrays[name], value)
    from nuscenes.nuscenes import NuScenes

    devkit = NuScenes(world.version, str(world.root), verbose=False)
    for box, velocity, sample in zip(
        arrays["box_token"], arrays["box_velocity"], np.repeat(np.arange(6), np.diff(arrays["box_offsets"]))
    ):
        to_global = arrays["lidar_ego_to_global"][sample] @ arrays["lidar_to_ego"][sample]
        theirs = to_global[:3, :3].T @ (devkit.box_velocity(box) * [1, 1, 0])
        np.testing.assert_allclose(velocity, theirs[:2], atol=1e-9)
