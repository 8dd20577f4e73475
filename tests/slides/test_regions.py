"""Annotated regions: what a name means, what is kept of the tissue, and files that cannot be used."""

import json

import numpy as np
import pytest

from wsi_her2 import open_slide
from wsi_her2.errors import RegionsError
from wsi_her2.slides.regions import RegionNames, restrict
from wsi_her2.slides.slide import slide_from_array
from wsi_her2.slides.tissue import detect_tissue

SIDE_PX, MPP = 2000, 0.5


@pytest.fixture(scope="module")
def mask():
    """Tissue all over: 1 mm2 of it."""
    rng = np.random.default_rng(0)
    rgb = np.full((SIDE_PX, SIDE_PX, 3), 240, np.uint8)
    rgb[200:-200, 200:-200] = (180, 170, 205)
    rgb[200:-200, 200:-200] += rng.integers(0, 20, (SIDE_PX - 400, SIDE_PX - 400, 1), dtype=np.uint8)
    return detect_tissue(slide_from_array(rgb, MPP))


def square(x, y, side, name=None):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def written(tmp_path, *features):
    path = tmp_path / "slide.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": list(features)}))
    return path


@pytest.mark.parametrize("name", [None, "Tumor", "tumour", "Invasive Tumour", "Region*", "invasive_tumor"])
def test_tissue_within_regions_to_include_is_kept(mask, tmp_path, name):
    kept, used = restrict(mask, written(tmp_path, square(400, 400, 800, name)))
    assert kept.area_mm2 == pytest.approx(0.16, abs=0.01)
    assert used.included == {name or "": 1}
    assert not used.excluded


@pytest.mark.parametrize("name", ["DCIS", "in-situ", "Ignore*", "Control"])
def test_regions_to_exclude_are_left_out_of_all_tissue(mask, tmp_path, name):
    kept, used = restrict(mask, written(tmp_path, square(400, 400, 800, name)))
    assert kept.area_mm2 == pytest.approx(mask.area_mm2 - 0.16, abs=0.01)
    assert used.excluded == {name: 1}


def test_what_is_excluded_is_left_out_of_what_is_included_and_other_names_are_passed_over(mask, tmp_path):
    path = written(
        tmp_path,
        square(400, 400, 800, "Tumor"),
        square(400, 400, 400, "DCIS"),
        square(300, 300, 100, "Stroma"),
        square(300, 500, 100, "Stroma"),
    )
    kept, used = restrict(mask, path)
    assert kept.area_mm2 == pytest.approx(0.12, abs=0.01)
    assert (used.included, used.excluded, used.ignored) == ({"Tumor": 1}, {"DCIS": 1}, {"Stroma": 2})


def test_names_are_configured(mask, tmp_path):
    names = RegionNames(include=("Herd A",), exclude=())
    kept, used = restrict(mask, written(tmp_path, square(400, 400, 800, "herd a"), square(0, 0, 9, "dcis")), names)
    assert kept.area_mm2 == pytest.approx(0.16, abs=0.01)
    assert used.ignored == {"dcis": 1}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no json", "not GeoJSON"),
        (json.dumps({"type": "FeatureCollection", "features": []}), "no polygon"),
        (json.dumps([square(0, 0, 500, "Stroma")]), "rename them"),
        (json.dumps([square(9_000_000, 0, 500, "Tumor")]), "do not touch"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_what_to_do(mask, tmp_path, content, words):
    path = tmp_path / "slide.geojson"
    path.write_text(content)
    with pytest.raises(RegionsError, match=words) as caught:
        restrict(mask, path)
    assert "slide.geojson" in str(caught.value)


def test_coordinates_are_those_of_level_0_for_a_slide_that_is_read(real_slides, tmp_path):
    slide = open_slide(next(path for path in sorted(real_slides.glob("ihc_core_score3*.tif"))))
    whole = detect_tissue(slide)
    width, height = slide.dimensions
    half = {
        "type": "Polygon",
        "coordinates": [[[0, 0], [width / 2, 0], [width / 2, height], [0, height], [0, 0]]],
    }
    path = tmp_path / "half.geojson"
    path.write_text(json.dumps(half))
    kept, _ = restrict(whole, path)
    assert 0.35 < kept.area_mm2 / whole.area_mm2 < 0.65
    assert not kept.tissue[:, kept.tissue.shape[1] // 2 + 2 :].any()
