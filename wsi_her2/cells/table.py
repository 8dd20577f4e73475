"""The table of a slide's cells, in Parquet: written in parts by many workers, put together by one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from wsi_her2.atomic import file_beside
from wsi_her2.cells.field import Cells
from wsi_her2.cells.grading import BORDERS

if TYPE_CHECKING:
    import pyarrow

MARGINS = tuple(f"{border}_margin" for border in BORDERS)
"""Columns of `Cells.margins`, in order."""

_MEASURED = {
    "x": "int32",
    "y": "int32",
    "patch": "int32",
    "her2_class": "int8",
    **dict.fromkeys(MARGINS, "float32"),
    "completeness": "float32",
    "strength": "float32",
    "blush": "float32",
    "surround": "float32",
    "tumour_probability": "float32",
}
"""Columns of a part: level-0 pixels of the nucleus, row of its patch in the store, and the fields of `Cells`."""


def rows_of(cells: Cells, xy_level0: npt.NDArray[np.float64], patch: int) -> dict[str, npt.NDArray[Any]]:
    """The cells of a field as columns of a part.

    Parameters
    ----------
    cells : Cells
    xy_level0 : float64 N x 2
        Their places, level-0 pixels.
    patch : int
        Row of the patch in the store.
    """
    x, y = np.floor(xy_level0).astype(np.int32).T
    return {
        "x": x,
        "y": y,
        "patch": np.full(len(x), patch, np.int32),
        "her2_class": cells.grade,
        **dict(zip(MARGINS, cells.margins.T, strict=True)),
        "completeness": cells.completeness,
        "strength": cells.strength,
        "blush": cells.blush,
        "surround": cells.surround,
        "tumour_probability": cells.tumour_probability,
    }


def write_part(path: Path, fields: Sequence[dict[str, npt.NDArray[Any]]]) -> None:
    """Write the cells of some fields, beside the target and then renamed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        name: _arrow(np.concatenate([np.zeros(0, dtype), *(field[name] for field in fields)]).astype(dtype))
        for name, dtype in _MEASURED.items()
    }
    with file_beside(path) as beside:
        pq.write_table(pa.table(columns), beside)


def join_parts(
    parts: Sequence[Path], path: Path, min_tumour_probability: float
) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Write all parts as one table with a column `tumour`, yielding the columns of each part as it is written.

    Parameters
    ----------
    parts : sequence of pathlib.Path
    path : pathlib.Path
        It takes its name once the last part is written, so the caller must take all of them.
    min_tumour_probability : float
        Cells that are less probably of the tumour do not count; see `Cells.tumour_probability`.
    """
    import pyarrow.parquet as pq

    if not parts:
        return
    with file_beside(path) as beside, ExitStack() as opened:
        writer = None
        for part in parts:
            table = _read(part)
            columns = {name: _numpy(table, name) for name in table.column_names}
            columns["tumour"] = columns["tumour_probability"] >= np.float32(min_tumour_probability)
            table = table.append_column("tumour", _arrow(columns["tumour"]))
            writer = writer or opened.enter_context(pq.ParquetWriter(beside, table.schema))
            writer.write_table(table)
            yield columns


def tumour_cells(path: Path) -> Iterator[dict[str, list[Any]]]:
    """The tumour cells of a slide's table, some thousands at a time: `x`, `y`, `her2_class` and the measures."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches(batch_size=8192):
            columns = batch.filter(batch["tumour"]).to_pydict()
            yield {name: columns[name] for name in columns if name != "tumour"}


def cell_columns(path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """Some columns of a slide's table, whole."""
    table = _read(path, list(names))
    columns = {name: _numpy(table, name) for name in names if name != "tumour"}
    if "tumour" in names:
        columns["tumour"] = _bits(table, "tumour")
    return columns


def _read(path: Path, columns: list[str] | None = None) -> pyarrow.Table:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as table:
        return table.read(columns=columns)


def _arrow(values: npt.NDArray[Any]) -> pyarrow.Array:
    """A column of numbers or truths, made of its bytes: pyarrow's own conversion imports pandas first."""
    import pyarrow as pa

    data = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(values.dtype), len(values), [None, pa.py_buffer(data)])


def _numpy(table: pyarrow.Table, name: str) -> npt.NDArray[Any]:
    """A column of numbers; by way of DLPack for the same reason."""
    chunks = [np.from_dlpack(chunk) for chunk in table[name].chunks]
    return np.concatenate(chunks) if chunks else np.zeros(0, _MEASURED[name])


def _bits(table: pyarrow.Table, name: str) -> npt.NDArray[np.bool_]:
    """A column of truths, which are bits; DLPack does not take them."""
    import pyarrow as pa

    chunks = [np.from_dlpack(chunk.cast(pa.uint8())) for chunk in table[name].chunks]
    return np.concatenate([np.zeros(0, np.uint8), *chunks]).astype(bool)
