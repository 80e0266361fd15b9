"""A real Prefect server and process worker run the deployments of prefect.yaml."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from driver import TINY, environment, wait_for
from flows.server import api_of, listener

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).resolve().parents[2]


class Prefect:
    """One server, its deployments and the `prefect` command against it."""

    def __init__(self, folder):
        self.folder = folder
        taken = listener()
        self.env = environment() | {
            "PREFECT_HOME": str(folder / "home"),
            "PREFECT_API_URL": api_of(taken),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "GEOMIM_HOME": str(REPOSITORY),
        }
        self.output = open(folder / "server.log", "w")  # noqa: SIM115 (closed by stop)
        own = {name: value for name, value in self.env.items() if name != "PREFECT_API_URL"}
        with taken:
            number = taken.fileno()
            self.server = self.start([sys.executable, "-m", "flows.server", str(number)], own, pass_fds=(number,))
        self.worker = None

    def start(self, command, env=None, pass_fds=()):
        return subprocess.Popen(
            command,
            env=env or self.env,
            cwd=REPOSITORY,
            stdout=self.output,
            stderr=self.output,
            pass_fds=pass_fds,
            start_new_session=True,
        )

    def __call__(self, *args):
        command = [str(Path(sys.executable).with_name("prefect")), "--no-prompt", *args]
        done = subprocess.run(command, env=self.env, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, path, body=None):
        """What the server answers, which the command `prefect` asks no other way: that imports for seconds."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.env["PREFECT_API_URL"] + path, data, {"Content-Type": "application/json"} if data else {}
        )
        with urllib.request.urlopen(request) as told:
            return json.load(told)

    def answers(self):
        with contextlib.suppress(OSError):
            return self.ask("/health")

    def start_worker(self):
        prefect = str(Path(sys.executable).with_name("prefect"))
        self.worker = self.start([prefect, "worker", "start", "--pool", "geomim"])

    def begin(self, deployment, **parameters):
        """The id of a new run of a deployment; HTTPError where the server refuses the parameters."""
        number = self.ask(f"/deployments/name/{deployment}")["id"]
        state = {"type": "SCHEDULED"}
        return self.ask(f"/deployments/{number}/create_flow_run", {"parameters": parameters, "state": state})["id"]

    def run(self, deployment, **parameters):
        """Run a deployment; the type of its last state, and what is told of that."""
        run = self.begin(deployment, **parameters)
        ended = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        state = wait_for(
            lambda: (state := self.ask(f"/flow_runs/{run}")["state"])["type"] in ended and state, every=0.2
        )
        return state["type"], state["message"]

    def stop(self):
        for process in (self.worker, self.server):
            if process and process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()
        self.output.close()


@pytest.fixture(scope="module")
def prefect(tmp_path_factory):
    prefect = Prefect(tmp_path_factory.mktemp("prefect"))
    try:
        wait_for(prefect.answers, seconds=180)
        prefect("work-pool", "create", "geomim", "--type", "process")
        prefect("deploy", "--all")
        prefect.start_worker()
        yield prefect
    finally:
        prefect.stop()


def config_of(cli, **overrides):
    """The tiny config as a deployment's parameter."""
    config = yaml.safe_load(TINY.read_text()) | {"dataroot": str(cli.dataroot), "simulate": None}
    for name, value in overrides.items():
        stage, field = name.split("__")
        config[stage] = config.get(stage, {}) | {field: value}
    return config


def stage_processes(root):
    """Processes that work on an artifact in `root`: each holds the artifact's lock file open."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "tasks.engine.child" in (process.info["cmdline"] or []):
            with contextlib.suppress(psutil.Error):
                found += [process] if any(str(root) in file.path for file in process.open_files()) else []
    return found


def processes_of(run):
    """The processes of a flow run, whatever they do now: all inherit its id."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            found += [process] if process.environ().get("PREFECT__FLOW_RUN_ID") == run else []
    return found


def test_a_deployment_for_each_stage_and_for_the_whole(prefect):
    flows = {row["id"]: row["name"] for row in prefect.ask("/flows/filter", {})}
    listed = {(flows[row["flow_id"]], row["name"]) for row in prefect.ask("/deployments/filter", {})}
    for name in ("pipeline", "ingest", "fit", "teacher", "depth", "pretrain", "finetune"):
        assert (name, name) in listed
    assert "experiment-gain" in {flow for flow, _ in listed}


def test_the_deployments_of_containers_are_taken(prefect):
    """By a server that has the kind of pool; no container runs here. (`fit` is run by no test of this file.)"""
    template = str(REPOSITORY / "deploy" / "kubernetes-job.json")
    prefect("work-pool", "create", "geomim-kubernetes", "--type", "kubernetes", "--base-job-template", template)
    prefect.env["GEOMIM_IMAGE"] = "registry/geomim"
    prefect("deploy", "--name", "fit", "--prefect-file", "deploy/kubernetes.yaml")
    told = prefect.ask("/deployments/name/fit/fit")
    assert told["work_pool_name"] == "geomim-kubernetes"
    assert "registry/geomim" in told["job_variables"]["image"]


def test_one_stage_and_the_whole_pipeline(prefect, cli):
    """The one as a user's command runs it."""
    given = [f"config={json.dumps(config_of(cli, depth__margin=2))}", f"root={json.dumps(str(cli.root))}"]
    prefect("deployment", "run", "depth/depth", "--param", given[0], "--param", given[1], "--watch")
    assert cli.status("--set", "depth.margin=2")["depth"]["state"] == "cached"
    config = config_of(cli, finetune__steps=1, finetune__baseline=False)
    state, told = prefect.run("pipeline/pipeline", config=config, root=str(cli.root))
    assert state == "COMPLETED", told
    status = cli.status("--set", "finetune.steps=1", "--set", "finetune.baseline=false")
    assert status["evaluate"]["state"] == "cached"
    artifacts = {row["key"] for row in prefect.ask("/artifacts/filter", {})}
    assert {"depth-summary", "depth-table", "depth-depth", "evaluate-summary", "run-summary"} <= artifacts


@pytest.mark.parametrize(
    ("deployment", "wrong", "told"),
    [("depth", {"depth__sweeps": "many"}, "sweeps"), ("pipeline", {"stages": ["depht"]}, "depht")],
)
def test_a_wrong_parameter_is_refused_before_a_run_exists(prefect, finished, deployment, wrong, told):
    cli, _ = finished
    before = prefect.ask("/flow_runs/count", {})
    fields = {name: wrong[name] for name in wrong if "__" in name}
    given = {"config": config_of(cli, **fields), "root": str(cli.root)} | {n: wrong[n] for n in wrong.keys() - fields}
    with pytest.raises(urllib.error.HTTPError) as refused:
        prefect.begin(f"{deployment}/{deployment}", **given)
    assert told in refused.value.read().decode()
    assert prefect.ask("/flow_runs/count", {}) == before


def test_force_makes_a_cached_stage_again(prefect, cli):
    manifest = cli.path("depth") / "manifest.json"
    before = manifest.stat().st_mtime_ns
    state, told = prefect.run("depth/depth", config=config_of(cli), root=str(cli.root), force=True)
    assert state == "COMPLETED", told
    assert manifest.stat().st_mtime_ns > before


def test_a_flow_simulates_the_dataroot_that_its_config_describes(prefect, tmp_path):
    """As the deployment of the demo in docs/cluster.md does in a fresh clone."""
    config = yaml.safe_load(TINY.read_text()) | {"dataroot": str(tmp_path / "data")}
    config["simulate"] |= {"scenes": 10, "image_scale": 0.05, "density": 0.3, "workers": 1}
    state, told = prefect.run("ingest/ingest", config=config, root=str(tmp_path / "root"))
    assert state == "COMPLETED", told
    assert (tmp_path / "data" / "simulated.json").is_file()
    assert list((tmp_path / "root" / "ingest").glob("*/manifest.json"))


def test_bad_data_ends_as_a_failed_state_with_its_sentence(prefect, tmp_path):
    config = {"dataroot": str(tmp_path / "nowhere")}
    state, told = prefect.run("ingest/ingest", config=config, root=str(tmp_path / "root"))
    assert state == "FAILED"
    assert "nowhere" in told
    assert "Traceback" not in told


def begin_training(prefect, cli):
    """A pretraining that would take hours, seen to be under way."""
    config = config_of(cli, pretrain__steps=100_000, pretrain__seconds_between_saves=0.01)
    run = prefect.begin("pretrain/pretrain", config=config, root=str(cli.root))
    wait_for(lambda: list((cli.root / "pretrain").glob("*/progress.json")), seconds=90)
    assert stage_processes(cli.root)
    return run


def test_cancelling_a_run_leaves_no_training_behind(prefect, cli):
    run = begin_training(prefect, cli)
    prefect.ask(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    wait_for(lambda: not stage_processes(cli.root), seconds=60)
    wait_for(lambda: prefect.ask(f"/flow_runs/{run}")["state"]["type"] == "CANCELLED", seconds=10)


def test_killing_the_worker_leaves_no_training_behind(prefect, cli):
    run = begin_training(prefect, cli)
    assert processes_of(run)
    os.kill(prefect.worker.pid, signal.SIGKILL)
    wait_for(lambda: not stage_processes(cli.root), seconds=20)
    wait_for(lambda: not processes_of(run), seconds=60)  # a task's second try begins no training either
