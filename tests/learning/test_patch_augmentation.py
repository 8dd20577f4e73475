"""Augmented patches are the same tissue in another laboratory: orientation, stain, glass, focus."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from wsi_her2.learning.patch_augmentation import augment  # noqa: E402
from wsi_her2.learning.settings import PatchAugmentation  # noqa: E402
from wsi_her2.slides.density import optical_density, unmix  # noqa: E402

NOTHING = PatchAugmentation(
    turns=False, shift=0, first_stain=0, second_stain=0, hue=0, glass=0, blur_px=0, sharpen=0
)


def varied(**settings):
    return PatchAugmentation(**{**vars(NOTHING), **settings})


@pytest.fixture(scope="module")
def patches(ihc_image):
    cut = [ihc_image[y : y + 128, x : x + 128] for y in (0, 200, 350) for x in (0, 180, 380)]
    return torch.from_numpy(np.stack(cut[:8]).transpose(0, 3, 1, 2).copy()).float()


def run(patches, settings, seed=0, labels=None, modality="ihc"):
    return augment(patches, labels, settings, modality, torch.Generator().manual_seed(seed))


def dab(images):
    pixels = np.rint(images.numpy().transpose(0, 2, 3, 1)).clip(0, 255).astype(np.uint8)
    return np.array([unmix(optical_density(image))[..., 1].mean() for image in pixels])


def test_nothing_asked_for_changes_nothing(patches):
    got, _ = run(patches, NOTHING)
    assert (got - patches).abs().max() < 0.01


def test_equal_generators_give_equal_patches_and_others_do_not(patches):
    first, again, other = (run(patches, PatchAugmentation(), seed)[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_label_maps_turn_with_their_patches(patches):
    # The label of a place is the brightness of the patch there, so that it can be told from the pixels again.
    coarse = torch.nn.functional.avg_pool2d(patches.mean(dim=1), 16).round().long()
    for seed in range(6):
        images, labels = run(patches, varied(turns=True), seed, coarse)
        again = torch.nn.functional.avg_pool2d(images.mean(dim=1), 16).round().long()
        assert (labels - again).abs().max() <= 1


@pytest.mark.parametrize("seed", range(4))
def test_hematoxylin_may_vary_much_while_dab_stays(patches, seed):
    got, _ = run(patches, varied(first_stain=0.4), seed)
    assert (got - patches).abs().mean() > 1
    np.testing.assert_allclose(dab(got), dab(patches), atol=0.012)


@pytest.mark.parametrize("seed", range(4))
def test_dab_varies_by_no_more_than_asked_for(patches, seed):
    got, _ = run(patches, varied(second_stain=0.1), seed)
    before, after = dab(patches), dab(got)
    heavy = before > 0.05
    assert heavy.any()
    ratio = after[heavy] / before[heavy]
    assert (np.abs(ratio - 1) < 0.13).all()
    assert np.abs(ratio - 1).max() > 0.01


def test_pixels_stay_within_their_range_under_the_strongest_settings(patches):
    strong = PatchAugmentation(
        shift=0.2, first_stain=0.9, second_stain=0.9, hue=0.2, glass=0.19, blur_px=3, sharpen=3
    )
    for modality in ("ihc", "he"):
        for seed in range(4):
            got, _ = run(patches, strong, seed, modality=modality)
            assert got.shape == patches.shape
            assert torch.isfinite(got).all()
            assert got.min() >= 0
            assert got.max() <= 255


def test_shifts_move_by_no_more_than_asked_for(patches):
    got, _ = run(patches, varied(shift=0.1), 3)
    for before, after in zip(patches, got, strict=True):
        centre = after[:, 32:96, 32:96]
        errors = [
            float((before[:, 32 + y : 96 + y, 32 + x : 96 + x] - centre).abs().max())
            for y in range(-12, 13)
            for x in range(-12, 13)
        ]
        assert min(errors) < 0.01


def test_label_maps_cannot_be_shifted(patches):
    with pytest.raises(ValueError, match="shifted"):
        run(patches, varied(shift=0.1), labels=torch.zeros((8, 8, 8), dtype=torch.long))
