"""IoU of bird's-eye-view segmentation, at one threshold and at the best of some, and by distance.

LSS and CVT take a probability of 0.5 for a yes; BEVFusion (arXiv 2205.13542) the best threshold of a layer.
"""

import numpy as np

from models.names import BEV_LAYERS

THRESHOLDS = (0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65)
RINGS = ((0, 20), (20, 35), (35, np.inf))  # m from the ego


class SegmentationScore:
    """Counts over all samples. The grid is square, x and y in +- `bev_range` m in cells of `bev_cell` m."""

    def __init__(self, bev_range: float, bev_cell: float):
        middles = np.arange(-bev_range + bev_cell / 2, bev_range, bev_cell)
        distance = np.hypot(*np.meshgrid(middles, middles))
        self._rings = [(low <= distance) & (distance < high) for low, high in RINGS]
        self.samples = 0
        self.counts = np.zeros((len(BEV_LAYERS), len(THRESHOLDS), len(RINGS), 2), np.int64)  # intersection, union

    def add(self, probabilities: np.ndarray, masks: np.ndarray) -> None:
        """probabilities (L, Y, X) and masks (L, Y, X) bool of one sample."""
        for layer, (probability, mask) in enumerate(zip(probabilities, masks)):
            for place, threshold in enumerate(THRESHOLDS):
                positive = probability >= threshold
                both, either = positive & mask, positive | mask
                for ring, inside in enumerate(self._rings):
                    self.counts[layer, place, ring] += (both & inside).sum(), (either & inside).sum()
        self.samples += 1

    def result(self) -> dict:
        """`mIoU` over the layers at 0.5, and of each layer `IoU` at 0.5, `IoU@max` and its threshold, and the rings'.

        None where nothing is there and nothing predicted.
        """
        middle = THRESHOLDS.index(0.5)
        layers = {}
        for name, counts in zip(BEV_LAYERS, self.counts):
            values = [_ratio(*c) for c in counts.sum(1)]
            defined = [value for value in values if value is not None]
            best = max(defined) if defined else None
            layers[name] = {
                "IoU": values[middle],
                "IoU@max": best,
                "threshold": None if best is None else THRESHOLDS[values.index(best)],
                **{_ring_name(ring): _ratio(*counts[middle, i]) for i, ring in enumerate(RINGS)},
            }
        counted = [layer["IoU"] for layer in layers.values() if layer["IoU"] is not None]
        return {"samples": self.samples, "mIoU": float(np.mean(counted)) if counted else None, "layers": layers}


def _ring_name(ring: tuple[float, float]) -> str:
    low, high = ring
    return f"IoU beyond {low} m" if np.isinf(high) else f"IoU {low}-{high} m"


def _ratio(part: int, total: int) -> float | None:
    return float(part / total) if total else None
