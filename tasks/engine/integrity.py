"""Whether what is about to be used is what was written; one sentence where it is not."""

from collections.abc import Iterable
from pathlib import Path

from common.errors import DataError
from storage.artifact import RECIPE, Artifact
from storage.damage import Damaged
from storage.manifest import FileDamage, damages_in, read_manifest


def check_artifact(artifact: Artifact, reader: str) -> None:
    """Raise DataError where what is cheap to read of a finished artifact is damaged, and is computed with."""
    _refuse(artifact.path, (damage for damage in artifact.damages("small") if damage.matters), reader)


def check_file(file: Path, reader: str) -> None:
    """Raise DataError where a file is one of a finished artifact's and not what was written; any other passes.

    For whoever reads one file of an artifact, be it given by its path alone.
    """
    file = file.resolve()
    folder = next((folder for folder in file.parents if (folder / RECIPE).is_file()), None)
    if folder is None:
        return
    try:
        read_manifest(folder)
    except Damaged as error:
        raise DataError(f"{reader}, and {error}") from None
    except ValueError:  # another geomim's, whose checksums this one cannot tell
        return
    name = str(file.relative_to(folder))
    _refuse(folder, (damage for damage in damages_in(folder, chosen={name}) if damage.name == name), reader)


def _refuse(folder: Path, damages: Iterable[FileDamage], reader: str) -> None:
    for damage in damages:
        raise DataError(f"{reader}, and {folder}/{damage}: run `geomim repair {folder}`")
