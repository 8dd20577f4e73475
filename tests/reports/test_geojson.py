import json

from wsi_her2.reports.geojson import write_overlay_geojson
from wsi_her2.reports.palette import colour_of


def features(scored, path):
    write_overlay_geojson(path, scored.store, scored.classes, scored.mask)
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
    assert [tile["properties"]["classification"]["name"] for tile in tiles] == tumour
    for tile in tiles:
        properties = tile["properties"]
        name = properties["classification"]["name"]
        assert properties["classification"]["color"] == list(colour_of(name))
        assert properties["isLocked"] is True
        assert properties["measurements"][name] == 0.8765
        assert tuple(properties["measurements"]) == scored.classes


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
