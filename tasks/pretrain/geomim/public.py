"""A public GeoMIM config against ours."""

from operator import attrgetter
from pathlib import Path

from common.errors import UserError
from models.geomim.model import GeoMIM
from models.public.geomim import read_geomim
from models.public.used import UnreadableConfig
from tasks.pretrain.config import PretrainConfig
from tasks.public_config import read_public_config


def check_public(config: PretrainConfig, model: GeoMIM) -> None:
    """Refuse a public config that contradicts ours, or the teacher's grid. Raises UserError."""
    file = Path(config.method.public_config)
    try:
        public = read_geomim(read_public_config(file))
    except UnreadableConfig as error:
        raise UserError(f"{file}: {error}") from None
    swin, decoder, view = public.student.backbone, public.student.decoder, public.view
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
        "image.size": view.image_size,
        "method.depth_bins": (view.bins.low, view.bins.high, view.bins.step),
        "method.context": view.context,
        "method.height": view.grid.z,
    }
    for name, value in told.items():
        if value != (now := attrgetter(name)(config)):
            raise UserError(f"{file}: says pretrain.{name} = {value}, and the config says {now}; set it so")
    ours = model.view_transform.grid
    pairs = zip((*view.grid.x, *view.grid.y, view.grid.cell), (*ours.x, *ours.y, ours.cell))
    if any(abs(a - b) > 1e-6 for a, b in pairs):
        ratio = f"pretrain.method.splat_ratio {config.method.splat_ratio}"
        raise UserError(
            f"{file}: splats into x {view.grid.x}, y {view.grid.y} by {view.grid.cell} m, and the teacher's grid with "
            f"{ratio} is x {ours.x}, y {ours.y} by {ours.cell:g} m; make them agree"
        )
