"""Slides that every test can use: a small one that is made here, and real ones where their folder is given."""

import os
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import settings

from tests.reports.browser import HOW_TO_GET_ONE, Browser, browser_program
from wsi_her2.slides.blocks import sample_patches
from wsi_her2.slides.grid import plan_patches
from wsi_her2.slides.pyramid import write_pyramid
from wsi_her2.slides.slide import open_slide, slide_from_array
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.tissue import detect_tissue

# The machines that run the tests are slow and shared: examples are few, and none fails for taking long.
settings.register_profile("shared-machine", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("shared-machine")

GLASS = (236, 233, 240)
"""Off-white ground of the small slide."""

CORES = {"score0_a": 0, "score0_b": 0, "score1_a": 1, "score2_a": 2, "score3_a": 3}
"""Real tissue-microarray cores and the pathologist's score of each."""


@pytest.fixture(scope="module")
def browser():
    """A real browser; a test that asks for it is skipped where there is none."""
    program = browser_program()
    if program is None:
        pytest.skip(HOW_TO_GET_ONE)
    with Browser(program) as opened:
        yield opened


@pytest.fixture(scope="session")
def data_dir():
    """The folder of real files; a test that asks for it is skipped where there is none."""
    folder = Path(os.environ.get("WSI_HER2_TEST_DATA", ""))
    if not os.environ.get("WSI_HER2_TEST_DATA") or not folder.is_dir():
        pytest.skip("WSI_HER2_TEST_DATA does not name the folder of real slides")
    return folder


@pytest.fixture(scope="session")
def real_slides(data_dir):
    return data_dir / "slides"


@pytest.fixture(scope="session")
def core_masks(real_slides):
    """The five real cores with their tissue: name -> (Slide, TissueMask)."""
    slides = {name: open_slide(real_slides / f"ihc_core_{name}.tif") for name in CORES}
    return {name: (slide, detect_tissue(slide)) for name, slide in slides.items()}


@pytest.fixture(scope="session")
def core_patches(core_masks):
    """Sixty patches of tissue of each core at 0.5 um/px, white point at 255: name -> uint8 N x 128 x 128 x 3."""
    patches = {}
    for name, (slide, mask) in core_masks.items():
        sample = sample_patches(slide, plan_patches(slide, mask, 128, 0.5), 60)
        patches[name] = StainCorrection("white-point", mask.white_point.rgb).apply(sample)
    return patches


@pytest.fixture(scope="session")
def ihc_image():
    """A real IHC image, DAB and hematoxylin (uint8 512 x 512 x 3); glass is GLASS in the slide made of it."""
    return skimage.data.immunohistochemistry()


@pytest.fixture(scope="session")
def ihc_picture(ihc_image):
    """Level 0 of the small slide (uint8 1800 x 2200 x 3): mirrored tissue of 1024 x 1024 px on off-white glass."""
    picture = np.empty((1800, 2200, 3), np.uint8)
    picture[:] = GLASS
    top = np.concatenate([ihc_image, ihc_image[:, ::-1]], axis=1)
    picture[300:1324, 500:1524] = np.concatenate([top, top[::-1]], axis=0)
    return picture


@pytest.fixture(scope="session")
def ihc_slide_path(ihc_picture, tmp_path_factory):
    """A small pyramidal IHC slide on disk: 2200 x 1800 px at 0.5 um/px, three levels. Not to be changed."""
    height, width = ihc_picture.shape[:2]
    return write_pyramid(
        tmp_path_factory.mktemp("slides") / "ihc.tif",
        width,
        height,
        lambda x, y, w, h: ihc_picture[y : y + h, x : x + w],
        mpp=0.5,
        levels=3,
    )


@pytest.fixture
def ihc_slide(ihc_slide_path):
    with open_slide(ihc_slide_path) as slide:
        yield slide


@pytest.fixture(scope="session")
def ihc_mask(ihc_picture):
    """Tissue of the small slide, found on the same pixels in memory."""
    return detect_tissue(slide_from_array(ihc_picture, 0.5))
