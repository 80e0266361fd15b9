"""`geomim config schema`: what it accepts is what loads."""

import json

import jsonschema
import pytest
import yaml

from flows.config_schema import config_schema
from tasks.engine.config import PRESETS


@pytest.fixture(scope="module")
def accepts():
    schema = config_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema).is_valid


@pytest.mark.parametrize("file", sorted(PRESETS.rglob("*.yaml")), ids=lambda p: p.relative_to(PRESETS).as_posix())
def test_every_config_of_ours_is_accepted(accepts, file):
    assert accepts(yaml.safe_load(file.read_text()))


@pytest.mark.parametrize(
    "text",
    [
        "pretrain: {method: pixels}",
        "pretrain: {method: {patch: 10}}",
        "backbone: {depth: 18}",  # of a resnet that the preset names
        "backbone: {}",
        "simulate: null",
        "ingest: {classes: {tram: ignore}}",
    ],
)
def test_parts_of_sections_are_accepted(accepts, text):
    assert accepts(yaml.safe_load(text))


@pytest.mark.parametrize(
    "text",
    [
        "depht: {}",
        "depth: {sweep: 2}",
        "depth: {sweeps: 11}",
        "depth: {sweeps: many}",
        "lidar: {range: [1, 2]}",
        "pretrain: {method: pixel}",
        "backbone: {name: vgg}",
        "fit: {lidar: {sweeps: 2}}",  # which is set at the top
        "finetune: {backbone: {name: swin}}",
    ],
)
def test_mistakes_are_not(accepts, text):
    assert not accepts(yaml.safe_load(text))


def test_the_command_prints_it_with_what_an_editor_shows(geomim):
    code, printed, _ = geomim("config", "schema")
    schema = json.loads(printed)
    assert (code, schema["$schema"]) == (0, "https://json-schema.org/draft/2020-12/schema")
    depth = schema["$defs"]["DepthConfig"]["properties"]
    assert depth["margin"]["description"].startswith("Points this near (px)")
    assert "no key depends on it" in depth["workers"]["description"]
    assert "no key depends on it" not in depth["margin"]["description"]
    assert {"demo", "released/bevdet4d-geomim"} <= set(schema["properties"]["preset"]["examples"])
