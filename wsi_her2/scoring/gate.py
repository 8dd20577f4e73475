"""The quality gate: when a slide must not be called, and why, with what was measured and what the limit is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.quality import QUALITY
from wsi_her2.slides.tissue import TissueMask

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GateLimits:
    """Limits beyond which a slide is not assessable.

    Attributes
    ----------
    min_white_level : float
        Darkest channel of the white point, grey levels: glass in brightfield is brighter, a fluorescence scan
        or a black frame is not.
    min_tissue_mm2 : float
        Least tissue.
    max_pen_share : float
        Largest share of ink in tissue and ink together.
    max_eosin_share, min_eosin_share : float
        Share of the stained pixels with the colour of eosin: at most so much on IHC, at least so much on H&E.
    max_foreign_share : float
        Largest share of stained pixels on IHC that no mixture of hematoxylin and DAB explains.
    min_focus, max_focus : float
        Median sharpness of the patches: below lies defocus, above lies noise. See `measure_quality`.
    max_unreadable_fraction : float
        Largest share of patches that could not be decoded.
    min_tumour_patches : int
        Least patches of tumour.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    min_white_level: float = 140.0
    min_tissue_mm2: float = 0.1
    max_pen_share: float = 0.5
    max_eosin_share: float = 0.5
    min_eosin_share: float = 0.1
    max_foreign_share: float = 0.5
    min_focus: float = 0.11
    max_focus: float = 5.0
    max_unreadable_fraction: float = 0.1
    min_tumour_patches: int = 20


@dataclass(frozen=True)
class GateReason:
    """One reason why a slide is not assessable.

    Attributes
    ----------
    code : str
        For programs.
    message : str
        For people: what, and what to do.
    measured, limit : float
    """

    code: str
    message: str
    measured: float
    limit: float

    def __str__(self) -> str:
        return f"{self.message} ({_number(self.measured)}; limit {_number(self.limit)})"


def gate_overview(mask: TissueMask, limits: GateLimits) -> list[GateReason]:
    """Reasons that show on the overview, before any patch is read."""
    darkest = min(mask.white_point.rgb)
    if darkest < limits.min_white_level:
        return [
            GateReason(
                "not_brightfield",
                "not a brightfield scan: the background is dark, as in fluorescence or a black frame",
                darkest,
                limits.min_white_level,
            )
        ]
    reasons = []
    if mask.pen_share > limits.max_pen_share:
        reasons.append(
            GateReason(
                "pen",
                "pen covers the tissue: clean the slide and scan it again",
                mask.pen_share,
                limits.max_pen_share,
            )
        )
    if mask.area_mm2 < limits.min_tissue_mm2:
        reasons.append(
            GateReason(
                "too_little_tissue",
                "too little tissue was found, in mm2: look at tissue.png",
                mask.area_mm2,
                limits.min_tissue_mm2,
            )
        )
    return reasons


def gate_quality(quality: Float32, modality: str, limits: GateLimits) -> list[GateReason]:
    """Reasons that show in the patches' quality.

    Parameters
    ----------
    quality : float32 N x 4
        From `measure_quality`; rows with NaN are left out.
    modality : {'ihc', 'he'}
        What the classifier expects.
    limits : GateLimits
    """
    measured = quality[~np.isnan(quality).any(axis=1)]
    if len(measured) == 0:
        return []
    column = {name: measured[:, index].astype(np.float64) for index, name in enumerate(QUALITY)}
    stained = column["stained_share"]
    total = max(float(stained.sum()), 1e-9)
    eosin = float((column["eosin_share"] * stained).sum()) / total
    foreign = float((column["foreign_share"] * stained).sum()) / total
    focus = float(np.median(column["focus"]))
    reasons = []
    if focus > limits.max_focus:
        reasons.append(GateReason("noise", "the image is noise rather than tissue", focus, limits.max_focus))
    elif focus < limits.min_focus:
        reasons.append(GateReason("out_of_focus", "out of focus: scan the slide again", focus, limits.min_focus))
    if modality == "ihc" and eosin > limits.max_eosin_share:
        reasons.append(
            GateReason(
                "wrong_modality",
                "the slide is stained with eosin, but the classifier is for IHC: use an H&E classifier",
                eosin,
                limits.max_eosin_share,
            )
        )
    elif modality == "ihc" and foreign > limits.max_foreign_share:
        reasons.append(
            GateReason(
                "unknown_stain",
                "the colours are not those of hematoxylin and DAB",
                foreign,
                limits.max_foreign_share,
            )
        )
    elif modality == "he" and eosin < limits.min_eosin_share:
        reasons.append(
            GateReason(
                "wrong_modality",
                "the slide carries no eosin, but the classifier is for H&E: use an IHC classifier",
                eosin,
                limits.min_eosin_share,
            )
        )
    return reasons


def gate_patches(
    unreadable_fraction: float, tumour_patches: int, trained: bool, limits: GateLimits
) -> list[GateReason]:
    """Reasons that show once all patches are scored."""
    reasons = []
    if not trained:
        reasons.append(
            GateReason(
                "untrained",
                "nothing says that the classifier was trained: train it, or import it with --trained-on",
                0,
                1,
            )
        )
    if unreadable_fraction > limits.max_unreadable_fraction:
        reasons.append(
            GateReason(
                "unreadable",
                "too many patches cannot be decoded: copy the file again from the scanner",
                unreadable_fraction,
                limits.max_unreadable_fraction,
            )
        )
    if tumour_patches < limits.min_tumour_patches:
        reasons.append(
            GateReason(
                "too_few_tumour_patches",
                "too few patches of tumour were found: look at the heatmap",
                tumour_patches,
                limits.min_tumour_patches,
            )
        )
    return reasons


def _number(value: float) -> str:
    return f"{value:.3g}"
