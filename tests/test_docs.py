"""The documents: their links lead somewhere, and what they tell one to type is what the command line takes."""

import json
import re
import runpy
import shlex
from itertools import pairwise

import pytest
import typer
import yaml

from documents import DOCUMENTS, INLINE, REPOSITORY, commands, name, words_of_geomim
from flows.cli import app
from tasks.engine.config import PipelineConfig, load_config

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
SCRIPT = re.compile(r"python ((?:bench|docs)/\w+\.py)([^`\n]*)")
CONFIG = re.compile(r"^```yaml\n(preset: .*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = typer.main.get_command(app)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_and_options_are_there(document):
    """Those within a sentence too; test_doc_commands.py runs those of the blocks."""
    inline = INLINE.findall(document.read_text())
    for words in filter(None, map(words_of_geomim, [*commands(document), *inline])):
        command = COMMAND
        while hasattr(command, "commands") and words and re.fullmatch(r"[a-z-]+", words[0]):
            assert words[0] in command.commands, words
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("-") and len(word) > 1 and not re.match(r"-\d", word):
                assert word.partition("=")[0] in known | {"--help"}, (command.name, word)


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_scripts_and_their_options_are_there(document):
    for script, options in SCRIPT.findall(document.read_text()):
        source = (REPOSITORY / script).read_text()
        for option in re.findall(r"--[\w-]+", options):
            assert option in source, (script, option)


def given(words: list[str], option: str) -> list[str]:
    """All values of an option."""
    return [value for word, value in pairwise(words) if word == option]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_configs_take_the_settings_that_are_laid_over_them(document):
    """Of the presets themselves, also in commands that nobody runs here."""
    for words in filter(None, map(words_of_geomim, commands(document))):
        for file in given(words, "--config") + given(words, "-c"):
            if file.startswith("configs/"):
                load_config(REPOSITORY / file, given(words, "--set"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_deployments_are_there_and_take_their_configs(document):
    deployed = {
        deployment["name"] for deployment in yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    }
    for words in map(shlex.split, commands(document)):
        if words[:3] == ["prefect", "deployment", "run"]:
            assert words[3].partition("/")[2] in deployed, words
            for parameter in given(words, "--param"):
                if parameter.startswith("config="):
                    PipelineConfig.model_validate(json.loads(parameter.partition("=")[2]))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_configs_that_begin_with_a_preset_load(document, tmp_path):
    for text in CONFIG.findall(document.read_text()):
        (tmp_path / "mine.yaml").write_text(text)
        assert load_config(tmp_path / "mine.yaml").preset == yaml.safe_load(text)["preset"]


def test_the_commands_page_is_their_help():
    script = runpy.run_path(str(REPOSITORY / "docs" / "commands.py"))
    assert script["PAGE"].read_text() == script["page"](), "python docs/commands.py writes it"
