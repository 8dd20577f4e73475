"""The store holds a block in one chunk of every array and calls it done only when all of it is there."""

import json
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
import zarr

from wsi_her2.errors import StoreError
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.slide import Overview
from wsi_her2.slides.store import LAYOUT, PatchStore

CLASSES = ("other", "0", "1+", "2+", "3+")
QUALITY = ("focus", "eosin_share")
MEASURES = ("dab", "ridge", "completeness")
EDGE, PX = 3, 16
ROWS = EDGE**2


def grid_of(blocks=4):
    rng = np.random.default_rng(0)
    return PatchGrid(
        patch_px=PX,
        patch_px0=35,
        mpp=0.4991,
        mpp_requested=0.5,
        block_edge=EDGE,
        block_xy=np.stack([np.arange(blocks) * 105, np.arange(blocks) * 210], axis=1).astype(np.int32),
        tissue=rng.random(blocks * ROWS).astype(np.float32),
        min_tissue=0.5,
    )


def create(path, grid=None, **options):
    options = {"classes": CLASSES, "quality": QUALITY, "measures": MEASURES, "pixels": True} | options
    return PatchStore.create(path, grid or grid_of(), **options)


def block_content(block):
    """What is written of a block: probabilities, quality, measures, pixels; the first row was not scored."""
    rng = np.random.default_rng(block)
    arrays = [rng.random((ROWS, width)).astype(np.float32) for width in (len(CLASSES), 2, len(MEASURES))]
    for array in arrays:
        array[0] = np.nan
    return *arrays, rng.integers(0, 255, (ROWS, PX, PX, 3)).astype(np.uint8)


def write_blocks(path, blocks):
    """Open the store, as a worker does, and write blocks."""
    store = PatchStore.open(path)
    for block in blocks:
        store.write_block(block, *block_content(block))


def chunk_files(path, name):
    return sorted(str(file.relative_to(path / name)) for file in (path / name / "c").rglob("*") if file.is_file())


# Schema


def test_the_store_is_zarr_v3_with_the_documented_arrays(tmp_path):
    create(tmp_path / "s.zarr", attributes={"slide": "a.svs"})
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert group.metadata.zarr_format == 3
    count = 4 * ROWS
    expected = {
        "xy": ("int32", (count, 2), (count, 2)),
        "tissue": ("float32", (count,), (count,)),
        "probabilities": ("float32", (count, 5), (ROWS, 5)),
        "quality": ("float32", (count, 2), (ROWS, 2)),
        "measures": ("float32", (count, 3), (ROWS, 3)),
        "pixels": ("uint8", (count, PX, PX, 3), (ROWS, PX, PX, 3)),
        "done": ("uint8", (4,), (1,)),
    }
    assert {name: (str(a.dtype), a.shape, a.chunks) for name, a in group.arrays()} == expected
    attributes = dict(group.attrs)
    assert attributes["slide"] == "a.svs"
    assert attributes["layout"] == LAYOUT
    assert attributes["classes"] == list(CLASSES)
    assert attributes["quality"] == list(QUALITY)
    assert attributes["measures"] == list(MEASURES)


def test_pixels_and_measures_are_left_out_where_there_are_none(tmp_path):
    store = create(tmp_path / "s.zarr", pixels=False, measures=())
    probabilities, quality, _, pixels = block_content(0)
    store.write_block(0, probabilities, quality, None, pixels)
    assert store.pixels is None
    assert store.measures.shape == (4 * ROWS, 0)
    assert {name for name, _ in zarr.open_group(tmp_path / "s.zarr").arrays()} == {
        "xy",
        "tissue",
        "probabilities",
        "quality",
        "done",
    }


def test_a_new_store_is_unscored_and_nothing_is_done(tmp_path):
    store = create(tmp_path / "s.zarr")
    assert np.isnan(store.probabilities).all()
    assert np.isnan(store.quality).all()
    assert np.isnan(store.measures).all()
    assert not store.done.any()


def test_a_block_is_one_chunk_of_every_array(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    write_blocks(path, [2])
    assert chunk_files(path, "probabilities") == ["c/2/0"]
    assert chunk_files(path, "quality") == ["c/2/0"]
    assert chunk_files(path, "measures") == ["c/2/0"]
    assert chunk_files(path, "pixels") == ["c/2/0/0/0"]
    assert chunk_files(path, "done") == ["c/2"]


# Writing


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    write_blocks(path, [1, 3])
    store = PatchStore.open(path)
    assert store.done.tolist() == [False, True, False, True]
    for block in (1, 3):
        rows = slice(block * ROWS, (block + 1) * ROWS)
        read = store.probabilities[rows], store.quality[rows], store.measures[rows], store.pixels[rows]
        for got, expected in zip(read, block_content(block), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert np.isnan(store.probabilities[:ROWS]).all()


@pytest.mark.parametrize("broken", ["probabilities", "quality", "measures", "pixels"])
def test_a_block_is_done_only_after_everything_else_is_written(tmp_path, broken):
    path = tmp_path / "s.zarr"
    store = create(path)
    (path / broken / "c").write_text("in the way of the chunks")
    with pytest.raises(OSError):
        store.write_block(0, *block_content(0))
    assert not PatchStore.open(path).done.any()


def test_done_is_the_last_file_to_appear(tmp_path):
    path = tmp_path / "s.zarr"
    create(path)
    write_blocks(path, [0])
    done = (path / "done" / "c" / "0").stat().st_mtime_ns
    for name in ("probabilities/c/0/0", "quality/c/0/0", "measures/c/0/0", "pixels/c/0/0/0/0"):
        assert (path / name).stat().st_mtime_ns <= done


def test_several_processes_write_what_one_writes(tmp_path):
    grid = grid_of(blocks=12)
    for name in ("serial.zarr", "parallel.zarr"):
        create(tmp_path / name, grid)
    write_blocks(tmp_path / "serial.zarr", range(12))
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        shares = [range(first, 12, 3) for first in range(3)]
        list(pool.map(write_blocks, [tmp_path / "parallel.zarr"] * 3, shares))
    files = [
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (tmp_path / "serial.zarr", tmp_path / "parallel.zarr")
    ]
    assert files[0] == files[1]
    assert PatchStore.open(tmp_path / "parallel.zarr").done.all()


# Reopening


def test_a_reopened_store_has_the_grid_it_was_made_for(tmp_path):
    grid = grid_of()
    create(tmp_path / "s.zarr", grid)
    again = PatchStore.open(tmp_path / "s.zarr").grid
    for field in ("patch_px", "patch_px0", "mpp", "mpp_requested", "block_edge", "min_tissue"):
        assert getattr(again, field) == getattr(grid, field)
    np.testing.assert_array_equal(again.block_xy, grid.block_xy)
    np.testing.assert_array_equal(again.xy, grid.xy)
    np.testing.assert_array_equal(again.selected, grid.selected)


def test_a_reopened_store_names_its_columns(tmp_path):
    create(tmp_path / "s.zarr")
    store = PatchStore.open(tmp_path / "s.zarr")
    assert (store.classes, store.quality_names, store.measure_names) == (CLASSES, QUALITY, MEASURES)


def test_an_empty_grid_has_an_empty_store(tmp_path):
    nothing = replace(grid_of(), block_xy=np.zeros((0, 2), np.int32), tissue=np.zeros(0, np.float32))
    create(tmp_path / "s.zarr", nothing)
    store = PatchStore.open(tmp_path / "s.zarr")
    assert store.grid.n_blocks == store.grid.n_patches == 0
    assert store.probabilities.shape == (0, 5)
    assert store.xy.shape == (0, 2)
    assert store.done.shape == (0,)


def test_a_store_of_another_layout_is_refused(tmp_path):
    create(tmp_path / "s.zarr")
    described = json.loads((tmp_path / "s.zarr" / "zarr.json").read_text())
    described["attributes"]["layout"] = LAYOUT + 1
    (tmp_path / "s.zarr" / "zarr.json").write_text(json.dumps(described))
    refusal = f"a patch store of layout {LAYOUT + 1}; this version reads layout {LAYOUT}. Run again with --fresh.$"
    with pytest.raises(StoreError, match=refusal):
        PatchStore.open(tmp_path / "s.zarr")


def test_what_is_no_store_is_refused(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "zarr.json").write_text('{"zarr_for')
    zarr.create_group(store=tmp_path / "foreign", zarr_format=3)
    for name in ("missing", "folder", "damaged", "foreign"):
        with pytest.raises(StoreError, match=name) as refused:
            PatchStore.open(tmp_path / name)
        assert str(refused.value).endswith("Run again with --fresh.")


def test_a_store_can_be_moved(tmp_path):
    create(tmp_path / "a.zarr")
    write_blocks(tmp_path / "a.zarr", [0])
    shutil.move(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert PatchStore.open(tmp_path / "b.zarr").done.tolist() == [True, False, False, False]


# What a report shows


def test_the_overview_comes_back(tmp_path, ihc_mask):
    create(tmp_path / "s.zarr").write_overview(ihc_mask)
    again = PatchStore.open(tmp_path / "s.zarr").read_overview()
    for field in ("tissue", "pen"):
        np.testing.assert_array_equal(getattr(again, field), getattr(ihc_mask, field))
    for field in ("rgb", "unreadable"):
        np.testing.assert_array_equal(getattr(again.overview, field), getattr(ihc_mask.overview, field))
    assert (again.overview.mpp, again.overview.box) == (ihc_mask.overview.mpp, ihc_mask.overview.box)
    assert again.white_point == ihc_mask.white_point
    x, y = np.array([500, 100]), np.array([300, 100])
    np.testing.assert_array_equal(again.fractions(x, y, 256, 256), ihc_mask.fractions(x, y, 256, 256))


def test_tissue_and_ink_are_read_without_the_picture(tmp_path, ihc_mask):
    pen = np.zeros_like(ihc_mask.tissue)
    pen[3:9, 5:7] = True
    create(tmp_path / "s.zarr").write_overview(replace(ihc_mask, pen=pen))
    tissue, ink = PatchStore.open(tmp_path / "s.zarr").read_tissue()
    assert (tissue.dtype, ink.dtype) == (bool, bool)
    np.testing.assert_array_equal(tissue, ihc_mask.tissue)
    np.testing.assert_array_equal(ink, pen)


def test_a_finer_picture_comes_back_with_its_own_scale_and_the_place_of_the_overview(
    tmp_path, ihc_mask, ihc_image
):
    box = ihc_mask.overview.box
    picture = Overview(ihc_image, np.ones(ihc_image.shape[:2], bool), 1.25, box)
    create(tmp_path / "s.zarr").write_overview(ihc_mask, picture)
    store = PatchStore.open(tmp_path / "s.zarr")
    again = store.read_picture()
    np.testing.assert_array_equal(again.rgb, ihc_image)
    assert (again.rgb.dtype, again.mpp, again.box) == (np.uint8, 1.25, box)
    assert again.unreadable.shape == ihc_image.shape[:2]
    assert not again.unreadable.any(), "what a person looks at was read"
    assert store.overview_box == box
    assert store.read_overview().overview.mpp == ihc_mask.overview.mpp


def test_without_a_finer_picture_there_is_none(tmp_path, ihc_mask):
    create(tmp_path / "s.zarr").write_overview(ihc_mask)
    assert PatchStore.open(tmp_path / "s.zarr").read_picture() is None


def test_an_overview_is_written_over_by_the_next(tmp_path, ihc_mask):
    store = create(tmp_path / "s.zarr")
    store.write_overview(ihc_mask)
    store.write_overview(replace(ihc_mask, tissue=~ihc_mask.tissue))
    np.testing.assert_array_equal(PatchStore.open(tmp_path / "s.zarr").read_tissue()[0], ~ihc_mask.tissue)


def test_what_is_shown_lies_where_it_is_documented(tmp_path, ihc_mask, ihc_image):
    store = create(tmp_path / "s.zarr")
    store.write_overview(
        ihc_mask, Overview(ihc_image, np.zeros(ihc_image.shape[:2], bool), 2.0, ihc_mask.overview.box)
    )
    store.write_examples({"3+": [(1, 2, ihc_image[:8, :8])]})
    store.write_cell_views([(3, 4, ihc_image[:8, :8])])
    group = zarr.open_group(tmp_path / "s.zarr", mode="r")
    assert {name for name, _ in group["overview"].arrays()} == {"rgb", "tissue", "pen", "unreadable", "picture"}
    white, box = ihc_mask.white_point, ihc_mask.overview.box
    assert dict(group["overview"].attrs) == {
        "mpp": ihc_mask.overview.mpp,
        "box": [box.x, box.y, box.width, box.height],
        "white_point": list(white.rgb),
        "white_source": white.source,
        "white_share": white.share,
    }
    assert dict(group["overview/picture"].attrs) == {"mpp": 2.0}
    assert dict(group["examples/3plus"].attrs) == {"class": "3+", "xy": [[1, 2]]}
    assert dict(group["cell_views/rgb"].attrs) == {"xy": [[3, 4]]}
    assert group["overview/rgb"].chunks == group["overview/rgb"].shape, "one file"


def test_places_of_examples_are_read_without_their_pixels(tmp_path, ihc_image):
    examples = {"2+": [(5, 6, ihc_image[:8, :8])], "0": [(1, 2, ihc_image[:8, :8]), (3, 4, ihc_image[8:16, :8])]}
    create(tmp_path / "s.zarr").write_examples(examples)
    places = PatchStore.open(tmp_path / "s.zarr").example_places()
    assert list(places.items()) == [("0", [(1, 2), (3, 4)]), ("2+", [(5, 6)])]


def test_examples_come_back_in_the_order_of_the_classes(tmp_path, ihc_image):
    examples = {
        "3+": [(100, 200, ihc_image[:32, :32]), (7, 8, ihc_image[32:64, :32])],
        "1+": [],
        "other": [(0, 0, ihc_image[64:96, :32])],
    }
    create(tmp_path / "s.zarr").write_examples(examples)
    again = PatchStore.open(tmp_path / "s.zarr").read_examples()
    assert list(again) == ["other", "3+"]
    for name, patches in again.items():
        for (x, y, rgb), (x0, y0, rgb0) in zip(patches, examples[name], strict=True):
            assert (x, y) == (x0, y0)
            np.testing.assert_array_equal(rgb, rgb0)


def test_a_store_without_examples_has_none(tmp_path):
    assert create(tmp_path / "s.zarr").read_examples() == {}


def test_fields_of_counted_cells_come_back_in_their_order(tmp_path, ihc_image):
    views = [(700, 35, ihc_image[:32, :64]), (7, 8, ihc_image[32:64, :64])]
    create(tmp_path / "s.zarr").write_cell_views(views)
    again = PatchStore.open(tmp_path / "s.zarr").read_cell_views()
    assert [(x, y) for x, y, _ in again] == [(700, 35), (7, 8)]
    for (_, _, rgb), (_, _, rgb0) in zip(again, views, strict=True):
        np.testing.assert_array_equal(rgb, rgb0)


def test_a_store_without_counted_cells_has_no_fields_of_them(tmp_path):
    store = create(tmp_path / "s.zarr")
    assert store.read_cell_views() == []
    store.write_cell_views([])
    assert PatchStore.open(tmp_path / "s.zarr").read_cell_views() == []


@pytest.mark.parametrize("rows", [1, ROWS - 1, ROWS + 1])
@pytest.mark.parametrize("which", range(4))
def test_a_block_of_another_height_is_refused(tmp_path, rows, which):
    store = create(tmp_path / "s")
    arrays = list(block_content(0))
    arrays[which] = np.zeros((rows, *arrays[which].shape[1:]), arrays[which].dtype)
    name = ("probabilities", "quality", "measures", "pixels")[which]
    with pytest.raises(ValueError, match=f"^{rows} rows of {name} for a block of {ROWS}$"):
        store.write_block(0, *arrays)
    assert not store.done.any()


def test_a_block_beyond_the_last_is_refused(tmp_path):
    store = PatchStore.create(tmp_path / "s", grid_of(blocks=2), classes=CLASSES, quality=QUALITY)
    with pytest.raises(ValueError, match=r"^block 2 of a store of 2 blocks$"):
        store.write_block(2, np.zeros((ROWS, 5), np.float32), np.zeros((ROWS, 2), np.float32))
    with pytest.raises(ValueError, match=r"^block -1 of a store of 2 blocks$"):
        store.write_block(-1, np.zeros((ROWS, 5), np.float32), np.zeros((ROWS, 2), np.float32))


@pytest.mark.parametrize("gone", ["done", "xy", "probabilities"])
def test_an_incomplete_store_is_a_store_error(tmp_path, gone):
    PatchStore.create(tmp_path / "s", grid_of(), classes=CLASSES, quality=QUALITY)
    shutil.rmtree(tmp_path / "s" / gone)
    with pytest.raises(StoreError, match=f"s: '{gone}' is missing. Run again with --fresh.$"):
        getattr(PatchStore.open(tmp_path / "s"), gone)


@pytest.mark.parametrize("name", ["quality", "tissue"])
def test_a_damaged_chunk_is_a_store_error_that_says_what_to_do(tmp_path, name):
    path = tmp_path / "s"
    create(path)
    write_blocks(path, [0])
    for chunk in (path / name / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(chunk.read_bytes()[:-5])
    with pytest.raises(StoreError, match=rf"s: a chunk of '{name}' is damaged \(.+\). Run again with --fresh.$"):
        getattr(PatchStore.open(path), name)


def test_an_array_that_says_it_is_larger_than_any_is_damaged(tmp_path):
    path = tmp_path / "s"
    create(path)
    described = json.loads((path / "quality" / "zarr.json").read_text())
    described["shape"][0] = 2**40
    (path / "quality" / "zarr.json").write_text(json.dumps(described))
    with pytest.raises(StoreError, match="'quality' says it takes more than 2,147,483,648 bytes: it is damaged"):
        PatchStore.open(path).quality  # noqa: B018


def test_a_store_is_never_created_over_another(tmp_path):
    PatchStore.create(tmp_path / "s", grid_of(), classes=CLASSES, quality=QUALITY)
    with pytest.raises(StoreError, match=r"s: something is there already, and a store is never written over$"):
        PatchStore.create(tmp_path / "s", grid_of(), classes=CLASSES, quality=QUALITY)


def test_a_complete_store_reads_its_columns_once_and_guards_them(tmp_path):
    store = create(tmp_path / "s.zarr")
    write_blocks(tmp_path / "s.zarr", range(4))
    complete = PatchStore.open(tmp_path / "s.zarr", complete=True)
    np.testing.assert_array_equal(complete.probabilities, store.probabilities)
    assert np.shares_memory(complete.probabilities, complete.probabilities)
    assert not np.shares_memory(store.probabilities, store.probabilities)
    with pytest.raises(ValueError, match="read-only"):
        complete.probabilities[0] = 0
