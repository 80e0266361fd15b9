"""One table of names, both ways."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bevdet.layout import _PUBLIC
from models.layouts import WeightsMismatch
from models.layouts.geomim import _ORIGINAL
from models.layouts.mim4d import _DECODER, _TRUNKS
from models.layouts.renaming import Renaming
from models.layouts.swin import _MMDET as SWIN_MMDET
from models.layouts.swin import _ORIGINAL as SWIN_ORIGINAL
from models.lidar.checkpoint import LAYOUTS, MMDET3D

TABLES = [_PUBLIC, _ORIGINAL, _DECODER, _TRUNKS, SWIN_MMDET, SWIN_ORIGINAL, *(layout.names for layout in LAYOUTS)]


def slowly(name: str, rules) -> str | None:
    """As a person would with a pencil."""
    for theirs, ours in rules:
        if theirs[:1] != "." and name[: len(theirs)] == theirs:
            rest = name[len(theirs) :]
            for inner, other in rules:
                if inner[:1] == ".":
                    rest = other.join(rest.split(inner))
            return ours + rest
    return None


@pytest.mark.parametrize("table", TABLES)
def test_every_rule_goes_both_ways(table):
    begins = [(theirs, ours) for theirs, ours in table.rules if not theirs.startswith(".")]
    for theirs, ours in begins:
        assert table.to_ours(theirs + "0.weight") == ours + "0.weight"
        assert table.to_theirs(ours + "0.weight") == theirs + "0.weight"
    for theirs, ours in (rule for rule in table.rules if rule[0].startswith(".")):
        assert ours.startswith(".")
        assert table.to_ours(f"{begins[-1][0]}a{theirs}b") == f"{begins[-1][1]}a{ours}b"
        assert table.to_theirs(f"{begins[-1][1]}a{ours}b") == f"{begins[-1][0]}a{theirs}b"


@given(st.text("ab.", max_size=12), st.lists(st.tuples(*[st.text("ab.", max_size=3)] * 2), max_size=4))
def test_it_is_the_slow_one(name, rules):
    rules = tuple((theirs, ours) for theirs, ours in rules if theirs not in (".", ""))
    assert Renaming(rules).to_ours(name) == slowly(name, rules)
    assert Renaming((*rules, ("", ""))).to_ours(name) is not None


def test_the_first_rule_that_fits_counts():
    table = Renaming((("a.b.", "c."), ("a.", "d."), (".x.", ".y."), (".y.", ".z.")))
    assert table.to_ours("a.b.w") == "c.w"
    assert table.to_ours("a.e.x.w") == "d.e.z.w"
    assert table.to_ours("b.a.w") is None


def test_names_are_read_in_their_order_and_none_is_lost():
    names = ["pts_neck.a", "voxel_encoder.b", "pts_backbone.c"]
    assert list(MMDET3D.names.read(names).items()) == [
        ("bev_backbone.neck.a", "pts_neck.a"),
        ("bev_backbone.backbone.c", "pts_backbone.c"),
    ]
    twice = ["bbox_head.decoder.0.norm1.bias", "bbox_head.decoder.0.norms.0.bias"]
    told = f"{twice[0]} and {twice[1]} are both head.decoder.0.norm1.bias"
    with pytest.raises(WeightsMismatch, match=re.escape(told)):
        MMDET3D.names.read(twice)
