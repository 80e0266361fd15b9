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

_KEY = re.compile(rb'"([^"\\]{1,64})"\s*:\s*\[\s*(?=[{\]])')  # a sample's token and the beginning of its boxes
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
        try:
            with open(self.path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
                return {match[1].decode(): match.end() for match in _KEY.finditer(text)}
        except (OSError, ValueError) as error:
            raise DataError(f"{self.path}: cannot be read ({error})") from None


def _list(text: mmap.mmap, start: int) -> list[dict]:
    if text[start : start + 1] == b"]":
        return []
    end = _END.search(text, start)
    return orjson.loads(b"[" + text[start : end.end() if end else len(text)])
