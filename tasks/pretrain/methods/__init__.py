"""The ways of pretraining, `pretrain.method.name`: every module of this folder is one, and holds its `Config`."""

import operator
import pkgutil
from functools import reduce
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

CONFIGS = {found.name: import_module(f"{__name__}.{found.name}").Config for found in pkgutil.iter_modules(__path__)}

if TYPE_CHECKING:  # which is told no more than what all have in common
    from tasks.pretrain.method_config import MethodConfig as AnyMethod
else:
    AnyMethod = Annotated[reduce(operator.or_, CONFIGS.values()), Field(discriminator="name")]
