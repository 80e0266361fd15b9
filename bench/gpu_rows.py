"""The rows of bench/gpu.py: what is measured, on what, and by which settings."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from device_clock import META, Kernel, flops, peak_gib, reset_peak, timed, waits_for_nothing, where
from noise import NoiseForDetector, NoiseForGeoMIM, preset
from sparse_encoder import GRID, synthetic_sweep, voxels
from torch import nn

from batches.cbgs import class_balanced
from batches.detector import Batches
from batches.labels import labelled
from common.errors import UserError
from models.lidar.encoder import EncoderSpec, SparseEncoder
from no_waiting import step_without_waiting
from storage.depth import DepthReader
from storage.index import Index
from tasks.engine.config import load_config
from tasks.engine.plan import make_plan
from tasks.engine.roots import usable_root
from tasks.engine.stage import Inputs
from tasks.finetune.config import EVALUATE, FinetuneConfig
from tasks.finetune.goals import goal_of
from tasks.finetune.network import build_detector
from tasks.finetune.optimiser import parameter_groups as detector_groups
from tasks.finetune.task import DetectorTask
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.run import parameter_groups
from tasks.pretrain.samples import split_samples
from tasks.pretrain.task import PretrainTask
from training.prefetch import Prefetcher, choose_loaders
from training.ranks import shares
from training.speed import autocast, products
from training.step import Stepper

ANY = np.arange(1000)  # rows of an index that is not there
CACHES = "ingest", "teacher", "depth"  # that samples are loaded from
WAITS = "WAITS"
LOADED = 15.0  # seconds at most that a real loader is timed
Config = PretrainConfig | FinetuneConfig


@dataclass(frozen=True)
class Job:
    """Rows that share a process and a network. kind: a name in KINDS."""

    kind: str
    preset: str = ""  # of configs/
    batches: tuple[int, ...] = (1,)  # samples a step
    speed: dict[str, Any] = field(default_factory=dict)  # fields of the config, where the preset's are not meant
    stage: str = "pretrain"
    flops: float | None = None  # of a step of one sample, where another job has counted them


@dataclass(frozen=True)
class Place:
    """What all jobs are told. config, root, dataroot: of the real loader."""

    device: str
    size: str
    until: float  # of `time.monotonic`
    config: Path | None = None
    root: Path | None = None
    dataroot: Path | None = None


@dataclass
class Row:
    """A line of the table; None where it was not measured."""

    what: str
    network: str
    speed: str
    batch: int
    samples_per_second: float | None = None
    flops: float | None = None  # of a step of one sample: its products, nothing recomputed
    memory_gib: float | None = None
    step_ms: float | None = None
    host_ms: float | None = None
    device_ms: float | None = None
    note: str = ""
    kernels: list[Kernel] = field(default_factory=list)


@dataclass
class Training:
    """A task with its network on a device, and the training loop's step of it."""

    config: Config
    task: Any
    model: nn.Module
    optimizer: torch.optim.Optimizer
    device: torch.device

    @cached_property
    def stepper(self) -> Stepper:
        return Stepper(self.task, self.model, self.optimizer, self.config.clip_norm)

    def step(self, loaded: Sequence[Any]) -> None:
        self.stepper.take(0, loaded)

    def backward(self, loaded: Sequence[Any]) -> None:
        batches = [batch.to(self.device) for batch in loaded]
        for batch, weight in zip(batches, shares(self.task.counts, batches)):
            terms = [term.weight * term.mean * weight.get(term.name, 1.0) for term in self.task.terms(batch)]
            (torch.stack(terms).sum() / len(batches)).backward()

    def loaded(self, step: int, batch: int) -> Sequence[Any]:
        """A step's batches, of `batch` samples, from where the loop copies them."""
        self.task.config = self.config.model_copy(update={"batch_size": batch, "accumulate": 1})
        made: Sequence[Any] = self.task.load(step)
        return [part.pinned() for part in made] if self.device.type == "cuda" else made


def config_of(job: Job, size: str) -> Config:
    section: Config = getattr(preset(job.preset, size), job.stage)
    return section.model_copy(update=job.speed)


def training_of(config: Config, size: str, device: torch.device) -> Training:
    """On noise."""
    if isinstance(config, PretrainConfig):
        method = NoiseForGeoMIM(config, size)
        return pretraining(config, method, method.build(), ANY, device)
    return finetuning(config, NoiseForDetector(config), ANY, device)


def pretraining(
    config: PretrainConfig, method: Any, model: nn.Module, samples: np.ndarray, device: torch.device
) -> Training:
    model = model.to(device).train()
    optimizer = torch.optim.AdamW(parameter_groups(model, config), config.rate, fused=device != META)
    return Training(config, PretrainTask(config, method, model, samples, None), model, optimizer, device)


def finetuning(config: FinetuneConfig, batches: Any, samples: np.ndarray, device: torch.device) -> Training:
    torch.manual_seed(0)
    model = build_detector(config).to(device).train()
    groups = detector_groups(model, config.rate, config.weight_decay, config.layer_decay, config.backbone_rate)
    optimizer = torch.optim.AdamW(groups, fused=device != META)
    return Training(config, DetectorTask(config, model, batches, samples), model, optimizer, device)


def speed_of(config: Config) -> str:
    return f"{config.precision}{', compiled' if config.compile else ''}, {config.checkpointing}"


def flops_of(config: Config, size: str) -> float:
    """Of a step of one sample."""
    plain = config.model_copy(update={"checkpointing": "none", "compile": False, "precision": "fp32"})
    training = training_of(plain, size, META)
    loaded = training.loaded(0, 1)
    return flops(partial(training.backward, loaded))


# The kinds of row


def steps(job: Job, place: Place) -> Iterator[Row]:
    """A step by batch size, of noise that is loaded beforehand."""
    config, device = config_of(job, place.size), torch.device(place.device)
    network, what = job.preset, "pretraining" if job.stage == "pretrain" else "finetuning"
    a_sample = job.flops or flops_of(config, place.size)
    with compiling(device):
        training = training_of(config, place.size, device)
    with products(config.precision):
        for batch in job.batches:
            row = Row(what, network, speed_of(config), batch, flops=a_sample)
            if time.monotonic() > place.until:
                yield replace(row, note="time was up")
                return
            loaded = training.loaded(0, batch)
            reset_peak(device)
            try:
                begin = time.perf_counter()
                if config.compile:
                    training.step(loaded)
                    row.note = f"compiled in {time.perf_counter() - begin:.0f} s"
                times = timed(partial(training.step, loaded), device)
            except torch.OutOfMemoryError:
                yield replace(row, note="out of memory")
                return  # more samples would be too
            row.step_ms, row.host_ms, row.device_ms, row.kernels, note = times
            row.note = ", ".join(filter(None, (row.note, note)))
            row.samples_per_second = 1e3 * batch / row.step_ms
            row.memory_gib = peak_gib(device)
            yield row


def compiling(device: torch.device) -> Any:
    """On a CPU the compiler's graphs run as they are, since machine code for them takes minutes."""
    if device.type == "cuda":
        return nullcontext()
    return mock.patch.object(torch, "compile", partial(torch.compile, backend="eager"))


def waiting(job: Job, place: Place) -> Iterator[Row]:
    """Whether forward and backward pass ask the device for a number; without CUDA, on a device that has none."""
    config, device = config_of(job, place.size), torch.device(place.device)
    row = Row("no waiting", job.preset, speed_of(config), job.batches[0])
    with products(config.precision):
        training = training_of(config, place.size, device)
        loaded = training.loaded(0, job.batches[0])
        if device.type == "cuda":
            training.step(loaded)  # constants are copied once
            torch.cuda.synchronize()
            found = waits_for_nothing(partial(training.backward, loaded))
        else:
            try:
                found = ", ".join(step_without_waiting(training.task, training.model, loaded[0]))
            except Exception as error:
                found = where(error)
    yield replace(row, note=f"{WAITS}: {found}" if found else "OK")


def evaluation(job: Job, place: Place) -> Iterator[Row]:
    """One sample from images to boxes, as tasks/finetune/detect.py does it."""
    config, device = config_of(job, place.size), torch.device(place.device)
    assert isinstance(config, FinetuneConfig)
    torch.manual_seed(0)
    detector = build_detector(config).to(device).eval()
    batch = NoiseForDetector(config).evaluation(np.arange(1))
    if device.type == "cuda":
        batch = batch.pinned()

    def detect() -> None:
        moved = batch.to(device)
        with torch.inference_mode(), products(config.precision), autocast(config.precision, device):
            bev, _ = detector(moved.normalised(), detector.geometry(moved.cameras))
            detector.head.predict(detector.head(bev))

    row = Row("evaluation", job.preset, config.precision, 1)
    yield measured(row, detect, device)


def teacher(job: Job, place: Place) -> Iterator[Row]:
    """The frozen LiDAR encoder on a made-up cloud of ten sweeps, voxels at hand: what the cache spares each sample."""
    device = torch.device(place.device)
    sweeps = 10 if place.size == "full" else 1
    means, coords = (t.to(device) for t in voxels(synthetic_sweep(np.random.default_rng(0)), sweeps))
    encoder = SparseEncoder(GRID.sparse_shape, EncoderSpec()).eval().to(device)

    def encode() -> None:
        with torch.inference_mode():
            encoder(means, coords, 1)

    yield measured(Row("teacher", "sparse encoder", f"fp32, {sweeps} sweeps", 1), encode, device)


def measured(row: Row, function: Callable[[], None], device: torch.device) -> Row:
    reset_peak(device)
    row.step_ms, row.host_ms, row.device_ms, row.kernels, row.note = timed(function, device)
    row.samples_per_second, row.memory_gib = 1e3 * row.batch / row.step_ms, peak_gib(device)
    return row


def loader(job: Job, place: Place) -> Iterator[Row]:
    """Steps on real samples, loaded by threads as in a training: samples a second, and how long a step waits."""
    assert place.config is not None
    assert place.root is not None
    device = torch.device(place.device)
    whole = load_config(place.config, [], place.dataroot)
    plan = make_plan(whole, usable_root(place.root))
    for planned in plan:
        if planned.stage.name in CACHES and planned.state != "cached":
            raise UserError(f"{planned.name} is not cached ({planned.why}); run it first")
    inputs = next(planned for planned in plan if planned.stage.name == job.stage).ready().inputs
    config: Config = getattr(whole, job.stage).model_copy(update=job.speed)
    if isinstance(config, FinetuneConfig):  # the earlier frame from the first step on
        config = config.model_copy(update={"view": config.view.model_copy(update={"previous_from": 0})})
    with compiling(device):
        training = real(config, inputs, device)
    row = Row(f"{job.stage}, loaded", place.config.stem, speed_of(config), job.batches[0])
    threads = choose_loaders(config.loaders, device)
    load = partial(training.loaded, batch=row.batch)
    with products(config.precision), Prefetcher(load, range(1 << 30), threads, threads) as coming:
        for _ in range(3):
            training.step(next(coming))
        reset_peak(device)
        begin, waited, count = time.perf_counter(), 0.0, 0
        while time.perf_counter() - begin < (LOADED if place.size == "full" else LOADED / 5):
            start = time.perf_counter()
            loaded = next(coming)
            waited += time.perf_counter() - start
            training.step(loaded)
            if device.type == "cuda":
                torch.cuda.synchronize()  # the loop reads each step's losses
            count += 1
        seconds = time.perf_counter() - begin
    row.step_ms, row.samples_per_second = 1e3 * seconds / count, row.batch * count / seconds
    row.memory_gib = peak_gib(device)
    yield replace(row, note=f"waits {1e3 * waited / count:.1f} ms a step for its {threads} loader thread(s)")


def real(config: Config, inputs: Inputs, device: torch.device) -> Training:
    """A training on a dataroot and its caches."""
    index = Index.open(inputs["ingest"].path / "index.zarr")
    if isinstance(config, PretrainConfig):
        method = config.method.method()(config, config.method, inputs, index)
        samples = split_samples(index, config.held_out)[0]
        return pretraining(config, method, method.build(), drawn(config, index, samples), device)
    depth = DepthReader(inputs["depth"].path / "depth.zarr") if config.needs_depth else None
    goal = goal_of(config)(config, index, inputs.dataroot, EVALUATE)
    batches = Batches(config, index, inputs.dataroot, depth, goal.learnt)
    return finetuning(config, batches, drawn(config, index, labelled(index, config.label_fraction)), device)


def drawn(config: Config, index: Index, samples: np.ndarray) -> np.ndarray:
    return class_balanced(index, samples, config.seed) if config.sampling == "cbgs" else samples


KINDS: dict[str, Callable[[Job, Place], Iterator[Row]]] = {
    "steps": steps,
    "waiting": waiting,
    "evaluation": evaluation,
    "teacher": teacher,
    "loader": loader,
}
