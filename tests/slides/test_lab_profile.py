"""A laboratory profile: what its correction does to densities, and files that are none."""

import json

import numpy as np
import pytest

from wsi_her2.errors import LabProfileError
from wsi_her2.slides.density import DAB, HEMATOXYLIN_DAB, HEMATOXYLIN_IHC, optical_density, unmix
from wsi_her2.slides.lab_profile import LabProfile, read_profile
from wsi_her2.slides.white_point import WhitePoint

OWN = {"hematoxylin": (0.74, 0.60, 0.30), "dab": (0.38, 0.55, 0.74), "white": (220.0, 215.0, 214.0)}


def profile(**changes):
    described = {"name": "lab", "dab_gain": 2.0, "classifier": "membrane", "classifier_sha256": "a", **OWN}
    return LabProfile(**(described | changes))


def test_hues_are_turned_to_the_reference_and_dab_is_divided_by_the_gain():
    from wsi_her2.slides.density import StainVectors

    own = StainVectors(OWN["hematoxylin"], OWN["dab"])
    amounts = np.array([[0.3, 0.0, 0], [0.0, 0.6, 0], [0.2, 0.8, 0], [0, 0, 0]])
    white = WhitePoint((230.0, 228.0, 235.0), "background", 0.5)
    pixels = np.rint(np.array(white.rgb) * 10 ** -(amounts @ own.matrix())).astype(np.uint8)[None]
    corrected = profile().correction(white).apply(pixels)
    found = unmix(optical_density(corrected), HEMATOXYLIN_DAB)[0]
    np.testing.assert_allclose(found[:, 0], amounts[:, 0], atol=0.02)
    np.testing.assert_allclose(found[:, 1], amounts[:, 1] / 2, atol=0.02)
    assert (corrected[0, 3] >= 254).all()


def test_the_laboratorys_white_point_stands_in_where_no_glass_is_seen():
    seen = WhitePoint((230.0, 228.0, 235.0), "background", 0.5)
    unseen = WhitePoint((230.0, 228.0, 235.0), "brightest", 0.0)
    assert profile().correction(seen).white == seen.rgb
    assert profile().correction(unseen).white == OWN["white"]


def test_a_profile_of_the_reference_leaves_the_white_point_correction():
    plain = profile(hematoxylin=HEMATOXYLIN_IHC, dab=DAB, dab_gain=1.0)
    white = WhitePoint((255.0, 255.0, 255.0), "background", 1.0)
    pixels = np.random.default_rng(0).integers(40, 256, (8, 8, 3), dtype=np.uint8)
    assert np.abs(plain.correction(white).apply(pixels).astype(int) - pixels).max() <= 1


def test_a_profile_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "lab.json"
    path.write_text(profile().model_dump_json())
    read, sha256 = read_profile(path)
    assert read == profile()
    assert len(sha256) == 64


@pytest.mark.parametrize(
    "content",
    ["", "not json", "{}", profile().model_dump_json().replace("2.0", "99"), '{"name": "../x"}', "[1]"],
)
def test_what_is_no_profile_is_named(tmp_path, content):
    path = tmp_path / "lab.json"
    path.write_text(content)
    with pytest.raises(LabProfileError, match=r"lab\.json"):
        read_profile(path)
    with pytest.raises(LabProfileError, match="cannot be read"):
        read_profile(tmp_path / "missing.json")


@pytest.mark.parametrize("changed", [{"dab": (0.3, 0.5, -1e308)}, {"white": (240.0, 1e308, 240.0)}])
def test_numbers_that_no_fit_gives_are_no_profile(tmp_path, changed):
    (tmp_path / "lab.json").write_text(json.dumps(json.loads(profile().model_dump_json()) | changed))
    with pytest.raises(LabProfileError, match=next(iter(changed))):
        read_profile(tmp_path / "lab.json")


@pytest.mark.parametrize("dab", [(0.65, 0.7, 0.29), (0.0, 0.0, 0.0), (1.3, 1.4, 0.58), (1e-200, 2e-200, 0.0)])
def test_stains_that_cannot_be_told_apart_are_no_profile(tmp_path, dab):
    described = {
        "name": "lab",
        "hematoxylin": (0.65, 0.7, 0.29),
        "dab": dab,
        "dab_gain": 1.0,
        "white": (240.0, 240.0, 240.0),
        "classifier": "membrane",
        "classifier_sha256": "0",
    }
    (tmp_path / "lab.json").write_text(json.dumps(described))
    with pytest.raises(LabProfileError, match="two different colours"):
        read_profile(tmp_path / "lab.json")
