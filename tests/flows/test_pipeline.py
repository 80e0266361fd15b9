"""What a run refuses before anything is begun, on the command line and as a flow: no stage and no server runs here."""

import json

import pytest

from common.errors import UserError
from dataroot.names import TABLES
from flows.local import run_pipeline
from flows.pipeline import MISTAKE, run_stages
from tasks.engine.config import load_config


@pytest.fixture
def config(tmp_path):
    def make(*overrides):
        tables = tmp_path / "data" / "v1.0-mini"
        tables.mkdir(parents=True, exist_ok=True)
        for table in TABLES:
            (tables / f"{table}.json").write_text(json.dumps([]))
        return load_config(None, list(overrides), tables.parent)

    return make


def test_a_forced_stage_that_would_not_run_is_refused(config, tmp_path):
    with pytest.raises(UserError, match=r"--force depth: this run has no such stage: it is outside of .* --to ingest"):
        run_pipeline(config(), tmp_path / "root", None, "ingest", ["depth"], dry_run=True)
    with pytest.raises(UserError, match=r"--force fit: this run has no such stage: teacher\.weights is 'random'"):
        run_pipeline(config("teacher.weights=random"), tmp_path / "root", None, None, ["fit"], dry_run=True)
    state = run_stages(config("teacher.weights=random"), tmp_path / "root", None, ["fit"])
    assert (state.name, state.message) == (
        MISTAKE,
        "fit: not a stage of this config; teacher.weights is 'random', not 'fit'",
    )
    state = run_stages(config(), tmp_path / "root", ["ingest"], ["depth"])
    assert state.message == "force: depth is not among the stages of this run; name it in stages too"


def test_a_flow_of_no_stages_is_a_mistake(config, tmp_path):
    state = run_stages(config(), tmp_path / "root", [])
    assert (state.name, state.message) == (MISTAKE, "stages: is an empty list; name stages, or leave it out for all")
