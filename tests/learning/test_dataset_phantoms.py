"""Rendered patches are the same however they are made, and their labels are what was drawn."""

from dataclasses import replace

import numpy as np
import pytest

from wsi_her2.errors import DatasetError, OutputError
from wsi_her2.learning.datasets import PhantomRecipe, read_phantoms
from wsi_her2.phantom import PhantomError, render_patches

RECIPE = PhantomRecipe(18, patch_px=40, seed=11, looks=("aperio", "bluish"))


def pixels(dataset):
    return np.stack([dataset.read(index) for index in range(len(dataset))])


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def in_memory():
    return read_phantoms(RECIPE, keep_undecided=True).dataset


def test_labels_are_shares_of_other_and_the_grades_by_what_was_drawn(in_memory):
    drawn = render_patches(18, patch_px=80, mpp=0.25, seed=11, looks=("aperio", "bluish"))
    assert in_memory.classes == ("other", "0", "1+", "2+", "3+")
    assert in_memory.mpp == 0.5
    np.testing.assert_allclose(in_memory.targets.sum(axis=1), 1, atol=1e-6)
    tumour = np.clip(drawn.tumour_area / 0.4, 0, 1)
    np.testing.assert_allclose(in_memory.targets[:, 1:], tumour[:, None] * drawn.fractions, atol=1e-6)
    assert (in_memory.targets[drawn.tumour_area == 0, 0] == 1).all()
    assert in_memory.groups == tuple(f"phantom-11-{scene}" for scene in drawn.scene)
    assert in_memory.examples[5].white_point == pytest.approx(tuple(drawn.white[5]))


def test_patches_are_averaged_down_from_the_scale_at_which_they_are_drawn(in_memory):
    drawn = render_patches(18, patch_px=80, mpp=0.25, seed=11, looks=("aperio", "bluish"))
    halved = drawn.pixels.reshape(18, 40, 2, 40, 2, 3).astype(float).mean(axis=(2, 4))
    assert np.abs(pixels(in_memory) - halved).max() <= 1


@pytest.mark.slow
def test_the_cache_holds_the_same_patches_for_any_number_of_workers(in_memory, tmp_path):
    one = read_phantoms(RECIPE, cache=tmp_path / "one", keep_undecided=True).dataset
    two = read_phantoms(RECIPE, cache=tmp_path / "two", keep_undecided=True, workers=2).dataset
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert one.describe() == two.describe() == in_memory.describe()
    np.testing.assert_array_equal(pixels(one), pixels(in_memory))
    np.testing.assert_array_equal(pixels(two), pixels(in_memory))


def test_a_cache_that_is_there_is_read_and_not_rendered_again(tmp_path):
    read_phantoms(RECIPE, cache=tmp_path)
    (shard,) = tmp_path.glob("*/pixels-*.npy")
    written = shard.stat().st_mtime_ns
    again = read_phantoms(RECIPE, cache=tmp_path).dataset
    assert again.read(0).shape == (40, 40, 3)
    assert shard.stat().st_mtime_ns == written
    assert [path.name for path in tmp_path.iterdir()] == [shard.parent.name]


def test_another_recipe_has_a_cache_of_its_own(tmp_path):
    read_phantoms(RECIPE, cache=tmp_path)
    read_phantoms(replace(RECIPE, seed=12), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_more_patches_than_fit_into_a_file_go_into_several(tmp_path):
    recipe = PhantomRecipe(132, patch_px=40, seed=1)
    kept = read_phantoms(recipe, cache=tmp_path, keep_undecided=True).dataset
    assert len(list(tmp_path.glob("*/pixels-*.npy"))) == 2
    held = read_phantoms(recipe, keep_undecided=True).dataset
    np.testing.assert_array_equal(pixels(kept), pixels(held))


def test_a_damaged_cache_is_refused_with_what_to_do(tmp_path):
    read_phantoms(RECIPE, cache=tmp_path)
    (shard,) = tmp_path.glob("*/pixels-*.npy")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"pixels-00000\.npy changed.*delete the folder"):
        read_phantoms(RECIPE, cache=tmp_path)
    (shard.parent / "recipe.json").unlink()
    with pytest.raises(DatasetError, match="delete the folder"):
        read_phantoms(RECIPE, cache=tmp_path)


def test_what_an_interrupted_rendering_left_is_not_taken_for_a_cache(tmp_path):
    (tmp_path / ".phantoms-0123.partial-1").mkdir()
    assert len(read_phantoms(RECIPE, cache=tmp_path).dataset) > 0


def test_a_cache_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be kept"):
        read_phantoms(RECIPE, cache=tmp_path / "file")


def test_patches_with_much_benign_epithelium_are_left_out():
    recipe = PhantomRecipe(40, patch_px=40, seed=2)
    drawn = render_patches(40, patch_px=80, seed=2)
    undecided = (drawn.in_situ_area > 0.08) | (drawn.normal_area > 0.08)
    assert undecided.any()
    made = read_phantoms(recipe).dataset
    assert made.ids == tuple(f"phantom-2-{row}" for row in np.flatnonzero(~undecided))


def test_the_he_rendition_of_a_scene_is_in_the_same_group_and_its_label_is_the_same(in_memory):
    he = read_phantoms(replace(RECIPE, modality="he"), keep_undecided=True).dataset
    assert he.modality == "he"
    assert he.groups == in_memory.groups
    np.testing.assert_array_equal(he.targets, in_memory.targets)


def test_a_recipe_that_cannot_be_rendered_is_refused(tmp_path):
    with pytest.raises(PhantomError, match="no_such_look"):
        read_phantoms(replace(RECIPE, looks=("no_such_look",)), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []
