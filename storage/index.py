"""`index.zarr`: the typed, columnar table of samples that ingest writes and everything downstream reads.

S samples ordered by scene, then time; C cameras in the order of the attribute `cameras`; W previous LiDAR sweeps and F
previous camera frames, nearest first; N boxes, those of sample s in rows `box_offsets[s]:box_offsets[s + 1]`. Times are
microseconds; transforms are 4x4 float64 `a_to_b`; paths are relative to the dataroot. Where there is no sweep or frame,
its path is "", its time 0 and its matrices NaN.

Every array is one chunk with a checksum. Zarr reads a chunk that is not there as zeros: the reader here raises.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from storage.damage import Damaged
from storage.nodes import array_in

FORMAT = 3
UNCOUNTED = -1  # in place of a number of points

# name -> (dtype, dimensions); 3, 4 and 2 are fixed sizes, upper-case letters are the dimensions of the docstring.
SCHEMA: dict[str, tuple[str, tuple[str, ...]]] = {
    "token": ("str", ("sample",)),
    "scene": ("int32", ("sample",)),
    "scene_name": ("str", ("scene",)),
    "map_path": ("str", ("scene",)),  # the devkit's map mask, "" where the scene names no log
    "map_location": ("str", ("scene",)),  # the log's, the name of its map expansion file; "" where unknown
    "timestamp": ("int64", ("sample",)),
    "split": ("str", ("sample",)),  # "train", "val", "test", or "" for a scene of no split
    "previous": ("int32", ("sample",)),  # the scene's previous key frame, or -1
    # Without the LiDAR's files the paths are "". Where the tables have no LiDAR, one mounted as nuScenes' stands in, at
    # the time and the ego pose of the key frame nearest to the sample's time.
    "lidar_path": ("str", ("sample",)),
    "lidar_timestamp": ("int64", ("sample",)),
    "lidar_to_ego": ("float64", ("sample", "row4", "column4")),
    "lidar_ego_to_global": ("float64", ("sample", "row4", "column4")),
    "sweep_count": ("int32", ("sample",)),
    "sweep_path": ("str", ("sample", "sweep")),
    "sweep_timestamp": ("int64", ("sample", "sweep")),
    "sweep_to_lidar": ("float64", ("sample", "sweep", "row4", "column4")),
    "camera_path": ("str", ("sample", "camera")),
    "camera_timestamp": ("int64", ("sample", "camera")),
    "intrinsics": ("float64", ("sample", "camera", "row3", "column3")),
    "camera_to_ego": ("float64", ("sample", "camera", "row4", "column4")),
    "camera_ego_to_global": ("float64", ("sample", "camera", "row4", "column4")),
    "image_size": ("int32", ("sample", "camera", "width_height")),
    "frame_count": ("int32", ("sample", "camera")),
    "frame_path": ("str", ("sample", "camera", "frame")),
    "frame_timestamp": ("int64", ("sample", "camera", "frame")),
    "frame_intrinsics": ("float64", ("sample", "camera", "frame", "row3", "column3")),
    "frame_camera_to_ego": ("float64", ("sample", "camera", "frame", "row4", "column4")),
    "frame_ego_to_global": ("float64", ("sample", "camera", "frame", "row4", "column4")),
    "box_offsets": ("int64", ("sample_edge",)),
    "box_center": ("float64", ("box", "xyz")),
    "box_size": ("float64", ("box", "lwh")),
    "box_yaw": ("float64", ("box",)),
    "box_velocity": ("float64", ("box", "xy")),
    "box_label": ("int8", ("box",)),  # position in the attribute `classes`, or -1
    "box_lidar_points": ("int32", ("box",)),  # UNCOUNTED of all boxes where there is no LiDAR
    "box_radar_points": ("int32", ("box",)),
    "box_visibility": ("int8", ("box",)),  # 1 to 4 as in nuScenes, 0 where unknown
    "box_token": ("str", ("box",)),
    "box_instance": ("str", ("box",)),
    "box_category": ("str", ("box",)),
    "box_attribute": ("str", ("box",)),  # "" where the annotation has none
}
REPEATED = ("split", "box_category", "box_attribute")  # a few texts, a million times
FIXED = {"row3": 3, "column3": 3, "row4": 4, "column4": 4, "width_height": 2, "xyz": 3, "lwh": 3, "xy": 2}


@dataclass(frozen=True)
class IndexAttributes:
    """What holds for the whole index."""

    version: str  # of the tables, such as v1.0-mini
    cameras: tuple[str, ...]
    classes: tuple[str, ...]
    split_names: dict[str, str] = field(default_factory=dict)  # "val" -> the devkit's name for it, such as mini_val
    lidar_columns: int = 5  # float32 numbers a point in the point files; the first four are x, y, z, intensity
    own_classes: dict[str, str] = field(default_factory=dict)  # category -> class or "ignore", beside nuScenes' own


class Index:
    """An open index: every array of SCHEMA is an attribute, read on first use.

    Raises FileNotFoundError where there is none, ValueError where it is of another format, Damaged where files of it
    are gone or are not what was written.
    """

    def __init__(self, path: Path, group: zarr.Group):
        self.path = path
        attributes: dict[str, Any] = dict(group.attrs)
        if attributes.get("format") != FORMAT:
            raise ValueError(f"{path}: format {attributes.get('format')}, not {FORMAT}; run `geomim ingest` again")
        self.version: str = attributes["version"]
        self.cameras: tuple[str, ...] = tuple(attributes["cameras"])
        self.classes: tuple[str, ...] = tuple(attributes["classes"])
        self.split_names: dict[str, str] = dict(attributes["split_names"])
        self.lidar_columns: int = attributes["lidar_columns"]
        self.own_classes: dict[str, str] = dict(attributes["own_classes"])
        self._group = group

    @classmethod
    def open(cls, path: Path) -> "Index":
        if not (Path(path) / "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: there is no index; `geomim ingest` makes it")
        try:
            return cls(Path(path), zarr.open_group(str(path), mode="r", use_consolidated=False))
        except (KeyError, TypeError) as error:
            raise Damaged(Path(path) / "zarr.json", f"lacks {error}") from error
        except json.JSONDecodeError as error:
            raise Damaged(Path(path) / "zarr.json", f"cannot be read ({error})") from error

    def __getattr__(self, name: str) -> np.ndarray:
        if name not in SCHEMA:
            raise AttributeError(name)
        try:
            array = array_in(self._group, name)
            chunk = self.path.joinpath(name, "c", *["0"] * array.ndim)
            if array.size and not chunk.is_file():
                raise Damaged(chunk, "is gone")
            value = np.asarray(array[...])
            if name in REPEATED:
                value = _each_once(value)
        except Damaged:
            raise
        except Exception as error:  # of JSON, of zarr, of a codec: each has its own for bytes that are not its own
            raise Damaged(self.path / name, f"cannot be read ({' '.join(str(error).split())[:200]})") from error
        value.setflags(write=False)
        self.__dict__[name] = value
        return value

    def __len__(self) -> int:
        return len(self.token)

    @cached_property
    def has_lidar(self) -> bool:
        """Whether the LiDAR's files are there to be read; where it stood is known without them."""
        return len(self) == 0 or bool(self.lidar_path[0])

    @cached_property
    def sample_of(self) -> dict[str, int]:
        """Sample token -> row."""
        return {token: row for row, token in enumerate(self.token)}

    def samples(self, split: str) -> np.ndarray:
        """Rows (n,) of a split ("train", "val", "test"), ascending."""
        return np.flatnonzero(self.split == split)

    def box_rows(self, sample: int) -> slice:
        """The rows of a sample's boxes in the `box_*` arrays."""
        return slice(int(self.box_offsets[sample]), int(self.box_offsets[sample + 1]))

    def lidar_to_global(self, sample: int) -> np.ndarray:
        """(4, 4) of a sample's LIDAR_TOP frame, at the time of its key sweep."""
        return self.lidar_ego_to_global[sample] @ self.lidar_to_ego[sample]

    def camera_to_global(self, sample: int) -> np.ndarray:
        """(C, 4, 4) of a sample's cameras, each at the time of its image."""
        return self.camera_ego_to_global[sample] @ self.camera_to_ego[sample]


def has_points(counts: np.ndarray, least: int) -> np.ndarray:
    """(n,) bool: which boxes, by their numbers of points (n,), hold at least so many, or were not counted."""
    return (counts >= least) | (counts == UNCOUNTED)


def _each_once(values: np.ndarray) -> np.ndarray:
    """The same texts (n,), equal ones as one Python object: zarr makes one of each, 60 bytes a box."""
    known: dict[str, str] = {}
    return np.array([known.setdefault(value, value) for value in values.tolist()], object)


def write_index(path: Path, arrays: Mapping[str, np.ndarray], attributes: IndexAttributes) -> None:
    """Write all arrays of SCHEMA; an index is small (about 100 MB for nuScenes), so it is one part, written afresh.

    Raises ValueError for a missing or unknown array, a wrong dtype kind, or dimensions that disagree.
    """
    if unknown := arrays.keys() ^ SCHEMA.keys():
        raise ValueError(f"index arrays missing or unknown: {sorted(unknown)}")
    sizes = dict(FIXED)
    for name, (_, dimensions) in SCHEMA.items():
        shape = arrays[name].shape
        if len(shape) != len(dimensions):
            raise ValueError(f"{name}: {len(shape)} dimensions, not {dimensions}")
        for dimension, size in zip(dimensions, shape, strict=True):
            if sizes.setdefault(dimension, size) != size:
                raise ValueError(f"{name}: {dimension} is {size} here and {sizes[dimension]} elsewhere")
    if sizes["sample_edge"] != sizes["sample"] + 1:
        raise ValueError(f"box_offsets: {sizes['sample_edge']} entries for {sizes['sample']} samples")
    if path.exists():
        shutil.rmtree(path)
    group = zarr.open_group(str(path), mode="w")
    group.attrs.update(
        {
            "format": FORMAT,
            "version": attributes.version,
            "cameras": list(attributes.cameras),
            "classes": list(attributes.classes),
            "split_names": dict(attributes.split_names),
            "lidar_columns": attributes.lidar_columns,
            "own_classes": dict(attributes.own_classes),
        }
    )
    for name, (dtype, dimensions) in SCHEMA.items():
        value = arrays[name].astype(object if dtype == "str" else dtype)
        array = group.create_array(
            name,
            shape=value.shape,
            chunks=tuple(max(1, size) for size in value.shape),
            dtype=str if dtype == "str" else dtype,
            compressors=(ZstdCodec(level=3, checksum=True), Crc32cCodec()),
            dimension_names=dimensions,
            config={"write_empty_chunks": True},
        )
        if value.size:
            array[...] = value
