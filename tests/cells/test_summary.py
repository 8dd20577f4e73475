"""Counted cells add up to percentages, and intervals allow for the fields and for the DAB scale."""

from dataclasses import replace

import numpy as np
import pytest

from wsi_her2.cells.field import CellCutoffs, grade_cells
from wsi_her2.cells.summary import SCALES, summarise_cells, tried_scales
from wsi_her2.scoring.call import call_counts
from wsi_her2.scoring.rule import Thresholds

DEVIATION = 0.3
MIDDLE = SCALES // 2


def fixed(*blocks):
    """Counts that no scale changes (SCALES x G x 4)."""
    return np.repeat(np.array(blocks, np.float64)[None], SCALES, axis=0)


def tumour(middle, spread=0.8, blocks=12, cells=60, deviation=DEVIATION, seed=0):
    """Counts of cells whose strengths scatter log-normally around a middle, classed on each scale."""
    rng = np.random.default_rng(seed)
    complete = np.exp(rng.normal(np.log(middle), spread, (blocks, cells))).astype(np.float32)
    stained = complete * rng.uniform(1, 2, complete.shape)
    margins = np.stack([stained / 0.02, complete / 0.022, complete / 0.075], axis=-1).astype(np.float32)
    counts = np.zeros((SCALES, blocks, 4))
    for number, scale in enumerate(tried_scales(deviation).tolist()):
        for block in range(blocks):
            grades = grade_cells(margins[block], CellCutoffs(1.0, 1.0, 1.0), scale)
            counts[number, block] = np.bincount(grades, minlength=4)
    return counts


def summarise(counts, **options):
    given = {
        "scale_deviation": DEVIATION,
        "class_deviation": 0.0,
        "sampling": "sample",
        "patches": 20,
        "measured_mm2": 0.5,
        "n_patches": 400,
        "tumour_patches": 100,
    }
    return summarise_cells(counts, 1000, Thresholds(), **(given | options))


def test_percentages_are_of_the_cells_and_sum_to_100():
    summary = summarise(fixed((40, 20, 10, 5), (20, 25, 20, 60)))
    assert summary.call.percentages == pytest.approx({"0": 30, "1+": 22.5, "2+": 15, "3+": 32.5})
    assert sum(summary.call.percentages.values()) == pytest.approx(100)
    assert summary.pct_complete_membrane == pytest.approx(47.5)
    assert (summary.cells, summary.nuclei) == (200, 1000)
    assert summary.call.h_score == pytest.approx(22.5 + 2 * 15 + 3 * 32.5)


def test_the_call_is_the_rule_over_the_cells():
    for score, counts in {
        "0": (95, 5, 0, 0),
        "1+": (80, 20, 0, 0),
        "2+": (70, 15, 15, 0),
        "3+": (85, 0, 0, 15),
    }.items():
        summary = summarise(fixed(counts))
        assert summary.call.score == score
        assert replace(summary.call, intervals={}) == replace(
            call_counts(np.array([counts], float), n_patches=400, tumour_patches=100), intervals={}
        )


@pytest.mark.parametrize("wrong", [0.0, 0.7])
@pytest.mark.parametrize("middle", [0.008, 0.02, 0.05, 0.15])
def test_intervals_hold_their_estimate(middle, wrong):
    summary = summarise(tumour(middle), class_deviation=wrong)
    for name, (low, high) in summary.call.intervals.items():
        assert 0 <= low <= summary.call.percentages[name] <= high <= 100
    low, high = summary.complete_interval
    assert 0 <= low <= summary.pct_complete_membrane <= high <= 100


def test_an_unknown_scale_widens_intervals_and_leaves_the_estimate_and_its_confidence():
    known, unknown = (summarise(tumour(0.03, deviation=d), scale_deviation=d) for d in (0.0, 0.3))
    assert known.call.percentages == unknown.call.percentages
    assert known.call.confidence == unknown.call.confidence
    assert np.ptp(unknown.complete_interval) > 2 * np.ptp(known.complete_interval) > 0


def test_cells_that_are_taken_for_others_widen_intervals_and_leave_the_estimate_and_its_confidence():
    sure, unsure = (summarise(tumour(0.03), class_deviation=wrong) for wrong in (0.0, 0.7))
    assert sure.call.percentages == unsure.call.percentages
    assert sure.call.confidence == unsure.call.confidence
    for name, (low, high) in unsure.call.intervals.items():
        assert np.ptp((low, high)) > np.ptp(sure.call.intervals[name])


def test_none_of_many_cells_is_not_none_for_certain():
    summary = summarise(fixed(*[(100, 0, 0, 0)] * 10), class_deviation=0.7)
    assert summary.call.intervals["0"] == pytest.approx((98, 100), abs=2)
    for name in ("1+", "2+", "3+"):
        low, high = summary.call.intervals[name]
        assert low == 0
        assert 0.2 < high < 4
    low, high = summarise(fixed(*[(0, 0, 0, 100)] * 10), class_deviation=0.7).call.intervals["3+"]
    assert 90 < low < high


def test_odds_are_shifted_by_as_much_either_way():
    summary = summarise(fixed(*[(50, 50, 0, 0)] * 10), class_deviation=0.7)
    low, high = summary.call.intervals["0"]
    # 1.645 deviations of the odds 1 : 1.
    assert (low, high) == pytest.approx((100 / (1 + np.exp(1.15)), 100 / (1 + np.exp(-1.15))), abs=3)


def test_cells_that_differ_from_block_to_block_make_wide_intervals():
    even = summarise(fixed(*[(50, 0, 50, 0)] * 10))
    patchy = summarise(fixed(*[(100, 0, 0, 0), (0, 0, 100, 0)] * 5))
    assert even.complete_interval == pytest.approx((50, 50))
    assert np.ptp(patchy.complete_interval) > 20


def test_weaker_and_stronger_say_what_another_scale_would_give():
    border = summarise(tumour(0.012, spread=0.5))
    assert (border.weaker_score, border.call.score, border.stronger_score) == ("1+", "2+", "2+")
    other = summarise(tumour(0.03, spread=0.5))
    assert (other.weaker_score, other.call.score, other.stronger_score) == ("2+", "2+", "3+")
    clear = summarise(tumour(0.3, spread=0.3))
    assert clear.weaker_score == clear.call.score == clear.stronger_score == "3+"


def test_scales_rise_around_one_by_the_deviation():
    scales = tried_scales(0.3)
    assert len(scales) == SCALES
    assert scales[MIDDLE] == 1.0
    assert (np.diff(scales) > 0).all()
    np.testing.assert_allclose(scales * scales[::-1], 1.0)
    assert np.log(scales).std() == pytest.approx(0.3, rel=0.1)
    np.testing.assert_array_equal(tried_scales(0.0), np.ones(SCALES))


def test_the_same_cells_have_the_same_summary_every_time():
    assert summarise(tumour(0.03)) == summarise(tumour(0.03))


def test_without_cells_there_is_nothing_to_summarise():
    with pytest.raises(ValueError, match="no cells"):
        summarise(np.zeros((SCALES, 3, 4)))
