"""Tables of truth are read as people write them, and wrong rows are named."""

from importlib.util import find_spec

import pandas as pd
import pytest

from wsi_her2.errors import DatasetError, MissingExtra
from wsi_her2.learning.datasets import read_truth
from wsi_her2.learning.datasets.truth import is_truth_table, read_slide_labels

PUBLISHED = "CaseNo,HeR2 SCORE,PERCENTAGE CELLS WITH COMPLETE MEMBRANE STAINING IRRESPECTIVE OF INTENSITY\n"


def written(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "truth.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_the_published_columns_are_read(tmp_path):
    truths, findings = read_truth(written(tmp_path, PUBLISHED + "1,0,0\n11,3,95\n12,2+,\n"))
    assert findings == ()
    assert (truths["11"].grade, truths["11"].pct_complete_membrane) == ("3+", 95.0)
    assert (truths["12"].grade, truths["12"].pct_complete_membrane) == ("2+", None)


@pytest.mark.parametrize(
    "text",
    [
        "case no ; Her2  score\n007;1+\n",
        "caseno\tHER2_SCORE\n7.0\t1.0\n",
        '" CaseNo "," HeR2 SCORE"\n 7 , 1 \n,\n',
        "Case Number,her2-score\n7,1 +\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_case_spacing_separators_and_ways_to_write_a_score_do_not_matter(tmp_path, text, encoding):
    truths, findings = read_truth(written(tmp_path, text, encoding))
    assert findings == ()
    assert {case: truth.grade for case, truth in truths.items()} == {"7": "1+"}


def test_rows_that_cannot_be_used_are_named_by_line(tmp_path):
    text = PUBLISHED + "1,4,0\n,2,0\n3,3,150\n4,1,0\n4,1,0\n5,0,0\n5,3,0\n6,,\n"
    truths, findings = read_truth(written(tmp_path, text))
    assert sorted(truths) == ["3", "4"]
    assert truths["3"].pct_complete_membrane is None
    assert [(f.severity, f.code, f.message.split(":")[0]) for f in findings] == [
        ("error", "bad-row", "line 2"),
        ("error", "bad-row", "line 3"),
        ("warning", "bad-percentage", "line 4"),
        ("warning", "duplicate-case", "line 6"),
        ("error", "duplicate-case", "line 8"),
        ("error", "bad-row", "line 9"),
    ]


def test_missing_columns_and_files_are_errors_that_say_what_is_needed(tmp_path):
    with pytest.raises(DatasetError, match="needed are CaseNo and HeR2 SCORE"):
        read_truth(written(tmp_path, "a,b\n1,2\n"))
    with pytest.raises(DatasetError, match="no such table"):
        read_truth(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(DatasetError, match="CSV in UTF-8"):
        read_truth(tmp_path / "binary.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(DatasetError, match="CSV in UTF-8"):
        read_truth(tmp_path / "empty.csv")


def test_a_workbook_is_read_where_openpyxl_is_there_and_otherwise_says_what_to_install(tmp_path):
    path = tmp_path / "truth.xlsx"
    if find_spec("openpyxl") is None:
        path.write_bytes(b"PK")
        with pytest.raises(MissingExtra, match="pip install openpyxl"):
            read_truth(path)
        return
    pd.DataFrame({"CaseNo": [1, 2], "HeR2 SCORE": [0, 3]}).to_excel(path, index=False)
    assert {case: truth.grade for case, truth in read_truth(path)[0].items()} == {"1": "0", "2": "3+"}


def test_tables_of_slides_give_a_class_and_perhaps_a_group(tmp_path):
    path = written(tmp_path, "slide_id,label,patient\na,3,P1\nb,other,\nc,2+,P2\nc,1+,P2\nd,,\n")
    assert not is_truth_table(path)
    labels, findings = read_slide_labels(path)
    assert [(t.slide, t.label, t.group) for t in labels.values()] == [("a", "3+", "P1"), ("b", "other", None)]
    assert [f.code for f in findings] == ["duplicate-slide", "bad-row"]
    with pytest.raises(DatasetError, match="slide_id and label"):
        read_slide_labels(written(tmp_path, "x,y\n1,2\n"))
