"""Pages of a finished run, and of ten thousand samples."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gallery.opened import open_artifact
from served_page import served
from storage.artifact import Artifact
from storage.index import FIXED, SCHEMA, Index, IndexAttributes, write_index
from tasks.engine.provenance import provenance
from tasks.engine.stage import STAGES

MANY = 10_000


@pytest.fixture(scope="session")
def page(finished):
    """The page of the finished run's root. Only to be looked at."""
    with served(finished[0].root) as page:
        yield page


@pytest.fixture
def root(finished, tmp_path):
    """A root of the test's own."""
    return Path(shutil.copytree(finished[0].root, tmp_path / "root", ignore=shutil.ignore_patterns(".prefect*")))


@pytest.fixture(scope="session")
def many(finished, tmp_path_factory):
    """An index of ten thousand samples: the finished run's, over and over."""
    opened = open_artifact(finished[0].path("ingest"))
    assert opened.step is not None
    root = tmp_path_factory.mktemp("many")
    artifact = Artifact(root, "ingest", opened.step.artifact.key)
    step = replace(opened.step, artifact=artifact)
    artifact.begin(step.recipe)
    index = opened.index
    attributes = IndexAttributes(index.version, index.cameras, index.classes, index.split_names, index.lidar_columns)
    write_index(artifact.path / "index.zarr", _repeated(index, MANY), attributes)
    artifact.finish(step.recipe, {"samples": MANY}, 1.0, provenance(step), STAGES["ingest"].outputs)
    return root


def _repeated(index: Index, count: int) -> dict[str, np.ndarray]:
    """An index's arrays with its samples in turn until there are so many; tokens and scenes get numbers."""
    times = -(-count // len(index))
    arrays = {}
    for name, (_, dimensions) in SCHEMA.items():
        value = getattr(index, name)
        if name != "box_offsets":
            assert dimensions[0] not in FIXED
            value = np.concatenate([value] * times)
        arrays[name] = value[:count] if dimensions[0] == "sample" else value
    per_scene = len(index.scene_name)
    arrays["scene"] = arrays["scene"] + np.arange(count) // len(index) * per_scene
    arrays["scene_name"] = np.array([f"scene-{number:05}" for number in range(times * per_scene)], object)
    arrays["token"] = np.array([f"{number:032x}" for number in range(count)], object)
    arrays["previous"] = np.full(count, -1)
    arrays["timestamp"] = np.arange(count) * 500_000
    arrays["box_offsets"] = np.concatenate([[0], np.cumsum(np.tile(np.diff(index.box_offsets), times)[:count])])
    boxes = int(arrays["box_offsets"][-1])
    return {name: value[:boxes] if SCHEMA[name][1][0] == "box" else value for name, value in arrays.items()}
