from common.flat import flat


def test_nested_values_have_one_name_each():
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == [("a.b", 1), ("a.c", {}), ("d", [2])]
    assert flat({}) == []
    assert flat(3) == [("", 3)]
