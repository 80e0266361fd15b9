import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.key import canonical_json, diff, digest

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)


@given(st.dictionaries(st.text(), VALUES))
def test_the_order_of_names_does_not_matter(value):
    assert digest(value) == digest(dict(reversed(value.items())))


@given(VALUES, VALUES)
def test_equal_text_means_equal_values(a, b):
    if canonical_json(a) == canonical_json(b):
        assert a == b


def test_a_whole_float_is_the_integer_yaml_may_have_written():
    assert digest({"range": 54.0}) == digest({"range": 54})
    assert digest(-0.0) == digest(0)
    assert digest(True) != digest(1)


@pytest.mark.parametrize("value", [math.nan, math.inf, {1: 2}, {1, 2}, object(), b"bytes"])
def test_a_value_without_a_stable_form_raises(value):
    with pytest.raises((TypeError, ValueError)):
        digest({"field": value})


def test_the_key_is_the_same_in_another_process():
    value = {"b": [1, 2.5, "ü"], "a": None}
    code = f"from storage.key import digest; print(digest({value!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert other == digest(value)


def test_diff_names_the_fields():
    old = {"config": {"sweeps": 0, "margin": 1}, "version": 1}
    new = {"config": {"sweeps": 2, "margin": 1}, "version": 1, "files": {"weights": "ab"}}
    assert diff(old, new) == {"config.sweeps": (0, 2), "files": (None, {"weights": "ab"})}


@given(VALUES)
def test_nothing_differs_from_itself(value):
    assert diff(value, value) == {}
