"""A laboratory's own scale: its stain hues and how strongly its DAB stains, fitted on its controls.

DAB differs between laboratories more than between neighbouring scores, so that no fixed cut-off fits all of
them. A profile is fitted once on images of known score (`wsi_her2.learning.lab_fit`) and turns the laboratory's
slides to the scale that the classifiers were made on. It is the one case in which DAB is rescaled, and every
result names it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from wsi_her2.bounded_file import read_bounded
from wsi_her2.cells.field import CellCutoffs
from wsi_her2.errors import LabProfileError
from wsi_her2.messages import wrong_fields
from wsi_her2.slides.density import HEMATOXYLIN_DAB, StainVectors, Vector
from wsi_her2.slides.stain import StainCorrection
from wsi_her2.slides.white_point import WhitePoint

GAIN_RANGE = (0.2, 5.0)
"""Of a profile; beyond it something else is wrong than the strength of the stain."""

_MAX_BYTES = 1_000_000

_Channel = Annotated[float, Field(ge=-10, le=10)]
_StainColour = tuple[_Channel, _Channel, _Channel]
"""Of any length, as it need not be one. Numbers from a damaged file can be too large to be squared."""

_GreyLevel = Annotated[float, Field(gt=0, le=255)]


class LabProfile(BaseModel):
    """What was fitted for a laboratory.

    Attributes
    ----------
    name : str
    hematoxylin, dab : tuple of float
        Its stain vectors, optical density per channel (red, green, blue).
    dab_gain : float
        How much stronger its DAB is than that of the classifier's scale.
    white : tuple of float
        White point of its scanner, for images in which no glass is seen; grey levels.
    intense_floor_pct : float or None
        Intense staining found in its controls of 0 and 1+, with a margin; None where there were none.
    cell_cutoffs : CellCutoffs or None
        For counted cells once DAB is divided by the gain; None where the profile was fitted on patches.
    classifier, classifier_sha256 : str
        For which the gain was fitted.
    controls : dict of str to int
        How many controls of each score there were.
    statements : dict of str to str
        What was measured, for people.
    version : str
        Of the software.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w][\w .+-]{0,79}$")
    hematoxylin: _StainColour
    dab: _StainColour
    dab_gain: Annotated[float, Field(ge=GAIN_RANGE[0], le=GAIN_RANGE[1])]
    white: tuple[_GreyLevel, _GreyLevel, _GreyLevel]
    intense_floor_pct: Annotated[float, Field(ge=0, le=10)] | None = None
    cell_cutoffs: CellCutoffs | None = None
    classifier: str
    classifier_sha256: str
    controls: dict[str, int] = Field(default_factory=dict)
    statements: dict[str, str] = Field(default_factory=dict)
    version: str = "unknown"

    @model_validator(mode="after")
    def _stains_differ(self) -> LabProfile:
        scale = np.linalg.norm([self.hematoxylin, self.dab], axis=1)
        # Vectors that point the same way cannot be told apart; 1 degree does not come from a fit.
        if scale.min() < 0.01 or np.linalg.norm(np.cross(self.hematoxylin, self.dab)) < 0.02 * scale.prod():
            raise ValueError("hematoxylin and dab must be two different colours")
        return self

    def correction(self, white: WhitePoint) -> StainCorrection:
        """The correction of one of the laboratory's slides with its own white point."""
        level = white.rgb if white.source == "background" else self.white
        return scaled_correction(level, StainVectors(self.hematoxylin, self.dab), self.dab_gain)


def scaled_correction(white: Vector, stains: StainVectors, dab_gain: float) -> StainCorrection:
    """Turn hues to the reference and divide the density of DAB by a gain.

    Parameters
    ----------
    white : tuple of float
        White point, grey levels.
    stains : StainVectors
        Hematoxylin and DAB as the slide has them.
    dab_gain : float
    """
    matrix = HEMATOXYLIN_DAB.matrix().T @ np.diag([1.0, 1.0 / dab_gain, 1.0]) @ stains.unmixing()
    rows = tuple((float(row[0]), float(row[1]), float(row[2])) for row in matrix)
    return StainCorrection("lab-profile", white, density_matrix=rows)  # type: ignore[arg-type]


def read_profile(path: str | Path) -> tuple[LabProfile, str]:
    """Read a profile, and the sha256 of its file.

    Raises
    ------
    LabProfileError
        It cannot be read or is no profile.
    """
    path = Path(path)
    try:
        content = read_bounded(path, _MAX_BYTES)
        return LabProfile.model_validate_json(content), hashlib.sha256(content).hexdigest()
    except OSError as error:
        raise LabProfileError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValidationError as error:
        raise LabProfileError(
            f"{path}: no laboratory profile ({wrong_fields(error)}). Make one with `wsi-her2 calibrate`."
        ) from error
