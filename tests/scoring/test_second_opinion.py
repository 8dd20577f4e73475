"""Two calls agree, lie at one border, or disagree; only then somebody must look."""

from dataclasses import replace

import numpy as np
import pytest

from wsi_her2.scoring.call import call_counts, call_slide
from wsi_her2.scoring.second_opinion import compare_calls

MARGIN = 5.0


def of_cells(*counts):
    return call_counts(np.array([counts], float), n_patches=50, tumour_patches=40)


def of_two_classes(negative, positive):
    probabilities = np.repeat(np.eye(2, dtype=np.float32), (negative, positive), axis=0)
    return call_slide(probabilities, ("negative", "positive"))


NEGATIVE, FAINT = of_cells(970, 30, 0, 0), of_cells(600, 400, 0, 0)
JUST_POSITIVE, ALMOST_POSITIVE = of_cells(500, 150, 220, 130), of_cells(500, 150, 270, 80)
CLEARLY_POSITIVE, CLEARLY_EQUIVOCAL = of_cells(100, 100, 100, 700), of_cells(400, 100, 500, 0)


@pytest.mark.parametrize("call", [NEGATIVE, FAINT, CLEARLY_EQUIVOCAL, CLEARLY_POSITIVE])
def test_equal_scores_agree(call):
    opinion = compare_calls(call, replace(call, margin_points=0.1), "patches", MARGIN)
    assert (opinion.score, opinion.agrees, opinion.review) == (call.score, True, False)
    assert f"give {call.score} as well" in opinion.explanation


@pytest.mark.parametrize(("first", "second"), [(JUST_POSITIVE, ALMOST_POSITIVE), (ALMOST_POSITIVE, JUST_POSITIVE)])
def test_scores_whose_deciding_percentages_are_close_lie_at_the_border(first, second):
    opinion = compare_calls(first, second, "patches", MARGIN)
    assert (opinion.score, opinion.agrees, opinion.review) == (second.score, False, False)
    assert "at the border" in opinion.explanation


def test_a_call_near_its_border_needs_review_where_the_other_lies_far_beyond_it():
    near = of_cells(700, 210, 90, 0)
    assert near.score == "1+"
    assert near.margin_points < MARGIN
    assert compare_calls(near, CLEARLY_EQUIVOCAL, "patches", MARGIN).review


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (JUST_POSITIVE, CLEARLY_EQUIVOCAL),
        (NEGATIVE, CLEARLY_POSITIVE),
        (CLEARLY_POSITIVE, CLEARLY_EQUIVOCAL),
        (FAINT, CLEARLY_POSITIVE),
        (JUST_POSITIVE, NEGATIVE),
    ],
)
def test_scores_that_lie_apart_need_review_whichever_comes_first(first, second):
    for one, other in ((first, second), (second, first)):
        opinion = compare_calls(one, other, "cells", MARGIN)
        assert (opinion.score, opinion.agrees, opinion.review) == (other.score, False, True)
        assert "needs review" in opinion.explanation


def test_the_margin_is_a_setting_and_includes_its_own_value():
    first, second = JUST_POSITIVE, ALMOST_POSITIVE
    apart = first.percentages["3+"] - second.percentages["3+"]
    assert apart == pytest.approx(5.0)
    assert not compare_calls(first, second, "cells", apart).review
    assert compare_calls(first, second, "cells", apart - 0.1).review


def test_a_border_to_a_third_score_is_none_between_the_two():
    at_another_border = of_cells(880, 120, 0, 0)
    assert at_another_border.margin_towards == "0"
    assert at_another_border.margin_points < MARGIN
    assert compare_calls(at_another_border, CLEARLY_POSITIVE, "cells", MARGIN).review


def test_without_scores_groups_are_compared():
    positive, negative = of_two_classes(60, 40), of_two_classes(95, 5)
    agreeing = compare_calls(positive, CLEARLY_POSITIVE, "cells", MARGIN)
    assert (agreeing.score, agreeing.agrees, agreeing.review) == ("positive", True, False)
    assert compare_calls(negative, CLEARLY_POSITIVE, "cells", MARGIN).review
    assert compare_calls(positive, CLEARLY_EQUIVOCAL, "cells", MARGIN).review


@pytest.mark.parametrize(("way", "words"), [("patches", "The classifier's patches"), ("cells", "Counted cells")])
def test_the_explanation_names_what_the_second_call_was_made_from(way, words):
    assert compare_calls(NEGATIVE, CLEARLY_POSITIVE, way, MARGIN).explanation.startswith(words)
    assert compare_calls(NEGATIVE, NEGATIVE, way, MARGIN).way == way
