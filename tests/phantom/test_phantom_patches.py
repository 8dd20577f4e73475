"""Patches carry the truth of what is in them, the same for any number of workers."""

import numpy as np
import pytest

from wsi_her2.phantom import PhantomError, iter_patches, render_patches


@pytest.fixture(scope="module")
def batch():
    return render_patches(64, patch_px=128, mpp=0.5, seed=1)


def test_shapes_and_types(batch):
    assert batch.pixels.shape == (64, 128, 128, 3)
    assert batch.pixels.dtype == np.uint8
    assert batch.fractions.shape == batch.cell_counts.shape == (64, 4)
    assert len(np.unique(batch.scene)) == 16


def test_fractions_are_those_of_the_counted_cells(batch):
    total = batch.cell_counts.sum(1)
    some = total > 0
    assert np.allclose(batch.fractions[some].sum(1), 1)
    assert np.all(batch.fractions[~some] == 0)
    # Tumour covers patches in which tumour cells were counted, and most cells are of ordinary size.
    area_um2 = batch.tumour_area[some] * 64**2
    assert 60 < np.median(area_um2 / total[some]) < 260


def test_all_classes_and_tumour_free_patches_occur(batch):
    assert (batch.cell_counts.sum(0) > 20).all()
    assert (batch.tumour_area < 0.02).any()
    assert (batch.tumour_area > 0.5).any()


def test_brown_follows_the_strong_classes(batch):
    brown = (batch.pixels[..., 0].astype(int) - batch.pixels[..., 2]).clip(0).mean((1, 2))
    strong = batch.tumour_area * batch.fractions[:, 3]
    none = batch.tumour_area * batch.fractions[:, 0]
    assert np.corrcoef(brown, strong)[0, 1] > 0.4
    assert np.corrcoef(brown, none)[0, 1] < 0.2


def test_workers_and_streaming_change_nothing():
    one = render_patches(10, patch_px=64, mpp=0.5, seed=3)
    two = render_patches(10, patch_px=64, mpp=0.5, seed=3, workers=2)
    streamed = np.concatenate([part.pixels for part in iter_patches(10, patch_px=64, mpp=0.5, seed=3)])
    assert np.array_equal(one.pixels, two.pixels)
    assert np.array_equal(one.pixels, streamed)
    assert np.array_equal(one.fractions, two.fractions)


@pytest.mark.parametrize(
    "wrong", [{"count": 0}, {"patch_px": 4}, {"workers": 0}, {"looks": ()}, {"looks": ("x",)}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(PhantomError):
        render_patches(**({"count": 4} | wrong))
