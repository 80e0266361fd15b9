"""An artifact's samples as the page lists them, and how many boxes of each were missed and are false."""

import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.misses import misses
from gallery.look import Gallery
from gallery.opened import Opened

LOWEST_SCORE = 0.05  # of a predicted box that the page can show
TURN = 0.25  # s: how long one request counts


def sample_table(opened: Opened) -> dict[str, Any]:
    """The samples by column: rows of the index, tokens, places in `scenes`, annotated boxes.

    scenes: name, split, its first sample's place in this table and how many it has here.
    """
    index, rows = opened.index, opened.samples
    numbers, firsts, counts = np.unique(index.scene[rows], return_index=True, return_counts=True)
    order = np.argsort(firsts)
    scenes = [
        [str(index.scene_name[number]), str(index.split[rows[first]]), int(first), int(count)]
        for number, first, count in zip(numbers[order], firsts[order], counts[order])
    ]
    return {
        "rows": rows.tolist(),
        "tokens": [str(token) for token in index.token[rows]],
        "scenes": scenes,
        "boxes": np.diff(index.box_offsets)[rows].tolist(),
    }


@dataclass(frozen=True)
class _Fate:
    """What became of a sample's predicted boxes that score LOWEST_SCORE or more; scores ascend."""

    true: int  # annotated boxes
    correct: np.ndarray
    false: np.ndarray


class Tally:
    """Missed, false and right boxes of all samples, at any score: counted a little with each request that asks.

    The better a box scores, the earlier it is matched (`evaluation.misses`), so what is above a score was matched as if
    there were nothing below it: one matching does for all scores. Safe to use from threads.
    """

    def __init__(self, gallery: Gallery):
        self._gallery = gallery
        self._fates: list[_Fate] = []
        self._lock = threading.Lock()

    def at(self, score: float) -> dict[str, Any]:
        """Of the samples counted so far, in the table's order: missed, false, right. `of`: how many there are."""
        rows = self._gallery.opened.samples
        with self._lock:
            end = time.monotonic() + TURN
            while len(self._fates) < len(rows) and time.monotonic() < end:
                self._fates.append(self._fate(int(rows[len(self._fates)])))
        fates = self._fates[:]
        right = [len(fate.correct) - int(np.searchsorted(fate.correct, score)) for fate in fates]
        return {
            "of": len(rows),
            "right": right,
            "missed": [fate.true - found for fate, found in zip(fates, right)],
            "false": [len(fate.false) - int(np.searchsorted(fate.false, score)) for fate in fates],
        }

    def _fate(self, sample: int) -> _Fate:
        told = misses(self._gallery.opened.index, sample, self._gallery.predictions(sample), LOWEST_SCORE, always=0)
        true = len(told.detected) + len(told.missed)
        return _Fate(true, np.sort(told.correct.required_scores), np.sort(told.false.required_scores))
