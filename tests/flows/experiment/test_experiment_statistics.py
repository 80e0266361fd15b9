import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from flows.experiment.statistics import Difference, Spread

numbers = st.lists(st.tuples(*[st.floats(-1, 1)] * 2), min_size=2, max_size=9)


def test_by_hand():
    assert Spread.of([0.1, 0.2, 0.6]) == pytest.approx((0.3, np.sqrt(0.14 / 2), 0.1, 0.6))
    # differences 1, 2, 3: mean 2, deviation 1, t(0.975, 2) = 4.3027
    found = Difference.of([2, 4, 6], [1, 2, 3])
    assert found[:3] == pytest.approx((2, 2 - 4.3027 / np.sqrt(3), 2 + 4.3027 / np.sqrt(3)), abs=1e-4)
    assert not found.apart
    assert Difference.of([4, 5], [1, 3.9]).apart


@given(numbers)
def test_the_interval_is_scipys_paired_test(pairs):
    values, base = np.array(pairs).T
    found = Difference.of(values.tolist(), base.tolist())
    if np.std(values - base) < 1e-9:
        assert found.low == pytest.approx(found.high, abs=1e-6)
        return
    wanted = stats.ttest_rel(values, base).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), rel=1e-6, abs=1e-9)
    assert found.apart == all(a > b for a in values for b in base)
