"""How far a flip of the features is from the features of flipped points.

    python bench/flip_gap.py --config configs/simulated-teacher.yaml --dataroot data/simulated-40 --root artifacts
    python bench/flip_gap.py --dataroot ../shared/real-keyframe --set teacher.weights=random

Pretraining mirrors the scene at random. Mirroring a cached map is not what the teacher would have made of the mirrored
scene: its kernels are not symmetric, and a stride of 2 over an odd or even border counts cells from one side. Both are
compared in what the loss sees, the patch-normalised target, on samples spread over the dataset. For scale, the last row
is the gap between a map and that of the same points moved by one voxel: a change that means nothing.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from models.geomim.target import normalise_patches
from storage.index import Index
from tasks.batches.points import load_points
from tasks.config import load_config
from tasks.plan import make_plan
from tasks.teacher.network import WEIGHTS, build_teacher
from tasks.teacher.parts import flipped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--dataroot", type=Path)
    parser.add_argument("--root", type=Path, default=Path("artifacts"))
    parser.add_argument("--set", action="append", dest="overrides")
    parser.add_argument("--samples", type=int, default=16)
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides, arguments.dataroot)
    steps = {planned.stage.name: planned.step for planned in make_plan(config, arguments.root.resolve())}
    index = Index.open(steps["ingest"].artifact.path / "index.zarr")
    fitted = steps["fit"].artifact.path / WEIGHTS if "fit" in steps else None
    teacher = build_teacher(config.teacher, index, config.dataroot, fitted)
    patch, device = config.pretrain.patch, torch.device("cpu")

    @torch.inference_mode()
    def target(points: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        bev, _ = teacher.run(teacher.prepare(torch.from_numpy(points)), device, False)
        return bev, normalise_patches(bev[None], patch)[0]

    gaps: dict[str, list[tuple[float, float, float]]] = {}
    for sample in np.unique(np.linspace(0, len(index) - 1, min(arguments.samples, len(index))).astype(int)):
        points = load_points(index, config.dataroot, int(sample), config.lidar.sweeps)
        bev, own = target(points)
        for flip in ("x", "y", "xy"):
            axes = [1 + "xy".index(axis) for axis in flip]
            exact, exact_target = target(flipped(points, flip))
            mirrored = bev.flip(axes)
            shifted = mirrored.roll([1] * len(axes), axes)
            for name, map in ((f"flip {flip}", mirrored), (f"flip {flip}, one cell on", shifted)):
                gaps.setdefault(name, []).append(gap(map, normalise_patches(map[None], patch)[0], exact, exact_target))
        moved = points.copy()
        moved[:, 0] += config.lidar.voxel_size[0]
        gaps.setdefault("moved by a voxel", []).append(gap(bev, own, *target(moved)))
    print(f"{len(next(iter(gaps.values())))} samples, teacher.weights {config.teacher.weights}")
    print(f"{'':22}{'features':>10}{'target':>10}{'active cells':>14}")
    for name, rows in gaps.items():
        features, targets, cells = np.mean(rows, 0)
        print(f"{name:22}{features:10.1%}{targets:10.1%}{cells:14.1%}")
    print("rms of the difference over the rms of the features, and of the target; cells active in one of the two alone")


def gap(bev: torch.Tensor, own: torch.Tensor, other: torch.Tensor, other_target: torch.Tensor) -> tuple[float, ...]:
    active, other_active = bev.any(0), other.any(0)
    return (
        float((bev - other).square().mean().sqrt() / other.square().mean().sqrt()),
        float((own - other_target).square().mean().sqrt() / other_target.square().mean().sqrt()),
        float((active != other_active).sum() / (active | other_active).sum()),
    )


if __name__ == "__main__":
    main()
