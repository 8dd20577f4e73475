"""The scale of a slide: who is believed in which order, and what is refused."""

import logging
import math

import pytest

from wsi_her2.errors import ImplausibleResolution, MissingResolution
from wsi_her2.slides.resolution import PLAUSIBLE_MPP, Resolution, resolve_mpp
from wsi_her2.slides.slide import open_slide

VENDOR = {"openslide.vendor": "aperio", "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"}
TAGS = {"tiff.ResolutionUnit": "centimeter", "tiff.XResolution": "20000", "tiff.YResolution": "20000"}
POWER = {"openslide.objective-power": "20"}


def resolve(properties, mpp=None):
    return resolve_mpp(properties, user_mpp=mpp, name="case 7.svs")


@pytest.mark.parametrize(
    ("properties", "mpp", "expected"),
    [
        (VENDOR | TAGS | POWER, 0.3, Resolution(0.3, "user")),
        (VENDOR | TAGS | POWER, None, Resolution(0.25, "vendor")),
        (TAGS | POWER, None, Resolution(0.5, "tiff-tags")),
        (POWER, None, Resolution(0.5, "objective-power")),
        ({}, 0.3, Resolution(0.3, "user")),
    ],
)
def test_user_then_vendor_then_tiff_tags_then_objective_power(properties, mpp, expected):
    assert resolve(properties, mpp) == expected


def test_openslides_scale_of_a_generic_tiff_counts_as_tiff_tags():
    properties = VENDOR | {"openslide.vendor": "generic-tiff"}
    assert resolve(properties) == Resolution(0.25, "tiff-tags")


@pytest.mark.parametrize(("unit", "per_unit"), [("centimeter", "40000"), ("inch", "101600")])
def test_tiff_tags_are_understood_in_either_unit(unit, per_unit):
    tags = {"tiff.ResolutionUnit": unit, "tiff.XResolution": per_unit, "tiff.YResolution": per_unit}
    assert resolve(tags).mpp == pytest.approx(0.25)


def test_tiff_tags_without_a_unit_state_no_scale():
    with pytest.raises(MissingResolution):
        resolve(TAGS | {"tiff.ResolutionUnit": "none"})


@pytest.mark.parametrize("unusable", ["0", "-1", "nan", "inf", "forty", ""])
def test_an_unusable_vendor_value_gives_way_to_the_next_source(unusable):
    properties = {"openslide.mpp-x": unusable, "openslide.mpp-y": unusable}
    assert resolve(properties | POWER) == Resolution(0.5, "objective-power")


def test_a_missing_scale_names_the_file_and_the_option():
    with pytest.raises(MissingResolution, match=r"case 7\.svs.*--mpp"):
        resolve({"openslide.vendor": "aperio"})


@pytest.mark.parametrize("absurd", ["352.78", "0.001", "10.01"])
def test_a_scale_that_no_scanner_has_is_refused_with_the_option_to_pass(absurd):
    with pytest.raises(ImplausibleResolution, match=r"case 7\.svs.*--mpp"):
        resolve({"openslide.mpp-x": absurd, "openslide.mpp-y": absurd})


def test_72_dpi_is_refused():
    with pytest.raises(ImplausibleResolution, match="352"):
        resolve({"tiff.ResolutionUnit": "inch", "tiff.XResolution": "72", "tiff.YResolution": "72"})


@pytest.mark.parametrize("absurd", [0.0, -0.25, math.nan, math.inf, 352.78])
def test_an_absurd_value_of_the_user_is_refused_too(absurd):
    with pytest.raises(ImplausibleResolution, match="--mpp"):
        resolve(VENDOR, absurd)


@pytest.mark.parametrize("bound", PLAUSIBLE_MPP)
def test_the_bounds_themselves_are_plausible(bound):
    assert resolve({}, bound).mpp == bound


def test_pixels_that_are_not_square_are_refused():
    with pytest.raises(ImplausibleResolution, match="square"):
        resolve({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.27"})


def test_a_slight_difference_between_x_and_y_is_averaged():
    assert resolve({"openslide.mpp-x": "0.2270", "openslide.mpp-y": "0.2292"}).mpp == pytest.approx(0.2281)


def test_users_mpp_wins_and_a_contradiction_is_logged(caplog):
    with caplog.at_level(logging.WARNING):
        assert resolve(VENDOR, 0.5).mpp == 0.5
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "case 7.svs" in caplog.text
    assert "0.25" in caplog.text


@pytest.mark.parametrize(("properties", "mpp"), [(VENDOR, 0.26), ({}, 0.5)])
def test_agreement_and_silence_of_the_file_are_no_contradiction(caplog, properties, mpp):
    resolve(properties, mpp)
    assert caplog.records == []


def test_the_users_value_opens_a_file_whose_own_is_absurd():
    absurd = {"openslide.mpp-x": "352", "openslide.mpp-y": "352"}
    assert resolve(absurd, 0.25) == Resolution(0.25, "user")


def test_a_slide_without_scale_opens_only_with_the_users(real_slides):
    path = real_slides / "he_aperio_tcga_no_mpp.svs"
    with pytest.raises(MissingResolution, match=r"no_mpp\.svs.*--mpp"):
        open_slide(path)
    with open_slide(path, mpp=0.5) as slide:
        assert (slide.mpp, slide.mpp_source) == (0.5, "user")


@pytest.mark.parametrize(
    ("name", "mpp", "source"),
    [
        ("he_aperio_cmu1_small_region.svs", 0.499, "vendor"),
        ("hamamatsu_fluorescence_dapi.ndpi", 0.2281, "vendor"),
        ("ihc_core_score0_a.tif", 0.25, "tiff-tags"),
    ],
)
def test_real_files_state_their_scale(real_slides, name, mpp, source):
    with open_slide(real_slides / name) as slide:
        assert slide.mpp == pytest.approx(mpp, rel=2e-3)
        assert slide.mpp_source == source
