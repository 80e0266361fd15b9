"""`import geomim`: what a notebook gets of a finished run."""

import io
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import geomim
from common.errors import DataError, UserError
from storage.bev import BevReader


@pytest.fixture(scope="module")
def root(finished):
    return geomim.open(finished[0].root)


def test_a_root_lists_its_artifacts(root, finished):
    assert [a.path for a in root["teacher"]] == [finished[0].path("teacher")]
    assert finished[0].path("depth").name in repr(root)
    assert finished[0].path("evaluate").name in root._repr_html_()
    with pytest.raises(UserError, match="there is no such stage"):
        root["depht"]


def test_of_a_root_too_images_may_be_elsewhere(finished, tmp_path):
    root = geomim.open(finished[0].root, dataroot=tmp_path / "moved")
    for artifact in (root["teacher"][0], root["teacher"][0].inputs["ingest"]):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / "moved"))):
            artifact[0].camera("CAM_FRONT", 200)


def test_an_artifact_is_a_sequence_of_samples(root):
    teacher = root["teacher"][0]
    assert len(teacher) == len(teacher.index) == teacher.summary["samples"]
    assert [sample.row for sample in teacher[:3]] == [0, 1, 2]
    assert teacher[-1].row == len(teacher) - 1
    assert sum(1 for _ in teacher) == len(teacher)
    assert teacher.sample(teacher[2].token).row == 2
    assert teacher.config["encoding"] == "cells"
    assert "looks sound" in teacher._repr_html_()
    with pytest.raises(UserError, match=r"has no store depth\.zarr; there are bev\.zarr"):
        teacher.store("depth.zarr")


def test_a_samples_arrays_are_those_of_the_stores(root):
    teacher, depth, evaluation = (root[stage][0] for stage in ("teacher", "depth", "evaluate"))
    assert (teacher[1].bev == BevReader(teacher.path / "bev.zarr").dense(1)).all()
    slots = depth.store("depth.zarr")["depth"][1, 0, : len(depth[1].points.camera(0)[2])]
    assert np.array_equal(slots, depth[1].points.camera(0)[2])
    assert len(evaluation[0].predictions) > 0
    with pytest.raises(UserError, match="predicts no boxes"):
        _ = depth[0].predictions
    with pytest.raises(UserError, match="no depth store belongs to it"):
        _ = teacher[0].points


def test_what_an_artifact_was_made_from(root, finished):
    arms = {len(arm.inputs["finetune"].inputs): arm for arm in root["evaluate"]}
    pretrained = arms[max(arms)]
    assert pretrained.path == finished[0].path("evaluate")
    assert pretrained.inputs["finetune"].inputs["pretrain"].path == finished[0].path("pretrain")
    assert "pretrain" not in arms[min(arms)].inputs["finetune"].inputs
    assert root["ingest"][0].inputs == {}


def test_a_sample_shows_itself(root):
    sample = root["depth"][0][0]
    assert sample.picture(700).width == 700
    assert sample.camera("CAM_BACK", 300, truth=True).size[0] == 300
    head, _, data = sample._repr_html_().partition("base64,")
    assert sample.token in head
    import base64

    picture = Image.open(io.BytesIO(base64.b64decode(data.partition('"')[0])))
    assert picture.width == 1400
    with pytest.raises(UserError, match="there are CAM_FRONT, "):
        sample.camera("CAM_TOP")


def test_looking_imports_no_torch(finished):
    code = f"import sys, geomim; geomim.open({str(finished[0].root)!r})['teacher'][0][0].picture(600)"
    code += "; sys.exit(bool({'torch', 'prefect', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0
