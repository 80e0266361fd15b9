import numpy as np
import pytest

from batches.occupancy import read_occupancy
from common.errors import UserError
from models.names import FREE
from models.occupancy import SHAPE, occupancy_path


def test_labels_are_the_files(simulated):
    index = simulated.index
    path = simulated.dataroot / "gts" / "scene-0061" / str(index.token[1]) / "labels.npz"
    made = read_occupancy(index, simulated.dataroot, 1)
    with np.load(path) as file:
        np.testing.assert_array_equal(made.labels, file["semantics"])
        np.testing.assert_array_equal(made.seen, file["mask_camera"] == 1)
    assert made.labels.dtype == np.uint8
    assert made.seen.dtype == bool
    flipped = made.flipped(True, False)
    assert flipped.labels[0, 3, 2] == made.labels[199, 3, 2]
    assert (flipped.flipped(True, True).seen == made.seen[:, ::-1]).all()


class OneSample:
    scene_name, scene, token = ["scene-1"], [0], ["abc"]


def save(root, **arrays):
    path = root / occupancy_path("scene-1", "abc")
    path.parent.mkdir(parents=True)
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"semantics": np.zeros(SHAPE, np.uint8)}, "holds no array mask_camera"),
        ({"semantics": np.zeros((4, 4, 4)), "mask_camera": np.zeros(SHAPE)}, r"semantics has shape \(4, 4, 4\), not"),
        ({"semantics": np.zeros(SHAPE, int), "mask_camera": np.zeros(3)}, r"mask_camera has shape \(3,\)"),
        ({"semantics": np.full(SHAPE, FREE + 1), "mask_camera": np.zeros(SHAPE)}, "other values than 0 to 17"),
        ({"semantics": np.zeros(SHAPE), "mask_camera": np.zeros(SHAPE)}, "other values"),
    ],
)
def test_bad_labels_are_one_sentence(tmp_path, arrays, sentence):
    save(tmp_path, **arrays)
    with pytest.raises(UserError, match=f"labels.npz: .*{sentence}"):
        read_occupancy(OneSample, tmp_path, 0)


def test_missing_and_cut_files_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"gts/scene-1/abc/labels.npz: is missing; unpack Occ3D-nuScenes' gts/"):
        read_occupancy(OneSample, tmp_path, 0)
    path = save(tmp_path, semantics=np.random.default_rng(0).integers(0, 18, SHAPE), mask_camera=np.zeros(SHAPE))
    whole = path.read_bytes()
    for content in (whole[:1000], b"", whole[:5000] + bytes(5000) + whole[10000:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            read_occupancy(OneSample, tmp_path, 0)
