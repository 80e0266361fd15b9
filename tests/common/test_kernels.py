"""Compiled loops where nothing can be kept."""

import numba
import numpy as np

from common import kernels


def test_a_kernel_is_compiled_where_no_folder_can_be_written(monkeypatch):
    def refusing(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function 'doubled': no locator available for file")
        return numba.njit(**options)

    monkeypatch.setattr(kernels, "njit", refusing)
    doubled = kernels.kernel(lambda values: values * 2)
    assert doubled(np.arange(3)).tolist() == [0, 2, 4]
