"""CRC32C, the checksum of everything in the store: of chunks, as Zarr's own codec `crc32c`, and of whole files.

It sees every damage of up to 32 bits in a row and all but one in four billion of others. It is no protection against
somebody who means to deceive.
"""

import os
from pathlib import Path
from typing import BinaryIO

import google_crc32c

CRC_BYTES = 4
CRC_RESIDUE = 0x48674BC7  # CRC32C of any bytes followed by their own CRC32C
PIECE = 1 << 22  # bytes that are read at once


def crc32c(data: bytes, before: int = 0) -> int:
    """The CRC32C of `data`, or of it after something whose CRC32C is `before`."""
    return google_crc32c.extend(before, data)


def with_crc(data: bytes) -> bytes:
    """`data` and its CRC32C, 4 bytes little-endian: what Zarr's codec `crc32c` writes."""
    return data + crc32c(data).to_bytes(CRC_BYTES, "little")


def checked(data: bytes) -> bytes:
    """`data` as it came, with its CRC32C at its end. Raises ValueError where that is another one."""
    if crc32c(data) != CRC_RESIDUE:
        raise ValueError("its CRC32C checksum does not match")
    return data


def crc_of_file(path: Path) -> int:
    """The CRC32C of a file's bytes. Raises OSError where it cannot be read."""
    with open(path, "rb") as file:
        return crc_of_rest(file)


def crc_of_rest(file: BinaryIO) -> int:
    """The CRC32C of what an open file holds from where it stands, read piece by piece."""
    crc = 0
    while piece := file.read(PIECE):
        crc = crc32c(piece, crc)
    return crc


class FileSum:
    """What stands for a file's bytes in a manifest: the CRC32C of all but the last four, then that of all (16 hex).

    One would not do: whatever ends with its own CRC32C, as chunks do, has the same as everything else that does.
    """

    def __init__(self) -> None:
        self._head, self._tail = 0, b""  # the CRC32C of what comes before the last bytes so far, and these

    def add(self, piece: bytes) -> None:
        """The next bytes, as many as there are."""
        if len(piece) < CRC_BYTES:
            piece = self._tail + piece
        else:
            self._head = crc32c(self._tail, self._head)
        self._head, self._tail = crc32c(piece[:-CRC_BYTES], self._head), piece[-CRC_BYTES:]

    def __str__(self) -> str:
        return f"{self._head:08x}{crc32c(self._tail, self._head):08x}"


def sum_of_file(path: Path, sync: bool = False) -> str:
    """See `FileSum`. sync: bring the bytes to the disk first. Raises OSError where it cannot be read."""
    out = FileSum()
    with open(path, "rb") as file:
        if sync:
            os.fsync(file.fileno())
        while piece := file.read(PIECE):
            out.add(piece)
    return str(out)
