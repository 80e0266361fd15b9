"""Settings of the stages `fit` and `teacher`; the network and grid they share stand in LidarConfig alone."""

from typing import Any, Literal

from pydantic import Field, model_validator

from common.settings import Settings, external_file, runtime
from models.lidar.grid import STRIDE, VoxelGrid, encoder_output_shape
from models.names import CLASSES
from tasks.memory import check_memory
from training.settings import MOST_BATCH, TrainingSettings

FIT_VERSION = 4
TEACHER_VERSION = 3
ATTENTION_HEADS = 8  # of TransFusion's decoder

Triple = tuple[float, float, float]


class LidarConfig(Settings):
    """The LiDAR network and its grid. Defaults: the published BEVFusion teacher."""

    range: tuple[float, float, float, float, float, float] = Field(
        (-54.0, -54.0, -5.0, 54.0, 54.0, 3.0), description="x, y, z minimum, then maximum (m, LIDAR_TOP frame)."
    )
    voxel_size: Triple = Field((0.075, 0.075, 0.2), description="Along x, y, z (m).")
    max_points: int = Field(10, ge=1, description="Points a voxel keeps.")
    max_voxels: int = Field(160_000, ge=2, description="Voxels a sample keeps.")
    sweeps: int = Field(9, ge=0, le=10, description="Previous LiDAR sweeps added to the key sweep, nearest first.")
    widths: tuple[int, int, int, int] = Field((16, 32, 64, 128), description="Channels of the encoder's four levels.")
    out_width: int = Field(128, ge=1, description="Channels of the encoder's last convolution, per layer of height.")
    blocks: int = Field(2, ge=1, description="Residual blocks a level.")

    @model_validator(mode="after")
    def _fits_together(self) -> "LidarConfig":
        for axis, low, high, size in zip("xyz", self.range[:3], self.range[3:], self.voxel_size):
            if size <= 0 or high <= low:
                raise ValueError(f"range and voxel_size along {axis} must be positive: {low} to {high} by {size} m")
            voxels = (high - low) / size
            if abs(voxels - round(voxels)) > 1e-4:
                raise ValueError(
                    f"range along {axis}, {high - low:g} m, is no multiple of voxel_size {size:g} m ({voxels:g} voxels)"
                )
            if axis != "z" and round(voxels) % STRIDE:
                raise ValueError(
                    f"range along {axis} has {round(voxels)} voxels, which is not divisible by the stride {STRIDE}: "
                    f"make it a multiple of {STRIDE * size:g} m"
                )
        if min(*self.widths, self.out_width) < 1:
            raise ValueError("widths must be positive")
        channels, x, y = encoder_output_shape(self.grid.sparse_shape, self.out_width)
        told = f"range by voxel_size, a map of {x:,} x {y:,} cells and {channels:,} channels,"
        check_memory({told: 4.0 * channels * x * y})
        return self

    @property
    def grid(self) -> VoxelGrid:
        return VoxelGrid(self.range, self.voxel_size, self.max_points, self.max_voxels)

    @property
    def bev_channels(self) -> int:
        """Channels of the encoder's map."""
        return encoder_output_shape(self.grid.sparse_shape, self.out_width)[0]

    @property
    def bev_shape(self) -> tuple[int, int]:
        """Cells (X, Y) of the encoder's map."""
        return encoder_output_shape(self.grid.sparse_shape, self.out_width)[1:]

    @property
    def cell_size(self) -> tuple[float, float]:
        """Of the encoder's map, along x and y (m)."""
        return self.voxel_size[0] * STRIDE, self.voxel_size[1] * STRIDE


class FitConfig(TrainingSettings):
    """Training of the LiDAR detector on the train split."""

    lidar: LidarConfig = Field(default_factory=LidarConfig)
    backbone_widths: tuple[int, int] = Field((128, 256), description="Channels of SECOND's two blocks.")
    backbone_layers: tuple[int, int] = Field((5, 5), description="Further convolutions in each of them.")
    neck_width: int = Field(256, ge=1, description="Channels of each of SECONDFPN's two branches.")
    upsample: Literal[1, 2] = Field(1, description="How much finer than the encoder's map the head's is.")
    head: Literal["centerpoint", "transfusion"] = Field(
        "centerpoint", description="CenterPoint's, which learns fast, or TransFusion's, as in the published teacher."
    )
    class_groups: Literal["one", "six"] = Field("six", description="Branches of CenterPoint's head: its six, or one.")
    head_width: int = Field(64, ge=1, description="Channels of the head.")
    queries: int = Field(200, ge=1, description="Objects a sample that TransFusion's head looks for.")
    gaussian_radius: int = Field(2, ge=0, description="Least radius of a centre in the heatmap target (cells).")
    norm_momentum: float = Field(0.01, gt=0, le=1, description="Of batch normalisation's running statistics.")
    min_lidar_points: int = Field(1, ge=0, description="Boxes with fewer LiDAR points are not learnt from.")
    epochs: float = Field(20, gt=0, description="Passes over the train split.")
    batch_size: int = Field(8, ge=1, le=MOST_BATCH, description="Samples a step, over all ranks.")
    rate: float = Field(1e-3, gt=0, description="Peak learning rate of AdamW.")
    warmup: int = Field(1000, ge=0, description="Steps of linear warm-up, from a third of the rate; a cosine follows.")
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(35.0, gt=0, description="Largest norm of the gradient.")
    flip: bool = Field(True, description="Mirror samples along x and y at random.")
    paste: int = Field(0, ge=0, description="Objects of another sample added to each, at most.")
    rotation: float = Field(0.3925, ge=0, le=3.1416, description="Largest turn about z (rad).")
    scale: float = Field(0.05, ge=0, lt=1, description="Largest change of scale (0.05: 0.95 to 1.05).")

    @model_validator(mode="before")
    @classmethod
    def _of_old(cls, given: Any) -> Any:
        """Say what the field of before is called."""
        if isinstance(given, dict) and "batch" in given:
            raise ValueError(f"batch is batch_size now: write batch_size: {given['batch']}")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> "FitConfig":
        if any(cells % 2 for cells in self.lidar.bev_shape):
            shape = "x".join(map(str, self.lidar.bev_shape))
            raise ValueError(f"lidar.range makes a map of {shape} cells, which SECOND's stride of 2 does not divide")
        if self.head == "transfusion":
            if self.head_width % ATTENTION_HEADS:
                raise ValueError(
                    f"head_width {self.head_width} is no multiple of the {ATTENTION_HEADS} attention heads"
                )
            x, y = self.lidar.bev_shape
            peaks = len(CLASSES) * x * y * self.upsample**2
            if self.queries > peaks:
                raise ValueError(f"queries {self.queries} are more than the {peaks} places of the head's map")
        return self


class TeacherConfig(Settings):
    """BEV features of every sample."""

    lidar: LidarConfig = Field(default_factory=LidarConfig)
    weights: str = external_file(
        "fit",
        "A BEVFusion LiDAR checkpoint (MIT or mmdetection3d) or a fitted detector; `fit` trains one first; "
        "`random` takes random weights, for trials.",
        words=("fit", "random"),
    )
    mmdet3d: str | None = external_file(
        None, "An mmdet3d config file: its detector, with `weights` as its checkpoint, is the teacher."
    )
    public_config: str | None = external_file(
        None,
        "The public config of the checkpoint in `weights`, where shapes do not tell all of its network: BEVFusion's "
        "Python file, or the resolved one as JSON or YAML. It must agree with `lidar`.",
    )
    output: Literal["encoder", "neck"] = Field(
        "encoder", description="The map: of the sparse encoder (256 channels if published), or of SECONDFPN (512)."
    )
    flips: bool = Field(False, description="Cache mirrored maps too, made from mirrored points: four maps a sample.")
    encoding: Literal["cells", "compact", "dense"] = Field(
        "cells",
        description="How maps are stored: their active cells, the same with shorter mantissas, or whole, for maps "
        "without empty cells (docs/bev-cache.md).",
    )
    detections: bool = Field(False, description="Write the teacher's boxes as well, and score them on val.")
    seed: int = Field(0, ge=0, description="Of random weights.")
    part_size: int = runtime(16, "Samples a part: the unit of resuming and of a file.", ge=1)
    gate_samples: int = runtime(64, "Samples with ground truth on which mAP is measured before caching; 0: none.", ge=0)
    min_map: float | None = runtime(
        None,
        "The mAP below which nothing is cached: such weights are not what they seem. One that is given must be "
        "measured; without, it is 0.3 where there is something to measure.",
        ge=0,
    )
    workers: int = runtime(0, "Processes; 0 takes one for every GPU, or on the CPU one for every core.", ge=0)
    threads: int = runtime(0, "CPU threads of each process; 0 shares the cores out.", ge=0)
    device: str = runtime("auto", "cpu, cuda, or auto: CUDA where there is one.")

    @model_validator(mode="after")
    def _fits_together(self) -> "TeacherConfig":
        if self.public_config and (self.mmdet3d or self.weights in ("fit", "random")):
            raise ValueError("public_config describes a checkpoint: name that in teacher.weights, without mmdet3d")
        if self.mmdet3d and self.weights == "fit":
            raise ValueError("mmdet3d needs weights: set teacher.weights to that config's checkpoint, or to random")
        return self
