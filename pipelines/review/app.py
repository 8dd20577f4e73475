"""The application behind the review pages: each route looks something up, calls what does the work, answers."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cached_property
from importlib import import_module, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from pipelines.fingerprint import software_version
from pipelines.review.access import Access, Guarded
from pipelines.review.answers import (
    FailuresExplained,
    as_file,
    as_json,
    explain_error,
    explain_status,
    json_of,
    number_of,
    packed,
    reports_policy,
    to_json,
)
from pipelines.review.description import describe_slide
from pipelines.review.journal import REASONS
from pipelines.review.layers import CellCache, draw_tissue, pack_patches, regions_of, shrunk_overview
from pipelines.review.reviewing import Reviewing
from pipelines.review.run_folder import FILES, Listed, ReviewRun
from pipelines.review.tiles import TILE_PX, ByteCache, SlideReaders, TileGrid, cut_tile
from pipelines.run.record import PAGE_FILE, SLIDES_FILE, run_config, run_state
from wsi_her2.errors import HER2Error
from wsi_her2.reports.palette import hex_of
from wsi_her2.scoring.result import SlideResult
from wsi_her2.scoring.rule import SCORES
from wsi_her2.slides.slide import Overview, Slide

_STATIC_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
_WORKLIST, _SLIDE = "worklist.html", "slide.html"
_LAYER_BYTES = 32 * 2**20
_TILE_LIMIT_S = 60.0
_REVIEW_BYTES, _REGIONS_BYTES = 64_000, 8_000_000

if TYPE_CHECKING:
    from wsi_her2.slides.store import PatchStore


def create_app(run: ReviewRun, access: Access, *, tile_px: int = TILE_PX) -> ASGIApp:
    """The application for one run.

    Parameters
    ----------
    run : ReviewRun
    access : Access
    tile_px : int
        Side of a tile.
    """
    pages = _Pages(run, tile_px)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        threading.Thread(target=_load_ahead, name="load-ahead", daemon=True).start()
        try:
            yield
        finally:
            await run_in_threadpool(pages.close)

    of_slide = "/api/slides/{slide_id}"
    app = Starlette(
        routes=[
            Route("/", pages.shell(_WORKLIST)),
            Route("/slide/{slide_id}", pages.shell(_SLIDE)),
            Route("/static/{name:path}", pages.static),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
            Route("/report/{slide_id}", pages.report),
            Route("/files/{slide_id}/{name}", pages.file),
            Route("/run", lambda _: RedirectResponse("/run/", 308)),
            Route("/run/", pages.run_page),
            Route("/run/slides.csv", pages.run_table),
            Route("/run/{slide_id}/{name}", pages.file),
            Route("/api/run", pages.rows),
            Route("/api/reviews.csv", pages.reviews_csv),
            Route("/api/truth.csv", pages.truth_csv),
            Route(of_slide, pages.slide),
            Route(of_slide + "/tiles/{level:int}/{column:int}_{row:int}.jpg", pages.tile),
            Route(of_slide + "/overview.jpg", pages.overview),
            Route(of_slide + "/patches", pages.patches),
            Route(of_slide + "/tissue.png", pages.tissue),
            Route(of_slide + "/cells", pages.cells),
            Route(of_slide + "/regions", pages.regions),
            Route(of_slide + "/reviews", pages.add_review, methods=["POST"]),
            Route(of_slide + "/rescore", pages.rescore, methods=["POST"]),
            Route(of_slide + "/drawn", pages.draw, methods=["PUT"]),
        ],
        exception_handlers={
            HTTPException: explain_status,
            HER2Error: explain_error,
        },
        middleware=[Middleware(FailuresExplained)],
        lifespan=lifespan,
    )
    return Guarded(app, access)


class _Pages:
    """What the routes share. Those that are no coroutines run in threads of their own."""

    def __init__(self, run: ReviewRun, tile_px: int) -> None:
        self._run = run
        self._tile_px = tile_px
        self._reviewing = Reviewing(run)
        self._readers = SlideReaders(lambda key: run.slide(key[0]), threads=max(2, min(4, os.cpu_count() or 2)))
        self._tiles, self._layers = ByteCache(), ByteCache(_LAYER_BYTES)
        self._cells = CellCache()
        self._static = _static_files()

    @cached_property
    def _reports_policy(self) -> str:
        return reports_policy()

    def close(self) -> None:
        """Let go of slides and threads."""
        self._readers.close()

    # Pages and files.

    def shell(self, name: str) -> Callable[[Request], Response]:
        """A page of the package, whatever the rest of its address says."""
        return lambda request: self._of_package(request, name)

    def static(self, request: Request) -> Response:
        """A file of the package."""
        return self._of_package(request, request.path_params["name"])

    def report(self, request: Request) -> Response:
        """The report of a slide."""
        return self._of_slide(request, "report.html")

    def file(self, request: Request) -> Response:
        """A file of a slide's folder."""
        return self._of_slide(request, request.path_params["name"])

    def run_page(self, request: Request) -> Response:
        """The page of the run, as it lies in its folder."""
        return self._of_run(request, PAGE_FILE, _STATIC_TYPES[".html"])

    def run_table(self, request: Request) -> Response:
        """The table of the run."""
        return self._of_run(request, SLIDES_FILE, FILES["patches.csv"])

    def _of_package(self, request: Request, name: str) -> Response:
        path = self._static.get(name)
        if path is None:
            raise HTTPException(404, "The package has no such file.")
        return as_file(request, path, _STATIC_TYPES[path.suffix])

    def _of_slide(self, request: Request, name: str) -> Response:
        path = self._run.file(self._listed(request).row.slide_id, name)
        if path is None:
            raise HTTPException(404, "The slide's folder has no such file that may be shown.")
        return as_file(request, path, FILES[name], policy=self._policy_for(path))

    def _of_run(self, request: Request, name: str, media_type: str) -> Response:
        path = self._run.page(name)
        if path is None:
            raise HTTPException(404, f"The run has no {name}: `wsi-her2 report` makes it.")
        return as_file(request, path, media_type, policy=self._policy_for(path))

    def _policy_for(self, path: Path) -> str | None:
        return self._reports_policy if path.suffix == ".html" else None

    # What the pages ask for.

    def rows(self, request: Request) -> Response:
        """The run and its slides; with `?slides=no` without them."""
        run, reviewing = self._run, self._reviewing
        content: dict[str, Any] = {
            "title": run.output.name,
            "folder": str(run.output),
            "state": run_state(run.output),
            "version": software_version(),
            "reviewer": run.reviewer,
            "reasons": list(REASONS),
            "colours": {score: hex_of(score) for score in SCORES},
        }
        slides = None
        if request.query_params.get("slides") != "no":
            latest = reviewing.latest()
            rows = (_row(listed, latest.get(listed.row.slide_id)) for listed in run.listed())
            slides = f"[{','.join(rows)}]"
        return as_json(request, content, slides=slides)

    def slide(self, request: Request) -> Response:
        """All of a slide that its page needs at once."""
        listed = self._run.look_for(request.path_params["slide_id"])
        slide_id = listed.row.slide_id
        content = describe_slide(self._run, listed, self._run.store(slide_id), self._tile_px)
        if content["viewable"]:
            # The page takes its scripts first; by then the slide is open.
            self._readers.open_ahead(_key(listed))
        content |= {"reviews": self._reviewing.of_slide(slide_id), "drawn": self._reviewing.drawn(slide_id)}
        return as_json(request, content, row=_row(listed, self._reviewing.latest_of(slide_id)))

    async def tile(self, request: Request) -> Response:
        """A tile of a slide."""
        listed, result = await run_in_threadpool(self._scored, request)
        slide_id = result.slide_id
        if result.reader is None or listed.file is None:
            raise HTTPException(404, listed.why_not or "The slide could not be opened when it was scored.")
        level, column, row = (request.path_params[name] for name in ("level", "column", "row"))
        place = TileGrid(*result.reader.dimensions, self._tile_px).place(level, column, row)
        if place is None:
            raise HTTPException(404, "The slide has no such tile.")
        version = result.fingerprint[:20]
        tag = f'"{version}-{level}-{column}-{row}"'
        # With the version in its address a tile never changes; without it the browser asks whether it has.
        fixed = request.query_params.get("v") == version
        caching = "private, max-age=31536000, immutable" if fixed else "private, no-cache"
        headers = {"etag": tag, "cache-control": caching}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        content = self._tiles.get((slide_id, tag))
        if content is None:

            def cut(slide: Slide) -> tuple[bytes, bool]:
                return cut_tile(slide, place, lambda: self._overview(slide_id))

            reading = asyncio.wrap_future(self._readers.submit(_key(listed), cut))
            try:
                cut_out, whole = await asyncio.wait_for(reading, _TILE_LIMIT_S)
            except TimeoutError as error:
                raise HTTPException(503, f"{listed.name} does not answer: is its disk or share there?") from error
            if not whole:
                # Damage may be that of the moment, as on a share: it is not to be remembered.
                return Response(cut_out, media_type="image/jpeg", headers={"x-unreadable": "part"})
            self._tiles.put((slide_id, tag), content := cut_out)
        return Response(content, media_type="image/jpeg", headers=headers)

    def overview(self, request: Request) -> Response:
        """The overview that was kept of a slide, which is there even where the slide is not."""
        overview = self._layer(request, "overview", shrunk_overview)
        return Response(overview, media_type="image/jpeg")

    def patches(self, request: Request) -> Response:
        """The patches of a slide."""

        def pack(store: PatchStore) -> bytes:
            result = self._run.result(request.path_params["slide_id"])
            limits = result.settings.gate if result.settings is not None else run_config(self._run.output).gate
            return pack_patches(store, result.modality, limits)

        return packed(request, self._layer(request, "patches", pack), "application/octet-stream")

    def tissue(self, request: Request) -> Response:
        """The tissue mask of a slide."""
        drawn = self._layer(request, "tissue", lambda store: draw_tissue(*store.read_tissue()))
        return Response(drawn, media_type="image/png")

    def cells(self, request: Request) -> Response:
        """The counted cells in a box."""
        listed = self._listed(request)
        path = self._run.cell_table(listed.row.slide_id)
        if path is None:
            raise HTTPException(404, "No cells were counted on this slide.")
        x, y, width, height = (number_of(request, name) for name in ("x", "y", "width", "height"))
        cells = self._cells.get(_key(listed), path)
        return packed(request, cells.packed(x, y, width, height), "application/octet-stream")

    def regions(self, request: Request) -> Response:
        """The annotated regions within which a slide was scored."""
        result = self._run.result(self._listed(request).row.slide_id)
        return as_json(request, regions_of(result, run_config(self._run.output)))

    # Reviews.

    async def add_review(self, request: Request) -> Response:
        """Keep a review."""
        return await self._written(request, self._reviewing.add, _REVIEW_BYTES, 201)

    async def rescore(self, request: Request) -> Response:
        """The call with regions that are being drawn."""
        return await self._written(request, self._reviewing.rescore, _REGIONS_BYTES)

    async def draw(self, request: Request) -> Response:
        """Keep drawn regions."""
        return await self._written(request, self._reviewing.draw, _REGIONS_BYTES)

    def reviews_csv(self, _: Request) -> Response:
        """All reviews."""
        return _download(self._reviewing.reviews_csv(), "reviews.csv")

    def truth_csv(self, _: Request) -> Response:
        """What the reviewers say, as a truth."""
        return _download(self._reviewing.truth_csv(), "truth.csv")

    async def _written(
        self,
        request: Request,
        write: Callable[[str, dict[str, Any]], dict[str, Any]],
        max_bytes: int,
        status: int = 200,
    ) -> Response:
        # Looking may take the disk, and must not keep the other answers waiting.
        slide_id = (await run_in_threadpool(self._listed, request)).row.slide_id
        sent = await json_of(request, max_bytes)
        return as_json(request, await run_in_threadpool(write, slide_id, sent), status)

    # What several of these need.

    def _listed(self, request: Request) -> Listed:
        return self._run.find(request.path_params["slide_id"])

    def _scored(self, request: Request) -> tuple[Listed, SlideResult]:
        listed = self._listed(request)
        return listed, self._run.result(listed.row.slide_id)

    def _layer(self, request: Request, name: str, make: Callable[[PatchStore], bytes]) -> bytes:
        """Something made of a slide's store, which is made once."""
        listed = self._listed(request)
        slide_id, key = listed.row.slide_id, (name, *_key(listed))
        content = self._layers.get(key)
        if content is None:
            store = self._run.store(slide_id)
            if store is None:
                raise HTTPException(404, "Nothing was kept of this slide's patches, or it cannot be read.")
            content = make(store)
            self._layers.put(key, content)
        return content

    def _overview(self, slide_id: str) -> Overview | None:
        store = self._run.store(slide_id)
        return None if store is None else store.read_overview().overview


def _static_files() -> dict[str, Path]:
    """The files of the package that pages may ask for, by what follows `/static/`."""
    root = Path(str(resources.files("pipelines.review"))) / "static"
    return {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if path.is_file() and path.suffix in _STATIC_TYPES
    }


def _key(listed: Listed) -> tuple[str, str]:
    """What stands for a slide and its result: what was kept of another result is not of this one."""
    return listed.row.slide_id, listed.fingerprint


def _row(listed: Listed, review: dict[str, Any] | None) -> str:
    """A slide of the list, as JSON."""
    return f'{listed.text},"latest_review":{to_json(review)}}}'


def _download(text: str, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(text.encode("utf-8", "replace"), media_type=FILES["patches.csv"], headers=headers)


def _load_ahead() -> None:
    """Import what the first look at a slide and its cells would otherwise wait for."""
    for module in ("simplejpeg", "openslide", "tifffile", "pyarrow.parquet"):
        import_module(module)
