from dataclasses import replace

import pytest

from wsi_her2.reports.outliers import LEAST_SLIDES, OutlierSearch
from wsi_her2.reports.slide_table import SlideRow


@pytest.fixture
def row(make_result) -> SlideRow:
    return replace(SlideRow.of(make_result()), unreadable_fraction=0.0)


def found(rows):
    search = OutlierSearch()
    for row in rows:
        search.add(row)
    return {outliers.key: outliers.slides for outliers in search.found()}


def usual(row, count):
    """Slides as a run has them: no two alike, none out of the ordinary."""
    return [
        replace(row, tissue_mm2=80.0 + n % 9, mpp=0.25 + 0.0001 * (n % 3), h_score=100.0 + n % 7, her2_score="2+")
        for n in range(count)
    ]


def test_a_run_of_slides_that_are_alike_has_none(row):
    assert found(usual(row, 200)) == {}
    assert found([replace(row, tissue_mm2=80.0)] * 200) == {}


@pytest.mark.parametrize(
    ("changed", "key"),
    [
        ({"mpp": 0.5}, "scale"),
        ({"tissue_mm2": 9.0}, "little"),
        ({"tissue_mm2": 900.0}, "much"),
        ({"unreadable_fraction": 0.02}, "unreadable"),
        ({"h_score": 210.0}, "h-score"),
        ({"h_score": 20.0}, "h-score"),
    ],
)
def test_a_slide_that_is_unlike_the_others_is_found_at_its_place(row, changed, key):
    rows = usual(row, 100)
    rows[41] = replace(rows[41], **changed)
    assert found(rows) == {key: (41,)}


def test_an_h_score_is_compared_with_those_of_the_same_score_only(row):
    rows = usual(row, 60) + [replace(r, her2_score="3+", h_score=r.h_score + 150) for r in usual(row, 60)]
    assert found(rows) == {}
    rows[70] = replace(rows[70], h_score=101.0)
    assert found(rows) == {"h-score": (70,)}


def test_of_few_slides_nothing_is_said_to_be_unusual_but_what_cannot_be_read(row):
    rows = usual(row, LEAST_SLIDES - 1)
    rows[3] = replace(rows[3], mpp=0.5, tissue_mm2=1.0, h_score=290.0, unreadable_fraction=0.5)
    assert found(rows) == {"unreadable": (3,)}


def test_what_is_not_known_is_no_outlier(row):
    nothing = replace(
        row, mpp=None, tissue_mm2=None, unreadable_fraction=None, h_score=None, her2_score=None, status="failed"
    )
    assert found(usual(row, 50) + [nothing] * 30) == {}
    assert found([nothing] * 50) == {}
    assert found([]) == {}
