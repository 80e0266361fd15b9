"""What a detector's bird's-eye-view map is finetuned for, `finetune.task`: all in which the three goals differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from batches.detector import Truth
from models.boxes import Boxes
from models.head import Head
from storage.index import Index
from tasks.finetune.config import EvaluateConfig, FinetuneConfig


class SampleResult(NamedTuple):
    """What a detector predicts of a sample, and the truth."""

    sample: int  # row of the index
    predicted: Any  # the head's; a map as an array
    truth: tuple[np.ndarray, ...]  # of `Goal.truth`, without the batch dimension


class Goal(Protocol):
    """One of them, for one dataset. All ranks call `collected`, with samples of their own; rank 0 alone calls the rest.

    Class attributes: `scores`, the figures of an evaluation that a summary shows, best first; `listing`, the JSON that
    lists the pictures; `title` of the report.
    """

    scores: tuple[str, ...]
    listing: str
    title: str

    def __init__(self, config: FinetuneConfig, index: Index, dataroot: Path, evaluate: EvaluateConfig): ...

    @staticmethod
    def head(config: FinetuneConfig, evaluate: EvaluateConfig) -> Head:
        """What makes predictions of the map (B, bev_width, Y, X), as `evaluate` says which of them count."""
        ...

    @staticmethod
    def split(index: Index) -> str:
        """The split to predict: "val", or another where that has nothing."""
        ...

    @staticmethod
    def unscored(index: Index) -> str:
        """What to say where that split has no ground truth."""
        ...

    def truth(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        """What a sample's predictions are compared with beside its boxes; scene (4, 4): ego -> augmented ego.

        boxes: the sample's, in the augmented ego frame.
        """
        ...

    def learnt(self, sample: int, scene: np.ndarray, boxes: Boxes) -> Truth:
        """The same of a sample that is trained on: what `loss` and `counts` take."""
        ...

    @staticmethod
    def loss(head: Any, predictions: Any, learnt: Truth) -> dict[str, Tensor]:
        """The terms to minimise, each a mean over what there is to learn from. head: of the kind that `head` makes."""
        ...

    @staticmethod
    def counts(head: Any, learnt: Truth) -> dict[str, Tensor]:
        """By how many the sum of each term of `loss` was divided."""
        ...

    def collected(self, results: Iterator[SampleResult]) -> Any:
        """What `evaluate` and `draw` need of all ranks' samples."""
        ...

    def evaluate(self, collected: Any, folder: Path) -> dict | None:
        """The scores; None where there is no truth. Other results go into `folder`."""
        ...

    def draw(self, collected: Any, folder: Path) -> None:
        """Write pictures of the worst samples, at most `evaluate.pictures`, and `listing`."""
        ...

    @staticmethod
    def table(result: dict) -> str:
        """An arm's scores in Markdown."""
        ...

    @staticmethod
    def pictured(entry: Mapping[str, Any]) -> dict[str, str]:
        """What the report says of a picture beside its sample: column -> text."""
        ...
