"""What the checks of whole camera detectors share: the detector, images and cameras of a file."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from models.bevdet.detector import BevDet
from models.bevdet.layout import bevdet_to_public, fill_bevdet, read_bevdet
from models.cameras import Cameras
from models.center_codes import PARTS
from models.depth_bins import depth_loss
from models.public.bevdet import PublicBevDet
from models.public.bevdet import read_bevdet as read_bevdet_config
from oracles.base import EQUAL, Oracle, Output, Tolerance, norms
from oracles.center_head import box_outputs, boxes_of, losses_of
from oracles.depth import at_stride

# Upstream takes RGB for BGR: channel 0 is blue with red's statistics.
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])

GRADIENTS = 1e-4  # relative
BF16_GRADIENTS = 0.5  # through all layers: roundings open and close rectifiers
CELLS = Tolerance(share=1 - 2e-4)  # points on a border
RAW = Tolerance(2e-5, bf16=0.025)  # the head's maps
LOSS = Tolerance(1e-6, relative=1e-5, bf16=0.04)  # a heatmap without a centre loses 0.1, and rounds like the others
POSES = Tolerance(of_max=1e-6)


def public_of(oracle: Oracle) -> PublicBevDet:
    return read_bevdet_config(oracle.config)


def detector_of(oracle: Oracle, align_after_splat: bool = False) -> BevDet:
    """The file's detector in eval(), with the released detectors' quirks."""
    public = public_of(oracle)
    spec = replace(public.detector, align_after_splat=public.detector.align_after_splat or align_after_splat)
    detector = replace(public, detector=spec).build()
    fill_bevdet(detector, read_bevdet(oracle.state()))
    return detector.eval()


def images_of(oracle: Oracle) -> Tensor:
    """(B, T, N, 3, H, W); the file's are camera-major."""
    images = (oracle["inputs/img_u8"].flip(-1).float() - MEAN) / STD
    views = len(oracle.array("cams"))
    return images.movedim(-1, 2).unflatten(1, (views, -1)).transpose(1, 2).contiguous()


def cameras_of(oracle: Oracle, group: str = "inputs") -> Cameras:
    """The stored matrices, which are frame-major. The key ego frame is the first camera's."""
    views = len(oracle.array("cams"))

    def frames(name: str) -> np.ndarray:
        rows = oracle.array(f"{group}/{name}")
        return rows.reshape(len(rows), -1, views, *rows.shape[2:])

    to_ego, to_global = (frames(name).astype(np.float64) for name in ("sensor2ego", "ego2global"))
    poses = np.linalg.inv(to_global[:, :1, :1]) @ to_global @ to_ego
    post = np.zeros(poses.shape, np.float32)
    post[..., :3, :3], post[..., :3, 3], post[..., 3, 3] = frames("post_rots"), frames("post_trans"), 1
    scene = np.tile(np.eye(4, dtype=np.float32), (len(poses), 1, 1))
    scene[:, :3, :3] = oracle.array(f"{group}/bda")
    poses = poses.astype(np.float32)
    matrices = (frames("intrins"), post, poses, poses[:, 0], scene)
    return Cameras(*(torch.from_numpy(np.ascontiguousarray(matrix)) for matrix in matrices))


def depth_targets_of(oracle: Oracle) -> Tensor:
    """(B, N, H/16, W/16), m; 0 where there is no point."""
    maps = np.zeros(oracle.array("gt/depth_shape"), np.float32)
    maps[tuple(oracle.array("gt/depth_index").astype(int).T)] = oracle.array("gt/depth_value")
    targets = at_stride(torch.from_numpy(maps).flatten(0, 1), 16)
    return targets.unflatten(0, maps.shape[:2])


def head_outputs(oracle: Oracle, group: str, decoded: str) -> Iterator[Output]:
    """The head's maps of the stored BEV below `group`; the boxes of the stored maps below `decoded`."""
    head = detector_of(oracle).head
    with torch.no_grad():
        for task, maps in enumerate(head(oracle["out/bev"])):
            for name, value in maps.items():
                yield Output(f"{group}/task{task}_{name}", value, RAW)
    names = [*PARTS, "heatmap"]
    stored = [{name: oracle[f"{group}/task{task}_{name}"] for name in names} for task in range(len(head.class_groups))]
    yield from box_outputs(oracle, decoded, head, stored)
    for task, (maps, classes) in enumerate(zip(stored, head.class_groups)):
        for b, boxes in enumerate(head.decode(maps, classes)):
            yield Output(f"{decoded}s{b}_t{task}_candidates", len(boxes), EQUAL)


def losses_and_gradients(oracle: Oracle, depth_weight: float = 0.0) -> Iterator[Output]:
    """The losses of a whole detector, in eval(), and their sum's gradients."""
    net = detector_of(oracle)
    bev, depth_prob = net(images_of(oracle), net.geometry(cameras_of(oracle)))
    count = len(oracle.below("gt/boxes"))
    truth = [boxes_of(oracle.array(f"gt/boxes{b}"), oracle.array(f"gt/labels{b}"), 0.5) for b in range(count)]
    terms = losses_of(net.head, net.head(bev), net.head.targets(truth))
    if depth_weight:
        labels = net.spec.depth_bins.labels(depth_targets_of(oracle))
        terms["loss_depth"] = depth_weight * depth_loss(depth_prob, labels)
    for name, term in terms.items():
        yield Output(f"loss/{name}", term, LOSS)
    total = sum(terms.values())
    yield Output("total", total, LOSS)
    total.backward()
    gradients = public_gradients(net)
    yield from norms(oracle, "gradnorm/", gradients, GRADIENTS, 0.12)
    for name in oracle.below("grad/"):
        every = 4 if name.endswith("absolute_pos_embed") else 1  # rows
        tolerance = Tolerance(of_max=GRADIENTS, bf16=BF16_GRADIENTS)
        yield Output(f"grad/{name}", gradients[name][:, :, ::every], tolerance)


def public_gradients(module: torch.nn.Module) -> dict[str, Tensor]:
    """The gradients of a detector's parameters by their public names, in the public order of channels."""
    return bevdet_to_public({n: p.grad for n, p in module.named_parameters() if p.grad is not None})
