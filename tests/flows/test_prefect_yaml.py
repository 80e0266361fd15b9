"""prefect.yaml declares the flows that the table of stages gives, and no others."""

import importlib
import json
import re
from pathlib import Path

import pytest
import yaml
from prefect import Flow

from flows.experiment.flow import experiment_gain
from flows.pipeline import FLOWS, pipeline
from tasks.engine.config import PipelineConfig
from tasks.engine.stage import BELONGS_TO, STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "deploy"


def deployments_in(file: Path) -> dict[str, dict]:
    return {d["name"]: d for d in yaml.safe_load(file.read_text())["deployments"]}


DEPLOYMENTS = deployments_in(REPOSITORY / "prefect.yaml")


def flow_of(deployment) -> Flow:
    module, _, name = deployment["entrypoint"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def test_every_stage_with_a_command_has_a_flow_of_its_name():
    assert list(FLOWS) == [name for name in STAGES if name not in BELONGS_TO]
    assert all(flow.name == name for name, flow in FLOWS.items())


def test_every_flow_is_deployed_under_its_name_in_the_order_of_the_stages():
    flows = {name: flow_of(deployment) for name, deployment in DEPLOYMENTS.items()}
    assert list(flows.items()) == [("pipeline", pipeline), *FLOWS.items(), ("gain", experiment_gain)]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_deployment_has_parameters_that_its_flow_takes(name):
    deployment = DEPLOYMENTS[name]
    flow_of(deployment).validate_parameters(deployment["parameters"])
    assert isinstance(PipelineConfig.model_validate(deployment["parameters"]["config"]), PipelineConfig)
    assert deployment["work_pool"] == DEPLOYMENTS["pipeline"]["work_pool"]


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_containers_run_the_same_deployments(kind):
    contained = deployments_in(CLUSTER / f"{kind}.yaml")
    assert list(contained) == list(DEPLOYMENTS)
    for name, deployment in contained.items():
        own = ("work_pool", "parameters")
        assert {k: v for k, v in deployment.items() if k not in own} == {
            k: v for k, v in DEPLOYMENTS[name].items() if k not in own
        }
        flow_of(deployment).validate_parameters(deployment["parameters"])
        assert deployment["parameters"]["root"] == "/artifacts"
        assert deployment["work_pool"]["name"] == f"geomim-{kind}"


def test_a_kubernetes_job_gets_what_its_pool_asks_for():
    """Every variable of a deployment is one that the pool has, and every placeholder of the job is a variable."""
    template = json.loads((CLUSTER / "kubernetes-job.json").read_text())
    variables = template["variables"]["properties"]
    (pool,) = {json.dumps(d["work_pool"]) for d in deployments_in(CLUSTER / "kubernetes.yaml").values()}
    assert json.loads(pool)["job_variables"].keys() <= variables.keys()
    placeholders = re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"]))
    assert set(placeholders) == variables.keys()


def test_the_image_has_the_repository_where_the_deployments_look():
    dockerfile = (REPOSITORY / "Dockerfile").read_text()
    for kind in ("docker", "kubernetes"):
        ((step,),) = [s.values() for s in yaml.safe_load((CLUSTER / f"{kind}.yaml").read_text())["pull"]]
        assert f"WORKDIR {step['directory']}\n" in dockerfile
