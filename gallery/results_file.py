"""The boxes of single samples out of a results file, however big: it is searched, never parsed as a whole."""

import mmap
import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson

from common.errors import DataError
from models.boxes import Boxes
from models.geometry import inverse
from models.names import CLASSES
from storage.index import Index

_LIST = re.compile(rb"\[\s*(?=[{\]])")  # a sample's boxes begin: all other lists are of numbers
_KEY = re.compile(rb'"([^"\\]{1,64})"\s*:\s*$')  # its token, before that
_BEFORE = 512  # bytes in which the two are, blanks included
_PIECE = 1 << 24  # bytes of the file that are searched at a time
_END = re.compile(rb"\}\s*\]")
VECTORS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}  # fields of a box and how long they are
_NUMBER = {name: number for number, name in enumerate(CLASSES)}


class ResultsFile:
    """A file in nuScenes' detection format. Raises DataError where it is not what was written."""

    def __init__(self, path: Path):
        self.path = path

    def __contains__(self, token: str) -> bool:
        return token in self._places

    def __len__(self) -> int:
        return len(self._places)

    def boxes(self, index: Index, sample: int) -> Boxes:
        """A sample's boxes in its LIDAR_TOP frame, with scores, in the file's order. Raises KeyError."""
        start = self._places[str(index.token[sample])]
        try:
            with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                records = _list(text, start)
            if not records:
                return replace(Boxes.empty(), scores=np.zeros(0))
            vectors = {name: np.reshape([r[name] for r in records], (len(records), n)) for name, n in VECTORS.items()}
            boxes = Boxes.from_nuscenes(
                vectors["translation"],
                vectors["size"],
                vectors["rotation"],
                vectors["velocity"],
                [_NUMBER[record["detection_name"]] for record in records],
                [record["detection_score"] for record in records],
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.path}: sample {index.token[sample]} cannot be read ({error!r})") from None
        return boxes.moved(inverse(index.lidar_to_global(sample)))

    @cached_property
    def _places(self) -> dict[str, int]:
        """Token -> where its list begins."""
        out: dict[str, int] = {}
        try:
            with open(self.path, "rb") as file:
                place, kept = 0, b""  # of the piece in the file; the end of the one before, for what lies across
                while piece := file.read(_PIECE):
                    text, before = kept + piece, place - len(kept)
                    for match in _LIST.finditer(text):
                        if key := _KEY.search(text, max(0, match.start() - _BEFORE), match.start()):
                            out[key[1].decode()] = before + match.end()
                    place, kept = place + len(piece), text[-2 * _BEFORE :]
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from None
        return out


def _list(text: mmap.mmap, start: int) -> list[dict]:
    if text[start : start + 1] == b"]":
        return []
    end = _END.search(text, start)
    return orjson.loads(b"[" + text[start : end.end() if end else len(text)])
