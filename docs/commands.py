"""Writes docs/commands.md from the command line's own help.

python docs/commands.py
"""

from pathlib import Path

import typer
from typer.cli import get_docs_for_click

from flows.cli import app

PAGE = Path(__file__).with_name("commands.md")


def page() -> str:
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="geomim")
    return get_docs_for_click(obj=command, ctx=context, name="geomim").strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
