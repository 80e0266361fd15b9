"""Reports that are read, and detectors that are right sometimes, wrong sometimes and confused."""

import contextlib
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from driver import Cli
from evaluation.ground_truth import ground_truth
from evaluation.official import evaluate
from flows.cli import app
from models.boxes import Boxes
from storage.artifact import Artifact
from storage.atomic import write_json
from storage.index import Index

VOID = {"meta", "img", "input", "br", "link"}


class Page(HTMLParser):
    """A page that was read: its elements, and the text in them. Raises AssertionError where tags do not match."""

    def __init__(self, text: str):
        super().__init__()
        self.html, self.elements, self._open, self._words = text, [], [], []
        self.feed(text)
        assert self._open == []
        self.text = " ".join(" ".join(self._words).split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        if self._open and self._open[-1] not in ("style", "script"):
            self._words.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(cli: Cli, out: Path, *args) -> Page:
    """What `geomim report` writes, in this process."""
    with contextlib.redirect_stdout(io.StringIO()):
        app(cli.command("report", "--out", out, *args)[1:], standalone_mode=False)
    return Page(out.read_text())


def predictions(index: Index, noise: float, seed: int) -> dict[int, Boxes]:
    """Of val: true boxes moved by some `noise` m, a fifth of another class, a tenth missed, and boxes from nowhere."""
    random, out = np.random.default_rng(seed), {}
    for sample in index.samples("val").tolist():
        true = ground_truth(index, sample)
        true = true[random.random(len(true)) > 0.1]
        moved = true.centers + random.normal(0, noise, true.centers.shape)
        labels = np.where(random.random(len(true)) < 0.2, random.integers(0, 10, len(true)), true.labels)
        near = replace(true, centers=moved, labels=labels, scores=random.uniform(0.3, 1, len(true)))
        wild = replace(
            near, centers=near.centers + random.normal(0, 12, moved.shape), scores=random.uniform(0, 0.6, len(near))
        )
        out[sample] = Boxes.joined([near, wild])
    return out


def evaluated(artifact: Artifact, index: Index, dataroot: Path, noise: float, seed: int) -> None:
    """In place of what a detector of four steps predicts."""
    manifest = artifact.finished()
    artifact.unfinish()
    for drawn in (*artifact.path.glob("detections*"),):
        drawn.unlink()
    scores = evaluate(index, dataroot, predictions(index, noise, seed), "val", artifact.path, use_camera=True)
    assert scores is not None
    write_json(artifact.path / "metrics.json", scores)
    summary = {name: scores[name] for name in ("mAP", "NDS")}
    artifact.finish(manifest.recipe, summary, 1.0, manifest.made, ("metrics.json", "results_nusc.json"))
