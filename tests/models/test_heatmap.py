import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from models.heatmap import draw_centers, draw_gaussian, gaussian_radius


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


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 6), st.sampled_from([0.1, 0.5]), st.integers(0, 3))
def test_centres_are_drawn_one_by_one(seed, count, overlap, min_radius):
    random = np.random.default_rng(seed)
    labels, cells = random.integers(0, 3, count), np.c_[random.integers(0, 12, count), random.integers(0, 8, count)]
    sizes = random.uniform(0.1, 12, (count, 2))
    wanted = np.zeros((3, 12, 8), np.float32)
    for label, cell, (length, width) in zip(labels, cells, sizes):
        draw_gaussian(wanted[label], tuple(cell), max(min_radius, int(gaussian_radius(length, width, overlap))))
    found = draw_centers((3, 12, 8), labels, cells, sizes, overlap, min_radius)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
