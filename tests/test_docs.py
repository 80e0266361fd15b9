"""The documents: their links lead somewhere, and what they tell one to type is what the command line takes."""

import re
import runpy
import shlex
from pathlib import Path

import pytest
import typer

from flows.cli import app

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("weights/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)
INLINE = re.compile(r"`(geomim [^`]+)`")
COMMAND = typer.main.get_command(app)


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document):
    for target in LINK.findall(document.read_text()):
        if not target.startswith(("http://", "https://", "#")):
            assert (document.parent / target.partition("#")[0]).exists(), target


def typed(text: str) -> list[list[str]]:
    """The words of every `geomim ...` in a document, those of continued lines joined."""
    lines = [line for block in BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    commands = [line.partition("geomim ")[2] for line in lines if re.match(r"(\w+=\S+ )*geomim ", line)]
    commands += [command.removeprefix("geomim ") for command in INLINE.findall(text)]
    return [shlex.split(command, comments=True) for command in commands]


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_and_options_are_there(document):
    for words in typed(document.read_text()):
        command = COMMAND
        while hasattr(command, "commands") and words and re.fullmatch(r"[a-z-]+", words[0]):
            assert words[0] in command.commands, words
            command, words = command.commands[words[0]], words[1:]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        for word in words:
            if word.startswith("-") and len(word) > 1 and not re.match(r"-\d", word):
                assert word.partition("=")[0] in known | {"--help"}, (command.name, word)


def test_the_commands_page_is_their_help():
    script = runpy.run_path(str(REPOSITORY / "docs" / "commands.py"))
    assert script["PAGE"].read_text() == script["page"](), "python docs/commands.py writes it"
