"""BEVStereo4D: the depth of two frames from stereo with the frame before each (bevstereo4d)."""

from collections.abc import Iterator

import torch

from oracles.base import Kind, Oracle, Output, Tolerance, leading, recorded
from oracles.detector import CELLS, cameras_of, detector_of, head_outputs, images_of, losses_and_gradients, public_of

FEATURES, DEPTH = Tolerance(5e-5, bf16=0.02), Tolerance(5e-4, bf16=0.03)
COST = Tolerance(1e-4, bf16=0.08)  # a softmax of differences between features that were rounded
MAPS, BEV = Tolerance(5e-5, share=0.995, bf16=0.02), Tolerance(2e-4, share=0.995, bf16=0.02)


@torch.no_grad()
def frames(oracle: Oracle) -> Iterator[Output]:
    """Each frame with the one before it, the earliest first."""
    net, images, cameras = detector_of(oracle), images_of(oracle), cameras_of(oracle)
    views = images.shape[2]
    (fine,) = net.backbone(images[:, -1].flatten(0, 1), stop_at=0)
    last = f"inter/frame{images.shape[1] - 1}_stereo_feat"
    yield Output(last, leading(fine, oracle, last), FEATURES)
    for frame in range(net.spec.frames - 1, -1, -1):
        earlier = fine
        with recorded({"features": net.depth_net}) as inner:
            seen = net.frame_geometry(cameras, frame)
            bev, depth, fine = net.lift(images[:, frame], seen, earlier)
        cost = net.compare(fine, earlier, seen.earlier)
        values = {
            "stereo_feat": (fine, FEATURES),
            "cost_argmax": (cost.argmax(1), Tolerance(share=0.999, bf16=0.1)),
            "depth": (depth.flatten(0, 1), DEPTH),
            "context": (inner["features"][:, net.spec.depth_bins.count :], FEATURES),
            "cell_flat": (net.cells(cameras, frame), CELLS),
            "bev_pooled": (bev, MAPS),
            "bev_pre": (net.pre_encoder(bev)[0], MAPS),
            "mlp_input": (cameras.scene_vector(frame), Tolerance(of_max=1e-6)),
        }
        for name, (value, tolerance) in values.items():
            key = f"inter/frame{frame}_{name}"
            yield Output(key, leading(value, oracle, key), tolerance)
        key = f"inter/frame{frame}_cost"
        # The second image's.
        yield Output(key, leading(cost[1 : views + 1, :, ::2, ::2], oracle, key), COST)


@torch.no_grad()
def whole(oracle: Oracle) -> Iterator[Output]:
    net = detector_of(oracle)
    bev, _ = net(images_of(oracle), net.geometry(cameras_of(oracle)))
    yield Output("out/bev", bev, BEV)


def head(oracle: Oracle) -> Iterator[Output]:
    return head_outputs(oracle, "head6", "decode/")


def losses(oracle: Oracle) -> Iterator[Output]:
    return losses_and_gradients(oracle, public_of(oracle).depth_weight)


KINDS = (
    Kind(
        "bevstereo4d",
        ("inter/frame0_cost", "head6/task0_reg"),
        ("sd/*", "inputs/*", "gt/*", "cams", "*_margin"),
        (frames, whole, head, losses),
    ),
)
