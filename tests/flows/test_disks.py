"""Commands on a full disk and in folders that cannot be written: one sentence, or they do without."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from disks import closed, full
from driver import GEOMIM, TINY, environment
from simulate.config import SimulateConfig
from simulate.write import simulate
from storage.artifact import Artifact
from storage.lock import lock_file, locked
from storage.manifest import Recipe

RECIPE = Recipe(stage="depth", version=1, config={}, inputs={})


@pytest.fixture
def folder():
    """One that everybody may enter, as pytest's own are not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def artifact(folder):
    artifact = Artifact(folder / "root", "depth", RECIPE.key)
    artifact.begin(RECIPE)
    (artifact.path / "result").write_text("result" * 100)
    artifact.finish(RECIPE, {}, 1.0, {})
    return artifact


@pytest.mark.parametrize("command", ["cp", "pin", "simulate"])
def test_a_full_disk_is_one_sentence(artifact, folder, command):
    words = {
        "cp": [artifact.path, folder / "other"],
        "pin": [artifact.path, "--note", "why " * 50],
        "simulate": [folder / "world", "--config", TINY],
    }[command]
    done = subprocess.run(
        [str(word) for word in (GEOMIM, command, *words)],
        env=environment(),
        preexec_fn=full,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"geomim: {folder}/")
    assert done.stderr.endswith(": File too large; make room and run the same command again\n")


def test_who_only_reads_needs_no_lock_where_nobody_can_write(artifact, folder, geomim):
    """The main use of `cp`: a shared mount."""
    geomim("cp", artifact.path, folder / "first")  # imports what it takes, from folders that may be ours alone
    with closed(folder / "root"):
        code, _, told = geomim("cp", artifact.path, folder / "other")
    assert (code, told) == (0, "")
    assert (folder / "other" / "depth" / artifact.path.name / "manifest.json").is_file()


def test_what_cannot_be_written_is_one_sentence(artifact, folder, geomim):
    geomim("pin", artifact.path)  # imports what it takes
    geomim("pin", artifact.path, "--remove")
    with closed(folder / "root"):
        code, _, told = geomim("pin", artifact.path)
        assert code == 2
        assert "Permission denied; see who may read and write there" in told
        with pytest.raises(PermissionError), locked(artifact.path, "geomim depth"):
            pass
        with locked(artifact.path, "geomim cp", shared=True):
            assert not lock_file(artifact.path).exists()


def test_a_finished_world_is_used_where_nobody_can_write(folder):
    world = (SimulateConfig(keyframes=2, image_scale=0.1, lidar_rate=2), folder / "data" / "world", ("scene-0061",))
    made = simulate(*world)
    with closed(folder / "data"):
        assert simulate(*world) == made | {"seconds": 0.0}
