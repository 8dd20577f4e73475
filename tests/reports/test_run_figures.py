from dataclasses import replace

import pytest

from wsi_her2.reports.run_figures import CONFIDENCE_EDGES, RunFigures, confidence_bin, label_of
from wsi_her2.reports.slide_table import SlideRow
from wsi_her2.scoring.gate import GateReason


@pytest.fixture
def row(make_result) -> SlideRow:
    return SlideRow.of(make_result())


def failure(row: SlideRow, path: str, reason: str) -> SlideRow:
    name = path.rsplit("/", 1)[1]
    return replace(row, status="failed", slide_id=name.split(".")[0], path=path, reason=reason)


def causes(*rows: SlideRow) -> list[tuple[str, int]]:
    figures = RunFigures()
    for row in rows:
        figures.add(row)
    return [(cause.text, cause.count) for cause in figures.causes]


def test_failures_that_differ_in_the_slide_alone_are_one_kind(row):
    rows = [failure(row, f"/a/b/{name}.svs", f"/a/b/{name}.svs: no such file") for name in ("x1", "a", "e")]
    assert causes(*rows) == [("…: no such file", 3)]


def test_numbers_stay_where_all_slides_of_a_kind_have_them(row):
    rows = [
        failure(row, f"/s/{n}.svs", f"{n}.svs: scanned at {mpp} um; scan at 20x") for n, mpp in enumerate((1.5, 4))
    ]
    assert causes(*rows) == [("…: scanned at … um; scan at 20x", 2)]
    assert causes(rows[0]) == [("…: scanned at 1.5 um; scan at 20x", 1)]


def test_a_short_name_does_not_eat_the_letters_of_a_reason(row):
    assert causes(failure(row, "/s/e.svs", "the file ends early")) == [("the file ends early", 1)]


def test_a_kind_keeps_its_key_whichever_slides_are_met(row):
    first, second = (failure(row, f"/s/{n}.svs", f"tile {n} is missing") for n in (1, 2))
    keys = []
    for rows in ([first], [first, second], [second, first]):
        figures = RunFigures()
        for one in rows:
            figures.add(one)
        keys.append(figures.causes[0].key)
    assert len(set(keys)) == 1


def test_a_refusal_counts_under_each_of_its_reasons_without_the_figures(make_result):
    gate = (GateReason("pen", "pen covers the tissue", 0.7, 0.5), GateReason("noise", "it is noise", 0.1, 0.5))
    refused = [
        SlideRow.of(make_result(status="not_assessable", call=None, reason="; ".join(map(str, some)), gate=some))
        for some in (gate, gate[:1])
    ]
    assert causes(*refused) == [("pen covers the tissue", 2), ("it is noise", 1)]
    assert RunFigures().add(refused[0]) == (0, 1)


def test_confidence_falls_into_the_bin_of_what_is_shown():
    assert [confidence_bin(value) for value in (0.0, 0.59949, 0.59951, 0.8999, 0.9, 1.0)] == [0, 0, 1, 4, 4, 4]
    assert len(CONFIDENCE_EDGES) - 2 == confidence_bin(1.0)


def test_work_is_that_of_scored_slides(row):
    figures = RunFigures()
    for seconds in range(1, 21):
        figures.add(replace(row, seconds=float(seconds), n_patches=10))
    figures.add(replace(failure(row, "/s/x.svs", "no"), seconds=1000.0))
    work = figures.work
    assert work is not None
    assert (work.slides, work.seconds, work.median_s, work.most_s) == (20, 210.0, 10.5, 18.0)
    assert work.patches_per_second == 200 / 210
    assert work.slides_per_hour == 3600 * 20 / 210


def test_a_model_without_scores_is_labelled_by_group(row):
    assert label_of(replace(row, her2_score=None, her2_group="positive")) == "positive"
    assert label_of(replace(row, status="not_assessable")) == "not assessable"
