"""A slide's cells are one table, written in parts, and a table is there only when all of it is."""

import subprocess
import sys
from dataclasses import fields

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from wsi_her2.cells.field import Cells
from wsi_her2.cells.table import cell_columns, join_parts, rows_of, tumour_cells, write_part

COLUMNS = {
    "x": "int32",
    "y": "int32",
    "patch": "int32",
    "her2_class": "int8",
    "stained_margin": "float",
    "complete_margin": "float",
    "intense_margin": "float",
    "completeness": "float",
    "strength": "float",
    "blush": "float",
    "surround": "float",
    "tumour_probability": "float",
    "tumour": "bool",
}


def field(count, seed=0):
    """A field of cells that lie anywhere, of any class."""
    rng = np.random.default_rng(seed)
    measured = {part.name: rng.random(count).astype(np.float32) for part in fields(Cells)}
    places = {
        "xy": rng.uniform(0, 400, (count, 2)),
        "grade": rng.integers(0, 4, count).astype(np.int8),
        "margins": rng.random((count, 3)).astype(np.float32),
    }
    return Cells(**(measured | places))


@pytest.fixture
def parts(tmp_path):
    """Three parts of 40, 0 and 25 cells; the middle one holds no field."""
    written = []
    for number, count in enumerate((40, 0, 25)):
        cells = field(count, number)
        path = tmp_path / f"part-{number}.parquet"
        rows = rows_of(cells, cells.xy, number)
        write_part(path, [rows] if count else [])
        written.append(path)
    return written


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_parts_join_to_one_table_of_the_documented_columns(parts, tmp_path):
    path = tmp_path / "cells.parquet"
    yielded = [len(columns["tumour"]) for columns in join_parts(parts, path, 0.5)]
    assert yielded == [40, 0, 25]
    assert {column.name: str(column.type) for column in pq.read_schema(path)} == COLUMNS
    whole = pd.read_parquet(path)
    apart = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)
    pd.testing.assert_frame_equal(whole.drop(columns="tumour"), apart)
    assert (whole["tumour"] == (apart["tumour_probability"] >= np.float32(0.5))).all()
    assert 0 < whole["tumour"].sum() < len(whole)


def test_a_table_that_was_not_taken_to_its_end_is_not_there_and_leaves_nothing(parts, tmp_path):
    before = names(tmp_path)
    tables = join_parts(parts, tmp_path / "cells.parquet", 0.5)
    next(tables)
    tables.close()
    assert names(tmp_path) == before


def test_a_part_that_cannot_be_read_leaves_the_table_as_it_was(parts, tmp_path):
    path = tmp_path / "cells.parquet"
    list(join_parts(parts, path, 0.5))
    before, content = names(tmp_path), path.read_bytes()
    parts[2].write_bytes(b"not a table")
    with pytest.raises(Exception, match=r"[Pp]arquet"):
        list(join_parts(parts, path, 0.1))
    assert names(tmp_path) == before
    assert path.read_bytes() == content


def test_the_table_has_its_name_only_after_the_last_part(parts, tmp_path):
    path = tmp_path / "cells.parquet"
    seen = [path.exists() for _ in join_parts(parts, path, 0.5)]
    assert seen == [False, False, False]
    assert path.exists()


def test_a_part_that_cannot_be_written_leaves_nothing(tmp_path):
    cells = field(5)
    broken = rows_of(cells, cells.xy, 0) | {"strength": np.zeros(4, np.float32)}
    with pytest.raises(ValueError):
        write_part(tmp_path / "part.parquet", [broken])
    assert names(tmp_path) == []
    with pytest.raises(OSError):
        write_part(tmp_path / "absent" / "part.parquet", [])


def test_equal_cells_are_equal_bytes(parts, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        list(join_parts(parts, tmp_path / name / "cells.parquet", 0.5))
    assert (tmp_path / "a" / "cells.parquet").read_bytes() == (tmp_path / "b" / "cells.parquet").read_bytes()


def test_cells_stand_at_whole_pixels_with_their_patch():
    cells = field(30)
    rows = rows_of(cells, cells.xy + 1000, 17)
    assert set(rows) == set(COLUMNS) - {"tumour"}
    np.testing.assert_array_equal(np.stack([rows["x"], rows["y"]], axis=1), np.floor(cells.xy + 1000))
    assert rows["x"].dtype == np.int32
    assert rows["patch"].tolist() == [17] * 30
    np.testing.assert_array_equal(rows["her2_class"], cells.grade)


def test_tumour_cells_are_the_tumour_cells_in_order(parts, tmp_path):
    path = tmp_path / "cells.parquet"
    list(join_parts(parts, path, 0.5))
    read = pd.concat([pd.DataFrame(batch) for batch in tumour_cells(path)], ignore_index=True)
    table = pd.read_parquet(path)
    expected = table[table["tumour"]].drop(columns="tumour").reset_index(drop=True)
    pd.testing.assert_frame_equal(read, expected, check_dtype=False)


def test_columns_of_a_table_are_read_whole_whatever_their_type(parts, tmp_path):
    path = tmp_path / "cells.parquet"
    list(join_parts(parts, path, 0.5))
    columns, table = cell_columns(path, list(COLUMNS)), pd.read_parquet(path)
    for name in COLUMNS:
        assert columns[name].dtype == table[name].dtype
        np.testing.assert_array_equal(columns[name], table[name])
    list(join_parts(parts[1:2], path, 0.5))
    assert {name: len(column) for name, column in cell_columns(path, ["x", "tumour"]).items()} == {
        "x": 0,
        "tumour": 0,
    }


def test_counting_cells_imports_neither_pandas_nor_scipy(tmp_path):
    # Each costs a worker half a second; pyarrow imports pandas by itself when it converts arrays.
    code = """
import sys
from pathlib import Path
import numpy as np
from wsi_her2.cells.field import measure_cells
from wsi_her2.cells.table import join_parts, rows_of, tumour_cells, write_part

folder = Path(sys.argv[1])
cells = measure_cells(np.random.default_rng(0).integers(90, 250, (300, 300, 3), np.uint8), 0.25)
assert len(cells.xy) > 10, len(cells.xy)
parts = [folder / "part.parquet"]
write_part(parts[0], [rows_of(cells, cells.xy, 0)])
list(join_parts(parts, folder / "cells.parquet", 0.5))
list(tumour_cells(folder / "cells.parquet"))
print(sorted({"pandas", "scipy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
