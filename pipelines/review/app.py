"""The application behind the review pages: each route looks something up, calls what does the work, and answers."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipelines.fingerprint import software_version
from pipelines.record import PAGE_FILE, SLIDES_FILE
from pipelines.review.access import Access, Guarded
from pipelines.review.description import describe_slide
from pipelines.review.layers import CellCache, draw_tissue, pack_patches, regions_of
from pipelines.review.run_folder import FILES, Listed, ReviewRun, described
from pipelines.review.tiles import ByteCache, SlideReaders, TileGrid, cut_tile, unreadable_tile
from wsi_her2.errors import HER2Error, SlideError, SlideReadError, StoreError
from wsi_her2.slides.slide import Overview, Slide
from wsi_her2.slides.store import PatchStore

_log = logging.getLogger(__name__)

_STATIC_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
_WORKLIST, _SLIDE = "worklist.html", "slide.html"
_WORTH_PACKING = 2000


def create_app(run: ReviewRun, access: Access) -> ASGIApp:
    """The application for one run.

    Parameters
    ----------
    run : ReviewRun
    access : Access
    """
    pages = _Pages(run)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        try:
            yield
        finally:
            pages.close()

    app = Starlette(
        routes=[
            Route("/", pages.shell(_WORKLIST)),
            Route("/slide/{slide_id}", pages.shell(_SLIDE)),
            Route("/static/{name:path}", pages.static),
            Route("/report/{slide_id}", pages.report),
            Route("/run", lambda _: RedirectResponse("/run/")),
            Route("/run/", pages.run_page),
            Route("/run/slides.csv", pages.run_table),
            Route("/run/{slide_id}/{name}", pages.file),
            Route("/files/{slide_id}/{name}", pages.file),
            Route("/api/run", pages.run_rows),
            Route("/api/slides/{slide_id}", pages.slide),
            Route("/api/slides/{slide_id}/tiles/{level:int}/{column:int}_{row:int}.jpg", pages.tile),
            Route("/api/slides/{slide_id}/patches", pages.patches),
            Route("/api/slides/{slide_id}/tissue.png", pages.tissue),
            Route("/api/slides/{slide_id}/cells", pages.cells),
            Route("/api/slides/{slide_id}/regions", pages.regions),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
        ],
        exception_handlers={
            HTTPException: _explain_status,
            HER2Error: _explain_error,
            Exception: _explain_failure,
        },
        lifespan=lifespan,
    )
    return Guarded(app, access)


class _Pages:
    """What the routes share."""

    def __init__(self, run: ReviewRun) -> None:
        self._run_folder = run
        self._readers = SlideReaders(run.slide, threads=max(2, min(4, os.cpu_count() or 2)))
        self._tiles = ByteCache()
        self._packed = ByteCache(32 * 2**20)
        self._cell_cache = CellCache()
        self._static = _static_files()

    def close(self) -> None:
        """Let go of slides and threads."""
        self._readers.close()

    def shell(self, name: str) -> Callable[[Request], Response]:
        """A page of the package, whatever the rest of its address says."""

        def answer(_: Request) -> Response:
            if name not in self._static:
                raise HTTPException(404, f"{name} is not in this version.")
            return _file_response(self._static[name], _STATIC_TYPES[".html"])

        return answer

    def static(self, request: Request) -> Response:
        """A file of the package."""
        path = self._static.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404, "There is no such file in the package.")
        return _file_response(path, _STATIC_TYPES[path.suffix])

    def report(self, request: Request) -> Response:
        """The report of a slide."""
        return self._own_file(request, "report.html")

    def file(self, request: Request) -> Response:
        """A file of a slide's folder."""
        return self._own_file(request, request.path_params["name"])

    def run_page(self, _: Request) -> Response:
        """The page of the run, as it lies in its folder."""
        return self._run_file(PAGE_FILE, _STATIC_TYPES[".html"])

    def run_table(self, _: Request) -> Response:
        """The table of the run."""
        return self._run_file(SLIDES_FILE, "text/csv; charset=utf-8")

    def run_rows(self, request: Request) -> Response:
        """The list of slides."""
        run = self._run_folder
        content = {
            "title": run.output.name,
            "folder": str(run.output),
            "version": software_version(),
            "reviewer": run.reviewer,
            "reasons": [],
            "slides": [{**described(listed), "latest_review": None} for listed in run.listed()],
        }
        return _json(request, content)

    def slide(self, request: Request) -> Response:
        """All of a slide that its page needs at once."""
        listed = self._listed(request)
        content = {
            "row": {**described(listed), "latest_review": None},
            **describe_slide(self._run_folder, listed, self._store(listed)),
            "reviews": [],
            "drawn": {"type": "FeatureCollection", "features": []},
        }
        return _json(request, content)

    async def tile(self, request: Request) -> Response:
        """A tile of a slide."""
        listed = self._listed(request)
        slide_id = listed.row.slide_id
        result = await run_in_threadpool(self._run_folder.result, slide_id)
        if result.reader is None or listed.file is None:
            raise HTTPException(404, listed.why_not or "The slide could not be opened when it was scored.")
        level, column, row = (request.path_params[name] for name in ("level", "column", "row"))
        place = TileGrid(*result.reader.dimensions).place(level, column, row)
        if place is None:
            raise HTTPException(404, "There is no such tile.")
        key = (slide_id, result.fingerprint, level, column, row)
        tag = f'"{result.fingerprint[:20]}-{level}-{column}-{row}"'
        headers = {"etag": tag, "cache-control": _caching(request, result.fingerprint)}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        content = self._tiles.get(key)
        if content is None:

            def cut(slide: Slide) -> bytes:
                return cut_tile(slide, place, lambda: self._overview(listed))

            try:
                content = await asyncio.wrap_future(self._readers.submit(slide_id, cut))
            except SlideReadError as error:
                _log.info("%s: %s", slide_id, error)
                unreadable = await run_in_threadpool(unreadable_tile, place)
                return Response(unreadable, media_type="image/jpeg", headers={"x-unreadable": "1"})
            self._tiles.put(key, content)
        return Response(content, media_type="image/jpeg", headers=headers)

    def patches(self, request: Request) -> Response:
        """The patches of a slide."""
        listed = self._listed(request)
        result = self._run_folder.result(listed.row.slide_id)
        key = ("patches", listed.row.slide_id, result.fingerprint)
        content = self._packed.get(key)
        if content is None:
            content = pack_patches(self._opened(listed), result.modality, self._run_folder.config())
            self._packed.put(key, content)
        return _packed(request, content, "application/octet-stream")

    def tissue(self, request: Request) -> Response:
        """The tissue mask of a slide."""
        listed = self._listed(request)
        key = ("tissue", listed.row.slide_id, self._run_folder.result(listed.row.slide_id).fingerprint)
        content = self._packed.get(key)
        if content is None:
            content = draw_tissue(self._opened(listed).read_overview())
            self._packed.put(key, content)
        return Response(content, media_type="image/png")

    def cells(self, request: Request) -> Response:
        """The counted cells in a box."""
        listed = self._listed(request)
        slide_id = listed.row.slide_id
        path = self._run_folder.cell_table(slide_id)
        if path is None:
            raise HTTPException(404, "No cells were counted on this slide.")
        box = [_number(request, name) for name in ("x", "y", "width", "height")]
        key = (slide_id, self._run_folder.result(slide_id).fingerprint)
        return _packed(request, self._cell_cache.get(key, path).packed(*box), "application/octet-stream")

    def regions(self, request: Request) -> Response:
        """The annotated regions within which a slide was scored."""
        listed = self._listed(request)
        run = self._run_folder
        return _json(request, regions_of(run.result(listed.row.slide_id), run.config()))

    def _listed(self, request: Request) -> Listed:
        slide_id = request.path_params["slide_id"]
        found = self._run_folder.find(slide_id)
        if found is None:
            raise HTTPException(404, f"The run has no slide {slide_id!r}. The list shows those that it has.")
        return found

    def _store(self, listed: Listed) -> PatchStore | None:
        path = self._run_folder.store(listed.row.slide_id)
        if path is None:
            return None
        try:
            return PatchStore.open(path, complete=True)
        except StoreError as error:
            _log.warning("%s: shown without its layers. %s", listed.row.slide_id, error)
            return None

    def _opened(self, listed: Listed) -> PatchStore:
        store = self._store(listed)
        if store is None:
            raise HTTPException(404, "Nothing was kept of this slide's patches.")
        return store

    def _overview(self, listed: Listed) -> Overview | None:
        store = self._store(listed)
        return None if store is None else store.read_overview().overview

    def _own_file(self, request: Request, name: str) -> Response:
        path = self._run_folder.file(self._listed(request).row.slide_id, name)
        if path is None:
            raise HTTPException(404, f"The slide's folder holds no {name} that may be shown.")
        return _file_response(path, FILES[name])

    def _run_file(self, name: str, media_type: str) -> Response:
        path = self._run_folder.page(name)
        if path is None:
            raise HTTPException(404, f"The run has no {name}. `wsi-her2 report` makes it.")
        return _file_response(path, media_type)


def _caching(request: Request, fingerprint: str) -> str:
    """A tile whose address holds the fingerprint never changes; of others a browser asks whether they have."""
    if request.query_params.get("v") == fingerprint[:20]:
        return "private, max-age=31536000, immutable"
    return "private, no-cache"


def _static_files() -> dict[str, Path]:
    """The files of the package that pages may ask for, by what follows `/static/`."""
    root = Path(str(resources.files("pipelines.review"))) / "static"
    return {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if path.is_file() and path.suffix in _STATIC_TYPES
    }


def _file_response(path: Path, media_type: str) -> Response:
    headers = {"cache-control": "no-cache"}
    if media_type.startswith("text/html") and "static" not in path.parts:
        headers["content-security-policy"] = "frame-ancestors 'none'"
    return Response(path.read_bytes(), media_type=media_type, headers=headers)


def _number(request: Request, name: str) -> float:
    try:
        value = float(request.query_params[name])
    except (KeyError, ValueError) as error:
        raise HTTPException(400, f"{name} must be a number: a box is x, y, width and height in pixels.") from error
    if value != value:
        raise HTTPException(400, f"{name} must be a number.")
    return value


def _json(request: Request, content: Any, status: int = 200) -> Response:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _packed(request, text.encode("utf-8", "replace"), "application/json", status)


def _packed(request: Request, content: bytes, media_type: str, status: int = 200) -> Response:
    headers = {"vary": "accept-encoding"}
    if len(content) > _WORTH_PACKING and "gzip" in request.headers.get("accept-encoding", ""):
        content = gzip.compress(content, 1)
        headers["content-encoding"] = "gzip"
    return Response(content, status, media_type=media_type, headers=headers)


def _explain_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json(request, {"error": error.detail}, error.status_code)


def _explain_error(request: Request, error: Exception) -> Response:
    return _json(request, {"error": str(error)}, 404 if isinstance(error, SlideError) else 500)


def _explain_failure(request: Request, error: Exception) -> Response:
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    said = "Something went wrong in the server; where it was started it says what. Reviews are kept."
    return _json(request, {"error": said}, 500)
