import numpy as np
import pytest
import torch

from models.boxes import Boxes
from models.center_head import CenterPointHead
from models.center_spec import ONE_GROUP, CenterHeadSpec
from models.lidar.bev_backbone import BEVBackbone, BevBackboneSpec
from models.lidar.detector import LidarDetector, voxel_batch
from models.lidar.encoder import EncoderSpec, SparseEncoder
from models.lidar.grid import VoxelGrid, encoder_output_shape
from models.lidar.transfusion import TransFusionHead, TransFusionSpec

GRID = VoxelGrid((-8.0, -6.4, -4.0, 8.0, 6.4, 4.0), (0.2, 0.2, 0.25))


def small_detector(upsample: int = 1, head: type = CenterPointHead) -> LidarDetector:
    torch.manual_seed(0)
    encoder = SparseEncoder(GRID.sparse_shape, EncoderSpec(widths=(4, 4, 8, 8), out_width=8, blocks=(1, 1, 1, 1)))
    channels = encoder_output_shape(GRID.sparse_shape, 8)[0]
    backbone = BEVBackbone(
        BevBackboneSpec(channels, (8, 8), (1, 1), neck_widths=(8, 8), upsamples=(upsample, 2 * upsample))
    )
    cell_size = (1.6 / upsample, 1.6 / upsample)
    if head is CenterPointHead:
        made = CenterPointHead(CenterHeadSpec(16, GRID.point_range, cell_size, ONE_GROUP, 8, min_radius=1))
    else:
        made = TransFusionHead(
            TransFusionSpec(
                16, GRID.point_range, cell_size, queries=10, width=16, heads=2, ffn_width=16, dropout=0.0, min_radius=1
            )
        )
    return LidarDetector(encoder, backbone, made)


def cloud(seed: int, count: int = 2000) -> torch.Tensor:
    return torch.rand(count, 5, generator=torch.Generator().manual_seed(seed)) * 16 - 8


def test_encoder_shape_and_batch_independence():
    encoder = small_detector().encoder.eval()
    together = encoder(*voxel_batch([cloud(0), cloud(1)], GRID))
    alone = encoder(*voxel_batch([cloud(1)], GRID))
    assert together.shape == (2, *encoder_output_shape(GRID.sparse_shape, 8))
    torch.testing.assert_close(together[1:], alone)


def test_encoder_map_lies_x_first():
    """A far point along +x lights a cell at the end of dim -2, along +y at the end of dim -1."""
    encoder = small_detector().encoder.eval()
    for axis, place in ((0, (9, 4)), (1, (5, 7))):
        point = torch.tensor([[0.1, 0.1, 0.0, 9.0, 0.0]])
        point[0, axis] = (7.9, 6.3)[axis]
        active = torch.nonzero(encoder(*voxel_batch([point], GRID))[0].abs().sum(0))
        assert place in [tuple(cell) for cell in active.tolist()]


def test_an_empty_cloud_gives_an_empty_map():
    encoder = small_detector().encoder.eval()
    assert encoder(*voxel_batch([torch.zeros(0, 5)], GRID)).abs().max() == 0


def test_a_finer_head():
    detector = small_detector(upsample=2)
    assert detector(voxel_batch([cloud(0)], GRID))[0]["heatmap"].shape == (1, 10, 16, 20)


def test_the_heads_get_the_map_each_its_way_round():
    """A map (X, Y) = (10, 8) that is hot in one corner: both heads see the corner at x = 9, y = 0."""
    bev = torch.zeros(1, 16, 10, 8)
    bev[:, :, 9, 0] = 1.0
    centerpoint, transfusion = small_detector().eval(), small_detector(head=TransFusionHead).eval()
    maps = centerpoint.detect(bev)[0]["heatmap"], transfusion.detect(bev).heatmap.transpose(2, 3)
    for detector, heat_YX in zip((centerpoint, transfusion), maps):
        still = detector.detect(torch.zeros_like(bev))
        still = still[0]["heatmap"] if detector is centerpoint else still.heatmap.transpose(2, 3)
        changed = (heat_YX - still).abs().amax((0, 1))
        assert changed.shape == (8, 10)
        assert changed[0, 9] > 0
        assert changed[4:].max() == changed[:, :5].max() == 0


@pytest.mark.parametrize(("head", "steps"), [(CenterPointHead, 100), (TransFusionHead, 50)])
def test_it_learns_one_sample(head, steps):
    detector = small_detector(head=head).train()
    random = np.random.default_rng(0)
    centers = np.array([[-5.0, -3.0, 0.0], [4.0, 3.0, 0.0]])
    boxes = Boxes(centers, np.tile([4.0, 2.0, 1.5], (2, 1)), np.array([0.3, -2.0]), np.zeros((2, 2)), np.array([0, 8]))
    points = np.concatenate([c + random.uniform(-0.8, 0.8, (200, 3)) for c in centers])
    batch = voxel_batch([torch.from_numpy(np.c_[points, np.zeros((400, 2))].astype(np.float32))], GRID)
    optimizer = torch.optim.AdamW(detector.parameters())
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-2 if step < 2 * steps // 3 else 1e-3
        loss = sum(detector.head.loss(detector(batch), [boxes]).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]
    found = detector.head.predict(detector(batch))[0][:2]
    order = np.argsort(found.labels)
    np.testing.assert_array_equal(found.labels[order], [0, 8])
    np.testing.assert_allclose(found.centers[order], centers, atol=0.5)
    np.testing.assert_allclose(found.yaws[order], boxes.yaws, atol=0.3)
