"""A file that somebody else wrote is read only if it is a file, and only up to a size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wsi_her2.bounded_file import read_bounded


def test_a_file_of_exactly_the_limit_is_read_and_a_longer_one_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bounded(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="larger than 4 bytes"):
        read_bounded(tmp_path / "file", 4)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "circle", "nothing"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path.name)
    with pytest.raises(OSError, match=r"file|directory|symbolic"):
        read_bounded(path, 10)
