"""The patches of a slide as a pyramidal OME-TIFF that lies over the slide: class colours, or probabilities.

The image starts at level-0 pixel (0, 0) of the slide and covers all of it, at a scale that divides the side of a
patch where it can. It is written tile by tile from the patch grid alone: memory holds few of its pixels at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import numpy as np
import numpy.typing as npt

from wsi_her2.atomic import file_beside
from wsi_her2.reports.palette import NOT_SCORED, OTHER, colour_of
from wsi_her2.reports.patches import gives_shares, side_px0
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.slides.store import PatchStore

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

TILE_PX = 256
_FINEST, _COARSEST, _USUAL = 8, 64, 32
_SMALLEST_LEVEL_PX = 256
_PAPER = (255, 255, 255)
_OTHER_COLOUR = (205, 206, 208)


@dataclass(frozen=True)
class SlideExtent:
    """What the image must cover.

    Attributes
    ----------
    width, height : int
        Of level 0, pixels.
    mpp : float
        Of level 0, um/px.
    """

    width: int
    height: int
    mpp: float


def downsample_for(side_px0: int) -> int:
    """Level-0 pixels per pixel of the image: a divisor of the patch side near 32; 32 where none lies near.

    Parameters
    ----------
    side_px0 : int
        Side of a patch in level-0 pixels.
    """
    fitting = [number for number in range(_FINEST, _COARSEST + 1) if side_px0 % number == 0]
    return min(fitting, key=lambda number: (abs(number - _USUAL), number)) if fitting else _USUAL


def write_class_map(
    path: Path, store: PatchStore, extent: SlideExtent, *, name: str, notes: Mapping[str, str] | None = None
) -> None:
    """Write the classes in their colours, RGB.

    Where no patch was scored the image is white; patches of 'other' are light grey, and patches that were planned
    but have no result dark grey. On coarser levels a pixel is the mean of the finer ones.

    Parameters
    ----------
    path : pathlib.Path
    store : PatchStore
    extent : SlideExtent
        Of the slide.
    name : str
        Of the image.
    notes : mapping of str to str, optional
        Kept in the file as key and value.
    """
    classes = store.classes
    colours = [_OTHER_COLOUR if entry == OTHER else colour_of(entry) for entry in classes]
    palette = np.asarray([*colours, NOT_SCORED, _PAPER], np.uint8)
    probabilities = store.probabilities
    scored = ~np.isnan(probabilities).any(axis=1)
    labels = np.full(len(probabilities), len(classes) + 1, np.uint8)
    planned = (store.tissue >= np.float32(store.attributes["min_tissue"])) & (store.tissue > 0)
    if store.attributes.get("sampled"):
        # What a sample passes over is no gap in it.
        planned &= np.repeat(store.done, len(planned) // max(1, len(store.done)))
    labels[planned] = len(classes)
    labels[scored] = main_classes(probabilities[scored], classes, gives_shares(store))
    _write(path, store, extent, palette[labels], _PAPER, name, notes, {"axes": "YXS"})


def write_probability_map(
    path: Path, store: PatchStore, extent: SlideExtent, *, name: str, notes: Mapping[str, str] | None = None
) -> None:
    """Write the probabilities, a channel a class: 255 stands for 1.

    Where no patch was scored all channels are 0; elsewhere they add up to 255, but for rounding.

    Parameters
    ----------
    path, store, extent, name, notes
        As in `write_class_map`.
    """
    probabilities = store.probabilities
    scored = ~np.isnan(probabilities).any(axis=1)
    values = np.zeros(probabilities.shape, np.uint8)
    values[scored] = np.rint(255 * np.clip(probabilities[scored], 0, 1)).astype(np.uint8)
    colours = [_as_ome_colour(_OTHER_COLOUR if entry == OTHER else colour_of(entry)) for entry in store.classes]
    channel = {"Name": [_plain(entry) for entry in store.classes], "Color": colours}
    metadata = {"axes": "CYX", "Channel": channel}
    _write(path, store, extent, values, (0,) * len(store.classes), name, notes, metadata)


def _write(
    path: Path,
    store: PatchStore,
    extent: SlideExtent,
    values: UInt8,
    nothing: tuple[int, ...],
    name: str,
    notes: Mapping[str, str] | None,
    metadata: dict[str, Any],
) -> None:
    """Write the value of each patch (uint8 N x C), and `nothing` where there is none."""
    # tifffile takes a while, and only exports need it here.
    import tifffile

    side = side_px0(store)
    downsample = downsample_for(side)
    grid = _grid_of(store, side)
    values = np.concatenate([values, np.asarray([nothing], np.uint8)])
    sizes = _level_sizes(-(-extent.width // downsample), -(-extent.height // downsample))
    is_rgb = metadata["axes"] == "YXS"
    # The planes of channels are written one after another, colours together.
    planes = [values] if is_rgb else [values[:, [channel]] for channel in range(values.shape[1])]
    spacing_um = extent.mpp * downsample
    described = {
        "Creator": "wsi-her2",
        "Name": _plain(name),
        "PhysicalSizeX": spacing_um,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": spacing_um,
        "PhysicalSizeYUnit": "µm",
        "MapAnnotation": {_plain(key): _plain(text) for key, text in (notes or {}).items()},
        **metadata,
    }
    # Without one tifffile makes one up, of the machine's address and the time.
    described["UUID"] = f"urn:uuid:{uuid5(NAMESPACE_URL, json.dumps(described, sort_keys=True))}"
    with file_beside(path) as partial, tifffile.TiffWriter(partial, ome=True, bigtiff=True) as tiff:
        for level, (width, height) in enumerate(sizes):
            spacing = downsample * 2**level
            tiles = (tile for plane in planes for tile in _tiles(grid, plane, width, height, spacing, downsample))
            tiff.write(
                tiles,
                shape=(height, width, 3) if is_rgb else (len(planes), height, width),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb" if is_rgb else "minisblack",
                compression="adobe_deflate",
                subifds=len(sizes) - 1 if level == 0 else None,
                subfiletype=1 if level else 0,
                resolution=(1e4 / (extent.mpp * spacing), 1e4 / (extent.mpp * spacing)),
                resolutionunit="CENTIMETER",
                software="wsi-her2",
                metadata=described if level == 0 else None,
            )


@dataclass(frozen=True)
class _Grid:
    """The store's row at each place of a patch grid (int32 R x C, -1 for none), where it starts, and its step."""

    rows: npt.NDArray[np.int32]
    left: int
    top: int
    side: int


def _grid_of(store: PatchStore, side: int) -> _Grid:
    xy = store.xy.astype(np.int64)
    if len(xy) == 0:
        return _Grid(np.full((1, 1), -1, np.int32), 0, 0, side)
    left, top = (int(value) for value in xy.min(axis=0))
    columns, rows = ((xy - (left, top)) // side).T
    # A ring of nothing around it answers for all that lies outside.
    places = np.full((int(rows.max()) + 3, int(columns.max()) + 3), -1, np.int32)
    places[rows + 1, columns + 1] = np.arange(len(xy))
    return _Grid(places, left - side, top - side, side)


def _tiles(grid: _Grid, values: UInt8, width: int, height: int, spacing: int, downsample: int) -> Iterator[UInt8]:
    """The tiles of a level, row by row: uint8 256 x 256 x 3, or 256 x 256 for values of one channel."""
    # As many samples of a pixel as it takes to meet each patch in it.
    samples = 1
    while spacing / samples > max(downsample, grid.side / 2):
        samples *= 2
    step = spacing / samples
    across = [
        _places(x, grid.left, grid.rows.shape[1], step, samples, grid.side) for x in range(0, width, TILE_PX)
    ]
    for y in range(0, height, TILE_PX):
        down = _places(y, grid.top, grid.rows.shape[0], step, samples, grid.side)
        for columns in across:
            tile = values[grid.rows[down][:, columns]]
            if samples > 1:
                tile = tile.reshape(TILE_PX, samples, TILE_PX, samples, -1).mean(axis=(1, 3))
                tile = np.rint(tile).astype(np.uint8)
            yield tile if values.shape[1] == 3 else tile[..., 0]


def _places(first_px: int, start: int, count: int, step: float, samples: int, side: int) -> Int64:
    """In which row or column of the grid each sample of a tile lies, by its centre."""
    level_0 = (first_px * samples + np.arange(TILE_PX * samples) + 0.5) * step
    return np.asarray(np.clip((level_0 - start) // side, 0, count - 1), np.int64)


def _level_sizes(width: int, height: int) -> list[tuple[int, int]]:
    sizes = [(width, height)]
    while max(sizes[-1]) > _SMALLEST_LEVEL_PX:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes


def _as_ome_colour(colour: tuple[int, int, int]) -> int:
    """RGBA in a signed 32-bit number, as OME-XML has it."""
    red, green, blue = colour
    return int.from_bytes(bytes((red, green, blue, 255)), "big", signed=True)


def _plain(text: str) -> str:
    """A text that XML can hold: control characters and what is not Unicode stand as escapes."""
    shown = (c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
    return "".join(shown)
