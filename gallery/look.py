"""A sample of an opened artifact as pictures: its images, the view from above, or both on one sheet."""

import threading
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from common.errors import UserError
from dataroot.points import load_points
from evaluation.misses import MIN_SCORE, by_class, misses
from evaluation.picture import LEGEND
from gallery.opened import Opened
from models.boxes import Boxes
from pictures.above import above, front_of, reach_of
from pictures.cameras import Points, camera_tile
from pictures.features import PrincipalColours, activity, one_channel, principal
from pictures.palette import KINDS, NO_CLASS, THEMES, colour_of, kind_of
from pictures.sheet import sheet
from pictures.strokes import Stroke
from storage.bev import BevReader
from tasks.pretrain.samples import spread

if TYPE_CHECKING:
    from gallery.networks import Detector, Pretrained

MapName = Literal["none", "pca", "activity", "channel"]
COLOUR_SAMPLES = 4  # whose cells decide the colours of a map


@dataclass(frozen=True)
class Look:
    """What is drawn. What an artifact does not have is left out."""

    truth: bool = True
    predictions: bool = True
    points: bool = True  # LiDAR, from above
    depth: bool = True  # LiDAR, over the images
    map: MapName = "pca"
    channel: int = 0  # of the map `channel`
    score: float = MIN_SCORE  # of a predicted box, at least
    theme: Literal["light", "dark"] = "light"


def usual(opened: Opened) -> Look:
    """What an artifact is about."""
    maps, depth = opened.stage in ("teacher", "pretrain"), opened.stage == "depth"
    return Look(truth=not depth, depth=depth, map="pca" if maps else "none")


class Gallery:
    """The pictures of an opened artifact's samples.

    All raise UserError for what the artifact does not have, DataError where a file is gone or damaged. Safe to use from
    several threads.

    networks: whether the network of a pretraining or a finetuning may be built and run, which imports torch and takes
    seconds; without, such an artifact shows what it was made from.
    """

    def __init__(self, opened: Opened, networks: bool = False):
        self.opened, self._networks = opened, networks
        self._layers_of = lru_cache(16)(self._make_layers)
        self._predicted = lru_cache(64)(self._boxes_of)
        self._colours: PrincipalColours | None = None
        self._lock = threading.RLock()  # threads that draw one sample's pictures match its boxes once

    def sheet(self, sample: int, look: Look, width: int = 1920) -> Image.Image:
        """The images in two rows, the view from above beside them, a title and a legend.

        Of a pretraining what is hidden and what is rebuilt; of a detector of maps its map beside the true one.
        """
        if self._network is not None and not self._predicts:
            return self._network.picture(sample)
        return sheet(
            self.opened.index,
            sample,
            lambda camera, tile: self.camera(sample, camera, look, tile),
            lambda size: self.above(sample, look, size),
            self.title(sample),
            self.legend(sample, look),
            THEMES[look.theme],
            width,
            depth_bar=look.depth and self.opened.depth is not None,
        )

    def camera(self, sample: int, camera: int, look: Look, width: int) -> Image.Image:
        """One camera's image, `width` px wide."""
        opened = self.opened
        return camera_tile(
            opened.index,
            opened.dataroot,
            sample,
            camera,
            width,
            [layer[1:] for layer in self.layers(sample, look)],
            self._points(sample, camera, look),
        )

    def above(self, sample: int, look: Look, size: int) -> Image.Image:
        """The view from above, a square of `size` px."""
        opened, layers = self.opened, [layer[1:] for layer in self.layers(sample, look)]
        shown = look.points and opened.index.has_lidar
        points = load_points(opened.index, opened.dataroot, sample, 0) if shown else None
        map = self.map(sample, look)
        reach = self._reach(sample) if map is None else float(np.abs(map[1]).max())
        return above(size, reach, layers, points, map, THEMES[look.theme], front_of(opened.index, sample))

    def legend(self, sample: int, look: Look) -> list[tuple[str, Stroke]]:
        """What the drawn boxes are, how many, and how they are drawn."""
        return [(f"{name} ({len(boxes)})", stroke) for name, boxes, stroke in self.layers(sample, look)]

    def title(self, sample: int) -> str:
        """What a picture is of, in a line."""
        index = self.opened.index
        scene = index.scene == index.scene[sample]
        place, of = int(np.flatnonzero(scene).searchsorted(sample)) + 1, int(scene.sum())
        name, split = index.scene_name[index.scene[sample]], index.split[sample] or "no split"
        made = f"{self.opened.stage} {self.opened.path.name}" if self.opened.step else f"{self.opened.path}"
        return f"{made}   {name} ({split}), sample {place} of {of}   {index.token[sample]}"

    def layers(self, sample: int, look: Look) -> list[tuple[str, Boxes, Stroke]]:
        """Drawn boxes in the sample's LIDAR_TOP frame: what they are, the boxes, how they are drawn."""
        with self._lock:
            return self._layers_of(sample, look.truth, look.predictions, look.score)

    def map(self, sample: int, look: Look) -> tuple[np.ndarray, tuple[float, ...]] | None:
        """The map's colours (X, Y, 3) uint8 and what it covers, (x low, y low, z low, x high, y high, z high) m."""
        bev = self.opened.bev
        if look.map == "none" or bev is None:
            return None
        covers = tuple(bev.attributes.point_range)
        if look.map == "activity":
            return activity(bev.dense(sample)), covers
        if look.map == "channel":
            if not 0 <= look.channel < bev.shape[0]:
                raise UserError(f"channel {look.channel}: {bev.path} has channels 0 to {bev.shape[0] - 1}")
            return one_channel(bev.dense(sample), look.channel), covers
        return principal(bev.dense(sample), self._colours_of(bev)), covers

    def truth(self, sample: int) -> Boxes:
        """All annotated boxes of a sample, those of no class too, in its LIDAR_TOP frame."""
        index, rows = self.opened.index, self.opened.index.box_rows(sample)
        return Boxes(
            index.box_center[rows],
            index.box_size[rows],
            index.box_yaw[rows],
            index.box_velocity[rows],
            index.box_label[rows],
        )

    def predictions(self, sample: int) -> Boxes:
        """What the artifact's detector finds, in the sample's LIDAR_TOP frame, with scores. Raises UserError."""
        if not self._predicts:
            raise UserError(f"{self.opened.path}: predicts no boxes")
        return self._predicted(sample)

    def facts(self, sample: int, score: float = Look.score) -> dict[str, Any]:
        """What is known of a sample in figures: its place, boxes, points and cells.

        With predictions, of those that score at least `score`, how many are right, were missed and are false.
        """
        index = self.opened.index
        truth = self.truth(sample)
        facts: dict[str, Any] = {
            "sample": sample,
            "token": str(index.token[sample]),
            "scene": str(index.scene_name[index.scene[sample]]),
            "split": str(index.split[sample]),
            "timestamp": int(index.timestamp[sample]),
            "boxes": by_class(truth[truth.labels >= 0]),
        }
        if self.opened.depth is not None:
            counts = self.opened.depth.counts()[sample]
            facts["points"] = dict(zip(self.opened.depth.cameras, map(int, counts)))
        if self.opened.bev is not None:
            facts["active_cells"] = len(self.opened.bev.cells(sample).index)
        if self._predicts:
            told = misses(index, sample, self._predicted(sample), score, always=0)
            facts |= {"right": len(told.correct), **told.by_class()}
        return facts

    def _make_layers(
        self, sample: int, truth: bool, predictions: bool, score: float
    ) -> list[tuple[str, Boxes, Stroke]]:
        """Boxes by kind; where there are predictions, true and predicted ones by what became of them."""
        if not self._predicts:
            return self._kinds(sample) if truth else []
        told = misses(self.opened.index, sample, self._predicted(sample), score, always=0)
        wanted = [*(["detected", "missed"] if truth else []), *(["correct", "false"] if predictions else [])]
        return [(LEGEND[name][0], getattr(told, name), LEGEND[name][1]) for name in wanted]

    @property
    def _predicts(self) -> bool:
        """Whether there are predicted boxes."""
        return self.opened.results is not None or getattr(self._network, "finds_boxes", False)

    @cached_property
    def _network(self) -> "Pretrained | Detector | None":
        if not self._networks or self.opened.results is not None:
            return None
        if self.opened.stage not in ("pretrain", "finetune", "evaluate"):
            return None
        from gallery.networks import Detector, Pretrained

        return Pretrained(self.opened) if self.opened.stage == "pretrain" else Detector(self.opened)

    def _boxes_of(self, sample: int) -> Boxes:
        if self.opened.results is not None:
            return self.opened.results.boxes(self.opened.index, sample)
        network: Any = self._network
        return network.boxes(sample)

    def _reach(self, sample: int) -> float:
        """Of the view from above, m: one for a whole scene, whatever is drawn."""
        index = self.opened.index
        scene = np.flatnonzero(index.scene == index.scene[sample])
        rows = [index.box_rows(int(s)) for s in scene]
        return reach_of(np.concatenate([index.box_center[r, :2] for r in rows]))

    def _kinds(self, sample: int) -> list[tuple[str, Boxes, Stroke]]:
        truth = self.truth(sample)
        kinds = np.array([kind_of(int(label)) for label in truth.labels], object)
        names = [name for name in (NO_CLASS, *KINDS) if (kinds == name).any()]
        return [(name, truth[kinds == name], Stroke(colour_of(name))) for name in names]

    def _points(self, sample: int, camera: int, look: Look) -> Points | None:
        store = self.opened.depth
        if not look.depth or store is None:
            return None
        return store.read(sample).camera(store.cameras.index(self.opened.index.cameras[camera]))

    def _colours_of(self, bev: BevReader) -> PrincipalColours:
        with self._lock:
            if self._colours is None:
                samples = spread(np.arange(len(bev)), COLOUR_SAMPLES).tolist()
                cells = np.concatenate([bev.cells(s).values for s in samples]).astype(np.float32)
                self._colours = PrincipalColours.of(cells if len(cells) else np.zeros((1, bev.shape[0])))
            return self._colours
