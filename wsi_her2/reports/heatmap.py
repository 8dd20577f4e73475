"""The heatmap: the overview of a slide with its patches coloured by class.

It is drawn from the patch grid and the overview alone, never at level 0, so its cost does not depend on the
slide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from wsi_her2.atomic import write_bytes
from wsi_her2.reports.images import encode_png
from wsi_her2.reports.palette import NOT_SCORED, OTHER, colour_of, in_words, tumour_classes
from wsi_her2.reports.patches import check_classes, gives_shares, side_px0
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.slide import Overview
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import TissueMask

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]

SHORTEST_PX = 1000
LONGEST_PX = 2500
LAYER_PX = 1600

_FILL, _BORDER, _OTHER_FILL, _HATCH = 92, 235, 40, 170
_NOTHING, _UNSCORED = -1, -2
_INK, _FAINT, _PAPER = (24, 32, 40), (84, 94, 104), (255, 255, 255)
_BAND_PX = 256
_NICE_MM = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)


@dataclass(frozen=True)
class ScaleBar:
    """A scale bar of a round length.

    Attributes
    ----------
    length_mm : float
    share : float
        Of the picture's width.
    """

    length_mm: float
    share: float

    @property
    def label(self) -> str:
        """The length in words."""
        return f"{self.length_mm:g} mm"


def scale_bar(mask: TissueMask) -> ScaleBar:
    """The longest round length that takes at most a quarter of the overview's width."""
    width_mm = mask.overview.rgb.shape[1] * mask.overview.mpp / 1000
    fitting = [length for length in _NICE_MM if length <= width_mm / 4]
    length = fitting[-1] if fitting else _NICE_MM[0]
    return ScaleBar(length, min(1.0, length / width_mm))


def draw_layer(mask: TissueMask, store: PatchStore, classes: tuple[str, ...], longest_px: int = LAYER_PX) -> UInt8:
    """The patches alone, to lie over the overview: transparent where there is nothing to say.

    Parameters
    ----------
    mask : TissueMask
        Its overview sets the geometry.
    store : PatchStore
    classes : tuple of str
        Those of the store.
    longest_px : int
        Longest side of the layer, whatever the overview's: it may be finer, so that patches have sharp edges.

    Returns
    -------
    uint8 H x W x 4
        RGBA, not premultiplied. Tumour patches have their class's colour, patches of 'other' a faint grey,
        patches to be scored that do not count (unreadable, failing the gate, or not reached) grey hatching. Of a
        sample only what was chosen is shown.
    """
    rows, columns = mask.overview.rgb.shape[:2]
    scale = longest_px / max(rows, columns)
    return _layer(mask, store, classes, max(1, round(columns * scale)), max(1, round(rows * scale)))


def draw_heatmap(
    mask: TissueMask,
    store: PatchStore,
    classes: tuple[str, ...],
    *,
    percentages: Mapping[str, float] | None = None,
    picture: Overview | None = None,
) -> RGB:
    """Draw the heatmap of a slide with legend and scale bar.

    Parameters
    ----------
    mask : TissueMask
    store : PatchStore
    classes : tuple of str
        Those of the store.
    percentages : mapping of str to float, optional
        Of the tumour by class, for the legend. Pass those of the call, so that the picture and the call agree;
        without them the legend counts the patches, weighted by tissue.
    picture : Overview, optional
        A finer view of the same part of the slide, for small slides whose mask was made on few pixels.

    Returns
    -------
    uint8 H x W x 3
        RGB, longest side of the map 1000 to 2500 px.
    """
    tissue = (picture or mask.overview).rgb
    longest = min(max(max(tissue.shape[:2]), SHORTEST_PX), LONGEST_PX)
    scale = longest / max(tissue.shape[:2])
    width, height = max(1, round(tissue.shape[1] * scale)), max(1, round(tissue.shape[0] * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    base = np.asarray(cv2.resize(tissue, (width, height), interpolation=how), np.uint8)
    blended = lay_over(_desaturated(base), _layer(mask, store, classes, width, height))
    return _framed(blended, _legend(store, classes, percentages), scale_bar(mask))


def lay_over(rgb: RGB, layer: UInt8) -> RGB:
    """A picture with a layer laid over it.

    Parameters
    ----------
    rgb : uint8 H x W x 3
    layer : uint8 h x w x 4
        RGBA, not premultiplied; brought to the picture's size without mixing its colours.

    Returns
    -------
    uint8 H x W x 3
    """
    if layer.shape[:2] != rgb.shape[:2]:
        size = (rgb.shape[1], rgb.shape[0])
        layer = np.asarray(cv2.resize(layer, size, interpolation=cv2.INTER_NEAREST), np.uint8)
    blended = rgb.copy()
    for top in range(0, len(rgb), _BAND_PX):
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(layer[top : top + _BAND_PX, :, 3]))
        part = np.s_[top + y : top + y + height, x : x + width]
        alpha = layer[part][..., 3:].astype(np.float32) / 255
        blended[part] = np.rint(rgb[part] * (1 - alpha) + layer[part][..., :3] * alpha).astype(np.uint8)
    return blended


def write_png(path: Path, rgb: UInt8) -> None:
    """Write a picture (uint8 H x W x 3 or 4) as PNG: lossless, and the same bytes for the same pixels."""
    write_bytes(path, encode_png(rgb))


def _layer(mask: TissueMask, store: PatchStore, classes: tuple[str, ...], width: int, height: int) -> UInt8:
    check_classes(store, classes)
    box, side = mask.overview.box, side_px0(store)
    labels, left, top = _label_grid(store, side)
    # Which row and column of the grid each pixel of the picture lies in, by its centre.
    columns = np.floor_divide(box.x + (np.arange(width) + 0.5) * box.width / width - left, side).astype(np.int64)
    rows = np.floor_divide(box.y + (np.arange(height) + 0.5) * box.height / height - top, side).astype(np.int64)
    # Each pixel is an entry of a palette: a class, nothing or not scored; the same again outlined or hatched.
    nothing, unscored, entries = len(classes), len(classes) + 1, len(classes) + 2
    padded = np.pad(labels, 1, constant_values=_NOTHING)
    padded = np.where(padded == _NOTHING, nothing, np.where(padded == _UNSCORED, unscored, padded))
    columns = np.clip(columns + 1, 0, padded.shape[1] - 1)
    rows = np.clip(rows + 1, 0, padded.shape[0] - 1)
    at = padded.astype(np.uint8)[rows][:, columns]
    if mask.overview.unreadable.any():
        unreadable = np.asarray(
            cv2.resize(mask.overview.unreadable.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
        )
        at[(unreadable > 0) & (at == nothing)] = unscored
    palette = np.zeros((256, 4), np.uint8)
    for index, name in enumerate(classes):
        palette[index] = (*colour_of(name), _OTHER_FILL if name == OTHER else _FILL)
        palette[entries + index] = (*colour_of(name), _OTHER_FILL if name == OTHER else _BORDER)
    palette[unscored], palette[entries + unscored] = (*NOT_SCORED, _OTHER_FILL), (*NOT_SCORED, _HATCH)
    patch_px = side * width / box.width
    marked = np.zeros(at.shape, bool)
    if patch_px >= 4:
        marked = _borders(at, max(1, min(4, round(patch_px / 12))))
    hatched = at == unscored
    if hatched.any():
        period = max(6, round(max(width, height) / 130))
        diagonal = (np.arange(height)[:, None] + np.arange(width)[None, :]) % period < max(1, period // 4)
        marked = np.where(hatched, diagonal, marked)
    at += np.uint8(entries) * marked
    # OpenCV looks bytes up in tables of one channel, so four of them are one number.
    return np.asarray(cv2.LUT(at, palette.view(np.int32)[:, 0])).view(np.uint8).reshape(height, width, 4)


def _label_grid(store: PatchStore, side: int) -> tuple[Int64, int, int]:
    """Class of each place of the patch grid (int64 R x C), and the level-0 pixel where the grid starts."""
    xy, probabilities = store.xy.astype(np.int64), store.probabilities
    scored = ~np.isnan(probabilities).any(axis=1)
    planned = store.tissue >= np.float32(store.attributes["min_tissue"])
    if store.attributes.get("sampled"):
        # What a sample passes over is no gap in it.
        planned &= np.repeat(store.done, len(planned) // max(1, len(store.done)))
    shown = planned & (store.tissue > 0) | scored
    if not shown.any():
        return np.full((1, 1), _NOTHING, np.int64), 0, 0
    left, top = (int(value) for value in xy[shown].min(axis=0))
    columns, rows = ((xy[shown] - (left, top)) // side).T
    labels = np.full((int(rows.max()) + 1, int(columns.max()) + 1), _NOTHING, np.int64)
    filled = np.where(np.isnan(probabilities), -1, probabilities)
    found = main_classes(filled, store.classes, gives_shares(store))
    labels[rows, columns] = np.where(scored, found, _UNSCORED)[shown]
    return labels, left, top


def _borders(at: UInt8, thickness: int) -> npt.NDArray[np.bool_]:
    """Pixels near a pixel of another label: an outline around each region, inside it."""
    kernel = np.ones((2 * thickness + 1, 2 * thickness + 1), np.uint8)
    return np.asarray(cv2.dilate(at, kernel) != cv2.erode(at, kernel), bool)


def _desaturated(rgb: RGB) -> RGB:
    # Half of the colour is kept: brown must still be told from blue, but the classes must stand out.
    grey = cv2.cvtColor(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(rgb, 0.55, grey, 0.45, 0), np.uint8)


def _legend(
    store: PatchStore, classes: tuple[str, ...], percentages: Mapping[str, float] | None
) -> list[tuple[str | None, str]]:
    """Entries of the legend: class (None for not scored) and text."""
    probabilities = store.probabilities
    scored = ~np.isnan(probabilities).any(axis=1)
    names = tumour_classes(classes)
    if percentages is None:
        labels = main_classes(probabilities[scored], classes, gives_shares(store))
        weight = np.bincount(labels, store.tissue[scored].astype(np.float64), minlength=len(classes))
        total = sum(weight[classes.index(name)] for name in names)
        percentages = {name: 100 * float(weight[classes.index(name)]) / total for name in names} if total else {}
    entries: list[tuple[str | None, str]] = []
    for name in names:
        known = percentages.get(name)
        entries.append((name, f"{name}: -" if known is None else f"{name}: {known:.1f} %"))
    if OTHER in classes:
        entries.append((OTHER, in_words(OTHER)))
    sampled = bool(store.attributes.get("sampled"))
    entries.append((None, "not scored (no colour: not sampled)" if sampled else "not scored"))
    return entries


def _framed(picture: RGB, entries: list[tuple[str | None, str]], bar: ScaleBar) -> RGB:
    """The picture with a strip beneath it: scale bar, legend and the reservation that goes with every report."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = picture.shape[:2]
    # A narrow picture is set on a wider sheet, since the legend needs some width to be read.
    sheet_width = max(width, 600)
    size = int(np.clip(round(max(sheet_width, 0.7 * height) / 55), 15, 40))
    font = ImageFont.load_default(size)
    margin, line = round(0.9 * size), round(1.75 * size)
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    rows = _wrapped(entries, font, ruler, sheet_width - 2 * margin, size)
    bar_px = max(2, round(bar.share * width))
    strip = round(0.6 * size) + line * (len(rows) + 1) + round(0.5 * size)
    sheet = Image.new("RGB", (sheet_width, height + strip), _PAPER)
    sheet.paste(Image.fromarray(picture), ((sheet_width - width) // 2, 0))
    draw = ImageDraw.Draw(sheet)
    draw.line([(0, height), (sheet_width, height)], fill=(208, 214, 220), width=1)
    y = height + round(0.6 * size)
    for row in rows:
        x = margin
        for name, text in row:
            _swatch(draw, name, x, y + round(0.1 * size), size)
            draw.text((x + round(1.5 * size), y), text, font=font, fill=_INK)
            x += _entry_width(text, font, ruler, size)
        y += line
    middle = y + round(0.55 * size)
    thick = max(2, size // 8)
    draw.rectangle([margin, middle - thick // 2, margin + bar_px, middle + thick // 2], fill=_INK)
    for end in (margin, margin + bar_px):
        draw.rectangle([end - thick // 2, middle - size // 3, end + thick // 2, middle + size // 3], fill=_INK)
    after = margin + bar_px + size // 2
    draw.text((after, y), bar.label, font=font, fill=_INK)
    note = "% of tumour  ·  research use only"
    note_width = ruler.textlength(note, font=font)
    if after + ruler.textlength(bar.label, font=font) + 2 * size + note_width + margin > sheet_width:
        note = "research use only"
        note_width = ruler.textlength(note, font=font)
    draw.text((sheet_width - margin - note_width, y), note, font=font, fill=_FAINT)
    return np.asarray(sheet, np.uint8)


def _wrapped(
    entries: list[tuple[str | None, str]],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ruler: ImageDraw.ImageDraw,
    width: int,
    size: int,
) -> list[list[tuple[str | None, str]]]:
    rows: list[list[tuple[str | None, str]]] = [[]]
    used = 0
    for entry in entries:
        needed = _entry_width(entry[1], font, ruler, size)
        if rows[-1] and used + needed > width:
            rows.append([])
            used = 0
        rows[-1].append(entry)
        used += needed
    return rows


def _entry_width(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, ruler: ImageDraw.ImageDraw, size: int
) -> int:
    return round(1.5 * size + ruler.textlength(text, font=font) + 1.6 * size)


def _swatch(draw: ImageDraw.ImageDraw, name: str | None, x: int, y: int, size: int) -> None:
    corners = [x, y, x + size, y + size]
    if name is not None:
        fill = colour_of(name) if name != OTHER else (205, 206, 208)
        draw.rectangle(corners, fill=fill, outline=colour_of(name), width=1)
        return
    draw.rectangle(corners, fill=(235, 235, 235), outline=NOT_SCORED, width=1)
    step = max(4, size // 3)
    for offset in range(step, 2 * size, step):
        start, end = max(0, offset - size), min(size, offset)
        draw.line([(x + start, y + offset - start), (x + end, y + offset - end)], fill=NOT_SCORED, width=1)
