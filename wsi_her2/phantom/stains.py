"""Stains and scanners: the absorption of each dye and the look of a laboratory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_her2.phantom.composition import LookName
from wsi_her2.phantom.noise import Field

Range = tuple[float, float]


@dataclass(frozen=True)
class LookRange:
    """What varies between slides of one laboratory and scanner.

    Attributes
    ----------
    white
        Bounds of the white point, per channel, in grey levels.
    hematoxylin_vector, dab_vector
        Bounds of the optical density per channel, before normalisation.
    hematoxylin, dab, eosin
        Bounds of the factor on each dye.
    blur_um
        Bounds of the standard deviation of the point spread.
    sharpen
        Bounds of the scanner's unsharp mask.
    noise
        Bounds of the sensor noise, in grey levels.
    stray
        Bounds of the stray light that keeps dark pixels from being black, as a share of white.
    shading
        Bounds of the uneven illumination, as a share of white.
    jpeg_quality
        Quality of the slide's tiles.
    """

    white: tuple[Range, Range, Range]
    hematoxylin_vector: tuple[Range, Range, Range]
    dab_vector: tuple[Range, Range, Range]
    hematoxylin: Range
    dab: Range
    eosin: Range
    blur_um: Range
    sharpen: Range
    noise: Range
    stray: Range
    shading: Range
    jpeg_quality: int


_ANY_H: tuple[Range, Range, Range] = ((0.62, 0.77), (0.55, 0.70), (0.19, 0.40))
_ANY_DAB: tuple[Range, Range, Range] = ((0.21, 0.44), (0.42, 0.60), (0.68, 0.92))

# White points and stain vectors were measured on real slides: a microarray of oesophageal adenocarcinoma
# (bozeklab/HER2-overexpression), the Warwick contest's NanoZoomer slides and BCI; the rest was chosen by eye.
LOOKS: dict[str, LookRange] = {
    "oesophagus_tma": LookRange(
        white=((233, 236), (232, 235), (240, 243)),
        hematoxylin_vector=((0.72, 0.77), (0.58, 0.64), (0.19, 0.30)),
        dab_vector=((0.24, 0.36), (0.48, 0.58), (0.70, 0.82)),
        hematoxylin=(0.19, 0.31),
        dab=(0.8, 1.15),
        eosin=(0.8, 1.2),
        blur_um=(0.17, 0.24),
        sharpen=(1.2, 2.0),
        noise=(0.6, 1.4),
        stray=(0.02, 0.05),
        shading=(0.0, 0.01),
        jpeg_quality=88,
    ),
    "nanozoomer": LookRange(
        white=((216, 224), (212, 219), (211, 217)),
        hematoxylin_vector=((0.66, 0.74), (0.58, 0.68), (0.24, 0.38)),
        dab_vector=_ANY_DAB,
        hematoxylin=(0.4, 1.0),
        dab=(0.75, 1.3),
        eosin=(0.8, 1.3),
        blur_um=(0.28, 0.45),
        sharpen=(0.2, 0.8),
        noise=(1.0, 2.2),
        stray=(0.02, 0.06),
        shading=(0.0, 0.015),
        jpeg_quality=85,
    ),
    "aperio": LookRange(
        white=((248, 254), (243, 250), (240, 248)),
        hematoxylin_vector=((0.62, 0.72), (0.56, 0.68), (0.26, 0.40)),
        dab_vector=_ANY_DAB,
        hematoxylin=(0.35, 0.9),
        dab=(0.7, 1.2),
        eosin=(0.8, 1.3),
        blur_um=(0.3, 0.5),
        sharpen=(0.0, 0.6),
        noise=(0.8, 2.0),
        stray=(0.02, 0.07),
        shading=(0.0, 0.012),
        jpeg_quality=85,
    ),
    "bluish": LookRange(
        white=((207, 231), (229, 249), (235, 254)),
        hematoxylin_vector=_ANY_H,
        dab_vector=_ANY_DAB,
        hematoxylin=(0.3, 0.85),
        dab=(0.9, 1.6),
        eosin=(0.8, 1.2),
        blur_um=(0.28, 0.5),
        sharpen=(0.1, 1.0),
        noise=(0.8, 2.0),
        stray=(0.01, 0.05),
        shading=(0.0, 0.02),
        jpeg_quality=88,
    ),
    "random": LookRange(
        white=((207, 254), (212, 250), (211, 254)),
        hematoxylin_vector=_ANY_H,
        dab_vector=_ANY_DAB,
        hematoxylin=(0.2, 1.1),
        dab=(0.65, 1.5),
        eosin=(0.7, 1.4),
        blur_um=(0.25, 0.6),
        sharpen=(0.0, 1.1),
        noise=(0.5, 2.5),
        stray=(0.01, 0.07),
        shading=(0.0, 0.025),
        jpeg_quality=86,
    ),
}


@dataclass(frozen=True)
class Look:
    """The stain and scanner of one slide.

    Attributes
    ----------
    white
        White point in grey levels, ``float32``, 3.
    absorption
        ``float32``, 4 x 3: optical density (log10) per channel of a unit of hematoxylin, DAB, eosin and of a
        neutral absorber, factors on each dye included.
    blur_um, sharpen, noise, stray, shading, jpeg_quality
        As in `LookRange`, drawn.
    """

    white: Field
    absorption: NDArray[np.float32]
    blur_um: float
    sharpen: float
    noise: float
    stray: float
    shading: float
    jpeg_quality: int


def draw_look(name: LookName, rng: np.random.Generator) -> Look:
    """Draw the stain and the scanner of one slide.

    Parameters
    ----------
    name
        Laboratory and scanner; ``"random"`` varies all within the measured bounds.
    rng
        The generator of the slide's look.

    Returns
    -------
    Look
        Vectors of unit length times the dye's factor, white point and scanner traits.
    """
    bounds = LOOKS[name]

    def vector(ranges: tuple[Range, Range, Range]) -> Field:
        # Red and green absorption rise together, from yellow to reddish brown; apart they would turn green.
        hue = rng.uniform()
        share = np.clip([hue, hue + 0.2 * rng.standard_normal(), rng.uniform()], 0, 1)
        low, high = np.array(ranges, np.float32).T
        drawn: Field = low + share.astype(np.float32) * (high - low)
        drawn /= np.float32(np.linalg.norm(drawn))
        return drawn

    white: Field = np.array([rng.uniform(*r) for r in bounds.white], np.float32)
    if name == "random":
        # Channels of a white point vary together: a lamp is bright or dim before it is blue or yellow.
        white = (white + 2 * np.float32(rng.uniform(215, 250))) / 3
    absorption = np.stack(
        [
            vector(bounds.hematoxylin_vector) * np.float32(rng.uniform(*bounds.hematoxylin)),
            vector(bounds.dab_vector) * np.float32(rng.uniform(*bounds.dab)),
            # Eosin after Ruifrok and Johnston (2001), with a little freedom.
            vector(((0.05, 0.12), (0.95, 1.0), (0.20, 0.45))) * np.float32(rng.uniform(*bounds.eosin)),
            np.ones(3, np.float32),
        ]
    )
    return Look(
        white=white,
        absorption=absorption.astype(np.float32),
        blur_um=float(rng.uniform(*bounds.blur_um)),
        sharpen=float(rng.uniform(*bounds.sharpen)),
        noise=float(rng.uniform(*bounds.noise)),
        stray=float(rng.uniform(*bounds.stray)),
        shading=float(rng.uniform(*bounds.shading)),
        jpeg_quality=bounds.jpeg_quality,
    )
