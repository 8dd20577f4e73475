"""The harness notices what it is for: without this, no finding would mean nothing."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.fuzz.images import aperio, hamamatsu, pyramid
from tests.fuzz.mutations import damaged_slide, damaged_tree
from tests.fuzz.pool import Child
from tests.fuzz.tiff_bytes import layout_of
from wsi_her2.slides.slide import open_slide


@pytest.mark.parametrize(
    ("name", "outcome", "what"),
    [
        ("nothing", "ok", ""),
        ("refuse", "refused", "SlideReadError"),
        ("raise", "finding", "LookupError"),
        ("memory", "finding", "memory"),
        ("write here", "finding", "file outside"),
        ("write there", "finding", "file outside"),
        ("crash", "third-party crash", "SIGSEGV"),
    ],
)
def test_what_came_of_an_input_is_seen(child: Child, name: str, outcome: str, what: str) -> None:
    verdict = child.use("itself", Path(name), 0)
    assert (verdict.outcome, verdict.what) == (outcome, what)


def test_an_input_that_hangs_is_ended_and_the_next_one_is_used(tmp_path: Path) -> None:
    hasty = Child(tmp_path / "child", seconds=0.3)
    try:
        verdict = hasty.use("itself", Path("hang"), 0)
        assert (verdict.outcome, verdict.what) == ("finding", "time")
        assert verdict.where.startswith("targets.py:")
        assert hasty.use("itself", Path("nothing"), 0).outcome == "ok"
    finally:
        hasty.close()


@pytest.mark.parametrize(
    ("content", "vendor"), [(pyramid(), "generic-tiff"), (aperio(), "aperio"), (hamamatsu(), "hamamatsu")]
)
def test_slides_that_are_written_byte_by_byte_are_slides(content: bytes, vendor: str, tmp_path: Path) -> None:
    (tmp_path / "slide.tif").write_bytes(content)
    with open_slide(tmp_path / "slide.tif") as slide:
        assert slide.properties["openslide.vendor"] == vendor
        assert len(slide.levels) > 1
    layout = layout_of(content)
    assert layout is not None
    assert len(layout.directories) > 1


def test_equal_seeds_make_equal_damage() -> None:
    content, tree = pyramid(), {"a": [1, {"b": [2, 3]}], "c": "x"}
    slides = [damaged_slide(content, random.Random(seed)) for seed in (1, 1, 2)]
    assert slides[0] == slides[1] != slides[2]
    assert all(damaged != content for damaged in slides)
    trees = [str(damaged_tree(tree, random.Random(seed))) for seed in (5, 5, 7)]
    assert trees[0] == trees[1] != trees[2]
