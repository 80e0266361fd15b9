"""The shards of one Zarr array, read and written without zarr-python: the format is Zarr's, only the way is shorter.

zarr-python 3.1 takes 0.8 ms for a chunk in a shard beyond what decoding takes (three times the decoding of a BEV map),
and to write a shard it wants all its chunks decoded at once. Here a chunk is one read and one decode, and a shard is
written chunk by chunk. The layout is that of Zarr's sharding codec with `index_location: end`:

    chunk, chunk, ... | (offset, bytes) uint64 of every chunk in C order, or MISSING twice | CRC32C of that table

https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import zarr
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec

MISSING = 2**64 - 1
CRC_BYTES = 4
CRC_RESIDUE = 0x48674BC7  # CRC32C of any bytes followed by their own CRC32C


@dataclass(frozen=True)
class Compressor:
    """The same codec in zarr's words and as the functions that do it."""

    zarr: BytesBytesCodec
    codec: Codec


class ShardedArray:
    """An array (sample, flip, ...) whose shard is `part_size` samples whole, and whose chunk is of one sample and flip.

    Safe to use from several threads and processes; two may write two parts at the same time.
    """

    def __init__(self, array: zarr.Array, compressor: Compressor):
        self.path = Path(array.store.root) / array.path
        self.dtype, self.chunk = array.dtype, array.chunks[2:]
        self.part_size = array.shards[0]
        self._grid = tuple(shard // chunk for shard, chunk in zip(array.shards, array.chunks))
        self._names = ["0"] * (array.ndim - 1)
        self._codec = compressor.codec

    @staticmethod
    def create(
        group: zarr.Group,
        name: str,
        shape: tuple[int, ...],
        chunk: tuple[int, ...],
        dtype: str,
        compressor: Compressor,
        part_size: int,
        dimensions: tuple[str, ...],
    ) -> None:
        """Add the empty array to a group. `chunk` is that of the dimensions after sample and flip."""
        whole = tuple(-(-n // c) * c for n, c in zip(shape[2:], chunk))
        group.create_array(
            name,
            shape=shape,
            chunks=(1, 1, *chunk),
            shards=(part_size, shape[1], *whole),
            dtype=dtype,
            compressors=(compressor.zarr, Crc32cCodec()),
            dimension_names=dimensions,
        )

    def file(self, part: int) -> Path:
        return self.path.joinpath("c", str(part), *self._names)

    def read(self, sample: int, flip: int, chunks: int = 1) -> np.ndarray:
        """The first `chunks` chunks of a sample and flip, one after the other along their first axis.

        Raises OSError for a shard or chunk that is missing or damaged.
        """
        part, row = divmod(sample, self.part_size)
        path = self.file(part)
        made = np.empty((chunks * self.chunk[0], *self.chunk[1:]), self.dtype)
        try:
            with open(path, "rb", buffering=0) as file:
                table = self._table(file).reshape(*self._grid[:2], -1, 2)[row, flip, :chunks]
                for (offset, size), target in zip(table.tolist(), np.split(made, chunks)):
                    if offset == MISSING:
                        raise ValueError(f"lacks a chunk of sample {sample}")
                    data = checked(os.pread(file.fileno(), size, offset))
                    self._codec.decode(memoryview(data)[:-CRC_BYTES], target)
        except FileNotFoundError:
            raise OSError(f"{path}: is gone") from None
        except (OSError, ValueError, RuntimeError) as error:  # each codec has its own for bytes that are not its own
            raise OSError(f"{path}: cannot be read ({error})") from error
        return made

    @contextmanager
    def writing(self, part: int) -> "Iterator[Shard]":
        """A shard to append chunks to; it takes its place when the block ends without an error."""
        path = self.file(part)
        path.parent.mkdir(parents=True, exist_ok=True)
        making = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with open(making, "wb") as file:
                shard = Shard(file, self._grid, self._codec)
                yield shard
                file.write(with_crc(shard.table.tobytes()))
            os.replace(making, path)
        finally:
            making.unlink(missing_ok=True)

    def _table(self, file: BinaryIO) -> np.ndarray:
        size = int(np.prod(self._grid)) * 16 + CRC_BYTES
        file.seek(-size, os.SEEK_END)
        return np.frombuffer(checked(file.read(size))[:-CRC_BYTES], "<u8")


class Shard:
    """A shard while it is written."""

    def __init__(self, file: BinaryIO, grid: tuple[int, ...], codec: Codec):
        self.table = np.full((*grid[:2], int(np.prod(grid[2:])), 2), MISSING, "<u8")
        self._file, self._codec = file, codec

    def append(self, row: int, flip: int, chunk: int, values: np.ndarray) -> None:
        """Write one whole chunk of the shard's `row`-th sample."""
        data = with_crc(bytes(self._codec.encode(np.ascontiguousarray(values))))
        self.table[row, flip, chunk] = self._file.tell(), len(data)
        self._file.write(data)


def with_crc(data: bytes) -> bytes:
    return data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def checked(data: bytes) -> bytes:
    """`data` as it came, with its CRC32C at its end. Raises ValueError where that is another one."""
    if google_crc32c.value(data) != CRC_RESIDUE:
        raise ValueError("its CRC32C checksum does not match")
    return data
