"""Which rows of sample_data the index is made of: key frames, previous sweeps, previous camera frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from dataroot.links import Links, follow
from dataroot.lookup import NONE
from dataroot.names import Scenes
from dataroot.tables import Table
from models.names import LIDAR


@dataclass(frozen=True)
class Choice:
    """What of a dataset is wanted."""

    sweeps: int = 0  # how many go before each key frame
    frames: int = 0
    leave_out: Sequence[str] = ()  # samples' tokens and files to go without
    cameras: Sequence[str] = ()  # channels in the order of the arrays; none named: see `camera_names`
    scenes: Scenes = "all"
    lidar: bool = True  # with the LiDAR's files; else what the tables say of its key frames, if anything


@dataclass(frozen=True)
class Selection:
    """Rows of sample_data by sample, samples ordered by scene, then time; NONE where there is none."""

    samples: np.ndarray  # (S,) rows of the sample table
    cameras: np.ndarray  # (S, C)
    lidar: np.ndarray  # (S,)
    posed: np.ndarray  # (S,) whose time and ego pose are the sample's: `lidar`, or what stands in for it
    sweeps: np.ndarray  # (S, W), nearest first
    frames: np.ndarray  # (S, C, F), nearest first
    lidar_files: bool  # whether those of `lidar` are wanted; else there are no sweeps either
    left_out: np.ndarray  # (n,) rows of the sample table that the config leaves out
    channels: tuple[str, ...]  # of which every sample needs a key frame: the C cameras, then the LiDAR, if any
    channel: np.ndarray  # (rows of sample_data,) position in `channels`, NONE for other sensors
    doubled: np.ndarray  # (rows of sample_data,) bool: a second key frame of its sensor in its sample

    @property
    def camera_names(self) -> tuple[str, ...]:
        """The C cameras in their order."""
        return self.channels[: self.cameras.shape[1]]

    @property
    def without_lidar(self) -> bool:
        """Whether the tables have no LiDAR, and need none."""
        return LIDAR not in self.channels

    @property
    def keys(self) -> np.ndarray:
        """(S, channels) key frames of `channels`."""
        return np.concatenate([self.cameras, self.lidar[:, None]], 1)[:, : len(self.channels)]

    def kept(self, keep: np.ndarray) -> "Selection":
        """The samples of the mask (S,) alone."""
        fields = ("samples", "cameras", "lidar", "posed", "sweeps", "frames")
        return replace(self, **{name: getattr(self, name)[keep] for name in fields})

    def clouds(self) -> np.ndarray:
        """Rows of all point clouds, key frames first, each once."""
        return _once(np.concatenate([self.lidar, self.sweeps.ravel()])) if self.lidar_files else self.lidar[:0]

    def images(self) -> np.ndarray:
        """Rows of all images, each once."""
        return _once(np.concatenate([self.cameras.ravel(), self.frames.ravel()]))


def select(tables: dict[str, Table], links: Links, choice: Choice, names: Sequence[str]) -> Selection:
    """Follow the devkit: key frames by sample and channel, what went before along `prev`. Faulty links lead nowhere.

    names: of the cameras, in the order of the arrays. Scenes are not chosen here (dataroot/scenes.py). Where no LiDAR
    is wanted and the tables have none, the key frame nearest to the sample's time, of whichever sensor, says where the
    car was.
    """
    channels = (*names, LIDAR)
    data = tables["sample_data"]
    sensor = follow(links["sample_data", "calibrated_sensor_token"], links["calibrated_sensor", "sensor_token"], NONE)
    code_of = {name.encode(): code for code, name in enumerate(channels)}
    codes = np.array([code_of.get(name, NONE) for name in tables["sensor"]["channel"].tolist()], np.int64)
    channel = follow(sensor, codes, NONE)

    scene = links["sample", "scene_token"]
    samples = np.lexsort((tables["sample"]["timestamp"], scene))
    sample = links["sample_data", "sample_token"]
    keys = np.flatnonzero(data["is_key_frame"] & (channel >= 0) & (sample >= 0))
    table = np.full((tables["sample"].rows, len(channels)), NONE, np.int64)
    table[sample[keys], channel[keys]] = keys
    doubled = np.zeros(data.rows, bool)
    doubled[keys] = table[sample[keys], channel[keys]] != keys

    excluded = [name.encode() for name in choice.leave_out]
    files = np.isin(data["filename"], excluded)
    is_left_out = np.isin(tables["sample"]["token"], excluded) | follow(table, files, False).any(1)
    left_out, samples = samples[is_left_out[samples]], samples[~is_left_out[samples]]
    table = table[samples]
    cameras, lidar = table[:, :-1], table[:, -1]
    without_lidar = not choice.lidar and not (channel[keys] == len(names)).any()
    previous = links["sample_data", "prev"]
    return Selection(
        samples=samples,
        cameras=cameras,
        lidar=lidar,
        posed=_nearest(tables, links)[samples] if without_lidar else lidar,
        sweeps=_before(lidar, previous, choice.sweeps if choice.lidar else 0, files),
        frames=_before(cameras, previous, choice.frames, files),
        lidar_files=choice.lidar,
        left_out=left_out,
        channels=channels[:-1] if without_lidar else channels,
        channel=channel,
        doubled=doubled,
    )


def _nearest(tables: dict[str, Table], links: Links) -> np.ndarray:
    """(rows of sample,) the key frame of each sample that is nearest to it in time, of equals the first."""
    sample, data = links["sample_data", "sample_token"], tables["sample_data"]
    keys = np.flatnonzero(data["is_key_frame"] & (sample >= 0))
    gap = np.abs(data["timestamp"][keys] - tables["sample"]["timestamp"][sample[keys]])
    keys = keys[np.lexsort((-keys, -gap))]  # of each sample's, the last one written counts
    out = np.full(tables["sample"].rows, NONE, np.int64)
    out[sample[keys]] = keys
    return out


def _before(rows: np.ndarray, previous: np.ndarray, count: int, passed_over: np.ndarray) -> np.ndarray:
    """(..., count) rows that come before `rows` along the chain, nearest first, without those to be passed over."""
    out = np.full((*rows.shape, count), NONE, np.int64)
    for step in range(count):
        rows = follow(rows, previous, NONE)
        for _ in range(np.count_nonzero(passed_over)):  # no more, should the chain be a circle
            over = follow(rows, passed_over, False)
            if not over.any():
                break
            rows = np.where(over, follow(rows, previous, NONE), rows)
        rows = np.where(rows >= 0, rows, NONE)
        out[..., step] = rows
    return out


def _once(rows: np.ndarray) -> np.ndarray:
    """Rows without NONE and repeats, in the order of first appearance."""
    rows = rows[rows >= 0]
    return rows[np.sort(np.unique(rows, return_index=True)[1])]
