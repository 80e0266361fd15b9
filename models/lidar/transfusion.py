"""TransFusion (arXiv 2203.11496), the detection head of the BEVFusion teacher.

The highest peaks of a heatmap become queries; a transformer decoder lets them look at each other and at the whole map;
each then says one box. Maps are [C, X, Y]: cell (x, y) is number x * Y + y, its position (x + 0.5, y + 0.5).

Module names are MIT's where they can be, so that loading a published head is a small renaming (`checkpoint.py`).

Shape legend: B samples, W width, C classes, Q queries, N = X * Y cells.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.boxes import Boxes
from models.center_spec import kept_range
from models.focal_loss import heatmap_loss
from models.initialise import init_scores, kaiming_init
from models.layers import ModuleList
from models.lidar.box_code import PARTS, BoxCoder, Convention
from models.lidar.transfusion_loss import draw_heatmap, query_loss
from models.names import CLASSES
from models.norm import LIKE_TORCH, Norm

# Every cell of these classes' heatmaps may become a query, not only the highest of its neighbourhood.
SMALL_CLASSES = (CLASSES.index("pedestrian"), CLASSES.index("traffic_cone"))

# How far beyond the map (m) boxes are kept along x and y, and how far from zero along z: the published limits.
KEEP_MARGIN, KEEP_HEIGHT = 7.2, 10.0


class Predictions(NamedTuple):
    """What the head says, raw. `layers`: of each decoder layer (the last one counts) the parts of a box code
    (B, part's length, Q) and `heatmap`, the class logits (B, C, Q)."""

    heatmap: Tensor  # (B, C, X, Y) logits
    query_labels: Tensor  # (B, Q) int64
    query_positions: Tensor  # (B, Q, 2) in cells
    query_heat: Tensor  # (B, C, Q) probability of the heatmap at the query's cell; zero where it is no peak
    layers: list[dict[str, Tensor]]


@dataclass(frozen=True)
class TransFusionSpec:
    """Everything of a TransFusion head but its weights.

    in_channels: of the map. bev_range: x, y, z minimum then maximum (m) in the map's frame; cell_size: of the map,
        along x and y (m).
    num_classes: labels are positions in names.CLASSES. queries: boxes a sample.
    width, heads, ffn_width, decoder_layers (published: 1), dropout: of the transformer.
    branch_width: of the convolutions behind each part of a prediction, whatever the width; branch_depths: how many they
        are, of each of box_code.PARTS and of the class logits.
    peak_size: cells, odd; a query is the highest in a square of this side, except among `small_classes`.
    keep_range: like bev_range, boxes beyond it are not predicted; None for the published margins.
    gaussian_overlap, min_radius (cells): how wide a centre is drawn into the heatmap's target.
    """

    in_channels: int
    bev_range: tuple[float, ...]
    cell_size: tuple[float, float]
    num_classes: int = len(CLASSES)
    queries: int = 200
    width: int = 128
    heads: int = 8
    ffn_width: int = 256
    decoder_layers: int = 1
    dropout: float = 0.1
    branch_width: int = 64
    branch_depths: tuple[int, ...] = (2,) * (len(PARTS) + 1)
    norm: Norm = LIKE_TORCH
    peak_size: int = 3
    small_classes: tuple[int, ...] = SMALL_CLASSES
    score_threshold: float = 0.0
    keep_range: tuple[float, ...] | None = None
    gaussian_overlap: float = 0.1
    min_radius: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"the head's width of {self.width} is no multiple of its {self.heads} attention heads")

    @property
    def kept(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper x, y, z between which boxes are predicted."""
        return kept_range(self.keep_range, self.bev_range, KEEP_MARGIN, KEEP_HEIGHT)


class TransFusionHead(nn.Module):
    """Boxes of a bird's-eye-view map. convention: how the weights say boxes."""

    def __init__(self, spec: TransFusionSpec, convention: Convention = Convention.MMDET3D):
        super().__init__()
        self.spec, self.convention = spec, convention
        self.low, self.high = np.array(spec.bev_range[:3]), np.array(spec.bev_range[3:])
        self.small_classes = [c for c in spec.small_classes if c < spec.num_classes]

        width, norm = spec.width, spec.norm
        self.shared_conv = nn.Conv2d(spec.in_channels, width, 3, padding=1)
        self.heatmap_head = nn.Sequential(
            _conv_norm_relu(nn.Conv2d(width, width, 3, padding=1, bias=False), norm.over_maps(width)),
            nn.Conv2d(width, spec.num_classes, 3, padding=1),
        )
        self.class_encoding = nn.Conv1d(spec.num_classes, width, 1)
        self.decoder = ModuleList(DecoderLayer(spec) for _ in range(spec.decoder_layers))
        sizes = PARTS | {"heatmap": spec.num_classes}
        self.prediction_heads = ModuleList(
            nn.ModuleDict(
                {name: _branch(spec, size, depth) for (name, size), depth in zip(sizes.items(), spec.branch_depths)}
            )
            for _ in self.decoder
        )
        self._initialise()

    def _initialise(self) -> None:
        kaiming_init(self)
        for parameter in self.decoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        # The published heads forgot it, and their first losses explode.
        init_scores(self.heatmap_head)
        for branches in self.prediction_heads:
            init_scores(branches["heatmap"])

    @property
    def coder(self) -> BoxCoder:
        return BoxCoder(tuple(self.low[:2]), self.spec.cell_size, self.convention)

    def forward(self, bev: Tensor) -> Predictions:
        """Raw predictions of a map (B, channels, X, Y)."""
        features = self.shared_conv(bev)  # (B, W, X, Y)
        heatmap = self.heatmap_head(features)
        labels, cells, heat = self._proposals(heatmap)

        weight = self.shared_conv.weight  # its type, not the features', which under autocast can't tell cells apart
        x, y = (torch.arange(size, device=weight.device, dtype=weight.dtype) + 0.5 for size in features.shape[2:])
        map_positions = torch.cartesian_prod(x, y)  # (N, 2)
        query_positions = map_positions[cells]  # (B, Q, 2)

        keys = features.flatten(2).transpose(1, 2)  # (B, N, W)
        encoding = self.class_encoding(F.one_hot(labels, self.spec.num_classes).transpose(1, 2).to(weight.dtype))
        query = keys.gather(1, cells[..., None].expand(-1, -1, keys.shape[2])) + encoding.transpose(1, 2)  # (B, Q, W)
        layers, positions = [], query_positions
        for decode, branches in zip(self.decoder, self.prediction_heads):
            query = decode(query, positions, keys, map_positions[None])
            said = {name: branch(query.transpose(1, 2)) for name, branch in branches.items()}
            said["center"] = said["center"] + positions.transpose(1, 2)
            positions = said["center"].detach().transpose(1, 2)
            layers.append(said)
        return Predictions(heatmap, labels, query_positions, heat, layers)

    def _proposals(self, heatmap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Labels and cells (B, Q) of the highest peaks of logits (B, C, X, Y), and the heat there (B, C, Q)."""
        heat = heatmap.detach().float().sigmoid()
        # Padded with zeros: as published, the outermost cells are no peaks.
        side = self.spec.peak_size
        highest = F.pad(F.max_pool2d(heat, side, stride=1), [side // 2] * 4)
        highest[:, self.small_classes] = heat[:, self.small_classes]
        peaks = (heat * (heat == highest)).flatten(2)  # (B, C, N)
        best = peaks.flatten(1).topk(self.spec.queries).indices
        labels, cells = best // peaks.shape[2], best % peaks.shape[2]
        return labels, cells, peaks.gather(2, cells[:, None].expand(-1, self.spec.num_classes, -1))

    def loss(self, predictions: Predictions, boxes: Sequence[Boxes]) -> dict[str, Tensor]:
        """Focal losses of the heatmap and of the queries' classes, and L1 of their boxes, summed over decoder layers.

        boxes: the truth of each sample in the map's frame; classes the head does not have and boxes centred outside the
        range are left out; an unknown velocity (NaN) is not learnt from.
        """
        truth = [self._learnable(b) for b in boxes]
        num_classes, x, y = predictions.heatmap.shape[1:]
        radii = self.spec.gaussian_overlap, self.spec.min_radius
        drawn = np.stack([draw_heatmap(boxes, (num_classes, x, y), self.coder, *radii) for boxes in truth])
        heatmap = heatmap_loss(predictions.heatmap, torch.from_numpy(drawn).to(predictions.heatmap.device))
        extent = self.high[:2] - self.low[:2]
        of_layers = [
            query_loss(_codes(said), said["heatmap"].transpose(1, 2).float(), truth, self.coder, extent)
            for said in predictions.layers
        ]
        classes, box = (sum(terms) for terms in zip(*of_layers))
        return {"heatmap": heatmap, "class": classes, "box": box}

    def counts(self, boxes: Sequence[Boxes]) -> dict[str, Tensor]:
        """By how many the sum of each term of `loss` is divided, at least by 1: centres, boxes with a query."""
        truth, device = [self._learnable(b) for b in boxes], self.shared_conv.weight.device
        centres = {
            (sample, int(label), *cell)
            for sample, b in enumerate(truth)
            for label, cell in zip(b.labels, self.coder.cells(b).astype(int).tolist())
        }
        matched = sum(min(len(b), self.spec.queries) for b in truth)
        counts = {"heatmap": len(centres), "class": matched, "box": matched}
        return {name: torch.tensor(count, device=device) for name, count in counts.items()}

    @torch.no_grad()
    def predict(self, predictions: Predictions) -> list[Boxes]:
        """Boxes of each sample: centres of gravity, scores, velocities (m/s in the map's frame), best first."""
        said = predictions.layers[-1]
        own_class = F.one_hot(predictions.query_labels, self.spec.num_classes).transpose(1, 2)
        scores, labels = (said["heatmap"].float().sigmoid() * predictions.query_heat * own_class).max(1)
        low, high = self.spec.kept
        found = []
        for codes, own_labels, own_scores in zip(*(t.cpu().numpy() for t in (_codes(said), labels, scores))):
            boxes = self.coder.decode(codes, own_labels, own_scores.astype(np.float64))
            # As published, z is tested half a box below the height that was said, whatever that means.
            places = np.c_[boxes.centers[:, :2], codes[:, 2] - boxes.sizes[:, 2] / 2]
            kept = ((places >= low) & (places <= high)).all(1)
            boxes = boxes[kept & (boxes.required_scores >= self.spec.score_threshold)]
            found.append(boxes[boxes.best_first()])
        return found

    def _learnable(self, boxes: Boxes) -> Boxes:
        inside = boxes.centred_in(self.low[:2], self.high[:2])
        return boxes[inside & (boxes.labels >= 0) & (boxes.labels < self.spec.num_classes) & (boxes.sizes > 0).all(1)]


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the map, then pass a two-layer network; normalised after each.

    Unlike in DETR, positions are added to the values too.
    """

    def __init__(self, spec: TransFusionSpec):
        super().__init__()
        width = spec.width
        self.self_attn = nn.MultiheadAttention(width, spec.heads, spec.dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(width, spec.heads, spec.dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, spec.ffn_width), nn.Linear(spec.ffn_width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_posembed, self.cross_posembed = (PositionEmbedding(width, spec.norm) for _ in range(2))
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, query: Tensor, positions: Tensor, keys: Tensor, key_positions: Tensor) -> Tensor:
        """query (B, Q, W) at positions (B, Q, 2), keys (B, N, W) at key_positions (1, N, 2), in cells -> (B, Q, W)."""
        place = self.self_posembed(positions)
        placed = query + place
        attended, _ = self.self_attn(placed, placed, placed, need_weights=False)
        query = self.norm1(query + self.dropout(attended))
        keys = keys + self.cross_posembed(key_positions)
        attended, _ = self.cross_attn(query + place, keys, keys, need_weights=False)
        query = self.norm2(query + self.dropout(attended))
        inner = self.dropout(torch.relu(self.linear1(query)))
        return self.norm3(query + self.dropout(self.linear2(inner)))


class PositionEmbedding(nn.Module):
    """Positions (B, L, 2) -> (B, L, W)."""

    def __init__(self, width: int, norm: Norm):
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Conv1d(2, width, 1), norm.over_rows(width), nn.ReLU(inplace=True), nn.Conv1d(width, width, 1)
        )

    def forward(self, positions: Tensor) -> Tensor:
        return self.position_embedding_head(positions.transpose(1, 2)).transpose(1, 2)


def _branch(spec: TransFusionSpec, size: int, depth: int) -> nn.Sequential:
    widths = [spec.width] + [spec.branch_width] * (depth - 1)
    hidden = (
        _conv_norm_relu(nn.Conv1d(before, after, 1, bias=False), spec.norm.over_rows(after))
        for before, after in pairwise(widths)
    )
    return nn.Sequential(*hidden, nn.Conv1d(widths[-1], size, 1))


def _conv_norm_relu(conv: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, activate=nn.ReLU(inplace=True)))


def _codes(said: dict[str, Tensor]) -> Tensor:
    """Box codes (B, Q, 10) of a decoder layer's predictions."""
    return torch.cat([said[part] for part in PARTS], 1).transpose(1, 2).float()
