import pytest

from wsi_her2.atomic import text_beside, write_bytes


def test_a_file_that_could_not_be_finished_leaves_the_old_one_and_nothing_beside(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def stopped_half_way():
        with text_beside(path) as stream:
            stream.write("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_final_name_does_not_exist_before_the_file_is_whole(tmp_path):
    path = tmp_path / "page.html"
    with text_beside(path) as stream:
        stream.write("half")
        assert not path.exists()
    assert path.read_text() == "half"
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_name_that_is_not_unicode_is_written_escaped(tmp_path):
    with text_beside(tmp_path / "t") as stream:
        stream.write("caf\udce9")
    assert (tmp_path / "t").read_bytes() == b"caf\\udce9"
