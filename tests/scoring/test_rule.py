"""The guideline's borders, branch by branch, and the margin that a verdict states."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from wsi_her2.scoring.rule import GROUPS, SCORES, Thresholds, apply_rule, scores_of

GUIDELINE = Thresholds(intense_floor_pct=0.0, staining_floor_pct=0.0)
DEFAULT = Thresholds()


@st.composite
def percentages(draw):
    """Of 0, 1+, 2+ and 3+: anything on the simplex, often near the borders."""
    total, rows = 100.0, []
    for _ in range(3):
        near = st.sampled_from([0.0, 2.0, 2.9, 3.1, 5.0, 9.9, 10.0, 10.1, 11.0, 12.5])
        value = min(total, draw(st.one_of(near, st.floats(0, 100))))
        rows.append(value)
        total -= value
    pct_3, pct_2, pct_1 = rows
    return (total, pct_1, pct_2, pct_3)


def moved(row, origin, target, points):
    row = list(row)
    row[origin] -= points
    row[target] += points
    return tuple(row)


@pytest.mark.parametrize(
    ("row", "score", "branch"),
    [
        ((89.9, 0, 0, 10.1), "3+", "intense_complete_over_limit"),
        ((0, 0, 0, 100), "3+", "intense_complete_over_limit"),
        ((90, 0, 0, 10), "2+", "intense_complete_in_few"),
        ((97, 0, 0, 3), "2+", "intense_complete_in_few"),
        ((89.9, 0, 10.1, 0), "2+", "complete_over_limit"),
        ((84, 0, 8, 8), "2+", "complete_over_limit"),
        ((0, 80, 10.1, 9.9), "2+", "complete_over_limit"),
        ((90, 0, 10, 0), "0", "staining_within_limit"),
        ((89.9, 10.1, 0, 0), "1+", "faint_over_limit"),
        ((80, 10, 10, 0), "1+", "faint_over_limit"),
        ((90, 10, 0, 0), "0", "staining_within_limit"),
        ((100, 0, 0, 0), "0", "staining_within_limit"),
    ],
)
def test_exactly_ten_percent_is_within_the_limit_and_just_above_is_over(row, score, branch):
    verdict = apply_rule(row, DEFAULT)
    assert (verdict.score, verdict.branch) == (score, branch)


def test_each_border_counts_the_staining_above_it():
    assert apply_rule((86, 4, 4, 2.9), DEFAULT).score == "1+"
    assert apply_rule((84, 4, 9, 2.9), DEFAULT).score == "2+"


@pytest.mark.parametrize(("pct_3", "score"), [(2.99, "0"), (3.0, "2+"), (9.0, "2+")])
def test_intense_staining_in_few_cells_counts_from_its_floor_on(pct_3, score):
    assert apply_rule((100 - pct_3, 0, 0, pct_3), DEFAULT).score == score


def test_the_floor_is_a_setting():
    row = (96, 0, 0, 4)
    assert apply_rule(row, Thresholds(intense_floor_pct=5)).score == "0"
    assert apply_rule(row, Thresholds(intense_floor_pct=4)).score == "2+"


def test_below_the_floor_intense_staining_still_counts_as_staining():
    assert apply_rule((88, 9.5, 0, 2.5), DEFAULT).score == "1+"


@given(percentages())
def test_the_score_is_the_guidelines(row):
    _, pct_1, pct_2, pct_3 = row
    if pct_3 > 10:
        score = "3+"
    elif pct_2 + pct_3 > 10 or pct_3 >= 3:
        score = "2+"
    else:
        score = "1+" if pct_1 + (pct_2 + pct_3) > 10 else "0"
    assert apply_rule(row, DEFAULT).score == score


@given(percentages(), st.floats(0.01, 20))
def test_more_staining_never_lowers_the_score(row, points):
    for lower in range(3):
        if row[lower] >= points:
            more = moved(row, lower, lower + 1, points)
            before, after = (SCORES.index(apply_rule(r, DEFAULT).score) for r in (row, more))
            # Rounding in the sums may cross a border that the row lies on exactly.
            assert after >= before or apply_rule(row, DEFAULT).margin_points < 1e-9


@given(percentages())
def test_no_change_of_less_than_the_margin_changes_the_score(row):
    verdict = apply_rule(row, DEFAULT)
    points = verdict.margin_points - 1e-6
    assume(points > 0)
    for origin, target in permutations(range(4), 2):
        change = min(points, row[origin])
        assert apply_rule(moved(row, origin, target, change), DEFAULT).score == verdict.score


def towards(row, verdict, points):
    """Rows in which so many points have moved on the shortest ways to `verdict.margin_towards`."""
    here, there = SCORES.index(verdict.score), SCORES.index(verdict.margin_towards)
    if there > here:
        origins, targets = ((there - 1, here, 0), (there, 3))
    else:
        origins, targets = ((3, 2, here), (there, 1, 2))
    for target in targets:
        changed, left = row, points
        for origin in origins:
            if origin == target:
                continue
            step = min(left, changed[origin])
            changed, left = moved(changed, origin, target, step), left - step
        yield changed


@given(percentages())
def test_a_change_of_just_over_the_margin_gives_the_score_that_lies_nearest(row):
    verdict = apply_rule(row, DEFAULT)
    reached = {
        apply_rule(changed, DEFAULT).score for changed in towards(row, verdict, verdict.margin_points + 1e-6)
    }
    assert verdict.margin_towards in reached


@given(percentages())
def test_the_margin_is_not_negative_and_leads_to_another_score(row):
    verdict = apply_rule(row, DEFAULT)
    assert 0 <= verdict.margin_points <= 100
    assert verdict.margin_towards != verdict.score


@pytest.mark.parametrize(
    ("row", "margin", "nearest"),
    [
        ((75, 0, 0, 25), 15, "2+"),
        ((60, 0, 40, 0), 10, "3+"),
        ((85, 0, 15, 0), 5, "1+"),
        ((60, 25, 15, 0), 5, "1+"),
        ((60, 25, 6, 9), 1, "3+"),
        ((96, 0, 0, 4), 1, "0"),
        ((75, 25, 0, 0), 3, "2+"),
        ((88, 12, 0, 0), 2, "0"),
        ((92, 8, 0, 0), 2, "1+"),
        ((100, 0, 0, 0), 3, "2+"),
    ],
)
def test_margins_of_known_cases(row, margin, nearest):
    verdict = apply_rule(row, DEFAULT)
    assert verdict.margin_points == pytest.approx(margin)
    assert verdict.margin_towards == nearest


@given(
    st.lists(percentages(), min_size=1, max_size=30),
    st.sampled_from([DEFAULT, GUIDELINE, Thresholds(12.0, 8.0, 15.0, 5.0)]),
)
def test_many_rows_at_once_score_as_each_does(rows, thresholds):
    got = scores_of(np.array(rows), thresholds)
    assert got.dtype == np.int64
    assert [SCORES[index] for index in got] == [apply_rule(row, thresholds).score for row in rows]


def test_the_explanation_names_the_numbers():
    assert "25.0 %" in apply_rule((75, 0, 0, 25), DEFAULT).explanation
    assert "10 %" in apply_rule((75, 0, 0, 25), DEFAULT).explanation


def test_groups_are_the_guidelines():
    assert GROUPS == {"0": "negative", "1+": "negative", "2+": "equivocal", "3+": "positive"}
