"""A slide is a function of what was asked for, whatever the order, the region and the number of workers."""

import json
import pickle
from dataclasses import replace

import jsonschema
import numpy as np
import openslide
import pandas as pd
import pytest
import tiffslide

from tests.reports.qupath_geojson import SCHEMA
from wsi_her2.errors import OutputError
from wsi_her2.phantom import PhantomError, PhantomSpec, make_phantom, render_phantom
from wsi_her2.phantom import render as render_module
from wsi_her2.phantom.tissue import Tissue

SPEC = PhantomSpec(
    score="2+",
    width_mm=0.62,
    height_mm=0.55,
    mpp=0.5,
    seed=21,
    look="oesophagus_tma",
    artefacts=("dust", "edge"),
)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("phantom") / "slide.tif"
    return path, render_phantom(SPEC, path)


def test_openslide_and_tiffslide_open_it(slide):
    path, _ = slide
    for opener in (openslide.OpenSlide, tiffslide.TiffSlide):
        with opener(path) as opened:
            assert opened.dimensions == (SPEC.width_px, SPEC.height_px)
            name = opener.__module__.split(".")[0]
            assert float(opened.properties[f"{name}.mpp-x"]) == pytest.approx(0.5, rel=1e-4)
            pixels = np.asarray(opened.read_region((400, 300), 0, (256, 256)))[..., :3].astype(int)
            drawn = make_phantom(SPEC).read(400, 300, 256, 256).astype(int)
            assert np.abs(pixels - drawn).mean() < 6


def test_two_workers_and_a_second_run_write_the_same_bytes(slide, tmp_path, monkeypatch):
    path, _ = slide
    again = tmp_path / "slide.tif"
    wide = replace(SPEC, width_mm=1.3, height_mm=0.3)
    render_phantom(SPEC, again)
    for name in ("slide.tif", "slide.truth.json", "slide.cells.csv"):
        assert (path.parent / name).read_bytes() == (again.parent / name).read_bytes()
    render_phantom(wide, tmp_path / "one.tif", workers=1)
    render_phantom(wide, tmp_path / "two.tif", workers=2)
    assert (tmp_path / "one.tif").read_bytes() == (tmp_path / "two.tif").read_bytes()


def test_another_seed_is_another_slide():
    one = make_phantom(SPEC).read(300, 300, 128, 128)
    other = make_phantom(replace(SPEC, seed=22)).read(300, 300, 128, 128)
    assert np.abs(one.astype(int) - other.astype(int)).mean() > 2


def test_any_region_alone_is_the_same_as_in_the_whole(monkeypatch):
    # Small blocks, so that the regions below cross their borders.
    monkeypatch.setattr(render_module, "BLOCK_PX", 320)
    phantom = make_phantom(SPEC)
    whole = phantom.read(0, 0, SPEC.width_px, SPEC.height_px)
    rng = np.random.default_rng(0)
    for _ in range(4):
        x, y = int(rng.integers(SPEC.width_px - 200)), int(rng.integers(SPEC.height_px - 150))
        region = make_phantom(SPEC).read(x, y, 200, 150)
        assert np.array_equal(region, whole[y : y + 150, x : x + 200])


def test_no_seam_shows_between_blocks(monkeypatch):
    whole = make_phantom(SPEC).read(0, 0, 900, 700).astype(int)
    monkeypatch.setattr(render_module, "BLOCK_PX", 320)
    blocks = make_phantom(SPEC).read(0, 0, 900, 700).astype(int)
    assert np.abs(whole - blocks).max() <= 2


def test_a_phantom_survives_pickling():
    phantom = make_phantom(SPEC)
    again = pickle.loads(pickle.dumps(phantom))
    assert np.array_equal(phantom.read(500, 400, 64, 64), again.read(500, 400, 64, 64))


def test_regions_outside_are_refused():
    phantom = make_phantom(SPEC)
    for region in ((-1, 0, 10, 10), (0, 0, SPEC.width_px + 1, 10), (0, 0, 0, 10)):
        with pytest.raises(PhantomError):
            phantom.read(*region)


def test_truth_files_agree_with_each_other(slide):
    path, truth = slide
    stored = json.loads(path.with_suffix(".truth.json").read_text())
    cells = pd.read_csv(path.with_suffix(".cells.csv"))
    counted = cells[cells["counts"]]
    assert stored["score"] == truth.score == "2+"
    assert stored["tumour_cells"] == len(counted)
    for k, name in enumerate(("0", "1+", "2+", "3+")):
        assert stored["percentages"][name] == pytest.approx(100 * (counted["her2_class"] == k).mean())
    complete = 100 * (counted["completeness"] >= 0.9).mean()
    assert stored["pct_complete_membrane"] == pytest.approx(complete)
    assert (counted["tissue"] == "invasive").all()
    assert set(cells["tissue"]) >= {"invasive", "stroma", "lymphoid"}
    assert cells["x"].between(0, SPEC.width_px).all()
    assert cells["y"].between(0, SPEC.height_px).all()


def test_outlines_hold_the_tissue_and_its_area(slide):
    path, truth = slide
    stored = json.loads(path.with_suffix(".truth.json").read_text())
    area_px = 0.0
    for feature in stored["outlines"]["features"]:
        rings = feature["geometry"]["coordinates"]
        for ring in rings:
            assert ring[0] == ring[-1]
            assert all(isinstance(v, int) for point in ring for v in point)
        if feature["properties"]["classification"]["name"] == "tissue":
            for k, ring in enumerate(rings):
                x, y = np.array(ring, float).T
                area = 0.5 * abs(np.dot(x[:-1], y[1:]) - np.dot(x[1:], y[:-1]))
                area_px += area if k == 0 else -area
    assert area_px * SPEC.mpp**2 / 1e6 == pytest.approx(truth.tissue_mm2, rel=0.03)


def test_outlines_are_read_by_qupath(slide):
    path, _ = slide
    jsonschema.validate(json.loads(path.with_suffix(".truth.json").read_text())["outlines"], SCHEMA)


def test_tissue_is_where_the_truth_says():
    phantom = make_phantom(replace(SPEC, artefacts=()))
    pixels = phantom.read(0, 0, SPEC.width_px, SPEC.height_px).astype(float)
    depth = np.kron(phantom.layout.depth_um.astype(float), np.ones((phantom.layout.pitch_px,) * 2))
    depth = depth[: SPEC.height_px, : SPEC.width_px]
    outside = pixels[depth < -12]
    assert np.abs(outside - phantom.look.white).mean() < 3
    assert np.abs(pixels[depth > 12] - phantom.look.white).mean() > 12


def test_he_shows_the_same_cells_without_dab():
    ihc = make_phantom(replace(SPEC, score="3+"))
    he = make_phantom(replace(SPEC, score="3+", modality="he"))
    assert np.array_equal(ihc.cells, he.cells)
    pixels = he.read(300, 300, 400, 400).astype(int)
    # Eosin takes green away, so tissue is pink; nothing is brown, that is, poorer in blue than in green.
    assert (pixels[..., 0] - pixels[..., 1]).mean() > 15
    assert ((pixels[..., 1] - pixels[..., 2]) > 25).mean() < 0.001


def test_a_slide_without_room_for_tumour_is_refused(tmp_path):
    with pytest.raises(PhantomError, match="no tumour cell"):
        render_phantom(PhantomSpec(width_mm=0.05, height_mm=0.05, tumour_share=0.01, mpp=0.5), tmp_path / "a.tif")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_output_error(tmp_path):
    with pytest.raises(OutputError):
        render_phantom(SPEC, tmp_path / "nowhere" / "a.tif")


def test_parquet_says_what_it_needs_or_holds_the_same_table(tmp_path):
    small = replace(SPEC, width_mm=0.3, height_mm=0.3)
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        with pytest.raises(PhantomError, match="pyarrow"):
            render_phantom(small, tmp_path / "a.tif", cell_format="parquet")
        return
    render_phantom(small, tmp_path / "a.tif", cell_format="parquet")
    render_phantom(small, tmp_path / "b.tif", cell_format="csv")
    parquet, csv = pd.read_parquet(tmp_path / "a.cells.parquet"), pd.read_csv(tmp_path / "b.cells.csv")
    pd.testing.assert_frame_equal(parquet, csv, check_dtype=False)


def test_necrosis_fat_and_controls_are_drawn():
    spec = replace(
        SPEC,
        width_mm=1.0,
        height_mm=0.8,
        mpp=1.0,
        necrosis_share=0.3,
        fat_share=0.3,
        control_tissue=True,
        in_situ_share=0,
    )
    phantom = make_phantom(spec)
    assert (phantom.cells["kind"] == Tissue.FAT).sum() > 3
    assert (phantom.cells["kind"] == Tissue.NECROSIS).sum() > 20
    cx, cy = (
        int(float(phantom.cells[name][phantom.cells["kind"] == Tissue.CONTROL][:20].mean()) / spec.mpp)
        for name in ("x_um", "y_um")
    )
    spot = phantom.read(cx - 30, cy - 30, 60, 60)
    assert spot.std() > 10
