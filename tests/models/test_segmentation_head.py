import torch

from models.names import BEV_LAYERS
from models.segmentation_head import SegmentationHead


def test_a_head_learns_a_map_that_is_in_its_input():
    torch.manual_seed(0)
    head = SegmentationHead(4, 8)
    bev = torch.randn(2, 4, 12, 16)
    masks = torch.stack([bev[:, 0] > 0.3, bev[:, 1] > 1], 1)
    optimizer = torch.optim.Adam(head.parameters(), 0.03)
    for _ in range(150):
        terms = head.loss(head(bev), masks)
        assert tuple(terms) == BEV_LAYERS
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert ((head.predict(head(bev)) > 0.5) == masks).float().mean() > 0.97


def test_layers_do_not_weigh_on_each_other():
    head = SegmentationHead(4, 8)
    logits, masks = torch.randn(3, 2, 5, 6), torch.rand(3, 2, 5, 6) > 0.5
    other = masks.clone()
    other[:, 1] = ~other[:, 1]
    one, two = head.loss(logits, masks), head.loss(logits, other)
    assert one["drivable_area"] == two["drivable_area"]
    assert one["vehicle"] != two["vehicle"]
