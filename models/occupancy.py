"""The voxels of Occ3D-nuScenes (arXiv 2304.14365): where they lie, in the key ego frame.

Arrays are `[X, Y, Z]`, as in its files: dim 0 grows with x (forward), dim 1 with y (left), dim 2 with z (up).
"""

LOW = (-40.0, -40.0, -1.0)  # m, the lower corner of voxel (0, 0, 0)
VOXEL = 0.4  # m
SHAPE = (200, 200, 16)
RANGE = 40.0  # m, x and y in +- this


def occupancy_path(scene_name: str, token: str) -> str:
    """Where the labels of a sample lie in a dataroot."""
    return f"gts/{scene_name}/{token}/labels.npz"
