"""Finished artifacts of a few kilobytes, with a store in parts as the teacher leaves one."""

import numpy as np

from storage.artifact import Artifact
from storage.bev import BevAttributes, BevWriter
from storage.manifest import Recipe

SHAPE, SAMPLES, PART_SIZE = (4, 8, 8), 12, 2
RECIPE = Recipe(stage="teacher", version=1, config={}, inputs={})


def small_teacher(root, seed=0, recipe=RECIPE):
    """bev.zarr with six parts, a text and an empty file."""
    artifact = Artifact(root, recipe.stage, recipe.key)
    artifact.begin(recipe)
    write_bev(artifact.path / "bev.zarr", seed)
    (artifact.path / "gate.json").write_text(f'{{"seed": {seed}}}')
    (artifact.path / "empty").write_bytes(b"")
    artifact.finish(recipe, {"seed": seed}, 1.0, {})
    return artifact


def write_bev(path, seed=0):
    attributes = BevAttributes((-4, -4, -5, 4, 4, 3), (1.0, 1.0), PART_SIZE, encoding="dense")
    writer, random = BevWriter(path, [f"t{n}" for n in range(SAMPLES)], SHAPE, attributes), np.random.default_rng(seed)
    for part in range(SAMPLES // PART_SIZE):
        writer.write(part, random.normal(size=(PART_SIZE, *SHAPE)).astype(np.float16))
