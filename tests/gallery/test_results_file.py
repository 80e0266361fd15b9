"""Single samples out of a results file, against the file read as a whole."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from evaluation.results import read_results
from gallery.opened import open_artifact
from gallery.results_file import ResultsFile


@pytest.fixture(scope="module")
def evaluation(finished):
    return open_artifact(finished[0].path("evaluate"))


def test_each_samples_boxes_are_those_of_the_whole_file(evaluation):
    whole = read_results(evaluation.results.path)
    assert len(evaluation.results) == len(whole.tokens) > 0
    for number, token in enumerate(whole.tokens):
        sample = evaluation.index.sample_of[token]
        boxes = evaluation.results.boxes(evaluation.index, sample)
        expected = whole.boxes[whole.boxes.sample == number]
        level = boxes.levelled(evaluation.index.lidar_to_global(sample))
        assert np.allclose(level.centers, expected.center, atol=1e-6)
        assert (boxes.labels == expected.label).all()
        assert np.allclose(boxes.scores, expected.score)


class OneSample:
    token = ("a",)

    def lidar_to_global(self, sample):
        return np.eye(4)


@given(
    indent=st.sampled_from([None, 0, 2]),
    counts=st.lists(st.integers(0, 3), min_size=1, max_size=4),
    piece=st.sampled_from([1 << 24, 300, 37]),
)
def test_files_of_any_shape(tmp_path_factory, indent, counts, piece):
    """Wherever the pieces end that are searched one after the other."""

    def box(token, x):
        return {
            "sample_token": token,
            "translation": [x, 0.0, 0.0],
            "size": [1.0, 2.0, 3.0],
            "rotation": [1.0, 0.0, 0.0, 0.0],
            "velocity": [0.0, 0.0],
            "detection_name": "car",
            "detection_score": 0.5,
            "attribute_name": "",
        }

    tokens = "abcd"[: len(counts)]
    results = {token: [box(token, float(n)) for n in range(count)] for token, count in zip(tokens, counts)}
    path = tmp_path_factory.mktemp("file") / "results.json"
    path.write_text(json.dumps({"results": results, "meta": {"use_camera": True}}, indent=indent))
    file = ResultsFile(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gallery.results_file._PIECE", piece)
        assert len(file) == len(counts)
    assert "z" not in file
    assert file.boxes(OneSample(), 0).centers[:, 0].tolist() == list(map(float, range(counts[0])))


@pytest.mark.parametrize("damage", ['"translation": [1', "detection_nome"])
def test_a_damaged_sample_is_one_sentence(tmp_path, evaluation, damage):
    text = evaluation.results.path.read_text()
    text = text.replace('"translation": [', '"translation": [[', 1) if "trans" in damage else text
    text = text.replace("detection_name", damage) if "nome" in damage else text
    (tmp_path / "results.json").write_text(text)
    file = ResultsFile(tmp_path / "results.json")
    sample = next(row for row in evaluation.samples if evaluation.index.token[row] in file)
    with pytest.raises(DataError, match=r"results\.json: sample \w+ cannot be read"):
        file.boxes(evaluation.index, sample)
