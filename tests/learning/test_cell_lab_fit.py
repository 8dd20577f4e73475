"""Cut-offs for cells on a laboratory's controls: a common gain, some freedom for each border, honest hold-out."""

import numpy as np
import pytest

from wsi_her2.cells.field import CellCutoffs
from wsi_her2.cells.scale import CellMargins, percentages_at
from wsi_her2.learning.cell_lab_fit import CellControl, fit_cutoffs
from wsi_her2.scoring.rule import SCORES

CUTOFFS = CellCutoffs()
MIXES = {
    "0": (0.96, 0.04, 0.0, 0.0),
    "1+": (0.5, 0.46, 0.04, 0.0),
    "2+": (0.18, 0.3, 0.52, 0.0),
    "3+": (0.04, 0.08, 0.18, 0.7),
}
TYPICAL = (0.006, 0.017, 0.042, 0.125)
"""Strengths in the middle of each class."""
BORDERS = np.array([0.011, 0.027, 0.075], np.float32)
"""Strengths between the classes."""


def cells_of(score, gain, haze=1.0, count=1000):
    """Cells of a control whose DAB is so much stronger; haze makes unstained cells seem stronger."""
    rng = np.random.default_rng(SCORES.index(score))
    classes = rng.choice(4, count, p=MIXES[score])
    typical = np.array(TYPICAL)
    typical[0] *= haze
    strength = (gain * typical[classes] * np.exp(0.12 * rng.standard_normal(count))).astype(np.float32)
    return CellMargins(strength[:, None] / BORDERS, np.ones(count, np.float32))


def controls_of(gain, haze=1.0, scores=SCORES):
    controls = []
    for score in scores:
        cells = cells_of(score, gain, haze)

        def at(cutoffs, cells=cells):
            return percentages_at(cells, cutoffs, 0.4, 100)

        controls.append(CellControl(score, score, at(CUTOFFS), at))
    return controls


@pytest.mark.parametrize("gain", [0.5, 1.0, 2.0])
def test_controls_on_another_scale_are_called_what_they_are_once_the_gain_is_fitted(gain):
    found = fit_cutoffs(controls_of(gain), CUTOFFS)
    assert found.fit.calls == SCORES
    assert abs(np.log(found.fit.gain / gain)) < 0.35
    if gain != 1:
        assert found.fit.uncalibrated != SCORES
        assert found.fit.helped


def test_haze_moves_the_first_border_more_than_the_intense_one():
    clear, hazy = (fit_cutoffs(controls_of(1.0, haze), CUTOFFS) for haze in (1.0, 1.6))
    assert hazy.fit.calls == SCORES
    moved = [
        getattr(hazy.cutoffs, border) * hazy.fit.gain / (getattr(clear.cutoffs, border) * clear.fit.gain)
        for border in ("stained", "intense")
    ]
    assert moved[0] > max(1.0, moved[1])


def test_every_control_is_called_once_by_a_fit_that_did_not_see_it():
    held = fit_cutoffs(controls_of(2.0), CUTOFFS).fit.held_out
    assert [control.name for control in held] == list(SCORES)


def test_controls_without_tumour_cells_are_no_call_and_all_of_them_are_an_error():
    empty = CellControl("empty", "2+", None, lambda _: None)
    found = fit_cutoffs([*controls_of(1.0), empty], CUTOFFS)
    assert found.fit.calls == (*SCORES, "no call")
    with pytest.raises(ValueError, match="none of the controls"):
        fit_cutoffs([empty, empty], CUTOFFS)
    with pytest.raises(ValueError, match="two controls"):
        fit_cutoffs(controls_of(1.0)[:1], CUTOFFS)
