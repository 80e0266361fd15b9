"""`geomim config show`: what is printed loads as the same config, and says where each value came from."""

import json
import re

import pytest
import yaml

from flows.config_show import resolved
from tasks.engine.config import PRESETS, load_config

FILES = sorted(PRESETS.rglob("*.yaml"))


def sources(text):
    """Field -> the comment behind its value."""
    out, path = {}, []
    for line in text.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.strip().partition(":")[0]
        path = [*path[: indent // 2], name]
        if comment := re.search(r"  # (.*)$", line):
            out[".".join(path)] = comment[1]
    return out


@pytest.mark.parametrize("preset", FILES, ids=lambda p: p.relative_to(PRESETS).as_posix())
@pytest.mark.parametrize("only", [[], ["--changed"]], ids=["all", "changed"])
def test_what_is_printed_loads_as_the_same_config(geomim, tmp_path, preset, only):
    code, text, _ = geomim("config", "show", "-c", preset, *only)
    assert code == 0
    (tmp_path / "printed.yaml").write_text(text)
    assert load_config(tmp_path / "printed.yaml") == load_config(preset).model_copy(update={"preset": None})


def test_each_value_says_where_it_came_from(geomim, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("preset: experiment-gain\ndepth: {margin: 2}\nlidar: {blocks: 2}\n")
    options = ("--set", "lidar.blocks=1", "--dataroot", tmp_path, "--version", "v1.0-mine")
    told = sources(geomim("config", "show", "-c", file, *options)[1])
    expected = {
        "depth.margin": str(file),
        "depth.min_depth": "default",
        "depth.sweeps": "preset experiment-gain",
        "lidar.widths": "preset simulated-town",  # with which experiment-gain begins
        "lidar.blocks": "--set",
        "dataroot": "--dataroot",
        "simulate": "--dataroot",  # a folder of one's own is never simulated into
        "version": "--version",
    }
    assert {name: told[name] for name in expected} == expected


def test_a_section_of_another_name_takes_nothing_from_below(geomim):
    given = ("preset=demo", "backbone={name: convnext}", "pretrain.method=pixels", "finetune.init=random")
    words = [*(word for value in given for word in ("--set", value)), "--changed"]
    shown = yaml.safe_load(geomim("config", "show", *words)[1])
    assert shown["backbone"] == {"name": "convnext"}
    told = sources(geomim("config", "show", *words)[1])
    assert (told["backbone.name"], told["pretrain.method.name"]) == ("--set", "--set")
    everything = sources(geomim("config", "show", *words[:-1])[1])
    assert everything["backbone.size"] == everything["pretrain.method.decoder.width"] == "default"


def test_changed_shows_what_differs_from_the_defaults_alone(geomim):
    assert geomim("config", "show", "--changed", "--set", "depth.margin=1") == (0, "", "")
    shown = yaml.safe_load(geomim("config", "show", "--changed", "--set", "depth.margin=2", "--set", "simulate={}")[1])
    assert shown == {"simulate": {}, "depth": {"margin": 2.0}}


def test_names_that_yaml_would_read_as_something_else(geomim, tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text('ingest:\n  classes: {"no": car, "VRU: x #1": pedestrian}\n')
    assert yaml.safe_load(geomim("config", "show", "-c", file, "--changed")[1])["ingest"]["classes"] == {
        "VRU: x #1": "pedestrian",
        "no": "car",
    }


def test_json_has_values_and_sources(geomim):
    told = json.loads(geomim("config", "show", "--set", "depth.margin=2", "--json")[1])
    assert told["config"] == resolved(load_config(None, ["depth.margin=2"]))
    assert (told["from"]["depth.margin"], told["from"]["depth.sweeps"]) == ("--set", "default")


def test_a_mistake_is_one_sentence(geomim):
    code, printed, told = geomim("config", "show", "--set", "depth.sweep=2")
    assert (code, printed) == (2, "")
    assert told == "geomim: the config: unknown field depth.sweep; did you mean depth.sweeps?\n"
