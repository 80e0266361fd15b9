"""What the previous key frame does for velocity: a trained detector's error at the true centres of val's boxes.

    python bench/velocity.py DATAROOT ARTIFACTS/finetune/KEY [...]

Read at the true centres it needs no detection, so that detectors of any quality can be compared: boxes on the map of
the classes whose velocity the devkit scores, first all of them, then those that move. A line for each detector; for one
with two frames another with the key frame in the previous one's place, as at the beginning of a scene: what is then
left comes from appearance alone; and one for the answer "it stands still" on the same boxes.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.bevdet.cameras import Cameras
from models.bevdet.detector import BevDet
from models.boxes import Boxes
from models.center_head import CenterPointHead, Predictions, codes_at
from models.names import CLASSES
from storage.index import Index
from storage.manifest import read_manifest
from tasks.evaluation.metrics import UNDEFINED
from tasks.finetune.batches import Batch, Batches
from tasks.finetune.config import FinetuneConfig
from tasks.finetune.network import build_detector, load_detector
from tasks.finetune.run import WEIGHTS
from tasks.progress import progress

UNSCORED = [CLASSES.index(name) for name, errors in UNDEFINED.items() if "AVE" in errors]
MOVES = 0.5  # m/s
TITLE = f"{'mean error of velocity (m/s)':<56} {'all':>6} {'moving':>8}"


def without_previous(batch: Batch) -> Batch:
    """The same samples with the key frame in every frame's place."""
    first = [0] * batch.images.shape[1]
    cameras = Cameras(*(part[:, first] for part in batch.cameras[:3]), batch.cameras.scene)
    return batch._replace(images=batch.images[:, first], cameras=cameras)


def velocities(
    head: CenterPointHead, predictions: Predictions, boxes: Sequence[Boxes]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(said, true) velocities (K, 2) m/s of each class group's scored boxes on the map, where known."""
    scored = [b[~np.isin(b.labels, UNSCORED)] for b in boxes]
    for maps, targets in zip(predictions, head.targets(scored)):
        said, true = codes_at(maps, targets.cells)[..., -2:], targets.codes[..., -2:]
        known = targets.used & ~true.isnan().any(2)
        yield said[known].numpy(), true[known].numpy()


@torch.inference_mode()
def detected(detector: torch.nn.Module, batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The `velocities` that a detector says of a batch."""
    bev, _ = detector(batch.normalised(), detector.geometry(batch.cameras))
    yield from velocities(detector.head, detector.head(bev), batch.boxes)


def line(name: str, said: np.ndarray, true: np.ndarray) -> str:
    error, moves = np.linalg.norm(said - true, axis=1), np.linalg.norm(true, axis=1) > MOVES
    return f"{name:<56} {error.mean():6.3f} {error[moves].mean():8.3f}"


def tell(found: dict[str, list[tuple[np.ndarray, np.ndarray]]]) -> None:
    """Print a line for each name, of all the pairs that `velocities` gave, and one for "it stands still"."""
    for name, pairs in found.items():
        said, true = map(np.concatenate, zip(*pairs))
        print(line(name, said, true))
    print(line(f"  it stands still ({len(true)} boxes)", np.zeros_like(true), true), flush=True)


def detector_config(folder: Path) -> FinetuneConfig:
    """The config of a finetune artifact, without depth supervision: no depth labels are needed."""
    manifest = read_manifest(folder)
    if manifest is None or manifest.recipe.stage != "finetune":
        sys.exit(f"{folder}: is no finished finetune artifact; name a folder ARTIFACTS/finetune/KEY")
    # Where the weights began does not matter any more, and the file may be gone.
    return FinetuneConfig.model_validate(manifest.recipe.config | {"depth_weight": 0.0, "init": "random"})


def load(folder: Path, config: FinetuneConfig) -> BevDet:
    """The artifact's detector."""
    detector = build_detector(config).eval()
    load_detector(detector, folder / WEIGHTS, config)
    return detector


def measure(folder: Path, dataroot: Path) -> None:
    """Print the lines of the detector in a finetune artifact."""
    config = detector_config(folder)
    detector = load(folder, config)
    stage, key = read_manifest(folder).inputs()["ingest"]
    index = Index.open(folder.parents[1] / stage / key[:16] / "index.zarr")
    batches, samples = Batches(config, index, dataroot), index.samples("val")
    name = f"{folder.name}, {config.view.frames} frame(s)"
    found: dict[str, list] = {}
    for sample in progress(samples, folder.name, len(samples)):
        batch = batches.evaluation([sample])
        found.setdefault(name, []).extend(detected(detector, batch))
        if config.view.frames > 1:
            found.setdefault(f"{name}, key frame twice", []).extend(detected(detector, without_previous(batch)))
    tell(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataroot", type=Path)
    parser.add_argument("artifacts", type=Path, nargs="+")
    args = parser.parse_args()
    print(TITLE)
    for folder in args.artifacts:
        measure(folder, args.dataroot)


if __name__ == "__main__":
    main()
