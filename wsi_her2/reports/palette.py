"""Colours of the classes: the same in the heatmap, in QuPath and on the pages.

They were searched for by distance in CIE Lab, under normal vision and under simulated protanopia, deuteranopia
and tritanopia alike, against each other and against hematoxylin, DAB and glass. The usual traffic-light colours
fail on both counts: green and red merge for one man in twelve, and orange is the colour of DAB.
"""

from __future__ import annotations

from collections.abc import Iterable

Colour = tuple[int, int, int]

OTHER = "other"
"""Class of patches that are not invasive tumour."""

CLASS_COLOURS: dict[str, Colour] = {
    OTHER: (90, 93, 98),
    "0": (33, 153, 243),
    "1+": (251, 217, 8),
    "2+": (243, 94, 9),
    "3+": (144, 15, 134),
    "negative": (33, 153, 243),
    "positive": (144, 15, 134),
}
"""RGB by class, from the least to the most staining."""

NOT_SCORED: Colour = (60, 60, 60)
"""Hatching over patches that could not be read."""

_UNKNOWN: Colour = (90, 93, 98)
_WORDS = {OTHER: "not tumour"}


def colour_of(name: str) -> Colour:
    """RGB of a class; a neutral grey for a class that is not known."""
    return CLASS_COLOURS.get(name, _UNKNOWN)


def hex_of(name: str) -> str:
    """Colour of a class as '#rrggbb'."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(name))


def text_on(colour: Colour) -> str:
    """Whichever of near-black and white is easier to read on a colour, as '#rrggbb'."""
    dark, light = (16, 24, 32), (255, 255, 255)
    return "#101820" if contrast(dark, colour) >= contrast(light, colour) else "#ffffff"


def contrast(first: Colour, second: Colour) -> float:
    """Contrast ratio of two colours as WCAG defines it, 1 to 21."""
    low, high = sorted((_luminance(first), _luminance(second)))
    return (high + 0.05) / (low + 0.05)


def in_words(name: str) -> str:
    """A class as people read it."""
    return _WORDS.get(name, name)


def tumour_classes(classes: Iterable[str]) -> tuple[str, ...]:
    """The classes that are tumour, in their order."""
    return tuple(name for name in classes if name != OTHER)


def _luminance(colour: Colour) -> float:
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
