"""Objects where the cameras see them: a heatmap of box centres in each image, by class (CenterNet, arXiv 1904.07850).

Supervised pretraining in the image plane, as detectors whose backbone learnt from nuImages or FCOS3D have behind them.
It teaches what things look like, and of their distance nothing.
"""

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from models.backbones.backbone import Backbone
from models.bevdet.necks import FpnLss, FpnSpec
from models.boxes import Boxes
from models.heatmap import draw_bump
from models.initialise import init_scores
from models.norm import LIKE_TORCH, Norm

FINER = 2  # cells of the heatmap along each axis of a cell of the backbone's finer map
NEAREST = 1.0  # m in front of a camera: what is nearer is not looked for
SPREAD = 6.0  # an object's extent in the image, in deviations of its bump
LEAST_SPREAD = 0.5  # cells


class PerspectiveDetector(nn.Module):
    """A backbone's last two maps, a neck and one layer of scores, `FINER` times as fine as the finer map.

    classes: of the heatmap. width: channels of the neck. Its loss is `focal_loss.heatmap_loss` against `seen_centers`.
    """

    def __init__(self, backbone: Backbone, classes: int, width: int, norm: Norm = LIKE_TORCH):
        super().__init__()
        self.backbone = backbone
        fine, coarse = backbone.out_indices
        self.neck = FpnLss((backbone.channels[fine], backbone.channels[coarse]), FpnSpec(width), norm)
        self.scores = nn.Sequential(nn.Conv2d(width, classes * FINER**2, 1))
        init_scores(self.scores)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (M, classes, H / stride, W / stride) of images (M, 3, H, W)."""
        maps = self.backbone(images)
        fine, coarse = (maps[stage] for stage in self.backbone.out_indices)
        return F.pixel_shuffle(self.scores(self.neck(fine, coarse)), FINER)


def seen_centers(
    boxes: Boxes,
    camera_to_frame: np.ndarray,
    intrinsics: np.ndarray,
    post: np.ndarray,
    size: tuple[int, int],
    stride: int,
    classes: int,
) -> np.ndarray:
    """The target (N, classes, H / stride, W / stride) float32 of N cameras: a bump of height 1 at each centre.

    boxes: in a frame, at whose time it stands. camera_to_frame: (N, 4, 4). intrinsics: (N, 3, 3) of the stored images.
    post: (N, 4, 4), stored pixel -> pixel of the input, `size` (H, W) pixels. A bump is as wide as its object is in the
    image. What stands behind others has one too: a box does not say how much of it is seen.
    """
    height, width = size[0] // stride, size[1] // stride
    out = np.zeros((len(intrinsics), classes, height, width), np.float32)
    around = np.hypot(boxes.sizes[:, 0], boxes.sizes[:, 1]) / np.sqrt(2)  # m, whichever way it is turned
    for camera, (to_frame, lens, homography) in enumerate(zip(camera_to_frame, intrinsics, post)):
        placed = (boxes.centers - to_frame[:3, 3]) @ to_frame[:3, :3]
        depth = placed[:, 2]
        ahead = np.flatnonzero(depth > NEAREST)
        u, v = ((placed[ahead] @ lens.T)[:, :2] / depth[ahead, None]).T
        pixels = np.stack([u, v, depth[ahead], np.ones(len(ahead))]) if len(ahead) else np.zeros((4, 0))
        x, y = (homography @ pixels)[:2] / stride
        scale = np.hypot(homography[0, 0], homography[1, 0]) / stride  # cells a stored pixel
        for k, column, row in zip(ahead, np.floor(x).astype(int), np.floor(y).astype(int)):
            if 0 <= row < height and 0 <= column < width:
                cells = np.array([lens[1, 1] * boxes.sizes[k, 2], lens[0, 0] * around[k]]) * scale / depth[k]
                draw_bump(out[camera, boxes.labels[k]], (row, column), np.maximum(cells / SPREAD, LEAST_SPREAD))
    return out
