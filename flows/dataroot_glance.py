"""A quick look at a dataroot, for `geomim config init`: no check, which `geomim ingest` is; what does not read is left
out."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from common.errors import UserError
from common.files import read_regular
from dataroot.cameras import cameras_among
from dataroot.categories import guess_class
from dataroot.faults import Faults
from dataroot.names import TABLES
from dataroot.splits import split_scenes
from models.names import CAMERAS, CATEGORY_TO_CLASS, LIDAR, OTHER_CATEGORIES
from tasks.ingest.config import IGNORE

HEAD = 4_000_000  # bytes of sample_data.json, which may have gigabytes: some 10,000 files, of every sensor


@dataclass(frozen=True)
class Glance:
    """What a dataroot seems to hold."""

    dataroot: Path
    version: str
    versions: dict[str, int] = field(default_factory=dict)  # those that are there -> bytes of sample.json

    @cached_property
    def missing(self) -> list[str]:
        """Tables that are not there."""
        return [name for name in TABLES if not (self.dataroot / self.version / f"{name}.json").is_file()]

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        return self._table("sample")

    @cached_property
    def scenes(self) -> list[dict[str, Any]]:
        return self._table("scene")

    @cached_property
    def train_samples(self) -> int:
        """Samples of the train split."""
        scenes = [scene for scene in self.scenes if {"token", "name"} <= scene.keys()]
        names = np.array([str(scene["name"]) for scene in scenes], object)
        splits, _ = split_scenes(self.dataroot, self.version, names, Faults())
        train = {scene["token"] for scene, split in zip(scenes, splits) if split == "train"}
        return sum(sample.get("scene_token") in train for sample in self.samples)

    @cached_property
    def image_sizes(self) -> list[tuple[int, int]]:
        """Width and height of the images that the first rows name, the most frequent first."""
        text = self._head("sample_data")
        rows = text[text.find(b"{") : text.rfind(b"}") + 1]
        try:
            sizes = [(int(row["width"]), int(row["height"])) for row in orjson.loads(b"[" + rows + b"]")]
        except (KeyError, TypeError, ValueError):
            return []
        counts = Counter(size for size in sizes if min(size) > 0)
        return [size for size, _ in counts.most_common()]

    @cached_property
    def cameras(self) -> tuple[str, ...]:
        """All there are, in the order that they have by default."""
        return cameras_among((str(s.get("channel", "")), str(s.get("modality", ""))) for s in self._sensors)

    @cached_property
    def has_lidar(self) -> bool:
        """False where there are sensors and none is a LiDAR: one of another name is for `geomim ingest` to find."""
        lidars = [s for s in self._sensors if s.get("channel") == LIDAR or s.get("modality") == "lidar"]
        return bool(lidars) or not self._sensors

    @cached_property
    def _sensors(self) -> list[dict[str, Any]]:
        return self._table("sensor")

    @cached_property
    def classes(self) -> dict[str, str]:
        """Category that nuScenes does not have -> the class that its name is most like, or none."""
        names = [str(row["name"]) for row in self._table("category") if "name" in row]
        own = [name for name in names if name not in (*CATEGORY_TO_CLASS, *OTHER_CATEGORIES)]
        return {name: guess_class(name).replace("?", IGNORE) for name in own}

    def others(self) -> str:
        """A sentence about the other versions."""
        others = [name for name in self.versions if name != self.version]
        return f"There is {' and '.join(others)} too." if others else ""

    def told(self) -> list[str]:
        """What was seen, in lines."""
        if not self.versions:
            return [f"{self.dataroot} has no tables (VERSION/sample.json) yet"]
        sizes = ", ".join(f"{width}x{height}" for width, height in self.image_sizes[:3]) or "of unknown size"
        lines = [
            f"{self.dataroot} ({self.version}): {len(self.scenes):,} scenes, {len(self.samples):,} samples, "
            f"{self.train_samples:,} of them train; images {sizes}"
        ]
        if self.cameras and self.cameras != CAMERAS:
            lines.append(f"{len(self.cameras)} cameras: {', '.join(self.cameras)}; see ingest.cameras")
        if not self.has_lidar:
            lines.append("no LiDAR: for finetuning and evaluation alone, see ingest.lidar")
        if self.missing:
            lines.append(f"tables that are missing: {', '.join(self.missing)}")
        if not self.train_samples:
            lines.append(f"no scene is in train: write {self.version}/splits.json (docs/own-data.md)")
        if self.classes:
            lines.append(f"categories that nuScenes does not have: {', '.join(self.classes)}; see ingest.classes")
        return lines

    def _table(self, name: str) -> list[dict[str, Any]]:
        try:
            rows = orjson.loads(read_regular(self.dataroot / self.version / f"{name}.json"))
        except (OSError, orjson.JSONDecodeError):
            return []
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def _head(self, name: str) -> bytes:
        try:
            with open(self.dataroot / self.version / f"{name}.json", "rb") as file:
                return file.read(HEAD)
        except OSError:
            return b""


def glance(dataroot: Path, version: str | None) -> Glance:
    """A look at a version's tables, by default those with most samples. Raises UserError if there are only others."""
    versions = {path.parent.name: path.stat().st_size for path in sorted(dataroot.glob("*/sample.json"))}
    if version is not None and versions and version not in versions:
        raise UserError(f"{dataroot} has no tables {version}: add --version {' or '.join(versions)}")
    largest = max(versions, key=lambda name: versions[name], default="v1.0-mini")
    return Glance(dataroot, version or largest, versions)
