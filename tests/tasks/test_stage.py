"""The contract, with a stage of the test's own: a real module, run by the real `execute`."""

import subprocess
import sys

import pytest

from storage.artifact import Artifact, Recipe
from tasks.errors import UserError
from tasks.settings import Settings, external_file, runtime
from tasks.stage import Inputs, Stage, Step, execute

TOY = """
import errno
def run(config, inputs, artifact):
    file = artifact.path / "lines"
    with open(file, "a") as out:
        out.write(f"{config.word}\\n")
    if config.word == "full":
        raise OSError(errno.ENOSPC, "No space left on device", str(file))
    if config.word == "crash":
        raise RuntimeError("crash")
    return {"lines": len(file.read_text().splitlines())}
"""


class ToyConfig(Settings):
    word: str = "a"


@pytest.fixture
def make_step(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)

    def make(word="a", inputs=None):
        inputs = inputs or {}
        recipe = Recipe(stage="toy", version=1, config={"word": word}, inputs={n: a.key for n, a in inputs.items()})
        stage = Stage("toy", "a toy", tuple(inputs), "toy:run", ("zarr",))
        artifact = Artifact(tmp_path / "root", "toy", recipe.key)
        return Step(stage, ToyConfig(word=word), recipe, artifact, Inputs(tmp_path, "v1.0-mini", inputs))

    return make


def test_a_stage_runs_once(make_step):
    step = make_step()
    assert execute(step).summary == {"lines": 1}
    assert execute(step).summary == {"lines": 1}
    assert step.artifact.manifest().made_with["zarr"].startswith("3.")


def test_an_interrupted_run_is_taken_up(make_step):
    step = make_step()
    step.artifact.begin(step.recipe)
    (step.artifact.path / "lines").write_text("from before\n")
    assert execute(step).summary == {"lines": 2}


def test_a_crash_leaves_no_artifact_but_keeps_the_work(make_step):
    step = make_step("crash")
    with pytest.raises(RuntimeError):
        execute(step)
    assert step.artifact.manifest() is None
    assert (step.artifact.path / "lines").is_file()


def test_a_damaged_artifact_is_made_afresh(make_step):
    step = make_step()
    execute(step)
    (step.artifact.path / "lines").write_text("a\nb\nc\n")
    assert execute(step).summary == {"lines": 1}


def test_a_full_disk_is_one_sentence(make_step):
    with pytest.raises(UserError, match=r"lines: No space left on device; what is done is kept"):
        execute(make_step("full"))


def test_a_missing_input_names_its_command(make_step, tmp_path):
    with pytest.raises(UserError, match=r"toy needs the ingest artifact .* run `geomim ingest` first"):
        execute(make_step(inputs={"ingest": Artifact(tmp_path / "root", "ingest", "0" * 64)}))


def test_two_processes_do_not_work_on_one_artifact(make_step, tmp_path):
    step = make_step()
    lock = step.artifact.path.with_name(f".{step.artifact.path.name}.lock")
    lock.parent.mkdir(parents=True)
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(1, flush=True); sys.stdin.read()"
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout.readline() == "1\n"
    with pytest.raises(UserError, match="another process is working on it"):
        execute(step)
    holder.kill()
    holder.communicate()
    assert execute(step).summary == {"lines": 1}


class NestedConfig(Settings):
    toy: ToyConfig = ToyConfig()
    weights: str = external_file("random", "weights", words=("random",))
    workers: int = runtime(1, "processes")


def test_key_fields_leave_out_how(make_step):
    assert NestedConfig(workers=3).key_fields() == {"toy": {"word": "a"}, "weights": "random"}
    assert NestedConfig(weights="a.pth").external_files().keys() == {"weights"}
    assert "a.pth" not in str(NestedConfig(weights="a.pth").key_fields())
