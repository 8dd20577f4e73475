import json

import jsonschema
import pytest

from tests.reports.conftest import score, tissue_slide
from tests.reports.qupath_geojson import SCHEMA, class_of, h_scores
from wsi_her2.reports.geojson import write_overlay_geojson
from wsi_her2.reports.palette import colour_of
from wsi_her2.scoring.rule import SCORES


def features(scored, path, **cells):
    write_overlay_geojson(path, scored.store, scored.classes, scored.mask, **cells)
    collection = json.loads(path.read_text(encoding="utf-8"))
    assert collection["type"] == "FeatureCollection"
    return collection["features"]


def whole_numbers(coordinates):
    if isinstance(coordinates, list):
        return all(whole_numbers(inner) for inner in coordinates)
    return isinstance(coordinates, int)


def test_each_tumour_patch_is_a_locked_tile_with_class_colour_and_measurements(scored, tmp_path):
    tiles = [f for f in features(scored, tmp_path / "o") if f["properties"]["objectType"] == "tile"]
    tumour = [label for label in scored.labels if label != "other"]
    assert [class_of(tile) for tile in tiles] == [(f"Patch {label}",) for label in tumour]
    for tile in tiles:
        properties = tile["properties"]
        name = properties["classification"]["name"].removeprefix("Patch ")
        assert properties["classification"]["color"] == list(colour_of(name))
        assert properties["isLocked"] is True
        assert properties["measurements"][name] == 0.8765
        assert tuple(properties["measurements"]) == scored.classes


def test_names_of_classes_may_hold_anything(tmp_path):
    classes = ("other", '100 %s "a"', "<b>\\n é 🙂")
    named = score(tmp_path, tissue_slide(), classes)
    tiles = features(named, tmp_path / "o")[1:]
    assert {class_of(tile) for tile in tiles} == {(f"Patch {name}",) for name in classes[1:]}
    assert all(tuple(tile["properties"]["measurements"]) == classes for tile in tiles)


def test_tiles_are_closed_squares_of_whole_level_0_pixels_at_the_patches_corners(scored, tmp_path):
    found = features(scored, tmp_path / "o")
    assert all(whole_numbers(feature["geometry"]["coordinates"]) for feature in found)
    corners = {tuple(corner) for corner in scored.store.xy.tolist()}
    for feature in found[1:]:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert len(ring) == 5
        x, y = ring[0]
        assert (x, y) in corners
        assert ring[2] == [x + 128, y + 128]


def test_the_tissue_is_one_annotation(scored, tmp_path):
    annotations = [f for f in features(scored, tmp_path / "o") if f["properties"]["objectType"] == "annotation"]
    (tissue,) = annotations
    assert tissue["geometry"]["type"] == "MultiPolygon"
    for piece in tissue["geometry"]["coordinates"]:
        assert all(ring[0] == ring[-1] for ring in piece)


def test_a_slide_without_tissue_gives_an_empty_collection(empty, tmp_path):
    assert features(empty, tmp_path / "o") == []


def test_a_real_core_is_written(core, tmp_path):
    assert len(features(core, tmp_path / "o")) == 1 + sum(label != "other" for label in core.labels)


def test_each_tumour_cell_is_a_locked_detection_of_its_class_with_its_measures(scored, cell_table, tmp_path):
    found = features(scored, tmp_path / "o", cells=cell_table.path, mpp=0.5)
    detections = [f for f in found if f["properties"]["objectType"] == "detection"]
    tumour = [(number, cell) for number, cell in enumerate(cell_table.cells) if cell[3]]
    assert len(detections) == len(tumour)
    for detection, (number, (_, _, grade, _)) in zip(detections, tumour, strict=True):
        properties = detection["properties"]
        name = SCORES[grade]
        grade_name = "Negative" if name == "0" else name
        assert properties["classification"] == {"names": ["Tumor", grade_name], "color": list(colour_of(name))}
        assert properties["isLocked"] is True
        assert properties["measurements"]["Membrane completeness"] == round(0.125 + number / 1024, 3)
    assert found[: -len(detections)] == features(scored, tmp_path / "o"), "all else stays as it is without cells"


def test_cells_are_closed_rings_of_whole_level_0_pixels_around_the_nucleus(scored, cell_table, tmp_path):
    found = features(scored, tmp_path / "o", cells=cell_table.path, mpp=0.5)
    detections = [f for f in found if f["properties"]["objectType"] == "detection"]
    tumour = [cell for cell in cell_table.cells if cell[3]]
    for detection, (x, y, _, _) in zip(detections, tumour, strict=True):
        (ring,) = detection["geometry"]["coordinates"]
        assert whole_numbers(ring)
        assert ring[0] == ring[-1]
        assert len({tuple(corner) for corner in ring}) == 8
        for corner_x, corner_y in ring:
            assert abs(((corner_x - x) ** 2 + (corner_y - y) ** 2) ** 0.5 * 0.5 - 3.5) < 0.5


def test_qupath_can_read_all_of_it(scored, cell_table, tmp_path):
    found = features(scored, tmp_path / "o", cells=cell_table.path, mpp=0.5)
    assert {feature["properties"]["objectType"] for feature in found} == {"annotation", "tile", "detection"}
    jsonschema.validate({"type": "FeatureCollection", "features": found}, SCHEMA)
    # Pure ASCII, since QuPath reads it in whatever encoding the machine has.
    assert (tmp_path / "o").read_bytes().isascii()


def test_the_h_score_that_qupath_makes_of_it_is_that_of_the_counted_cells_and_of_nothing_else(
    scored, cell_table, tmp_path
):
    found = features(scored, tmp_path / "o", cells=cell_table.path, mpp=0.5)
    grades = [grade for _, _, grade, tumour in cell_table.cells if tumour]
    assert {0, 1, 2, 3} <= set(grades)
    assert h_scores(found) == {("Tumor",): 100 * sum(grades) / len(grades)}


def test_the_schema_refuses_what_qupath_does_not_read(scored, tmp_path):
    found = features(scored, tmp_path / "o")
    del found[1]["properties"]["classification"]["color"]
    with pytest.raises(jsonschema.ValidationError, match="'color' is a required property"):
        jsonschema.validate({"type": "FeatureCollection", "features": found}, SCHEMA)
