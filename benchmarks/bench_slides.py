"""Slides to measure speed on: one field of digital tissue, repeated over a section of any size on any glass."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from wsi_her2.phantom import PhantomSpec
from wsi_her2.phantom.render import make_phantom
from wsi_her2.slides.pyramid import write_pyramid

MPP = 0.25
"""Of level 0: a 40x scan."""

_FIELD_MM = 1.2
_GLASS = (238, 236, 241)


@dataclass(frozen=True)
class Section:
    """A square of tissue amid glass; called by `write_pyramid` for the pixels of a region.

    Attributes
    ----------
    field : pathlib.Path
        Pixels of the tissue (`.npy`, uint8 H x W x 3), mirrored as often as it takes.
    tissue_px, slide_px : int
        Sides.
    """

    field: Path
    tissue_px: int
    slide_px: int

    def __call__(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Pixels of a region (uint8 height x width x 3)."""
        field = np.load(self.field, mmap_mode="r")
        region = np.empty((height, width, 3), np.uint8)
        # A scanner's glass is not all of one level, or its tiles would be smaller than real ones.
        noise = np.random.default_rng(0).integers(-1, 2, (height, width, 1))
        region[:] = np.asarray(_GLASS) + noise
        margin = (self.slide_px - self.tissue_px) // 2
        down, across = (np.arange(start, start + count) - margin for start, count in ((y, height), (x, width)))
        inside_down, inside_across = ((at >= 0) & (at < self.tissue_px) for at in (down, across))
        if inside_down.any() and inside_across.any():
            rows, columns = _mirrored(down[inside_down], len(field)), _mirrored(across[inside_across], len(field))
            # Both are runs of a mirrored line, so the smallest box around them holds them all.
            box = field[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            region[np.ix_(inside_down, inside_across)] = box[np.ix_(rows - rows.min(), columns - columns.min())]
        return region


def draw_field(folder: Path, seed: int = 77) -> Path:
    """Draw the tissue that all sections are made of, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "field.npy"
    if not path.exists():
        spec = PhantomSpec(score="2+", width_mm=_FIELD_MM, height_mm=_FIELD_MM, mpp=MPP, seed=seed, look="aperio")
        phantom = make_phantom(spec, filled=True)
        np.save(path, phantom.read(0, 0, spec.width_px, spec.height_px))
    return path


def write_section(
    folder: Path, name: str, tissue_mm: float, slide_mm: float, workers: int, height_mm: float | None = None
) -> Path:
    """Write a slide as a scanner does that stores every other level: 1, 4, 16; a slide that is there is kept.

    Parameters
    ----------
    folder : pathlib.Path
    name : str
        Of the file, without suffix.
    tissue_mm, slide_mm : float
        Sides of the tissue and of the slide.
    workers : int
        Processes.
    height_mm : float, optional
        Of the slide, where it is no square: what lies below is left out.
    """
    path = folder / f"{name}.tif"
    if path.exists():
        return path
    tissue_px, slide_px = round(tissue_mm * 1000 / MPP), round(slide_mm * 1000 / MPP)
    height_px = slide_px if height_mm is None else round(height_mm * 1000 / MPP)
    section = Section(draw_field(folder), tissue_px, slide_px)
    levels = 1 + 2 * max(0, math.ceil(math.log(slide_px / 2500, 4)))
    dense = write_pyramid(
        folder / f"{name}-dense.tif", slide_px, height_px, section, mpp=MPP, levels=levels, workers=workers
    )
    _every_other_level(dense, path)
    dense.unlink()
    return path


def _every_other_level(source: Path, target: Path) -> None:
    with tifffile.TiffFile(source) as tiff, tifffile.TiffWriter(target, bigtiff=True) as writer:
        for number, page in enumerate(tiff.pages[::2]):

            def tiles(page=page):  # type: ignore[no-untyped-def]
                for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
                    tiff.filehandle.seek(offset)
                    yield tiff.filehandle.read(size)

            writer.write(
                tiles(),
                shape=page.shape,
                dtype=np.uint8,
                tile=(page.tilelength, page.tilewidth),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=int(number > 0),
                resolution=page.resolution,
                resolutionunit="CENTIMETER",
                metadata=None,
            )


def _mirrored(positions: np.ndarray, size: int) -> np.ndarray:
    folded = positions % (2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)
