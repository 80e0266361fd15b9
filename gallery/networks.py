"""What trained networks make of one sample: a pretraining's reconstruction, a detector's predictions.

Here and nowhere else in this room torch is imported; a network is built once and kept.
"""

import tempfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from batches.detector import Batches
from batches.train_split import training_samples
from gallery.opened import Opened, step_of
from models.boxes import Boxes
from tasks.checkpoints import read_tensors
from tasks.engine.stage import Inputs, Step
from tasks.finetune.config import EVALUATE, EvaluateConfig, Evaluation, FinetuneConfig
from tasks.finetune.detect import detect
from tasks.finetune.goals import goal_of
from tasks.finetune.goals.goal import Goal
from tasks.finetune.network import build_detector, build_public, load_detector
from tasks.finetune.run import WEIGHTS
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.samples import spread
from training.device import choose_device

BLIND_SAMPLES = 32  # of train, for the answer that a picture compares the network's with


class Pretrained:
    """The whole network of a finished pretraining."""

    def __init__(self, opened: Opened):
        assert opened.step is not None
        assert isinstance(opened.step.config, PretrainConfig)
        self._opened, self._config = opened, opened.step.config
        self._inputs = Inputs(opened.dataroot, opened.step.inputs.version, opened.step.inputs.artifacts)

    @cached_property
    def _method(self) -> Any:
        config = self._config
        return config.method.method()(config, config.method, self._inputs, self._opened.index)

    @cached_property
    def _model(self) -> torch.nn.Module:
        model = self._method.build()
        model.load_state_dict(read_tensors(self._opened.path / "model.safetensors"))
        return model.to(choose_device(self._config.device)).eval()

    def picture(self, sample: int) -> Image.Image:
        """What is hidden of a sample and what is rebuilt, as pretraining draws its held-out samples."""
        index = self._opened.index
        some = spread(training_samples(index, "pretrain"), BLIND_SAMPLES)
        device = next(self._model.parameters()).device
        evaluator = self._method.evaluator(np.array([sample]), some, device)
        with tempfile.TemporaryDirectory() as folder:
            evaluator.draw(self._model, Path(folder))
            drawn = [Image.open(path).convert("RGB") for path in sorted(Path(folder).glob("*.png"))]
        out = Image.new("RGB", (max(d.width for d in drawn), sum(d.height for d in drawn)), (255, 255, 255))
        for number, picture in enumerate(drawn):
            out.paste(picture, (0, sum(d.height for d in drawn[:number])))
        return out


class Detector:
    """The detector of a finetuning, or of an evaluation."""

    def __init__(self, opened: Opened):
        assert opened.step is not None
        self._opened = opened
        self._config, self._evaluate, self._weights = _detector_of(opened.step)

    @property
    def finds_boxes(self) -> bool:
        return self._config.task == "detection"

    @cached_property
    def _goal(self) -> Goal:
        return goal_of(self._config)(self._config, self._opened.index, self._opened.dataroot, self._evaluate)

    @cached_property
    def _batches(self) -> Batches:
        return Batches(self._config, self._opened.index, self._opened.dataroot, truth_of=self._goal.truth)

    @cached_property
    def _network(self) -> Any:
        public = self._evaluate.public_config is not None
        detector = (build_public if public else build_detector)(self._config, self._evaluate)
        zoomed = self._evaluate.checkpoint is None
        load_detector(detector, self._weights, self._config, zoomed=zoomed, public=public)
        return detector.to(choose_device(self._config.device)).eval()

    def boxes(self, sample: int) -> Boxes:
        """What it finds in a sample, in its LIDAR_TOP frame, best first. Of a task that predicts boxes."""
        return self._collected(sample)[sample]

    def picture(self, sample: int) -> Image.Image:
        """Of a task that predicts maps: the true and the predicted one, as an evaluation draws its worst samples."""
        with tempfile.TemporaryDirectory() as folder:
            self._goal.draw(self._collected(sample), Path(folder))
            return Image.open(next(Path(folder).glob("*.png"))).convert("RGB")

    def _collected(self, sample: int) -> Any:
        return self._goal.collected(detect(self._network, self._config, self._batches, np.array([sample])))


def _detector_of(step: Step) -> tuple[FinetuneConfig, EvaluateConfig, Path]:
    """Its config, how its boxes are chosen, and its weights.

    Of a finetuning boxes are chosen as an evaluation of it has them, if there is one.
    """
    if isinstance(step.config, Evaluation):
        given = step.config.evaluate.checkpoint
        weights = Path(given) if given else step.inputs["finetune"].path / WEIGHTS
        return step.config.detector, step.config.evaluate.model_copy(update={"pictures": 1}), weights
    assert isinstance(step.config, FinetuneConfig)
    told = next(_evaluations(step), EVALUATE)
    return step.config, told.model_copy(update={"pictures": 1}), step.artifact.path / WEIGHTS


def _evaluations(step: Step) -> Iterator[EvaluateConfig]:
    """How the evaluations of a finetuning, in the same root, choose boxes."""
    for path in sorted((step.artifact.root / "evaluate").glob("*")):
        made = step_of(path)
        if made is not None and made.inputs.artifacts.get("finetune") == step.artifact:
            assert isinstance(made.config, Evaluation)
            yield made.config.evaluate
