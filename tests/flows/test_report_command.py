"""What a run says one types for its report gives the run's config again."""

import shlex
from pathlib import Path

import pytest

from flows.config_show import resolved
from flows.report_command import config_options, report_command, report_of
from tasks.engine.config import PRESETS, PipelineConfig, load_config


def loaded(command: str) -> tuple[PipelineConfig, dict[str, list[str]]]:
    """The config that a command names, and its options."""
    words = shlex.split(command)
    assert (words[:2], words[-1]) == (["geomim", "report"], "--open")
    options: dict[str, list[str]] = {}
    for option, value in zip(words[2:-1:2], words[3:-1:2]):
        options.setdefault(option, []).append(value)
    return load_config(Path(options["--config"][0]), options.get("--set")), options


@pytest.mark.parametrize("preset", [path.stem for path in sorted(PRESETS.glob("*.yaml"))])
def test_a_preset_as_it_is(preset):
    config = PipelineConfig.model_validate({"preset": preset})
    found, options = loaded(report_of(config, Path("/a/root")))
    assert resolved(found) == resolved(config)
    assert options["--root"] == ["/a/root"]
    assert "--set" not in options


@pytest.mark.parametrize(
    "changes",
    [
        ["depth.margin=2", "dataroot=a b"],
        ["pretrain.method={name: pixels, decoder: {width: 64, num_heads: 4, depth: 4}}"],
        ["backbone={name: convnext, size: tiny}", "finetune.init=random", "simulate=null"],
    ],
)
def test_a_preset_and_what_was_changed(changes):
    config = load_config(PRESETS / "demo.yaml", changes)
    found, options = loaded(report_of(config, Path("root")))
    assert resolved(found) == resolved(config)
    assert options["--config"][0].endswith("demo.yaml")


@pytest.mark.parametrize(
    "changes",
    [[f"ingest.classes.thing{number}=car" for number in range(20)], ["ingest.classes={vehicle.tram: bus}"]],
)
def test_of_a_config_that_a_few_settings_do_not_say_a_file_is_to_be_named(changes):
    assert "--config CONFIG --root root" in report_of(load_config(None, changes), Path("root"))


def test_the_words_of_a_run():
    words = config_options(Path("my.yaml"), ["depth.margin=2"], Path("artifacts"), Path("data"), None)
    assert report_command(words) == "geomim report --config my.yaml --dataroot data --set depth.margin=2 --open"
