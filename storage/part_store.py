"""A Zarr group that is written in parts and read sample by sample: what bev.zarr, depth.zarr and boxes.zarr share.

    NAME   (sample, [variant,] ...)   the store's own arrays, a shard a part
    count  (sample, [variant]) int32  how many rows hold something
    check  (sample, [variant,] array) uint32, see `binding`
    token  (sample) str, in the order of the index
    done   (part) uint8

A part is samples `part * part_size` onwards, `part_size` of them. It is written whole by one writer, brought to the
disk, then flagged; several processes may write different parts at once. Zarr reads a chunk that is not there as zeros:
the reader here raises. Every chunk has a checksum, and `check` ties the chunks of a place to its sample's token, so
that no part can stand in another's place.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from storage.atomic import write_bytes
from storage.checksum import checked, crc32c, with_crc
from storage.damage import Damaged, set_aside
from storage.manifest import COLUMNS, TOKEN
from storage.nodes import array_in
from storage.parts import Parts
from storage.shards import Shard, ShardedArray, ShardedLayout

COUNT, CHECK = COLUMNS


@dataclass(frozen=True)
class StoreLayout:
    """What a kind of store looks like. attributes: of the group, JSON-able; `format` and `part_size` are added."""

    format: int
    arrays: tuple[ShardedLayout, ...]
    attributes: dict[str, Any]
    variant: str | None = None  # name of the dimension after `sample`, whose names stand in the attribute `variants_in`
    variants_in: str = ""

    @property
    def variants(self) -> list[str]:
        return [str(name) for name in self.attributes[self.variants_in]] if self.variant else [""]


def binding(token: str, variant: str, array: str, count: int, sums: bytes) -> int:
    """What `check` holds: the CRC32C of whose data it is and of the checksums of its chunks, in their order."""
    return crc32c(sums, crc32c(f"{token}/{variant}/{array}/{count}/".encode()))


class PartStore:
    """An open store. Safe to use from several threads; several processes may write parts of their own."""

    def __init__(self, path: Path, layout: StoreLayout):
        """Raises Damaged where the group's metadata are not what the layout says."""
        self.path, self.layout = Path(path), layout
        try:
            group = zarr.open_group(str(path), mode="r", use_consolidated=False)
            attributes: dict[str, Any] = dict(group.attrs)
            self.part_size = int(attributes["part_size"])
            self.arrays = {a.name: ShardedArray(array_in(group, a.name), a) for a in layout.arrays}
            self.parts = Parts(group)
            self.tokens = [str(token) for token in np.asarray(array_in(group, TOKEN)[:])]
            lacking = [n for n in (TOKEN,) if not self._chunk(n, 0, 1).is_file()]
        except Exception as error:  # of JSON, of zarr, of a codec: each has its own for bytes that are not its own
            raise Damaged(self.path, f"cannot be opened ({' '.join(str(error).split())[:200]})") from error
        if lacking or self.part_size < 1 or self.parts.count != -(-len(self.tokens) // self.part_size):
            raise Damaged(self.path, "lacks a file, or its arrays do not fit together")
        self.aside: Path | None = None
        self._columns: dict[tuple[str, int], np.ndarray] = {}

    @classmethod
    def open_or_create(cls, path: Path, layout: StoreLayout, tokens: Iterable[str], part_size: int) -> "PartStore":
        """The store, made where it is not there. One that is there keeps its part size.

        One of other samples or settings, or that cannot be opened, is no work to go on from: it is moved aside, to a
        name beside it that ends in `.damaged-TIME` (the attribute `aside`).
        """
        tokens, aside = [str(token) for token in tokens], None
        if path.exists():
            try:
                store = cls(path, layout)
                if store.tokens == tokens and read_attributes(path) == store._attributes(store.part_size):
                    return store
            except (Damaged, ValueError):
                pass
            aside = set_aside(path)
        _create(path, layout, tokens, part_size)
        store = cls(path, layout)
        store.aside = aside
        return store

    def __len__(self) -> int:
        return len(self.tokens)

    def samples(self, part: int) -> range:
        """The samples of a part."""
        return range(part * self.part_size, min((part + 1) * self.part_size, len(self)))

    def files(self, part: int) -> list[Path]:
        """The files of a part, in the order in which they are written."""
        columns = [
            self._chunk(name, part, len(shape))
            for name, (shape, _) in _column_shape(self.layout, self.part_size).items()
        ]
        return [*(array.file(part) for array in self.arrays.values()), *columns, self.parts.file(part)]

    # --- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self, part: int, check: Callable[[], None] = lambda: None) -> "Iterator[PartWriter]":
        """A part to fill, place by place; it is flagged, on the disk, when the block ends without an error.

        check: called before anything takes its place; what it raises leaves all as it was.
        """
        with ExitStack() as stack:
            shards = {name: stack.enter_context(array.writing(part)) for name, array in self.arrays.items()}
            writer = PartWriter(self, part, shards)
            yield writer
            check()
        for name, values in ((COUNT, writer.counts), (CHECK, writer.checks())):
            write_bytes(self._chunk(name, part, values.ndim), with_crc(values.tobytes()))
            self._columns.pop((name, part), None)
        self.parts.mark(part)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, name: str, sample: int, variant: int = 0) -> np.ndarray:
        """What stands in an array for a sample and variant: whole chunks one after the other.

        Raises IndexError beyond the end, KeyError where the sample's part is not written, Damaged where its files are
        gone, cut, damaged or another part's.
        """
        return self._read(name, sample, variant)[0]

    def read_all(self, name: str, sample: int) -> list[np.ndarray]:
        """`read` of every variant, in one go."""
        return self._read(name, sample, None)

    def _read(self, name: str, sample: int, variant: int | None) -> list[np.ndarray]:
        part, row = self._where(sample)
        array, out = self.arrays[name], []
        try:
            found = array.read_all(part, row) if variant is None else [array.read(part, self._place(row, variant))]
        except (OSError, ValueError) as error:
            raise Damaged(array.file(part), _words(error)) from error
        for number, (values, sums) in enumerate(found, variant or 0):
            check = self._column(CHECK, part)[self._place(row, number)][self._number(name)]
            if check != self._binding(sample, number, name, sums):
                raise self._other(array, part, sample, sums)
            out.append(values)
        return out

    def _where(self, sample: int) -> tuple[int, int]:
        """A sample's part, which is looked at, and its row in it."""
        if not 0 <= sample < len(self):
            raise IndexError(f"{self.path}: sample {sample} of {len(self)}")
        part, row = divmod(sample, self.part_size)
        self._ready(part, sample)
        return part, row

    def count(self, sample: int, variant: int = 0) -> int:
        """How many rows hold something. Raises as `read`."""
        part, row = self._where(sample)
        return int(self._column(COUNT, part)[self._place(row, variant)])

    def counts(self) -> np.ndarray:
        """(samples, [variants]) int32. Raises as `read`."""
        for part in range(self.parts.count):
            self._ready(part)
        return np.concatenate([self._column(COUNT, part) for part in range(self.parts.count)])[: len(self)]

    def _ready(self, part: int, sample: int | None = None) -> None:
        if (CHECK, part) in self._columns:  # looked at before
            return
        if not self.parts.is_done(part):
            if self.parts.file(part).exists():
                raise Damaged(self.parts.file(part), "is damaged: it flags a part as done")
            named = "" if sample is None else f" (sample {sample})"
            raise KeyError(f"{self.path}: part {part}{named} is not written; run its stage again")
        for name in (COUNT, CHECK):
            self._column(name, part)

    # --- damage -------------------------------------------------------------------------------------------------------

    def damage(self, part: int) -> Damaged | None:
        """What is wrong with a part that is done: every chunk is read and checked, none decoded."""
        try:
            for name in (COUNT, CHECK):
                self._columns.pop((name, part), None)
            self._ready(part)
            checks = self._column(CHECK, part)
            for name, array in self.arrays.items():
                try:
                    sums = array.sums(part)
                except (OSError, ValueError) as error:
                    return Damaged(array.file(part), _words(error))
                for row, sample in enumerate(self.samples(part)):
                    for variant in range(len(self.layout.variants)):
                        place = self._place(row, variant)
                        if checks[place][self._number(name)] != self._binding(sample, variant, name, sums[place]):
                            return self._other(array, part, sample, sums[place])
        except Damaged as error:
            return error
        except KeyError:
            return Damaged(self.parts.file(part), "is gone")
        return None

    def mend(self) -> list[Damaged]:
        """Look at the parts that are flagged as done, and take the flag from those that are damaged. Returns what was.

        For the one process that goes on with the store, before others write into it. What an object root has of it is
        left to that, which gives the flag back.
        """
        damages = []
        for part in range(self.parts.count):
            if not self.parts.file(part).exists() or any(array.is_elsewhere(part) for array in self.arrays.values()):
                continue
            if (damage := self.damage(part)) is not None:
                self.parts.unmark(part)
                if not all(array.leave_elsewhere(part) for array in self.arrays.values()):
                    damages.append(damage)
        return damages

    # --- places, and the small arrays of a part ---------------------------------------------------------------------

    def _attributes(self, part_size: int) -> dict[str, Any]:
        return _attributes(self.layout, part_size)

    def _place(self, row: int, variant: int) -> tuple[int, ...]:
        return (row, variant) if self.layout.variant else (row,)

    def _number(self, name: str) -> int:
        return list(self.arrays).index(name)

    def _binding(self, sample: int, variant: int, name: str, sums: bytes) -> int:
        part, row = divmod(sample, self.part_size)
        count = int(self._column(COUNT, part)[self._place(row, variant)])
        return binding(self.tokens[sample], self.layout.variants[variant], name, count, sums)

    def _other(self, array: ShardedArray, part: int, sample: int, sums: bytes) -> Damaged:
        what = "holds something else than" if sums else "lacks a chunk of"
        return Damaged(array.file(part), f"{what} sample {self.tokens[sample]}")

    def _chunk(self, name: str, part: int, dimensions: int) -> Path:
        return self.path.joinpath(name, "c", str(part), *["0"] * (dimensions - 1))

    def _column(self, name: str, part: int) -> np.ndarray:
        """The part of `count` or `check`."""
        if (name, part) not in self._columns:
            shape, dtype = _column_shape(self.layout, self.part_size)[name]
            file = self._chunk(name, part, len(shape))
            try:
                data = checked(file.read_bytes())[:-4]
                self._columns[name, part] = np.frombuffer(data, dtype).reshape(shape)
            except (OSError, ValueError) as error:
                raise Damaged(file, _words(error)) from error
        return self._columns[name, part]


class PartWriter:
    """A part while it is written."""

    def __init__(self, store: PartStore, part: int, shards: dict[str, Shard]):
        self._store, self._part, self._shards = store, part, shards
        shape, dtype = _column_shape(store.layout, store.part_size)[COUNT]
        self.counts = np.zeros(shape, dtype)

    def put(self, row: int, variant: int, count: int, values: dict[str, np.ndarray]) -> None:
        """Write what the arrays hold for the part's `row`-th sample; `count` of the rows hold something."""
        place = self._store._place(row, variant)
        self.counts[place] = count
        for name, shard in self._shards.items():
            shard.append(place, values[name])

    def checks(self) -> np.ndarray:
        """The part of `check`."""
        store = self._store
        shape, dtype = _column_shape(store.layout, store.part_size)[CHECK]
        out = np.zeros(shape, dtype)
        for row, sample in enumerate(store.samples(self._part)):
            for variant, variant_name in enumerate(store.layout.variants):
                place = store._place(row, variant)
                for number, (name, shard) in enumerate(self._shards.items()):
                    count = int(self.counts[place])
                    out[(*place, number)] = binding(store.tokens[sample], variant_name, name, count, shard.sums[place])
        return out


def read_attributes(path: Path) -> dict[str, Any]:
    """The group's attributes. Raises FileNotFoundError where there is no store, Damaged where they do not read."""
    file = Path(path) / "zarr.json"
    try:
        return dict(json.loads(file.read_bytes())["attributes"])
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(file, f"cannot be read ({error})") from error


def _attributes(layout: StoreLayout, part_size: int) -> dict[str, Any]:
    values = {"format": layout.format, "part_size": part_size, **layout.attributes}
    return json.loads(json.dumps(values))  # as they are read back


def _column_shape(layout: StoreLayout, part_size: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Of `count` and `check`: a part's shape and type."""
    places = (part_size, len(layout.variants)) if layout.variant else (part_size,)
    return {COUNT: (places, np.dtype("<i4")), CHECK: ((*places, len(layout.arrays)), np.dtype("<u4"))}


def _words(error: Exception) -> str:
    return "is gone" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"


def _create(path: Path, layout: StoreLayout, tokens: list[str], part_size: int) -> None:
    """Make the empty store elsewhere and move it here: it is there with all it needs, or not at all.

    Of several processes that do so at once, the first wins; the others find its store.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        group = zarr.open_group(str(making), mode="w")
        leading = {"sample": len(tokens)} | ({layout.variant: len(layout.variants)} if layout.variant else {})
        for array in layout.arrays:
            ShardedArray.create(group, array, leading, part_size)
        for name, (chunk, dtype) in _column_shape(layout, part_size).items():
            group.create_array(
                name,
                shape=(len(tokens), *chunk[1:]),
                chunks=chunk,
                dtype=dtype,
                filters=None,
                compressors=(Crc32cCodec(),),
                dimension_names=(*leading, *(["array"] if name == CHECK else [])),
            )
        token = group.create_array(
            TOKEN,
            shape=(len(tokens),),
            chunks=(max(1, len(tokens)),),
            dtype=str,
            compressors=(ZstdCodec(level=3, checksum=True), Crc32cCodec()),
            dimension_names=("sample",),
        )
        token[:] = np.asarray(tokens, object)
        Parts(group, -(-len(tokens) // part_size))
        group.attrs.update(_attributes(layout, part_size))
        try:
            os.rename(making, path)
        except OSError:
            if not path.exists():
                raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
