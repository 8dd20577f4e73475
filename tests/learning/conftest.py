"""Miniature data sets: drawn once, copied for each test that spoils one."""

import shutil
from typing import get_args

import pytest

from tests.made_once import made_once
from wsi_her2.learning.miniature import Kind, make_miniatures


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory):
    """Where each kind lies. Not to be changed."""
    folder = made_once(tmp_path_factory, "miniatures", lambda folder: make_miniatures(folder, seed=7))
    return {kind: folder / kind for kind in get_args(Kind)}


def _copied(kind):
    @pytest.fixture
    def copy(miniatures, tmp_path):
        return shutil.copytree(miniatures[kind], tmp_path / kind)

    return copy


bci = _copied("bci")
breakhis = _copied("breakhis")
warwick = _copied("warwick")
published = _copied("published")


@pytest.fixture
def found():
    """Findings of one code."""

    def of_code(reading, code):
        return [finding for finding in reading.findings if finding.code == code]

    return of_code
