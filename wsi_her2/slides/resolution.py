"""How many microns a level-0 pixel measures, and who says so.

The order is fixed: the user's own value, the vendor's key, the TIFF resolution tags, the objective power.
40x is never assumed in silence, and a value that no scanner produces is an error rather than a scale.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from wsi_her2.errors import ImplausibleResolution, MissingResolution

log = logging.getLogger(__name__)

MppSource = Literal["user", "vendor", "tiff-tags", "objective-power"]

PLAUSIBLE_MPP = (0.05, 10.0)
"""Bounds in um/px: beyond 100x oil immersion on one side, below a flat-bed overview on the other."""

MAX_ANISOTROPY = 0.05
"""Largest relative difference between the x and y scale at which one number still describes both."""

CONTRADICTION = 0.10
"""Relative difference from which the user's value is said to contradict the file's."""

_MICRONS_PER_UNIT = {"centimeter": 10_000.0, "inch": 25_400.0}


@dataclass(frozen=True)
class Resolution:
    """Scale of level 0.

    Attributes
    ----------
    mpp : float
        Microns per level-0 pixel.
    source : {'user', 'vendor', 'tiff-tags', 'objective-power'}
        Where the number came from.
    """

    mpp: float
    source: MppSource


def resolve_mpp(properties: Mapping[str, str], *, user_mpp: float | None, name: str) -> Resolution:
    """Resolve the scale of a slide.

    Parameters
    ----------
    properties : mapping of str to str
        Slide properties under OpenSlide's names.
    user_mpp : float or None
        The user's value in um/px. It is authoritative: a contradiction with the file is logged, not obeyed.
    name : str
        What to call the slide in a message.

    Raises
    ------
    MissingResolution
        Nothing in the file states the scale and the user gave none.
    ImplausibleResolution
        The stated scale is outside `PLAUSIBLE_MPP` or differs between x and y.
    """
    if user_mpp is not None:
        _check_plausible(user_mpp, user_mpp, "the value given with --mpp", name)
        _warn_of_contradiction(properties, user_mpp, name)
        return Resolution(float(user_mpp), "user")
    stated = _stated_in_file(properties)
    if stated is None:
        raise MissingResolution(
            f"{name}: the file does not say how many microns a pixel measures "
            "(no vendor key, no TIFF resolution, no objective power). "
            "Pass the scanner's value, for example --mpp 0.25 for a 40x scan."
        )
    mpp_x, mpp_y, source = stated
    _check_plausible(mpp_x, mpp_y, f"the file's value ({source})", name)
    return Resolution((mpp_x + mpp_y) / 2, source)


def _stated_in_file(properties: Mapping[str, str]) -> tuple[float, float, MppSource] | None:
    mpp_x, mpp_y = _number(properties.get("openslide.mpp-x")), _number(properties.get("openslide.mpp-y"))
    if mpp_x and mpp_y:
        generic = properties.get("openslide.vendor", "generic-tiff") == "generic-tiff"
        return mpp_x, mpp_y, "tiff-tags" if generic else "vendor"
    unit = _MICRONS_PER_UNIT.get(properties.get("tiff.ResolutionUnit", ""))
    per_x, per_y = _number(properties.get("tiff.XResolution")), _number(properties.get("tiff.YResolution"))
    if unit and per_x and per_y:
        return unit / per_x, unit / per_y, "tiff-tags"
    power = _number(properties.get("openslide.objective-power"))
    if power:
        return 10.0 / power, 10.0 / power, "objective-power"
    return None


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None


def _check_plausible(mpp_x: float, mpp_y: float, whose: str, name: str) -> None:
    low, high = PLAUSIBLE_MPP
    if not all(math.isfinite(value) and low <= value <= high for value in (mpp_x, mpp_y)):
        raise ImplausibleResolution(
            f"{name}: {whose} is {mpp_x:g} um per pixel; a slide lies between {low:g} and {high:g}. "
            "Pass the scanner's value, for example --mpp 0.25 for a 40x scan."
        )
    if abs(mpp_x - mpp_y) > MAX_ANISOTROPY * max(mpp_x, mpp_y):
        raise ImplausibleResolution(
            f"{name}: {whose} is {mpp_x:g} um per pixel across and {mpp_y:g} down; slides have square pixels. "
            "Pass the scanner's value with --mpp."
        )


def _warn_of_contradiction(properties: Mapping[str, str], user_mpp: float, name: str) -> None:
    stated = _stated_in_file(properties)
    if stated is None:
        return
    in_file = (stated[0] + stated[1]) / 2
    if abs(in_file - user_mpp) > CONTRADICTION * in_file:
        log.warning("%s: --mpp %g is used, though the file states %g (%s)", name, user_mpp, in_file, stated[2])
