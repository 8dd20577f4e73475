"""Patches and cells of a run as SpatialData, the format of the scverse packages for spatial omics."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.exports.slide_exports import slides_to_export
from pipelines.worker.cell_fields import CELL_TABLE
from wsi_her2.errors import MissingExtra
from wsi_her2.reports.patches import gives_shares, side_px0
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.store import PatchStore

_SYSTEM = "global"
"""Coordinate system of level-0 pixels."""


def write_spatial_data(run: Path, folder: Path) -> tuple[int, list[str]]:
    """Write `<slide_id>.zarr` for each slide of a run.

    Each holds the scored patches as squares (`patches`) with a table of their probabilities (`patch_classes`), the
    tumour cells as points (`cells`) and the overview of the slide (`overview`), all in level-0 pixels.

    Parameters
    ----------
    run : pathlib.Path
        Output folder of `score`.
    folder : pathlib.Path

    Returns
    -------
    tuple of int and list of str
        How many slides, and those of which nothing was scored.

    Raises
    ------
    MissingExtra
        spatialdata is not installed.
    ConfigurationError
        The run has no results.
    """
    try:
        import spatialdata  # noqa: F401
    except ImportError as error:
        raise MissingExtra(
            f"SpatialData needs the package of that name, which no extra brings ({error}): pip install spatialdata"
        ) from error
    written, without = 0, []
    for result, store in slides_to_export(run, folder):
        if store is None or not result.n_patches:
            without.append(result.slide_id)
            continue
        _write_slide(folder, result, store, run / result.slide_id / CELL_TABLE)
        written += 1
    return written, without


def _write_slide(folder: Path, result: SlideResult, store: PatchStore, cells: Path) -> None:
    from spatialdata import SpatialData

    shapes, table = _patches(store)
    points = {"cells": _cells(cells)} if result.cells is not None and cells.is_file() else {}
    data = SpatialData(
        images={"overview": _overview(store)},
        shapes={"patches": shapes},
        points=points,
        tables={"patch_classes": table},
        attrs={"wsi_her2": _described(result)},
    )
    # Written beside, then renamed, so that what has its name is whole.
    partial = folder / f".{result.slide_id}.partial.zarr"
    shutil.rmtree(partial, ignore_errors=True)
    data.write(partial)
    final = folder / f"{result.slide_id}.zarr"
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _patches(store: PatchStore) -> tuple[Any, Any]:
    """The scored patches as squares, and the table of what was found in them."""
    import anndata
    import geopandas
    import pandas as pd
    import shapely
    from spatialdata.models import ShapesModel, TableModel
    from spatialdata.transformations import Identity

    scored = np.flatnonzero(~np.isnan(store.probabilities).any(axis=1))
    x, y = store.xy[scored].astype(float).T
    side = side_px0(store)
    squares = geopandas.GeoDataFrame({"geometry": shapely.box(x, y, x + side, y + side)}, index=scored)
    shapes = ShapesModel.parse(squares, transformations={_SYSTEM: Identity()})
    probabilities = store.probabilities[scored]
    labels = main_classes(probabilities, store.classes, gives_shares(store))
    found = pd.DataFrame(
        {
            "region": pd.Categorical(["patches"] * len(scored)),
            "patch": scored,
            "tissue": store.tissue[scored],
            "label": pd.Categorical([store.classes[label] for label in labels], list(store.classes)),
        },
        index=[str(row) for row in scored],
    )
    table = anndata.AnnData(X=probabilities, obs=found, var=pd.DataFrame(index=list(store.classes)))
    return shapes, TableModel.parse(table, region="patches", region_key="region", instance_key="patch")


def _cells(path: Path) -> Any:
    """The tumour cells as points."""
    import pandas as pd
    from spatialdata.models import PointsModel
    from spatialdata.transformations import Identity

    cells = pd.read_parquet(path)
    cells = cells[cells["tumour"]].drop(columns="tumour").reset_index(drop=True)
    return PointsModel.parse(cells, coordinates={"x": "x", "y": "y"}, transformations={_SYSTEM: Identity()})


def _overview(store: PatchStore) -> Any:
    from spatialdata.models import Image2DModel
    from spatialdata.transformations import Scale, Sequence, Translation

    overview = store.read_overview().overview
    box, (height, width) = overview.box, overview.rgb.shape[:2]
    placed = Sequence(
        [
            Scale([box.width / width, box.height / height], axes=("x", "y")),
            Translation([box.x, box.y], axes=("x", "y")),
        ]
    )
    pixels = np.moveaxis(overview.rgb, -1, 0)
    return Image2DModel.parse(
        pixels, dims=("c", "y", "x"), c_coords=["r", "g", "b"], transformations={_SYSTEM: placed}
    )


def _described(result: SlideResult) -> dict[str, Any]:
    call, reader = result.call, result.reader
    return {
        "slide_id": result.slide_id,
        "her2_score": call.score if call is not None else None,
        "mpp": reader.mpp if reader is not None else None,
        "model": result.model.name,
        "version": result.version,
        "fingerprint": result.fingerprint,
        "note": "research use only",
    }
