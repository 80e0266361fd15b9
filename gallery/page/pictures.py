"""One picture of the page: what its address asks for, drawn and encoded."""

import io
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import Query

from common.errors import UserError
from gallery.look import Gallery, Look, MapName
from gallery.page.samples import LOWEST_SCORE

JPEG_QUALITY = 87
SIZES = 64, 2560  # px of a picture's width


@dataclass(frozen=True)
class Wanted:
    """A picture's query: whose, of which sample, how big, and what is drawn."""

    id: Annotated[str, Query(description="an artifact's name")]
    sample: Annotated[int, Query(ge=0, description="the index's row")]
    size: Annotated[int, Query(ge=SIZES[0], le=SIZES[1])] = 480
    truth: bool = True
    predictions: bool = True
    points: bool = True
    depth: bool = False
    map: MapName = "none"
    channel: Annotated[int, Query(ge=0)] = 0
    score: Annotated[float, Query(ge=LOWEST_SCORE, le=1)] = Look.score
    dark: bool = False

    @property
    def look(self) -> Look:
        theme: Literal["light", "dark"] = "dark" if self.dark else "light"
        return Look(self.truth, self.predictions, self.points, self.depth, self.map, self.channel, self.score, theme)


def draw(gallery: Gallery, wanted: Wanted, what: str) -> bytes:
    """Encoded. what: "above", or a camera's name. Photographs are JPEG; lines and cells lossless WebP.

    Raises UserError for a sample or camera that is not there, and all that `Gallery` raises.
    """
    index, sample = gallery.opened.index, gallery.opened.row(str(wanted.sample))
    file = io.BytesIO()
    if what == "above":
        gallery.above(sample, wanted.look, wanted.size).save(file, "WEBP", lossless=True, quality=20, method=0)
    elif what in index.cameras:
        picture = gallery.camera(sample, index.cameras.index(what), wanted.look, wanted.size)
        picture.save(file, "JPEG", quality=JPEG_QUALITY)
    else:
        raise UserError(f"{what}: is no camera here; there are {', '.join(index.cameras)}")
    return file.getvalue()


def media_type(what: str) -> str:
    return "image/webp" if what == "above" else "image/jpeg"
