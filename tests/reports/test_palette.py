import itertools

import cv2
import numpy as np
import pytest

from wsi_her2.reports.palette import CLASS_COLOURS, colour_of, contrast, hex_of, text_on

# Machado 2009, severity 1.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TISSUE = {
    "hematoxylin": (150, 160, 195),
    "DAB": (150, 105, 70),
    "dark DAB": (95, 60, 35),
    "glass": (240, 240, 245),
}
GRADES = ("0", "1+", "2+", "3+")


def lab(rgb, vision):
    share = np.asarray(rgb, float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(vision) @ linear, 0, 1)
    srgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    return cv2.cvtColor(srgb.astype(np.float32)[None, None], cv2.COLOR_RGB2LAB)[0, 0]


@pytest.mark.parametrize("vision", VISION)
def test_classes_are_told_from_each_other_and_from_tissue_by_every_kind_of_eye(vision):
    shown = {**{name: CLASS_COLOURS[name] for name in ("other", *GRADES)}, **TISSUE}
    seen = {name: lab(colour, VISION[vision]) for name, colour in shown.items()}
    for first, second in itertools.combinations(shown, 2):
        if first in GRADES or second in GRADES:
            assert np.linalg.norm(seen[first] - seen[second]) > 20, (first, second)


def test_classes_keep_their_order_and_the_binary_ones_share_the_ends():
    assert tuple(CLASS_COLOURS)[:5] == ("other", *GRADES)
    assert CLASS_COLOURS["negative"] == CLASS_COLOURS["0"]
    assert CLASS_COLOURS["positive"] == CLASS_COLOURS["3+"]


@pytest.mark.parametrize("name", CLASS_COLOURS)
def test_text_on_a_class_colour_can_be_read(name):
    ink = tuple(int(text_on(colour_of(name))[i : i + 2], 16) for i in (1, 3, 5))
    assert contrast(ink, colour_of(name)) >= 4.5


def test_a_class_that_is_not_known_has_a_colour_too():
    assert hex_of("something else").startswith("#")
    assert len(hex_of("something else")) == 7
