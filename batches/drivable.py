"""Where one can drive: nuScenes' maps as yes-or-no questions about global positions.

The map expansion (`maps/expansion/<location>.json`) has the drivable area itself, as polygons. Without it the map mask
(`maps/*.png`) serves, 0.1 m a pixel; nuScenes' own masks hold sidewalks too.
"""

import io
import json
import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from common.errors import DataError, UserError
from common.files import read_file
from storage.index import Index

PIXEL = 0.1  # m of a map mask
FOREGROUND = 255
STRIP = 1024  # rows of a mask in memory as bytes at a time: whole, nuScenes' largest takes 0.6 GB


class DrivableArea(Protocol):
    """One map's."""

    def contains(self, xy: np.ndarray) -> np.ndarray:
        """(N,) bool of global positions (N, 2) in m; False outside the map."""
        ...


class MaskArea:
    """A map mask, read as the devkit's MapMask reads it; kept as bits."""

    def __init__(self, path: Path):
        from PIL import PngImagePlugin, UnidentifiedImageError

        data = read_file(path, "complete the dataroot's maps")
        try:
            # Not Image.open: that takes an image of this size for an attack.
            with PngImagePlugin.PngImageFile(io.BytesIO(data)) as image:
                self._width, self._height = image.size
                rows = range(0, self._height, STRIP)
                boxes = [(0, row, self._width, min(row + STRIP, self._height)) for row in rows]
                strips = [np.packbits(np.asarray(image.crop(box)) == FOREGROUND, 1) for box in boxes]
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
            raise DataError(f"{path}: cannot be read as a map mask ({error}); complete the dataroot's maps") from None
        if strips[0].ndim != 2:
            raise DataError(f"{path}: is no map mask: it has several channels; complete the dataroot's maps")
        self._bits = np.concatenate(strips)

    def contains(self, xy: np.ndarray) -> np.ndarray:
        column = np.round(xy[:, 0] / PIXEL).astype(np.int64)
        row = np.round(self._height - xy[:, 1] / PIXEL).astype(np.int64)
        inside = (column >= 0) & (column < self._width) & (row >= 0) & (row < self._height)
        row, column = np.where(inside, row, 0), np.where(inside, column, 0)
        return inside & (self._bits[row, column >> 3] >> (7 - (column & 7)) & 1).astype(bool)


class PolygonArea:
    """The drivable area of a map expansion file: the union of its polygons, without their holes."""

    def __init__(self, path: Path):
        import shapely

        data = read_file(path, "unpack the map expansion again")
        try:
            tables = json.loads(data)
            node = {n["token"]: (n["x"], n["y"]) for n in tables["node"]}
            polygon = {p["token"]: p for p in tables["polygon"]}
            tokens = [token for area in tables["drivable_area"] for token in area["polygon_tokens"]]
            rings = [
                (
                    [node[token] for token in polygon[t]["exterior_node_tokens"]],
                    [[node[token] for token in hole["node_tokens"]] for hole in polygon[t]["holes"]],
                )
                for t in tokens
            ]
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: cannot be read ({error}); unpack the map expansion again") from None
        except (KeyError, TypeError) as error:
            raise DataError(f"{path}: is no map expansion (lacks {error}); unpack the map expansion again") from None
        # Drawn polygons may touch themselves; buffering by nothing makes them valid.
        shapes = [shapely.Polygon(outer, [h for h in holes if len(h) > 2]).buffer(0) for outer, holes in rings]
        self._tree = shapely.STRtree(shapes)

    def contains(self, xy: np.ndarray) -> np.ndarray:
        import shapely

        out = np.zeros(len(xy), bool)
        if len(xy):
            around = shapely.box(*xy.min(0), *xy.max(0))
            for shape in self._tree.geometries[self._tree.query(around)]:
                shapely.prepare(shape)
                out |= shapely.contains_xy(shape, xy[:, 0], xy[:, 1])
        return out


class Maps:
    """The drivable areas of an index's scenes, opened when they are asked for."""

    def __init__(self, index: Index, dataroot: Path):
        self._index, self._dataroot = index, dataroot
        self._open: dict[Path, DrivableArea] = {}
        self._lock = threading.Lock()  # the loaders' threads ask at once, and a mask takes seconds to decode

    def of(self, sample: int) -> DrivableArea:
        """Raises UserError where the sample's map cannot be read or its scene names none."""
        scene = self._index.scene[sample]
        expansion = self._dataroot / "maps" / "expansion" / f"{self._index.map_location[scene]}.json"
        mask = str(self._index.map_path[scene])
        if not expansion.is_file() and not mask:
            name = self._index.scene_name[scene]
            raise UserError(f"{self._dataroot}: scene {name} names no log, so no map; set its log_token in scene.json")
        path = expansion if expansion.is_file() else self._dataroot / mask
        with self._lock:
            if path not in self._open:
                self._open[path] = PolygonArea(path) if path == expansion else MaskArea(path)
            return self._open[path]
