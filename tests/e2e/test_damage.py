"""What is damaged is told, set aside or made again in part; what is whole and what is a user's own stays."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import zarr

from driver import GEOMIM, environment
from storage.artifact import Artifact


def artifact_of(cli, node) -> Artifact:
    row = cli.status()[node]
    return Artifact(cli.root, node, row["key"])


def flip(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def contents(artifact) -> dict[str, bytes]:
    return {str(p.relative_to(artifact.path)): p.read_bytes() for p in artifact.path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("lost", [False, True], ids=["flipped", "deleted"])
def test_a_damaged_part_alone_is_made_again(cli, lost):
    artifact = artifact_of(cli, "depth")
    before, store = contents(artifact), artifact.path / "depth.zarr"
    shards = sorted(file for file in (store / "u" / "c").rglob("*") if file.is_file())
    times = {file: file.stat().st_mtime_ns for file in store.rglob("*") if file.is_file()}
    shards[1].unlink() if lost else flip(shards[1])
    told = cli.store("verify", "depth", code=1)
    assert "depth.zarr/u/c/" in told.stdout
    assert "geomim repair" in told.stderr
    refused = cli("pretrain", "--force", code=1)
    assert f"geomim repair {artifact.path}" in refused.stderr
    assert "Traceback" not in refused.stderr
    cli.store("repair", artifact.path)
    cli.store("verify", "--all")
    after = contents(artifact)
    assert {name for name in before if before[name] != after.get(name)} <= {"manifest.json"}
    part = shards[1].relative_to(store / "u" / "c").parts[0]
    again = {file.relative_to(store).parts for file, time in times.items() if file.stat().st_mtime_ns != time}
    assert again
    assert {(place[1], place[2]) for place in again} == {("c", part)}


def test_a_run_sets_what_is_damaged_aside_and_makes_it_again(cli):
    artifact = artifact_of(cli, "fit")
    flip(artifact.path / "detector.safetensors")
    told = cli("fit")
    assert "it is kept as" in told.stderr
    (aside,) = (cli.root / "fit").glob("*.damaged-*")
    assert (aside / "detector.safetensors").is_file()
    assert not list(artifact.damages("all"))


def test_a_damaged_log_is_no_reason_to_train_again(cli):
    artifact = artifact_of(cli, "fit")
    weights = (artifact.path / "detector.safetensors").stat().st_mtime_ns
    (log,) = artifact.path.rglob("metrics.jsonl")
    flip(log)
    assert "with which nobody computes" in cli("fit").stderr
    cli.store("repair", artifact.path)
    cli.store("verify", "fit")
    assert (artifact.path / "detector.safetensors").stat().st_mtime_ns == weights
    assert list(log.parent.glob("metrics.jsonl.damaged-*"))


def test_repair_moves_nothing_where_what_it_needs_is_gone(cli):
    artifact = artifact_of(cli, "pretrain")
    flip(artifact.path / "backbone.safetensors")
    before = contents(artifact)
    artifact_of(cli, "teacher").remove()
    assert "run `geomim teacher` first" in cli.store("repair", artifact.path, code=2).stderr
    assert contents(artifact) == before


def test_what_stands_in_unfinished_work_stays_its_owners(cli):
    artifact = artifact_of(cli, "depth")
    before = contents(artifact)
    artifact.unfinish()
    (artifact.path / "notes.txt").write_text("mine")
    (artifact.path / ".notes").write_text("mine too")
    (artifact.path / "depth.zarr" / "token" / "c" / "0").write_bytes(b"")
    told = cli("depth").stderr
    (aside,) = artifact.path.glob("depth.zarr.damaged-*")
    assert f"kept as {aside.name}" in told
    assert artifact.manifest().files.keys() == before.keys() - {"manifest.json"}
    (artifact.path / "notes.txt").write_text("more of mine")
    cli("depth")
    cli.store("verify", "depth")
    assert (artifact.path / "notes.txt").read_text() == "more of mine"
    assert (artifact.path / ".notes").exists()


def test_every_file_of_a_finished_artifact_is_its_stages_own(finished):
    """What a stage leaves and does not name among its outputs would be a stray file, unchecked."""
    done, _ = finished
    for row in done.status().values():
        artifact = Artifact(done.root, Path(row["path"]).parent.name, row["key"])
        assert artifact.extras() == []
        assert [path.name for path in artifact.path.iterdir() if path.name.startswith(".")] == []


def test_what_is_shown_or_handed_on_is_what_was_written(cli, tmp_path):
    """One digit of a score, one bit of the weights: sizes, which the plan looks at, stay."""
    metrics = artifact_of(cli, "evaluate").path / "metrics.json"
    told = metrics.read_text()
    metrics.write_text(told.replace('"NDS": 0', '"NDS": 9', 1))
    refused = cli("run", code=1)
    assert "metrics.json has other bytes than were written: run `geomim repair" in refused.stderr
    assert f"NDS {9 + json.loads(told)['NDS']:.4f}" not in refused.stdout
    metrics.write_text(told)

    weights = artifact_of(cli, "pretrain").path / "backbone.safetensors"
    flip(weights)
    for source in (weights.parent, weights):
        done = subprocess.run(
            [GEOMIM, "export", source, tmp_path / "out.pth", "--layout", "swin"],
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert f"run `geomim repair {weights.parent}`" in done.stderr
    assert not (tmp_path / "out.pth").exists()
    begun = cli("finetune", "--checkpoint", weights, code=1)
    assert f"finetune.init is {weights}, and {weights} has other bytes than were written" in begun.stderr


def test_a_note_and_consolidated_metadata_do_no_harm(cli):
    artifact = artifact_of(cli, "teacher")
    before = contents(artifact)
    (artifact.path / "NOTES.txt").write_text("the good one")
    zarr.consolidate_metadata(artifact.path / "bev.zarr")
    cli("run")
    cli.store("verify", "--all")
    after = contents(artifact)
    assert {name for name in before if before[name] != after.get(name)} <= {"bev.zarr/zarr.json"}
    assert (artifact.path / "NOTES.txt").is_file()


def test_an_artifact_is_copied_whole_with_what_it_was_made_from(cli, tmp_path):
    artifact = artifact_of(cli, "evaluate")
    command = [GEOMIM, "cp", artifact.path, tmp_path / "copy", "--inputs"]
    subprocess.run(command, check=True, env=environment(), capture_output=True)
    shutil.rmtree(cli.root)
    moved = type(cli)(cli.dataroot, tmp_path / "copy")
    rows = moved.status()
    assert {name for name, row in rows.items() if row["state"] == "cached"} == {
        "ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate",
    }  # fmt: skip
