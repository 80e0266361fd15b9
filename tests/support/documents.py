"""What the documents tell one to type."""

import re
import shlex
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("weights/*.md")])
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(geomim [^`]+)`")
COMMENT = re.compile(r"(^|\s)#.*")
VARIABLES = re.compile(r"(\w+=\S+\s+)*")  # that are set for one command


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def commands(document: Path) -> list[str]:
    """Every line of a document's bash blocks, continued ones joined, without comments."""
    blocks = BLOCK.findall(document.read_text())
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return [" ".join(words) for line in lines if (words := COMMENT.sub("", line).split())]


def words_of_geomim(command: str) -> list[str] | None:
    """The words behind `geomim`; None of another command."""
    typed = VARIABLES.sub("", command, count=1)
    return shlex.split(typed.removeprefix("geomim ")) if typed.startswith("geomim ") else None
