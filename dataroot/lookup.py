"""Rows by token, for millions of them at once: a dict of as many Python objects takes ten times the memory."""

import numpy as np

NONE, DANGLING = -1, -2
FACTOR = np.uint64(0x9E3779B97F4A7C15)


class Lookup:
    """The rows of a table by its tokens (rows,), "S"; of equal ones the last."""

    def __init__(self, tokens: np.ndarray):
        self._tokens = tokens
        mixed = hashes(tokens)
        self._order = np.argsort(mixed, kind="stable")
        self._hashes = mixed[self._order]

    def rows(self, wanted: np.ndarray) -> np.ndarray:
        """(n,) int64: the row of each token (n,), NONE of an empty one, DANGLING where there is no such token."""
        if len(self._tokens) == 0 or len(wanted) == 0:
            return np.where(wanted == b"", NONE, DANGLING).astype(np.int64)
        mixed = hashes(wanted)
        order = np.argsort(mixed)  # two sorted lists are gone through side by side, five times as fast as by chance
        place = np.empty(len(wanted), np.int64)
        place[order] = np.maximum(np.searchsorted(self._hashes, mixed[order], "right") - 1, 0)
        row = self._order[place]
        same = self._tokens[row] == wanted
        if (~same & (self._hashes[place] == mixed)).any():  # two tokens of one hash: once in the age of the universe
            return self._slowly(wanted)
        return np.where(wanted == b"", NONE, np.where(same, row, DANGLING))

    def _slowly(self, wanted: np.ndarray) -> np.ndarray:
        """The same by a dict, which is what is meant."""
        row_of = {token: row for row, token in enumerate(self._tokens.tolist())} | {b"": NONE}
        return np.array([row_of.get(token, DANGLING) for token in wanted.tolist()], np.int64)


def all_differ(tokens: np.ndarray) -> bool:
    """Whether no two of tokens (n,), "S", are equal. May say False of some that do differ."""
    mixed = np.sort(hashes(tokens))
    return not (mixed[1:] == mixed[:-1]).any()


def hashes(tokens: np.ndarray) -> np.ndarray:
    """(n,) uint64 of tokens (n,), "S": equal for equal ones, whatever the width of their columns."""
    words = -(-tokens.dtype.itemsize // 8)
    columns = np.ascontiguousarray(tokens.astype(f"S{8 * words}", copy=False)).view(np.uint64).reshape(-1, words)
    out = np.zeros(len(tokens), np.uint64)
    for word in reversed(range(words)):  # words of nothing at the end leave the 0 that it begins with
        out = (out ^ columns[:, word]) * FACTOR
        out ^= out >> np.uint64(29)
    return out
