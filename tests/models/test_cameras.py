import pytest
import torch

from models.cameras import SCENE_VECTOR, VECTOR, Cameras
from one_frame import one_frame
from small_detectors import rig


def test_the_numbers_of_a_camera():
    intrinsics = torch.tensor([[1.0, 0, 3], [0, 2, 4], [0, 0, 1]])
    post, mounting = torch.arange(16.0).view(4, 4), 100 + torch.arange(16.0).view(4, 4)
    cameras = one_frame(*(matrix[None, None] for matrix in (intrinsics, post, torch.eye(4), mounting)))
    expected = [1, 2, 3, 4, 0, 1, 3, 4, 5, 7, *range(100, 112)]
    assert cameras.vector().tolist() == [[expected]]
    assert len(expected) == VECTOR
    told = [*expected[:10], 1, 0, 0, 1, 1, *expected[10:]]
    assert cameras.scene_vector(0).tolist() == [[told]]
    assert len(told) == SCENE_VECTOR


@pytest.mark.parametrize("name", ["post_homography", "camera_to_frame", "mounting", "scene"])
def test_what_would_broadcast_is_refused(name):
    matrices = vars(rig(2, 3, 4))
    with pytest.raises(ValueError, match=rf"^{name} has the shape \(1, .*\), not \(2, .*\)$"):
        Cameras(**matrices | {name: matrices[name][:1]})


def test_intrinsics_are_3x3():
    matrices = vars(rig(2, 3, 4))
    with pytest.raises(ValueError, match=r"^intrinsics has the shape \(2, 3, 4, 4, 4\), not \(2, 3, 4, 3, 3\)$"):
        Cameras(**matrices | {"intrinsics": matrices["post_homography"]})


def test_samples_are_joined_and_moved():
    one, other = rig(1, 2, 3), rig(2, 2, 3, seed=1)
    joined = Cameras.joined([one, other])
    for name, matrices in vars(joined).items():
        assert torch.equal(matrices, torch.cat([getattr(one, name), getattr(other, name)]))
    assert all(matrices.dtype == torch.float64 for matrices in vars(joined.each(torch.Tensor.double)).values())
