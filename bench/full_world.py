"""A dataset of nuScenes' real size in nuScenes' format, to see how the pipeline bears it.

    geomim simulate data/simulated                                         # where its few real files and boxes are from
    python bench/full_world.py /tmp/full                                   # as v1.0-trainval: minutes, 4 GB
    python bench/full_world.py /tmp/tenth --scenes 85                      # a look
    python bench/full_world.py /tmp/full --results found.json --boxes 200  # and what a detector finds in val

By default it has trainval's 850 scenes by name, so that the devkit's own splits hold, its 34,149 key frames (6,019 of
val), LiDAR at 20 Hz, cameras at 12 Hz and radars at 13 Hz: 2.6 million rows of sample_data with an ego pose each, and
1.17 million boxes. More scenes than trainval's get names of their own and a splits.json.

Each scene is one moment of a simulated one, which the ego carries along at 8 m/s: points, images and boxes fit
together, and what is made of them is nothing to learn from. Files are hard links to ten clouds of 34,688 points and 60
images of 1600x900, so that reading them costs no disk: a real dataset's cost more. Radars have rows and no files:
nothing opens them. The same arguments give the same bytes.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from full_moment import SIZE, Moment, moments  # noqa: E402
from full_results import Results, Scene  # noqa: E402

from dataroot.devkit_splits import devkit_splits  # noqa: E402
from dataroot.names import TABLES  # noqa: E402
from models.names import CAMERAS, CATEGORY_TO_CLASS, LIDAR, OTHER_CATEGORIES  # noqa: E402

VERSION = "v1.0-trainval"
SCENES, SAMPLES, VAL_SCENES, VAL_SAMPLES = 850, 34_149, 150, 6_019
BOXES = 1_166_187 / SAMPLES  # of a sample
LIFE = 32  # samples that an instance is seen in: some 64,000 instances in all
LOG_SCENES = 12.5  # scenes of a log: 68 logs
PLACES = ("singapore-onenorth", "boston-seaport", "singapore-queenstown", "singapore-hollandvillage")
VISIBILITIES = {"1": "v0-40", "2": "v40-60", "3": "v60-80", "4": "v80-100"}
RADARS = ("RADAR_FRONT", "RADAR_FRONT_LEFT", "RADAR_FRONT_RIGHT", "RADAR_BACK_LEFT", "RADAR_BACK_RIGHT")
RADAR_CALIBRATION: dict[str, Any] = {"translation": [3.4, 0.0, 0.5], "rotation": [1.0, 0.0, 0.0, 0.0]}
# Readings from one key frame to the next, and microseconds after (before) the sample's time.
BETWEEN = {LIDAR: 10.0} | dict.fromkeys(CAMERAS, 6.0) | dict.fromkeys(RADARS, 6.5)
AFTER = {LIDAR: 0} | dict(zip(CAMERAS, (-35_500, -27_600, -43_100, -10_400, -500, -20_100))) | dict.fromkeys(RADARS, 0)
MODALITY = {LIDAR: "lidar"} | dict.fromkeys(CAMERAS, "camera") | dict.fromkeys(RADARS, "radar")
ENDING = {"lidar": "pcd.bin", "camera": "jpg", "radar": "pcd"}
STEP, SPEED = 500_000, 8.0  # microseconds from key frame to key frame; m/s of the ego
MOST_LINKS = 60_000  # to one file: ext4 takes 65,000
RACK: dict[str, Any] = {"category": "static_object.bicycle_rack", "attributes": [], "size": [4.0, 8.0, 1.5]}

Record = dict[str, Any]


class Links:
    """Hard links to a few files, and to copies of those that have as many as a file system takes."""

    def __init__(self) -> None:
        self._count: Counter[Path] = Counter()

    def make(self, source: Path, link: Path) -> None:
        number = self._count[source] // MOST_LINKS
        self._count[source] += 1
        if number:
            copy = source.with_name(f"{number}-{source.name}")
            if not copy.exists():
                shutil.copyfile(source, copy)
            source = copy
        os.link(source, link)


class Tables:
    """All tables, written a few rows at a time, about as many bytes a row as nuScenes'."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True)
        self._files: dict[str, TextIO] = {name: (folder / f"{name}.json").open("w") for name in TABLES}
        self.rows = dict.fromkeys(TABLES, 0)

    def add(self, table: str, records: list[Record]) -> None:
        if records:
            text = json.dumps(records, separators=(",\n", ": "))
            self._files[table].write(("[\n" if self.rows[table] == 0 else ",\n") + text[1:-1])
            self.rows[table] += len(records)

    def close(self) -> None:
        for name, file in self._files.items():
            file.write("\n]\n" if self.rows[name] else "[]\n")
            file.close()


def scenes_of(count: int) -> tuple[list[tuple[str, int]], set[str], dict[str, list[str]]]:
    """Names of scenes with their samples, those of val among them, and splits of one's own where names run out."""
    official, of_val = devkit_splits(), round(count * VAL_SCENES / SCENES)
    splits: dict[str, list[str]] = {}
    if count <= SCENES:
        val, train = official["val"][:of_val], official["train"][: count - of_val]
    else:
        names = [f"scene-{number}" for number in range(10_000, 10_000 + count)]
        val, train = names[:of_val], names[of_val:]
        splits = {"train": train, "val": val}
    # Trainval's scenes have 40 samples, and 41 where the sum asks for it.
    longer = VAL_SAMPLES - 40 * VAL_SCENES, SAMPLES - VAL_SAMPLES - 40 * (SCENES - VAL_SCENES)
    of_train = [(name, 40 + (place % (SCENES - VAL_SCENES) < longer[1])) for place, name in enumerate(train)]
    return (
        sorted([(name, 40 + (place % VAL_SCENES < longer[0])) for place, name in enumerate(val)] + of_train),
        set(val),
        splits,
    )


def tokens(random: np.random.Generator, count: int) -> list[str]:
    text = random.bytes(16 * count).hex()
    return [text[32 * i : 32 * i + 32] for i in range(count)]


def chain(records: list[Record]) -> list[Record]:
    """The same with `prev` and `next` of one after the other."""
    names = [record["token"] for record in records]
    for record, before, after in zip(records, ["", *names[:-1]], [*names[1:], ""]):
        record["prev"], record["next"] = before, after
    return records


class World:
    """The tables and files of a dataset, scene by scene."""

    def __init__(self, out: Path, world: Path, scenes: int):
        self.out, self.links = out, Links()
        self.moments = moments(world, out / "store")
        self.scenes, self.val, splits = scenes_of(scenes)
        self.tables = Tables(out / VERSION)
        if splits:
            (out / VERSION / "splits.json").write_text(json.dumps(splits))
        for channel in (LIDAR, *CAMERAS):
            for folder in ("samples", "sweeps"):
                (out / folder / channel).mkdir(parents=True)
        self._write_common(sorted(world.glob("maps/*.png")))

    def _write_common(self, masks: list[Path]) -> None:
        """What scenes share; `masks`: pictures to take for those of the maps."""
        random = np.random.default_rng(0)
        attributes = sorted({name for m in self.moments for box in m.boxes for name in box["attributes"]})
        named = {"category": (*CATEGORY_TO_CLASS, *OTHER_CATEGORIES), "attribute": attributes, "sensor": BETWEEN}
        self.token = {table: dict(zip(names, tokens(random, len(names)))) for table, names in named.items()}
        for table in ("category", "attribute"):
            self.tables.add(table, [{"token": t, "name": n, "description": ""} for n, t in self.token[table].items()])
        sensors = [{"token": t, "channel": c, "modality": MODALITY[c]} for c, t in self.token["sensor"].items()]
        self.tables.add("sensor", sensors)
        self.tables.add(
            "visibility", [{"description": "", "token": t, "level": level} for t, level in VISIBILITIES.items()]
        )
        self.logs = tokens(random, int((len(self.scenes) - 1) / LOG_SCENES) + 1)
        for number, token in enumerate(self.logs):
            facts = {"logfile": _logfile(number), "vehicle": "n008", "date_captured": "2018-08-01"}
            self.tables.add("log", [{"token": token, **facts, "location": PLACES[number % len(PLACES)]}])
        (self.out / "maps").mkdir()
        for number, token in enumerate(tokens(random, min(len(PLACES), len(self.logs)))):
            name, logs = f"maps/{token}.png", self.logs[number :: len(PLACES)]
            shutil.copyfile(masks[number % len(masks)], self.out / name)
            self.tables.add(
                "map", [{"category": "semantic_prior", "token": token, "filename": name, "log_tokens": logs}]
            )

    def write_scene(self, number: int) -> Scene:
        """Tables and files of the scene of this number. Returns what a detector should find in it."""
        name, count = self.scenes[number]
        random = np.random.default_rng([1, number])
        moment, log = self.moments[number % len(self.moments)], int(number / LOG_SCENES)
        scene, *samples = tokens(random, count + 1)
        times = 1_532_000_000_000_000 + number * 60_000_000 + STEP * np.arange(count)
        drive = Drive(random.uniform(300, 1500, 2), random.uniform(-np.pi, np.pi), int(times[0]))
        ends = {"first_sample_token": samples[0], "last_sample_token": samples[-1], "description": "made up"}
        facts = {"token": scene, "log_token": self.logs[log], "nbr_samples": count, "name": name}
        self.tables.add("scene", [facts | ends])
        rows = [{"token": token, "timestamp": t, "scene_token": scene} for token, t in zip(samples, times.tolist())]
        self.tables.add("sample", chain(rows))
        for channel in BETWEEN:
            self._write_readings(random, channel, moment, _logfile(log), samples, times, drive)
        return self._write_boxes(random, number, moment, samples, drive, drive.places(times))

    def _write_readings(
        self,
        random: np.random.Generator,
        channel: str,
        moment: Moment,
        log: str,
        samples: list[str],
        times: np.ndarray,
        drive: "Drive",
    ) -> None:
        """Rows and files of a sensor in a scene."""
        (calibration,) = tokens(random, 1)
        facts = {"token": calibration, "sensor_token": self.token["sensor"][channel], "camera_intrinsic": []}
        self.tables.add("calibrated_sensor", [facts | moment.calibrations.get(channel, RADAR_CALIBRATION)])
        keys = np.floor(BETWEEN[channel] * np.arange(len(samples))).astype(int)
        stamps = np.interp(np.arange(keys[-1] + 1), keys, times + AFTER[channel]).astype(np.int64)
        nearest = np.searchsorted((times[:-1] + times[1:]) / 2, stamps - AFTER[channel]).tolist()
        places, is_key = drive.places(stamps).tolist(), np.isin(np.arange(len(stamps)), keys).tolist()
        width, height = SIZE if channel in CAMERAS else (0, 0)
        ending, source = ENDING[MODALITY[channel]], moment.files.get(channel)
        readings, poses = [], []
        for i, (token, stamp) in enumerate(zip(tokens(random, len(stamps)), stamps.tolist())):
            path = f"{'samples' if is_key[i] else 'sweeps'}/{channel}/{log}__{channel}__{stamp}.{ending}"
            poses.append({"token": token, "timestamp": stamp, "rotation": drive.rotation, "translation": places[i]})
            readings.append(
                {
                    "token": token,
                    "sample_token": samples[nearest[i]],
                    "ego_pose_token": token,
                    "calibrated_sensor_token": calibration,
                    "timestamp": stamp,
                    "fileformat": ending[:3],
                    "is_key_frame": is_key[i],
                    "height": height,
                    "width": width,
                    "filename": path,
                }
            )
            if source is not None:
                self.links.make(source, self.out / path)
        self.tables.add("ego_pose", poses)
        self.tables.add("sample_data", chain(readings))

    def _write_boxes(
        self,
        random: np.random.Generator,
        number: int,
        moment: Moment,
        samples: list[str],
        drive: "Drive",
        places: np.ndarray,
    ) -> Scene:
        """Rows of a scene's boxes: the moment's own, and as many others as nuScenes has in a sample."""
        count = int(BOXES * (number + 1)) - int(BOXES * number)
        own = min(count, len(moment.boxes))
        which = np.concatenate([np.arange(own), random.integers(0, len(moment.boxes), count - own)])
        boxes, local, yaws = [dict(moment.boxes[i]) for i in which], moment.center[which], moment.yaw[which] + drive.yaw
        local[own:, :2] = random.uniform(-60, 60, (count - own, 2))
        for i in range(own, count):  # they stand where no points need be
            boxes[i] |= {"num_lidar_pts": int(random.integers(0, 5)), "num_radar_pts": int(random.integers(0, 2))}
        if number % 17 == 0:
            boxes[-1] |= RACK
        centers = np.round(local @ drive.turn.T + places[:, None], 9)  # (samples, count, 3)
        rotations = np.stack([np.cos(yaws / 2), 0 * yaws, 0 * yaws, np.sin(yaws / 2)], 1).round(9).tolist()
        for i, box in enumerate(boxes):
            born = (5 * i + number) % LIFE  # so that not all of them end in one sample
            edges = [0, *range(LIFE - born, len(samples), LIFE), len(samples)]
            names, track = tokens(random, len(samples)), centers[:, i].tolist()
            fields = {name: box[name] for name in ("visibility_token", "size", "num_lidar_pts", "num_radar_pts")}
            fields["attribute_tokens"] = [self.token["attribute"][name] for name in box["attributes"]]
            for first, last, instance in zip(edges, edges[1:], tokens(random, len(edges) - 1)):
                ends = {"first_annotation_token": names[first], "last_annotation_token": names[last - 1]}
                facts = {"token": instance, "category_token": self.token["category"][box["category"]]}
                self.tables.add("instance", [facts | ends | {"nbr_annotations": last - first}])
                rows = [
                    {"token": names[k], "sample_token": samples[k], "instance_token": instance}
                    | {"translation": track[k], "rotation": rotations[i]}
                    | fields
                    for k in range(first, last)
                ]
                self.tables.add("sample_annotation", chain(rows))
        return Scene(samples, places, boxes, centers, yaws, SPEED * drive.turn[:2, 0])


class Drive:
    """An ego that drives straight ahead."""

    def __init__(self, origin: np.ndarray, yaw: float, start: int):
        self.origin, self.yaw, self.start = origin, yaw, start
        cos, sin = np.cos(yaw), np.sin(yaw)
        self.turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])  # ego to global
        self.rotation = np.array([np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)]).round(9).tolist()  # wxyz

    def places(self, stamps: np.ndarray) -> np.ndarray:
        """(n, 3) m, global, at times in microseconds."""
        away = SPEED * 1e-6 * (stamps - self.start)[:, None] * self.turn[:2, 0]
        return np.column_stack([self.origin + away, np.zeros(len(stamps))]).round(9)


def _logfile(number: int) -> str:
    return f"n008-2018-08-01-{number // 60:02d}-{number % 60:02d}-00-0400"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="a folder that is not there yet")
    parser.add_argument("--scenes", type=int, default=SCENES)
    parser.add_argument("--world", type=Path, default=ROOT / "data" / "simulated", help="a simulated dataset")
    parser.add_argument("--results", type=Path, help="a results file of val to write, too")
    parser.add_argument("--boxes", type=int, default=200, help="of a sample in it")
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} is there already; name another folder or remove it")
    if not (options.world / "simulated.json").is_file():
        parser.error(f"{options.world} is no simulated dataset; make one by `geomim simulate {options.world}`")
    start = time.monotonic()
    options.out.mkdir(parents=True)
    world = World(options.out, options.world, options.scenes)
    results = Results(options.results, options.boxes) if options.results else None
    for number, (name, _) in enumerate(world.scenes):
        scene = world.write_scene(number)
        if results and name in world.val:
            results.add(scene, number)
    world.tables.close()
    if results:
        results.close()
    rows = ", ".join(f"{name} {count:,}" for name, count in world.tables.rows.items())
    print(f"{options.out}: {rows}; {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
