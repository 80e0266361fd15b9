"""Which frames belong to a sample, and the key frame's ego, in which the detector's map and boxes live."""

from typing import Literal

import numpy as np

from common.errors import UserError
from models.boxes import Boxes
from models.geometry import inverse
from storage.index import Index

KeyEgo = Literal["lidar", "camera"]

# Whose time the released detectors take for "now": for the cameras the first in their own order, for boxes the front.
VIEWS_CAMERA, BOXES_CAMERA = "CAM_FRONT_LEFT", "CAM_FRONT"


def frames_of(index: Index, sample: int, count: int) -> list[int]:
    """The sample and its count - 1 previous key frames, nearest first.

    Where the scene has no such frame the sample itself stands in, as in BEVDet.
    """
    frames = [sample]
    previous = sample
    while len(frames) < count:
        previous = int(index.previous[previous]) if previous >= 0 else -1
        frames.append(sample if previous < 0 else previous)
    return frames


def camera_to_key_ego(index: Index, sample: int, frames: list[int], of: KeyEgo = "lidar") -> np.ndarray:
    """(T, N, 4, 4): each camera in each of `frames`, at its own time -> the ego at the key frame's.

    of: the time of the key LiDAR sweep, or of CAM_FRONT_LEFT's image, as in the released detectors.
    """
    if of == "lidar":
        ego_to_global = index.lidar_ego_to_global[sample]
    else:
        ego_to_global = index.camera_ego_to_global[sample, _place(index, VIEWS_CAMERA)]
    return inverse(ego_to_global) @ index.camera_ego_to_global[frames] @ index.camera_to_ego[frames]


def boxes_in_key_ego(index: Index, sample: int, boxes: Boxes, of: KeyEgo = "lidar") -> Boxes:
    """Boxes of the sample's LIDAR_TOP frame, where the index has them -> the ego in which the detector has them.

    of: the time of the key LiDAR sweep, or of CAM_FRONT's image: the released detectors have no one time for both.
    """
    return boxes.levelled(index.lidar_to_global(sample)).moved(inverse(_boxes_ego_to_global(index, sample, of)))


def boxes_in_lidar(index: Index, sample: int, boxes: Boxes, of: KeyEgo = "lidar") -> Boxes:
    """The way back."""
    return boxes.levelled(_boxes_ego_to_global(index, sample, of)).moved(inverse(index.lidar_to_global(sample)))


def _boxes_ego_to_global(index: Index, sample: int, of: KeyEgo) -> np.ndarray:
    if of == "lidar":
        return index.lidar_ego_to_global[sample]
    return index.camera_ego_to_global[sample, _place(index, BOXES_CAMERA)]


def _place(index: Index, camera: str) -> int:
    if camera not in index.cameras:
        told = f"finetune.view.key_ego = camera is the ego at the time of {camera}'s image, and there is no such camera"
        raise UserError(f"{told} ({', '.join(index.cameras)}); set finetune.view.key_ego=lidar")
    return index.cameras.index(camera)
