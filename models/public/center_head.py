"""CenterPoint's head as OpenMMLab's and BEVDet's configs say it, in three places: the head, training and test."""

from collections.abc import Sequence
from typing import Any

from models.center_codes import PARTS
from models.center_spec import CenterHeadSpec
from models.names import CLASSES
from models.nms import CircleNms, Nms, RotatedNms
from models.public.norms import read_norm
from models.public.used import SMALLEST, UnreadableConfig, Used

# Of `test_cfg`.
_IGNORED = {
    "pc_range": "the public code reads bbox_coder's",
    "post_center_limit_range": "the same",
    "score_threshold": "the same",
    "out_size_factor": "the same",
    "voxel_size": "the same",
    "max_per_img": "the public code reads bbox_coder.max_num",
}


def read_center_head(head: Used, train: Used, test: Used) -> CenterHeadSpec:
    """The head, with `train_cfg.pts` and `test_cfg.pts`. Raises UnreadableConfig."""
    with head, train, test:
        head.fixed("type", "CenterHead")
        for key, only in {
            "conv_cfg": {"type": "Conv2d"},
            "bias": "auto",
            "norm_bbox": True,
            "task_specific": True,
            "init_cfg": None,
        }.items():
            head.fixed(key, only)
        groups = tuple(_group(task) for task in head.sections("tasks"))
        if [name for group in groups for name in group] != list(CLASSES):
            raise UnreadableConfig(  # the public code reads classes by their place
                f"{head.at('tasks')} has the class names {[list(group) for group in groups]}: one after the other they "
                f"must be {list(CLASSES)}"
            )
        with head.section("common_heads") as common:
            branches = [common.integers(part, 2) for part in PARTS]
        if any(channels != wanted for (channels, _), wanted in zip(branches, PARTS.values())):
            raise UnreadableConfig(f"{head.at('common_heads')} must give {PARTS} numbers a part")
        with head.section("separate_head") as separate:
            separate.fixed("type", "SeparateHead")
            separate.ignore({"init_bias": "where weights begin"})
            separate.fixed("conv_cfg", {"type": "Conv2d"})
            separate.fixed("bias", "auto")
            branch_width, kernel = separate.integer("head_conv", 64), separate.integer("final_kernel", 1)
            norm = read_norm(separate)
        if read_norm(head) != norm:
            raise UnreadableConfig(f"{head.at('norm_cfg')} must be separate_head's: one norm is implemented here")
        heatmap_weight, box_weight = _losses(head)
        limits, voxel = train.numbers("point_cloud_range", 6), train.pair("voxel_size", least=SMALLEST)
        factor = train.integer("out_size_factor")
        if any(low >= high for low, high in zip(limits[:3], limits[3:])):
            raise UnreadableConfig(f"{train.at('point_cloud_range')} must ascend in x, y and z: {list(limits)}")
        cells = [round((high - low) / size) for low, high, size in zip(limits[:2], limits[3:5], voxel)]
        if list(train.integers("grid_size", 3)[:2]) != cells:
            raise UnreadableConfig(f"{train.at('grid_size')} is not the {cells} voxels of its range and voxel_size")
        with head.section("bbox_coder") as coder:
            coder.fixed("type", "CenterPointBBoxCoder")
            coder.fixed("code_size", 9)
            coder.agrees("out_size_factor", factor, train.at("out_size_factor"))
            for key, wanted in (("pc_range", limits[:2]), ("voxel_size", voxel)):
                if list(coder.pair(key)) != list(wanted):
                    coder.agrees(key, wanted, train.at(key))
            threshold = 0.0 if coder.value("score_threshold", None) is None else coder.number("score_threshold")
            most, keep_range = coder.integer("max_num", 100), coder.numbers("post_center_range", 6)
        return CenterHeadSpec(
            _channels(head),
            limits,
            (voxel[0] * factor, voxel[1] * factor),
            groups,
            head.integer("share_conv_channel", 64),
            branch_width,
            kernel,
            (*(depth for _, depth in branches), head.integer("num_heatmap_convs", 2)),
            norm,
            score_threshold=threshold,
            slots=train.integer("max_objs") * train.integer("dense_reg", 1),
            max_boxes=most,
            keep_range=keep_range,
            rules=_rules(test, groups),
            gaussian_overlap=train.number("gaussian_overlap"),
            min_radius=train.integer("min_radius", least=0),
            code_weights=train.numbers("code_weights", 10),
            box_weight=box_weight,
            heatmap_weight=heatmap_weight,
        )


def _channels(head: Used) -> int:
    found = head.value("in_channels")
    return sum(head.integers("in_channels")) if isinstance(found, list | tuple) else head.integer("in_channels")


def _group(task: Used) -> tuple[str, ...]:
    with task:
        names = task.texts("class_names")
        if "num_class" in task:
            task.agrees("num_class", len(names), "the number of class_names")
        return names


def _losses(head: Used) -> tuple[float, float]:
    """Weights of the heatmap's and of the boxes' losses."""
    with head.section("loss_cls", {"type": "GaussianFocalLoss"}) as loss:
        loss.fixed("type", "GaussianFocalLoss")
        for key, only in {"alpha": 2.0, "gamma": 4.0, "reduction": "mean"}.items():
            loss.fixed(key, only)
        heatmap = loss.number("loss_weight", 1.0)
    with head.section("loss_bbox", {"type": "L1Loss", "loss_weight": 0.25}) as loss:
        loss.fixed("type", "L1Loss")
        loss.fixed("reduction", "mean")
        return heatmap, loss.number("loss_weight", 1.0)


def _rules(test: Used, groups: Sequence[Sequence[str]]) -> tuple[Nms, ...]:
    """Non-maximum suppression of every group. The public circles have squared radii."""
    rule_by_rule = dict.fromkeys(("min_radius", "nms_thr", "nms_rescale_factor"), "read of the groups that need it")
    test.ignore(_IGNORED | rule_by_rule)
    test.fixed("max_pool_nms", False)

    def of_group(name: str, number: int, default: Any = None) -> Any:
        found = test.value(name, default)
        if not isinstance(found, list | tuple):
            return found
        if number >= len(found):
            raise UnreadableConfig(f"{test.at(name)} has no entry for each of {len(groups)} groups of classes")
        return found[number]

    def size(name: str, number: int) -> float:
        if (found := of_group(name, number)) is None:
            raise UnreadableConfig(f"{test.at(name)} is missing")
        return Used({str(number): found}, test.at(name)).number(str(number), least=0)

    def factors(number: int, group: Sequence[str]) -> tuple[float, ...]:
        """Of each class of a group."""
        found = of_group("nms_rescale_factor", number, 1.0)
        found = found if isinstance(found, list | tuple) else [found] * len(group)
        if len(found) != len(group):
            raise UnreadableConfig(f"{test.at('nms_rescale_factor')} has no factor for each of {', '.join(group)}")
        return Used({str(number): found}, test.at("nms_rescale_factor")).numbers(str(number), least=0)

    before, after = test.integer("pre_max_size"), test.integer("post_max_size")
    rules: list[Nms] = []
    for number, group in enumerate(groups):
        kind = of_group("nms_type", number)
        if kind == "circle":
            rules.append(CircleNms(group, size("min_radius", number) ** 0.5, after))
        elif kind == "rotate":
            grown = dict(zip(group, factors(number, group)))
            rules.append(RotatedNms(grown, size("nms_thr", number), before, after))
        else:
            raise UnreadableConfig(f"{test.at('nms_type')} is {kind!r}: only circle and rotate are implemented here")
    return tuple(rules)
