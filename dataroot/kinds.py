"""What is read of each nuScenes table, and what each value must be."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

LONGEST_TEXT = 1024  # longer than any token or path; fixed-width columns must not be blown up by one value


@dataclass(frozen=True)
class Kind:
    """One type of field: how to tell it, fast for a list of values and slowly for one, and how to make it a column."""

    words: str
    all_fit: Callable[[list], bool]
    fits: Callable[[Any], bool]
    column: Callable[[list], np.ndarray]
    blank: Any
    optional: bool = False  # an absent field stands as the blank and is no fault


def _text_column(values: list[str]) -> np.ndarray:
    try:
        return np.array(values, dtype="S") if values else np.zeros(0, "S1")
    except UnicodeEncodeError:
        return np.array([value.encode("utf-8", "surrogatepass") for value in values])


def _are(kind: type, values: list) -> bool:
    return set(map(type, values)) <= {kind}


def _short(values: list[str]) -> bool:
    return max(map(len, values), default=0) <= LONGEST_TEXT


def _numbers(length: int) -> Kind:
    def fits(value: Any) -> bool:
        return type(value) is list and len(value) == length and {type(v) for v in value} <= {int, float}

    def all_fit(values: list) -> bool:
        return (
            _are(list, values)
            and set(map(len, values)) <= {length}
            and set(map(type, chain.from_iterable(values))) <= {int, float}
        )

    def column(values: list) -> np.ndarray:
        count = len(values) * length
        return np.fromiter(chain.from_iterable(values), np.float64, count).reshape(-1, length)

    return Kind(f"a list of {length} numbers", all_fit, fits, column, [0.0] * length)


def _is_intrinsics(value: Any) -> bool:
    return value == [] or (type(value) is list and len(value) == 3 and all(_numbers(3).fits(row) for row in value))


def _is_stamp(value: Any) -> bool:
    return INTEGER.fits(value) or (type(value) is float and value.is_integer() and abs(value) < 2**53)


def _is_flag(value: Any) -> bool:
    return type(value) is bool or (type(value) is int and value in (0, 1))


NO_INTRINSICS = np.full((3, 3), np.nan)
TEXT = Kind(
    "text", lambda v: _are(str, v) and _short(v), lambda v: type(v) is str and len(v) <= LONGEST_TEXT, _text_column, ""
)
TOKEN = Kind(
    "a token (text that is not empty)",
    lambda v: TEXT.all_fit(v) and all(v),
    lambda v: TEXT.fits(v) and v != "",
    _text_column,
    "",
)
OPTIONAL_TEXT = Kind(TEXT.words, TEXT.all_fit, TEXT.fits, _text_column, "", optional=True)
TOKENS = Kind(
    "a list of tokens",
    lambda v: _are(list, v) and TOKEN.all_fit(list(chain.from_iterable(v))),
    lambda v: type(v) is list and all(TOKEN.fits(token) for token in v),
    lambda v: _text_column(["\n".join(tokens) for tokens in v]),  # split again by `tokens_of`
    [],
)
INTEGER = Kind(
    "a whole number",
    lambda v: _are(int, v) and (not v or (min(v) >= -(2**63) and max(v) < 2**63)),
    lambda v: type(v) is int and -(2**63) <= v < 2**63,
    lambda v: np.array(v, np.int64),
    0,
)
STAMP = Kind(
    "a whole number of microseconds",
    lambda v: INTEGER.all_fit(v) or all(map(_is_stamp, v)),
    lambda v: _is_stamp(v),
    lambda v: np.array(v, np.int64),  # the devkit computes the same with 5.0 as with 5
    0,
)
FLAG = Kind(
    "true or false",
    lambda v: _are(bool, v) or all(map(_is_flag, v)),
    lambda v: _is_flag(v),
    lambda v: np.array(v, bool),  # the devkit asks 1 and 0 as it does true and false
    False,
)
VECTOR = _numbers(3)
QUATERNION = _numbers(4)
INTRINSICS = Kind(
    "[] or a 3x3 matrix",
    lambda v: all(map(_is_intrinsics, v)),
    _is_intrinsics,
    lambda v: np.array([NO_INTRINSICS if m == [] else m for m in v], np.float64).reshape(-1, 3, 3),
    [],
)

# What of each table is read. The devkit needs these fields too; others may be there and are passed over.
FIELDS: dict[str, dict[str, Kind]] = {
    "category": {"token": TOKEN, "name": TOKEN},
    "attribute": {"token": TOKEN, "name": TOKEN},
    "visibility": {"token": TOKEN},
    "instance": {"token": TOKEN, "category_token": TOKEN},
    "sensor": {"token": TOKEN, "channel": TOKEN, "modality": TOKEN},
    "calibrated_sensor": {
        "token": TOKEN,
        "sensor_token": TOKEN,
        "translation": VECTOR,
        "rotation": QUATERNION,
        "camera_intrinsic": INTRINSICS,
    },
    "ego_pose": {"token": TOKEN, "translation": VECTOR, "rotation": QUATERNION},
    "log": {"token": TOKEN, "location": OPTIONAL_TEXT},
    "scene": {"token": TOKEN, "name": TOKEN, "log_token": OPTIONAL_TEXT},
    "sample": {"token": TOKEN, "timestamp": STAMP, "scene_token": TOKEN, "prev": TEXT, "next": TEXT},
    "sample_data": {
        "token": TOKEN,
        "sample_token": TOKEN,
        "ego_pose_token": TOKEN,
        "calibrated_sensor_token": TOKEN,
        "timestamp": STAMP,
        "is_key_frame": FLAG,
        "height": INTEGER,
        "width": INTEGER,
        "filename": TOKEN,
        "prev": TEXT,
        "next": TEXT,
    },
    "sample_annotation": {
        "token": TOKEN,
        "sample_token": TOKEN,
        "instance_token": TOKEN,
        "visibility_token": OPTIONAL_TEXT,
        "attribute_tokens": TOKENS,
        "translation": VECTOR,
        "size": VECTOR,
        "rotation": QUATERNION,
        "num_lidar_pts": INTEGER,
        "num_radar_pts": INTEGER,
        "prev": TEXT,
        "next": TEXT,
    },
    "map": {"token": TOKEN, "log_tokens": TOKENS, "filename": TOKEN},
}
