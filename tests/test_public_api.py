"""What `wsi_her2` offers, and nothing else."""

import ast
from pathlib import Path

import pytest

import wsi_her2

DOCUMENTED = [
    "HER2Error",
    "PatchClassifier",
    "PatchGrid",
    "PatchStore",
    "PhantomSpec",
    "Slide",
    "SlideCall",
    "TissueMask",
    "call_slide",
    "detect_tissue",
    "fit_stain",
    "load_classifier",
    "open_slide",
    "plan_patches",
    "render_phantom",
    "slide_from_array",
]


def test_all_is_what_is_documented():
    assert list(wsi_her2.__all__) == DOCUMENTED


def test_all_is_sorted_and_short():
    assert list(wsi_her2.__all__) == sorted(set(wsi_her2.__all__))
    assert len(wsi_her2.__all__) <= 16


@pytest.mark.parametrize("name", wsi_her2.__all__)
def test_every_name_resolves_to_something_with_a_docstring(name):
    assert getattr(wsi_her2, name).__doc__


def test_dir_lists_the_public_names():
    assert dir(wsi_her2) == DOCUMENTED


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        wsi_her2.no_such_name  # noqa: B018


def test_type_checkers_are_told_the_same_names_from_the_same_modules():
    tree = ast.parse(Path(wsi_her2.__file__).read_text("utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {alias.asname: node.module for node in checked.body for alias in node.names}
    assert declared == wsi_her2._HOMES
