"""The classes of a public config: an order that weights know by place alone."""

from collections.abc import Mapping
from typing import Any

from models.names import CLASSES
from models.public.used import UnreadableConfig, Used


def check_classes(config: Mapping[str, Any]) -> None:
    """Raises UnreadableConfig where a whole config names others than nuScenes' ten, or in another order."""
    for key in ("class_names", "object_classes"):
        if key in config and (names := Used(config, "").texts(key)) != CLASSES:
            raise UnreadableConfig(f"{key} is {list(names)}: only the order {list(CLASSES)} is implemented here")
