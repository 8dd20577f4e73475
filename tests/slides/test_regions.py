"""Annotated regions: what a name means, what is kept of the tissue, and files that cannot be used."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_her2 import open_slide
from wsi_her2.errors import RegionsError
from wsi_her2.slides.regions import Region, RegionNames, contains, cover, parse_regions, restrict, what_counts
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


corners = st.tuples(st.integers(-50, 150), st.integers(-50, 150))


@given(st.lists(corners, min_size=3, max_size=12))
def test_points_are_within_an_outline_as_opencv_has_it_by_the_even_odd_rule(ring):
    """On half pixels, so that no point lies on a line, of which either side may be right."""
    points = np.random.default_rng(0).integers(-60, 160, (300, 2))
    doubled = tuple((2 * x + 1, 2 * y + 1) for x, y in ring)
    drawn = np.zeros((600, 600), np.uint8)
    cv2.fillPoly(drawn, [np.array(doubled, np.int32) + 200], 1)
    cv2.polylines(drawn, [np.array(doubled, np.int32) + 200], True, 2, thickness=3)
    seen = drawn[2 * points[:, 1] + 200, 2 * points[:, 0] + 200]
    found = contains([Region("x", (doubled,))], 2 * points)
    assert (found == (seen == 1))[seen < 2].all()


def test_points_in_a_hole_are_outside_and_regions_are_joined():
    hole = Region("x", (((0, 0), (100, 0), (100, 100), (0, 100)), ((25, 25), (75, 25), (75, 75), (25, 75))))
    inner = Region("x", (((40, 40), (60, 40), (60, 60), (40, 60)),))
    points = np.array([[10, 10], [50, 50], [30, 30], [200, 50], [99, 1]])
    assert contains([hole], points).tolist() == [True, False, False, False, True]
    assert contains([hole, inner], points).tolist() == [True, True, False, False, True]
    assert contains([], points).tolist() == [False] * 5
    assert contains([hole], points[:0]).shape == (0,)


def test_outlines_that_would_take_minutes_are_refused():
    zigzag = tuple((number, 1e6 * (number % 2)) for number in range(2000))
    points = np.random.default_rng(0).integers(0, 1_000_000, (400_000, 2))
    with pytest.raises(RegionsError, match="intricate"):
        contains([Region("x", (zigzag,))], points)


def test_all_counts_but_what_is_excluded_where_nothing_is_included(mask):
    outer, inner = (
        parse_regions({"type": "FeatureCollection", "features": [square(*where)]})
        for where in ((200, 200, 1000), (400, 400, 300))
    )
    assert what_counts((), (), mask.overview).all()
    np.testing.assert_array_equal(what_counts((), inner, mask.overview), ~cover(inner, mask.overview))
    both = what_counts(outer, inner, mask.overview)
    np.testing.assert_array_equal(both, cover(outer, mask.overview) & ~cover(inner, mask.overview))
    assert parse_regions({"type": "FeatureCollection", "features": []}) == ()
    with pytest.raises(RegionsError):
        parse_regions({"type": "FeatureCollection", "features": [{"type": "Polygon"}]})
