from pathlib import Path

import pytest

from finetune_world import world  # noqa: F401
from storage.artifact import Artifact


@pytest.fixture
def artifact(tmp_path) -> Artifact:
    made = Artifact(Path(tmp_path), "finetune", "0" * 16)
    made.path.mkdir(parents=True)
    return made
