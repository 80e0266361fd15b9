"""The page's server: its files, what it asks for in JSON, and the pictures. It reads, and changes nothing."""

import hashlib
import secrets
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.types import ASGIApp

from common.cores import available_cores
from common.errors import DataError, FileSystemError, UserError
from gallery.look import Gallery, Look
from gallery.page import facts
from gallery.page.cache import ByteCache
from gallery.page.guard import Guard
from gallery.page.pictures import Wanted, draw, media_type
from gallery.page.samples import LOWEST_SCORE, Tally
from gallery.page.shelf import Shelf
from storage.sentences import in_sentences

STATIC = Path(__file__).parent / "static"
CACHE_BYTES = 256_000_000  # of encoded pictures
KEPT = "private, max-age=86400"  # by the browser: a picture's address holds all that decides it, see `boot`
FRESH = "no-cache"  # asked for again each time

WantedPicture = Annotated[Wanted, Depends()]


def make_app(shelf: Shelf, token: str, cookie: str = "geomim_view", cache_bytes: int = CACHE_BYTES) -> ASGIApp:
    """The page of what is on a shelf, for those who know the token."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _add_sentences(app)
    cache, tallies = ByteCache(cache_bytes), _Tallies()
    drawing = anyio.CapacityLimiter(available_cores())  # more threads would only take turns
    boot = secrets.token_hex(4)  # in the addresses of pictures: what another server drew is no longer asked for

    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": FRESH})

    @app.get("/static/{name}")
    def static(name: str) -> FileResponse:
        if name not in {file.name for file in STATIC.iterdir()}:
            raise UserError(f"{name}: is no file of this page")
        return FileResponse(STATIC / name, headers={"Cache-Control": FRESH})

    @app.get("/api/shelf")
    def listed() -> dict[str, Any]:
        return {
            "entries": shelf.listed(),
            "chosen": shelf.chosen,
            "depth": facts.depth_scale(),
            "colours": facts.box_colours(),
            "boot": boot,
        }

    @app.get("/api/artifact")
    def artifact(id: str) -> dict[str, Any]:
        return facts.of_artifact(shelf.gallery(id))

    @app.get("/api/health")
    def health(id: str) -> list[Any]:
        return facts.of_health(shelf.gallery(id))

    @app.get("/api/sample")
    def sample(wanted: WantedPicture) -> dict[str, Any]:
        return facts.of_sample(shelf.gallery(wanted.id), wanted.sample, wanted.look)

    @app.get("/api/tally")
    def tally(id: str, score: Annotated[float, Query(ge=LOWEST_SCORE, le=1)] = Look.score) -> dict[str, Any]:
        return tallies.of(id, shelf.gallery(id)).at(score)

    @app.get("/stored")
    def stored(id: str, name: str) -> FileResponse:
        opened = shelf.gallery(id).opened
        if name not in facts.stored_pictures(opened.manifest):
            raise UserError(f"{name}: is no picture of {id}")
        if not (opened.path / name).is_file():
            raise DataError(f"{opened.path / name}: is gone; `geomim repair {opened.path}` mends it")
        return FileResponse(opened.path / name, headers={"Cache-Control": FRESH})

    @app.get("/picture/{what}")
    async def picture(what: str, wanted: WantedPicture, request: Request) -> Response:
        def make() -> bytes:
            with in_sentences():
                return draw(shelf.gallery(wanted.id), wanted, what)

        async with drawing:
            if await request.is_disconnected():  # it waited for others, and the page is at another sample now
                return Response(status_code=499)
            data = await anyio.to_thread.run_sync(cache.get, (what, wanted), make)
        tag = f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"'
        headers = {"ETag": tag, "Cache-Control": KEPT}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(data, media_type=media_type(what), headers=headers)

    return Guard(app, token, cookie)


class _Tallies:
    """One an opened artifact; one that was opened again is counted again."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Gallery, Tally]] = {}

    def of(self, id: str, gallery: Gallery) -> Tally:
        if gallery.opened.results is None:
            raise UserError(f"{id}: predicts no boxes")
        kept = self._kept.get(id)
        if kept is None or kept[0] is not gallery:
            kept = self._kept[id] = gallery, Tally(gallery)
        return kept[1]


def _add_sentences(app: FastAPI) -> None:
    """Each error is one sentence in JSON, with the status that says whose fault it is."""

    def answer(status: int, words: Callable[[Any], str]) -> Callable[[Request, Any], JSONResponse]:
        return lambda request, error: JSONResponse(
            {"error": words(error)}, status, headers={"Cache-Control": "no-store"}
        )

    def bug(error: Exception) -> str:
        traceback.print_exception(error, file=sys.stderr)
        return f"geomim itself failed here ({type(error).__name__}); where, it printed in its terminal"

    def bad_query(error: RequestValidationError) -> str:
        return "; ".join(f"{'.'.join(map(str, fault['loc'][1:]))}: {fault['msg']}" for fault in error.errors())

    app.add_exception_handler(UserError, answer(404, str))
    app.add_exception_handler(DataError, answer(422, str))
    app.add_exception_handler(FileSystemError, answer(503, str))
    app.add_exception_handler(404, answer(404, lambda error: "there is no such place on this page"))
    app.add_exception_handler(RequestValidationError, answer(400, bad_query))
    app.add_exception_handler(Exception, answer(500, bug))
