"""The checks that need nothing but the tables. Each puts all it finds into the faults and raises nothing."""

from collections.abc import Callable, Sequence
from pathlib import PurePosixPath

import numpy as np

from dataroot.faults import MAX_EXAMPLES, Faults
from dataroot.kinds import FIELDS, QUATERNION, VECTOR
from dataroot.links import LISTS, OPTIONAL, REQUIRED, Links, follow
from dataroot.lookup import DANGLING, all_differ
from dataroot.selection import Selection
from dataroot.tables import Table, tokens_of
from models.names import CATEGORY_TO_CLASS

LIMITS = {"translation": 1e8, "size": 1e5}  # m: twice around the earth; longer than any thing, in mm too
LONGEST_NAME = 200  # bytes; file systems take 255, with the ending
MAX_LETTERS = 40
SENSORS = 16  # named in a fault
NAME_SENSORS = "name the sensors as nuScenes does; where there is no LiDAR, set ingest.lidar=false"
UNIT_TOLERANCE = 1e-3  # of a quaternion's norm; nuScenes' own are within 1e-6
MEND = "mend these rows, or unpack the nuScenes metadata again"
ASCEND = "write microseconds, each later than the one before"
RECALIBRATE = "mend the calibration: the devkit would take it as it is"

Tables = dict[str, Table]
Show = Callable[[int], str]  # a row as an example of a fault


def check_tables(tables: Tables, links: Links, selection: Selection, faults: Faults) -> None:
    """Every check on the tables alone."""
    _check_duplicates(tables, faults)
    _check_dangling(tables, links, faults)
    _check_chains(tables, links, faults)
    _check_numbers(tables, faults)
    _check_cameras(tables, links, selection, faults)
    _check_samples(tables, links, selection, faults)
    _check_boxes(tables, links, faults)
    _check_paths(tables, faults)
    _check_maps(tables, links, faults)


def _check_duplicates(tables: Tables, faults: Faults) -> None:
    for table in tables.values():
        if not all_differ(table["token"]):
            tokens = table["token"].tolist()
            first: dict[bytes, int] = {}
            repeats = np.array([first.setdefault(token, row) != row for row, token in enumerate(tokens)], bool)
            faults.add_rows(
                table.file,
                "token",
                "with a token that an earlier row has",
                MEND,
                repeats & table.good("token"),
                table.named,
            )


def _check_dangling(tables: Tables, links: Links, faults: Faults) -> None:
    """Tokens that name nothing. Where the target table does not read, only that is said."""
    for (name, field), target in (REQUIRED | OPTIONAL).items():
        table = tables[name]
        if tables[target].readable:
            bad = (links[name, field] == DANGLING) & table.good(field)
            faults.add_rows(
                table.file,
                field,
                f"naming nothing in {target}.json",
                MEND,
                bad,
                _decoded(table[field]),
            )
    for (name, field), target in LISTS.items():
        table = tables[name]
        if tables[target].readable:
            codes, targets = links.lists[name, field]
            bad = np.array([DANGLING in rows for rows in targets], bool)[codes] & table.good(field)
            faults.add_rows(
                table.file,
                field,
                f"naming nothing in {target}.json",
                MEND,
                bad,
                _tokens(table[field]),
            )


def _check_chains(tables: Tables, links: Links, faults: Faults) -> None:
    """`prev` and `next` agree, stay in one scene, sensor or instance, and go forward in time."""
    sample, data, box = tables["sample"], tables["sample_data"], tables["sample_annotation"]
    scene = links["sample", "scene_token"]
    sensor = follow(links["sample_data", "calibrated_sensor_token"], links["calibrated_sensor", "sensor_token"], -1)
    reading = follow(links["sample_data", "sample_token"], scene, -1) * (tables["sensor"].rows + 1) + sensor
    stamps = np.where(sample.good("timestamp"), sample["timestamp"], -1)
    box_time = follow(links["sample_annotation", "sample_token"], stamps, -1)
    instance = links["sample_annotation", "instance_token"]
    _check_chain(sample, links, "sample", scene, "scene", sample["timestamp"], faults)
    _check_chain(data, links, "sample_data", reading, "scene and sensor", data["timestamp"], faults)
    _check_chain(box, links, "sample_annotation", instance, "instance", box_time, faults)
    order = np.lexsort((sample["timestamp"], scene))
    same = np.zeros(sample.rows, bool)
    same[order[1:]] = (np.diff(scene[order]) == 0) & (np.diff(sample["timestamp"][order]) == 0)
    faults.add_rows(
        sample.file,
        "timestamp",
        "with the time of another sample of the scene",
        ASCEND,
        same & (scene >= 0) & sample.good("timestamp"),
        sample.named,
    )


def _check_chain(
    table: Table, links: Links, name: str, group: np.ndarray, group_words: str, time: np.ndarray, faults: Faults
) -> None:
    previous, following = links[name, "prev"], links[name, "next"]
    here = np.arange(table.rows)
    linked = (previous >= 0) & (group >= 0)
    faults.add_rows(
        table.file,
        "prev",
        "whose `prev` does not name them as its `next`",
        MEND,
        (previous >= 0) & (follow(previous, following, -1) != here),
        table.named,
    )
    faults.add_rows(
        table.file,
        "next",
        "whose `next` does not name them as its `prev`",
        MEND,
        (following >= 0) & (follow(following, previous, -1) != here),
        table.named,
    )
    faults.add_rows(
        table.file,
        "prev",
        f"whose `prev` is of another {group_words}",
        MEND,
        linked & (follow(previous, group, -1) != group),
        table.named,
    )
    if name == "sample_annotation":
        timed = linked & (time >= 0) & (follow(previous, time, -1) >= 0)
        field = "prev"
    else:
        good = table.good("timestamp")
        timed = linked & good & follow(previous, good, False)
        field = "timestamp"
    before = follow(previous, time, 0)
    faults.add_rows(
        table.file,
        field,
        "whose time does not ascend from that of `prev`",
        ASCEND if field == "timestamp" else MEND,
        timed & (time <= before),
        lambda row: f"{time[row]} after {before[row]}",
    )


def _check_numbers(tables: Tables, faults: Faults) -> None:
    """Finite, of this world, and quaternions of unit length (the devkit would silently normalise them)."""
    for name, kinds in FIELDS.items():
        table = tables[name]
        for field, kind in kinds.items():
            if kind is not VECTOR and kind is not QUATERNION:
                continue
            values = table[field]
            finite = np.isfinite(values).all(1)
            good = table.good(field)
            faults.add_rows(
                table.file,
                field,
                "with NaN or infinity",
                MEND,
                ~finite & good,
                _listed(values),
            )
            limit = LIMITS.get(field)
            if limit is not None:
                faults.add_rows(
                    table.file,
                    field,
                    f"with more than {limit:g} m",
                    "write metres",
                    (np.abs(values) > limit).any(1) & finite & good,
                    _listed(values),
                )
            if kind is QUATERNION:
                with np.errstate(invalid="ignore", over="ignore"):
                    norm = np.linalg.norm(values, axis=1)
                    off = np.abs(norm - 1) > UNIT_TOLERANCE
                faults.add_rows(
                    table.file,
                    field,
                    "with a quaternion that is not of unit length",
                    "mend the rotation: the devkit would silently normalise it",
                    off & finite & good,
                    _length(norm),
                )


def _check_cameras(tables: Tables, links: Links, selection: Selection, faults: Faults) -> None:
    calibration, data = tables["calibrated_sensor"], tables["sample_data"]
    modality = follow(links["calibrated_sensor", "sensor_token"], tables["sensor"]["modality"], b"")
    camera = (modality == b"camera") & calibration.good("camera_intrinsic")
    matrix = calibration["camera_intrinsic"]  # (rows, 3, 3); all NaN where the table has []
    present = ~np.isnan(matrix).all((1, 2))
    finite = np.isfinite(matrix).all((1, 2))
    plain = np.where(finite[:, None, None], matrix, np.eye(3))
    singular = np.abs(np.linalg.det(plain)) < 1e-9
    pinhole = (plain[:, 0, 0] > 0) & (plain[:, 1, 1] > 0) & (plain[:, 2] == [0, 0, 1]).all(1)

    def show(row: int) -> str:
        return str(matrix[row].tolist())

    def add(what: str, bad: np.ndarray) -> None:
        faults.add_rows(calibration.file, "camera_intrinsic", what, RECALIBRATE, bad, show)

    add("of a camera without intrinsics", camera & ~present)
    add("with NaN or infinity", present & ~finite)
    add("with a singular matrix", present & finite & singular)
    odd = camera & finite & ~singular & ~pinhole
    add("of a camera whose matrix is no pinhole's ([fx, s, cx], [0, fy, cy], [0, 0, 1])", odd)
    image = (selection.channel >= 0) & (selection.channel < len(selection.camera_names)) & data.good("width", "height")
    faults.add_rows(
        data.file,
        "width, height",
        "of a camera without a size",
        MEND,
        image & ((data["width"] <= 0) | (data["height"] <= 0)),
        lambda row: f"{data['width'][row]}x{data['height'][row]}",
    )


def _check_samples(tables: Tables, links: Links, selection: Selection, faults: Faults) -> None:
    """Every sample has one key frame of the LiDAR and of each camera."""
    sample, data = tables["sample"], tables["sample_data"]
    # Flags that say neither yes nor no have a fault of their own: what they hide is not missing.
    hidden = np.zeros(sample.rows, bool)
    unclear = links["sample_data", "sample_token"][~data.good("is_key_frame")]
    hidden[unclear[unclear >= 0]] = True
    # A missing table or sensor link takes every key frame with it: then its own fault says enough.
    if all(tables[name].readable for name in ("sample_data", "calibrated_sensor", "sensor")):
        channels = tables["sensor"].text("channel").tolist()
        for channel, rows in zip(selection.channels, selection.keys.T, strict=True):
            if channel not in channels:
                what, remedy = f"no sensor is {channel} (there are {', '.join(channels[:SENSORS])})", NAME_SENSORS
                faults.add(tables["sensor"].file, "channel", what, remedy)
                continue
            lacking = np.zeros(sample.rows, bool)
            lacking[selection.samples[rows < 0]] = True
            faults.add_rows(
                sample.file,
                "token",
                f"without a key frame of {channel} in sample_data.json",
                "unpack the metadata again, or take the sample out of the tables",
                lacking & ~hidden,
                sample.named,
            )
    faults.add_rows(
        data.file,
        "is_key_frame",
        "that are not their sensor's only key frame in the sample",
        MEND,
        selection.doubled,
        data.named,
    )


def _check_boxes(tables: Tables, links: Links, faults: Faults) -> None:
    box = tables["sample_annotation"]
    size = box["size"]
    with np.errstate(invalid="ignore"):
        flat = (size <= 0).any(1)
    faults.add_rows(
        box.file,
        "size",
        "with a box of no or negative size (w, l, h in m)",
        MEND,
        flat & box.good("size"),
        lambda row: str(size[row].tolist()),
    )
    for field in ("num_lidar_pts", "num_radar_pts"):
        count = box[field]
        faults.add_rows(
            box.file,
            field,
            "with a negative or absurd count",
            MEND,
            (count < 0) | (count >= 2**31),
            _number(count),
        )
    codes, targets = links.lists["sample_annotation", "attribute_tokens"]
    several = np.array([len(rows) > 1 for rows in targets], bool)[codes]
    category = follow(links["sample_annotation", "instance_token"], links["instance", "category_token"], -1)
    detected = np.isin(tables["category"]["name"], [name.encode() for name in CATEGORY_TO_CLASS])
    faults.add_rows(
        box.file,
        "attribute_tokens",
        "with several attributes, where the official evaluation stops",
        MEND,
        several & follow(category, detected, False),
        box.named,
    )


def _check_paths(tables: Tables, faults: Faults) -> None:
    for name in ("sample_data", "map"):
        table = tables[name]
        values = table["filename"].tolist()
        bad = np.fromiter((leaves_dataroot(value) for value in values), bool, len(values))
        faults.add_rows(
            table.file,
            "filename",
            "that lead out of the dataroot",
            "name the file relative to the dataroot, without `..`",
            bad & table.good("filename"),
            _decoded(values),
        )

    # What other paths are made of: maps/expansion/LOCATION.json, gts/SCENE/SAMPLE/labels.npz.
    for name, field in (("log", "location"), ("scene", "name"), ("sample", "token")):
        table = tables[name]
        values = table[field].tolist()
        bad = np.fromiter((leaves_dataroot(value) or len(value) > LONGEST_NAME for value in values), bool, len(values))
        faults.add_rows(
            table.file,
            field,
            "that no file can be named by",
            f"use at most {LONGEST_NAME} bytes, no `..` and no leading slash",
            bad & table.good(field),
            _decoded(values, MAX_LETTERS),
        )


def leaves_dataroot(path: bytes) -> bool:
    """Whether a path of the tables is absolute, climbs by `..`, or holds a NUL byte."""
    if path[:1] != b"/" and b".." not in path and b"\0" not in path:
        return False
    return path[:1] == b"/" or b"\0" in path or ".." in PurePosixPath(path.decode("utf-8", "replace")).parts


def _check_maps(tables: Tables, links: Links, faults: Faults) -> None:
    """Every log has a map: without one the devkit's constructor dies with a KeyError."""
    log = tables["log"]
    if tables["map"].readable:
        _, targets = links.lists["map", "log_tokens"]
        mapped = np.zeros(log.rows, bool)
        mapped[[row for rows in targets for row in rows if row >= 0]] = True
        faults.add_rows(
            log.file, "token", "without a map: map.json names them in no log_tokens", MEND, ~mapped, log.named
        )


def check_left_out(tables: Tables, selection: Selection, names: tuple[str, ...], faults: Faults) -> None:
    """What the config leaves out is there, and something is left."""
    sample, data = tables["sample"], tables["sample_data"]
    names_of_table = {*sample["token"].tolist(), *data["filename"].tolist()} if names else set()
    for name in names:
        if name.encode() not in names_of_table:
            what = f"no sample and no file is {name!r}, which ingest.leave_out names"
            remedy = "name a token of sample.json, or a filename as it stands in sample_data.json"
            faults.add(data.file, "filename", what, remedy)
    if gone := len(selection.left_out):
        examples = ", ".join(sample.text("token", selection.left_out[:MAX_EXAMPLES])) + (
            ", ..." if gone > MAX_EXAMPLES else ""
        )
        if len(selection.samples) == 0:
            faults.add(sample.file, "", f"all {gone:,} samples are left out", "name fewer in ingest.leave_out")
        sentence = (
            f"{gone:,} of {gone + len(selection.samples):,} samples are left out by ingest.leave_out ({examples})"
        )
        faults.warn("left_out", f"{sentence}: scores are those of the rest, and other people's are not")


# How an example's row is shown.


def _decoded(values: Sequence[bytes] | np.ndarray, letters: int | None = None) -> Show:
    return lambda row: values[row].decode("utf-8", "replace")[:letters]


def _tokens(values: np.ndarray) -> Show:
    return lambda row: b", ".join(tokens_of(values[row])).decode("utf-8", "replace")


def _listed(values: np.ndarray) -> Show:
    return lambda row: str(values[row].tolist())


def _length(values: np.ndarray) -> Show:
    return lambda row: f"length {values[row]:.6g}"


def _number(values: np.ndarray) -> Show:
    return lambda row: str(values[row])
