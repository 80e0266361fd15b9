import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.heatmap import draw_gaussian


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 11), st.integers(0, 7), st.integers(0, 14), st.integers(0, 11), st.integers(0, 7))
def test_bumps_are_cut_at_the_border_and_the_higher_one_counts(row, column, radius, other_row, other_column):
    heat = np.zeros((12, 8), np.float32)
    draw_gaussian(heat, (row, column), radius)
    draw_gaussian(heat, (other_row, other_column), 2)
    for y, x in np.ndindex(heat.shape):
        wanted = 0.0
        for (cy, cx), r in (((row, column), radius), ((other_row, other_column), 2)):
            if max(abs(y - cy), abs(x - cx)) <= r:
                wanted = max(wanted, np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * ((2 * r + 1) / 6) ** 2)))
        assert abs(heat[y, x] - wanted) < 1e-6
    assert heat[row, column] == heat[other_row, other_column] == 1
