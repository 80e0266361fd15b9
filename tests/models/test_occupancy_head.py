import torch
from torch.nn import functional as F

from models.occupancy import SHAPE
from models.occupancy_head import CLASSES, OccupancyHead


def test_columns_become_voxels_of_their_place():
    """Against each column on its own: x is the map's last dimension and the volume's first."""
    torch.manual_seed(0)
    head = OccupancyHead(3, 4)
    bev = torch.randn(1, 3, SHAPE[1], SHAPE[0])
    logits = head(bev)
    assert logits.shape == (1, *SHAPE, CLASSES)
    for x, y in ((5, 120), (199, 0), (64, 64)):
        around = F.pad(bev, (1, 1, 1, 1))[..., y : y + 3, x : x + 3]
        column = F.relu(F.conv2d(around, head.final_conv.weight, head.final_conv.bias))
        first, last = head.predictor[0], head.predictor[2]
        hidden = F.softplus(first.weight[:, :, 0, 0] @ column.flatten() + first.bias)
        expected = (last.weight[:, :, 0, 0] @ hidden + last.bias).view(SHAPE[2], CLASSES)
        torch.testing.assert_close(logits[0, x, y], expected, atol=1e-5, rtol=1e-4)


def test_coarse_maps_cover_the_same_ground():
    """A map of cells 1.6 m wide, constant in x: its voxels vary with y alone, and a cell's middle keeps its value."""
    head = OccupancyHead(1, 2)
    with torch.no_grad():
        head.final_conv.weight.zero_()
        head.final_conv.weight[:, 0, 1, 1] = 1.0
        head.final_conv.bias.zero_()
    coarse = torch.arange(50.0).view(1, 1, 50, 1).expand(1, 1, 50, 50)
    fine = F.interpolate(coarse, (200, 200), mode="bilinear", align_corners=False)
    torch.testing.assert_close(head(coarse), head(fine))
    assert (head(coarse)[0, :, 80, 3, 2] - head(coarse)[0, 0, 80, 3, 2]).abs().max() < 1e-4


def test_loss_counts_what_is_seen():
    head = OccupancyHead(2, 2)
    torch.manual_seed(1)
    logits = torch.randn(2, 3, 4, 5, CLASSES, requires_grad=True)
    labels, seen = torch.randint(0, CLASSES, (2, 3, 4, 5), dtype=torch.uint8), torch.rand(2, 3, 4, 5) > 0.6
    loss = head.loss(logits, labels, seen)["occupancy"]
    each = [-logits[tuple(v)].log_softmax(-1)[int(labels[tuple(v)])] for v in seen.nonzero()]
    torch.testing.assert_close(loss, torch.stack(each).mean())
    loss.backward()
    assert (logits.grad.abs().sum(-1) > 0).eq(seen).all()
    assert head.loss(logits, labels, torch.zeros_like(seen))["occupancy"] == 0
    assert head.predict(logits).dtype == torch.uint8
    torch.testing.assert_close(head.predict(logits).long(), logits.argmax(-1))
