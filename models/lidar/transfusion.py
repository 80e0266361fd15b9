"""TransFusion (arXiv 2203.11496), the detection head of the BEVFusion teacher.

The highest peaks of a heatmap become queries; a transformer decoder lets them look at each other and at the whole map;
each then says one box. Maps are [C, X, Y]: cell (x, y) is number x * Y + y, its position (x + 0.5, y + 0.5).

Module names are MIT's where they can be, so that loading a published head is a small renaming (`checkpoint.py`).

Shape legend: B samples, W width, C classes, Q queries, N = X * Y cells.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.boxes import Boxes
from models.center_head import HEATMAP_BIAS
from models.initialise import kaiming_init
from models.lidar.box_code import PARTS, BoxCoder, Convention
from models.lidar.transfusion_loss import heatmap_loss, query_loss
from models.names import CLASSES

# Every cell of these classes' heatmaps may become a query, not only the highest of its neighbourhood.
SMALL_CLASSES = (CLASSES.index("pedestrian"), CLASSES.index("traffic_cone"))

# How far beyond the map (m) boxes are kept along x and y, and how far from zero along z: the published limits.
KEEP_MARGIN, KEEP_HEIGHT = 7.2, 10.0

_BRANCH_WIDTH = 64  # of the two convolutions behind each part of a prediction, whatever the head's width


class Predictions(NamedTuple):
    """What the head says, raw. `layers`: of each decoder layer (the last one counts) the parts of a box code
    (B, part's length, Q) and `heatmap`, the class logits (B, C, Q)."""

    heatmap: Tensor  # (B, C, X, Y) logits
    query_labels: Tensor  # (B, Q) int64
    query_positions: Tensor  # (B, Q, 2) in cells
    query_heat: Tensor  # (B, C, Q) probability of the heatmap at the query's cell; zero where it is no peak
    layers: list[dict[str, Tensor]]


class TransFusionHead(nn.Module):
    """Boxes of a bird's-eye-view map.

    range: x, y, z minimum then maximum (m) in the map's frame; cell_size: of the map, along x and y (m).
    num_classes: labels are positions in names.CLASSES. queries: boxes a sample. decoder_layers: published 1.
    peak_size: cells, odd; a query is the highest in a square of this side, except among `small_classes`.
    keep_range: like range, boxes beyond it are not predicted; None for the published margins.
    gaussian_overlap, min_radius (cells): how wide a centre is drawn into the heatmap's target.
    convention: what the weights say; a loaded checkpoint sets it.
    """

    def __init__(
        self,
        in_channels: int,
        range: Sequence[float],
        cell_size: tuple[float, float],
        num_classes: int = len(CLASSES),
        queries: int = 200,
        width: int = 128,
        heads: int = 8,
        ffn_width: int = 256,
        decoder_layers: int = 1,
        dropout: float = 0.1,
        peak_size: int = 3,
        small_classes: Sequence[int] = SMALL_CLASSES,
        score_threshold: float = 0.0,
        keep_range: Sequence[float] | None = None,
        gaussian_overlap: float = 0.1,
        min_radius: int = 2,
        convention: Convention = Convention.MMDET3D,
    ):
        super().__init__()
        self.low, self.high, self.cell_size = np.array(range[:3]), np.array(range[3:]), cell_size
        self.num_classes, self.queries, self.peak_size = num_classes, queries, peak_size
        self.small_classes = [c for c in small_classes if c < num_classes]
        self.score_threshold = score_threshold
        margin = np.array([KEEP_MARGIN, KEEP_MARGIN])
        published = [*(self.low[:2] - margin), -KEEP_HEIGHT, *(self.high[:2] + margin), KEEP_HEIGHT]
        self.keep_range = np.array(published if keep_range is None else keep_range)
        self.gaussian_overlap, self.min_radius = gaussian_overlap, min_radius
        self.convention = convention

        self.shared_conv = nn.Conv2d(in_channels, width, 3, padding=1)
        self.heatmap_head = nn.Sequential(
            _conv_norm_relu(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)),
            nn.Conv2d(width, num_classes, 3, padding=1),
        )
        self.class_encoding = nn.Conv1d(num_classes, width, 1)
        self.decoder = nn.ModuleList(DecoderLayer(width, heads, ffn_width, dropout) for _ in np.arange(decoder_layers))
        sizes = PARTS | {"heatmap": num_classes}
        self.prediction_heads = nn.ModuleList(
            nn.ModuleDict({name: _branch(width, size) for name, size in sizes.items()}) for _ in self.decoder
        )
        self._initialise()

    def _initialise(self) -> None:
        kaiming_init(self)
        for parameter in self.decoder.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        for scores in (self.heatmap_head[-1], *(branches["heatmap"][-1] for branches in self.prediction_heads)):
            # Scores begin at the bias's 0.1 everywhere; the published heads forgot it, and their first losses explode.
            nn.init.normal_(scores.weight, std=0.01)
            nn.init.constant_(scores.bias, HEATMAP_BIAS)

    @property
    def coder(self) -> BoxCoder:
        return BoxCoder(tuple(self.low[:2]), self.cell_size, self.convention)

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
        encoding = self.class_encoding(F.one_hot(labels, self.num_classes).transpose(1, 2).to(weight.dtype))
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
        highest = F.pad(F.max_pool2d(heat, self.peak_size, stride=1), [self.peak_size // 2] * 4)
        highest[:, self.small_classes] = heat[:, self.small_classes]
        peaks = (heat * (heat == highest)).flatten(2)  # (B, C, N)
        best = peaks.flatten(1).topk(self.queries).indices
        labels, cells = best // peaks.shape[2], best % peaks.shape[2]
        return labels, cells, peaks.gather(2, cells[:, None].expand(-1, self.num_classes, -1))

    def loss(self, predictions: Predictions, boxes: Sequence[Boxes]) -> dict[str, Tensor]:
        """Focal losses of the heatmap and of the queries' classes, and L1 of their boxes, summed over decoder layers.

        boxes: the truth of each sample in the map's frame; classes the head does not have and boxes centred outside the
        range are left out; an unknown velocity (NaN) is not learnt from.
        """
        truth = [self._learnable(b) for b in boxes]
        heatmap = heatmap_loss(predictions.heatmap.float(), truth, self.coder, self.gaussian_overlap, self.min_radius)
        extent = self.high[:2] - self.low[:2]
        of_layers = [
            query_loss(_codes(said), said["heatmap"].transpose(1, 2).float(), truth, self.coder, extent)
            for said in predictions.layers
        ]
        classes, box = (sum(terms) for terms in zip(*of_layers))
        return {"heatmap": heatmap, "class": classes, "box": box}

    @torch.no_grad()
    def predict(self, predictions: Predictions) -> list[Boxes]:
        """Boxes of each sample: centres of gravity, scores, velocities (m/s in the map's frame), best first."""
        said = predictions.layers[-1]
        own_class = F.one_hot(predictions.query_labels, self.num_classes).transpose(1, 2)
        scores, labels = (said["heatmap"].float().sigmoid() * predictions.query_heat * own_class).max(1)
        found = []
        for codes, own_labels, own_scores in zip(*(t.cpu().numpy() for t in (_codes(said), labels, scores))):
            boxes = self.coder.decode(codes, own_labels, own_scores.astype(np.float64))
            # As published, z is tested half a box below the height that was said, whatever that means.
            places = np.c_[boxes.centers[:, :2], codes[:, 2] - boxes.sizes[:, 2] / 2]
            kept = ((places >= self.keep_range[:3]) & (places <= self.keep_range[3:])).all(1)
            boxes = boxes[kept & (boxes.scores >= self.score_threshold)]
            found.append(boxes[np.argsort(-boxes.scores, kind="stable")])
        return found

    def _learnable(self, boxes: Boxes) -> Boxes:
        inside = boxes.centred_in(self.low[:2], self.high[:2])
        return boxes[inside & (boxes.labels >= 0) & (boxes.labels < self.num_classes) & (boxes.sizes > 0).all(1)]


class DecoderLayer(nn.Module):
    """Queries attend to each other, then to the map, then pass a two-layer network; normalised after each.

    Unlike in DETR, positions are added to the values too.
    """

    def __init__(self, width: int, heads: int, ffn_width: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, ffn_width), nn.Linear(ffn_width, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.self_posembed, self.cross_posembed = PositionEmbedding(width), PositionEmbedding(width)
        self.dropout = nn.Dropout(dropout)

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

    def __init__(self, width: int):
        super().__init__()
        self.position_embedding_head = nn.Sequential(
            nn.Conv1d(2, width, 1), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Conv1d(width, width, 1)
        )

    def forward(self, positions: Tensor) -> Tensor:
        return self.position_embedding_head(positions.transpose(1, 2)).transpose(1, 2)


def _branch(width: int, size: int) -> nn.Sequential:
    hidden = nn.Conv1d(width, _BRANCH_WIDTH, 1, bias=False)
    return nn.Sequential(_conv_norm_relu(hidden, nn.BatchNorm1d(_BRANCH_WIDTH)), nn.Conv1d(_BRANCH_WIDTH, size, 1))


def _conv_norm_relu(conv: nn.Module, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=conv, bn=norm, activate=nn.ReLU(inplace=True)))


def _codes(said: dict[str, Tensor]) -> Tensor:
    """Box codes (B, Q, 10) of a decoder layer's predictions."""
    return torch.cat([said[part] for part in PARTS], 1).transpose(1, 2).float()
