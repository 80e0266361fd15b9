"""The LiDAR teacher: voxelisation and sparse encoder (teacher_sparse), BEV backbone and head (teacher_bev)."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from models.boxes import Boxes
from models.lidar.bev_backbone import BEVBackbone
from models.lidar.box_code import BoxCoder
from models.lidar.checkpoint import MIT, load_encoder
from models.lidar.encoder import SparseEncoder
from models.lidar.grid import VoxelGrid
from models.lidar.sparse_conv import SparseTensor
from models.lidar.transfusion import TransFusionHead
from models.lidar.voxelize import voxelize
from models.public.bevfusion import read_bev_backbone, read_encoder, read_grid, read_transfusion
from models.public.used import Used
from oracles.base import EQUAL, Kind, Oracle, Output, Tolerance, leading, public, recorded

OF_MAX, SUMS = Tolerance(of_max=1e-5, bf16=0.02), Tolerance(of_max=1e-5, bf16=0.005)
MEANS = Tolerance(absolute=1e-6, relative=1e-6)  # the order of a sum of ten
NECK, HEAD = Tolerance(1e-5, bf16=0.02), Tolerance(5e-4, bf16=0.07)  # up to the queries, behind them
QUERY_HEAT = replace(NECK, bf16=0.2)  # zero where a neighbouring cell is hotter, if only by a rounding
NEAR = 1.0  # m from a stored box, in bf16


_GRID = ("point_cloud_range", "voxel_size", "max_num_points", "max_voxels")
_MOMENTUM = 0.01  # of all norms but the head's


def grid_of(oracle: Oracle) -> VoxelGrid:
    return read_grid(Used({name: oracle.config[name] for name in _GRID}, "voxelize"))


def voxelisation(oracle: Oracle) -> Iterator[Output]:
    grid = grid_of(oracle)
    clouds = [oracle[f"points/{b}"] for b in range(oracle.config["batch"])]
    batch = [voxelize(points, grid) for points in clouds]
    coords = [torch.nn.functional.pad(voxels.coords, (1, 0), value=b) for b, voxels in enumerate(batch)]
    yield Output("voxel/coords", torch.cat(coords), EQUAL)
    yield Output("voxel/num_points", torch.cat([voxels.counts for voxels in batch]), EQUAL)
    yield Output("voxel/mean", torch.cat([voxels.means for voxels in batch]), MEANS)

    if "voxel/max_voxels_small" in oracle:
        small = voxelize(clouds[0], replace(grid, max_voxels=int(oracle.array("voxel/max_voxels_small"))))
        yield Output("voxel/coords_small", small.coords, EQUAL)
        yield Output("voxel/num_points_small", small.counts, EQUAL)
        yield Output("voxel/mean_small", small.means, MEANS)

    if "voxel/full_points_xyzi" in oracle:
        points = torch.nn.functional.pad(oracle["voxel/full_points_xyzi"], (0, 1))
        full = voxelize(points, replace(grid, point_range=tuple(oracle.array("voxel/full_range").tolist())))
        yield Output("voxel/full_coords", full.coords, EQUAL)
        yield Output("voxel/full_num_points", full.counts, EQUAL)
        yield Output("voxel/full_mean_rows", full.means[::50], MEANS)
        yield Output("voxel/full_mean_abs_sum", full.means.double().abs().sum(0), Tolerance(relative=1e-6))


def sparse_encoder(oracle: Oracle) -> Iterator[Output]:
    if "out/dense" not in oracle:
        return
    settings = {name: value for name, value in public(oracle.config, _MOMENTUM).items() if name not in _GRID}
    grid = grid_of(oracle)
    spec = read_encoder(Used(settings, "backbone"), grid, "SparseEncoder")
    encoder = SparseEncoder(grid.sparse_shape, spec).eval()
    if unused := load_encoder(encoder, oracle.state()):
        raise ValueError(f"weights without a place: {', '.join(unused)}")
    layers = {"conv_input": encoder.conv_input, **dict(encoder.encoder_layers.named_children())}
    with torch.inference_mode(), recorded({**layers, "conv_out": encoder.conv_out}) as inner:
        dense = encoder(oracle["voxel/mean"], oracle["voxel/coords"].long(), oracle.config["batch"])
    for name, tensor in inner.items():
        yield from _layer(oracle, name, tensor)
    wanted = oracle.array("out/dense")
    yield Output("out/dense (which are zero)", dense == 0, Tolerance(bf16=0.1), wanted == 0)
    yield Output("out/dense", dense, OF_MAX)
    yield Output("out/max_abs", dense.abs().max(), OF_MAX)


def _layer(oracle: Oracle, name: str, tensor: SparseTensor) -> Iterator[Output]:
    """A layer's sites and features; the stored ones are sorted by (batch, x, y, z)."""
    key = f"inter/{name}"
    coords, features = tensor.sites.coords.numpy(), tensor.features.double().numpy()
    order = np.lexsort(coords.T[::-1])
    coords, features = coords[order], features[order]
    yield Output(f"{key}_shape", tensor.sites.shape, EQUAL)
    yield Output(f"{key}_num_active", len(coords), EQUAL)
    yield Output(f"{key}_coords", coords, EQUAL)  # of conv_out alone
    yield Output(f"{key}_channel_sum", features.sum(0), SUMS)
    yield Output(f"{key}_channel_sqsum", (features**2).sum(0), SUMS)
    if f"{key}_sample_coords" in oracle:
        rows = {tuple(site): row for row, site in enumerate(coords.tolist())}
        sample = [rows.get(tuple(site), -1) for site in oracle.array(f"{key}_sample_coords").tolist()]
        yield Output(f"{key}_sample_coords", [row >= 0 for row in sample], EQUAL, [True] * len(sample))
        yield Output(f"{key}_sample_feats", features[sample], OF_MAX)


def weights_of(oracle: Oracle, module: str) -> dict[str, Tensor]:
    """The file's weights of a part of LidarDetector, with its names."""
    named = {MIT.names.to_ours(name): tensor for name, tensor in oracle.state().items()}
    return {name.removeprefix(module): tensor for name, tensor in named.items() if name and name.startswith(module)}


def backbone_of(oracle: Oracle) -> BEVBackbone:
    parts = (Used(public(oracle.config[name], _MOMENTUM), name) for name in ("backbone", "neck"))
    net = BEVBackbone(read_bev_backbone(*parts))
    net.load_state_dict(weights_of(oracle, "bev_backbone."))
    return net.eval()


def bev_backbone(oracle: Oracle) -> Iterator[Output]:
    net = backbone_of(oracle)
    with torch.inference_mode(), recorded({"maps": net.backbone}) as inner:
        bev = net(oracle["inputs/bev"])
    for number, features in enumerate(inner["maps"]):
        key = f"out/backbone{number}"
        yield Output(key, leading(features, oracle, key), NECK)
    yield Output("out/neck", bev, NECK)


def head_of(oracle: Oracle) -> TransFusionHead:
    settings = oracle.config["head"] | {name: oracle.config[name] for name in ("test_cfg", "bbox_coder")}
    height = oracle.config["bbox_coder"]["post_center_range"][2::3]  # of no consequence to predictions
    head = TransFusionHead(read_transfusion(Used(settings, "head"), tuple(height)), MIT.convention)
    head.load_state_dict(weights_of(oracle, "head."))
    return head.eval()


def transfusion(oracle: Oracle) -> Iterator[Output]:
    if "head0/dense_heatmap" not in oracle:
        return
    backbone, head = backbone_of(oracle), head_of(oracle)
    layers = {"shared_conv": head.shared_conv, "out": head.decoder[-1]}
    queries: list[Tensor] = []
    handle = head.decoder[0].register_forward_pre_hook(lambda _, inputs: queries.append(inputs[0]))
    with torch.inference_mode(), recorded(layers) as inner:
        made = head(backbone(oracle["inputs/bev"]))
    handle.remove()
    said = made.layers if oracle.config["head"]["auxiliary"] else made.layers[-1:]
    maps = {"shared_conv": inner["shared_conv"], "dense_heatmap": made.heatmap}
    queries = {  # (B, ..., queries)
        "query_labels": (made.query_labels, EQUAL),
        "query_pos": (made.query_positions.mT, EQUAL),
        "query_heatmap_score": (made.query_heat, QUERY_HEAT),
        "query_in": (queries[0].transpose(1, 2), NECK),
        "query_out": (inner["out"].transpose(1, 2), HEAD),
        **{name: (torch.cat([layer[name] for layer in said], -1), HEAD) for name in said[-1]},
    }
    for b, boxes in enumerate(head.predict(made)):
        for name, value in maps.items():
            yield Output(f"head{b}/{name}", value[b : b + 1], NECK)
        yield from _queries(oracle, f"head{b}", {n: (value[b], t) for n, (value, t) in queries.items()})
        yield from _boxes(oracle, f"head{b}", boxes, head.coder)


def _queries(oracle: Oracle, group: str, found: dict[str, tuple[Tensor, Tolerance]]) -> Iterator[Output]:
    """One sample's queries in their order; in bf16, which decides near ties otherwise, those that are the same ones."""
    stored = {name: oracle[f"{group}/{name}"][0] for name in found if f"{group}/{name}" in oracle}
    stored["query_pos"] = stored["query_pos"].mT
    ours = theirs = list(range(len(stored["query_labels"])))
    if torch.is_autocast_enabled("cpu"):
        mine, wanted = (
            [(label, *place) for label, place in zip(labels.tolist(), places.T.tolist())]
            for labels, places in (
                (found["query_labels"][0], found["query_pos"][0]),
                (stored["query_labels"], stored["query_pos"]),
            )
        )
        ours, theirs = zip(*((mine.index(query), n) for n, query in enumerate(wanted) if query in mine))
        yield Output(f"{group}/query_labels (the same)", len(ours), Tolerance(bf16=0.1), len(wanted))
    for name, value in stored.items():
        got, tolerance = found[name]
        got, value = (  # of several layers one after the other
            tensor.unflatten(-1, (-1, len(stored["query_labels"])))[..., rows]
            for tensor, rows in ((got, ours), (value, theirs))
        )
        yield Output(f"{group}/{name}", got, tolerance, value)


def _boxes(oracle: Oracle, group: str, boxes: Boxes, coder: BoxCoder) -> Iterator[Output]:
    """Ours best first; the stored ones in the order of the queries, as MIT writes boxes: bottom, its sizes, its yaw."""
    wanted, labels = oracle.array(f"{group}/boxes"), oracle.array(f"{group}/labels")
    distance = np.linalg.norm(boxes.centers[:, None, :2] - wanted[:, :2], axis=2)
    distance += 1e3 * (boxes.labels[:, None] != labels)
    ours, theirs = linear_sum_assignment(distance)
    scores = oracle.array(f"{group}/scores")
    if torch.is_autocast_enabled("cpu"):  # scores near the threshold pass it or do not
        near = distance[ours, theirs] < NEAR
        yield Output(f"{group}/boxes (the same)", near.sum(), Tolerance(bf16=0.1), len(wanted))
        order = ours[near]
        boxes, wanted, labels, scores = boxes[order], wanted[theirs[near]], labels[theirs[near]], scores[theirs[near]]
    elif len(boxes) == len(wanted):
        boxes = boxes[ours[np.argsort(theirs)]]
    code = coder.encode(boxes)
    sizes, yaw = np.exp(code[:, 3:6]), np.arctan2(code[:, 6], code[:, 7])
    got = np.c_[boxes.centers[:, :2], code[:, 2] - sizes[:, 2] / 2, sizes, yaw, boxes.velocities]
    if got.shape == wanted.shape:
        got[:, 6] += 2 * np.pi * np.round((wanted[:, 6] - got[:, 6]) / (2 * np.pi))
    yield Output(f"{group}/boxes", got, HEAD, wanted)
    yield Output(f"{group}/scores", boxes.scores, replace(NECK, bf16=0.05), scores)
    yield Output(f"{group}/labels", boxes.labels, EQUAL, labels)


KINDS = (
    Kind(
        "teacher_sparse",
        ("points/0", "voxel/coords"),
        ("sd/*", "points/*", "voxel/max_voxels_small", "voxel/full_range", "voxel/full_points*"),
        (voxelisation, sparse_encoder),
    ),
    Kind(
        "teacher_bev",
        ("inputs/bev", "out/neck"),
        ("sd/*", "inputs/*", "head*/proposal_score_min_gap"),
        (bev_backbone, transfusion),
    ),
)
