import numpy as np
import pytest
import torch

from models.bev import flip_cells, scatter_cells, swap_xy


def test_swap_xy_is_its_own_inverse():
    bev = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert swap_xy(bev).shape == (1, 2, 4, 3)
    assert swap_xy(bev)[0, 1, 3, 2] == bev[0, 1, 2, 3]
    assert torch.equal(swap_xy(swap_xy(bev)), bev)


def cells_of(bev: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The cells of a batch of maps, one by one."""
    index, values = [], []
    _, _, x_cells, y_cells = bev.shape
    for b, one in enumerate(bev):
        for x in range(x_cells):
            for y in range(y_cells):
                if one[:, x, y].any():
                    index.append((b * x_cells + x) * y_cells + y)
                    values.append(one[:, x, y])
    return torch.tensor(index, dtype=torch.int64), torch.stack(values) if values else bev.new_zeros(0, bev.shape[1])


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_scattered_cells_are_the_map(share):
    generator = torch.Generator().manual_seed(0)
    bev = torch.randn(3, 4, 5, 6, generator=generator).half()
    bev *= torch.rand(3, 1, 5, 6, generator=generator) < share
    index, values = cells_of(bev)
    order = torch.randperm(len(index), generator=generator)
    made = scatter_cells(index[order], values[order], 3, (4, 5, 6))
    assert made.is_contiguous()
    assert torch.equal(made, bev)


@pytest.mark.parametrize("flip", [(False, False), (True, False), (False, True), (True, True)])
def test_flipped_cells_are_the_flipped_map(flip):
    bev = torch.randn(1, 4, 5, 6) * (torch.rand(1, 1, 5, 6) < 0.3)
    index, values = cells_of(bev)
    flipped = bev.flip([dim for dim, f in zip((2, 3), flip) if f])
    assert torch.equal(scatter_cells(flip_cells(index, (5, 6), *flip), values, 1, (4, 5, 6)), flipped)
    np.testing.assert_array_equal(flip_cells(index.numpy(), (5, 6), *flip), flip_cells(index, (5, 6), *flip).numpy())
