"""A pyramid is what the renderer drew, in any reader, whatever the size and the number of workers."""

from functools import partial
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
import tiffslide

from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.slides.pyramid import write_pyramid


def gradient(x, y, w, h):
    """A smooth picture that depends on the place only, so that any block can be checked alone."""
    xx, yy = np.meshgrid(np.arange(x, x + w), np.arange(y, y + h))
    return np.stack([120 + 100 * np.sin(xx / 300), 120 + 100 * np.cos(yy / 250), (xx + yy) / 40 % 200], -1).astype(
        np.uint8
    )


def failing(x, y, w, h, at):
    if (x, y) == at:
        raise OSError("disk gone")
    return gradient(x, y, w, h)


@pytest.mark.parametrize("size", [(5000, 4300), (300, 200), (2048, 2049), (4097, 700), (40, 9000)])
def test_openslide_and_tiffslide_read_what_was_drawn(tmp_path, size):
    path = write_pyramid(tmp_path / "s.tif", *size, gradient, mpp=0.25, quality=95)
    want = gradient(0, 0, *size)
    for opener in (openslide.OpenSlide, tiffslide.TiffSlide):
        with opener(path) as slide:
            assert slide.dimensions == size
            assert float(slide.properties[f"{opener.__module__.split('.')[0]}.mpp-x"]) == pytest.approx(
                0.25, rel=1e-4
            )
            for level, (w, h) in enumerate(slide.level_dimensions):
                # Every third pixel: neighbours are alike.
                got = np.asarray(slide.read_region((0, 0), level, (w, h)))[::3, ::3, :2].astype(np.int16)
                step = 2**level
                ref = want[::step, ::step][:h, :w][::3, ::3, :2].astype(np.int16)
                # Away from the jumps of the blue ramp the averaged levels stay close to the picture itself.
                assert np.median(np.abs(got - ref)) <= 1 + 0.2 * step


def test_every_pixel_is_asked_for_once_in_row_order(tmp_path):
    asked = []

    def render(x, y, w, h):
        asked.append((x, y, w, h))
        return np.full((h, w, 3), 200, np.uint8)

    write_pyramid(tmp_path / "s.tif", 5000, 2500, render, mpp=0.5)
    assert [(y, x) for x, y, _, _ in asked] == sorted((y, x) for x, y, _, _ in asked)
    assert sum(w * h for *_, w, h in asked) == 5000 * 2500


def test_the_lowest_level_is_small_and_levels_can_be_chosen(tmp_path):
    path = write_pyramid(tmp_path / "a.tif", 9000, 100, gradient, mpp=0.5)
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((9000, 100), (4500, 50), (2250, 25), (1125, 13), (563, 7))
    with openslide.OpenSlide(write_pyramid(tmp_path / "b.tif", 9000, 100, gradient, mpp=0.5, levels=2)) as slide:
        assert slide.level_count == 2


def test_two_workers_write_the_same_bytes(tmp_path):
    one = write_pyramid(tmp_path / "1.tif", 4500, 2100, gradient, mpp=0.5, description="made up")
    two = write_pyramid(tmp_path / "2.tif", 4500, 2100, gradient, mpp=0.5, description="made up", workers=2)
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_leaves_nothing_behind(tmp_path, workers):
    with pytest.raises(OutputError, match="disk gone"):
        write_pyramid(tmp_path / "s.tif", 4500, 2100, partial(failing, at=(2048, 0)), mpp=0.5, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_an_output_error():
    with pytest.raises(OutputError):
        write_pyramid(Path("/nonexistent/s.tif"), 300, 300, gradient, mpp=0.5)


@pytest.mark.parametrize(
    "wrong",
    [{"mpp": 0}, {"tile_px": 100}, {"quality": 0}, {"levels": 0}, {"workers": 0}, {"description": "µ"}],
)
def test_wrong_arguments_are_named(tmp_path, wrong):
    with pytest.raises(ConfigurationError):
        write_pyramid(tmp_path / "s.tif", 300, 300, gradient, **({"mpp": 0.5} | wrong))


def test_wrong_pixels_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="uint8"):
        write_pyramid(tmp_path / "s.tif", 300, 300, lambda x, y, w, h: np.zeros((h, w)), mpp=0.5)


def test_level_zero_is_classic_tiff_with_plain_tiles(tmp_path):
    with tifffile.TiffFile(write_pyramid(tmp_path / "s.tif", 700, 700, gradient, mpp=0.25)) as tiff:
        assert not tiff.is_bigtiff
        assert "DateTime" not in tiff.pages[0].tags
        assert tiff.pages[0].tile == (256, 256)
