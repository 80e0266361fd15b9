"""`bev.zarr`: the teacher's BEV features of every sample, written in parts, read one sample at a time.

    bev    (sample, channel, x, y) float16: one sample an inner chunk, one part a shard, zstd-1 and CRC32C
    token  (sample) str, in the order of the index
    done   (part) uint8

x and y grow with the LIDAR_TOP frame's. A part is samples `part * part_size` onwards, `part_size` of them; it is
written whole by one writer, then flagged. Zarr reads a chunk that is not there as zeros: the reader here raises.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from storage.parts import Parts

FORMAT = 1
FRAME = "LIDAR_TOP of the key frame"


@dataclass(frozen=True)
class BevAttributes:
    """What holds for the whole store, as group attributes."""

    range: tuple[float, ...]  # x, y, z minimum, then maximum (m)
    cell_size: tuple[float, float]  # m along x and y
    part_size: int
    frame: str = FRAME


class BevWriter:
    """The store while it is made. Opening it again goes on from the parts that are done."""

    def __init__(self, path: Path, tokens: np.ndarray, shape_CXY: tuple[int, int, int], attributes: BevAttributes):
        """Raises ValueError if the store there is of another shape or other samples."""
        self.part_size = attributes.part_size
        group = zarr.open_group(str(path), mode="a")
        if "token" not in group:  # written last: without it, creation was interrupted
            group = zarr.open_group(str(path), mode="w")
            group.attrs.update({"format": FORMAT, **asdict(attributes)})
            group.create_array(
                "bev",
                shape=(len(tokens), *shape_CXY),
                shards=(self.part_size, *shape_CXY),
                chunks=(1, *shape_CXY),
                dtype="float16",
                compressors=(ZstdCodec(level=1), Crc32cCodec()),
                dimension_names=("sample", "channel", "x", "y"),
            )
            Parts(group, -(-len(tokens) // self.part_size))
            token = group.create_array(
                "token", shape=(len(tokens),), chunks=(max(1, len(tokens)),), dtype=str, dimension_names=("sample",)
            )
            token[:] = np.asarray(tokens, object)
        # Not part of what is stored, and ignored as an argument of open_array (zarr 3.1.5): without this setting, an
        # opened array leaves maps of zeros out.
        with zarr.config.set({"array.write_empty_chunks": True}):
            self._bev = zarr.open_array(str(path / "bev"), mode="r+")
        if self._bev.shape != (len(tokens), *shape_CXY) or list(group["token"][:]) != list(tokens):
            raise ValueError(f"{path}: holds other samples or maps of another shape")
        self.parts = Parts(group, -(-len(tokens) // self.part_size))

    def samples(self, part: int) -> range:
        """The samples of a part."""
        return range(part * self.part_size, min((part + 1) * self.part_size, self._bev.shape[0]))

    def write(self, part: int, bev: np.ndarray) -> None:
        """Write and flag a whole part (samples, C, X, Y). Raises ValueError for what float16 cannot hold."""
        samples = self.samples(part)
        if bev.shape != (len(samples), *self._bev.shape[1:]):
            raise ValueError(f"part {part} has {len(samples)} maps of {self._bev.shape[1:]}, not {bev.shape}")
        with np.errstate(over="ignore"):
            half = bev.astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"part {part}: features that are not finite, or beyond the range of float16")
        self._bev[samples.start : samples.stop] = half
        self.parts.mark(part)


class BevReader:
    """`reader[sample]` is the map (C, X, Y) float16 of a sample. Safe to hand to forked or spawned workers."""

    def __init__(self, path: Path):
        """Raises FileNotFoundError where there is no store."""
        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise FileNotFoundError(f"{path}: there is no BEV cache; `geomim teacher` makes it")

    def __getstate__(self) -> dict:
        return {"path": self.path}

    @cached_property
    def _group(self) -> zarr.Group:
        return zarr.open_group(str(self.path), mode="r", use_consolidated=False)

    @cached_property
    def _bev(self) -> zarr.Array:
        return self._group["bev"]

    @cached_property
    def _done(self) -> np.ndarray:
        return self._group["done"][:]

    @cached_property
    def attributes(self) -> BevAttributes:
        stored = self._group.attrs
        names = BevAttributes.__dataclass_fields__
        return BevAttributes(**{n: tuple(stored[n]) if isinstance(stored[n], list) else stored[n] for n in names})

    @cached_property
    def tokens(self) -> list[str]:
        """Sample tokens, in the order of the store."""
        return list(self._group["token"][:])

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, X, Y) of a map."""
        return self._bev.shape[1:]

    def __len__(self) -> int:
        return self._bev.shape[0]

    def __getitem__(self, sample: int) -> np.ndarray:
        """Raises IndexError beyond the end, KeyError where the sample's part is not written, OSError if it is gone."""
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of {len(self)}")
        part = sample // self.attributes.part_size
        if not self._done[part]:
            raise KeyError(f"{self.path}: part {part} (sample {sample}) is not written; run `geomim teacher` again")
        if not (self.path / "bev" / "c" / str(part) / "0" / "0" / "0").is_file():
            raise OSError(f"{self.path}: part {part} is flagged as done but its data is gone; run `geomim teacher`")
        return self._bev[sample]
