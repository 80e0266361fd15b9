"""What is shown of a finished run's samples, stage by stage, and of dataroots."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from common.errors import DataError, UserError
from gallery.look import Gallery, Look, usual
from gallery.opened import open_any, open_artifact, open_dataroot
from models.names import CAMERAS
from storage.artifact import Artifact

REAL = Path(__file__).parents[3] / "shared" / "real-keyframe"
STAGES = ("ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate")


@pytest.fixture
def root(finished, tmp_path):
    """A root of the test's own."""
    return Path(shutil.copytree(finished[0].root, tmp_path / "root", ignore=shutil.ignore_patterns(".prefect*")))


def pixels(picture):
    return np.asarray(picture).astype(int)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stages_samples_are_drawn(finished, stage):
    opened = open_artifact(finished[0].path(stage))
    gallery = Gallery(opened)
    sample = int(opened.samples[-1])
    picture = gallery.sheet(sample, usual(opened), 900)
    assert picture.width == 900
    assert len(np.unique(pixels(picture).reshape(-1, 3), axis=0)) > 1000
    facts = gallery.facts(sample)
    assert facts["token"] == opened.index.token[sample]
    boxes = opened.index.box_label[opened.index.box_rows(sample)]
    assert sum(facts["boxes"].values()) == (boxes >= 0).sum()


def test_what_is_not_wanted_is_not_drawn(finished):
    gallery = Gallery(open_artifact(finished[0].path("evaluate")))
    sample = int(gallery.opened.samples[0])
    everything = Look(score=0.0, map="pca")
    whole = pixels(gallery.above(sample, everything, 300))
    for less in ("truth", "predictions", "points"):
        assert (pixels(gallery.above(sample, replace(everything, **{less: False}), 300)) != whole).any()
    images = pixels(gallery.camera(sample, 0, everything, 300))
    assert (pixels(gallery.camera(sample, 0, replace(everything, depth=False), 300)) != images).any()
    maps = [pixels(gallery.above(sample, Look(map=name), 300)) for name in ("none", "pca", "activity", "channel")]
    assert all((a != b).any() for i, a in enumerate(maps) for b in maps[:i])


def test_boxes_are_counted_by_what_became_of_them(finished):
    gallery = Gallery(open_artifact(finished[0].path("evaluate")))
    sample = int(gallery.opened.samples[0])
    facts = gallery.facts(sample, 0.0)
    words = [words for words, _ in gallery.legend(sample, Look(score=0.0))]
    assert words[1:] == [
        f"true, missed ({sum(facts['missed'].values())})",
        f"predicted, right ({facts['right']})",
        f"predicted, false ({sum(facts['false'].values())})",
    ]
    assert words[0] == f"true, found ({facts['right']})"


def test_the_network_of_a_detector_finds_what_its_evaluation_says(finished):
    """The boxes of a finetuning are those in the results file of its evaluation."""
    evaluated, trained = (open_artifact(finished[0].path(stage)) for stage in ("evaluate", "finetune"))
    sample = int(evaluated.samples[0])
    expected = Gallery(evaluated).facts(sample, 0.0)
    assert Gallery(trained, networks=True).facts(sample, 0.0) | {"points": 0} == expected | {"points": 0}


def test_a_pretraining_shows_what_is_hidden_and_rebuilt_of_any_sample(finished):
    opened = open_artifact(finished[0].path("pretrain"))
    train = int(opened.index.samples("train")[0])
    pictures = [Gallery(opened, networks=on).sheet(train, usual(opened)) for on in (True, False)]
    assert pictures[0].height > pictures[1].height


def test_samples_are_named_by_number_or_token(finished):
    opened = open_artifact(finished[0].path("depth"))
    token = str(opened.index.token[3])
    assert opened.row("3") == opened.row(token) == opened.row(token[:12]) == 3
    for name, words in (("999", "has samples 0 to"), ("", "beginning of"), ("xyz", "no sample's token")):
        with pytest.raises(UserError, match=words):
            opened.row(name)
    evaluation = open_artifact(finished[0].path("evaluate"))
    other = int(evaluation.index.samples("train")[0])
    with pytest.raises(UserError, match=f"predicts {len(evaluation.samples)} others"):
        evaluation.row(str(other))


def test_what_cannot_be_opened_is_one_sentence(root, tmp_path):
    depth = next((root / "depth").iterdir())
    for path, words in ((tmp_path / "none", "no such folder"), (tmp_path, "neither an artifact")):
        with pytest.raises(UserError, match=words):
            open_any(path)
    shutil.rmtree(root / "ingest")
    with pytest.raises(UserError, match=r"its samples are in ingest/\w+, which is not in this root; `geomim cp`"):
        open_any(depth / "depth.zarr")
    (depth / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_any(depth)
    Artifact(root, "depth", depth.name).unfinish()
    with pytest.raises(UserError, match="unfinished work; `geomim depth` goes on"):
        open_any(depth)


def test_images_that_are_gone_are_named_and_can_be_elsewhere(root, world, tmp_path):
    moved = Path(shutil.copytree(world, tmp_path / "moved"))
    depth = next((root / "depth").iterdir())
    index = open_artifact(depth).index
    (moved / str(index.camera_path[0, 0])).unlink()
    gallery = Gallery(open_artifact(depth, moved))
    with pytest.raises(DataError, match=re.escape(str(index.camera_path[0, 0]))):
        gallery.camera(0, 0, Look(), 200)
    assert gallery.camera(0, 1, Look(), 200).width == 200


def test_a_dataroot_is_looked_at_as_its_index_would_be(finished, world):
    ingested = open_artifact(finished[0].path("ingest"))
    raw = open_any(world, version=ingested.index.version)
    assert raw.stage == "dataroot"
    sample = 2
    drawn = [pixels(Gallery(opened).camera(sample, 1, usual(opened), 400)) for opened in (raw, ingested)]
    assert (drawn[0] == drawn[1]).all()
    with pytest.raises(UserError, match="holds no tables; there are"):
        open_dataroot(world, "v9.9")


@pytest.mark.skipif(not REAL.is_dir(), reason="shared/real-keyframe is not here")
def test_the_real_key_frame():
    opened = open_any(REAL)
    gallery = Gallery(opened)
    assert gallery.facts(0)["boxes"] == {
        "car": 8, "truck": 2, "construction_vehicle": 1, "bus": 1, "barrier": 22, "bicycle": 1, "pedestrian": 30,
        "traffic_cone": 3,
    }  # fmt: skip
    with_boxes, without = (
        pixels(gallery.camera(0, CAMERAS.index("CAM_FRONT"), look, 800)) for look in (Look(), Look(truth=False))
    )
    changed = (with_boxes != without).any(2)
    assert 0.01 < changed.mean() < 0.2
    assert not changed[:60].any()  # nothing in the sky
