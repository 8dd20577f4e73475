"""Warwick's slides and table become patches of tissue, or of what someone drew."""

import json
import shutil

import numpy as np
import pytest

from wsi_her2.errors import DatasetError
from wsi_her2.learning.datasets import PatchPlan, read_warwick
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.tissue import detect_tissue

PLAN = PatchPlan(patch_px=64, mpp=0.5)
PX = 8  # of level 0 in a pixel of the overview, on which regions are drawn


def read(folder, **options):
    return read_warwick(folder / "slides", folder / "ground_truth.csv", plan=PLAN, **options)


def square(x, y, side, name=None):
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    properties = {} if name is None else {"classification": {"name": name}}
    return {"type": "Feature", "properties": properties, "geometry": {"type": "Polygon", "coordinates": [ring]}}


def annotate(folder, stem, *features):
    (folder / "regions").mkdir(exist_ok=True)
    content = {"type": "FeatureCollection", "features": list(features)}
    (folder / "regions" / f"{stem}.geojson").write_text(json.dumps(content))
    return folder / "regions"


def test_patches_are_of_tissue_with_the_score_of_the_case_and_the_case_as_group(miniatures):
    reading = read(miniatures["warwick"])
    assert reading.findings == ()
    made = reading.dataset
    assert (made.classes, made.modality, made.mpp) == (("0", "1+", "2+", "3+"), "ihc", 0.5)
    assert set(made.groups) == {str(case) for case in range(1, 9)}
    assert {each.group: each.label for each in made.examples} == {
        str(case): ("0", "1+", "2+", "3+")[(case - 1) % 4] for case in range(1, 9)
    }
    example = made.examples[0]
    with open_slide(miniatures["warwick"] / "slides" / "1_HER2.tif") as slide:
        mask = detect_tissue(slide)
        np.testing.assert_array_equal(
            made.read(0), slide.read(example.pixels.x, example.pixels.y, 64, 64, example.pixels.mpp)
        )
        share = mask.fractions(np.array([example.pixels.x]), np.array([example.pixels.y]), 64, 64)
    assert share[0] >= PLAN.min_tissue
    assert example.white_point == mask.white_point.rgb


def test_the_other_stain_of_a_case_is_the_same_group_with_the_same_label(miniatures):
    ihc, he = read(miniatures["warwick"]).dataset, read(miniatures["warwick"], modality="he").dataset
    assert he.modality == "he"
    assert {(e.group, e.label) for e in ihc.examples} == {(e.group, e.label) for e in he.examples}
    assert all("_HE.tif@" in id_ for id_ in he.ids)


def test_so_many_patches_a_slide_are_spread_over_it_and_always_the_same(miniatures):
    plan = PatchPlan(64, 0.5, per_slide=5)
    folder = miniatures["warwick"]
    made = read_warwick(folder / "slides", folder / "ground_truth.csv", plan=plan).dataset
    assert len(made) == 8 * 5
    rows = [example.pixels.y for example in made.examples[:5]]
    assert max(rows) - min(rows) > 150
    assert read_warwick(folder / "slides", folder / "ground_truth.csv", plan=plan).dataset.ids == made.ids


def test_binary_grouping_puts_2_and_3_with_the_positive(miniatures):
    made = read(miniatures["warwick"], grouping="binary").dataset
    assert {e.group: e.label for e in made.examples}["3"] == "positive"
    assert {e.group: e.label for e in made.examples}["2"] == "negative"


def test_names_in_any_case_and_with_leading_zeros_find_their_row(warwick):
    (warwick / "slides/1_HER2.tif").rename(warwick / "slides/001_her2.tif")
    assert "1" in read(warwick).dataset.groups


def test_a_slide_without_truth_and_truth_without_a_slide_are_said(warwick, found):
    (warwick / "slides/1_HER2.tif").unlink()
    shutil.copy(warwick / "slides/2_HER2.tif", warwick / "slides/99_HER2.tif")
    reading = read(warwick)
    assert "case 1 has a score but no 1_HER2 slide" in found(reading, "slide-missing")[0].message
    assert found(reading, "truth-missing")[0].path.name == "99_HER2.tif"
    assert {f.message.split(" has ")[0] for f in found(reading, "pair-missing")} == {"case 1", "case 99"}
    assert set(reading.dataset.groups) == {str(case) for case in range(2, 9)}


def test_misnamed_doubled_and_unreadable_slides_are_left_out_by_name(warwick, found):
    slides = warwick / "slides"
    (slides / "1_HER2.tif").rename(slides / "case one.tif")
    shutil.copy(slides / "2_HER2.tif", slides / "02_HER2.tiff")
    (slides / "3_HER2.tif").write_bytes((slides / "3_HER2.tif").read_bytes()[:300])
    (slides / "4_HER2.json").write_text("{}")
    reading = read(warwick)
    assert found(reading, "misnamed-file")[0].path.name == "case one.tif"
    assert "case 2" in found(reading, "duplicate-slide")[0].message
    assert found(reading, "unreadable-slide")[0].path.name == "3_HER2.tif"
    assert set(reading.dataset.groups) == {"4", "5", "6", "7", "8"}


def test_patches_that_cannot_be_decoded_are_left_out_when_every_patch_is_read(warwick, found):
    path = warwick / "slides/3_HER2.tif"
    content = bytearray(path.read_bytes())
    content[len(content) // 3 : len(content) // 2] = bytes(len(content) // 2 - len(content) // 3)
    path.write_bytes(content)
    reading = read(warwick, thorough=True)
    for index, example in enumerate(reading.dataset.examples):
        if example.group == "3":
            reading.dataset.read(index)
    problems = (
        found(reading, "unreadable-patch") + found(reading, "unreadable-slide") + found(reading, "no-tissue")
    )
    assert {finding.path for finding in problems} == {path}


def test_a_slide_of_which_the_scale_is_given_is_read_at_it(miniatures):
    made = read(miniatures["warwick"], slide_mpp=0.6).dataset
    assert made.examples[0].pixels.slide_mpp == 0.6
    assert made.read(0).shape == (64, 64, 3)


def test_only_tissue_within_regions_is_used_and_named_regions_have_their_class(warwick, found):
    folder = annotate(warwick, "1_HER2", square(0, 0, 300), square(300, 300, 300, "other"))
    annotate(warwick, "2_HER2", square(100, 100, 400, "3+"), square(0, 0, 600, "Ignore*"))
    reading = read(warwick, regions=folder)
    made = reading.dataset
    assert made.classes == ("other", "0", "1+", "2+", "3+")
    of_first = {(e.label, e.pixels.x < 300 and e.pixels.y < 300) for e in made.examples if e.group == "1"}
    assert of_first == {("0", True), ("other", False)}
    assert {e.label for e in made.examples if e.group == "2"} == {"3+"}
    assert all(100 - 32 - PX <= e.pixels.x <= 500 - 32 + PX for e in made.examples if e.group == "2")
    assert len(found(reading, "regions-missing")) == 6


def test_holes_and_overlaps_of_regions_are_not_used(warwick, found):
    outer = square(0, 0, 600)
    hole = [[150, 150], [450, 150], [450, 450], [150, 450], [150, 150]]
    outer["geometry"]["coordinates"].append(hole)
    folder = annotate(warwick, "1_HER2", outer)
    annotate(warwick, "2_HER2", square(0, 0, 400, "1+"), square(200, 0, 400, "other"))
    reading = read(warwick, regions=folder)
    for example in reading.dataset.examples:
        x, y = example.pixels.x, example.pixels.y
        if example.group == "1":
            assert not (182 + PX <= x <= 354 - PX and 182 + PX <= y <= 354 - PX)
        else:
            assert not 232 + PX <= x <= 304 - PX
    assert found(reading, "regions-overlap")[0].path.name == "2_HER2.tif"


def test_several_polygons_and_bare_geometries_are_read(warwick):
    ring = square(0, 0, 600)["geometry"]["coordinates"]
    (warwick / "regions").mkdir()
    multi = {"type": "MultiPolygon", "coordinates": [ring, ring]}
    (warwick / "regions" / "1_HER2.geojson").write_text(json.dumps(multi))
    (warwick / "regions" / "2_HER2.geojson").write_text(json.dumps([square(0, 0, 600)]))
    assert set(read(warwick, regions=warwick / "regions").dataset.groups) == {"1", "2"}


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("not json", "bad-regions"),
        ('{"type": "FeatureCollection"}', "bad-regions"),
        ('{"type": "FeatureCollection", "features": []}', "bad-regions"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "bad-regions"),
        ('{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [2, 2]]]}', "bad-regions"),
        ('{"type": "Polygon", "coordinates": [[[0], [1], [2]]]}', "bad-regions"),
        ('{"type": "Polygon", "coordinates": [[[1e999, 0], [1, 1], [2, 2]]]}', "bad-regions"),
        ("[" * 100_000, "bad-regions"),
        ('{"type": "Point", "coordinates": [1, 2]}', "bad-regions"),
        (json.dumps(square(90_000, 90_000, 500)), "regions-outside"),
    ],
)
def test_regions_that_cannot_be_used_are_said_with_the_file(warwick, found, content, code):
    annotate(warwick, "2_HER2", square(0, 0, 600))
    (warwick / "regions" / "1_HER2.geojson").write_text(content)
    reading = read(warwick, regions=warwick / "regions")
    assert "1_HER2" in found(reading, code)[0].path.name
    assert set(reading.dataset.groups) == {"2"}


def test_a_slide_without_tissue_is_said(warwick, found, tmp_path):
    from wsi_her2.slides.pyramid import write_pyramid

    write_pyramid(
        warwick / "slides/1_HER2.tif", 600, 600, lambda x, y, w, h: np.full((h, w, 3), 240, np.uint8), mpp=0.5
    )
    assert found(read(warwick), "no-tissue")[0].path.name == "1_HER2.tif"


def test_wrong_rows_of_the_table_are_passed_on(warwick, found):
    table = warwick / "ground_truth.csv"
    table.write_text(table.read_text().replace("1,0,", "1,9,", 1))
    reading = read(warwick)
    assert found(reading, "bad-row")
    assert "1" not in reading.dataset.groups


def test_nothing_usable_is_an_error_that_says_why(warwick, tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        read_warwick(tmp_path / "absent", warwick / "ground_truth.csv")
    with pytest.raises(DatasetError, match="no such table"):
        read_warwick(warwick / "slides", tmp_path / "absent.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"named like 12_HE\.ndpi"):
        read_warwick(tmp_path / "empty", warwick / "ground_truth.csv", modality="he")


def test_real_ndpi_and_svs_files_are_read_under_warwicks_names(real_slides, tmp_path):
    (tmp_path / "5_HER2.tif").symlink_to(real_slides / "ihc_core_score3_a.tif")
    (tmp_path / "5_HE.svs").symlink_to(real_slides / "he_aperio_cmu1_small_region.svs")
    (tmp_path / "6_HER2.ndpi").symlink_to(real_slides / "hamamatsu_fluorescence_dapi.ndpi")
    (tmp_path / "7_HER2.tif").symlink_to(real_slides / "truncated_ihc_core.tif")
    table = tmp_path / "truth.csv"
    table.write_text("CaseNo,HeR2 SCORE\n5,3\n6,1\n7,2\n")
    plan = PatchPlan(224, 0.5, per_slide=10)
    ihc = read_warwick(tmp_path, table, plan=plan, thorough=True).dataset
    assert {e.label for e in ihc.examples if e.group == "5"} == {"3+"}
    assert ihc.read(0).shape == (224, 224, 3)
    assert len(read_warwick(tmp_path, table, plan=plan, modality="he").dataset) == 10
