"""The networks that come with the package: they load, say what they were trained on, and are not the default."""

import numpy as np
import pytest

from wsi_her2.errors import ClassifierError
from wsi_her2.models.bundle import read_bundle
from wsi_her2.models.loading import MEMBRANE, bundled_bundles, load_classifier

NAMES = ("ather2-phantoms", "pruneff4-phantoms")


def test_both_networks_come_with_the_package():
    assert tuple(bundled_bundles()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_network_says_that_it_knows_phantoms_only_and_what_was_measured(name):
    card = load_classifier(name, runtime="onnx").card
    assert "digital phantoms" in str(card["trained_on"])
    assert "no tissue of patients" in str(card["trained_on"])
    assert card["validated"] is False
    assert "on average" in str(card["on_digital_slides"])
    assert "cores" in str(card["on_real_cores"])
    assert "patches/s" in str(card["training"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_bundled_network_gives_shares_of_tissue_and_tumour(name, precision, ihc_image):
    try:
        classifier = load_classifier(name, runtime="onnx", precision=precision)
        classifier.predict(np.full((1, classifier.patch_px, classifier.patch_px, 3), 250, np.uint8))
    except ClassifierError as error:
        # Not every processor multiplies whole numbers alike; a bundle that differs is refused.
        if precision != "int8" or "on this machine" not in str(error):
            raise
        pytest.skip(str(error))
    assert classifier.classes == ("other", "0", "1+", "2+", "3+")
    assert classifier.outputs == "shares"
    assert classifier.trained
    side = classifier.patch_px
    patches = np.stack(
        [ihc_image[:side, :side], ihc_image[-side:, -side:], np.full((side, side, 3), 250, np.uint8)]
    )
    found = classifier.predict(patches)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    assert found[2, 0] > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_network_fits_in_a_clinics_laptop(name):
    files = list(read_bundle(bundled_bundles()[name]).path.parent.iterdir())
    assert sum(path.stat().st_size for path in files) < 20_000_000


def test_the_membrane_scorer_stays_the_default():
    assert load_classifier().name == MEMBRANE
