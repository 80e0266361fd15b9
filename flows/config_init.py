"""`geomim config init`: a commented config to start from, of what is seen in a dataroot."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from common.errors import UserError
from flows.dataroot_glance import Glance, glance
from flows.show import console
from models.names import CAMERAS
from tasks.engine.config import PipelineConfig, load_config

LINE = 120  # letters
PASSES = {"pretrain": 50, "finetune": 20}  # over the train split, as published
HEAD = (
    "# A config of geomim. What is not here has its default, which `geomim config show` prints.",
    "# An editor can complete and explain it: `geomim config schema --help` says how.",
)
BATCH = 4  # samples a step: what one GPU holds
FEWEST_STEPS = 100
PUBLISHED = ((256, 704), (128, 352))  # images of the network, largest first: as published, and half of that

MEMORY = "Fewer where a GPU's memory is short."
WARMUP = "A tenth of the steps is enough."
FP32 = "fp32 on a CPU or an older GPU."
# Section -> field -> why one would change it. What a field is, its own description says.
WHY: dict[str, dict[str, str]] = {
    "ingest": {
        "lidar_columns": "`geomim ingest` says where yours have others.",
        "sweeps": "Where there are none: 0, here and below.",
    },
    "lidar": {
        "range": "Where your LiDAR sees; sides are multiples of 8 voxels.",
        "voxel_size": "Coarser is faster.",
        "sweeps": "",
    },
    "fit": {"epochs": "More on little data.", "batch_size": MEMORY, "warmup": WARMUP},
    "teacher": {"weights": "A file saves the training of one."},
    "depth": {"sweeps": ""},
    "backbone": {"name": "GeoMIM pretrains a swin, MIM4D a convnext too."},
    "pretrain": {
        "init": "A file saves most of the time.",
        "batch_size": MEMORY,
        "steps": "",
        "warmup": WARMUP,
        "precision": FP32,
    },
    "finetune": {
        "batch_size": MEMORY,
        "steps": "",
        "warmup": WARMUP,
        "depth_weight": "Above 0, LiDAR teaches the cameras depth.",
        "precision": FP32,
        "baseline": "false saves half of the time.",
    },
    "evaluate": {"score_threshold": "Lower finds more, and more that is not there."},
}
# The same where there is no LiDAR, from which the other stages learn.
WHY_WITHOUT_LIDAR = {
    "ingest": {"lidar": "There is none here."},
    "backbone": WHY["backbone"],
    "finetune": {
        "init": "A file saves most of the time.",
        **WHY["finetune"],
        "depth_weight": "Only a LiDAR teaches it.",
    },
    "evaluate": WHY["evaluate"],
}
SIZE = "Larger sees farther, and costs in proportion."


def write_start(file: Path, dataroot: Path | None, version: str | None) -> None:
    """Write the file and say what was seen. Raises UserError where it is there, or the tables asked for are not."""
    if file.exists():
        raise UserError(f"{file}: is there already, and stays as it is; name another file")
    seen = glance(dataroot, version) if dataroot is not None and dataroot.is_dir() else None
    text = start(dataroot, seen.version if seen else version, seen)
    try:
        with open(file, "x") as written:
            written.write(text)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); choose another place") from None
    load_config(file)
    out = console()
    unseen = f"{dataroot} is not there yet" if dataroot else "no --dataroot was given"
    for line in seen.told() if seen else [f"{unseen}: nothing was looked at"]:
        out.print(line, soft_wrap=True, markup=False)
    out.print(f"wrote {file}; next: geomim run --config {file} --dry-run", soft_wrap=True, markup=False)


def start(dataroot: Path | None, version: str | None, seen: Glance | None) -> str:
    """The file's text."""
    config, values = PipelineConfig(), _fitting(seen)
    lines = list(HEAD)
    where = {
        "dataroot": (str(dataroot.absolute()) if dataroot else None, "" if dataroot else "It is to be named here."),
        "version": (version or config.version, seen.others() if seen else ""),
    }
    for name, (value, why) in where.items():
        lines += _field(config, name, value, why, "")
    for section, whys in (WHY if seen is None or seen.has_lidar else WHY_WITHOUT_LIDAR).items():
        model = getattr(config, section)
        lines += ["", f"{section}:"]
        for name, why in whys.items():
            own, reason = values.get(section, {}).get(name, (getattr(model, name), why))
            lines += _field(model, name, own, reason, "  ")
        if section == "ingest" and seen and seen.cameras and seen.cameras != CAMERAS:
            lines += _field(model, "cameras", seen.cameras, "All that there are; leave out what is not to count.", "  ")
        if section == "ingest" and seen and seen.classes:
            lines += _field(model, "classes", None, "Guessed from the names: look at each.", "  ", nothing=True)
            lines += [f"    {_yaml(category)}: {label}" for category, label in seen.classes.items()]
        if section in PASSES:
            lines += ["  image:", *_field(model.image, "size", _image_size(seen), SIZE, "    ")]
    return "\n".join(lines) + "\n"


def _fitting(seen: Glance | None) -> dict[str, dict[str, tuple[Any, str]]]:
    """Section -> field -> (value that fits one GPU and the data, why)."""
    config, out = PipelineConfig(), {}
    for section in ("fit", *PASSES):
        own = {"batch_size": (BATCH, MEMORY)} | ({"precision": ("bf16", FP32)} if section in PASSES else {})
        if seen and seen.train_samples:
            passes = PASSES.get(section, config.fit.epochs)
            steps = max(FEWEST_STEPS, int(passes * seen.train_samples / BATCH) // 100 * 100)
            own["warmup"] = (min(getattr(config, section).warmup, steps // 10), WARMUP)
            if section in PASSES:
                own["steps"] = (steps, f"Here: about {passes:g} passes over your {seen.train_samples:,} train samples.")
        out[section] = own
    if seen and not seen.has_lidar:
        out["ingest"] = {"lidar": (False, WHY_WITHOUT_LIDAR["ingest"]["lidar"])}
        out["finetune"]["init"] = "random", WHY_WITHOUT_LIDAR["finetune"]["init"]
    return out


def _image_size(seen: Glance | None) -> tuple[int, int]:
    width = min(seen.image_sizes)[0] if seen and seen.image_sizes else PUBLISHED[0][1]
    return next((size for size in PUBLISHED if size[1] <= width), PUBLISHED[-1])


def _field(model: BaseModel, name: str, value: Any, why: str, indent: str, nothing: bool = False) -> list[str]:
    """A field's comment, in one line, and its own; nothing: the value follows on lines below."""
    words = (type(model).model_fields[name].description or "").rstrip(".")
    lines = [f"{indent}# {f'{text}. {why}'.strip()}" for text in (words, *re.split(r"[;.:,] ", words)[:1])]
    told = "" if nothing else f" {_yaml(list(value) if isinstance(value, tuple) else value)}"
    return [lines[0] if len(lines[0]) <= LINE else lines[1], f"{indent}{name}:{told}"]


def _yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")
