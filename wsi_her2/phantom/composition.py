"""What a digital slide is asked to contain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, get_args

from wsi_her2.errors import HER2Error

Score = Literal["0", "1+", "2+", "3+"]
Outline = Literal["core", "biopsy", "resection"]
Modality = Literal["ihc", "he"]
Pattern = Literal["mixed", "solid", "glandular", "cords"]
LookName = Literal["random", "oesophagus_tma", "nanozoomer", "aperio", "bluish"]
Artefact = Literal["pen", "dust", "bubbles", "coverslip", "blur", "fold", "tear", "edge"]

SCORES: tuple[Score, ...] = get_args(Score)

# What a slide of each score is made of when nothing else is asked for: shares of the invasive tumour cells
# that are 0, 1+, 2+ and 3+. Real slides of a score are mixed in this way; the shares are our choice.
USUAL_FRACTIONS: dict[Score, tuple[float, float, float, float]] = {
    "0": (0.96, 0.04, 0.0, 0.0),
    "1+": (0.50, 0.46, 0.04, 0.0),
    "2+": (0.18, 0.30, 0.52, 0.0),
    "3+": (0.04, 0.08, 0.18, 0.70),
}


class PhantomError(HER2Error, ValueError):
    """A digital slide was asked for that cannot be drawn."""


def score_of_fractions(fractions: Sequence[float]) -> Score:
    """Apply the guideline's rule to shares of invasive tumour cells.

    Parameters
    ----------
    fractions
        Shares of the cells that are 0, 1+, 2+ and 3+, adding up to 1.

    Returns
    -------
    str
        ``"0"``, ``"1+"``, ``"2+"`` or ``"3+"``, after ASCO/CAP 2018: more than 10 % intense complete is 3+;
        more than 10 % complete, or any intense complete staining, is 2+; more than 10 % stained at all is 1+.
    """
    # Shares come from counts over a total, so a border such as 10 % carries a rounding error.
    border = 0.10 + 1e-9
    _, one, two, three = fractions
    if three > border:
        return "3+"
    if two + three > border or three > 0:
        return "2+"
    return "1+" if one + two + three > border else "0"


@dataclass(frozen=True)
class PhantomSpec:
    """One digital slide, as asked for.

    Attributes
    ----------
    score
        The score that the slide must have. None derives it from `class_fractions`.
    class_fractions
        Shares of the invasive tumour cells that are 0, 1+, 2+ and 3+. None takes what is usual for the score.
    tumour_share
        Share of the tissue area covered by invasive tumour epithelium. It is met within 0.06 up to 0.55 on
        slides of a millimetre and more; ducts, fat and stroma leave no room for much more, and the truth says
        what was drawn.
    width_mm, height_mm
        Size of the slide.
    mpp
        Microns per pixel of level 0.
    seed
        The slide is a function of this number and of the other fields.
    look
        Scanner and laboratory, one of `LookName`; ``"random"`` draws one within the measured ranges.
    outline
        A tissue-microarray core, needle biopsies or a resection.
    modality
        ``"ihc"``, or ``"he"`` for the same tissue in hematoxylin and eosin, where HER2 cannot be seen.
    artefacts
        Which of `Artefact` to add.
    clustering
        0 mixes the classes cell by cell, 1 arranges them in regions.
    pattern
        Growth pattern of the tumour.
    in_situ_share, normal_share, fat_share, necrosis_share
        Shares of the tissue area taken by in-situ ducts, normal ducts and fat, and of the tumour by necrosis.
    control_tissue
        Adds three control spots (3+, 1+, 0) beside the tissue; their cells do not count.
    """

    score: Score | None = "2+"
    class_fractions: tuple[float, float, float, float] | None = None
    tumour_share: float = 0.45
    width_mm: float = 1.5
    height_mm: float = 1.5
    mpp: float = 0.25
    seed: int = 0
    look: LookName = "random"
    outline: Outline = "core"
    modality: Modality = "ihc"
    artefacts: tuple[Artefact, ...] = ()
    clustering: float = 0.6
    pattern: Pattern = "mixed"
    in_situ_share: float = 0.03
    normal_share: float = 0.03
    fat_share: float = 0.05
    necrosis_share: float = 0.01
    control_tissue: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("look", self.look, get_args(LookName)),
            ("outline", self.outline, get_args(Outline)),
            ("modality", self.modality, get_args(Modality)),
            ("pattern", self.pattern, get_args(Pattern)),
        ):
            if value not in allowed:
                raise PhantomError(f"{name} must be one of {', '.join(allowed)}, not {value!r}.")
        for artefact in self.artefacts:
            if artefact not in get_args(Artefact):
                raise PhantomError(f"artefacts may hold {', '.join(get_args(Artefact))}, not {artefact!r}.")
        for name, number, low, high in (
            ("tumour_share", self.tumour_share, 0.01, 0.80),
            ("width_mm", self.width_mm, 0.05, 60.0),
            ("height_mm", self.height_mm, 0.05, 60.0),
            ("mpp", self.mpp, 0.1, 2.0),
            ("clustering", self.clustering, 0.0, 1.0),
            ("in_situ_share", self.in_situ_share, 0.0, 0.4),
            ("normal_share", self.normal_share, 0.0, 0.4),
            ("fat_share", self.fat_share, 0.0, 0.6),
            ("necrosis_share", self.necrosis_share, 0.0, 0.5),
        ):
            if not isfinite(number) or not low <= number <= high:
                raise PhantomError(f"{name} must lie between {low} and {high}, not {number}.")
        self._check_score()

    def _check_score(self) -> None:
        if self.score is not None and self.score not in SCORES:
            raise PhantomError(f"score must be one of {', '.join(SCORES)}, not {self.score!r}.")
        if self.class_fractions is None:
            if self.score is None:
                raise PhantomError("give a score, or class_fractions from which it follows.")
            return
        shares = self.class_fractions
        if len(shares) != 4 or any(not isfinite(s) or s < 0 for s in shares) or abs(sum(shares) - 1) > 1e-6:
            raise PhantomError(
                f"class_fractions must be four shares (0, 1+, 2+, 3+) that add up to 1, not {shares}."
            )
        derived = score_of_fractions(shares)
        if self.score is not None and self.score != derived:
            raise PhantomError(
                f"class_fractions {shares} make a score of {derived}, not {self.score}. "
                "Leave score out (None) or change the shares."
            )

    @property
    def resolved_score(self) -> Score:
        """The score asked for, or the one that follows from the fractions."""
        return self.score if self.score is not None else score_of_fractions(self.fractions)

    @property
    def fractions(self) -> tuple[float, float, float, float]:
        """Shares of the invasive tumour cells that are 0, 1+, 2+ and 3+."""
        if self.class_fractions is not None:
            return self.class_fractions
        return USUAL_FRACTIONS[self.score or "0"]

    @property
    def width_px(self) -> int:
        """Width of level 0."""
        return max(1, round(self.width_mm * 1000 / self.mpp))

    @property
    def height_px(self) -> int:
        """Height of level 0."""
        return max(1, round(self.height_mm * 1000 / self.mpp))
