"""Public config files of other people's code."""

from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from models.public.source import parse


def read_public_config(path: Path) -> dict[str, Any]:
    """The values of a file by name. Raises UserError for one that is missing, no config, or cannot be read whole."""
    try:
        values = parse(path.read_text(encoding="utf-8-sig"), path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name a public config file") from None
    except (ValueError, SyntaxError, yaml.YAMLError, RecursionError, MemoryError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: is no config in JSON, YAML or Python, by its name's ending ({reason})") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: must hold sections such as `model:`, not a {type(values).__name__}")
    return values
