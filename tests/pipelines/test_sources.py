"""Contracts of finding and naming slides."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.sources import check_output, find_slides, known_slides, name_slides, safe_name
from wsi_her2.errors import ConfigurationError, OutputError


def test_folders_are_searched_through_and_other_files_passed_over(tmp_path: Path) -> None:
    (tmp_path / "case 1").mkdir()
    (tmp_path / ".hidden").mkdir()
    for name in ("b.svs", "case 1/a.NDPI", "notes.txt", ".hidden/c.svs", "._b.svs"):
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_slides([tmp_path])] == [
        "b.svs",
        "case 1/a.NDPI",
    ]


def test_a_file_named_twice_counts_once(tmp_path: Path) -> None:
    slide = tmp_path / "a.svs"
    slide.touch()
    assert find_slides([tmp_path, slide]) == [slide]


def test_a_named_file_is_tried_whatever_its_ending(tmp_path: Path) -> None:
    other = tmp_path / "a.dat"
    other.touch()
    assert find_slides([other]) == [other]


def test_an_empty_folder_and_a_missing_path_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no slides in"):
        find_slides([tmp_path])
    with pytest.raises(ConfigurationError, match="no such file"):
        find_slides([tmp_path / "absent"])


def test_equal_stems_get_different_identifiers(tmp_path: Path) -> None:
    paths = [tmp_path / "x" / "s.svs", tmp_path / "y" / "s.svs", tmp_path / "y" / "S.ndpi"]
    identifiers = [source.slide_id for source in name_slides(paths)]
    assert len({identifier.casefold() for identifier in identifiers}) == 3


def test_a_slide_keeps_its_identifier_and_no_other_slide_gets_it(tmp_path: Path) -> None:
    known = {"s": str(tmp_path / "x" / "s.svs")}
    paths = [tmp_path / "a" / "s.svs", tmp_path / "x" / "s.svs"]
    assert [source.slide_id for source in name_slides(paths, known)] == ["s_2", "s"]


@given(st.text(min_size=0, max_size=300))
def test_any_stem_becomes_one_safe_folder_name(stem: str) -> None:
    name = safe_name(stem)
    assert name
    assert not name.startswith((".", "-"))
    assert name not in ("..", ".")
    assert not set(name) & set("/\\:*?\"<>|$`!'&;\x00\n")
    assert len(os.fsencode(name)) <= 120


def test_letters_of_any_script_and_emoji_stay(tmp_path: Path) -> None:
    for stem in ("fluorescence é (560)", "乳腺 [1]", "😐"):
        assert safe_name(stem) == stem


def test_known_slides_pass_over_what_cannot_be_read(tmp_path: Path) -> None:
    for name, content in (("good", json.dumps({"path": "/s.svs"})), ("bad", "{"), ("odd", "[]")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(content)
    assert known_slides(tmp_path) == {"good": "/s.svs"}


def test_an_output_folder_inside_the_input_is_refused(tmp_path: Path) -> None:
    for inside in (tmp_path, tmp_path / "out"):
        with pytest.raises(OutputError, match="inside the input"):
            check_output(inside, [tmp_path])
    assert not (tmp_path / "out").exists()


def test_an_output_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(blocker / "out", [])
