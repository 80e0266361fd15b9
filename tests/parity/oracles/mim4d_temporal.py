"""MIM4D's temporal decoder and its warp (mim4d_temporal)."""

from collections.abc import Iterator

import torch

from models.layouts.mim4d import TEMPORAL, released_name, temporal_from_released
from models.mim4d.temporal import TemporalDecoder, TemporalSpec
from models.mim4d.warp import warp_indices
from models.rays import inverse
from oracles.base import Kind, Oracle, Output, Tolerance, norms, recorded

VOLUME = Tolerance(5e-5, bf16=0.02)
LAYER = Tolerance(5e-5, bf16=0.01)
WARPED = Tolerance(5e-5)  # places are data
GRADIENTS = 1e-4  # relative
BF16_GRADIENTS = 0.02


def spec_of(oracle: Oracle) -> TemporalSpec:
    """Of the file's settings; what they leave open (one overrides another, some are defaults) follows from shapes."""
    config, state = oracle.config, oracle.state("sd/history_decoder.")
    branches = {branch: config[f"decoder_{branch}"] for branch in ("short", "long")}
    heads = {branch: each["transformerlayers"]["attn_cfgs"][0]["num_heads"] for branch, each in branches.items()}
    ffn = {branch: len(state[f"decoder_{branch}.layers.0.ffns.0.layers.0.0.bias"]) for branch in branches}
    layers = {branch: each["num_layers"] for branch, each in branches.items()}
    read = branches["short"]["transformerlayers"]["attn_cfgs"][0]["num_bev_queue"]
    if layers["short"] != layers["long"] or read != 1:
        raise ValueError(f"branches of {layers} layers, the short one of {read} frames: not a decoder of MIM4D's")
    _, channels, heights, *_ = oracle.array("inputs/volume0").shape
    reads = len(state["decoder_short.layers.0.attentions.0.attention_weights.bias"])
    return TemporalSpec(
        (config["bev_h"], config["bev_w"]),
        channels=channels,
        heights=heights,
        frames=config["num_adj"],
        width=config["embed_dims"],
        reduction=config["reduction"],
        short_heads=heads["short"],
        long_heads=heads["long"],
        layers=layers["short"],
        points=reads // heads["short"],
        short_ffn=ffn["short"],
        long_ffn=ffn["long"],
    )


def decoder(oracle: Oracle) -> Iterator[Output]:
    net = TemporalDecoder(spec_of(oracle)).eval()
    net.load_state_dict(temporal_from_released(oracle.state()))
    names = sorted(oracle.below("inputs/volume"), key=int)
    volumes = torch.stack([oracle[f"inputs/volume{name}"] for name in names], 1).requires_grad_()
    inside = {"proj": net.proj, "input_proj": net.narrow, "attention": net.long.layers[0].attention}
    with recorded(inside | {"long": net.long, "short": net.short}) as seen:
        out = net(volumes)
    yield Output("inter/proj", seen["proj"], LAYER)
    yield Output("inter/input_proj", seen["input_proj"].flatten(0, 1).flatten(1, 2), LAYER)
    yield Output("inter/long_attn0", net.long.queries + seen["attention"], LAYER)
    yield Output("inter/long", seen["long"], LAYER)
    yield Output("inter/short", seen["short"], LAYER)
    yield Output("out/volume", out, VOLUME)

    loss = (out * oracle["grad/weight"]).mean()
    yield Output("grad/loss", loss, Tolerance(1e-7, relative=1e-5, bf16=0.3))  # a sum that cancels
    loss.backward()
    for name, gradient in zip(names, volumes.grad.unbind(1)):
        key = f"grad/volume{name}"
        yield Output(f"{key}_sub", gradient[:, ::4], Tolerance(of_max=GRADIENTS, bf16=0.2))
        yield Output(f"{key}_norm", gradient.norm(), Tolerance(relative=GRADIENTS, bf16=BF16_GRADIENTS))
    gradients = {released_name(TEMPORAL + name): parameter.grad for name, parameter in net.named_parameters()}
    yield from norms(oracle, "gradnorm/", gradients, GRADIENTS, BF16_GRADIENTS)


def shift(oracle: Oracle) -> Iterator[Output]:
    """The original's warp of the first volume to the key frame: metres for voxel indices."""
    key, other = oracle["shift/ego2global"].double() @ oracle["shift/lidar2ego"].double()
    moved = warp_indices(oracle["inputs/volume0"], (inverse(other) @ key)[None])
    yield Output("shift/volume_key", moved, WARPED)


KINDS = (
    Kind(
        "mim4d_temporal",
        ("inputs/volume0", "out/volume"),
        ("sd/*", "inputs/*", "grad/weight", "shift/lidar2ego", "shift/ego2global"),
        (decoder, shift),
    ),
)
