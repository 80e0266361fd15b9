"""What the previous key frame tells of velocity, apart from how long a detector's images have been trained.

    python bench/velocity_limit.py DATAROOT [--smear 2]
    python bench/velocity_limit.py DATAROOT --detector ARTIFACTS/finetune/KEY --squared --flip

What comes after the lift, BevDet's encoder, neck and head, learns from the maps of the train split with one frame and
with two, by the same steps, and is read at the true centres of val like `bench/velocity.py`. The maps are either drawn:
each annotated box a blob in its class's map, smeared along the ray from the ego as by a depth that is not sure. Or they
are what a detector, frozen, lifts from the images. The previous frame's are where the ego's motion puts them.
`--squared` is `finetune.velocity_loss: squared`. `--flip` mirrors scenes in training, so that the side of the road does
not tell where traffic goes.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from head_limit import ingested
from torch import Tensor, nn
from velocity import TITLE, detector_config, load, tell, velocities

sys.path.insert(0, str(Path(__file__).parents[1]))

from models.bevdet.encoder import ResidualEncoder, ResidualSpec
from models.bevdet.necks import FpnLss, FpnSpec
from models.boxes import Boxes
from models.center_head import ONE_GROUP, CenterHeadSpec, CenterPointHead, Predictions, code_weights
from models.geometry import inverse
from models.names import CLASSES
from storage.index import Index
from tasks.batches.lidar import augmented, sample_boxes
from tasks.finetune.batches import Batches
from tasks.finetune.frames import frames_of
from tasks.progress import progress
from tasks.training.schedule import cosine_with_warmup

BATCH, RATE, WARMUP, CLIP_NORM = 4, 1e-3, 50, 5.0
WIDTHS, OUT, HEAD = (32, 64, 96), 64, 32  # channels
VELOCITY_WEIGHT, SQUARED_WEIGHT = 4.0, 0.4
DRAWN_RANGE, DRAWN_CELL = 25.6, 1.6  # of drawn maps (m)


class Sample(NamedTuple):
    maps: Tensor  # (2, C, Y, X): key frame, previous one
    boxes: Boxes  # the truth in the key frame's ego


class Detector(nn.Module):
    """BevDet after the lift. frames: how many of a sample's maps, of so many channels, it sees."""

    def __init__(self, frames: int, channels: int, reach: float, cell: float, squared: bool):
        super().__init__()
        self.frames = frames
        self.encoder = ResidualEncoder(channels * frames, ResidualSpec(WIDTHS))
        self.neck = FpnLss((WIDTHS[0], WIDTHS[-1]), FpnSpec(OUT, scale=4, extra_scale=2))
        limits = (-reach, -reach, -5, reach, reach, 3)
        self.head = CenterPointHead(
            CenterHeadSpec(
                OUT,
                limits,
                (cell, cell),
                ONE_GROUP,
                width=HEAD,
                min_radius=1,
                code_weights=code_weights(SQUARED_WEIGHT if squared else VELOCITY_WEIGHT),
                velocity_squared=squared,
            )
        )

    def forward(self, maps: Tensor) -> Predictions:
        """maps: (B, T, C, Y, X)."""
        first, _, last = self.encoder(maps[:, : self.frames].flatten(1, 2))
        return self.head(self.neck(first, last))


def drawn(boxes: Boxes, reach: float, cell: float, smear: float) -> Tensor:
    """(classes, Y, X): the boxes as normal densities of their own size, their standard deviation at least `smear` along
    the ray and two thirds of a cell across, times the share of the peak that smearing leaves."""
    places = (np.arange(round(2 * reach / cell)) + 0.5) * cell - reach
    x, y = np.meshgrid(places, places)
    maps = np.zeros((len(CLASSES), *x.shape), np.float32)
    for center, size, label in zip(boxes.centers[:, :2], boxes.sizes[:, :2], boxes.labels):
        width = max(2 / 3 * cell, size.min() / 3)
        length = np.hypot(width, smear)
        ray = center / max(np.linalg.norm(center), 1e-6)
        along = (x - center[0]) * ray[0] + (y - center[1]) * ray[1]
        across = (y - center[1]) * ray[0] - (x - center[0]) * ray[1]
        blob = width / length * np.exp(-0.5 * ((along / length) ** 2 + (across / width) ** 2))
        maps[label] = np.maximum(maps[label], blob)
    return torch.from_numpy(maps)


def drawn_samples(index: Index, rows: np.ndarray, reach: float, cell: float, smear: float) -> Iterator[Sample]:
    """The rows' samples, their maps drawn."""
    for row in rows.tolist():
        to_ego = inverse(index.lidar_ego_to_global[row])
        frames = []
        for frame in frames_of(index, row, 2):
            boxes = sample_boxes(index, frame, min_lidar_points=1)
            to_global = index.lidar_ego_to_global[frame] @ index.lidar_to_ego[frame]
            frames.append(boxes.levelled(to_global).moved(to_ego))
        yield Sample(torch.stack([drawn(b, reach, cell, smear) for b in frames]), inside(frames[0], reach))


@torch.no_grad()  # inference tensors cannot be learnt from
def lifted_samples(index: Index, rows: np.ndarray, dataroot: Path, folder: Path) -> Iterator[Sample]:
    """The rows' samples, their maps lifted from the images by the detector of a finetune artifact."""
    config = detector_config(folder)
    detector = load(folder, config)
    both = config.model_copy(update={"view": config.view.model_copy(update={"frames": 2, "stereo": False})})
    batches = Batches(both, index, dataroot)
    for row in rows.tolist():
        batch = batches.evaluation([row])
        images = batch.normalised()
        maps = [detector.lift(images[:, frame], detector.frame_geometry(batch.cameras, frame))[0] for frame in (0, 1)]
        yield Sample(torch.cat(maps), inside(batch.boxes[0], config.bev_range))


def inside(boxes: Boxes, reach: float) -> Boxes:
    """Those whose centres lie on the map."""
    return boxes[boxes.centred_in(np.full(2, -reach), np.full(2, reach))]


def mirrored(sample: Sample, along: Sequence[bool]) -> Sample:
    """The scene mirrored along x, along y, both or neither."""
    maps = sample.maps.flip([dim for dim, mirror in ((3, along[0]), (2, along[1])) if mirror])
    matrix = np.diag([-1.0 if along[0] else 1.0, -1.0 if along[1] else 1.0, 1.0])
    return Sample(maps, augmented(np.zeros((0, 5), np.float32), sample.boxes, matrix)[1])


def trained(
    frames: int, samples: list[Sample], reach: float, cell: float, steps: int, squared: bool, flip: bool = False
) -> Detector:
    torch.manual_seed(0)
    random, channels = np.random.default_rng(0), samples[0].maps.shape[1]
    detector = Detector(frames, channels, reach, cell, squared)
    optimizer = torch.optim.AdamW(detector.parameters(), RATE)
    for step in progress(range(steps), f"{frames} frame(s)", steps, unit="steps"):
        optimizer.param_groups[0]["lr"] = RATE * cosine_with_warmup(step, steps, min(WARMUP, steps // 2))
        picked = [samples[i] for i in random.integers(0, len(samples), BATCH)]
        if flip:
            picked = [mirrored(s, random.integers(0, 2, 2) > 0) for s in picked]
        predictions = detector(torch.stack([s.maps for s in picked]))
        loss = torch.stack(list(detector.head.loss(predictions, [s.boxes for s in picked]).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), CLIP_NORM)
        optimizer.step()
    return detector.eval()


@torch.inference_mode()
def read(detector: Detector, samples: list[Sample], shown: tuple[int, int] = (0, 1)) -> list:
    """The `velocities` of all samples. shown: which frames' maps stand in the two frames' places."""
    return [pair for s in samples for pair in velocities(detector.head, detector(s.maps[None, list(shown)]), [s.boxes])]


def limit(
    train: list[Sample],
    val: list[Sample],
    reach: float,
    cell: float,
    steps: int,
    squared: bool = False,
    flip: bool = False,
) -> dict[str, list]:
    """What each detector says of val, by its name."""
    one, two = (trained(frames, train, reach, cell, steps, squared, flip) for frames in (1, 2))
    return {
        "1 frame": read(one, val),
        "2 frames": read(two, val),
        "2 frames, key frame twice": read(two, val, (0, 0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataroot", type=Path)
    parser.add_argument("--version", default="v1.0-trainval")
    parser.add_argument("--smear", type=float, default=2.0, help="of drawn maps (m); 0: depth is known")
    parser.add_argument("--detector", type=Path, help="a finetune artifact, whose maps and sizes are taken")
    parser.add_argument("--squared", action="store_true")
    parser.add_argument("--flip", action="store_true", help="mirror half of the scenes along x, and half along y")
    parser.add_argument("--steps", type=int, default=1200, help="of 4 samples")
    args = parser.parse_args()
    reach, cell = DRAWN_RANGE, DRAWN_CELL
    if args.detector:
        config = detector_config(args.detector)
        reach, cell = config.bev_range, config.bev_cell
    parts = []
    with ingested(args.dataroot, args.version) as index:
        for split in ("train", "val"):
            rows = index.samples(split)
            if args.detector:
                made = lifted_samples(index, rows, args.dataroot, args.detector)
            else:
                made = drawn_samples(index, rows, reach, cell, args.smear)
            parts.append(list(progress(made, f"maps of {split}", len(rows))))
    found = limit(*parts, reach, cell, args.steps, args.squared, args.flip)
    print(TITLE)
    tell(found)


if __name__ == "__main__":
    main()
