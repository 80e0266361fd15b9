"""What ingest can be told."""

import difflib
from typing import Any, Literal

from pydantic import Field, field_validator

from common.settings import Settings, later, runtime
from dataroot.names import LIDAR_COLUMNS, Scenes
from models.names import CLASSES

VERSION = 3

IGNORE = "ignore"  # a category that is of no class


class IngestConfig(Settings):
    """How much of the time before a key frame goes into the index, and how hard its files are looked at."""

    sweeps: int = Field(10, ge=0, le=10, description="Previous LiDAR sweeps of each sample, nearest first.")
    frames: int = Field(0, ge=0, le=60, description="Previous frames (12 Hz) of each camera, nearest first.")
    lidar_columns: Literal[LIDAR_COLUMNS] = Field(  # type: ignore[valid-type]  # the numbers stand in one place
        5, description="Float32 numbers a point in the point files: x, y, z, intensity, then what is not read."
    )
    classes: dict[str, str] = Field(
        default_factory=dict,
        description="Category of the dataset's own -> detection class, or `ignore`: {Car: car, tram: ignore}.",
    )
    leave_out: tuple[str, ...] = Field(
        (),
        description="Tokens of samples, and files as sample_data.json names them, that the index goes without. A key "
        "frame's file takes its sample along; an earlier sweep or frame is passed over.",
    )
    scenes: Scenes = later(
        "all", "`available`: the scenes of which every file is there, such as those of one blob; or a list of names."
    )
    lidar: bool = later(
        True,
        "Whether the LiDAR's files are read; its rows in the tables, if any, always are. false does for finetuning "
        "alone, with finetune.depth_weight=0 and finetune.init a file or random.",
    )
    cameras: tuple[str, ...] = later(
        (),
        "Channels of the cameras to take, in this order. [] takes all that sensor.json has: nuScenes' in its order, "
        "then others by name.",
    )
    deep: bool = runtime(False, "Decode every image and read every point cloud, however long it takes.")
    read_gigabytes: float = runtime(
        24.0,
        "Point clouds are looked at by their values, key frames first, up to this much; the rest by size only. "
        "24 GB holds every key frame of v1.0-trainval.",
        ge=0,
    )
    threads: int = runtime(16, "Threads that look at files.", ge=1, le=256)

    @field_validator("leave_out")
    @classmethod
    def _in_order(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(names)))

    @field_validator("scenes", mode="before")
    @classmethod
    def _named(cls, scenes: Any) -> Any:
        if scenes in ("all", "available"):
            return scenes
        if not isinstance(scenes, list | tuple) or not scenes or not all(isinstance(name, str) for name in scenes):
            raise ValueError(f"{scenes!r} is neither all, available nor a list of names such as [scene-0061]")
        return tuple(sorted(set(scenes)))

    @field_validator("cameras")
    @classmethod
    def _once(cls, cameras: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in cameras if cameras.count(name) > 1}):
            raise ValueError(f"{', '.join(twice)} stands there twice")
        return cameras

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: dict[str, str]) -> dict[str, str]:
        for category, name in classes.items():
            if name not in (*CLASSES, IGNORE):
                near = difflib.get_close_matches(name, (*CLASSES, IGNORE), n=1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(CLASSES)} and {IGNORE}"
                raise ValueError(f"{category}: there is no class {name!r}; {hint}")
        return dict(sorted(classes.items()))
