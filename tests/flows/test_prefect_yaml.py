"""prefect.yaml declares the flows that the table of stages gives, and no others."""

import importlib
from pathlib import Path

import pytest
import yaml
from prefect import Flow

from flows.experiment.flow import experiment_gain
from flows.pipeline import FLOWS, pipeline
from tasks.engine.config import PipelineConfig
from tasks.engine.stage import BELONGS_TO, STAGES

REPOSITORY = Path(__file__).resolve().parents[2]
DEPLOYMENTS = {d["name"]: d for d in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]}


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
