import torch

from models.bev import swap_xy


def test_swap_xy_is_its_own_inverse():
    bev = torch.arange(24.0).reshape(1, 2, 3, 4)
    assert swap_xy(bev).shape == (1, 2, 4, 3)
    assert swap_xy(bev)[0, 1, 3, 2] == bev[0, 1, 2, 3]
    assert torch.equal(swap_xy(swap_xy(bev)), bev)
