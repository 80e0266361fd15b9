"""Files that a crash, a disk or a person has damaged."""

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


def emptied(data: bytes) -> bytes:
    return b""


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def one_byte_short(data: bytes) -> bytes:
    return data[:-1]


def zeros(data: bytes) -> bytes:
    return bytes(len(data))


def noise(data: bytes) -> bytes:
    return random.Random(0).randbytes(len(data))


def flipped(data: bytes) -> bytes:
    place = random.Random(0).randrange(len(data))
    return data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :]


def damage(path: Path, how: Callable[[bytes], bytes]) -> None:
    path.write_bytes(how(path.read_bytes()))


def damaged_in_turn(folder: Path, how: Callable[[bytes], bytes]) -> Iterator[str]:
    """The name of each file below `folder`, which is damaged while it is; what is there else is put back before it."""
    shutil.copytree(folder, kept := folder.with_name(f"{folder.name}.kept"))
    for name in sorted(str(path.relative_to(kept)) for path in kept.rglob("*") if path.is_file()):
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        damage(folder / name, how)
        yield name
