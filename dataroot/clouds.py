"""What a point file is by its values: bytes of any layout divide into points of another one, which are then noise."""

from typing import NamedTuple

import numpy as np

from dataroot.faults import FileFault
from dataroot.names import LIDAR_COLUMNS
from dataroot.points import UNMEASURED, unmeasured

REACH = 300.0  # m along an axis: no LiDAR measures farther
MOST_FAR = 0.1  # of a cloud's points beyond it
FEWEST = 500  # points: in fewer, columns are alike by chance
ROW = 120  # numbers that hold whole points of every layout
ROWS = 128  # of them looked at
STRUCTURED = 0.05  # columns that differ this much are no chance
CLEARER, AS_CLEAR = 1.5, 0.95  # how much more (and hardly less) the columns of one layout differ than another's
HEADERS = {b"# .PCD": "a PCD file", b"VERSION": "a PCD file", b"\x93NUMPY": "a NumPy file", b"ply\n": "a PLY file"}
TAKE_OUT = "take these points out, or get the file again"
WRITE_PLAIN = "write x, y, z, intensity (and ring) as float32 without a header"


class Layout(NamedTuple):
    type: str
    columns: int

    def __str__(self) -> str:
        return f"{self.columns} {self.type} columns"

    def divides(self, data: bytes) -> bool:
        return len(data) % (np.dtype(self.type).itemsize * self.columns) == 0


LAYOUTS = [Layout(kind, columns) for kind in ("float32", "float64") for columns in (3, 4, 5, 6)]


def cloud_fault(data: bytes, columns: int) -> FileFault | None:
    """What is wrong with a point file that should hold float32 numbers in so many columns, x, y, z (m) first."""
    for start, name in HEADERS.items():
        if data.startswith(start):
            return FileFault(f"is {name}, not plain numbers", "", WRITE_PLAIN)
    wanted = Layout("float32", columns)
    near = wanted.divides(data) and _all_near(data)
    other = _looks_rather_like(data, wanted, near)
    if other is not None:
        remedy = f"set ingest.lidar_columns={other.columns}" if _is_offered(other) else WRITE_PLAIN
        return FileFault(f"looks like {other}, not {wanted}", "", remedy)
    if not wanted.divides(data):
        return FileFault(
            f"is cut short or no point cloud: not a multiple of {4 * columns} bytes", f"{len(data):,} bytes"
        )
    if near:
        return None
    points = np.frombuffer(data, np.float32).reshape(-1, columns)
    far = _far(points)
    if far > 0.5 and _far(points, 1000 * REACH) <= MOST_FAR:
        detail = f"{far:.0%} of its points are over {REACH:g} m away"
        return FileFault("looks like millimetres or centimetres", detail, "write metres")
    if bad := unmeasured(points):
        return FileFault(f"holds {UNMEASURED}", f"{bad:,} of {len(points):,} points", TAKE_OUT)
    if far > MOST_FAR:
        return FileFault(f"has points over {REACH:g} m away", f"{far:.0%} of them")
    return None


def _all_near(data: bytes) -> bool:
    """Whether all float32 numbers are within REACH, as nuScenes' are, intensity and ring too: then no point is far or
    unmeasured, which column by column takes ten times as long."""
    values = np.frombuffer(data, np.float32)
    with np.errstate(invalid="ignore"):
        return len(values) > 0 and bool(values.max() <= REACH and values.min() >= -REACH)  # NaN is neither


def _looks_rather_like(data: bytes, wanted: Layout, near: bool) -> Layout | None:
    """Another layout, if one explains the numbers clearly better. near: see `_all_near`."""
    layouts = [layout for layout in LAYOUTS if layout.divides(data)]
    least = STRUCTURED
    plausible = near or (wanted in layouts and _is_plausible(data, wanted))
    if plausible:
        if len(data) < FEWEST * 4 * wanted.columns:
            return None
        layouts = [layout for layout in layouts if layout.type == "float32"]
    profiles = {kind: _profile(data, kind) for kind in {layout.type for layout in layouts}}
    clear = {layout: _structure(*profiles[layout.type], layout.columns) for layout in layouts}
    if plausible:
        least = max(least, CLEARER * clear[wanted])
        half = Layout("float32", 3)  # two of its points fill one of six columns, and look no worse in it
        if wanted.columns == 6 and STRUCTURED <= AS_CLEAR * clear[wanted] <= clear[half]:
            return half
    clear = {layout: c for layout, c in clear.items() if layout != wanted and c >= least}
    clear = {layout: c for layout, c in clear.items() if _is_plausible(data, layout)}
    return next((layout for layout in clear if clear[layout] >= AS_CLEAR * max(clear.values())), None)


def _is_offered(layout: Layout) -> bool:
    return layout.type == "float32" and layout.columns in LIDAR_COLUMNS


def _is_plausible(data: bytes, layout: Layout) -> bool:
    return _far(np.frombuffer(data, layout.type).reshape(-1, layout.columns)) <= MOST_FAR


def _far(points: np.ndarray, reach: float = REACH) -> float:
    """Share of points (N, >=3) beyond `reach` (m) along x, y or z, or nowhere."""
    with np.errstate(invalid="ignore"):
        places = np.abs(points[:, :3])
        if places.max(initial=0) <= reach:  # the usual case, in one pass
            return 0.0
        return 1 - np.count_nonzero((places <= reach).all(1)) / len(points)


def _profile(data: bytes, kind: str) -> tuple[np.ndarray, float]:
    """(ROW,) mean of log |value| by its place in rows of ROW numbers, and its variance over all of them."""
    values = np.frombuffer(data, kind, len(data) // np.dtype(kind).itemsize)
    rows = values[: len(values) // ROW * ROW].reshape(-1, ROW)
    rows = rows[:: max(1, len(rows) // ROWS)]
    if len(rows) == 0:
        return np.zeros(ROW), 0.0
    with np.errstate(all="ignore"):
        size = np.nan_to_num(np.log1p(np.abs(rows.astype(np.float64))), nan=0.0, posinf=0.0)
    return size.mean(0), float(size.var())


def _structure(means: np.ndarray, variance: float, columns: int) -> float:
    """How much the columns of a layout differ: the share of the variance of log |value| that they explain.

    In the true layout x, y, z, intensity and ring have magnitudes of their own; read with another number of columns,
    every column is a mixture of all of them, and the share is next to nothing.
    """
    return float(means.reshape(-1, columns).mean(0).var() / max(variance, 1e-12))
