"""The temporal decoder sees the frames that are there, each sample for itself, and nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.mim4d.temporal import TemporalDecoder, TemporalSpec, sine_positions

SPEC = TemporalSpec((4, 3), channels=3, heights=2, frames=3, width=16, short_ffn=12, long_ffn=8)
VOLUME = 3, 2, 4, 3


def a_decoder(spec: TemporalSpec = SPEC) -> TemporalDecoder:
    """Every weight is random, but for the norms': about 1 and 0."""
    torch.manual_seed(0)
    decoder = TemporalDecoder(spec)
    for name, parameter in decoder.named_parameters():
        about = 1.0 if parameter.ndim == 1 and name.endswith("weight") else 0.0
        torch.nn.init.normal_(parameter, about, 0.3)
    return decoder.eval()


def written_out(decoder: TemporalDecoder, volumes: list[torch.Tensor]) -> torch.Tensor:
    """One sample's volume (C, Z, Y, X) of its frames' (C, Z, Y, X): layer after layer, of the attention's own code."""
    spec = decoder.spec

    def normal(x: torch.Tensor, norm: torch.nn.LayerNorm) -> torch.Tensor:
        """Over the last axis."""
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        return x * norm.weight + norm.bias

    def branch(part, frames: list[torch.Tensor]) -> torch.Tensor:
        queries = part.queries
        positions = sine_positions(spec.shape, queries.shape[-1])
        values, shares = torch.stack(frames)[None], torch.full((1, len(frames)), 1 / len(frames))
        for layer in part.layers:
            read = layer.attention((queries + positions)[None], values, shares)[0]
            queries = normal(queries + read, layer.norm1)
            queries = normal(queries + layer.fc2(torch.relu(layer.fc1(queries))), layer.norm2)
        return queries

    assert decoder.proj[1].eps == decoder.out[1].eps == 1e-6
    values = []
    for frame, volume in enumerate(volumes):
        folded = torch.stack([volume[c, z] for c in range(spec.channels) for z in range(spec.heights)], -1)
        flat = normal(folded @ decoder.proj[0].weight[:, :, 0, 0].T, decoder.proj[1])  # (Y, X, width)
        values.append(flat + decoder.frame_embeds[frame])
    short = branch(decoder.short, values[:1])
    long = branch(decoder.long, [normal(decoder.narrow[0](value), decoder.narrow[1]) for value in values])
    both = torch.cat([short, long], -1).view(*spec.shape, -1)
    out = torch.nn.functional.conv2d(both.permute(2, 0, 1)[None], decoder.out[0].weight, padding=1)[0]
    out = normal(out.permute(1, 2, 0), decoder.out[1])
    return torch.stack(
        [torch.stack([out[..., c * spec.heights + z] for z in range(spec.heights)]) for c in range(spec.channels)]
    )


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        TemporalSpec((2, 5), channels=2, heights=1, frames=1, width=24, reduction=3, short_heads=3, long_heads=1),
        TemporalSpec((3, 3), channels=1, heights=3, frames=2, width=8, reduction=1, layers=3, points=2, short_ffn=3),
    ],
    ids=["usual", "thin", "other"],
)
@torch.no_grad()
def test_layer_by_layer(spec):
    decoder = a_decoder(spec)
    for frames in range(1, spec.frames + 1):
        volumes = torch.randn(2, frames, spec.channels, spec.heights, *spec.shape)
        found = decoder(volumes)
        for sample in range(2):
            wanted = written_out(decoder, list(volumes[sample]))
            torch.testing.assert_close(found[sample], wanted, atol=2e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=3), st.sampled_from((0.0, -7.0, 1e30, 3e38)))
@torch.no_grad()
def test_a_ragged_batch_is_its_samples_one_by_one(counts, absent):
    decoder = a_decoder()
    volumes = torch.randn(len(counts), max(counts), *VOLUME)
    present = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    volumes[~present] = absent
    found = decoder(volumes, present)
    for sample, count in enumerate(counts):
        alone = decoder(volumes[sample : sample + 1, :count])
        torch.testing.assert_close(found[sample], alone[0], atol=2e-5, rtol=0)


def test_all_present_is_the_same_as_none_given():
    decoder, volumes = a_decoder(), torch.randn(2, 3, *VOLUME)
    assert torch.equal(decoder(volumes), decoder(volumes, torch.ones(2, 3, dtype=torch.bool)))


@pytest.mark.parametrize("absent", [0.0, 5.0, 1e30])
def test_what_is_absent_has_no_influence(absent):
    """Neither on the volume nor on any gradient, and gets none."""
    decoder = a_decoder()
    present = torch.tensor([[True, True, False], [True, False, False]])
    weight, seen = torch.randn(2, *VOLUME), torch.randn(2, 3, *VOLUME)
    results = []
    for value in (0.0, absent):
        volumes = torch.where(present[:, :, None, None, None, None], seen, value).requires_grad_()
        decoder.zero_grad()
        out = decoder(volumes, present)
        (out * weight).sum().backward()
        results.append([out.detach(), volumes.grad, *(p.grad.clone() for p in decoder.parameters())])
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    gradient = results[1][1]
    assert not gradient[~present].any()
    assert all(gradient[b, f].any() for b, f in present.nonzero())
    assert not decoder.frame_embeds.grad[2:].any()  # of list positions that no sample has
    assert decoder.frame_embeds.grad[:2].any(1).all()


def test_the_short_branch_takes_the_first_of_the_list():
    decoder, volumes = a_decoder(), torch.randn(1, 3, *VOLUME)
    with torch.no_grad():  # nothing of the long branch comes out
        decoder.out[0].weight[:, SPEC.width :] = 0
    volumes.requires_grad_()
    decoder(volumes).square().sum().backward()
    assert volumes.grad[:, 0].any()
    assert not volumes.grad[:, 1:].any()


def test_a_sample_without_frames_is_finite():
    decoder, volumes = a_decoder(), torch.randn(2, 2, *VOLUME, requires_grad=True)
    present = torch.tensor([[False, False], [True, True]])
    out = decoder(volumes, present)
    assert out.isfinite().all()
    torch.testing.assert_close(out[1], decoder(volumes[1:])[0], atol=1e-5, rtol=0)
    out[1].square().sum().backward()
    assert not volumes.grad[0].any()
    assert all(parameter.grad.isfinite().all() for parameter in decoder.parameters())


@torch.no_grad()
def test_a_batch_of_two_is_two_of_one():
    decoder, volumes = a_decoder(), torch.randn(2, 3, *VOLUME)
    both = decoder(volumes)
    for sample in range(2):
        torch.testing.assert_close(both[sample], decoder(volumes[sample : sample + 1])[0], atol=1e-5, rtol=0)


@torch.no_grad()
def test_under_autocast_it_is_nearly_the_same():
    decoder, volumes = a_decoder(), torch.randn(1, 2, *VOLUME)
    wanted = decoder(volumes)
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder(volumes).float()
    assert (found - wanted).norm() < 0.03 * wanted.norm()


def test_positions_of_cells():
    """Row by row: sines and cosines of how far down, then of how far to the right, slower and slower."""
    positions = sine_positions((2, 3), 8)
    row, column, full = 1, 2, 2 * math.pi
    place = positions[row * 3 + column]
    down, right = full * 2 / (2 + 1e-6), full * 3 / (3 + 1e-6)
    wanted = [f(angle / period) for angle in (down, right) for period in (1, 100) for f in (math.sin, math.cos)]
    torch.testing.assert_close(place, torch.tensor(wanted), atol=1e-6, rtol=0)
    assert positions.shape == (6, 8)
    assert torch.equal(positions[0, :4], positions[2, :4])
    assert torch.equal(positions[1, 4:], positions[4, 4:])


def test_what_does_not_fit_is_refused():
    decoder = a_decoder()
    with pytest.raises(ValueError, match="volumes has the shape"):
        decoder(torch.zeros(1, 2, 3, 2, 3, 4))
    with pytest.raises(ValueError, match="present has the shape"):
        decoder(torch.zeros(1, 2, *VOLUME), torch.ones(1, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match="volumes has 4 frames: this decoder is of 1 to 3"):
        decoder(torch.zeros(1, 4, *VOLUME))
    with pytest.raises(ValueError, match="3 does not divide"):
        TemporalSpec((4, 3), reduction=3)
    with pytest.raises(ValueError, match="short branch has 30 channels"):
        TemporalSpec((4, 3), width=30)
    with pytest.raises(ValueError, match=r"long branch has 64 channels.*its 3 heads"):
        TemporalSpec((4, 3), long_heads=3)
