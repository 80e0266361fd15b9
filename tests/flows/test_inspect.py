"""`geomim inspect` of what is not as it should be."""

import json

import numpy as np
import pytest

from common.errors import DataError
from flows.inspect import describe, show_description
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevWriter
from storage.manifest import Recipe

RECIPE = Recipe(stage="teacher", version=1, config={"sweeps": 0}, inputs={})


@pytest.fixture
def unfinished(tmp_path):
    artifact = Artifact(tmp_path, "teacher", RECIPE.key)
    artifact.begin(RECIPE)
    attributes = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0), part_size=1)
    BevWriter(artifact.path / "bev.zarr", np.array(["a", "b"]), (2, 4, 4), attributes).write(0, np.zeros((1, 2, 4, 4)))
    return artifact.path


def test_unfinished_work(unfinished):
    told = describe(unfinished)
    assert (told["stage"], told["state"], told["done"]) == ("teacher", "unfinished", (1, 2))
    assert told["config"] == {"sweeps": 0}


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"stage": "teacher"}', "\udc80"])
def test_a_recipe_that_does_not_read(unfinished, content, capsys):
    (unfinished / "recipe.json").write_bytes(content.encode(errors="surrogateescape"))
    told = describe(unfinished)
    assert (told["stage"], told["done"]) == ("teacher", (1, 2))
    assert told["damages"] == ["recipe.json is not what was written"]
    show_description(told)
    assert "recipe.json is not what was written" in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"node_type": "array"})])
@pytest.mark.parametrize("name", ["zarr.json", "value/zarr.json"])
def test_a_store_whose_metadata_do_not_read(unfinished, name, content):
    (unfinished / "bev.zarr" / name).write_text(content)
    for path in (unfinished, unfinished / "bev.zarr"):
        with pytest.raises(DataError, match=r"bev\.zarr: its zarr\.json files are not what was written"):
            describe(path)
