"""What made an artifact: code, packages, device and command, for the record in its manifest."""

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from tasks.engine.stage import Step

REPOSITORY = Path(__file__).resolve().parents[2]


def provenance(step: Step) -> dict[str, Any]:
    """JSON-able: `geomim` (version), `commit` and whether files differ from it (`changed`; null outside a clone),
    `python`, `packages`, `machine`, `device`, `command`, and `step`, which runs it again."""
    packages = ("geomim", *step.stage.packages)
    versions = {package: importlib.metadata.version(package) for package in packages}
    commit, changed = code()
    return {
        "geomim": versions.pop("geomim"),
        "commit": commit,
        "changed": changed,
        "python": platform.python_version(),
        "packages": versions,
        "machine": f"{platform.system()} {platform.machine()}",
        "device": device(getattr(step.config, "device", "cpu")),
        "command": step.command,
        "step": step.as_json(),
    }


def code() -> tuple[str | None, bool | None]:
    """The commit of this code and whether its files differ from it; (None, None) where git cannot say."""
    try:
        commit = _git("rev-parse", "HEAD").strip()
        return commit, bool(_git("status", "--porcelain", "--untracked-files=no").strip())
    except (OSError, subprocess.SubprocessError):
        return None, None


def device(field: str) -> str:
    """Where a stage with this `device` field computed: the GPUs' names, or cpu."""
    torch = sys.modules.get("torch")  # a stage that has not imported it has used no GPU
    if torch is None or field == "cpu" or not torch.cuda.is_available():
        return "cpu"
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"{field}: {', '.join(names)}"


def _git(*arguments: str) -> str:
    # Without optional locks: a kill would leave one behind, and a user's next commit would fail.
    command = ["git", "--no-optional-locks", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout
