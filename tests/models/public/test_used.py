import pytest

from models.public.used import UnreadableConfig, Used


def test_what_is_read_is_given_and_nothing_is_left():
    with Used({"a": [1, 2], "b": {"c": 0.5}, "type": "X", "e": ["x"], "f": True}, "model") as model:
        assert model.integers("a", 2) == (1, 2)
        with model.section("b") as b:
            assert b.number("c") == 0.5
            assert b.number("missing", 3) == 3
        model.fixed("type", "X")
        assert model.texts("e") == ("x",)
        assert model.flag("f") is True
        assert model.flag("missing", False) is False


def test_every_key_that_nobody_read_is_named():
    with (
        pytest.raises(UnreadableConfig, match=r"^nothing here knows what model\.b, model\.c mean$"),
        Used({"a": 1, "c": 2, "b": 3}, "model") as model,
    ):
        model.integer("a")
    with (
        pytest.raises(UnreadableConfig, match=r"^nothing here knows what model\.neck\.d means$"),
        Used({"neck": {"d": 1}}, "model") as model,
        model.section("neck"),
    ):
        pass
    with Used({"a": 1, "b": 2}, "model") as model:
        model.ignore({"a": "has no effect", "b": "neither", "z": "need not be there"})


def test_an_error_of_ones_own_is_not_hidden():
    with pytest.raises(KeyError), Used({"unread": 1}, "model"):
        raise KeyError


VALUES = {"text": "x", "yes": True, "half": 0.5, "halves": [0.5], "zero": 0, "pair": [1, 2], "nan": float("nan")}
VALUES |= {"huge": 10**400, "still": [0, 4, 0], "down": [4, 0, 1], "over": [0, 4, 5]}


@pytest.mark.parametrize(
    ("read", "sentence"),
    [
        (lambda c: c.value("none"), r"model\.none is missing"),
        (lambda c: c.integer("text"), r"model\.text must be a whole number, not 'x'"),
        (lambda c: c.integer("yes"), r"model\.yes must be a whole number, not True"),
        (lambda c: c.integer("half"), r"model\.half must be a whole number, not 0\.5"),
        (lambda c: c.number("text"), r"model\.text must be a number"),
        (lambda c: c.flag("half"), r"model\.half must be true or false, not 0\.5"),
        (lambda c: c.integers("half"), r"model\.half must be a list, not 0\.5"),
        (lambda c: c.integers("halves"), r"model\.halves must be whole numbers, not 0\.5"),
        (lambda c: c.numbers("halves", 2), r"model\.halves must have 2 values, not \[0\.5\]"),
        (lambda c: c.integer("zero"), r"model\.zero must be a whole number of at least 1, not 0"),
        (lambda c: c.integers("pair", least=3), r"model\.pair must be whole numbers of at least 3, not 1"),
        (lambda c: c.number("zero", least=0.5), r"model\.zero must be a number of at least 0\.5, not 0"),
        (lambda c: c.number("nan"), r"model\.nan must be a number that can be meant, not nan"),
        (lambda c: c.integer("huge"), r"model\.huge must be a whole number that can be meant, not 1000"),
        (lambda c: c.pair("halves"), r"model\.halves must have x and y, not \[0\.5\]"),
        (lambda c: c.span("still"), r"model\.still must be low < high and a step between, not \[0, 4, 0\]"),
        (lambda c: c.span("down"), r"model\.down must be low < high"),
        (lambda c: c.span("over"), r"model\.over must be low < high"),
        (lambda c: c.texts("halves"), r"model\.halves must be names, not 0\.5"),
        (lambda c: c.section("text"), r"model\.text must be a section of keys, not 'x'"),
        (lambda c: c.sections("halves"), r"model\.halves\[0\] must be a section of keys"),
        (lambda c: c.fixed("text", "y"), r"model\.text is 'x': only 'y' is implemented here"),
        (lambda c: c.fixed("none", 1, default=2), r"model\.none is 2: only 1 is implemented here"),
        (lambda c: c.agrees("half", 1, "its twin"), r"model\.half is 0\.5, but its twin is 1: one is wrong"),
    ],
)
def test_what_is_not_as_it_must_be_is_a_sentence_with_its_place(read, sentence):
    with pytest.raises(UnreadableConfig, match=sentence):
        read(Used(VALUES, "model"))


def test_lists_and_tuples_are_the_same():
    config = Used({"a": [(1, 2), [3]], "b": {"c": (1,)}}, "")
    config.fixed("a", ((1, 2), (3,)))
    config.agrees("b", {"c": [1]}, "its twin")
    config.fixed("none", 5)


def test_numbers_with_a_meaning_of_their_own():
    config = Used({"slab": [-5, 3, 8], "cells": [-54.0, 54.0, 0.3], "range": [-8.0, -6.4, -4.0], "none": [0, -3]}, "")
    assert config.span("slab") == (-5, 3, 8)
    assert config.span("cells") == (-54.0, 54.0, 0.3)
    assert config.pair("range") == (-8.0, -6.4)
    assert config.integers("none", least=-3) == (0, -3)
