"""The shards of one Zarr array, read and written without zarr-python: the format is Zarr's, only the way is shorter.

zarr-python 3.1 takes 0.8 ms for a chunk in a shard beyond what decoding takes (three times the decoding of a BEV map),
and to write a shard it wants all its chunks decoded at once. Here a chunk is one read and one decode, and a shard is
written chunk by chunk. The layout is that of Zarr's sharding codec with `index_location: end`:

    chunk, chunk, ... | (offset, bytes) uint64 of every chunk in C order, or MISSING twice | CRC32C of that table

https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import zarr
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import Crc32cCodec

from storage.atomic import atomic_file
from storage.checksum import CRC_BYTES, checked, with_crc
from storage.nodes import folder_of
from storage.shard_cache import RemoteShards, remote_shards

MISSING = 2**64 - 1


@dataclass(frozen=True)
class Compressor:
    """The same codec in zarr's words and as the functions that do it.

    joins: encoded pieces that follow each other decode as one, as frames of Zstandard do. numcodecs makes a context a
    call, which takes longer than to decode a small chunk.
    """

    zarr: BytesBytesCodec
    codec: Codec
    joins: bool = False


@dataclass(frozen=True)
class ShardedLayout:
    """An array of a store in parts: what stands in it for one sample, or for one sample and variant (flip, camera)."""

    name: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]  # of that shape; chunks follow each other along the first dimension
    dtype: str
    dimensions: tuple[str, ...]
    compressor: Compressor


class ShardedArray:
    """An array (sample, ...) or (sample, variant, ...) whose shard is the samples of a part, whole.

    Its chunks are of one sample and variant. Safe to use from several threads and processes; two may write two parts at
    the same time.
    """

    def __init__(self, array: zarr.Array, layout: ShardedLayout):
        self.path = folder_of(array)
        self.name, self.dtype, self.chunk = layout.name, array.dtype, layout.chunk
        shards = array.shards
        assert shards is not None  # see `create`
        self.part_size = shards[0]
        self.leading = array.ndim - len(layout.shape)
        self._grid = tuple(shard // chunk for shard, chunk in zip(shards, array.chunks))
        self._names = ["0"] * (array.ndim - 1)
        self._codec, self._joins = layout.compressor.codec, layout.compressor.joins

    @staticmethod
    def create(group: zarr.Group, layout: ShardedLayout, leading: dict[str, int], part_size: int) -> None:
        """Add the empty array to a group. leading: name -> size of the dimensions before the layout's."""
        padded = tuple(-(-n // c) * c for n, c in zip(layout.shape, layout.chunk))
        _, *variants = leading.values()
        group.create_array(
            layout.name,
            shape=(*leading.values(), *layout.shape),
            chunks=(*(1 for _ in leading), *layout.chunk),
            shards=(part_size, *variants, *padded),
            dtype=layout.dtype,
            compressors=(layout.compressor.zarr, Crc32cCodec()),
            dimension_names=(*leading, *layout.dimensions),
        )

    def file(self, part: int) -> Path:
        return self.path.joinpath("c", str(part), *self._names)

    def _open(self, part: int) -> BinaryIO:
        """A part's shard, from an object root where the array's artifact has it there."""
        try:
            return open(self.file(part), "rb", buffering=0)
        except FileNotFoundError:
            if self._elsewhere is None:
                raise
            return self._elsewhere.open(self.file(part))

    def size(self, part: int) -> int:
        """Bytes of a part's shard, be it here or in an object root. Raises FileNotFoundError for none."""
        if self.is_elsewhere(part):
            assert self._elsewhere is not None
            return self._elsewhere.size(self.file(part))
        return self.file(part).stat().st_size

    def is_elsewhere(self, part: int) -> bool:
        """Whether a part's shard is in an object root alone."""
        return not self.file(part).exists() and self._elsewhere is not None and self._elsewhere.has(self.file(part))

    def leave_elsewhere(self, part: int) -> bool:
        """Have a part's shard in an object root alone, if it is there; whether it is."""
        if self._elsewhere is None or not self._elsewhere.has(self.file(part)):
            return False
        self.file(part).unlink(missing_ok=True)
        return True

    @cached_property
    def _elsewhere(self) -> RemoteShards | None:
        return remote_shards(self.path)

    def read(self, part: int, place: tuple[int, ...]) -> tuple[np.ndarray, bytes]:
        """The chunks stored at a place in a part, one after the other along their first axis, and their checksums.

        place: the sample's row in the part, and the variant where the array has such. Raises OSError or ValueError for
        a shard or chunk that is missing, cut or damaged.
        """
        row, *variant = place
        ((values, sums),) = self._read(part, row, slice(variant[0], variant[0] + 1) if variant else slice(None))
        return values, sums

    def read_all(self, part: int, row: int) -> list[tuple[np.ndarray, bytes]]:
        """`read` of every variant of a sample, in one go."""
        return self._read(part, row, slice(None))

    def _read(self, part: int, row: int, variants: slice) -> list[tuple[np.ndarray, bytes]]:
        try:
            return self._read_once(part, row, variants)
        except ValueError:  # damaged, and where it was fetched from it may not be
            if self.file(part).exists() or self._elsewhere is None:
                raise
            self._elsewhere.drop(self.file(part))
            return self._read_once(part, row, variants)

    def _read_once(self, part: int, row: int, variants: slice) -> list[tuple[np.ndarray, bytes]]:
        with self._open(part) as file:
            table = self.table(file)[row]
            places = [self._stored(entries) for entries in table.reshape(-1, *table.shape[-2:])[variants]]
            pieces = _pieces(file, [chunk for stored in places for chunk in stored])
        values = np.empty((len(pieces) * self.chunk[0], *self.chunk[1:]), self.dtype)
        encoded = [memoryview(checked(piece))[:-CRC_BYTES] for piece in pieces]
        try:
            if self._joins and encoded:
                self._codec.decode(b"".join(encoded), values)
            else:
                for number, data in enumerate(encoded):
                    self._codec.decode(data, values[number * self.chunk[0] : (number + 1) * self.chunk[0]])
        except RuntimeError as error:  # each codec has its own for bytes that are not its own
            raise ValueError(str(error)) from error
        out, first = [], 0
        for stored in places:
            end = first + len(stored)
            sums = b"".join(piece[-CRC_BYTES:] for piece in pieces[first:end])
            out.append((values[first * self.chunk[0] : end * self.chunk[0]], sums))
            first = end
        return out

    def sums(self, part: int) -> np.ndarray:
        """The checksums of a part's chunks by place (an array of bytes objects), every chunk read and checked.

        Raises as `read`.
        """
        with self._open(part) as file:
            table = self.table(file)
            out = np.empty(self._grid[: self.leading], object)
            for place in np.ndindex(*out.shape):
                stored = self._stored(table[place])
                out[place] = b"".join(checked(os.pread(file.fileno(), n, at))[-CRC_BYTES:] for at, n in stored)
        return out

    def table(self, file: BinaryIO) -> np.ndarray:
        """(rows, [variants,] chunks, 2) uint64: offset and bytes of every chunk of an open shard."""
        size = int(np.prod(self._grid)) * 16 + CRC_BYTES
        end = os.fstat(file.fileno()).st_size
        if end < size:
            raise ValueError(f"{end} bytes are no shard")
        table = np.frombuffer(checked(os.pread(file.fileno(), size, end - size))[:-CRC_BYTES], "<u8")
        return table.reshape(*self._grid[: self.leading], -1, 2)

    @staticmethod
    def _stored(entries: np.ndarray) -> list[list[int]]:
        """(offset, bytes) of the chunks at a place: the first so many, with none missing before another."""
        present = entries[:, 0] != MISSING
        count = int(present.sum())
        if not present[:count].all():
            raise ValueError("lacks a chunk before another")
        return entries[:count].tolist()

    @contextmanager
    def writing(self, part: int) -> "Iterator[Shard]":
        """A shard to append chunks to; it takes its place, on the disk, when the block ends without an error."""
        with atomic_file(self.file(part)) as file:
            shard = Shard(file, self)
            yield shard
            file.write(with_crc(shard.table.tobytes()))


class Shard:
    """A shard while it is written."""

    def __init__(self, file: BinaryIO, array: ShardedArray):
        grid = array._grid
        self.table = np.full((*grid[: array.leading], int(np.prod(grid[array.leading :])), 2), MISSING, "<u8")
        self.sums = np.full(grid[: array.leading], b"", object)  # of the chunks at a place, as `ShardedArray.sums`
        self._file, self._array = file, array

    def append(self, place: tuple[int, ...], values: np.ndarray) -> None:
        """Write what stands at a place: rows (n, ...) in as many chunks as they need, the last filled up with zeros."""
        length = self._array.chunk[0]
        for number, start in enumerate(range(0, len(values), length)):
            chunk = np.ascontiguousarray(values[start : start + length], self._array.dtype)
            if len(chunk) < length:
                chunk = np.concatenate([chunk, np.zeros((length - len(chunk), *chunk.shape[1:]), chunk.dtype)])
            data = with_crc(bytes(self._array._codec.encode(chunk)))
            self.table[(*place, number)] = self._file.tell(), len(data)
            self.sums[place] += data[-CRC_BYTES:]
            self._file.write(data)


def _pieces(file: BinaryIO, chunks: list[list[int]]) -> list[bytes]:
    """The bytes of chunks (offset, bytes) of a file; in one read where they follow each other, as they are written."""
    ends = [offset + size for offset, size in chunks]
    if all(end == offset for end, (offset, _) in zip(ends, chunks[1:])) and chunks:
        start = chunks[0][0]
        data = os.pread(file.fileno(), ends[-1] - start, start)
        return [data[offset - start : end - start] for (offset, _), end in zip(chunks, ends)]
    return [os.pread(file.fileno(), size, offset) for offset, size in chunks]
