"""Miniature data sets: drawn once, copied for each test that spoils one."""

import shutil

import pytest

from wsi_her2.learning.miniature import make_miniatures


@pytest.fixture(scope="session")
def miniatures(tmp_path_factory):
    """Where each kind lies. Not to be changed."""
    return make_miniatures(tmp_path_factory.mktemp("miniatures"), seed=7)


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
