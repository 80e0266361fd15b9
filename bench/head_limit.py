"""The score that the detection head itself allows: the truth through its own targets, decoded, suppressed, evaluated.

    python bench/head_limit.py DATAROOT [--version v1.0-mini] [--split val] [--range 51.2] [--cell 0.8 1.6]

A line per cell size and rules of non-maximum suppression. What is lost are boxes outside the map, of two boxes of a
class in one cell the second, and what suppression takes for the same object twice.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import nms
from models.boxes import Boxes
from models.center_head import ONE_GROUP, PARTS, CenterHeadSpec, CenterPointHead, Predictions, Targets
from storage.index import Index, write_index
from tasks.evaluation.ground_truth import ground_truth
from tasks.evaluation.official import evaluate
from tasks.finetune.frames import boxes_in_key_ego, boxes_in_lidar
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

RULES = {"circle": nms.CENTERPOINT, "scale-NMS": nms.BEVDET}


def perfect(targets: list[Targets]) -> Predictions:
    """The raw maps of a network that says exactly what the targets ask for: heat around centres too."""
    predictions = []
    for heatmap, codes, cells, used in targets:
        maps = torch.zeros(len(codes), codes.shape[2], heatmap[0, 0].numel())
        for sample, own in enumerate(used):
            maps[sample, :, cells[sample, own]] = codes[sample, own].nan_to_num().T
        parts = maps.unflatten(2, heatmap.shape[2:]).split(list(PARTS.values()), 1)
        predictions.append(dict(zip(PARTS, parts)) | {"heatmap": torch.logit(heatmap.clamp(1e-4, 1 - 1e-4))})
    return predictions


def limit(
    index: Index, dataroot: Path, split: str, reach: float, cell: float, rules: tuple[nms.Nms, ...], out: Path
) -> dict:
    """What `evaluate` says of the split. reach: of the map from the ego along x and y (m)."""
    head = CenterPointHead(
        CenterHeadSpec(1, (-reach, -reach, -5, reach, reach, 3), (cell, cell), ONE_GROUP, width=1, rules=rules)
    )
    found: dict[int, Boxes] = {}
    for sample in index.samples(split).tolist():
        truth = boxes_in_key_ego(index, sample, replace(ground_truth(index, sample), scores=None))
        (boxes,) = head.predict(perfect(head.targets([truth])))
        found[sample] = boxes_in_lidar(index, sample, boxes)
    return evaluate(index, dataroot, found, split, out)


@contextlib.contextmanager
def ingested(dataroot: Path, version: str) -> Iterator[Index]:
    """The index of a dataset, for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.zarr"
        with contextlib.redirect_stdout(io.StringIO()):
            arrays, attributes, _ = ingest(dataroot, version, IngestConfig())
        write_index(path, arrays, attributes)
        yield Index.open(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataroot", type=Path)
    parser.add_argument("--version", default="v1.0-mini")
    parser.add_argument("--split", default="val")
    parser.add_argument("--range", type=float, default=51.2)
    parser.add_argument("--cell", type=float, nargs="+", default=[0.8, 1.6])
    args = parser.parse_args()
    with ingested(args.dataroot, args.version) as index, tempfile.TemporaryDirectory() as folder:
        print(f"{args.split}: {len(index.samples(args.split))} samples; map +-{args.range} m")
        for cell in args.cell:
            for name, rules in RULES.items():
                result = limit(index, args.dataroot, args.split, args.range, cell, rules, Path(folder))
                low = [f"{c} {s['AP']:.3f}" for c, s in result["classes"].items() if s["AP"] < 0.95]
                scores = f"mAP {result['mAP']:.4f}  NDS {result['NDS']:.4f}"
                print(f"{cell} m  {name:<10} {scores}  AP below 0.95: {', '.join(low) or '-'}")


if __name__ == "__main__":
    main()
