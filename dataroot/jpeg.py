"""What is wrong with a camera image, from its head and its end, or by decoding all of it."""

import os
import struct
from pathlib import Path
from typing import NamedTuple

from common.files import open_regular
from dataroot.faults import FileFault
from dataroot.images import decode

FIRST_BYTES = 1 << 11  # hold the size of a camera's image; one with a preview in its head needs more
MORE_BYTES = 1 << 16
END = b"\xff\xd9"
SAVE = "save it again as a JPEG of RGB or grey with 8 bits"


class Head(NamedTuple):
    """What a JPEG says of itself before its pixels."""

    width: int
    height: int
    bits: int  # of a value
    components: int  # 1 grey, 3 colour, 4 CMYK
    orientation: int  # EXIF: 1 as stored, 2 to 8 to be turned or mirrored before it is shown
    end: int  # bytes before what follows the frame header; previews lie before it


def jpeg_fault(path: Path, width: int, height: int) -> tuple[FileFault | None, int]:
    """What is wrong with an image that the tables say is width x height (0 x 0: they do not), and its orientation.

    Raises OSError where it cannot be read.
    """
    with open(open_regular(path), "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(FIRST_BYTES)
        if data[:2] != b"\xff\xd8":
            return FileFault("is no JPEG: does not start as one", "", SAVE if data[:4] == b"\x89PNG" else ""), 1
        head = jpeg_head(data)
        if head is None:
            data += file.read(MORE_BYTES - FIRST_BYTES)
            head = jpeg_head(data)
        file.seek(max(0, size - len(END)))
        whole = file.read(len(END)) == END
        if head is None or not whole:
            file.seek(0)
            data = file.readall()
            # Some writers put bytes of their own after the end; decoders pass over them.
            head = jpeg_head(data)
            pixels = data.find(b"\xff\xda", head.end) if head else -1
            whole = 0 < pixels < data.rfind(END)
    if head is None:
        return FileFault("is a damaged JPEG: no header says its size"), 1
    if not whole:
        return FileFault("is a JPEG cut short: it has no end marker"), 1
    return head_fault(head, width, height), head.orientation


def head_fault(head: Head, width: int, height: int) -> FileFault | None:
    """What of an image's head does not fit the tables or the network."""
    if head.components not in (1, 3):
        return FileFault("has colours that are no RGB", f"{head.components} components, such as CMYK", SAVE)
    if head.bits != 8:
        return FileFault("has values of another size than 8 bits", f"{head.bits} bits", SAVE)
    if (width, height) not in ((0, 0), head[:2]):
        detail = f"{head.width}x{head.height}, not {width}x{height}"
        if head[:2] == (height, width) and head.orientation > 4:
            detail += "; it is stored lying and EXIF says to turn it: turn its pixels"
        return FileFault("has another size than sample_data.json says", detail)
    return None


def jpeg_head(data: bytes) -> Head | None:
    """From a JPEG's first bytes, or None where they do not reach or are none (ITU T.81, B.1.1.4 and B.2.2)."""
    at, orientation = 2, 1
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            at += 2
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if at + 10 > len(data):
                return None
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            length = struct.unpack_from(">H", data, at + 2)[0]
            return Head(width, height, bits, components, orientation, at + 2 + length)
        elif marker in (0xD9, 0xDA):  # the end, or pixels before any frame header
            return None
        else:
            length = struct.unpack_from(">H", data, at + 2)[0]
            if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
                orientation = exif_orientation(data[at + 10 : at + 2 + length])
            at += 2 + length
    return None


def exif_orientation(data: bytes) -> int:
    """The orientation (1 to 8) in an EXIF segment's TIFF structure; 1 where it says nothing sensible."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return 1
    entries = struct.unpack_from(f"{order}I", data, 4)[0]
    count = struct.unpack_from(f"{order}H", data, entries)[0] if entries + 2 <= len(data) else 0
    for at in range(entries + 2, min(entries + 2 + 12 * count, len(data) - 11), 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, at)
        if tag == 0x0112 and 1 <= value <= 8:
            return value
    return 1


def pixels_fault(data: bytes) -> FileFault | None:
    """Whether an image's pixels decode. At an eighth of the size all of the data is still read, in a third the time."""
    try:
        decode(data, (1, 1))
    except ValueError as error:
        return FileFault("is a damaged JPEG", str(error))
    return None
