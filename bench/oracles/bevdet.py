"""The camera detectors: their backbone and neck (bevdet_backbone), and as much of BEVDet4D as there is (bevdet4d)."""

from collections.abc import Iterator
from typing import Any

import torch
from oracles.base import Kind, Oracle, Output, Tolerance, leading, norms, recorded
from torch import Tensor, nn

from models.bevdet.detector import BevDet, Cameras
from models.bevdet.encoder import ResidualBlock
from models.bevdet.layout import bevdet_from_public
from models.bevdet.necks import FpnLss
from models.center_head import CenterPointHead
from models.depth_bins import DepthBins
from models.layouts import without_prefix
from models.lift_splat import BevGrid, bev_cells, frustum_points
from models.swin import Swin

# Upstream feeds RGB where BGR is meant: channel 0 is blue with red's statistics.
MEAN, STD = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
MAPS, NECK = Tolerance(3e-5), Tolerance(2e-5)
GRADIENTS = 1e-4  # relative


# --- bevdet_backbone --------------------------------------------------------------------------------------------------


class Backbone(nn.Module):
    """Swin and image neck, with the names of `BevDet`."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        swin, neck = config["backbone"], config["neck"]
        self.backbone = Swin(swin["embed_dims"], swin["depths"], swin["num_heads"], swin["window_size"])
        channels = self.backbone.channels[2:]
        self.image_neck = FpnLss(channels, neck["out_channels"], neck["scale_factor"], neck["extra_upsample"] or 1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        maps = self.backbone(images)
        return maps, self.image_neck(*maps[2:])


def backbone_of(oracle: Oracle) -> Backbone:
    net = Backbone(oracle.config)
    net.load_state_dict(bevdet_from_public(oracle.state()))
    return net.eval()


def backbone(oracle: Oracle) -> Iterator[Output]:
    net = backbone_of(oracle)
    swin = net.backbone
    layers = {
        "patch_embed": swin.patch_embed,
        "stage0": swin.stages[0].blocks[-1],
        "stage1": swin.stages[1].blocks[-1],
        "stage2_down": swin.stages[2].downsample,
    }
    with torch.no_grad(), recorded(layers) as inner:
        maps, neck = net(oracle["inputs/img"])
    for name, value in inner.items():
        key, tokens = f"inter/{name}", value.flatten(1, 2)
        every = 3 if name in ("patch_embed", "stage0") else 1
        yield Output(key, tokens[: _stored(oracle, key), ::every], MAPS)
    yield from _stages(oracle, "out", maps)
    yield Output("out/neck", neck, MAPS)


def backbone_of_odd_size(oracle: Oracle) -> Iterator[Output]:
    if "odd/img" in oracle:
        with torch.no_grad():
            yield from _stages(oracle, "odd", backbone_of(oracle).backbone(oracle["odd/img"]))


def _stages(oracle: Oracle, group: str, maps: list[Tensor]) -> Iterator[Output]:
    yield Output(f"{group}/c4", maps[2], MAPS)
    yield Output(f"{group}/c5", maps[3], MAPS)
    yield Output(f"{group}/stereo", maps[0][: _stored(oracle, f"{group}/stereo"), :, ::2, ::2], MAPS)


def _stored(oracle: Oracle, key: str) -> int | None:
    """How many images of it are stored."""
    return len(oracle.array(key)) if key in oracle else None


def neck_in_training(oracle: Oracle) -> Iterator[Output]:
    if "train/neck" not in oracle:
        return
    net = backbone_of(oracle)
    net.image_neck.train()
    with torch.no_grad():
        _, neck = net(oracle["inputs/img"])
    yield Output("train/neck", leading(neck, oracle, "train/neck"), MAPS)
    for name, value in net.image_neck.named_buffers():
        yield Output(f"train/{name}", value, Tolerance(of_max=1e-5))


def backbone_gradients(oracle: Oracle) -> Iterator[Output]:
    if "grad/total" not in oracle:
        return
    net, images = backbone_of(oracle), oracle["inputs/img"].requires_grad_()
    maps, neck = net(images)
    weighted = ((maps[2], "w_c4"), (maps[3], "w_c5"), (neck, "w_neck"))
    terms = [value * oracle[f"grad/{name}"] for value, name in weighted]
    total = sum(term.mean() for term in terms)
    total.backward()
    yield Output("grad/total", total, Tolerance(1e-5 * sum(term.abs().mean().item() for term in terms)))
    yield Output("grad/img", leading(images.grad, oracle, "grad/img"), Tolerance(of_max=GRADIENTS))
    yield Output("grad/img_norm", images.grad.norm(), Tolerance(relative=GRADIENTS))
    ours = {name: parameter.grad for name, parameter in net.named_parameters()}
    public = {name: ours[_ours(name)] for name in oracle.below("gradnorm/")}
    yield from norms(oracle, "gradnorm/", public, GRADIENTS)
    for name in filter(public.__contains__, oracle.below("grad/")):
        yield Output(f"grad/{name}", public[name], Tolerance(of_max=GRADIENTS))


def _ours(name: str) -> str:
    return next(iter(bevdet_from_public({name: torch.empty(0)})))


# --- bevdet4d ---------------------------------------------------------------------------------------------------------


def detector_of(oracle: Oracle) -> tuple[BevDet, nn.Module]:
    """The detector, and the two blocks that BEVDet4D puts behind the splat."""
    model = oracle.config["model"]
    swin, view, bev = (model[name] for name in ("img_backbone", "img_view_transformer", "img_bev_encoder_backbone"))
    x, y, z = (view["grid_config"][axis] for axis in "xyz")
    detector = BevDet(
        Swin(swin["embed_dims"], tuple(swin["depths"]), tuple(swin["num_heads"]), tuple(swin["window_size"])),
        head_of(model),
        BevGrid(tuple(x[:2]), tuple(y[:2]), tuple(z[:2]), x[2]),
        DepthBins(*view["grid_config"]["depth"]),
        tuple(view["input_size"]),
        image_out=model["img_neck"]["out_channels"],
        context=view["out_channels"],
        bev_widths=tuple(bev["num_channels"]),
        bev_out=model["img_bev_encoder_neck"]["out_channels"],
        truncate_cells=True,
    )
    # Two frames side by side enter the BEV encoder.
    detector.bev_encoder.layers[0][0] = ResidualBlock(bev["numC_input"], bev["num_channels"][0], 2, project=True)
    detector.load_state_dict(bevdet_from_public(oracle.state()))
    width = view["out_channels"]
    pre = nn.Sequential(ResidualBlock(width, width, 1, project=True), ResidualBlock(width, width))
    pre.load_state_dict(without_prefix(oracle.state(), "pre_process_net.layers.0."))
    return detector.eval(), pre.eval()


def head_of(model: dict[str, Any]) -> CenterPointHead:
    head, train = model["pts_bbox_head"], model["train_cfg"]["pts"]
    return CenterPointHead(
        head["in_channels"],
        train["point_cloud_range"],
        tuple(size * train["out_size_factor"] for size in train["voxel_size"][:2]),
        [task["class_names"] for task in head["tasks"]],
        head["share_conv_channel"],
    )


def frame_cameras(oracle: Oracle, frame: int, views: int) -> Cameras:
    """The stored matrices are frame-major. BEV augmentation goes into the pose."""
    rows = slice(views * frame, views * (frame + 1))
    post = torch.eye(4).repeat(*oracle["inputs/post_trans"][:, rows].shape[:2], 1, 1)
    post[..., :3, :3], post[..., :3, 3] = oracle["inputs/post_rots"][:, rows], oracle["inputs/post_trans"][:, rows]
    bda = torch.eye(4).repeat(len(post), 1, 1, 1)
    bda[:, 0, :3, :3] = oracle["inputs/bda"]
    return Cameras(oracle["inputs/intrins"][:, rows].float(), post, bda @ oracle[f"prep/sensor2keyego{frame}"].float())


def both_frames(oracle: Oracle) -> Iterator[Output]:
    """Key frame and adjacent frame through our parts, chained as BEVDet4D chains them."""
    net, pre = detector_of(oracle)
    views = len(oracle.array("cams"))
    images = (oracle["inputs/img_u8"].flip(-1).float() - MEAN) / STD
    frames = images.shape[1] // views
    images = images.movedim(-1, 2).unflatten(1, (views, frames))  # camera-major: (B, views, frames, 3, H, W)
    maps = []
    with torch.no_grad(), recorded({"neck": net.image_neck, "features": net.depth_net}) as inner:
        for frame in range(frames):
            cameras = frame_cameras(oracle, frame, views)
            lifted, depth = net.lift(images[:, :, frame], cameras)
            maps.append(pre(lifted))
            located = frustum_points(net.frustum, *cameras)
            cells = bev_cells(located, net.grid, order="yx", truncate=True)
            key = f"inter/frame{frame}"
            neck = inner["neck"].unflatten(0, (-1, views))
            context = inner["features"][:, net.depth_bins.count :]
            for name, value, tolerance in (
                ("neck", neck, NECK),
                ("depth", depth.flatten(0, 1), NECK),
                ("context", context, NECK),
                ("cell_flat", cells, Tolerance(share=1 - 2e-4)),
                ("bev_pooled", lifted, Tolerance(1e-4)),
                ("bev_pre", maps[-1], Tolerance(1e-4)),
            ):
                yield Output(f"{key}_{name}", leading(value, oracle, f"{key}_{name}"), tolerance)
            yield Output(f"{key}_coor_sub", located[:, :, ::13, ::3, ::5], Tolerance(of_max=1e-5))
        encoded = net.bev_encoder(torch.cat(maps, 1))
        bev = net.bev_neck(encoded[0], encoded[2])
    for number, every in enumerate((4, 2, 1)):
        yield Output(f"out/enc{number}", encoded[number][..., ::every, ::every], Tolerance(2e-4))
    yield Output("out/bev", bev, Tolerance(2e-4))
    with torch.no_grad():
        raw = net.head(oracle["out/bev"])
    for task, parts in enumerate(raw):
        for name, value in parts.items():
            yield Output(f"head1/task{task}_{name}", value, NECK)
    if "noprev/bev" in oracle:
        with torch.no_grad():
            alone = net.encode(torch.cat([maps[0], *map(torch.zeros_like, maps[1:])], 1))
        yield Output("noprev/bev", leading(alone, oracle, "noprev/bev"), Tolerance(2e-4))
        yield Output("noprev/bev_norm", alone.double().norm(), Tolerance(relative=1e-5))


KINDS = (
    Kind(
        "bevdet_backbone",
        ("inputs/img", "out/c4", "out/c5"),
        ("sd/*", "inputs/*", "odd/img", "grad/w_*"),
        (backbone, backbone_of_odd_size, neck_in_training, backbone_gradients),
    ),
    Kind(
        "bevdet4d", ("inter/frame0_bev_pooled", "head1/task0_reg"), ("sd/*", "inputs/*", "gt/*", "cams"), (both_frames,)
    ),
)
