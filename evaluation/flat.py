"""Boxes of many samples as flat arrays in the global frame, and which of them the official evaluation counts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import chain

import numpy as np

from models.boxes import Boxes
from models.names import ATTRIBUTES, CLASSES, EVALUATION_RANGE

NO_ATTRIBUTE, UNKNOWN_ATTRIBUTE = -1, -2
CLASS_NUMBER = {name: number for number, name in enumerate(CLASSES)}
ATTRIBUTE_NUMBER = {"": NO_ATTRIBUTE} | {name: number for number, name in enumerate(ATTRIBUTES)}
RACK = "static_object.bicycle_rack"  # the category in which bicycles and motorcycles are not looked for
IN_RACKS = [CLASS_NUMBER["bicycle"], CLASS_NUMBER["motorcycle"]]
RANGES = np.array([EVALUATION_RANGE[name] for name in CLASSES])  # m from the ego, by class


@dataclass(frozen=True)
class FlatBoxes:
    """N boxes of many samples, true or predicted. The order decides ties, as the order of a results file does."""

    sample: np.ndarray  # (N,) int, any numbering
    label: np.ndarray  # (N,) int, position in names.CLASSES
    center: np.ndarray  # (N, 3) m, global
    size: np.ndarray  # (N, 3) m, in one order of axes throughout
    yaw: np.ndarray  # (N,) rad, global
    velocity: np.ndarray  # (N, 2) m/s, global; NaN where unknown
    attribute: np.ndarray  # (N,) int, position in names.ATTRIBUTES, or NO_ATTRIBUTE
    score: np.ndarray  # (N,); of true boxes never read

    def __len__(self) -> int:
        return len(self.sample)

    def __getitem__(self, select: slice | np.ndarray) -> "FlatBoxes":
        """The selected boxes (mask, slice or index array)."""
        return FlatBoxes(**{f.name: getattr(self, f.name)[select] for f in fields(self)})

    @classmethod
    def joined(cls, parts: Iterable["FlatBoxes"]) -> "FlatBoxes":
        parts = [cls.from_records(0, []), *parts]
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    @classmethod
    def from_boxes(cls, sample: int, boxes: Boxes, attributes: Iterable[str]) -> "FlatBoxes":
        """One sample's boxes, given in the global frame, and the name of each one's attribute."""
        n = len(boxes)
        numbers = [ATTRIBUTE_NUMBER.get(name, UNKNOWN_ATTRIBUTE) for name in attributes]
        return cls(
            sample=np.full(n, sample, np.int32),
            label=boxes.labels.astype(np.int8),
            center=boxes.centers,
            size=boxes.sizes,
            yaw=boxes.yaws,
            velocity=boxes.velocities,
            attribute=np.array(numbers, np.int8).reshape(n),
            score=np.ones(n) if boxes.scores is None else boxes.scores,
        )

    @classmethod
    def from_records(cls, sample: int, records: list[Mapping]) -> "FlatBoxes":
        """One sample's boxes as a results file holds them, or as the devkit serialises its own.

        Raises KeyError, TypeError or ValueError for a field that is missing, mistyped or of another length, and for an
        unknown class or attribute.
        """
        n = len(records)

        def numbers(name: str, length: int) -> np.ndarray:
            values = [record[name] for record in records]
            if set(map(len, values)) - {length}:
                raise ValueError(f"{name}: not {length} numbers")
            return _array(list(chain.from_iterable(values))).reshape(n, length)

        return cls(
            sample=np.full(n, sample, np.int32),
            label=np.array([CLASS_NUMBER[record["detection_name"]] for record in records], np.int8),
            center=numbers("translation", 3),
            size=numbers("size", 3),
            yaw=yaws(numbers("rotation", 4)),
            velocity=numbers("velocity", 2),
            attribute=np.array([ATTRIBUTE_NUMBER[record["attribute_name"]] for record in records], np.int8),
            score=_array([record["detection_score"] for record in records]),
        )


def _array(values: list) -> np.ndarray:
    if set(map(type, values)) - {int, float, np.float64}:
        raise TypeError("not numbers alone")
    return np.array(values, np.float64)


def yaws(quaternions: np.ndarray) -> np.ndarray:
    """(N,) rad, the heading of quaternions (N, 4) wxyz of any length, as the devkit takes them."""
    w, x, y, z = quaternions.T
    with np.errstate(over="ignore", invalid="ignore"):  # numbers out of all range become NaN
        return np.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)


def ego_distances(boxes: FlatBoxes, ego: np.ndarray) -> np.ndarray:
    """(N,) m in the plane, from the ego's place (samples, 2) at the time of each box's sample."""
    offset = boxes.center[:, :2] - ego[boxes.sample]
    return np.sqrt((offset**2).sum(1))


def counted(boxes: FlatBoxes, ego: np.ndarray, racks: Mapping[int, Boxes]) -> np.ndarray:
    """(N,) bool: within the class's range and, of bicycles and motorcycles, outside the sample's bicycle racks.

    `racks`: sample -> global boxes; a sample without racks may be missing.
    """
    out = ego_distances(boxes, ego) < RANGES[boxes.label]
    bikes = np.flatnonzero(out & np.isin(boxes.label, IN_RACKS) & np.isin(boxes.sample, list(racks)))
    for sample in np.unique(boxes.sample[bikes]).tolist():
        rows = bikes[boxes.sample[bikes] == sample]
        out[rows] = ~racks[sample].contains(boxes.center[rows]).any(0)
    return out
