"""What lies over a slide: as the store and the tables have it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from pipelines.configuration import load_config
from pipelines.results import read_result
from pipelines.review.layers import (
    CELLS_SENT,
    NO_LABEL,
    NO_REASON,
    REFUSED_REASONS,
    CellCache,
    CellColumns,
    draw_tissue,
    pack_patches,
    regions_of,
)
from wsi_her2.cells.field import Cells
from wsi_her2.cells.table import cell_columns, join_parts, rows_of, write_part
from wsi_her2.scoring.gate import FAULTS, GateLimits
from wsi_her2.scoring.quality import QUALITY
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.regions import UsedRegions
from wsi_her2.slides.store import PatchStore

CLASSES = ("other", "0", "1+", "2+", "3+")


@dataclass
class Patches:
    """What a page makes of packed patches."""

    header: dict[str, object]
    xy: np.ndarray
    tissue: np.ndarray
    probabilities: np.ndarray
    label: np.ndarray
    reason: np.ndarray

    @classmethod
    def parse(cls, content: bytes) -> Patches:
        """As the page does: every array begins where its numbers may begin."""
        length = int.from_bytes(content[:4], "little")
        header = json.loads(content[4 : 4 + length])
        n, k = header["n"], len(header["classes"])
        at, arrays = 4 + length, []
        for dtype, count in (("<i4", 2 * n), ("<f4", n), ("<f4", n * k), ("u1", n), ("u1", n)):
            assert at % np.dtype(dtype).itemsize == 0
            arrays.append(np.frombuffer(content, dtype, count, at))
            at += arrays[-1].nbytes
        assert at == len(content)
        return cls(header, arrays[0].reshape(n, 2), arrays[1], arrays[2].reshape(n, k), *arrays[3:])


def store_of(folder: Path, *, sampled: bool = False, outputs: str = "classes") -> PatchStore:
    """Two blocks of four patches: one row is scored, one is beyond the tissue, and the others were refused."""
    grid = PatchGrid(
        patch_px=128,
        patch_px0=256,
        mpp=0.5,
        mpp_requested=0.5,
        block_edge=2,
        block_xy=np.array([[0, 0], [1024, 512]], np.int32),
        tissue=np.array([1, 1, 0.2, 1, 1, 1, 1, 1], np.float32),
        min_tissue=0.5,
    )
    store = PatchStore.create(
        folder / "patches.zarr",
        grid,
        classes=CLASSES,
        quality=QUALITY,
        attributes={"sampled": sampled, "outputs": outputs},
    )
    sound = dict(zip(QUALITY, (0.5, 1, 1, 0.05, 0, 0, 0.5), strict=True))
    faults = [
        sound,
        sound | {"focus": 9.0},
        sound,
        sound | {"coarseness": 5.0, "veil": 0.4},
        sound | {"veil": 0.4, "eosin_share": 0.9},
        sound | {"foreign_share": 0.9},
        None,
        sound,
    ]
    quality = np.array(
        [[np.nan] * len(QUALITY) if row is None else list(row.values()) for row in faults], np.float32
    )
    quality[2] = np.nan
    probabilities = np.full((8, len(CLASSES)), np.nan, np.float32)
    probabilities[0] = (0.3, 0.1, 0.2, 0.4, 0)
    store.write_block(0, probabilities[:4], quality[:4])
    if not sampled:
        store.write_block(1, probabilities[4:], quality[4:])
    return PatchStore.open(folder / "patches.zarr", complete=True)


def test_packed_patches_are_those_of_the_store(client: httpx.Client, review_run: Path) -> None:
    for name in ("7_HER2", "30_HER2"):
        sent = Patches.parse(client.get(f"/api/slides/{name}/patches").content)
        store = PatchStore.open(review_run / name / "patches.zarr", complete=True)
        scored = ~np.isnan(store.probabilities).any(axis=1)
        result = read_result(review_run / name)
        assert result is not None
        assert (sent.label != NO_LABEL).sum() == scored.sum() == result.n_patches
        assert ((sent.label == NO_LABEL) == (sent.reason != NO_REASON)).all()
        assert (np.isnan(sent.probabilities).all(axis=1) == (sent.label == NO_LABEL)).all()
        known = sent.label != NO_LABEL
        assert (sent.xy[known] == store.xy[scored]).all()
        assert (sent.probabilities[known] == store.probabilities[scored]).all()
        assert (sent.tissue[known] == store.tissue[scored]).all()
        assert (sent.label[known] == store.probabilities[scored].argmax(axis=1)).all()
        assert tuple(sent.header["classes"]) == store.classes  # type: ignore[arg-type]
        side = sent.header["side_px0"]
        # On one grid, so that a page can draw a patch as a pixel.
        assert ((sent.xy - sent.xy[0]) % side == 0).all()
        assert len(np.unique(sent.xy, axis=0)) == sent.header["n"]


def test_the_blurred_patches_of_a_slide_are_told_to_be_out_of_focus(client: httpx.Client) -> None:
    sent = Patches.parse(client.get("/api/slides/30_HER2/patches").content)
    refused = sent.reason[sent.reason != NO_REASON]
    assert len(refused) > 0
    assert {REFUSED_REASONS[code] for code in refused} == {"out_of_focus"}


def test_a_refused_patch_says_the_first_of_its_faults(tmp_path: Path) -> None:
    sent = Patches.parse(pack_patches(store_of(tmp_path), "ihc", GateLimits()))
    reasons = [None if code == NO_REASON else REFUSED_REASONS[code] for code in sent.reason]
    expected = [None, "noise", "out_of_focus", "covered", "colour", "unreadable", "not_counted"]
    assert reasons == expected
    assert sent.label.tolist() == [3] + [NO_LABEL] * 6
    assert set(FAULTS) < set(REFUSED_REASONS)
    # On H&E eosin is no fault.
    sent = Patches.parse(pack_patches(PatchStore.open(tmp_path / "patches.zarr"), "he", GateLimits()))
    assert [REFUSED_REASONS[code] for code in sent.reason[3:5]] == ["covered", "not_counted"]


def test_a_patch_is_refused_by_the_limits_that_its_slide_had(tmp_path: Path) -> None:
    sent = Patches.parse(pack_patches(store_of(tmp_path), "ihc", GateLimits(max_veil=0.5, max_coarseness=9.0)))
    assert [REFUSED_REASONS[code] for code in sent.reason[1:4]] == ["noise", "not_counted", "colour"]


def test_what_a_sample_passed_over_is_not_shown_as_refused(tmp_path: Path) -> None:
    sent = Patches.parse(pack_patches(store_of(tmp_path, sampled=True), "ihc", GateLimits()))
    assert sent.xy.tolist() == [[0, 0], [256, 0], [256, 256]]


def test_of_shares_the_class_is_the_largest_share_of_tumour(tmp_path: Path) -> None:
    sent = Patches.parse(pack_patches(store_of(tmp_path, outputs="shares"), "ihc", GateLimits()))
    assert sent.label[0] == 3


def test_a_slide_that_was_refused_early_has_no_patches(client: httpx.Client) -> None:
    sent = Patches.parse(client.get("/api/slides/12_HE/patches").content)
    assert sent.header["n"] == 0
    assert client.get("/api/slides/12_HE").json()["layers"]["patches"] is False


def test_patches_are_packed_where_the_browser_takes_them_so(client: httpx.Client) -> None:
    plain = client.get("/api/slides/7_HER2/patches", headers={"accept-encoding": "identity"})
    small = client.get("/api/slides/7_HER2/patches", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert plain.content == small.content
    if "content-encoding" in small.headers:
        assert small.headers["vary"] == "accept-encoding"


def test_the_tissue_is_opaque_along_its_outline_and_faint_within(client: httpx.Client, review_run: Path) -> None:
    answer = client.get("/api/slides/7_HER2/tissue.png")
    picture = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGBA"))
    mask = PatchStore.open(review_run / "7_HER2" / "patches.zarr").read_overview()
    assert picture.shape[:2] == mask.tissue.shape
    box = client.get("/api/slides/7_HER2").json()["overview_box"]
    assert box == vars(mask.overview.box)
    alpha = picture[..., 3]
    assert set(np.unique(alpha).tolist()) == {0, 26, 255}
    assert (alpha[mask.tissue] > 0).all()
    assert (alpha == 26).sum() > 0.7 * mask.tissue.sum()
    assert ((alpha > 0) & ~mask.tissue).sum() < 0.1 * mask.tissue.sum()


def test_ink_is_magenta(review_run: Path) -> None:
    mask = PatchStore.open(review_run / "7_HER2" / "patches.zarr").read_overview()
    pen = np.zeros_like(mask.pen)
    pen[5:20, 5:40] = True
    picture = np.asarray(Image.open(io.BytesIO(draw_tissue(mask.tissue, pen))).convert("RGBA"))
    assert picture[10, 20].tolist() == [200, 0, 160, 70]


def cells_in(content: bytes) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    total, n = np.frombuffer(content, "<u4", 2)
    xy = np.frombuffer(content, "<i4", 2 * n, 8).reshape(n, 2)
    classes, tumour = np.frombuffer(content, "u1", n, 8 + 8 * n), np.frombuffer(content, "u1", n, 8 + 9 * n)
    assert len(content) == 8 + 10 * n
    return int(total), xy, classes, tumour


def test_the_cells_in_a_box_are_those_of_the_table(client: httpx.Client, review_run: Path) -> None:
    columns = cell_columns(review_run / "7_HER2" / "cells.parquet", ("x", "y", "her2_class", "tumour"))
    x, y = columns["x"], columns["y"]
    box = {"x": 300, "y": 250.5, "width": 500, "height": 400}
    inside = (x >= 300) & (x < 800) & (y >= 250.5) & (y < 650.5)
    total, xy, classes, tumour = cells_in(client.get("/api/slides/7_HER2/cells", params=box).content)
    assert total == len(xy) == inside.sum() > 0
    rows = zip(x, y, columns["her2_class"], columns["tumour"], inside, strict=True)
    expected = sorted((a, b, c, int(t)) for a, b, c, t, within in rows if within)
    assert sorted(zip(*xy.T, classes, tumour, strict=True)) == expected
    assert columns["tumour"].dtype == bool
    described = client.get("/api/slides/7_HER2").json()["cells"]
    assert described["available"] is True
    assert described["count"] == columns["tumour"].sum()
    nowhere = {"x": -500, "y": 0, "width": 100, "height": 9e9}
    assert cells_in(client.get("/api/slides/7_HER2/cells", params=nowhere).content)[0] == 0


@pytest.mark.parametrize("box", [{}, {"x": "a"}, {"x": "nan"}, {"x": 0, "y": 0, "width": "inf", "height": 1}])
def test_a_box_that_is_none_is_refused_in_a_sentence(client: httpx.Client, box: dict[str, object]) -> None:
    refused = client.get("/api/slides/7_HER2/cells", params=box)  # type: ignore[arg-type]
    assert refused.status_code == 400
    assert "number" in refused.json()["error"]


def test_a_slide_without_cells_says_so(client: httpx.Client) -> None:
    refused = client.get("/api/slides/12_HE/cells?x=0&y=0&width=9&height=9")
    assert refused.status_code == 404
    assert "No cells" in refused.json()["error"]
    assert client.get("/api/slides/12_HE").json()["layers"]["cells"] is False


def many_cells(count: int) -> CellColumns:
    rng = np.random.default_rng(1)
    xy = rng.integers(0, 10_000, (count, 2)).astype(np.int32)
    return CellColumns(xy, np.zeros(count, np.uint8), np.ones(count, np.uint8))


def test_of_too_many_cells_an_even_choice_is_sent_that_stays_while_the_view_moves() -> None:
    cells = many_cells(200_000)
    total, xy, _, _ = cells_in(cells.packed(0, 0, 10_000, 10_000))
    assert (total, len(xy)) == (200_000, CELLS_SENT)
    quarter = (xy < 5000).all(axis=1).mean()
    assert 0.23 < quarter < 0.27
    moved = cells_in(cells.packed(500, 0, 10_000, 10_000))[1]
    shared = {tuple(cell) for cell in xy.tolist()} & {tuple(cell) for cell in moved.tolist()}
    assert len(shared) > 0.9 * CELLS_SENT


def test_the_order_of_a_table_is_no_order_of_what_is_sent(tmp_path: Path) -> None:
    """Cells come block by block; the first of them are one corner of the slide."""
    count = 3000
    values = {name: np.zeros(count, np.float32) for name in Cells.__dataclass_fields__}
    xy = np.stack([np.arange(count), np.arange(count)], axis=1).astype(np.float64)
    values["margins"] = np.zeros((count, 3), np.float32)
    cells = Cells(**(values | {"xy": xy, "grade": np.zeros(count, np.int8)}))  # type: ignore[arg-type]
    write_part(tmp_path / "part", [rows_of(cells, xy, 0)])
    list(join_parts([tmp_path / "part"], tmp_path / "cells.parquet", -1.0))
    read = CellColumns.read(tmp_path / "cells.parquet")
    assert sorted(read.xy[:, 0].tolist()) == list(range(count))
    assert 1200 < read.xy[:300, 0].mean() < 1800
    assert (read.xy == CellColumns.read(tmp_path / "cells.parquet").xy).all()


def test_cells_of_slides_that_were_looked_at_before_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def noted(path: Path) -> CellColumns:
        read.append(path)
        return many_cells(1000)

    monkeypatch.setattr(CellColumns, "read", noted)
    cache = CellCache(max_bytes=25_000)
    for name in "abab":
        cache.get(name, Path(name))
    assert len(read) == 2
    cache.get("c", Path("c"))
    cache.get("b", Path("b"))
    cache.get("a", Path("a"))
    assert [path.name for path in read] == ["a", "b", "c", "a"]


REGIONS = {
    "type": "FeatureCollection",
    "features": [
        {
            "type": "Feature",
            "properties": {"name": name},
            "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 100], [0, 0]]]},
        }
        for name in ("Tumour", "DCIS", "vessel")
    ],
}


def within_regions(review_run: Path) -> SlideResult:
    result = read_result(review_run / "7_HER2")
    assert result is not None
    return replace(result, regions=UsedRegions("7_HER2.geojson", {"Tumour": 1}, {"DCIS": 1}, {"vessel": 1}))


def test_regions_that_restricted_scoring_are_shown_with_what_each_did(review_run: Path, tmp_path: Path) -> None:
    (tmp_path / "7_HER2.geojson").write_text(json.dumps(REGIONS), encoding="utf-8")
    for given in (tmp_path, tmp_path / "7_HER2.geojson"):
        config = load_config(None, {"regions.files": [given]})
        found = json.loads(json.dumps(regions_of(within_regions(review_run), config)))
        shown = [(f["properties"]["name"], f["properties"]["use"]) for f in found["features"]]
        assert shown == [("Tumour", "score"), ("DCIS", "exclude"), ("vessel", "ignored")]
        assert found["features"][0]["geometry"]["coordinates"][0][1] == [100, 0]
        assert found["note"] == ""


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_regions_that_are_gone_or_damaged_are_told_in_words(
    review_run: Path, tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "7_HER2.geojson").write_text(content, encoding="utf-8")
    found = regions_of(within_regions(review_run), load_config(None, {"regions.files": [tmp_path]}))
    assert found["features"] == []
    assert "7_HER2.geojson" in found["note"]


def test_a_slide_that_was_scored_whole_has_no_regions(client: httpx.Client) -> None:
    assert client.get("/api/slides/7_HER2/regions").json() == {
        "type": "FeatureCollection",
        "features": [],
        "note": "",
    }
