"""Rays a second of the renderer, forward and backward, and its memory, against the obvious ways to write it.

    python bench/render.py [--cameras 6] [--rays 512] [--samples 72 24] [--grid 180 180 5] [--repeat 3] [--threads 1]
        [--device cpu] [--skip loop]

`ours` is `Renderer`. `gather` samples all points at once by gathering eight rows of the volume each, and leaves the
gradients of the signed distance and all derivatives of both to autograd. `loop` does so sample by sample. Each runs in
a process of its own, with the same weights, rays and losses; loss and gradients must agree (else exit code 1). Times
are medians: CPU time on a CPU (it may be busy with other work), wall time on a GPU. Memory is what the first step added
to the process's peak, or what was allocated at most on a GPU.

On one thread of a busy server, as called by default: ours 530 rays a second and 1.4 GiB, gather 400 and 1.9 GiB, loop
400 and 1.3 GiB; with `--rays 128` 510, 340 and 210; with `--rays 32` 450, 380 and 90. Most of it is the two MLPs.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import Tensor

from models.mim4d.render_loss import depth_loss, rgb_loss
from models.mim4d.renderer import Renderer, RenderSpec
from models.mim4d.trilinear import Corners, Table

LOW, HIGH = (-54.0, -54.0, -5.0), (54.0, 54.0, 3.0)


class Gathering(Renderer):
    """All points at once, in plain torch."""

    def features(self, points: Tensor, table: Table) -> Tensor:
        with torch.no_grad():
            voxels = Corners.of(self._places(points, table).flatten(1, 2), table).voxels.long()
        x, y, z = (place - place.detach().floor() for place in self._places(points, table).flatten(0, 2).unbind(-1))
        shares = [torch.stack([1 - share, share], -1) for share in (z, y, x)]
        weights = torch.einsum("pz,py,px->pzyx", *shares).flatten(1)
        return (table.rows[voxels] * weights[..., None]).sum(1).unflatten(0, points.shape[:-1])

    def distances(self, points: Tensor, table: Table) -> Tensor:
        return self.field.sdf(points, self.features(points, table))

    def shade(self, points: Tensor, directions: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
        points = points.detach().requires_grad_()
        features = self.features(points, table)
        out, _ = self.field.sdf._layers(points, features)
        sdf, geometry = out[..., 0], out[..., 1:]
        (gradients,) = torch.autograd.grad(sdf.sum(), points, create_graph=True)
        return sdf, gradients, self.field.rgb(points, torch.cat([directions, features, gradients, geometry], -1))


class Looping(Gathering):
    """One sample of all rays after the other."""

    def distances(self, points: Tensor, table: Table) -> Tensor:
        return torch.cat([super(Looping, self).distances(point, table) for point in points.split(1, 2)], 2)

    def shade(self, points: Tensor, directions: Tensor, table: Table) -> tuple[Tensor, Tensor, Tensor]:
        pairs = zip(points.split(1, 2), directions.split(1, 2))
        sdf, gradients, colours = zip(*(super(Looping, self).shade(*pair, table) for pair in pairs))
        return torch.cat(sdf, 2), torch.cat(gradients, 2), torch.cat(colours, 2)


METHODS: dict[str, type[Renderer]] = {"ours": Renderer, "gather": Gathering, "loop": Looping}


def scene(args: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A volume and rays that fan out of cameras as of a car, all well within the voxels' outermost centres."""
    width, height, depth = args.grid
    volume = torch.randn(1, 32, depth, height, width)
    turns = torch.arange(args.cameras)[:, None] * (2 * torch.pi / args.cameras)
    yaw = turns + (torch.rand(args.cameras, args.rays) - 0.5) * 1.1
    pitch = torch.rand(args.cameras, args.rays) * 0.2 - 0.17
    directions = torch.stack([yaw.cos() * pitch.cos(), yaw.sin() * pitch.cos(), pitch.sin()], -1)
    origins = torch.stack([turns.cos(), turns.sin(), torch.zeros_like(turns)], -1).expand_as(directions)
    noise = torch.rand(2, 1, args.cameras * args.rays)
    return volume, origins.reshape(1, -1, 3), directions.reshape(1, -1, 3), noise


def measure(args: argparse.Namespace) -> dict[str, float]:
    """Of one method, in this process."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    device = torch.device(args.device)
    spec = RenderSpec(LOW, HIGH, samples=args.samples[0], importance=args.samples[1], edges_at_centres=True)
    renderer = METHODS[args.method](spec).to(device)
    volume, *rays = (value.to(device) for value in scene(args))
    volume.requires_grad_()

    def step() -> tuple[float, float]:
        renderer.zero_grad()
        volume.grad = None
        rendered = renderer(volume, *rays)
        loss = 10 * rgb_loss(rendered, torch.zeros_like(rendered.rgb))
        loss = loss + 10 * depth_loss(rendered, torch.full_like(rendered.depth, 20.0), spec.scale)
        loss.backward()
        return loss.item(), volume.grad.norm().item()  # waits for a GPU

    def peak() -> float:
        if device.type == "cuda":
            return torch.cuda.max_memory_allocated() / 2**20
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10

    clock = time.perf_counter if device.type == "cuda" else time.process_time
    before = peak()
    loss, gradient = step()
    memory = peak() - before
    times = []
    for _ in range(args.repeat):
        start = clock()
        step()
        times.append(clock() - start)
    return {"seconds": statistics.median(times), "megabytes": memory, "loss": loss, "gradient": gradient}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--rays", type=int, default=512, help="of each camera")
    parser.add_argument("--samples", type=int, nargs=2, default=(72, 24), metavar=("EVEN", "FURTHER"))
    parser.add_argument("--grid", type=int, nargs=3, default=(180, 180, 5), metavar=("X", "Y", "Z"))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--skip", nargs="*", default=(), choices=METHODS)
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.method:
        print(json.dumps(measure(args)))
        return
    rays, first = args.cameras * args.rays, None
    for method in METHODS:
        if method in args.skip:
            continue
        command = [sys.executable, __file__, *sys.argv[1:], "--method", method]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        rate = f"{rays / found['seconds']:8.0f} rays a second"
        print(f"{method:<7} {rate}  {found['seconds']:7.2f} s  {found['megabytes']:7.0f} MiB", flush=True)
        first = first or found
        if any(abs(found[name] / first[name] - 1) > 1e-3 for name in ("loss", "gradient")):
            sys.exit(f"{method}: another result: {found}, not {first}")


if __name__ == "__main__":
    main()
