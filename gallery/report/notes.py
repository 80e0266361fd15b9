"""What a report could not show, in sentences: a damaged or missing file costs its own figure and no more."""

from collections.abc import Iterator
from contextlib import contextmanager

from common.errors import FileSystemError, UserError
from storage.damage import Damaged

EXPECTED = (UserError, FileSystemError, Damaged, OSError, ValueError, KeyError, TypeError, IndexError)


class Notes:
    """Sentences in the order in which they came up, each once."""

    def __init__(self) -> None:
        self.sentences: list[str] = []

    def add(self, sentence: str) -> None:
        if sentence not in self.sentences:
            self.sentences.append(sentence)

    @contextmanager
    def unless(self, what: str) -> Iterator[None]:
        """What fails inside because of a file becomes a sentence that says what is left out. what: "the curves"."""
        try:
            yield
        except EXPECTED as error:
            told = str(error) if isinstance(error, UserError | FileSystemError | Damaged | OSError) else repr(error)
            self.add(f"{what[:1].upper()}{what[1:]} left out: {told}")
