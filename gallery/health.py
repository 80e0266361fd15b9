"""Whether the numbers of an artifact look as such numbers should, seen on a few of them: enough to find a whole store
of zeros or NaN, in the same time for a cache of any size. `geomim verify` reads every byte.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import DataError
from evaluation.submission import RESULTS
from gallery.results_file import ResultsFile
from storage.bev import BevReader
from storage.damage import Damaged
from storage.depth import DepthReader
from storage.index import Index
from tasks.ingest.report import counts_of
from tasks.pretrain.samples import spread

LOOKED_AT = 8  # samples of a store
MOST_BYTES = 300_000_000  # of a file of weights that is read whole
NUMPYS = {"F16", "F32", "F64", "I64", "I32", "U8", "BOOL"}  # types that NumPy has

Facts = dict[str, Any]
ODD = "odd"  # the name under which a sentence says what is wrong


def health(path: Path) -> dict[str, Facts]:
    """Store or file of an artifact -> what was seen of it. Under ODD stands what is not as it should be."""
    looks: dict[str, Callable[[Path], Facts]] = {
        "index.zarr": _index,
        "bev.zarr": _bev,
        "depth.zarr": _depth,
        RESULTS: _results,
        "backbone.safetensors": _weights,
        "model.safetensors": _weights,
        "detector.safetensors": _weights,
    }
    out = {}
    for name, look in looks.items():
        if (path / name).exists():
            try:
                out[name] = look(path / name)
            except (DataError, Damaged, OSError, ValueError) as error:
                out[name] = {ODD: str(error)}
    return out


def _index(path: Path) -> Facts:
    index = Index.open(path)
    needed = ("token", "split", "scene", "sweep_path", "frame_path", "box_label", "box_category")
    facts: Facts = counts_of({name: getattr(index, name) for name in needed})
    counts, points = np.diff(index.box_offsets), index.box_lidar_points
    facts |= {"samples_without_boxes": int((counts == 0).sum()), "boxes_without_points": int((points == 0).sum())}
    numbers = (index.box_center, index.box_size, index.box_yaw, index.camera_to_ego, index.intrinsics)
    if not all(np.isfinite(values).all() for values in numbers):
        facts[ODD] = "boxes or calibrations hold NaN or infinity"
    return facts


def _bev(path: Path) -> Facts:
    reader = BevReader(path)
    counts, cells = reader.store.counts()[:, 0], reader.shape[1] * reader.shape[2]
    samples = _some(len(reader))
    values = [reader.cells(sample).values.astype(np.float32) for sample in samples]
    joined = np.concatenate(values)
    facts: Facts = {
        "looked_at": f"{len(samples)} of {len(reader)} samples",
        "active_share": _spread(counts / cells, 4),
        "empty_samples": int((counts == 0).sum()),
    }
    if not np.isfinite(joined).all():
        return facts | {ODD: f"{int((~np.isfinite(joined)).sum()):,} of {joined.size:,} features are NaN or infinite"}
    if not joined.any():
        return facts | {ODD: "all features are zero"}
    still = int((joined.std(0) == 0).sum())
    facts |= {"features": _spread(joined, 3), "deviation": round(float(joined.std()), 3), "constant_channels": still}
    if len(values) > 1 and all(np.array_equal(values[0], other) for other in values[1:]):
        facts[ODD] = "all samples have the same features"
    return facts


def _depth(path: Path) -> Facts:
    reader = DepthReader(path)
    counts = reader.counts()
    samples = _some(len(reader))
    points = [reader.read(sample) for sample in samples]
    depth = np.concatenate([p.depth for p in points])
    facts: Facts = {
        "looked_at": f"{len(samples)} of {len(reader)} samples",
        "points_per_sample": _spread(counts.sum(1), 0),
        "points_by_camera": {name: round(float(mean)) for name, mean in zip(reader.cameras, counts.mean(0))},
        "empty_samples": int((counts.sum(1) == 0).sum()),
    }
    if not len(depth):
        return facts | {ODD: "no camera sees a point"}
    facts["depth_m"] = _spread(depth, 1)
    if not np.isfinite(depth).all() or depth.min() <= 0:
        facts[ODD] = "depths are NaN, infinite or not positive"
    return facts


def _results(path: Path) -> Facts:
    file = ResultsFile(path)
    return {"samples": len(file), ODD: "holds no sample"} if len(file) == 0 else {"samples": len(file)}


def _weights(path: Path) -> Facts:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    facts: Facts = {
        "tensors": len(tensors),
        "parameters": sum(int(np.prod(entry["shape"])) for entry in tensors.values()),
        "types": sorted({entry["dtype"] for entry in tensors.values()}),
    }
    if path.stat().st_size > MOST_BYTES or not NUMPYS.issuperset(facts["types"]):
        return facts
    from safetensors.numpy import load_file

    bad = [name for name, value in load_file(path).items() if not np.isfinite(value).all()]
    return facts | ({ODD: f"{len(bad)} tensors hold NaN or infinity, such as {bad[0]}"} if bad else {})


def _some(count: int) -> list[int]:
    return spread(np.arange(count), LOOKED_AT).tolist()


def _spread(values: np.ndarray, digits: int) -> str:
    """Least, mean and greatest."""
    if not len(values):
        return "-"
    return ", ".join(
        f"{name} {value:.{digits}f}"
        for name, value in zip(
            ("least", "mean", "greatest"), (float(values.min()), float(values.mean()), float(values.max()))
        )
    )
