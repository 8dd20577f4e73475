"""A call counts scored patches of tumour, states its interval, and is as sure as the tissue allows."""

import numpy as np
import pytest

from wsi_her2.errors import ClassifierError
from wsi_her2.scoring.call import call_counts, call_slide
from wsi_her2.scoring.confidence import spatial_blocks
from wsi_her2.scoring.rule import Thresholds

CLASSES = ("other", "0", "1+", "2+", "3+")
BINARY = ("other", "negative", "positive")


def patches(*counts, classes=CLASSES):
    """Probabilities (float32) of so many patches of each class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    probabilities = np.full((len(labels), len(classes)), 0.1, np.float32)
    probabilities[np.arange(len(labels)), labels] = 0.6
    return probabilities / probabilities.sum(axis=1, keepdims=True)


def test_percentages_are_of_tumour_and_other_is_left_out():
    call = call_slide(patches(300, 42, 30, 20, 8), CLASSES)
    assert call.percentages == pytest.approx({"0": 42, "1+": 30, "2+": 20, "3+": 8})
    assert (call.n_patches, call.tumour_patches) == (400, 100)
    assert (call.score, call.group, call.branch) == ("2+", "equivocal", "complete_over_limit")


def test_a_classifier_without_other_counts_all_patches():
    call = call_slide(patches(40, 30, 20, 10, classes=CLASSES[1:]), CLASSES[1:])
    assert call.percentages == pytest.approx({"0": 40, "1+": 30, "2+": 20, "3+": 10})


def test_rows_with_nan_are_left_out():
    probabilities = patches(0, 40, 30, 20, 10)
    blank = np.full((50, 5), np.nan, np.float32)
    partly = patches(0, 0, 0, 0, 30)
    partly[:, 0] = np.nan
    call = call_slide(np.concatenate([blank, probabilities, partly]), CLASSES)
    assert call.percentages == pytest.approx({"0": 40, "1+": 30, "2+": 20, "3+": 10})
    assert call.n_patches == 100


def test_patches_count_by_their_weight():
    weights = np.repeat([1.0, 0.5], [60, 40])
    call = call_slide(patches(0, 60, 0, 0, 40), CLASSES, weights)
    assert call.percentages["3+"] == pytest.approx(25)
    assert call.percentages["0"] == pytest.approx(75)


def test_the_h_score_weighs_1_2_3():
    assert call_slide(patches(50, 40, 30, 20, 10), CLASSES).h_score == pytest.approx(30 + 40 + 30)
    assert call_slide(patches(0, 0, 0, 0, 30), CLASSES).h_score == pytest.approx(300)
    assert call_slide(patches(0, 30, 0, 0, 0), CLASSES).h_score == 0


@pytest.mark.parametrize(
    ("counts", "score", "group", "low"),
    [
        ((0, 100, 0, 0, 0), "0", "negative", False),
        ((0, 60, 40, 0, 0), "1+", "negative", True),
        ((0, 60, 0, 40, 0), "2+", "equivocal", None),
        ((0, 60, 0, 0, 40), "3+", "positive", False),
    ],
)
def test_her2_low_is_1_plus_and_open_for_2_plus(counts, score, group, low):
    call = call_slide(patches(*counts), CLASSES)
    assert (call.score, call.group, call.her2_low) == (score, group, low)


def test_some_staining_flags_a_score_of_0_only():
    assert call_slide(patches(0, 95, 5, 0, 0), CLASSES).some_staining
    assert not call_slide(patches(0, 99, 1, 0, 0), CLASSES).some_staining
    assert not call_slide(patches(0, 60, 40, 0, 0), CLASSES).some_staining


def test_thresholds_are_settings():
    probabilities = patches(0, 85, 0, 0, 15)
    assert call_slide(probabilities, CLASSES).score == "3+"
    assert call_slide(probabilities, CLASSES, thresholds=Thresholds(positive_over_pct=20)).score == "2+"


def test_the_call_is_a_rule_over_percentages_not_an_arg_max():
    assert call_slide(patches(0, 880, 0, 0, 120), CLASSES).score == "3+"


def test_the_confusion_matrix_corrects_the_percentages():
    confusion = np.array(
        [
            [1.0, 0, 0, 0, 0],
            [0, 0.8, 0.2, 0, 0],
            [0, 0.1, 0.8, 0.1, 0],
            [0, 0, 0.1, 0.8, 0.1],
            [0, 0, 0, 0.1, 0.9],
        ]
    )
    probabilities = patches(100, 160, 40, 0, 0)
    assert call_slide(probabilities, CLASSES).score == "1+"
    corrected = call_slide(probabilities, CLASSES, confusion=confusion)
    assert corrected.score == "0"
    assert corrected.percentages["0"] == pytest.approx(100, abs=2)


# Two classes


@pytest.mark.parametrize("classes", [BINARY, BINARY[1:]])
def test_a_binary_classifier_gives_a_group_and_no_score(classes):
    counts = (20, 70, 30)[-len(classes) :]
    call = call_slide(patches(*counts, classes=classes), classes)
    assert (call.score, call.group, call.her2_low, call.h_score) == (None, "positive", None, None)
    assert call.percentages == pytest.approx({"negative": 70, "positive": 30})
    assert (call.margin_points, call.margin_towards) == (pytest.approx(20), "negative")


def test_ten_percent_positive_is_negative():
    call = call_slide(patches(0, 90, 10, classes=BINARY), BINARY)
    assert (call.group, call.margin_towards) == ("negative", "positive")


# What cannot be called


@pytest.mark.parametrize("probabilities", [patches(50, 0, 0, 0, 0), np.full((9, 5), np.nan), np.zeros((0, 5))])
def test_without_tumour_there_is_nothing_to_call(probabilities):
    with pytest.raises(ValueError, match="none of the patches is tumour"):
        call_slide(probabilities.astype(np.float32), CLASSES)


@pytest.mark.parametrize(
    "classes",
    [("other", "3+", "2+", "1+", "0"), ("other", "benign", "malignant"), ("0", "1+"), ("positive", "negative")],
)
def test_unknown_classes_are_a_classifier_error_that_names_them(classes):
    with pytest.raises(ClassifierError, match=classes[-1].replace("+", r"\+")):
        call_slide(patches(*[5] * len(classes), classes=classes), classes)


@pytest.mark.parametrize("shape", [(10, 4), (10,)])
def test_probabilities_that_do_not_fit_the_classes_are_a_value_error(shape):
    with pytest.raises(ValueError, match="5 classes"):
        call_slide(np.zeros(shape, np.float32), CLASSES)


# Confidence


def test_a_homogeneous_slide_is_called_with_certainty_and_its_interval_holds_the_estimate():
    rng = np.random.default_rng(3)
    probabilities = patches(0, 500, 300, 150, 50)[rng.permutation(1000)]
    call = call_slide(probabilities, CLASSES, blocks=np.arange(1000) // 10)
    assert call.confidence > 0.99
    for name, (low, high) in call.intervals.items():
        assert low < call.percentages[name] < high
        assert high - low < 10


def test_a_slide_near_a_border_is_called_with_less_confidence():
    assert call_slide(patches(0, 87, 13, 0, 0), CLASSES).confidence < 0.95
    assert call_slide(patches(0, 890, 110, 0, 0), CLASSES).confidence < 0.95
    assert call_slide(patches(0, 500, 500, 0, 0), CLASSES).confidence == 1.0


def test_spatial_blocks_are_less_sure_of_clustered_staining_than_single_patches():
    # 12 % of 3+, all in 3 of 25 blocks.
    labels = np.repeat([4] * 3 + [1] * 22, 40)
    probabilities = patches(0, 22 * 40, 0, 0, 3 * 40)[np.argsort(np.argsort(labels, kind="stable"))]
    assert (probabilities.argmax(axis=1) == labels).all()
    alone = call_slide(probabilities, CLASSES)
    clustered = call_slide(probabilities, CLASSES, blocks=np.repeat(np.arange(25), 40))
    assert alone.score == clustered.score == "3+"
    assert clustered.confidence < alone.confidence - 0.1
    assert np.ptp(clustered.intervals["3+"]) > 2 * np.ptp(alone.intervals["3+"])


def test_the_same_slide_has_the_same_call_every_time():
    probabilities = patches(100, 200, 30, 20, 10)
    blocks = np.arange(len(probabilities)) // 7
    assert call_slide(probabilities, CLASSES, blocks=blocks) == call_slide(probabilities, CLASSES, blocks=blocks)


def test_rows_that_were_not_scored_do_not_change_the_confidence():
    probabilities, blocks = patches(0, 87, 13, 0, 0), np.arange(100) // 5
    blank = np.full((40, 5), np.nan, np.float32)
    with_blank = call_slide(
        np.concatenate([probabilities, blank]), CLASSES, blocks=np.concatenate([blocks, np.full(40, 99)])
    )
    assert with_blank == call_slide(probabilities, CLASSES, blocks=blocks)


def test_spatial_blocks_are_squares_of_microns():
    xy = np.array([[0, 0], [1999, 1999], [2000, 0], [0, 2000], [1999, 0], [-1, 0]], np.int32)
    blocks = spatial_blocks(xy, 0.25, 500.0)
    assert blocks.dtype == np.int64
    assert blocks[0] == blocks[1] == blocks[4]
    assert len(set(blocks.tolist())) == 4
    assert sorted(set(blocks.tolist())) == [0, 1, 2, 3]


def test_spatial_blocks_of_nothing_are_nothing():
    assert spatial_blocks(np.zeros((0, 2), np.int32), 0.25, 500.0).shape == (0,)


@pytest.mark.parametrize("other", [0, 7, 100, 133, 399])
def test_exactly_ten_percent_is_within_the_limit_however_the_patches_are_split(other):
    scores = {call_slide(patches(other, n - n // 10, 0, 0, n // 10), CLASSES).score for n in range(10, 130, 10)}
    assert scores == {"2+"}


@pytest.mark.parametrize("weights", [np.zeros(100), np.full(100, np.nan), np.full(100, -1.0), np.ones(120)])
def test_weights_that_are_none_are_refused(weights):
    with pytest.raises(ValueError):
        call_slide(patches(0, 50, 0, 0, 50), CLASSES, weights)


def test_unknown_classes_are_refused_even_where_nothing_is_tumour():
    with pytest.raises(ClassifierError):
        call_slide(np.eye(2, dtype=np.float32)[[0] * 9], ("other", "malignant"))


def test_shares_within_patches_count_where_the_most_probable_class_would_hide_them():
    """Each patch holds 12 % of 3+ tumour, which no patch shows as its main class."""
    shares = np.tile(np.array([[0.2, 0.68, 0.0, 0.0, 0.12]], np.float32), (50, 1))
    assert call_slide(shares, CLASSES).score == "0"
    call = call_slide(shares, CLASSES, shares=True)
    assert call.score == "3+"
    assert call.percentages["3+"] == pytest.approx(15, abs=0.01)


def test_shares_are_corrected_by_what_the_classifier_makes_of_each_class():
    response = 0.8 * np.eye(5) + 0.2 / 5
    truth = np.array([0.3, 0.65, 0.05, 0, 0])
    shares = np.tile((truth @ response).astype(np.float32), (40, 1))
    leaning = call_slide(shares, CLASSES, shares=True)
    call = call_slide(shares, CLASSES, shares=True, confusion=response)
    assert leaning.score != "0"
    assert call.score == "0"
    assert call.percentages["1+"] == pytest.approx(100 * 0.05 / 0.7, abs=1)


# Counted cells


def test_counted_cells_are_called_as_the_same_number_of_patches_would_be():
    rng = np.random.default_rng(8)
    counts = rng.integers(0, 30, (25, 4))
    labels = np.concatenate([np.repeat([1, 2, 3, 4], block) for block in counts])
    probabilities = np.eye(5, dtype=np.float32)[labels]
    of_patches = call_slide(probabilities, CLASSES, blocks=np.repeat(np.arange(25), counts.sum(axis=1)))
    of_cells = call_counts(counts.astype(float), n_patches=len(labels), tumour_patches=len(labels))
    assert of_cells == of_patches


def test_patches_of_a_call_from_cells_are_those_that_were_looked_at():
    call = call_counts(np.array([[50.0, 0, 0, 50]]), n_patches=31, tumour_patches=12)
    assert (call.n_patches, call.tumour_patches) == (31, 12)


def test_intervals_that_are_known_better_take_the_place_of_the_resamples():
    counts, known = np.array([[50.0, 20, 20, 10]] * 5), dict.fromkeys(CLASSES[1:], (1.0, 99.0))
    call = call_counts(counts, n_patches=9, tumour_patches=9, intervals=known)
    assert call.intervals == known
    resampled = call_counts(counts, n_patches=9, tumour_patches=9)
    assert resampled.intervals["0"] == pytest.approx((50, 50))
    assert resampled.confidence == call.confidence


def test_counted_cells_follow_thresholds_and_temperature():
    counts = np.array([[85.0, 0, 0, 15]] * 4 + [[98.0, 0, 0, 2]] * 4)
    shown = {"n_patches": 9, "tumour_patches": 9}
    plain = call_counts(counts, **shown)
    assert plain.score == "2+"
    assert call_counts(counts, Thresholds(positive_over_pct=5), **shown).score == "3+"
    assert 0.5 < call_counts(counts, temperature=3.0, **shown).confidence < plain.confidence


def test_without_cells_there_is_nothing_to_call():
    with pytest.raises(ValueError, match="no cells"):
        call_counts(np.zeros((3, 4)), n_patches=9, tumour_patches=9)
