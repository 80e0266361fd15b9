import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from evaluation.flat import FlatBoxes
from evaluation.results import check_meta, read_results, split_of
from models.names import CLASSES

META = {"use_camera": True, "use_lidar": False, "use_radar": False, "use_map": False, "use_external": False}
BOX = {
    "sample_token": "a",
    "translation": [1.0, 2.0, 3.0],
    "size": [1, 2, 3],
    "rotation": [1.0, 0.0, 0.0, 0.0],
    "velocity": [0.5, -0.5],
    "detection_name": "car",
    "detection_score": 0.25,
    "attribute_name": "vehicle.parked",
}


@pytest.fixture
def said(tmp_path):
    """The sentence that a file's text is refused with."""

    def read(content: object) -> str:
        file = tmp_path / "results.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        with pytest.raises(UserError) as error:
            read_results(file)
        text = str(error.value)
        assert text.startswith(f"{file}: ")
        assert "\n" not in text
        return text

    return read


def with_box(**fields) -> dict:
    box = {name: value for name, value in (BOX | fields).items() if value is not ...}
    return {"meta": META, "results": {"a": [BOX, box]}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is not JSON"),
        ('{"meta": {}, "results": {"a": [', "is not JSON"),
        ('{"meta": {}, "results": {"a": []}', "is not JSON (',' is missing, line 1)"),
        ('{"meta": {}, "results": {"a" []}}', "is not JSON (':' is missing, line 1)"),
        ('{"meta": {}, "results": {a: []}}', "is not JSON (a key in double quotes is missing, line 1)"),
        ('{"meta": {}, "results": {}} and more', "is not JSON (more follows after the end, line 1)"),
        ('{"meta": {},\n "results": {"a": [], \n "b": [1 2]}}', "is not JSON (Expecting ',' delimiter, line 3)"),
        ("[" * 100_000, "is nested too deeply"),
        ("[1, 2]", "holds a list of 2, not an object"),
        ({"meta": META}, "has no field `results`"),
        ({"results": {}}, "has no field `meta`"),
        ({"meta": META, "results": [BOX]}, "`results` is a list of 1, not an object"),
        ({"meta": None, "results": {}}, "`meta` is null, not an object"),
        ({"meta": META, "results": {"a": {}}}, "sample a: is {}, not a list of boxes"),
        ({"meta": META, "results": {"a": [BOX, 3]}}, "sample a: box 1 is 3, not an object"),
        ('{"meta": {}, "results": {"a": [], "a": []}}', "sample a stands there twice"),
        ({"meta": META, "results": {"a": [BOX] * 501}}, "sample a: holds 501 boxes, more than 500"),
        (with_box(size=...), "box 1: has no size"),
        (with_box(sample_token="b"), "box 1: sample_token is 'b', and the box stands under another sample"),
        (with_box(detection_name="Car"), "box 1: detection_name 'Car' is no class; these are: car, truck"),
        (with_box(attribute_name="parked"), "box 1: attribute_name 'parked' is no attribute"),
        (with_box(detection_name=["car"]), "box 1: detection_name ['car'] is no class"),
        (with_box(translation=[1, 2]), "box 1: translation is a list of 2, not a list of 3 numbers"),
        (with_box(velocity=[None, None]), "box 1: velocity is a list of 2, not a list of 2 numbers"),
        (with_box(rotation="1 0 0 0"), 'box 1: rotation is "1 0 0 0", not a list of 4 numbers'),
        (with_box(translation=["1", "2", "3"]), "box 1: translation is a list of 3, not a list of 3 numbers"),
        (with_box(translation=[1, 2, float("nan")]), "box 1: translation [1, 2, nan] is not finite"),
        (with_box(velocity=[1, float("inf")]), "box 1: velocity [1, inf] is not finite"),
        (with_box(size=[1, 0, 1]), "box 1: size [1, 0, 1] is not positive"),
        (with_box(detection_score="0.5"), "box 1: detection_score is '0.5', not a number from 0 up"),
        (with_box(detection_score=-0.5), "box 1: detection_score is -0.5, not a number from 0 up"),
        (with_box(translation=[10**400, 0, 0]), "box 1: translation is a list of 3, not a list of 3 numbers"),
        (with_box(rotation=[1e200, 0, 0, 1e200]), "box 1: holds a number out of all range"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(said, content, words):
    assert words in said(content)


def test_what_is_no_file_or_no_text(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe{")
    for name, words in {"bytes": "not UTF-8", "none": "No such file", ".": "Is a directory"}.items():
        with pytest.raises(UserError, match=words):
            read_results(tmp_path / name)


NUMBER = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([None, 1, "\t"]), st.booleans(), st.sampled_from([1, 7, 100, 1 << 20]))
def test_every_layout_of_the_same_json_reads_alike_in_pieces(tmp_path_factory, data, indent, meta_last, piece):
    results = {
        token: [
            BOX
            | {
                "sample_token": token,
                "translation": data.draw(st.lists(NUMBER, min_size=3, max_size=3)),
                "velocity": data.draw(st.sampled_from([[0, 1], [float("nan")] * 2, [0.5, 0.25]])),
                "detection_name": data.draw(st.sampled_from(CLASSES)),
                "attribute_name": data.draw(st.sampled_from(["", "vehicle.parked"])),
            }
            for _ in range(data.draw(st.integers(0, 3)))
        ]
        for token in data.draw(st.lists(st.text(), max_size=4, unique=True))
    }
    content = {"meta": META, "results": results, "more": [1, {"a": "}"}]}
    if meta_last:
        content = dict(reversed(content.items()))
    file = tmp_path_factory.getbasetemp() / "layout.json"
    file.write_text(json.dumps(content, indent=indent, ensure_ascii=indent is None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluation.results.PIECE", piece)
        read = read_results(file)
    assert (read.meta, read.tokens) == (META, list(results))
    wanted = FlatBoxes.joined(FlatBoxes.from_records(i, boxes) for i, boxes in enumerate(results.values()))
    for name, value in vars(wanted).items():
        np.testing.assert_array_equal(getattr(read.boxes, name), value, name)


SPLITS = {"mini_train": ["a", "b"], "mini_val": ["c", "d"], "": ["e"]}


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ("", "holds no sample"),
        ("c", "lacks 1 of the 2 samples of mini_val (d); a sample without boxes has an empty list"),
        ("abx", "1 of its 3 samples are not in v1.0-mini (x); is it of another version of the dataset"),
        ("abcd", "holds samples of mini_train and mini_val; write one file a split"),
        ("cde", "1 of its samples are in no split of v1.0-mini (e)"),
    ],
)
def test_the_samples_must_be_those_of_a_split(tmp_path, tokens, words):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"meta": META, "results": {token: [] for token in tokens}}))
    with pytest.raises(UserError) as error:
        split_of(file, read_results(file), SPLITS, "v1.0-mini")
    assert words in str(error.value)


def test_the_split_is_the_one_whose_samples_it_holds(tmp_path):
    file = tmp_path / "results.json"
    file.write_text(json.dumps({"meta": META, "results": {"d": [], "c": []}}))
    assert split_of(file, read_results(file), SPLITS, "v1.0-mini") == "mini_val"


def test_the_server_needs_all_flags(tmp_path):
    check_meta(tmp_path, META)
    with pytest.raises(UserError, match="neither true nor false for use_map, use_external"):
        check_meta(tmp_path, {k: v for k, v in META.items() if k not in ("use_map", "use_external")})
