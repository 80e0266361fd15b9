"""The one reader of a dataroot's camera images."""

from pathlib import Path

import numpy as np

from common.errors import DataError
from common.files import read_file


def decode(data: bytes, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """RGB (h, w, 3) of a JPEG, at the smallest scale (eighths of its size) that has `at_least` (width, height) pixels.

    A scaled decode skips the finest frequencies, which resizing would remove anyway. ValueError if it is no JPEG.
    """
    import simplejpeg

    width, height = at_least or (0, 0)
    return simplejpeg.decode_jpeg(data, "RGB", min_width=width, min_height=height)


def read_image(path: Path, at_least: tuple[int, int] | None = None) -> np.ndarray:
    """`decode` of a file: its pixels as they are stored, whatever EXIF says; a grey image in all three channels.

    Raises DataError where it is gone or damaged, FileSystemError as `read_file` does.
    """
    data = read_file(path)
    try:
        return decode(data, at_least)
    except ValueError as error:
        remedy = "fetch the file again; `geomim ingest --deep` finds all such files, ingest.leave_out does without them"
        raise DataError(f"{path}: does not decode ({error}); {remedy}") from None
