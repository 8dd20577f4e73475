import csv

import pytest

from tests.reports.conftest import summary_of
from wsi_her2.reports.slide_table import SLIDE_COLUMNS, SlideRow, guarded, slide_row, unguarded, write_slides_csv
from wsi_her2.scoring.second_opinion import compare_calls

CONTRACT = (
    "slide_id, path, status, reason, modality, her2_score, her2_group, her2_low, confidence, calibration, "
    "h_score, pct_0, pct_1, pct_2, pct_3, pct_complete_membrane, n_patches, tumour_patches, tissue_mm2, mpp, "
    "mpp_source, backend, model, model_sha256, unreadable_fraction, seconds, "
    "cells, second_opinion, review"
)


def test_columns_are_those_of_the_contract(make_result):
    assert ", ".join(SLIDE_COLUMNS) == CONTRACT
    assert tuple(slide_row(make_result())) == SLIDE_COLUMNS


def test_numbers_are_rounded_as_documented(make_result, scored):
    row = slide_row(make_result(pct_complete_membrane=12.3456))
    assert row["pct_3"] == f"{scored.call.percentages['3+']:.2f}"
    assert row["confidence"] == f"{scored.call.confidence:.3f}"
    assert row["mpp"] == "0.252346"
    assert row["pct_complete_membrane"] == "12.35"
    assert row["unreadable_fraction"] == "0.0123"
    assert row["seconds"] == "3.75"


def test_a_total_is_not_added_to_its_parts(make_result):
    assert slide_row(make_result(timings_s={"read": 1.0, "predict": 2.0, "total": 2.5}))["seconds"] == "2.50"


def test_what_is_not_known_of_a_failed_slide_is_empty(make_result):
    failed = make_result(
        status="failed",
        reason="no",
        call=None,
        reader=None,
        tissue_mm2=None,
        unreadable_fraction=None,
        timings_s={},
    )
    filled = {column for column, value in slide_row(failed).items() if value}
    assert filled == {"slide_id", "path", "status", "reason", "modality", "calibration", "model", "model_sha256"}


def test_what_cells_say_stands_beside_the_call_and_is_empty_without_them(make_result):
    cells, patches = summary_of(20, 20, 20, 140), summary_of(190, 10, 0, 0)
    second = compare_calls(cells.call, patches.call, "patches", 5.0)
    row = slide_row(make_result(call=cells.call, cells=cells, second_opinion=second, pct_complete_membrane=80.0))
    assert (row["cells"], row["second_opinion"], row["review"]) == ("200", "0", "true")
    assert (row["her2_score"], row["pct_3"], row["pct_complete_membrane"]) == ("3+", "70.00", "80.00")
    agreeing = compare_calls(cells.call, cells.call, "patches", 5.0)
    assert slide_row(make_result(cells=cells, second_opinion=agreeing))["review"] == "false"
    without = slide_row(make_result())
    assert [without[name] for name in ("cells", "second_opinion", "review", "pct_complete_membrane")] == [""] * 4


@pytest.mark.parametrize(("low", "cell"), [(True, "true"), (False, "false"), (None, "")])
def test_her2_low_is_true_false_or_empty(make_result, scored, low, cell):
    from dataclasses import replace

    assert slide_row(make_result(call=replace(scored.call, her2_low=low)))["her2_low"] == cell


@pytest.mark.parametrize(
    "name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "'quoted", "plain", "", "a=b", '🙂, "é"\n']
)
def test_a_file_name_is_no_formula_and_can_be_had_back(make_result, tmp_path, name):
    write_slides_csv(tmp_path / "slides.csv", [SlideRow.of(make_result(slide_id=name, path=name, reason=name))])
    with (tmp_path / "slides.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    for column in ("slide_id", "path", "reason"):
        assert not row[column].startswith(("=", "+", "-", "@", "\t"))
        assert unguarded(row[column]) == name
    assert unguarded(guarded(name)) == name


def test_one_slide_one_row_in_the_order_given(make_result, tmp_path):
    write_slides_csv(tmp_path / "slides.csv", (SlideRow.of(make_result(slide_id=f"s{i}")) for i in range(3)))
    assert [line.split(",")[0] for line in (tmp_path / "slides.csv").read_text().splitlines()] == [
        "slide_id",
        "s0",
        "s1",
        "s2",
    ]
