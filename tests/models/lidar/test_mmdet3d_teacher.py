"""On CenterPoint's real pillar config, shrunk through `_base_` to 32 x 32 pillars of 0.8 m and a few channels."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from models.layouts import WeightsMismatch
from models.lidar.mmdet3d_teacher import MMDet3DTeacher
from models.names import CLASSES
from models.openmmlab import DetectorUnavailable, has_compiled_operators, read_config

CPU = torch.device("cpu")
CONFIGS = Path(importlib.util.find_spec("mmdet3d").origin).parent / ".mim" / "configs"
CENTERPOINT = CONFIGS / "centerpoint"
PILLARS = CENTERPOINT / "centerpoint_pillar02_second_secfpn_head-circlenms_8xb4-cyclic-20e_nus-3d.py"
POINTPILLARS = CONFIGS / "pointpillars" / "pointpillars_hv_secfpn_sbn-all_8xb4-2x_nus-3d.py"

SMALL = """
_base_ = {base!r}
limits = [-12.8, -12.8, -5.0, 12.8, 12.8, 3.0]
size = [0.8, 0.8, 8]
norm = dict(type="BN", eps=1e-3, momentum=0.01)
model = dict(
    data_preprocessor=dict(voxel_layer=dict(point_cloud_range=limits, voxel_size=size, max_num_points=4)),
    pts_voxel_encoder=dict(feat_channels=[8], voxel_size=size, point_cloud_range=limits),
    pts_middle_encoder=dict(in_channels=8, output_shape=(32, 32)),
    pts_backbone=dict(in_channels=8, out_channels=[8, 8, 8], layer_nums=[1, 1, 1]),
    pts_neck=dict(in_channels=[8, 8, 8], out_channels=[8, 8, 8]),
    pts_bbox_head=dict(
        in_channels=24, share_conv_channel=8, bbox_coder=dict(voxel_size=size[:2], pc_range=limits[:2], max_num=64)
    ),
    train_cfg=dict(pts=dict(point_cloud_range=limits, voxel_size=size)),
    test_cfg=dict(pts=dict(voxel_size=size[:2], pc_range=limits[:2])),
)
"""


@pytest.fixture
def config(tmp_path):
    """The small config, with a few lines of a user's own after it."""

    def written(own: str = "", base: Path = PILLARS) -> dict:
        (tmp_path / "small.py").write_text(SMALL.format(base=str(base)))
        (tmp_path / "own.py").write_text(f'_base_ = "./small.py"\n{own}\n')
        return read_config(tmp_path / "own.py")

    return written


def cloud(seed: int = 0, count: int = 400) -> torch.Tensor:
    random = np.random.default_rng(seed)
    points = random.uniform([-14, -14, -3, 0, 0], [14, 14, 1, 255, 0.5], (count, 5))
    return torch.from_numpy(points.astype(np.float32))


def slow_pillars(points: torch.Tensor) -> dict[tuple[int, int], list[torch.Tensor]]:
    """(x, y) of each pillar in the order of its first point -> its first four points."""
    pillars: dict[tuple[int, int], list[torch.Tensor]] = {}
    for point in points:
        x, y = int(np.floor((point[0] + 12.8) / 0.8)), int(np.floor((point[1] + 12.8) / 0.8))
        if 0 <= x < 32 and 0 <= y < 32 and len(pillars.setdefault((x, y), [])) < 4:
            pillars[x, y].append(point)
    return pillars


@pytest.mark.parametrize(
    ("layer", "shape", "cell"),
    [("middle_encoder", (8, 32, 32), 0.8), ("backbone", (8, 16, 16), 1.6), ("neck", (24, 8, 8), 3.2)],
)
def test_is_what_the_parts_compute_one_after_the_other(config, layer, shape, cell):
    torch.manual_seed(0)
    teacher = MMDet3DTeacher(config(), layer, CPU)
    assert teacher.bev_shape == shape
    assert teacher.cell_size == pytest.approx((cell, cell))
    assert teacher.bev_range == (-12.8, -12.8, -5.0, 12.8, 12.8, 3.0)
    assert (teacher.sweeps, teacher.columns) == (9, [0, 1, 2, 3, 4])
    bev, boxes = teacher.run(teacher.prepare(cloud()), CPU, boxes=False)
    assert boxes is None

    pillars = slow_pillars(cloud())
    points = torch.zeros(len(pillars), 4, 5)
    for row, kept in zip(points, pillars.values()):
        row[: len(kept)] = torch.stack(kept)
    coords = torch.tensor([[0, 0, y, x] for x, y in pillars])
    counts = torch.tensor([len(kept) for kept in pillars.values()])
    detector = teacher.detector
    with torch.no_grad():
        image = detector.pts_middle_encoder(detector.pts_voxel_encoder(points, counts, coords), coords, 1)
        if layer != "middle_encoder":
            image = detector.pts_backbone(image)
        if layer == "neck":
            image = detector.pts_neck(image)
    if layer != "middle_encoder":
        image = image[0]  # the finest level
    torch.testing.assert_close(bev, image[0].transpose(1, 2))
    assert bev.dtype == torch.float32
    assert bev.is_contiguous()


@pytest.mark.parametrize("own", ["", 'model = dict(pts_voxel_encoder=dict(legacy=True, type="PillarFeatureNet"))'])
def test_repeats_itself_on_the_same_input(config, own):
    """Legacy pillar encoders write into their input."""
    teacher = MMDet3DTeacher(config(own), "neck", CPU)
    prepared = teacher.prepare(cloud())
    first, _ = teacher.run(prepared, CPU, boxes=False)
    second, _ = teacher.run(prepared, CPU, boxes=True)
    assert torch.equal(first, second)
    assert first.abs().max() > 0


def active(teacher: MMDet3DTeacher, points: torch.Tensor) -> torch.Tensor:
    bev, _ = teacher.run(teacher.prepare(points), CPU, boxes=False)
    return bev.abs().amax(0) > 0


def test_x_is_right_and_y_is_forward(config):
    teacher = MMDet3DTeacher(config(), "middle_encoder", CPU)
    front_right = torch.tensor([[5.1, 9.3, 0.0, 100.0, 0.0]])
    assert torch.nonzero(active(teacher, front_right)).tolist() == [[22, 27]]  # 22.4 and 27.6 pillars from the corner


def test_mirrored_points_light_up_mirrored_cells(config):
    teacher = MMDet3DTeacher(config(), "middle_encoder", CPU)
    mirror = torch.tensor([-1.0, 1, 1, 1, 1])
    cells = active(teacher, cloud())
    assert 0 < cells.sum() < cells.numel()
    assert torch.equal(active(teacher, cloud() * mirror), cells.flip(0))


def test_no_point_in_range(config):
    teacher = MMDet3DTeacher(config(), "neck", CPU)
    with pytest.raises(ValueError, match="none of 1 points lies in the teacher's range"):
        teacher.prepare(torch.tensor([[50.0, 0, 0, 0, 0]]))


def test_dynamic_voxels_have_no_limit_of_points(config):
    dynamic = """
model = dict(
    type="DynamicMVXFasterRCNN",
    data_preprocessor=dict(voxel_type="dynamic", voxel_layer=dict(max_num_points=-1, max_voxels=(-1, -1))),
    pts_voxel_encoder=dict(
        _delete_=True, type="DynamicVFE", in_channels=5, feat_channels=[8], with_cluster_center=True,
        with_voxel_center=True, voxel_size=[0.8, 0.8, 8], point_cloud_range=[-12.8, -12.8, -5.0, 12.8, 12.8, 3.0]),
)"""
    torch.manual_seed(0)
    teacher = MMDet3DTeacher(config(dynamic), "middle_encoder", CPU)
    bev, _ = teacher.run(teacher.prepare(cloud()), CPU, boxes=False)
    assert {tuple(c) for c in torch.nonzero(bev.abs().amax(0)).tolist()} <= set(slow_pillars(cloud()))
    # A pillar of many points: each of them counts, in any order.
    many = torch.cat([torch.full((30, 2), 0.4), torch.rand(30, 3)], 1)
    full, turned, fewer = (teacher.run(teacher.prepare(p), CPU, False)[0] for p in (many, many.flip(0), many[:10]))
    torch.testing.assert_close(full, turned)
    assert (full - fewer).abs().max() > 1e-4


def sure_of_one_class(teacher: MMDet3DTeacher, task: int) -> None:
    """The head says everywhere: the task's first class, (4, 2, 1.5) m, z -1 m, yaw 0.5, velocity (3, -1) m/s."""
    said = {"reg": [0.5, 0.5], "height": [-1.0], "dim": np.log([4.0, 2.0, 1.5]), "vel": [3.0, -1.0]}
    said["rot"] = [np.sin(0.5), np.cos(0.5)]
    for i, head in enumerate(teacher.detector.pts_bbox_head.task_heads):
        for name in [*said, "heatmap"]:
            last = getattr(head, name)[-1]
            torch.nn.init.zeros_(last.weight)
            value = said.get(name, [3.0 if i == task else -20.0] + [-20.0] * (len(last.bias) - 1))
            last.bias.data = torch.tensor(np.array(value), dtype=torch.float32)


@pytest.mark.parametrize(
    ("own", "label"),
    [
        ("", CLASSES.index("bus")),  # fourth in CenterPoint's order: car, truck, construction_vehicle, bus
        ('names = ["bus", "truck", "trailer", "barrier", "tram"] + ["car"] * 5', CLASSES.index("barrier")),
        ('names = ["bus", "truck", "trailer", "tram"] + ["car"] * 6', None),
    ],
)
def test_boxes_in_this_projects_terms(config, own, label):
    if own:
        own += "\ntest_dataloader = dict(dataset=dict(metainfo=dict(classes=names)))"
    teacher = MMDet3DTeacher(config(own), "neck", CPU)
    assert teacher.detects
    sure_of_one_class(teacher, task=2)
    _, boxes = teacher.run(teacher.prepare(cloud()), CPU, boxes=True)
    if label is None:
        assert len(boxes) == 0
        return
    assert len(boxes) > 10
    assert (boxes.labels == label).all()
    np.testing.assert_allclose(boxes.centers[:, 2], -1, atol=1e-5)
    np.testing.assert_allclose((boxes.centers[:, :2] + 12.8) / 3.2 % 1, 0.5, atol=1e-5)
    np.testing.assert_allclose(boxes.sizes, np.tile([4, 2, 1.5], (len(boxes), 1)), rtol=1e-5)
    np.testing.assert_allclose(boxes.yaws, 0.5, atol=1e-5)
    np.testing.assert_allclose(boxes.velocities, np.tile([3, -1], (len(boxes), 1)), atol=1e-5)
    np.testing.assert_allclose(boxes.scores, 1 / (1 + np.exp(-3)), rtol=1e-5)


def test_checkpoint_fills_everything(config):
    torch.manual_seed(0)
    first = MMDet3DTeacher(config(), "neck", CPU)
    second = MMDet3DTeacher(config(), "neck", CPU)
    prepared = first.prepare(cloud())
    assert not torch.equal(first.run(prepared, CPU, False)[0], second.run(prepared, CPU, False)[0])
    second.load(first.detector.state_dict())
    assert torch.equal(first.run(prepared, CPU, False)[0], second.run(prepared, CPU, False)[0])


def test_mismatched_checkpoint_lists_the_names(config):
    teacher = MMDet3DTeacher(config(), "neck", CPU)
    tensors = dict(teacher.detector.state_dict())
    del tensors["pts_neck.deblocks.0.0.weight"]
    tensors["pts_backbone.blocks.0.0.weight"] = torch.zeros(64, 8, 3, 3)
    tensors["img_backbone.conv1.weight"] = torch.zeros(1)
    tensors["pts_bbox_head.shared_conv.conv.weight"] = tensors["pts_bbox_head.shared_conv.conv.weight"] * torch.nan
    with pytest.raises(WeightsMismatch) as error:
        teacher.load(tensors)
    text = str(error.value)
    assert "of another shape: pts_backbone.blocks.0.0.weight (64, 8, 3, 3) for " in text
    assert "with values that are not finite: pts_bbox_head.shared_conv.conv.weight" in text
    assert re.search(r"missing: pts_neck\.deblocks\.0\.0\.weight;", text)
    assert re.search(r"unexpected: img_backbone\.conv1\.weight;", text)
    assert "\n" not in text


def test_pointpillars_reads_dt_for_intensity():
    """As published, at full size: sweeps are loaded with columns 0, 1, 2, 4, and NMS is compiled."""
    teacher = MMDet3DTeacher(read_config(POINTPILLARS), "middle_encoder", CPU)
    assert teacher.bev_shape == (64, 400, 400)
    assert (teacher.sweeps, teacher.columns) == (10, [0, 1, 2, 4])
    prepared = teacher.prepare(torch.tensor([[1.0, 2.0, 0.0, 77.0, 0.25]]))
    assert prepared["voxels"]["voxels"][0, 0].tolist() == [1.0, 2.0, 0.0, 0.25]
    if not has_compiled_operators():
        assert not teacher.detects
        with pytest.raises(DetectorUnavailable, match="non-maximum suppression"):
            teacher.run(prepared, CPU, boxes=True)


@pytest.mark.skipif(has_compiled_operators(), reason="compiled operators are installed")
@pytest.mark.parametrize("base", ["centerpoint_voxel01_second_secfpn_head-circlenms_8xb4-cyclic-20e_nus-3d.py"])
def test_sparse_convolutions_say_which_operator_is_missing(base):
    with pytest.raises(DetectorUnavailable, match="compiled operator 'get_indice_pairs_3d_forward' is not installed"):
        MMDet3DTeacher(read_config(CENTERPOINT / base), "neck", CPU)


@pytest.mark.skipif(has_compiled_operators(), reason="compiled operators are installed")
def test_head_without_its_operators_still_gives_a_map(config):
    own = 'model = dict(pts_bbox_head=dict(separate_head=dict(_delete_=True, type="DCNSeparateHead", init_bias=-2.19, '
    own += 'final_kernel=3, dcn_config=dict(type="DCN", in_channels=8, out_channels=8, kernel_size=3, padding=1))))'
    teacher = MMDet3DTeacher(config(own), "neck", CPU)
    assert teacher.bev_shape == (24, 8, 8)
    assert not teacher.detects
    assert "deform_conv_forward" in teacher.no_boxes


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            "model = dict(test_cfg=dict(pts=dict(voxel_size=[0.4, 0.8])))",
            r"model.test_cfg.pts.voxel_size is \[0.4, 0.8\]",
        ),
        ("model = dict(pts_middle_encoder=dict(output_shape=(32, 64)))", "output_shape is"),
        ("model = dict(type='NoSuchNet')", "cannot build.*NoSuchNet"),
        ("model = dict(pts_voxel_encoder=dict(in_channels=4))", "does not run on cpu with points alone"),
        ("model = dict(data_preprocessor=dict(voxel_type='cylindrical'))", "voxel_type cylindrical"),
        ("test_dataloader = dict(dataset=dict(type='WaymoDataset'))", "is WaymoDataset: .* LIDAR_TOP frame"),
        ("test_dataloader = dict(dataset=dict(metainfo=dict(_delete_=True)))", "no metainfo.classes"),
        ("p = [dict(type='Jitter')]\ntest_dataloader = dict(dataset=dict(pipeline=p))", "the step Jitter"),
        (
            "p = [dict(type='LoadPointsFromFile', use_dim=5)]\ntest_dataloader = dict(dataset=dict(pipeline=p))",
            "reads the ring index",
        ),
        (
            "p = [dict(type='LoadPointsFromFile', use_dim=4, norm_intensity=True)]\n"
            "test_dataloader = dict(dataset=dict(pipeline=p))",
            "sets norm_intensity",
        ),
    ],
)
def test_configs_that_cannot_be_a_teacher(config, own, message):
    with pytest.raises(DetectorUnavailable, match=message):
        MMDet3DTeacher(config(own), "neck", CPU)


def test_missing_layer_names_those_there(config):
    with pytest.raises(DetectorUnavailable, match=r"has no neck; it has pts_voxel_encoder, .*pts_backbone"):
        MMDet3DTeacher(config("model = dict(pts_neck=None, pts_bbox_head=dict(in_channels=8))"), "neck", CPU)


def test_kitti_models_are_refused():
    kitti = read_config(CONFIGS / "pointpillars" / "pointpillars_hv_secfpn_8xb6-160e_kitti-3d-car.py")
    with pytest.raises(DetectorUnavailable, match="KittiDataset"):
        MMDet3DTeacher(kitti, "neck", CPU)


def test_config_without_a_model_is_refused():
    with pytest.raises(DetectorUnavailable, match="no `model`"):
        MMDet3DTeacher({}, "neck", CPU)
