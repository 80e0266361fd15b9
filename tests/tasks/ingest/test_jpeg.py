"""Images as cameras and other people's tools write them: which pass, and what the network then gets."""

import io

import numpy as np
import pytest
from PIL import Image

from batches.images import ImageDraw, load_image
from common.errors import DataError
from dataroot.jpeg import jpeg_head
from tasks.ingest.config import IngestConfig
from tasks.ingest.run import ingest

WHOLE = ImageDraw(1.0, (0, 0))


def picture(mode: str = "RGB", size: tuple[int, int] = (32, 16), **options) -> bytes:
    """A JPEG that is red at the left and blue at the right."""
    image = Image.new("RGB", size, (250, 10, 10))
    image.paste((10, 10, 250), (size[0] // 2, 0, *size))
    image.convert(mode).save(file := io.BytesIO(), "JPEG", quality=95, **options)
    return file.getvalue()


def orientation(value: int) -> dict:
    exif = Image.Exif()
    exif[0x0112] = value
    return {"exif": exif}


def pixels(path) -> np.ndarray:
    return load_image(path, WHOLE, (16, 32), (32, 16))


def fault(world) -> str:
    """What ingest says of the world's one bad file, or nothing."""
    try:
        ingest(world.root, world.version, IngestConfig())
    except DataError as error:
        (line,) = str(error).splitlines()[2:]
        return line
    return ""


@pytest.mark.parametrize("tail", [b"\0" * 10, b"\xff\xff", b"0123456789" * 20_000], ids=["zeros", "fill", "much"])
def test_bytes_after_the_end_are_passed_over(world, tail):
    path = world.file_of("CAM_FRONT")
    path.write_bytes(picture())
    plain = pixels(path)
    path.write_bytes(picture() + tail)
    assert fault(world) == ""
    np.testing.assert_array_equal(pixels(path), plain)


@pytest.mark.parametrize("head", [{}, {"exif": b"Exif\0\0" + b"\xff\xd9" * 3000}], ids=["plain", "with ends"])
def test_what_is_cut_short_is_still_told(world, head):
    path = world.file_of("CAM_FRONT")
    data = picture(**head)
    for end in (-2, -20, len(data) // 2):
        path.write_bytes(data[:end])
        assert "cut short: it has no end marker" in fault(world) or "no header says its size" in fault(world)


def test_a_preview_is_not_taken_for_the_image(world):
    """It has pixels and an end of its own, before the image's own head."""
    path = world.file_of("CAM_FRONT")
    preview = picture(exif=b"Exif\0\0")
    data = picture(exif=b"Exif\0\0" + preview)
    path.write_bytes(data)
    assert fault(world) == ""
    path.write_bytes(data + b"more")
    assert fault(world) == ""
    for end in (-2, -20, -len(picture()) // 2):
        path.write_bytes(data[:end])
        assert "cut short: it has no end marker" in fault(world)


def test_a_picture_of_another_kind_is_told_how_to_be_saved(world):
    path = world.file_of("CAM_FRONT")
    Image.new("RGB", (32, 16)).save(path, "PNG")
    assert "save it again as a JPEG" in fault(world)


def test_a_head_that_is_longer_than_what_is_read_first(world):
    path = world.file_of("CAM_FRONT")
    for length in (3_000, 60_000):
        path.write_bytes(picture(exif=b"Exif\0\0" + bytes(length)))
        assert fault(world) == ""
    segments = b"".join(b"\xff\xe2\xff\xff" + bytes(65_533) for _ in range(3))
    data = picture()
    path.write_bytes(data[:2] + segments + data[2:])
    assert fault(world) == ""


def test_grey_images_are_grey_in_all_channels(world):
    path = world.file_of("CAM_FRONT")
    path.write_bytes(picture("L"))
    assert fault(world) == ""
    got = pixels(path)
    assert got.shape == (16, 32, 3)
    assert np.ptp(got, axis=2).max() == 0
    assert got.std() > 5


def test_cmyk_is_refused(world):
    """Half of the world's CMYK JPEGs are inverted, and nothing in the file says which half."""
    world.file_of("CAM_FRONT").write_bytes(picture("CMYK"))
    assert "has colours that are no RGB (4 components, such as CMYK) | save it again as a JPEG of RGB" in fault(world)


def test_values_of_12_bits_are_refused(world):
    data = bytearray(picture())
    at = data.index(b"\xff\xc0")
    data[at + 4] = 12
    world.file_of("CAM_FRONT").write_bytes(data)
    assert "has values of another size than 8 bits (12 bits)" in fault(world)


@pytest.mark.parametrize("value", [2, 3, 4])
def test_an_image_to_be_turned_is_said_and_taken_as_it_is_stored(world, value):
    path = world.file_of("CAM_FRONT")
    path.write_bytes(picture())
    plain = pixels(path)
    path.write_bytes(picture(**orientation(value)))
    _, _, facts = ingest(world.root, world.version, IngestConfig())
    warning = facts["warnings"]["exif_orientation"]
    assert "to turn them before they are shown: 1, such as samples/CAM_FRONT/0-0.jpg;" in warning
    assert "the network gets the pixels as they are stored" in warning
    np.testing.assert_array_equal(pixels(path), plain)
    path.write_bytes(picture(**orientation(1)))
    assert "exif_orientation" not in ingest(world.root, world.version, IngestConfig())[2]["warnings"]


def test_an_image_that_is_stored_lying_is_told(world):
    world.file_of("CAM_FRONT").write_bytes(picture(size=(16, 32), **orientation(6)))
    assert "has another size than sample_data.json says (16x32, not 32x16; it is stored lying and EXIF" in fault(world)


@pytest.mark.parametrize("order", ["little", "big"])
def test_the_orientation_is_pillows(order):
    for value in range(1, 9):
        exif = Image.Exif()
        exif.endian = "<" if order == "little" else ">"
        exif[0x010F] = "a maker"
        exif[0x0112] = value
        assert jpeg_head(picture(exif=exif)).orientation == value
    for broken in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0xx"):
        assert jpeg_head(picture(exif=broken)).orientation == 1
