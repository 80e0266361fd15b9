"""The contract, with a stage of the test's own: a real module, run by the real `execute`."""

import os
import threading
import time

import numpy as np
import pytest

from common.errors import DataError, UserError
from common.settings import Settings, external_file, runtime
from driver import wait_for
from storage.artifact import Artifact
from storage.bev import BevAttributes, BevReader, BevWriter
from storage.leases import leases_folder
from storage.lock import is_locked, locked
from storage.manifest import Recipe
from tasks.engine.device_lock import alone
from tasks.engine.execute import execute
from tasks.engine.repair import repair
from tasks.engine.stage import Inputs, Stage, Step

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
    if config.word == "slow":
        import time
        while not (artifact.root / "go").exists():
            time.sleep(0.01)
    if config.word == "reads":
        from storage.bev import BevReader
        [BevReader(inputs["teacher"].path / "bev.zarr")[i] for i in range(4)]
    return {"lines": len(file.read_text().splitlines())}
def write(config, inputs, artifact, leases):
    import time
    with open(artifact.root / "wrote", "a") as out:
        out.write("once\\n")
    while not (artifact.root / "go").exists():
        time.sleep(0.01)
    return {}
"""


class ToyConfig(Settings):
    word: str = "a"
    device: str = runtime("cuda:0", "the device")


@pytest.fixture
def make_step(tmp_path, monkeypatch):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)

    def make(word="a", inputs=None, on_device=False, in_parts=False):
        inputs = inputs or {}
        recipe = Recipe(stage="toy", version=1, config={"word": word}, inputs={n: a.key for n, a in inputs.items()})
        stage = Stage("toy", "a toy", tuple(inputs), "toy:run", "ToyConfig", ("zarr",), ("*",), on_device, in_parts)
        artifact = Artifact(tmp_path / "root", "toy", recipe.key)
        return Step(stage, ToyConfig(word=word), recipe, artifact, Inputs(tmp_path, "v1.0-mini", inputs), "geomim toy")

    return make


def test_a_stage_runs_once(make_step):
    step = make_step()
    assert execute(step).summary == {"lines": 1}
    assert execute(step).summary == {"lines": 1}
    made = step.artifact.manifest().made
    assert made["packages"]["zarr"].startswith("3.")
    assert made["command"] == "geomim toy"
    assert (made["device"], made["changed"]) == ("cpu", made["changed"])
    assert len(made["commit"] or "0" * 40) == 40
    assert Step.from_json(made["step"] | {"stage": "ingest", "config": {}}).recipe == step.recipe


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


def test_a_damaged_artifact_is_made_afresh_and_kept(make_step, capfd):
    step = make_step()
    execute(step)
    (step.artifact.path / "lines").write_text("a\nb\nc\n")
    assert execute(step).summary == {"lines": 1}
    (aside,) = step.artifact.path.parent.glob("*.damaged-*")
    assert (aside / "lines").read_text() == "a\nb\nc\n"
    assert f"(lines has 6 bytes, not 2); it is kept as {aside.name} and made again" in capfd.readouterr().err


def test_a_flipped_byte_is_damage_too(make_step):
    step = make_step()
    execute(step)
    (step.artifact.path / "lines").write_text("b\n")
    assert execute(step).summary == {"lines": 1}
    assert (step.artifact.path / "lines").read_text() == "a\n"


def test_a_manifest_that_does_not_read_is_no_work_to_go_on_from(make_step):
    step = make_step()
    execute(step)
    (step.artifact.path / "manifest.json").write_text("{")
    assert execute(step).summary == {"lines": 1}
    assert len(list(step.artifact.path.parent.glob("*.damaged-*"))) == 1


def test_a_stray_file_deletes_nothing(make_step, capfd):
    """A note, or an export into the artifact's folder: the next run used to delete both."""
    step = make_step()
    execute(step)
    (step.artifact.path / "notes.md").write_text("mine")
    assert execute(step).summary == {"lines": 1}
    assert (step.artifact.path / "notes.md").read_text() == "mine"
    assert (step.artifact.path / "lines").read_text() == "a\n"
    assert "notes.md is no file of geomim's; it is left alone" in capfd.readouterr().err


def test_a_lost_recipe_makes_nothing_be_done_again(make_step):
    """All that it says stands in the manifest, from which `repair` writes it again."""
    step = make_step()
    execute(step)
    recipe, made = (step.artifact.path / "recipe.json"), step.artifact.manifest().created
    before = recipe.read_bytes()
    recipe.write_bytes(before[:-5])
    assert execute(step).created == made
    assert [damage.name for damage in repair(step.artifact.path)] == ["recipe.json"]
    assert recipe.read_bytes() == before
    assert not list(step.artifact.damages("all"))


def test_a_lost_log_makes_no_training_be_done_again(make_step, capfd):
    step = make_step()
    step.artifact.begin(step.recipe)
    (step.artifact.path / "metrics.jsonl").write_text("{}")
    execute(step)
    (step.artifact.path / "metrics.jsonl").unlink()
    assert execute(step).summary == {"lines": 1}
    assert not (step.artifact.path / "metrics.jsonl").exists()
    assert "metrics.jsonl is gone, with which nobody computes" in capfd.readouterr().err


def test_a_full_disk_is_one_sentence(make_step):
    with pytest.raises(UserError, match=r"lines: No space left on device; what is done is kept"):
        execute(make_step("full"))


def test_a_file_in_the_place_of_a_folder_is_one_sentence(make_step):
    step = make_step()
    step.artifact.root.mkdir(exist_ok=True)
    (step.artifact.root / "toy").write_text("a file")
    with pytest.raises(UserError, match=r"toy: cannot be written \(File exists\); choose another --root"):
        execute(step)


def test_a_missing_input_names_its_command(make_step, tmp_path):
    with pytest.raises(UserError, match=r"toy needs the ingest artifact .* run `geomim ingest` first"):
        execute(make_step(inputs={"ingest": Artifact(tmp_path / "root", "ingest", "0" * 64)}))


def test_a_damaged_input_is_named_before_it_is_used(make_step):
    needed = make_step()
    execute(needed)
    (needed.artifact.path / "lines").write_text("b\n")
    with pytest.raises(DataError, match=r"toy needs the toy artifact, and .*/lines has other bytes than were written"):
        execute(make_step("b", inputs={"other": needed.artifact}))


def test_the_second_of_two_runs_waits_and_takes_the_result(make_step, capfd):
    step = make_step("slow")
    summaries = []
    runs = [threading.Thread(target=lambda: summaries.append(execute(step).summary)) for _ in range(2)]
    runs[0].start()
    wait_for((step.artifact.path / "lines").exists)
    runs[1].start()
    err = wait_for(lambda: capfd.readouterr().err)
    assert err.startswith(f"toy: waiting for `geomim toy` (process {os.getpid()} on ")
    (step.artifact.root / "go").touch()
    for run in runs:
        run.join(20)
    assert summaries == [{"lines": 1}] * 2  # one line: it ran once


def test_force_waits_for_the_run_under_way_and_for_readers(make_step):
    step = make_step("slow")
    first = threading.Thread(target=execute, args=[step])
    first.start()
    wait_for((step.artifact.path / "lines").exists)
    second = threading.Thread(target=execute, args=[step, True])
    second.start()
    time.sleep(0.5)
    assert (step.artifact.path / "recipe.json").exists()  # nothing was removed under the first
    (step.artifact.root / "go").touch()
    first.join(20)
    second.join(20)
    assert step.artifact.is_intact()
    assert {"lines", "recipe.json"} <= {p.name for p in step.artifact.path.iterdir()}
    made = step.artifact.manifest().created, (step.artifact.path / "manifest.json").stat().st_mtime_ns
    with locked(step.artifact.path, "a reader", shared=True):
        third = threading.Thread(target=execute, args=[step, True])
        third.start()
        time.sleep(0.7)
        assert (step.artifact.path / "manifest.json").stat().st_mtime_ns == made[1]
    third.join(20)
    assert (step.artifact.path / "manifest.json").stat().st_mtime_ns > made[1]
    assert not is_locked(step.artifact.path)


def test_who_waits_for_the_device_lacks_nothing_else(make_step, tmp_path, monkeypatch, capfd):
    """What is cached waits for nobody's week of training, and a missing input is said at once."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    there, new = make_step(on_device=True), make_step("b", on_device=True)
    execute(there)
    lacking = make_step(inputs={"ingest": Artifact(tmp_path / "root", "ingest", "0" * 64)}, on_device=True)
    with alone(["gpu-7"], "another training", "pretrain"):
        assert execute(there).summary == {"lines": 1}
        with pytest.raises(UserError, match="run `geomim ingest` first"):
            execute(lacking)
        waiting = threading.Thread(target=execute, args=[new])
        waiting.start()
        assert "toy: waiting for `another training`" in wait_for(lambda: capfd.readouterr().err)
        assert not new.artifact.path.exists()
    waiting.join(20)
    assert new.artifact.is_intact()


def test_parts_that_were_done_while_the_gpu_was_waited_for_are_not_begun_again(make_step, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    step, summaries = make_step(on_device=True, in_parts=True), []
    runs = [threading.Thread(target=lambda: summaries.append(execute(step).summary)) for _ in range(2)]
    runs[0].start()
    wait_for((step.artifact.root / "wrote").exists)
    runs[1].start()
    assert "toy: waiting for `geomim toy`" in wait_for(lambda: capfd.readouterr().err)
    (step.artifact.root / "go").touch()
    for run in runs:
        run.join(20)
    assert summaries == [{"lines": 1}] * 2
    assert (step.artifact.root / "wrote").read_text() == "once\n"
    assert not leases_folder(step.artifact.path).exists()


MAPS = np.random.default_rng(0).normal(size=(4, 1, 2, 4, 4))


@pytest.fixture
def cache(make_step):
    """A finished artifact that holds a store in parts, of another toy stage."""
    step = make_step("cache")
    step.artifact.begin(step.recipe)
    attributes = BevAttributes((-2.0, -2.0, -1.0, 2.0, 2.0, 1.0), (1.0, 1.0), part_size=1)
    writer = BevWriter(step.artifact.path / "bev.zarr", np.array(list("abcd")), (2, 4, 4), attributes)
    for part in range(4):
        writer.write(part, MAPS[part])
    step.artifact.finish(step.recipe, {}, 1.0, {})
    return step


def test_damage_that_a_reader_meets_is_one_sentence(make_step, cache, monkeypatch):
    """In the shard of a big store, which is not read beforehand."""
    monkeypatch.setattr("storage.manifest.SMALL_STORE", 0)
    shard = BevReader(cache.artifact.path / "bev.zarr").arrays["value"].file(2)
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match=rf"{shard}: cannot be read .*; `geomim repair {cache.artifact.path}` mends it"):
        execute(make_step("reads", inputs={"teacher": cache.artifact}))


def test_a_store_in_parts_keeps_what_is_good_of_it(cache):
    """The manifest goes, so that its stage takes the store up again and makes the damaged parts; no more than that."""
    shard = BevReader(cache.artifact.path / "bev.zarr").arrays["value"].file(2)
    shard.write_bytes(b"")
    execute(cache)
    assert list(cache.artifact.path.parent.glob("*.damaged-*")) == []
    assert cache.artifact.is_intact()
    for part in (0, 1, 3):
        assert (cache.artifact.path / "bev.zarr" / "done" / "c" / str(part)).exists()


class NestedConfig(Settings):
    toy: ToyConfig = ToyConfig()
    weights: str = external_file("random", "weights", words=("random",))
    workers: int = runtime(1, "processes")


def test_key_fields_leave_out_how(make_step):
    assert NestedConfig(workers=3).key_fields() == {"toy": {"word": "a"}, "weights": "random"}
    assert NestedConfig(weights="a.pth").external_files().keys() == {"weights"}
    assert "a.pth" not in str(NestedConfig(weights="a.pth").key_fields())
