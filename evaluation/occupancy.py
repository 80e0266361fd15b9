"""mIoU of occupancy as Occ3D computes it (arXiv 2304.14365)."""

import numpy as np

from models.names import FREE, OCCUPANCY_CLASSES


class OccupancyScore:
    """One histogram over the voxels in camera view of all samples."""

    def __init__(self) -> None:
        self.samples = 0
        self.counts = np.zeros((len(OCCUPANCY_CLASSES),) * 2, np.int64)  # [true, predicted]

    def add(self, predicted: np.ndarray, labels: np.ndarray, visible: np.ndarray) -> None:
        """Predicted and true labels (X, Y, Z) of a sample, and which voxels are in view, bool."""
        count = len(OCCUPANCY_CLASSES)
        pairs = labels[visible].astype(np.int64) * count + predicted[visible]
        self.counts += np.bincount(pairs, minlength=count * count).reshape(count, count)
        self.samples += 1

    def result(self) -> dict:
        """`mIoU`, the mean over the classes but `free`; `IoU` of occupied against free; and each class's.

        A class that is neither there nor predicted has None, and no part in the mean.
        """
        hits = np.diag(self.counts)
        truths, predictions = self.counts.sum(1), self.counts.sum(0)
        each = [_ratio(hit, a + b - hit) for hit, a, b in zip(hits, truths, predictions)]
        counted = [value for value in each[:FREE] if value is not None]
        total = int(self.counts.sum())
        right_occupied = total - truths[FREE] - predictions[FREE] + hits[FREE]
        return {
            "samples": self.samples,
            "mIoU": float(np.mean(counted)) if counted else None,
            "IoU": _ratio(right_occupied, total - hits[FREE]),
            "classes": {
                name: {"IoU": value, "voxels": int(n)} for name, value, n in zip(OCCUPANCY_CLASSES, each, truths)
            },
        }


def _ratio(part: int, total: int) -> float | None:
    return float(part / total) if total else None
