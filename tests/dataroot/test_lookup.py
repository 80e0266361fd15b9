import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataroot import lookup
from dataroot.lookup import DANGLING, NONE, Lookup, all_differ, hashes

TOKENS = st.lists(
    st.sampled_from([b"", b"a", b"b", b"12345678", b"123456789", b"0" * 32, b"0" * 31 + b"1"]), max_size=9
)


def column(tokens: list[bytes]) -> np.ndarray:
    return np.array(tokens, "S") if tokens else np.zeros(0, "S1")


def slowly(tokens: list[bytes], wanted: list[bytes]) -> list[int]:
    row_of = {token: row for row, token in enumerate(tokens)} | {b"": NONE}
    return [row_of.get(token, DANGLING) for token in wanted]


@given(TOKENS, TOKENS)
def test_rows_are_those_of_a_dict(tokens, wanted):
    assert Lookup(column(tokens)).rows(column(wanted)).tolist() == slowly(tokens, wanted)


@given(TOKENS)
def test_tokens_said_to_differ_do_and_others_are_looked_at(tokens):
    assert all_differ(column(tokens)) == (len(set(tokens)) == len(tokens))


def test_tokens_of_one_hash_are_told_apart(monkeypatch):
    monkeypatch.setattr(lookup, "hashes", lambda tokens: np.zeros(len(tokens), np.uint64))
    tokens, wanted = [b"a", b"b", b"a"], [b"b", b"a", b"c", b""]
    assert Lookup(column(tokens)).rows(column(wanted)).tolist() == slowly(tokens, wanted) == [1, 2, DANGLING, NONE]
    assert not all_differ(column([b"a", b"b"]))  # may be said of some that differ


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64])
def test_a_hash_is_of_the_text_not_of_the_columns_width(width):
    assert hashes(np.array([b"a", b""], f"S{width}")).tolist() == hashes(np.array([b"a", b""], "S1")).tolist()


def test_nuscenes_tokens_hash_apart():
    random = np.random.default_rng(0)
    assert all_differ(column([random.bytes(16).hex().encode() for _ in range(20_000)]))
    assert all_differ(column([b"%032d" % i for i in range(20_000)]))
