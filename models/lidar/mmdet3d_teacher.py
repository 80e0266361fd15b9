"""A LiDAR detector of mmdet3d as the teacher: built from its config, filled from its checkpoint.

The config says all: grid, columns and sweeps of the points, classes. The map is what one of the detector's parts
computes on its way to the boxes. Range and frame are the model's, so it must be a nuScenes model: LIDAR_TOP, x right,
y forward, z up. mmcv's compiled voxelisation is not used: ours takes its place, on every machine.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.bev import swap_xy
from models.boxes import Boxes
from models.layouts.filling import Checkpoint, fill
from models.lidar.grid import VoxelGrid
from models.lidar.point_voxels import Scatter, inside, point_voxels
from models.names import CLASSES
from models.openmmlab import (
    Base3DDetector,
    Box3DMode,
    Det3DDataSample,
    DetectorUnavailable,
    DynamicScatter,
    LiDARInstance3DBoxes,
    build_detector,
    has_compiled_operators,
    quiet,
)

Layer = Literal["middle_encoder", "backbone", "neck"]

_COLUMNS = 5  # of the project's points: x, y, z, intensity, dt

# Steps of a test pipeline that leave the points as they are. MultiScaleFlipAug3D holds steps for test-time
# augmentation, whose plain pass is what is wanted here.
_HARMLESS_STEPS = {
    "GlobalRotScaleTrans",
    "LoadAnnotations3D",
    "MultiScaleFlipAug3D",
    "Pack3DDetInputs",
    "PointsRangeFilter",
    "RandomFlip3D",
}


class MMDet3DTeacher:
    """A `models.lidar.teacher.Teacher`; beside its fields:

    sweeps: previous sweeps that the model expects in its points. columns: which of x, y, z, intensity, dt it reads.
    no_boxes: why `detects` is false, else empty.
    """

    def __init__(self, config: Mapping[str, Any], layer: Layer, device: torch.device):
        """config: as `openmmlab.read_config` gives it. layer: the part whose output is the map; of several levels the
        finest is taken. Weights are random until `load`.

        A single point is run through it on `device` to see what comes out. Raises DetectorUnavailable.
        """
        if "model" not in config:
            raise DetectorUnavailable("the config has no `model`")
        dataset = _dataset(config)
        self.classes = _classes(dataset)
        self.columns, self.sweeps = _points_read(dataset)
        self.detector = build_detector(config["model"])
        _replace_scatter(self.detector)
        self.grid, self.dynamic = _voxels_read(self.detector)
        _check_copies(config["model"], self.grid)
        self._part = _part(self.detector, layer)

        middle = [(low + high) / 2 for low, high in zip(self.grid.point_range[:3], self.grid.point_range[3:])]
        probe = self.prepare(torch.tensor([[*middle, 0.0, 0.0]]))
        try:
            bev, _ = self._forward(probe, device, boxes=False)
        except DetectorUnavailable:
            raise
        except NotImplementedError as error:
            raise DetectorUnavailable(
                f"the detector does not run on {device.type}: {error}; take one without it, such as a pillar detector, "
                "or install mmcv with its compiled operators"
            ) from error
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise DetectorUnavailable(
                f"the detector does not run on {device.type} with points alone ({type(error).__name__}: {reason})"
            ) from error
        channels, x, y = bev.shape
        self.bev_shape = channels, x, y
        self.bev_range = self.grid.point_range
        self.cell_size = _cell_size(self.grid, self.bev_shape, layer)
        self.no_boxes = self._why_no_boxes(probe, device)
        self.detects = not self.no_boxes

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill the detector from a checkpoint's `state_dict`: all of it, with all of that, or WeightsMismatch."""
        names = {name: name for name in tensors}
        fill(self.detector, Checkpoint("mmdet3d", True, dict(tensors), names, []), lambda _: {})

    def prepare(self, points: Tensor) -> dict[str, Any]:
        """mmdet3d's inputs, on the CPU. Raises ValueError where no point (N, 5) lies in the model's range."""
        points = points[:, self.columns]
        kept, cells = inside(points, self.grid)
        if len(kept) == 0:
            raise ValueError(f"none of {len(points)} points lies in the teacher's range {self.grid.point_range}")
        if self.dynamic:
            return {"points": [kept], "voxels": {"voxels": kept, "coors": F.pad(cells, (1, 0))}}
        voxels = point_voxels(points, self.grid)
        low, size = points.new_tensor(self.grid.point_range[:3]), points.new_tensor(self.grid.voxel_size)
        return {
            "points": [kept],
            "voxels": {
                "voxels": voxels.points,
                "coors": F.pad(voxels.coords, (1, 0)).int(),  # sample 0, z, y, x
                "num_points": voxels.counts.int(),
                "voxel_centers": (voxels.coords.flip(1) + 0.5) * size + low,
            },
        }

    def run(self, prepared: dict[str, Any], device: torch.device, boxes: bool) -> tuple[Tensor, Boxes | None]:
        """The map (C, X, Y) float32 on `device` and, if `boxes`, the detections (key LIDAR_TOP frame, best first).

        Raises DetectorUnavailable where boxes are asked of a teacher that does not detect.
        """
        if boxes and not self.detects:
            raise DetectorUnavailable(f"the detector gives no boxes: {self.no_boxes}")
        return self._forward(prepared, device, boxes)

    @torch.no_grad()
    def _forward(self, prepared: dict[str, Any], device: torch.device, boxes: bool) -> tuple[Tensor, Boxes | None]:
        # Copies, since legacy pillar encoders write into what they are given.
        inputs = {
            "points": [p.to(device, copy=True) for p in prepared["points"]],
            "voxels": {name: t.to(device, copy=True) for name, t in prepared["voxels"].items()},
        }
        sample = Det3DDataSample(metainfo={"box_type_3d": LiDARInstance3DBoxes, "box_mode_3d": Box3DMode.LIDAR})
        outputs: list[Any] = []

        def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs.append(output)
            if not boxes:
                raise _Reached

        hook = self._part.register_forward_hook(keep)
        found = None
        try:
            with quiet():  # CenterPoint's box coder makes a tensor of a tensor, and is told off at every call
                found = self.detector.to(device).predict(inputs, [sample])[0].pred_instances_3d
        except _Reached:
            pass
        finally:
            hook.remove()
        return swap_xy(_finest(outputs[0])[0].float()), None if found is None else self._boxes(found)

    def _why_no_boxes(self, probe: dict[str, Any], device: torch.device) -> str:
        if has_compiled_operators():
            return ""
        head = getattr(self.detector, "pts_bbox_head", None) or getattr(self.detector, "bbox_head", None)
        nms = (getattr(head, "test_cfg", None) or {}).get("nms_type", "compiled")
        if nms not in ("circle", None):
            return "its non-maximum suppression is one of mmcv's compiled operators, which are not installed here"
        try:
            self._forward(probe, device, boxes=True)
        except NotImplementedError as error:
            return f"its head needs more than is installed here: {error}"
        return ""

    def _boxes(self, found: Any) -> Boxes:
        columns = found.bboxes_3d.tensor.double().cpu().numpy()
        centers = found.bboxes_3d.gravity_center.double().cpu().numpy()
        velocities = columns[:, 7:9] if columns.shape[1] >= 9 else np.full((len(columns), 2), np.nan)
        labels = self.classes[found.labels_3d.cpu().numpy().astype(np.int64)]
        scores = found.scores_3d.double().cpu().numpy()
        boxes = Boxes(centers, columns[:, 3:6], columns[:, 6], velocities, labels, scores)[labels >= 0]
        return boxes[boxes.best_first()]


class _Reached(Exception):
    """The map is there: what comes after it is not computed."""


def _dataset(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the config tests on, out of its wrappers."""
    dataset = (config.get("test_dataloader") or {}).get("dataset") or {}
    while "dataset" in dataset:
        dataset = dataset["dataset"]
    kind = _kind(dataset)
    if kind != "NuScenesDataset":
        # KITTI's and Waymo's x is forward, and their intensities and heights are others: the map would mean nothing.
        raise DetectorUnavailable(
            f"the config's test_dataloader.dataset is {kind or 'missing'}: a teacher has to be a nuScenes model "
            "(NuScenesDataset), whose points lie in the LIDAR_TOP frame"
        )
    return dataset


def _classes(dataset: Mapping[str, Any]) -> np.ndarray:
    """(K,) int64: the position in names.CLASSES of each of the model's classes, -1 for one that nuScenes lacks."""
    names = (dataset.get("metainfo") or {}).get("classes")
    if not names:
        raise DetectorUnavailable("the config's test_dataloader.dataset has no metainfo.classes")
    return np.array([CLASSES.index(name) if name in CLASSES else -1 for name in names], np.int64)


def _points_read(dataset: Mapping[str, Any]) -> tuple[list[int], int]:
    """Columns of (x, y, z, intensity, dt) that the model reads, and how many previous sweeps it sees."""
    columns, sweeps = list(range(3)), None
    for step in _steps(dataset.get("pipeline") or ()):
        kind = _kind(step)
        if kind == "LoadPointsFromFile":
            columns = _dims(step.get("use_dim", 3))
            changed = [name for name in ("norm_intensity", "norm_elongation", "use_color") if step.get(name)]
            if changed:
                raise DetectorUnavailable(f"the config's LoadPointsFromFile sets {changed[0]}, which is not done here")
        elif kind == "LoadPointsFromMultiSweeps":
            # Before it all columns of the file are there; it writes dt over the ring, then selects.
            columns, sweeps = _dims(step.get("use_dim", [0, 1, 2, 4])), step.get("sweeps_num", 10)
        elif kind not in _HARMLESS_STEPS:
            raise DetectorUnavailable(f"the config's test pipeline has the step {kind}, which is not done here")
    if sweeps is None and 4 in columns:
        raise DetectorUnavailable("the config reads the ring index (column 4 without sweeps), which points lack here")
    if columns[:3] != [0, 1, 2] or max(columns) >= _COLUMNS:
        raise DetectorUnavailable(f"the config reads the columns {columns} of the points: x, y, z have to come first")
    return columns, sweeps or 0


def _voxels_read(detector: Base3DDetector) -> tuple[VoxelGrid, bool]:
    """The grid, and whether voxels keep all their points (dynamic) instead of the first few (hard)."""
    preprocessor = detector.data_preprocessor
    layer = getattr(preprocessor, "voxel_layer", None)
    kind = getattr(preprocessor, "voxel_type", "none")
    if layer is None or kind not in ("hard", "dynamic"):
        raise DetectorUnavailable(f"the config's data_preprocessor makes no hard or dynamic voxels (voxel_type {kind})")
    x0, y0, z0, x1, y1, z1 = map(float, layer.point_cloud_range)
    x, y, z = map(float, layer.voxel_size)
    grid = VoxelGrid(
        (x0, y0, z0, x1, y1, z1),
        (x, y, z),
        layer.max_num_points,
        layer.max_voxels[1],  # (training, test)
    )
    return grid, kind == "dynamic"


def _check_copies(model: Mapping[str, Any], grid: VoxelGrid) -> None:
    """A config of mmdet3d repeats range and voxel size for each part, and one that is off moves the map unseen."""
    x, y, _ = grid.shape
    wanted = {
        "point_cloud_range": grid.point_range,
        "pc_range": grid.point_range,
        "voxel_size": grid.voxel_size,
        "output_shape": (y, x),
    }
    for path, value in _fields(model, "model"):
        key = path.rpartition(".")[2]
        if key in wanted and not np.allclose(value, wanted[key][: len(value)]):
            raise DetectorUnavailable(
                f"the config contradicts itself: {path} is {list(value)}, where data_preprocessor's voxels say "
                f"{list(wanted[key][: len(value)])}"
            )


def _part(detector: Base3DDetector, layer: Layer) -> nn.Module:
    for name in (f"pts_{layer}", layer):
        if isinstance(getattr(detector, name, None), nn.Module):
            return getattr(detector, name)
    has = [name for name, _ in detector.named_children() if name != "data_preprocessor"]
    raise DetectorUnavailable(f"the detector has no {layer}; it has {', '.join(has)}")


def _cell_size(grid: VoxelGrid, bev_shape: tuple[int, ...], layer: Layer) -> tuple[float, float]:
    """Of the map along x and y (m). Refuses a map whose cells are no whole number of voxels: its borders are unsure."""
    sizes = []
    for axis, voxels, cells, size in zip("xy", grid.shape, bev_shape[1:], grid.voxel_size):
        if voxels % cells and cells % voxels:
            raise DetectorUnavailable(f"the {layer} gives {cells} cells along {axis} for a grid of {voxels} voxels")
        sizes.append(size * voxels / cells)
    x, y = sizes
    return x, y


def _finest(output: Any) -> Tensor:
    """The map (1, C, Y, X) of largest extent among what a part gives."""
    levels = [output] if isinstance(output, Tensor) else [o for o in output if isinstance(o, Tensor)]
    maps = [level for level in levels if level.ndim == 4 and len(level) == 1]
    if not maps:
        shapes = [tuple(level.shape) for level in levels]
        raise DetectorUnavailable(f"the chosen part gives no map (1, C, Y, X) but {shapes}")
    return max(maps, key=lambda level: level.shape[-1])


def _replace_scatter(detector: Base3DDetector) -> None:
    for module in list(detector.modules()):
        for name, child in module.named_children():
            if isinstance(child, DynamicScatter):
                setattr(module, name, Scatter(child.average_points))


def _kind(step: Mapping[str, Any]) -> str:
    """A type's bare name: configs write it plain, with a scope, or as a whole path."""
    return str(step.get("type", "")).rpartition(".")[2]


def _dims(use_dim: int | Sequence[int]) -> list[int]:
    return list(range(use_dim)) if isinstance(use_dim, int) else list(use_dim)


def _steps(pipeline: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for step in pipeline:
        yield step
        yield from _steps(step.get("transforms") or ())


def _fields(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every path and value below a config's node."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield f"{path}.{key}", value
        yield from _fields(value, f"{path}.{key}")
