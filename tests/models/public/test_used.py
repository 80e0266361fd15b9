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
        read(Used({"text": "x", "yes": True, "half": 0.5, "halves": [0.5]}, "model"))


def test_lists_and_tuples_are_the_same():
    config = Used({"a": [(1, 2), [3]], "b": {"c": (1,)}}, "")
    config.fixed("a", ((1, 2), (3,)))
    config.agrees("b", {"c": [1]}, "its twin")
    config.fixed("none", 5)
