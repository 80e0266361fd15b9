"""A public GeoMIM config against ours."""

from operator import attrgetter
from pathlib import Path

from common.errors import UserError
from models.geomim.model import GeoMIM
from models.public.geomim import read_geomim
from models.public.used import UnreadableConfig
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.methods.geomim import Config
from tasks.public_config import read_public_config


def check_public(config: PretrainConfig, method: Config, model: GeoMIM) -> None:
    """Refuse a `public_config` that contradicts ours, or the teacher's grid. Raises UserError."""
    assert method.public_config is not None  # whoever asks has seen one
    file = Path(method.public_config)
    try:
        public = read_geomim(read_public_config(file))
    except UnreadableConfig as error:
        raise UserError(f"{file}: {error}") from None
    swin, decoder = public.student.backbone, public.student.decoder
    image_size, view = public.view.image_size, public.view.transform
    told = {
        "backbone.embed_dim": swin.embed_dim,
        "backbone.depths": swin.depths,
        "backbone.num_heads": swin.num_heads,
        "backbone.window_sizes": swin.window_sizes,
        "backbone.pretrain_grid": swin.pretrain_grid,
        "method.decoder.width": decoder.width,
        "method.decoder.num_heads": decoder.num_heads,
        "method.decoder.depth": decoder.depth,
        "method.decoder.cross_view": True,  # the public code's way, whatever its config, as are the next two
        "method.decoder.geometry_branch": True,
        "method.decoder.camera_aware": True,
        "image.size": image_size,
        "method.depth_bins": (view.bins.low, view.bins.high, view.bins.step),
        "method.context": view.context,
        "method.height": view.grid.z,
    }
    ours = {"backbone": config.backbone, "image": config.image, "method": method}
    for name, value in told.items():
        section, _, field = name.partition(".")
        if value != (now := attrgetter(field)(ours[section])):
            raise UserError(f"{file}: says pretrain.{name} = {value}, and the config says {now}; set it so")
    grid = model.view_transform.grid
    pairs = zip((*view.grid.x, *view.grid.y, view.grid.cell), (*grid.x, *grid.y, grid.cell))
    if any(abs(a - b) > 1e-6 for a, b in pairs):
        ratio = f"pretrain.method.splat_ratio {method.splat_ratio}"
        raise UserError(
            f"{file}: splats into x {view.grid.x}, y {view.grid.y} by {view.grid.cell} m, and the teacher's grid with "
            f"{ratio} is x {grid.x}, y {grid.y} by {grid.cell:g} m; make them agree"
        )
