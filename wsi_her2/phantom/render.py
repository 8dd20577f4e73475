"""Rendering a digital slide: drawn once as cells and tissue, then region by region as pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_her2.errors import OutputError
from wsi_her2.phantom.artefacts import Artefacts, defocus, draw_artefacts, overlay
from wsi_her2.phantom.cells import CellTable, draw_style, place_cells
from wsi_her2.phantom.composition import PhantomError, PhantomSpec
from wsi_her2.phantom.drawing import Planes, TissueStyle, Window, draw_planes, draw_tissue_style
from wsi_her2.phantom.optics import HALO_UM, to_rgb
from wsi_her2.phantom.stains import Look, draw_look
from wsi_her2.phantom.tissue import Layout, draw_architecture
from wsi_her2.phantom.truth import CellFormat, PhantomTruth, check_cell_format, derive_truth, write_truth
from wsi_her2.slides.pyramid import write_pyramid

# Regions are always put together from the same blocks. Filters round differently at the border of an image,
# so blocks of varying position would differ by a grey level here and there.
BLOCK_PX = 1024


@dataclass(frozen=True)
class Phantom:
    """A drawn slide of which any region can be read; it is picklable and holds no file.

    Attributes
    ----------
    spec
        The slide as asked for.
    layout
        Its tissue on a coarse grid.
    cells
        All its cells, structured after `CELL_DTYPE`.
    style, look, artefacts
        Stroma and background, stain and scanner, and what lies on the glass.
    truth
        What is true of the slide.
    """

    spec: PhantomSpec
    layout: Layout
    cells: CellTable
    style: TissueStyle
    look: Look
    artefacts: Artefacts
    truth: PhantomTruth

    def read(self, x: int, y: int, width: int, height: int) -> NDArray[np.uint8]:
        """Pixels of a region of level 0.

        Parameters
        ----------
        x, y
            Top-left corner in level-0 pixels.
        width, height
            Size in pixels; the region must lie within the slide.

        Returns
        -------
        numpy.ndarray
            ``uint8`` RGB, ``height x width x 3``. A pixel is the same in whichever region it is read.

        Raises
        ------
        PhantomError
            The region reaches beyond the slide.
        """
        spec = self.spec
        inside = 0 <= x <= x + width <= spec.width_px and 0 <= y <= y + height <= spec.height_px
        if not inside or width < 1 or height < 1:
            raise PhantomError(
                f"the region {x}, {y}, {width} x {height} px does not lie within the slide of "
                f"{spec.width_px} x {spec.height_px} px."
            )
        region = np.empty((height, width, 3), np.uint8)
        for top in range(y // BLOCK_PX * BLOCK_PX, y + height, BLOCK_PX):
            for left in range(x // BLOCK_PX * BLOCK_PX, x + width, BLOCK_PX):
                x0, y0 = max(x, left), max(y, top)
                x1, y1 = min(x + width, left + BLOCK_PX), min(y + height, top + BLOCK_PX)
                block = self._block(left, top)
                region[y0 - y : y1 - y, x0 - x : x1 - x] = block[y0 - top : y1 - top, x0 - left : x1 - left]
        return region

    def _block(self, left: int, top: int) -> NDArray[np.uint8]:
        width = min(BLOCK_PX, self.spec.width_px - left)
        height = min(BLOCK_PX, self.spec.height_px - top)
        return self.draw(left, top, width, height)[0]

    def draw(self, x: int, y: int, width: int, height: int) -> tuple[NDArray[np.uint8], Planes]:
        """Pixels and dyes of a region, drawn as one piece.

        Parameters
        ----------
        x, y, width, height
            The region, in level-0 pixels.

        Returns
        -------
        tuple
            The ``uint8`` pixels, and the planes of dye under them. Unlike those of `read`, pixels can differ
            by a grey level between regions that overlap.
        """
        spec = self.spec
        halo = int(np.ceil(HALO_UM / spec.mpp))
        window = Window(x - halo, y - halo, width + 2 * halo, height + 2 * halo, spec.mpp, spec.seed)
        planes = draw_planes(window, self.layout, self.cells, self.style)
        rgb = to_rgb(
            planes,
            window,
            self.look,
            spec.modality,
            defocus(self.artefacts, window),
            overlay(self.artefacts, window),
        )
        cut = np.s_[halo : halo + height, halo : halo + width]
        inner = Planes(
            planes.hematoxylin[cut], planes.dab[cut], planes.eosin[cut], planes.neutral[cut], planes.body[cut]
        )
        return np.ascontiguousarray(rgb[cut]), inner


def make_phantom(spec: PhantomSpec, *, filled: bool = False) -> Phantom:
    """Draw the tissue and the cells of a slide, but none of its pixels yet.

    Parameters
    ----------
    spec
        The slide asked for.
    filled
        Let the tissue fill the whole field, as in a patch cut out of a slide.

    Returns
    -------
    Phantom
        The slide. Tissue, stain and artefacts depend on the seed separately: another look or the H&E
        rendition of a seed shows the same cells.
    """
    architecture = draw_architecture(spec, np.random.default_rng([spec.seed, 1]), filled=filled)
    rng = np.random.default_rng([spec.seed, 2])
    cells = place_cells(spec, architecture, draw_style(rng), rng)
    style = draw_tissue_style(rng, "edge" in spec.artefacts)
    look = draw_look(spec.look, np.random.default_rng([spec.seed, 3]))
    artefacts = draw_artefacts(spec, np.random.default_rng([spec.seed, 4]))
    truth = derive_truth(spec, architecture, cells)
    return Phantom(spec, architecture.layout, cells, style, look, artefacts, truth)


def render_phantom(
    spec: PhantomSpec,
    path: str | os.PathLike[str],
    *,
    workers: int = 1,
    cell_format: CellFormat = "csv",
) -> PhantomTruth:
    """Write a digital slide and its truth.

    Parameters
    ----------
    spec
        The slide asked for.
    path
        The TIFF to write. ``<stem>.truth.json`` and ``<stem>.cells.csv`` (or ``.parquet``) go beside it,
        before the slide takes its name.
    workers
        Processes that draw; the files are the same for any number.
    cell_format
        Format of the table of cells; ``"parquet"`` needs pyarrow.

    Returns
    -------
    PhantomTruth
        What is true of the slide, as in the truth file.

    Raises
    ------
    PhantomError
        The slide cannot hold what was asked for.
    OutputError
        The files cannot be written.
    """
    check_cell_format(cell_format)
    phantom = make_phantom(spec)
    write_phantom(phantom, path, workers=workers, cell_format=cell_format)
    return phantom.truth


def write_phantom(
    phantom: Phantom,
    path: str | os.PathLike[str],
    *,
    workers: int = 1,
    cell_format: CellFormat = "csv",
) -> None:
    """Write a drawn slide and its truth; parameters and errors as of `render_phantom`."""
    check_cell_format(cell_format)
    target, spec = Path(path), phantom.spec
    if phantom.truth.tumour_cells == 0:
        raise PhantomError(
            f"a slide of {spec.width_mm} x {spec.height_mm} mm with a tumour share of {spec.tumour_share} "
            "holds no tumour cell. Ask for a larger slide or more tumour."
        )
    try:
        write_truth(phantom.truth, phantom.cells, target, cell_format)
    except OSError as error:
        raise OutputError(f"cannot write the truth of {target}: {error}.") from error
    write_pyramid(
        target,
        spec.width_px,
        spec.height_px,
        phantom.read,
        mpp=spec.mpp,
        quality=phantom.look.jpeg_quality,
        description=f"wsi-her2 digital phantom, score {phantom.truth.score}, seed {spec.seed}, not a patient",
        workers=workers,
    )
