"""The teacher's voxel grid and the shapes that follow from it. Free of torch: configs check themselves with it."""

from dataclasses import dataclass

STRIDE = 8  # voxels a BEV cell along x and y


@dataclass(frozen=True)
class VoxelGrid:
    """Where voxels are and how many points and voxels are kept.

    point_range: x, y, z minimum, then maximum (m). voxel_size: x, y, z (m).
    A voxel takes its first `max_points` points; points that would open more than `max_voxels` voxels are dropped.
    """

    point_range: tuple[float, float, float, float, float, float]
    voxel_size: tuple[float, float, float]
    max_points: int = 10
    max_voxels: int = 160_000

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along x, y, z."""
        low, high = self.point_range[:3], self.point_range[3:]
        x, y, z = (round((b - a) / size) for a, b, size in zip(low, high, self.voxel_size))
        return x, y, z

    @property
    def sparse_shape(self) -> tuple[int, int, int]:
        """Extent of the sparse encoder's input: one layer more in height, as the published network has it."""
        x, y, z = self.shape
        return x, y, z + 1


# Of the encoder's convolutions with stride 2, along x, y and z: published.
PADDINGS = ((1, 1, 1), (1, 1, 1), (1, 1, 0))


def encoder_output_shape(
    sparse_shape: tuple[int, int, int], out_width: int, paddings: tuple[tuple[int, int, int], ...] = PADDINGS
) -> tuple[int, int, int]:
    """(channels, X, Y) of the sparse encoder's map. Raises ValueError where its strides leave no height."""
    x, y, z = sparse_shape
    for padding in paddings:
        x, y, z = ((side + 2 * pad - 3) // 2 + 1 for side, pad in zip((x, y, z), padding))
    z = (z - 3) // 2 + 1
    if min(x, y, z) < 1:
        raise ValueError(f"a grid of {sparse_shape} voxels is too small for the encoder's strides")
    return out_width * z, x, y
