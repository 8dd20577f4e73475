"""The quality gate: when a slide must not be called, and why, with what was measured and what the limit is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wsi_her2.scoring.quality import QUALITY
from wsi_her2.slides.tissue import TissueMask

Float32 = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

# With less that is stained, the colour of a patch is that of a few grains.
_LEAST_STAINED = 0.02


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
        Share of a patch's stained pixels with the colour of eosin: at most so much on IHC, at least so much on
        H&E.
    max_foreign_share : float
        Largest share of a patch's stained pixels on IHC that no mixture of hematoxylin and DAB explains.
    min_focus, max_focus, max_coarseness : float
        Sharpness of a patch, ratios without unit: below the least focus or above the greatest coarseness lies
        defocus, above the greatest focus lies noise. See `measure_quality`.
    min_structure : float
        Median structure of the patches, a ratio without unit: below lies noise. It is judged over the slide
        only, because a patch full of alike cells has little of it.
    max_veil : float
        Optical density of the clearest hundredth of a patch: above, something lies over the tissue.
    max_failed_share : float
        Largest share of the patches that may fail; see `failing_patches`.
    max_unreadable_fraction : float
        Largest share of patches that could not be decoded.
    min_tumour_patches : int
        Least patches of tumour.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    min_white_level: float = 140.0
    min_tissue_mm2: float = 0.1
    max_pen_share: float = 0.5
    max_eosin_share: float = 0.25
    min_eosin_share: float = 0.1
    max_foreign_share: float = 0.4
    min_focus: float = 0.11
    max_focus: float = 5.0
    max_coarseness: float = 3.0
    min_structure: float = 0.5
    max_veil: float = 0.15
    max_failed_share: float = 0.5
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


def failing_patches(quality: Float32, modality: str, limits: GateLimits) -> Flags:
    """Which patches are not to be counted: out of focus, noise, covered by ink, or of another stain.

    Parameters
    ----------
    quality : float32 N x 7
        From `measure_quality`.
    modality : {'ihc', 'he'}
        What the classifier expects.
    limits : GateLimits

    Returns
    -------
    bool N
        False for rows with NaN: what was not read did not fail.
    """
    failing = np.zeros(len(quality), bool)
    for faulty in faults_of_patches(quality, modality, limits).values():
        failing |= faulty
    return failing


FAULTS = ("noise", "out_of_focus", "covered", "colour")
"""What can be wrong with a patch; a patch may have several."""


def faults_of_patches(quality: Float32, modality: str, limits: GateLimits) -> dict[str, Flags]:
    """Which patches have which fault.

    Parameters
    ----------
    quality : float32 N x 7
        From `measure_quality`.
    modality : {'ihc', 'he'}
        What the classifier expects; only on IHC a colour can be wrong.
    limits : GateLimits

    Returns
    -------
    dict of str to bool N
        By fault, of `FAULTS`. Comparisons with NaN are false, so what was not measured has none.
    """
    column = _columns(quality)
    faults = {
        "noise": column["focus"] > limits.max_focus,
        "out_of_focus": (column["focus"] < limits.min_focus) | (column["coarseness"] > limits.max_coarseness),
        "covered": column["veil"] > limits.max_veil,
    }
    if modality == "ihc":
        eosin = column["eosin_share"] > limits.max_eosin_share
        foreign = column["foreign_share"] > limits.max_foreign_share
        faults["colour"] = (eosin | foreign) & (column["stained_share"] > _LEAST_STAINED)
    return faults


def gate_quality(quality: Float32, modality: str, limits: GateLimits) -> list[GateReason]:
    """Reasons that show in the patches' quality.

    Parameters
    ----------
    quality : float32 N x 7
        From `measure_quality`; rows with NaN are left out.
    modality : {'ihc', 'he'}
        What the classifier expects.
    limits : GateLimits
    """
    measured = quality[~np.isnan(quality).any(axis=1)]
    if len(measured) == 0:
        return []
    faults = faults_of_patches(measured, modality, limits)
    shares = {code: float(faulty.mean()) for code, faulty in faults.items()}
    structure = float(np.median(_columns(measured)["structure"]))
    reasons = []
    if structure < limits.min_structure:
        reasons.append(
            GateReason("noise", "the image is noise rather than tissue", structure, limits.min_structure)
        )
    for code, message in _MOSTLY.items():
        if shares[code] > limits.max_failed_share and code not in [reason.code for reason in reasons]:
            reasons.append(GateReason(code, message, shares[code], limits.max_failed_share))
    reasons += _gate_colours(measured, modality, limits)
    failed = float(failing_patches(measured, modality, limits).mean())
    if not reasons and failed > limits.max_failed_share:
        reasons.append(
            GateReason(
                "too_many_failed",
                "too many patches are out of focus, noise, covered or of another stain: look at the heatmap",
                failed,
                limits.max_failed_share,
            )
        )
    return reasons


def _gate_colours(measured: Float32, modality: str, limits: GateLimits) -> list[GateReason]:
    """Reasons that lie in the colours of the stained patches.

    Patches with another fault are left out, because ink has a colour as well; medians, because a few patches under
    ink carry more of what is stained than all of a pale slide.
    """
    faults = faults_of_patches(measured, modality, limits)
    faulty = np.logical_or.reduce([faults[code] for code in _MOSTLY])
    column = _columns(measured)
    judged = ~faulty & (column["stained_share"] > _LEAST_STAINED)
    if not judged.any():
        return []
    eosin, foreign = (float(np.median(column[name][judged])) for name in ("eosin_share", "foreign_share"))
    reasons = []
    if modality == "ihc" and eosin > limits.max_eosin_share:
        reasons.append(
            GateReason(
                "wrong_modality",
                "the slide is stained as with eosin, but the classifier is for IHC: use an H&E classifier",
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


_MOSTLY = {
    "noise": "most patches are noise rather than tissue: look at the heatmap",
    "out_of_focus": "most patches are out of focus: scan the slide again",
    "covered": "ink or something else lies over most of the tissue: clean the slide and scan it again",
}
"""What is wrong with patches whatever their stain, as a reason says it when most patches have it."""


def _columns(quality: Float32) -> dict[str, npt.NDArray[np.float64]]:
    return {name: quality[:, index].astype(np.float64) for index, name in enumerate(QUALITY)}


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
