"""Every command in the documents' bash blocks is run, on the tests' tiny world, or stands in NOT_RUN with the reason.

A document's commands are run in their order, in a folder of their own: its `artifacts` is a copy of the finished run,
its `configs` are all the tests' tiny one, and PLACES says what stands for a reader's folders and keys.
"""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from documents import DOCUMENTS, REPOSITORY, commands, name, words_of_geomim
from driver import TINY
from finished_run import common, finished
from flows import cli
from tasks.engine.child import run_in_child

__all__ = ["common", "finished"]

# Why it is not run -> the commands; a * at the end stands for whatever follows.
NOT_RUN = {
    "is the shell's": ("source .venv/bin/activate", "export *"),
    "sets up an environment and takes minutes; continuous integration runs both": ("make demo", "make test"),
    "needs a server and a worker, which tests/e2e/test_deployments.py has": ("prefect *",),
    "needs Docker, or Kubernetes": (
        "docker *",
        "pip install 'prefect[docker]' *",
        "GEOMIM_IMAGE=REGISTRY/geomim *",
    ),
    "needs several machines; tests/e2e/test_torchrun.py has two agents on one, tests/test_sbatch.py the script": (
        "torchrun *",
        "sbatch deploy/pretrain.sbatch",
        "srun --kill-on-bad-exit=1 *",
    ),
    "is another project's page": ("tensorboard --logdir artifacts",),
    "needs Rerun, which the lock leaves out; with it, tests/gallery/test_recording.py does the same": (
        "pip install 'rerun-sdk*",
        "geomim view --rerun *",
        "geomim view artifacts/teacher/0123456789abcdef --rerun *",
        "geomim view /data/nuscenes --version v1.0-mini --rerun *",
        "rerun *",
    ),
    "needs py123d, which the lock leaves out; with it, tests/dataroot/imported/test_import.py does the same": (
        "geomim import *",
        "geomim config init waymo.yaml --dataroot /data/waymo",
    ),
    "takes minutes; all these tests stand on a world that it made": ("geomim simulate data/world *",),
    "takes minutes to hours: tests/e2e runs such things on the tiny world": (
        "geomim run --config configs/demo.yaml --set evaluate.score_threshold=0.1",
        "geomim run --config configs/demo.yaml --set pretrain.steps=400",
        "geomim run --config my.yaml",
        "geomim finetune --config mine.yaml --set ingest.lidar=false *",
        "geomim run --config CONFIG --set pretrain.init=backbone.safetensors",
        "geomim pretrain --config configs/demo.yaml --set 'pretrain.method=*",
        "geomim fit --config ... --set 'fit.skip_samples=*",
        "geomim experiment gain *",
        "geomim run --config configs/demo.yaml --set cluster.runner=dask *",
    ),
    "needs a checkpoint that others have published": (
        "geomim run --config configs/geomim-swin-b.yaml --dataroot /data/nuscenes --version v1.0-trainval *",
        "geomim run --config configs/geomim-swin-b.yaml --dataroot /data/nuscenes --root /mnt/shared/artifacts *",
        "geomim teacher --config configs/geomim-swin-b.yaml *",
        "geomim pretrain --config configs/geomim-swin-b.yaml --dataroot /data/nuscenes --set pretrain.init=*",
        "geomim teacher --checkpoint lidar.pth *",
        "geomim teacher --dataroot /data/nuscenes --set teacher.mmdet3d=*",
        "geomim finetune --eval-only --checkpoint epoch_20_ema.pth *",
        "geomim finetune --config configs/released/bevdet4d-geomim.yaml --eval-only *",
    ),
}
PLACES = {
    r"/data/(nuscenes|mine)|data/world|DIR": "data",
    r"/scratch/artifacts": "artifacts",
    r"/mnt/shared/artifacts|DST": "shared",
    r"artifacts/(\w+)/(?:0123456789abcdef|KEY)": r"artifacts/\1/first",
    r"artifacts/(\w+)/fedcba9876543210": r"artifacts/\1/last",
    r"ARTIFACT|SRC": "artifacts/depth/first",
    r"CONFIG": "configs/demo.yaml",
    r"v1\.0-trainval": "v1.0-mini",
}
ANSWERS = {"diff": (0, 1), "doctor": (0, 1)}  # exit codes, where 1 is no failure
SECONDS = ("ingest", "depth")  # stages that take no more, here
REMEDY = "mend it, or, where it cannot be run here, say why in NOT_RUN of tests/test_doc_commands.py"


def marks(command: str) -> list[str]:
    """The entries of NOT_RUN that mean a command."""
    entries = [entry for entries in NOT_RUN.values() for entry in entries]
    return [e for e in entries if (command.startswith(e[:-1]) if e.endswith("*") else command == e)]


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """Where a document's commands are typed: what its reader has."""
    tiny = yaml.safe_dump(yaml.safe_load(TINY.read_text()) | {"dataroot": "data"})
    for file in [Path("mine.yaml"), *(file.relative_to(REPOSITORY) for file in REPOSITORY.glob("configs/**/*.yaml"))]:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(tiny)
    (tmp_path / "data").symlink_to(finished[0].dataroot)
    shutil.copytree(finished[0].root, tmp_path / "artifacts", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(finished[0].path("evaluate") / "results_nusc.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEOMIM_ROOT", raising=False)
    monkeypatch.setenv("GEOMIM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("flows.view._has_screen", lambda: False)
    monkeypatch.setattr("webbrowser.open", lambda address: True)
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)  # what `geomim view` does until Ctrl-C
    monkeypatch.setattr("flows.local.prefect_server", lambda home: pytest.fail("it would compute"))
    monkeypatch.setattr("flows.local.run_in_child", short)
    return tmp_path


def short(step, force):
    """In place of `run_in_child`: nothing where it is cached, and no more than is done in seconds."""
    if step.artifact.has_manifest() and not force:
        return
    if step.stage.name not in SECONDS:
        pytest.fail(f"it would compute {step.stage.name}")
    run_in_child(step, force)


def typed(command: str, folder: Path) -> list[str]:
    """The words behind `geomim` as a reader would type them here."""
    token = next(iter(json.loads((folder / "results_nusc.json").read_text())["results"]))
    for place, here in {**PLACES, "3e8750f3": token[:8], "s3://bucket/artifacts": f"file://{folder}/bucket"}.items():
        command = re.sub(rf"(?<![\w/.-])(?:{place})(?![\w-])", here, command)
    out = []
    for word in words_of_geomim(command):
        if found := re.fullmatch(r"(artifacts/\w+)/(first|last)", word):
            keys = sorted((folder / found[1]).iterdir())
            out.append(f"{found[1]}/{keys[0 if found[2] == 'first' else -1].name}")
        elif "*" in word:
            out += sorted(path.relative_to(folder).as_posix() for path in folder.glob(word))
        else:
            out.append(word)
    return out


@pytest.mark.parametrize("document", [document for document in DOCUMENTS if commands(document)], ids=name)
def test_the_commands_of_a_document_run(document, folder, monkeypatch, capsys):
    for command in commands(document):
        if marks(command):
            continue
        where = f"{name(document)}: {command}"
        assert words_of_geomim(command) is not None, f"{where}: only `geomim` is run here; {REMEDY}"
        words = typed(command, folder)
        words, output = (words[: words.index(">")], words[-1]) if ">" in words else (words, None)
        monkeypatch.setattr("sys.argv", ["geomim", *words])
        try:
            with pytest.raises(SystemExit) as end:
                cli.main()
        except pytest.fail.Exception as failure:
            pytest.fail(f"{where}: {failure}; {REMEDY}")
        printed = capsys.readouterr()
        assert end.value.code in ANSWERS.get(words[0], (0,)), f"{where}: {printed.err or printed.out}; {REMEDY}"
        if output:
            Path(output).write_text(printed.out)


def test_every_reason_is_still_needed():
    written = [command for document in DOCUMENTS for command in commands(document)]
    used = {mark for command in written for mark in marks(command)}
    left = [entry for entries in NOT_RUN.values() for entry in entries if entry not in used]
    assert not left, f"no document has these any more: take them out of NOT_RUN in tests/test_doc_commands.py: {left}"
