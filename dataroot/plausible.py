"""What the tables say together: a car that drives, with cameras around it, among things of their usual size and speed.

Each check sees the whole through one number. Where no meaning is left (a table in millimetres, quaternions with w last)
that is a fault; a number that is only odd is a warning, which says the number. nuScenes' own tables give neither.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from dataroot.faults import Faults
from dataroot.links import Links, follow
from dataroot.tables import Table
from models.names import CAMERAS, CLASSES, LIDAR

Arrays = Mapping[str, np.ndarray]

UPRIGHT = np.cos(np.deg2rad(45))  # least component along z of an axis that should point up
# degrees in the ego frame, where cameras of these names look on nuScenes' car
YAWS = dict(zip(CAMERAS, (0, -55, 55, 180, 110, -110), strict=True))
MOST_TURNED, MOST_TILTED = 60, 35  # degrees away from that
MOST_LEANING = 75  # degrees of the LiDAR
LIDAR_TURNED = 30  # degrees between its y axis and the car's front; nuScenes' is within one
PRINCIPAL = (0.2, 0.8)  # where the principal point lies in an image, as a share of its sides
FAR_SENSOR, NO_SENSOR = 10, 100  # m from the ego's origin: odd, none
INTERVAL = (0.02, 3.0)  # s between key frames
LEAST_INTERVAL = 0.005
NANOSECONDS = (10**17, 10**19)  # since 1970 these are the years 1973 to 2286
SHUTTER, NO_SHUTTER = 0.3, 5.0  # s between a sample's LiDAR and cameras: odd, no one sample
SWEEP_AGE = 2.0  # s of the nearest previous sweep
EGO_SPEED, NO_SPEED = 60, 200  # m/s: odd, none
MOVING = 1.0  # m/s from which the ego's motion says where it heads
FAR_BOX, NO_BOX = 300, 1000  # m from the LiDAR: odd, none
BOX_SPEED = 60  # m/s
SHARE = 0.001  # of the boxes, beyond which they are no slips of a single annotator
SIZE_FACTOR, NO_SIZE = 2.5, 20  # between a class's boxes and nuScenes': odd, none
LONGEST = 100  # m of a box that is not odd
FEWEST_BOXES = 5  # of a class, to say anything about their size
# (length, width, height) m of nuScenes' boxes on average
SIZES = {
    "car": (4.6, 1.95, 1.73),
    "truck": (6.9, 2.5, 2.85),
    "construction_vehicle": (6.4, 2.85, 3.2),
    "bus": (11, 2.9, 3.5),
    "trailer": (12.3, 2.9, 3.9),
    "barrier": (0.5, 2.5, 0.98),
    "motorcycle": (2.1, 0.77, 1.5),
    "bicycle": (1.7, 0.6, 1.3),
    "pedestrian": (0.73, 0.67, 1.77),
    "traffic_cone": (0.41, 0.41, 1.07),
}
LONG = [CLASSES.index(name) for name, (length, width, _) in SIZES.items() if length > 1.5 * width]
UNITS = {"mm": 1000, "cm": 100, "inches": 39.37, "feet": 3.281}


def check_plausible(
    tables: dict[str, Table], links: Links, arrays: Arrays, cameras: Sequence[str], faults: Faults
) -> None:
    """Every check on tables without other faults and the arrays made of them. cameras: the arrays' C channels."""
    _check_rotations(tables, links, cameras, faults)
    _check_cameras(tables, arrays, cameras, faults)
    _check_times(tables, arrays, faults)
    _check_motion(tables, arrays, faults)
    _check_box_places(tables, arrays, faults)
    _check_box_sizes(tables, arrays, faults)
    _check_velocities(tables, links, arrays, faults)
    _check_splits(arrays, faults)


def _check_rotations(tables: dict[str, Table], links: Links, cameras: Sequence[str], faults: Faults) -> None:
    """Cars, boxes and cameras stand upright; if they do so only with w last, that is how they were written."""
    calibration = tables["calibrated_sensor"]
    channel = follow(links["calibrated_sensor", "sensor_token"], tables["sensor"]["channel"], b"")
    camera = np.isin(channel, [name.encode() for name in cameras])
    _check_upright("ego poses", tables["ego_pose"].file, tables["ego_pose"]["rotation"], _up, faults)
    boxes = tables["sample_annotation"]
    _check_upright("boxes", boxes.file, boxes["rotation"], _up, faults)
    _check_upright("cameras", calibration.file, calibration["rotation"][camera], _camera_up, faults)


def _check_upright(
    what: str, file: str, rotations: np.ndarray, up: Callable[[np.ndarray], np.ndarray], faults: Faults
) -> None:
    if len(rotations) == 0:
        return
    upright = np.mean(up(rotations) > UPRIGHT)
    with_w_last = np.mean(up(rotations[:, [3, 0, 1, 2]]) > UPRIGHT)
    if upright < 0.9 and with_w_last > 0.99:
        told = f"only {upright:.0%} of the {what} stand upright; as (x, y, z, w) {with_w_last:.0%} do"
        faults.add(file, "rotation", told, "write quaternions as (w, x, y, z)")
    elif upright < 0.99:
        name = what.replace(" ", "_")
        faults.warn(
            f"{name}_upright", f"{1 - upright:.0%} of the {what} lean by more than 45 degrees ({file} rotation)"
        )


def _up(quaternions: np.ndarray) -> np.ndarray:
    """z of the z axis turned by quaternions (N, 4) wxyz."""
    return 1 - 2 * (quaternions[:, 1] ** 2 + quaternions[:, 2] ** 2)


def _camera_up(quaternions: np.ndarray) -> np.ndarray:
    """-z of the y axis, which points down in an image."""
    w, x, y, z = quaternions.T
    return -2 * (y * z + w * x)


def _check_cameras(tables: dict[str, Table], arrays: Arrays, cameras: Sequence[str], faults: Faults) -> None:
    """They look where their names say, level, from the car, with intrinsics of their images' size."""
    axis = np.median(arrays["camera_to_ego"][:, :, :3, 2], 0)  # (C, 3), of optical axes
    yaw, tilt = (
        np.rad2deg(np.arctan2(axis[:, 1], axis[:, 0])),
        np.rad2deg(np.arctan2(axis[:, 2], np.hypot(*axis.T[:2]))),
    )
    expected = np.array([YAWS.get(name, own) for name, own in zip(cameras, yaw)])  # other names say nothing
    away = np.abs((yaw - expected + 180) % 360 - 180)
    if odd := [c for c in range(len(cameras)) if away[c] > MOST_TURNED or abs(tilt[c]) > MOST_TILTED]:
        told = ", ".join(f"{cameras[c]} looks to yaw {yaw[c]:.0f}, tilt {tilt[c]:.0f} degrees" for c in odd)
        faults.warn("camera_axes", f"in the ego frame (x forward, y left, z up) {told}")
    place = arrays["intrinsics"][:, :, :2, 2] / arrays["image_size"]  # (S, C, 2)
    if (outside := ((place < PRINCIPAL[0]) | (place > PRINCIPAL[1])).any(2)).any():
        s, c = np.argwhere(outside)[0]
        told = f"({arrays['intrinsics'][s, c, 0, 2]:.0f}, {arrays['intrinsics'][s, c, 1, 2]:.0f})"
        size = "x".join(map(str, arrays["image_size"][s, c]))
        sentence = f"the principal point of {cameras[c]}, {told} px, is far from the middle of its {size} px image"
        faults.warn("principal_point", f"{sentence}: intrinsics must be those of the images as they are stored")
    sensors = np.concatenate([arrays["camera_to_ego"], arrays["lidar_to_ego"][:, None]], 1)
    _check_lidar(tables, arrays, faults)
    far = np.linalg.norm(sensors[:, :, :3, 3], axis=2).max(initial=0)
    if far > NO_SENSOR:
        told = f"a sensor is {far:,.0f} m away from the ego{_unit_of(far / 2)}"
        faults.add(tables["calibrated_sensor"].file, "translation", told, "write metres")
    elif far > FAR_SENSOR:
        faults.warn("sensor_places", f"a sensor is {far:.1f} m away from the ego's origin")


def _check_lidar(tables: dict[str, Table], arrays: Arrays, faults: Faults) -> None:
    """Seen from its side, a box's heading is lost in the x and y of the LiDAR's frame; turned about z nothing is."""
    lean = np.rad2deg(np.arccos(np.clip(arrays["lidar_to_ego"][:, 2, 2], -1, 1))).max(initial=0)
    told = f"{LIDAR} leans by {lean:.0f} degrees"
    if lean > MOST_LEANING:
        remedy = "turn its points and its rotation, so that its z axis points up: boxes are told by yaw in its frame"
        faults.add(tables["calibrated_sensor"].file, "rotation", told, remedy)
        return
    if lean > MOST_TILTED:
        faults.warn("lidar_upright", told)
    ahead = np.median(arrays["lidar_to_ego"][:, :2, 1], 0)  # of its y axis, in the ego frame
    away = np.rad2deg(np.arctan2(ahead[1], ahead[0]))
    if abs(away) > LIDAR_TURNED:
        told = f"the y axis of {LIDAR} looks to yaw {away:.0f} in the ego frame, not ahead"
        faults.warn("lidar_heading", f"{told}: a teacher that is fitted learns that, published weights do not know it")


def _check_times(tables: dict[str, Table], arrays: Arrays, faults: Faults) -> None:
    """Stamps are microseconds: seconds between key frames, and less between a sample's sensors."""
    stamps = arrays["timestamp"]
    interval = _median(1e-6 * np.diff(stamps)[_follows(arrays)])
    told = f"{interval:.3g} s lie between key frames"
    epoch = np.median(stamps)
    if interval < LEAST_INTERVAL:
        faults.add(tables["sample"].file, "timestamp", told, "write microseconds (are these ms or s?)")
    elif interval > INTERVAL[1] and NANOSECONDS[0] < epoch < NANOSECONDS[1]:
        faults.add(tables["sample"].file, "timestamp", told, "write microseconds (these are ns since 1970)")
    elif not INTERVAL[0] <= interval <= INTERVAL[1] and np.isfinite(interval):
        faults.warn("key_frame_interval", f"{told} (the median); timestamps are read as microseconds")
    apart = np.median(1e-6 * np.abs(arrays["camera_timestamp"] - arrays["lidar_timestamp"][:, None]))
    told = f"{apart:.3g} s lie between a sample's LiDAR and its cameras"
    if apart > NO_SHUTTER:
        faults.add(tables["sample_data"].file, "timestamp", told, "write microseconds (are these ns?)")
    elif apart > SHUTTER:
        faults.warn("camera_times", f"{told} (the median)")
    has = np.flatnonzero(arrays["sweep_count"] > 0)
    if len(has):
        age = np.median(1e-6 * (arrays["lidar_timestamp"][has] - arrays["sweep_timestamp"][has, 0]))
        if age > SWEEP_AGE:
            faults.warn("sweep_age", f"the nearest previous sweep is {age:.3g} s older than its key frame (the median)")


def _check_motion(tables: dict[str, Table], arrays: Arrays, faults: Faults) -> None:
    """The ego drives at a car's speed, ahead."""
    follows = _follows(arrays)
    poses, seconds = arrays["lidar_ego_to_global"], 1e-6 * np.diff(arrays["lidar_timestamp"])[follows]
    motion = np.diff(poses[:, :3, 3], axis=0)[follows]
    speed = np.linalg.norm(motion, axis=1) / np.where(seconds > 0, seconds, np.nan)
    usual, fastest = _median(speed), np.nanmax(speed, initial=0)
    told = f"the ego drives at {usual:,.3g} m/s (the median), at most {fastest:,.3g}"
    if usual > NO_SPEED:
        faults.add(tables["ego_pose"].file, "translation", told, "write metres, and timestamps in microseconds")
    elif fastest > EGO_SPEED:
        faults.warn("ego_speed", told)
    ahead = poses[:-1, :3, 0][follows]
    moves = speed > MOVING
    along = (ahead * motion).sum(1)[moves] / np.linalg.norm(motion[moves], axis=1)
    if len(along) and np.median(along) < UPRIGHT:
        angle = np.rad2deg(np.arccos(np.clip(np.median(along), -1, 1)))
        faults.warn("ego_heading", f"the ego drives {angle:.0f} degrees away from its x axis, which should point ahead")


def _check_box_places(tables: dict[str, Table], arrays: Arrays, faults: Faults) -> None:
    distance = np.linalg.norm(arrays["box_center"], axis=1)
    if len(distance) == 0:
        return
    usual, far = np.median(distance), distance > FAR_BOX
    if usual > NO_BOX:
        told = f"boxes are {usual:,.0f} m away from the LiDAR (the median)"
        faults.add(tables["sample_annotation"].file, "translation", told, "write metres in the frame of ego_pose.json")
    elif far.mean() > SHARE:
        share = f"{far.sum():,} of {len(far):,} boxes are over {FAR_BOX} m away from the LiDAR"
        faults.warn("box_places", f"{share}, the farthest {distance.max():,.0f} m")


def _check_box_sizes(tables: dict[str, Table], arrays: Arrays, faults: Faults) -> None:
    """Boxes are about as big as nuScenes' of their class, and longer than wide where those are."""
    labels, sizes = arrays["box_label"], arrays["box_size"]
    classed = labels >= 0
    if not classed.any():
        return
    usual = np.array([SIZES[name] for name in CLASSES])
    factor = np.cbrt((sizes[classed] / usual[labels[classed]]).prod(1))
    whole = np.median(factor)
    if not 1 / NO_SIZE <= whole <= NO_SIZE:
        told = f"boxes are {whole:,.3g} times as large as nuScenes' of their classes{_unit_of(whole)}"
        faults.add(tables["sample_annotation"].file, "size", told, "write width, length, height in metres")
        return
    if (huge := (sizes > LONGEST).any(1)).any():
        told = f"{huge.sum():,} of {len(sizes):,} boxes are over {LONGEST} m long, wide or high"
        faults.warn("longest_box", f"{told}, up to {sizes.max():,.0f}")
    odd = {}
    for label, name in enumerate(CLASSES):
        own = factor[labels[classed] == label]
        if len(own) >= FEWEST_BOXES and not 1 / SIZE_FACTOR <= np.median(own) <= SIZE_FACTOR:
            odd[name] = np.median(own)
    if odd:
        told = ", ".join(f"{name} {value:.2g}" for name, value in odd.items())
        sentence = f"boxes are not as large as nuScenes' of their class, by a factor of: {told}"
        faults.warn("box_sizes", sentence + _unit_of(whole))
    long = np.isin(labels, LONG)
    if long.sum() >= FEWEST_BOXES and (shape := np.median(sizes[long, 0] / sizes[long, 1])) < 0.8:
        told = f"vehicles are {shape:.2g} times as long as wide (the median); size is (width, length, height)"
        faults.warn("box_axes", told)


def _check_velocities(tables: dict[str, Table], links: Links, arrays: Arrays, faults: Faults) -> None:
    speed = np.linalg.norm(arrays["box_velocity"], axis=1)
    linked = np.count_nonzero((links["sample_annotation", "prev"] >= 0) | (links["sample_annotation", "next"] >= 0))
    known = np.count_nonzero(np.isfinite(speed))
    if known < linked / 2:
        told = f"only {known:,} of {linked:,} boxes with a neighbour in time have a velocity"
        faults.warn("box_velocities", f"{told}: more than 1.5 s lie between the others")
    fast = speed > BOX_SPEED
    if np.count_nonzero(fast) > SHARE * known:
        names = [CLASSES[label] if label >= 0 else "of no class" for label in arrays["box_label"][fast]]
        classes = ", ".join(f"{name} {names.count(name):,}" for name in dict.fromkeys(names))
        told = f"{fast.sum():,} of {known:,} boxes are faster than {BOX_SPEED} m/s, up to {np.nanmax(speed):,.0f}"
        faults.warn("box_speeds", f"{told} ({classes})")


def _check_splits(arrays: Arrays, faults: Faults) -> None:
    scenes = np.unique(arrays["scene"][arrays["split"] == ""])
    if len(scenes):
        names = ", ".join(arrays["scene_name"][scenes[:3]]) + (", ..." if len(scenes) > 3 else "")
        total = len(np.unique(arrays["scene"]))
        told = f"{len(scenes)} of {total} scenes are in no split ({names}), so neither trained nor evaluated on"
        faults.warn("splits", f"{told}: name them in splits.json beside the tables")


def _follows(arrays: Arrays) -> np.ndarray:
    """(S - 1,) bool: whether a sample's successor in the index is its scene's next."""
    return np.diff(arrays["scene"]) == 0


def _median(values: np.ndarray) -> float:
    return float(np.nanmedian(values)) if np.isfinite(values).any() else np.nan


def _unit_of(factor: float) -> str:
    """Which unit numbers are in that are so many times too large, as a question; nothing where none fits."""
    near = {unit: max(factor / times, times / factor) for unit, times in UNITS.items()}
    best = min(near, key=lambda unit: near[unit])
    return f": are they {best}?" if near[best] < 1.6 else ""
