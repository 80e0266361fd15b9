import pytest

from common.amounts import duration, size


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (147.6, "2 min 28 s"), (3599.4, "59 min 59 s"), (12_030, "3 h 20 min")],
)
def test_times(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(0, "-"), (999, "999 B"), (1000, "1.0 kB"), (643_400, "643.4 kB"), (5e9, "5.0 GB")]
)
def test_sizes(count, words):
    assert size(count) == words
