import csv

import numpy as np
import pytest

from wsi_her2.reports.patch_table import write_patch_csv


def read(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_columns_are_those_of_the_contract(scored, tmp_path):
    write_patch_csv(tmp_path / "patches.csv", scored.store, scored.classes)
    header = (tmp_path / "patches.csv").read_text().splitlines()[0]
    assert header == "x,y,width,height,tissue,prob_other,prob_0,prob_1+,prob_2+,prob_3+,label"


def test_each_scored_patch_and_no_other_has_a_row_in_whole_level_0_pixels(scored, tmp_path):
    write_patch_csv(tmp_path / "patches.csv", scored.store, scored.classes)
    rows = read(tmp_path / "patches.csv")
    kept = ~np.isnan(scored.store.probabilities).any(axis=1)
    assert len(rows) == kept.sum() == scored.grid.n_patches - 1
    assert [(int(row["x"]), int(row["y"])) for row in rows] == [tuple(corner) for corner in scored.store.xy[kept]]
    assert {(row["width"], row["height"]) for row in rows} == {("128", "128")}
    assert [row["label"] for row in rows] == scored.labels
    assert {row["prob_other"] for row in rows} == {"0.0309", "0.8765"}


def test_a_slide_without_patches_gives_the_header_alone(empty, tmp_path):
    write_patch_csv(tmp_path / "patches.csv", empty.store, empty.classes)
    assert read(tmp_path / "patches.csv") == []


def test_wrong_classes_are_refused_and_leave_no_file(scored, tmp_path):
    with pytest.raises(ValueError, match="store holds"):
        write_patch_csv(tmp_path / "patches.csv", scored.store, ("0", "1+", "2+", "3+", "other"))
    assert list(tmp_path.iterdir()) == []


def test_a_real_core_is_written_whole(core, tmp_path):
    write_patch_csv(tmp_path / "patches.csv", core.store, core.classes)
    assert len(read(tmp_path / "patches.csv")) == core.grid.n_patches - 1
