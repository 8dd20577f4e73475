"""Rendered fields: equal for equal settings, labelled where the cells are, kept on disk."""

import json

import cv2
import numpy as np
import pytest

from wsi_her2.errors import DatasetError
from wsi_her2.learning.fields import (
    FIELD_CLASSES,
    LABEL_PX,
    UNDECIDED,
    FieldSettings,
    class_shares,
    rendered_fields,
)
from wsi_her2.learning.samples import FieldSamples, JoinedSamples, fitted
from wsi_her2.slides.density import optical_density, unmix

SETTINGS = FieldSettings(6, field_px=256, seed=5, looks=("aperio", "nanozoomer"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("fields")


@pytest.fixture(scope="module")
def fields(cache):
    return rendered_fields(SETTINGS, cache)


@pytest.mark.slow
def test_fields_do_not_depend_on_the_number_of_workers(fields, tmp_path):
    again = rendered_fields(SETTINGS, tmp_path, workers=2)
    np.testing.assert_array_equal(fields.pixels, again.pixels)
    np.testing.assert_array_equal(fields.labels, again.labels)


def test_fields_are_rendered_once_and_then_opened(fields, cache):
    folders = sorted(cache.iterdir())
    before = [path.stat().st_mtime_ns for path in folders]
    calls = []
    again = rendered_fields(SETTINGS, cache, progress=lambda done, total: calls.append(done))
    assert not calls
    assert [path.stat().st_mtime_ns for path in sorted(cache.iterdir())] == before
    np.testing.assert_array_equal(again.labels, fields.labels)
    described = json.loads((folders[0] / "fields.json").read_text())
    assert (described["count"], described["seed"]) == (6, 5)


def test_other_settings_make_other_fields(fields, cache):
    other = rendered_fields(FieldSettings(2, field_px=256, seed=6, looks=("aperio",)), cache)
    assert len(other) == 2
    assert not np.array_equal(other.pixels[0], fields.pixels[0])


@pytest.fixture(scope="module")
def of_slides(cache):
    return rendered_fields(
        FieldSettings(6, field_px=256, seed=5, looks=("aperio", "nanozoomer"), per_slide=3), cache
    )


def test_fields_of_a_slide_share_its_stain_and_show_other_places(of_slides):
    """Three fields of one slide have one hue of hematoxylin; the next slide has its own."""
    assert len(of_slides) == 6
    for first in (0, 3):
        assert not np.array_equal(of_slides.pixels[first], of_slides.pixels[first + 1])
    hues = []
    for pixels in of_slides.pixels:
        density = optical_density(np.asarray(pixels)).reshape(-1, 3)
        blue = density[(density[:, 0] > 0.12) & (density[:, 0] > 1.5 * density[:, 2])]
        assert len(blue) > 100
        hues.append(np.median(blue / np.linalg.norm(blue, axis=1, keepdims=True), axis=0))
    hues = np.array(hues).reshape(2, 3, 3)
    within = np.abs(hues - hues.mean(axis=1, keepdims=True)).max()
    assert within < np.abs(hues[0].mean(axis=0) - hues[1].mean(axis=0)).max()


@pytest.mark.slow
def test_fields_of_slides_hold_tissue_and_do_not_depend_on_the_number_of_workers(of_slides, tmp_path):
    again = rendered_fields(of_slides.settings, tmp_path, workers=2)
    np.testing.assert_array_equal(again.pixels, of_slides.pixels)
    np.testing.assert_array_equal(again.labels, of_slides.labels)
    assert ((of_slides.pixels.min(axis=-1) < 245).mean(axis=(1, 2)) > 0.05).all()


def test_fields_are_those_of_whole_slides():
    with pytest.raises(DatasetError, match="whole slides"):
        FieldSettings(10, per_slide=3)


def test_a_field_larger_than_its_slide_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="do not fit"):
        rendered_fields(FieldSettings(2, field_px=4096, seed=1, looks=("aperio",), per_slide=2), tmp_path)


def test_joined_samples_are_those_of_their_parts_and_share_the_epoch(fields, of_slides):
    first, second = FieldSamples(fields, 96, seed=1), FieldSamples(of_slides, 96, seed=2, per_field=2)
    joined = JoinedSamples(first, second)
    assert len(joined) == 18
    joined.epoch = 4
    assert first.epoch == second.epoch == joined.epoch == 4
    np.testing.assert_array_equal(joined[5]["image"], first[5]["image"])
    np.testing.assert_array_equal(joined[6]["image"], second[0]["image"])
    np.testing.assert_array_equal(joined[17]["image"], second[11]["image"])
    with pytest.raises(IndexError):
        joined[18]


def test_labels_lie_where_the_staining_is(fields):
    """Places of 3+ hold more DAB than places of 0 and of no tumour, in fields that hold both."""
    strong, weak = [], []
    for pixels, labels in zip(fields.pixels, fields.labels, strict=True):
        dab = unmix(optical_density(np.asarray(pixels)))[..., 1].astype(np.float32)
        places = cv2.resize(dab, labels.shape[::-1], interpolation=cv2.INTER_AREA)
        strong.extend(places[labels == FIELD_CLASSES.index("3+")])
        weak.extend(places[(labels == 0) | (labels == FIELD_CLASSES.index("0"))])
    assert len(strong) > 20
    assert np.median(strong) > 2 * np.median(weak) + 0.02


def test_glass_is_white_as_after_the_correction_of_a_slide(fields):
    brightest = np.percentile(fields.pixels.reshape(-1, 3), 99, axis=0)
    assert (brightest > 235).all()


def test_class_shares_leave_out_what_is_undecided():
    labels = np.array([[0, 0, UNDECIDED], [4, 4, UNDECIDED], [1, 1, UNDECIDED]], np.int8)
    np.testing.assert_allclose(class_shares(labels), [1 / 3, 1 / 3, 0, 0, 1 / 3], rtol=1e-6)
    assert not class_shares(np.full((2, 2), UNDECIDED, np.int8)).any()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"field_px": 100}, {"looks": ()}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(DatasetError, match="fields need"):
        FieldSettings(**{"count": 4, **wrong})


def test_samples_are_cut_along_the_labels_and_move_from_epoch_to_epoch(fields):
    samples = FieldSamples(fields, 96, seed=1, per_field=2)
    assert len(samples) == 12
    first = samples[3]
    assert first["image"].shape == (96, 96, 3)
    assert first["labels"].shape == (96 // LABEL_PX, 96 // LABEL_PX)
    np.testing.assert_array_equal(first["target"], class_shares(first["labels"]))
    np.testing.assert_array_equal(first["image"], samples[3]["image"])
    samples.epoch = 1
    assert not np.array_equal(first["image"], samples[3]["image"])
    middle = FieldSamples(fields, 96, seed=None)
    np.testing.assert_array_equal(middle[0]["image"], fields.pixels[0, 80:176, 80:176])
    np.testing.assert_array_equal(middle[0]["labels"], fields.labels[0, 5:11, 5:11])


@pytest.mark.parametrize("patch_px", [100, 512])
def test_patches_that_cannot_be_cut_are_refused(fields, patch_px):
    with pytest.raises(ValueError, match="cannot be cut"):
        FieldSamples(fields, patch_px, seed=0)


@pytest.mark.parametrize("shape", [(64, 64), (48, 90), (200, 300)])
def test_an_image_is_fitted_whole(shape):
    image = np.zeros((*shape, 3), np.uint8)
    image[:, shape[1] // 2 :] = 200
    got = fitted(image, 64)
    assert got.shape == (64, 64, 3)
    assert (got[:, 0] == 0).all()
    assert (got[:, -1] == 200).all()
