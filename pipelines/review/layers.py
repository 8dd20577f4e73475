"""What the viewer lays over a slide: patches, tissue, counted cells and annotated regions.

Patches and cells are arrays of numbers, little-endian, behind a short header: twenty thousand patches are half a
megabyte, and the browser takes them as they are.
"""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.configuration import RunConfig
from pipelines.sources import regions_named
from wsi_her2.cells.table import cell_columns
from wsi_her2.errors import RegionsError
from wsi_her2.reports.images import encode_jpeg, within
from wsi_her2.reports.patches import gives_shares, side_px0
from wsi_her2.scoring.gate import FAULTS, GateLimits, faults_of_patches
from wsi_her2.scoring.proportions import main_classes
from wsi_her2.scoring.result import SlideResult
from wsi_her2.slides.regions import UsedRegions, read_regions
from wsi_her2.slides.store import PatchStore
from wsi_her2.slides.tissue import Mask

REFUSED_REASONS = ("unreadable", *FAULTS, "not_counted")
"""Why a patch was not counted: it cannot be decoded; it has a fault that the gate names; or none by the limits
that are known, where a result does not tell those it was made with."""

NO_LABEL = NO_REASON = 255

CELLS_SENT = 20_000
"""At most, of the cells in a box: an even choice of them where there are more."""

_CELL_BYTES_KEPT = 256 * 2**20
_OVERVIEW_PX, _OVERVIEW_QUALITY = 1600, 85

_TISSUE_COLOURS = ((0, 0, 0, 0), (0, 150, 60, 26), (0, 150, 60, 255), (200, 0, 160, 70), (200, 0, 160, 255))
"""RGBA of nothing, tissue, its outline, ink, its outline; the colours of `tissue.png`."""


def pack_patches(store: PatchStore, modality: str, limits: GateLimits) -> bytes:
    """The patches of a slide that were to be scored, with what came of them.

    Parameters
    ----------
    store : PatchStore
    modality : {'ihc', 'he'}
    limits : GateLimits
        Those of the run; they tell why a patch was refused.

    Returns
    -------
    bytes
        uint32 length of the header; the header, JSON padded with spaces to a multiple of 4; int32 xy[2n]; float32
        tissue[n]; float32 probabilities[n x K], NaN where refused; uint8 label[n], 255 where refused; uint8
        reason[n], an index of the header's `refused_reasons`, 255 where there is none.
    """
    probabilities, quality = store.probabilities, store.quality
    scored = np.asarray(~np.isnan(probabilities).any(axis=1), bool)
    planned = store.tissue >= np.float32(store.attributes["min_tissue"])
    if store.attributes.get("sampled"):
        # What a sample passes over was not refused.
        planned &= np.repeat(store.done, len(planned) // max(1, len(store.done)))
    shown = np.flatnonzero(scored | planned)
    probabilities, quality, scored = probabilities[shown], quality[shown], scored[shown]
    labels = np.full(len(shown), NO_LABEL, np.uint8)
    labels[scored] = main_classes(probabilities[scored], store.classes, gives_shares(store))
    reasons = np.full(len(shown), NO_REASON, np.uint8)
    reasons[~scored] = _reasons(quality[~scored], modality, limits)
    header = {
        "n": len(shown),
        "classes": list(store.classes),
        "side_px0": side_px0(store),
        "refused_reasons": list(REFUSED_REASONS),
    }
    # Of a refused patch nothing is told, not even what was measured in a part of its columns.
    probabilities = np.where(scored[:, None], probabilities, np.float32(np.nan))
    return b"".join(
        (
            _headed(header),
            store.xy[shown].astype("<i4").tobytes(),
            store.tissue[shown].astype("<f4").tobytes(),
            probabilities.astype("<f4").tobytes(),
            labels.tobytes(),
            reasons.tobytes(),
        )
    )


def _reasons(quality: npt.NDArray[np.float32], modality: str, limits: GateLimits) -> npt.NDArray[np.uint8]:
    found = np.full(len(quality), REFUSED_REASONS.index("not_counted"), np.uint8)
    faults = faults_of_patches(quality, modality, limits)
    # What comes first in the list names a patch that has several.
    for code in reversed(FAULTS):
        if code in faults:
            found[faults[code]] = REFUSED_REASONS.index(code)
    found[np.isnan(quality).any(axis=1)] = REFUSED_REASONS.index("unreadable")
    return found


def _headed(header: Mapping[str, Any]) -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    return len(text).to_bytes(4, "little") + text


def draw_tissue(tissue: Mask, pen: Mask) -> bytes:
    """Tissue in green and ink in magenta (bool H x W over the box of the overview), as PNG with transparency."""
    from PIL import Image

    layer = np.zeros(tissue.shape, np.uint8)
    thickness = max(1, round(max(layer.shape) / 1000))
    for region, fill, line in ((tissue, 1, 2), (pen, 3, 4)):
        layer[region] = fill
        contours, _ = cv2.findContours(region.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(layer, contours, -1, line, thickness)
    # Five colours: as indices they are drawn and packed several times as fast as four channels are.
    picture = Image.fromarray(layer, "P")
    picture.putpalette([level for colour in _TISSUE_COLOURS for level in colour[:3]])
    written = io.BytesIO()
    opacity = bytes(colour[3] for colour in _TISSUE_COLOURS)
    picture.save(written, "PNG", transparency=opacity, compress_level=1)
    return written.getvalue()


def shrunk_overview(store: PatchStore) -> bytes:
    """The overview that a store keeps, as JPEG of at most 1600 px."""
    overview = store.read_picture() or store.read_overview().overview
    return encode_jpeg(within(overview.rgb, _OVERVIEW_PX), _OVERVIEW_QUALITY)


@dataclass(frozen=True, eq=False)
class CellColumns:
    """The counted cells of a slide in an order without meaning, so that the first of them are an even choice.

    Attributes
    ----------
    xy : int32 N x 2
        Level-0 pixels.
    her2_class : uint8 N
        0 to 3.
    tumour : uint8 N
        1 for cells of the tumour.
    """

    xy: npt.NDArray[np.int32]
    her2_class: npt.NDArray[np.uint8]
    tumour: npt.NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path) -> CellColumns:
        """The cells of a table."""
        columns = cell_columns(path, ("x", "y", "her2_class", "tumour"))
        order = np.random.default_rng(0).permutation(len(columns["x"]))
        return cls(
            np.stack([columns["x"], columns["y"]], axis=1).astype(np.int32)[order],
            columns["her2_class"].astype(np.uint8)[order],
            columns["tumour"].astype(np.uint8)[order],
        )

    @property
    def nbytes(self) -> int:
        """What they take."""
        return self.xy.nbytes + self.her2_class.nbytes + self.tumour.nbytes

    def packed(self, x: float, y: float, width: float, height: float) -> bytes:
        """The cells in a box, level-0 pixels.

        Returns
        -------
        bytes
            uint32 number in the box; uint32 number n of those that follow, at most `CELLS_SENT`; int32 xy[2n];
            uint8 her2_class[n]; uint8 tumour[n].
        """
        inside = (self.xy[:, 0] >= x) & (self.xy[:, 0] < x + width)
        inside &= (self.xy[:, 1] >= y) & (self.xy[:, 1] < y + height)
        found = np.flatnonzero(inside)
        sent = found[:CELLS_SENT]
        return b"".join(
            (
                np.array([len(found), len(sent)], "<u4").tobytes(),
                self.xy[sent].astype("<i4").tobytes(),
                self.her2_class[sent].tobytes(),
                self.tumour[sent].tobytes(),
            )
        )


class CellCache:
    """The cells of the slides that were looked at last, up to a number of bytes; for many threads."""

    def __init__(self, max_bytes: int = _CELL_BYTES_KEPT) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[object, CellColumns] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: object, path: Path) -> CellColumns:
        """The cells of a table, read if they are not there."""
        with self._lock:
            cells = self._kept.pop(key, None)
            if cells is None:
                cells = CellColumns.read(path)
            self._kept[key] = cells
            while len(self._kept) > 1 and sum(kept.nbytes for kept in self._kept.values()) > self._max_bytes:
                self._kept.popitem(last=False)
            return cells


def regions_of(result: SlideResult, config: RunConfig) -> dict[str, Any]:
    """The annotated regions that decided what was scored, as GeoJSON.

    `note` says why there are none where there should be some: results name the file, and only the newest run into
    a folder says where it lay.
    """
    collection: dict[str, Any] = {"type": "FeatureCollection", "features": [], "note": ""}
    used = result.regions
    if used is None:
        return collection
    file = regions_named(config.regions.files, used.file)
    if file is None:
        return collection | {
            "note": f"{used.file}: the annotated regions of this slide are no longer where they were."
        }
    try:
        regions = read_regions(file)
    except RegionsError as error:
        return collection | {"note": str(error)}
    collection["features"] = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [[list(corner) for corner in ring] for ring in region.rings],
            },
            "properties": {"name": region.name or "", "use": _use_of(region.name or "", used)},
        }
        for region in regions
    ]
    return collection


def _use_of(name: str, used: UsedRegions) -> str:
    return "score" if name in used.included else "exclude" if name in used.excluded else "ignored"
