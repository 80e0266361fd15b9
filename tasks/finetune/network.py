"""The detector of a config, and how other weights get into it."""

from pathlib import Path

from safetensors.torch import save

from common.errors import UserError
from models.backbones.build import build_backbone
from models.bevdet.detector import BevDet, BevDetSpec
from models.bevdet.encoder import ResidualSpec
from models.bevdet.layout import fill_bevdet, read_bevdet
from models.bevdet.necks import FpnSpec
from models.depth_bins import DepthBins
from models.layouts import Checkpoint, WeightsMismatch, fill_backbone, read_layout
from models.lift_splat import BevGrid
from models.norm import Norm
from models.public.bevdet import read_bevdet as read_bevdet_config
from models.public.used import UnreadableConfig
from storage.atomic import write_bytes
from tasks.checkpoints import read_metadata, read_tensors
from tasks.finetune.config import EVALUATE, EvaluateConfig, FinetuneConfig
from tasks.finetune.goals import goal_of
from tasks.finetune.meaning import BEFORE, DETECTOR, check, check_public, metadata, taken_from
from tasks.public_config import read_public_config

OURS = "geomim"  # the layout of a file that we write


def detector_spec(config: FinetuneConfig) -> BevDetSpec:
    """All of a config's detector but its backbone and head."""
    view, span = config.view, (-config.bev_range, config.bev_range)
    return BevDetSpec(
        BevGrid(span, span, config.height, config.bev_cell),
        DepthBins(*config.depth_bins, view.depth_spacing),
        config.image.size,
        FpnSpec(config.image_width),
        config.context,
        ResidualSpec(config.bev_widths),
        FpnSpec(config.bev_width, inputs=(0, 2), scale=4, extra_scale=2),
        frames=view.frames,
        camera_aware=view.camera_aware,
        aspp_width=view.aspp_width,
        stereo=view.stereo,
        truncate_cells=view.truncate_cells,
    )


def build_detector(config: FinetuneConfig, evaluate: EvaluateConfig = EVALUATE) -> BevDet:
    """The whole detector, with weights drawn from torch's global generator. evaluate: which predictions count."""
    head = goal_of(config).head(config, evaluate)
    backbone = build_backbone(config.backbone, config.drop_path, config.norm_momentum)
    detector = BevDet(backbone, head, detector_spec(config), Norm(momentum=config.norm_momentum))
    detector.backbone.requires_grad_(config.backbone_rate > 0)
    return detector


def load_backbone(detector: BevDet, file: Path) -> str:
    """Put the backbone of a checkpoint in any known layout into the detector; what was done, in a few lines.

    Position tables of other sizes are resized. What a Swin pretrained elsewhere may lack (position embedding, norms of
    the outputs) stays as it is; ours must be whole. Raises UserError.
    """
    try:
        checkpoint = read_layout(read_tensors(file))
        filled = fill_backbone(detector.backbone, checkpoint)
    except WeightsMismatch as error:
        remedy = "set `backbone` to what it was trained with"
        raise UserError(f"{file}: is no backbone of this config: {error}; {remedy}") from None
    if filled.left and checkpoint.layout == OURS:
        lacking = ", ".join(filled.left)
        raise UserError(f"{file}: is no whole backbone: {lacking} missing; take one that GeoMIM pretrained")
    return f"backbone of {file.name}, {checkpoint.layout} layout\n{filled}"


def build_public(config: FinetuneConfig, evaluate: EvaluateConfig) -> BevDet:
    """The detector of `evaluate.public_config`, with weights drawn from torch's global generator.

    Raises UserError for a config that is not one of BEVDet's family, and for one that contradicts ours.
    """
    assert evaluate.public_config is not None  # whoever asks has seen one
    file = Path(evaluate.public_config)
    try:
        public = read_bevdet_config(read_public_config(file))
    except UnreadableConfig as error:
        raise UserError(f"{file}: {error}") from None
    check_public(file, public, config, evaluate)
    return public.build()


def load_detector(
    detector: BevDet, file: Path, config: FinetuneConfig, zoomed: bool = False, public: bool = False
) -> str:
    """Fill the detector from a released checkpoint or from one of ours; what was done, in a few lines.

    Strict: every weight of the detector must be there, and mean what it meant in training; what the file cannot say of
    that is told. zoomed: apart from `image.resize_test`, which may be another. public: the detector is that of a public
    config, which was compared with ours. Raises UserError.
    """
    tensors, written = read_tensors(file), read_metadata(file)
    ours = DETECTOR in written or BEFORE in written
    unchecked = "" if public else taken_from(config)
    if ours:
        unchecked = check(file, written, detector, config, zoomed)
    try:
        checkpoint = Checkpoint(OURS, True, tensors, {n: n for n in tensors}, []) if ours else read_bevdet(tensors)
        filled = fill_bevdet(detector, checkpoint)
    except WeightsMismatch as error:
        remedy = "set `finetune` to its sizes, or name its config by --public-config"
        raise UserError(f"{file}: is no detector of this config: {error}; {remedy}") from None
    return "\n".join(line for line in (f"{file.name}, {checkpoint.layout} layout", str(filled), unchecked) if line)


def save_detector(detector: BevDet, file: Path, config: FinetuneConfig) -> None:
    """Write the weights, with all that gives them their meaning."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    write_bytes(file, save(weights, metadata(detector, config)))
