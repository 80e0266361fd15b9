"""What a stage that learns hands to the training loop: its data, and what of it a step minimises."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

import torch
from torch import Tensor, nn


class Batch(Protocol):
    """A rank's share of a micro-batch."""

    @property
    def tokens(self) -> Sequence[str]:
        """Of the samples that are in it."""
        ...

    def to(self, device: torch.device) -> Self:
        """The same with its tensors on a device."""
        ...

    def pinned(self) -> Self:
        """The same in page-locked memory: from there `to` copies to a GPU while both go on computing."""
        ...


class Term(NamedTuple):
    """A part of the loss: `weight` times the mean () over what a batch has to learn from, cells or boxes or peaks."""

    name: str
    weight: float
    mean: Tensor


AnyBatch = TypeVar("AnyBatch", bound=Batch)


class Task(Protocol[AnyBatch]):
    """What is learnt. The loss of a step is that of all ranks' samples taken together, in however many parts.

    `counts` and not a count beside each mean, because the parts' weights must be known before the first backward pass:
    else the graphs of all micro-batches would have to be kept until the last one's forward pass.
    """

    network: nn.Module  # what `terms` calls: on several ranks `ranks.distribute` of the model

    def load(self, step: int) -> Sequence[AnyBatch]:
        """This rank's share of each micro-batch of a step. Called by threads, ahead of time and in any order."""
        ...

    def counts(self, batch: AnyBatch) -> dict[str, Tensor]:
        """By how many the sum of each term was divided, from targets alone; a term that is not named has equally many
        in every part."""
        ...

    def terms(self, batch: AnyBatch) -> list[Term]:
        """The loss of a batch on the model's device."""
        ...

    def evaluate(self, steps: int) -> dict[str, float]:
        """What is measured after so many steps; on rank 0 alone."""
        ...
