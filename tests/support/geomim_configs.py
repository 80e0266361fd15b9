"""Configs and batches of GeoMIM's pretraining, from the fields of both together."""

from pathlib import Path
from typing import Any

from batches.geomim import GeoMIMBatches
from batches.masked import MaskedImages
from storage.bev import BevReader
from storage.depth import DepthReader
from storage.index import Index
from tasks.pretrain.config import PretrainConfig
from tasks.pretrain.methods.geomim import Config


def geomim_config(**fields: Any) -> PretrainConfig:
    """Fields of the method go into its section."""
    method = {name: fields.pop(name) for name in list(fields) if name in Config.model_fields and name != "name"}
    return PretrainConfig(method={"name": "geomim", **method}, **fields)


def changed(config: PretrainConfig, **fields: Any) -> PretrainConfig:
    """The same with other values, of its method or its own."""
    method = {name: fields.pop(name) for name in list(fields) if name in Config.model_fields}
    return config.model_copy(update=fields | {"method": config.method.model_copy(update=method)})


def geomim_batches(
    config: PretrainConfig, dataroot: Path, index: Index, bev: BevReader, depth: DepthReader
) -> GeoMIMBatches:
    return GeoMIMBatches(MaskedImages(config, config.method, index, dataroot), config.method, bev, depth)
