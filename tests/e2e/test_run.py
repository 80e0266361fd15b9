"""The five stages with one command, and what a second command finds."""

import shutil
import subprocess

import pytest

from driver import GEOMIM, TINY, Cli, environment

pytestmark = pytest.mark.e2e
STAGES = ["ingest", "fit", "teacher", "depth", "pretrain", "finetune", "evaluate"]
STAGES += ["finetune-baseline", "evaluate-baseline"]


def test_one_command_runs_all_stages_and_prints_the_evaluation(finished):
    cli, output = finished
    assert "Camera detector" in output.stdout
    assert "from pretrained weights" in output.stdout
    assert "NDS" in output.stdout
    assert output.stdout.splitlines()[-1].startswith(f"geomim report --config {TINY} --root {cli.root} --dataroot")
    for line in (output.stdout + output.stderr).splitlines():
        assert "Traceback" not in line
        assert "Warning" not in line
    assert {name: row["state"] for name, row in cli.status().items()} == dict.fromkeys(STAGES, "cached")


def test_a_second_run_starts_no_server_and_runs_nothing(finished):
    cli, _ = finished
    log = cli.root / ".prefect" / "server.log"
    before = log.stat().st_mtime_ns
    again = cli("run")
    assert log.stat().st_mtime_ns == before
    assert again.stdout.count("cached") == len(STAGES)


def test_a_dry_run_says_what_would_run_and_why_and_runs_nothing(finished):
    cli, _ = finished
    output = cli("run", "--dry-run", "--set", "depth.sweeps=0").stdout
    assert "depth.sweeps: 1 -> 0" in output
    assert "input depth changed" in output
    states = {name: row["state"] for name, row in cli.status("--set", "depth.sweeps=0").items()}
    assert states == {
        "ingest": "cached",
        "fit": "cached",
        "teacher": "cached",
        "depth": "run",
        "pretrain": "run",
        "finetune": "run",
        "evaluate": "run",
        "finetune-baseline": "run",  # whose depth is supervised, too
        "evaluate-baseline": "run",
    }


def test_only_what_changed_or_is_gone_runs_and_it_is_cached_then(cli, tmp_path):
    """What was deleted is made again though Prefect remembers it."""
    assert (cli.root / ".prefect" / "prefect.db").is_file()
    ingest = cli.path("ingest")
    before = (ingest / "index.zarr" / "token" / "zarr.json").read_bytes()
    others = {path: path.stat().st_mtime_ns for path in cli.root.glob("*/*/manifest.json") if path.parent != ingest}
    ingest.rename(tmp_path / "away")
    cli("run", "--set", "depth.sweeps=0", "--to", "depth")
    assert (ingest / "index.zarr" / "token" / "zarr.json").read_bytes() == before
    states = {name: row["state"] for name, row in cli.status("--set", "depth.sweeps=0").items()}
    assert [states[name] for name in ("ingest", "fit", "teacher", "depth")] == ["cached"] * 4
    assert states["pretrain"] == "run"
    assert {path: path.stat().st_mtime_ns for path in others} == others


def test_force_runs_a_cached_stage(cli):
    made = (cli.path("depth") / "manifest.json").stat().st_mtime_ns
    cli("depth", "--force")
    assert (cli.path("depth") / "manifest.json").stat().st_mtime_ns > made


def without_artifacts(finished, root, servers=1):
    """A root in which there is nothing but what Prefect remembers: to set up an empty database takes seconds."""
    for number in range(servers):
        shutil.copytree(finished[0].root / ".prefect", root / (f".prefect-{number + 1}" if number else ".prefect"))
    return root


def test_two_runs_at_once_share_the_work(finished, world, tmp_path):
    """On a root without artifacts: each has a Prefect server of its own, and what one makes the other takes."""
    cli = Cli(world, without_artifacts(finished, tmp_path / "artifacts", servers=2))
    runs = [cli.start("run", "--to", "ingest") for _ in range(2)]
    told = [run.communicate(timeout=500)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert not any("Traceback" in text for text in told)
    assert len(list((cli.root / "ingest").glob("*/manifest.json"))) == 1


def test_a_mistake_in_a_run_exits_with_2(cli):
    done = cli("run", "--to", "teacher", "--force", "teacher", "--set", "teacher.min_map=0.9", code=2)
    assert "is below teacher.min_map = 0.9" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_whose_input_is_missing_names_the_command(world, tmp_path):
    failed = Cli(world, tmp_path / "empty")("depth", code=2)
    assert "run `geomim ingest` first" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_status_loads_no_numpy_and_inspect_neither_torch_nor_prefect(finished):
    cli, _ = finished
    code = (
        "import sys; from flows.cli import app\n"
        f"app({cli.command('status', '--json')[1:]!r}, standalone_mode=False)\n"
        "assert 'numpy' not in sys.modules\n"
        f"app(['inspect', {str(cli.path('teacher'))!r}], standalone_mode=False)\n"
        "print([m for m in ('torch', 'prefect') if m in sys.modules], file=sys.stderr)"
    )
    python = GEOMIM.with_name("python")
    done = subprocess.run([python, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"  # which take seconds; bench/commands.py has the clock


def test_inspect_shows_the_store(finished):
    cli, _ = finished
    shown = subprocess.run(
        [GEOMIM, "inspect", cli.path("depth")], env=environment(), capture_output=True, text=True, check=True
    ).stdout
    for word in ("whole", "depth.zarr", "count", "sample, camera, slot", "depth.png"):
        assert word in shown


def test_a_data_fault_exits_with_1_and_the_table(finished, world, tmp_path):
    broken = tmp_path / "data"
    shutil.copytree(world, broken)
    victim = next((broken / "samples" / "LIDAR_TOP").iterdir())
    victim.write_bytes(b"")
    failed = Cli(broken, without_artifacts(finished, tmp_path / "root"))("run", code=1)
    assert victim.name in failed.stdout + failed.stderr
    assert "Traceback" not in failed.stdout + failed.stderr
    assert not list((tmp_path / "root" / "ingest").glob("*/manifest.json"))
