import numpy as np
import pytest
from PIL import Image

from wsi_her2.reports.heatmap import draw_heatmap, draw_layer, scale_bar, write_png
from wsi_her2.reports.palette import colour_of
from wsi_her2.slides.grid import plan_patches


def centre(scored, layer, row):
    box = scored.mask.overview.box
    x, y = scored.store.xy[row] + scored.grid.patch_px0 // 2 - (box.x, box.y)
    return layer[int(y * layer.shape[0] / box.height), int(x * layer.shape[1] / box.width)]


def test_each_patch_has_the_colour_of_its_class_where_it_lies(scored):
    layer = draw_layer(scored.mask, scored.store, scored.classes)
    assert layer.shape == (1200, 1600, 4)
    probabilities = scored.store.probabilities
    for row in np.flatnonzero(~np.isnan(probabilities).any(axis=1)):
        name = scored.classes[int(probabilities[row].argmax())]
        assert tuple(centre(scored, layer, row)[:3]) == colour_of(name)


def test_the_tissue_shows_through_tumour_and_glass_is_bare(scored):
    layer = draw_layer(scored.mask, scored.store, scored.classes)
    row = scored.labels.index("3+")
    kept = np.flatnonzero(~np.isnan(scored.store.probabilities).any(axis=1))
    assert 60 < centre(scored, layer, kept[row])[3] < 130
    assert layer[5, 5, 3] == 0


def test_a_patch_that_could_not_be_read_is_hatched(scored):
    layer = draw_layer(scored.mask, scored.store, scored.classes)
    missing = scored.grid.selected & np.isnan(scored.store.probabilities).any(axis=1)
    (row,) = np.flatnonzero(missing)
    x, y = scored.store.xy[row]
    patch = layer[y + 2 : y + 126, x + 2 : x + 126]
    assert len(np.unique(patch[..., 3])) == 2
    assert len(np.unique(patch[..., :3].reshape(-1, 3), axis=0)) == 1


def test_places_beyond_the_planned_patches_are_not_called_unscored(scored):
    layer = draw_layer(scored.mask, scored.store, scored.classes)
    beyond = np.flatnonzero(scored.store.tissue == 0)
    inside = [row for row in beyond if (scored.store.xy[row] + 128 <= scored.slide.dimensions).all()]
    assert inside
    assert all(centre(scored, layer, row)[3] == 0 for row in inside)


@pytest.mark.parametrize("longest", [600, 2500])
def test_the_layer_has_the_overviews_shape_at_any_size(scored, longest):
    layer = draw_layer(scored.mask, scored.store, scored.classes, longest)
    assert layer.shape[:2] == (longest * 3 // 4, longest)


def test_the_picture_is_the_same_to_the_bit_and_png_keeps_it(scored, tmp_path):
    first = draw_heatmap(scored.mask, scored.store, scored.classes)
    write_png(tmp_path / "a.png", first)
    write_png(tmp_path / "b.png", draw_heatmap(scored.mask, scored.store, scored.classes))
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), first)


def test_the_map_is_neither_tiny_nor_as_large_as_the_slide(scored):
    rgb = draw_heatmap(scored.mask, scored.store, scored.classes)
    assert rgb.shape[1] == 1000
    assert rgb.shape[0] > 750, "the legend lies under the map, not on it"


def test_the_legend_shows_the_percentages_of_the_call(scored):
    counted = draw_heatmap(scored.mask, scored.store, scored.classes)
    same = draw_heatmap(scored.mask, scored.store, scored.classes, percentages=scored.call.percentages)
    other = draw_heatmap(
        scored.mask, scored.store, scored.classes, percentages={"0": 100.0, "1+": 0.0, "2+": 0.0, "3+": 0.0}
    )
    assert np.array_equal(counted, same)
    assert not np.array_equal(counted[750:], other[750:])
    assert np.array_equal(counted[:750], other[:750])


def test_a_slide_without_tissue_has_a_heatmap_too(empty):
    assert not draw_layer(empty.mask, empty.store, empty.classes).any()
    assert draw_heatmap(empty.mask, empty.store, empty.classes).shape[1] == 1000


def test_the_scale_bar_is_as_long_as_it_says(scored):
    bar = scale_bar(scored.mask)
    assert bar.length_mm == 0.2
    assert bar.share == pytest.approx(0.2 / 0.8, rel=0.01)
    assert bar.label == "0.2 mm"


def test_a_real_core_is_drawn_on_its_patch_grid(core):
    layer = draw_layer(core.mask, core.store, core.classes)
    assert plan_patches(core.slide, core.mask, 128, 0.5).n_patches == core.grid.n_patches
    share = (layer[..., 3] > 0).mean()
    box = core.mask.overview.box
    assert share == pytest.approx(
        core.grid.n_patches * core.grid.patch_px0**2 / (box.width * box.height), rel=0.02
    )
