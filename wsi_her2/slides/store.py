"""The patch store of a slide: a Zarr v3 group in which a block of patches is one chunk of every array.

Workers write whole chunks and nothing else, so that any number of them can write at the same time, and mark a
block as done only when all of it is on disk. A store that was interrupted therefore says what is missing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from wsi_her2.errors import StoreError
from wsi_her2.messages import shortened
from wsi_her2.slides.backends import RGB
from wsi_her2.slides.grid import PatchGrid
from wsi_her2.slides.slide import Box, Overview
from wsi_her2.slides.tissue import Mask, TissueMask, tissue_mask
from wsi_her2.slides.white_point import WhitePoint

_MAX_ARRAY_BYTES = 2**31
"""Of an array that is read in whole. The largest slides have a million patches, of some 30 numbers each."""

LAYOUT = 1
"""Version of the layout; a store of another layout is not read."""

Float32 = npt.NDArray[np.float32]


class PatchStore:
    """Patches of a slide and what is known of them.

    Arrays, N = blocks x positions in a block, in the order of `PatchGrid`:

    ================== ================== ==========================================================
    `xy`               int32 N x 2        top-left corner, level-0 pixels
    `tissue`           float32 N          share of tissue
    `probabilities`    float32 N x K      of the classes; NaN where a patch was not scored
    `quality`          float32 N x Q      focus, cover and colour; NaN where not read
    `measures`         float32 N x M      what the classifier measured; absent where it measures nothing
    `pixels`           uint8 N x H x W x 3 patches as read, before stain correction; optional
    `done`             uint8 B            1 where a block is complete
    ================== ================== ==========================================================

    The groups `overview` (`rgb`, `tissue`, `pen`, `unreadable`, on small slides a finer `picture`) and `examples`
    (one array of patches a class)
    hold what a report shows, so that it can be made again without the slide. Attributes name the classes and
    columns, sizes and scales.
    """

    def __init__(self, group: zarr.Group, *, complete: bool = False) -> None:
        self._group = group
        self._columns: dict[str, npt.NDArray[Any]] | None = {} if complete else None
        self._written: dict[str, zarr.Array[Any]] = {}
        attributes: dict[str, Any] = dict(group.attrs)
        if attributes.get("layout") != LAYOUT:
            raise StoreError(
                f"{group.store_path}: a patch store of layout {attributes.get('layout')!r}; "
                f"this version reads layout {LAYOUT}. Run again with --fresh."
            )
        self.attributes: Mapping[str, Any] = attributes
        self.classes = tuple(str(name) for name in attributes["classes"])
        self.quality_names = tuple(str(name) for name in attributes["quality"])
        self.measure_names = tuple(str(name) for name in attributes["measures"])
        self._rows = int(attributes["block_edge"]) ** 2

    @classmethod
    def create(
        cls,
        path: Path,
        grid: PatchGrid,
        *,
        classes: tuple[str, ...],
        quality: tuple[str, ...],
        measures: tuple[str, ...] = (),
        pixels: bool = False,
        attributes: Mapping[str, Any] | None = None,
    ) -> PatchStore:
        """Make an empty store for a grid.

        Parameters
        ----------
        path : pathlib.Path
            A folder that does not exist yet.
        grid : PatchGrid
        classes, quality, measures : tuple of str
            Names of the columns.
        pixels : bool
            Whether patches are kept.
        attributes : mapping, optional
            More attributes, JSON types only.

        Raises
        ------
        StoreError
            Something is at the path already.
        """
        if path.exists():
            raise StoreError(f"{path}: something is there already, and a store is never written over")
        group = zarr.create_group(
            store=path,
            zarr_format=3,
            attributes={
                **(attributes or {}),
                "layout": LAYOUT,
                "classes": list(classes),
                "quality": list(quality),
                "measures": list(measures),
                "patch_px": grid.patch_px,
                "patch_px0": grid.patch_px0,
                "mpp": grid.mpp,
                "mpp_requested": grid.mpp_requested,
                "block_edge": grid.block_edge,
                "min_tissue": grid.min_tissue,
            },
        )
        rows, count = grid.block_rows, grid.n_blocks * grid.block_rows

        def column(name: str, width: int, dtype: str, fill: float) -> None:
            group.create_array(
                name,
                shape=(count, width),
                chunks=(rows, width),
                dtype=dtype,
                fill_value=fill,
                compressors=ZstdCodec(level=1, checksum=True),
                config={"write_empty_chunks": False},
            )

        _write_whole(group, "xy", grid.xy)
        _write_whole(group, "tissue", grid.tissue)
        column("probabilities", len(classes), "float32", np.nan)
        column("quality", len(quality), "float32", np.nan)
        if measures:
            column("measures", len(measures), "float32", np.nan)
        if pixels:
            shape = (grid.patch_px, grid.patch_px, 3)
            group.create_array(
                "pixels",
                shape=(count, *shape),
                chunks=(rows, *shape),
                dtype="uint8",
                fill_value=0,
                # Without loss they hardly get smaller, and compressing them takes time for each patch.
                compressors=None,
                config={"write_empty_chunks": False},
            )
        group.create_array(
            "done", shape=(grid.n_blocks,), chunks=(1,), dtype="uint8", fill_value=0, compressors=None
        )
        return cls(group)

    @classmethod
    def open(cls, path: Path, *, complete: bool = False) -> PatchStore:
        """Open a store.

        Parameters
        ----------
        path : pathlib.Path
        complete : bool
            Whether no block will be written any more: columns are then read once and cannot be changed.

        Raises
        ------
        StoreError
            There is none, or it is of another layout.
        """
        try:
            return cls(zarr.open_group(path, mode="r+", zarr_format=3), complete=complete)
        except StoreError:
            raise
        except (
            OSError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            OverflowError,
            RecursionError,
        ) as error:
            raise StoreError(f"{path}: not a patch store ({shortened(error)}). Run again with --fresh.") from error

    def write_block(
        self,
        block: int,
        probabilities: Float32,
        quality: Float32,
        measures: Float32 | None = None,
        pixels: RGB | None = None,
    ) -> None:
        """Write one whole block, and only then mark it as done.

        Parameters
        ----------
        block : int
        probabilities, quality, measures : float32 rows x columns
            For all positions of the block; NaN where a patch was not scored.
        pixels : uint8 rows x H x W x 3, optional

        Raises
        ------
        ValueError
            There is no such block, or the rows are not those of a block.
        """
        rows = slice(block * self._rows, (block + 1) * self._rows)
        n_blocks = self._writable("done").shape[0]
        if not 0 <= block < n_blocks:
            raise ValueError(f"block {block} of a store of {n_blocks} blocks")
        for name, given in (
            ("probabilities", probabilities),
            ("quality", quality),
            ("measures", measures),
            ("pixels", pixels),
        ):
            if given is not None and len(given) != self._rows:
                raise ValueError(f"{len(given)} rows of {name} for a block of {self._rows}")
        if pixels is not None and self._keeps_pixels:
            self._writable("pixels")[rows] = pixels
        if measures is not None and self.measure_names:
            self._writable("measures")[rows] = measures
        self._writable("quality")[rows] = quality
        self._writable("probabilities")[rows] = probabilities
        self._writable("done")[block] = 1

    def write_overview(self, mask: TissueMask, picture: Overview | None = None) -> None:
        """Keep the overview of the slide and the tissue found on it.

        Parameters
        ----------
        mask : TissueMask
        picture : Overview, optional
            A finer view of the same part of the slide, for people to look at.
        """
        overview, white, box = mask.overview, mask.white_point, mask.overview.box
        group = self._group.require_group("overview")
        group.attrs.update(
            {
                "mpp": overview.mpp,
                "box": [box.x, box.y, box.width, box.height],
                "white_point": list(white.rgb),
                "white_source": white.source,
                "white_share": white.share,
            }
        )
        for name, data in (
            ("rgb", overview.rgb),
            ("tissue", mask.tissue),
            ("pen", mask.pen),
            ("unreadable", overview.unreadable),
        ):
            _write_whole(group, name, data)
        if picture is not None:
            _write_whole(group, "picture", picture.rgb).attrs.update({"mpp": picture.mpp})

    def read_overview(self) -> TissueMask:
        """What `write_overview` kept."""
        attributes: dict[str, Any] = dict(self._group["overview"].attrs)
        images = {name: self._array(f"overview/{name}")[:] for name in ("rgb", "tissue", "pen", "unreadable")}
        overview = Overview(
            np.asarray(images["rgb"], np.uint8),
            np.asarray(images["unreadable"], bool),
            float(attributes["mpp"]),
            self.overview_box,
        )
        red, green, blue = (float(value) for value in attributes["white_point"])
        white = WhitePoint((red, green, blue), attributes["white_source"], float(attributes["white_share"]))
        return tissue_mask(np.asarray(images["tissue"], bool), np.asarray(images["pen"], bool), overview, white)

    def read_tissue(self) -> tuple[Mask, Mask]:
        """Tissue and ink on the overview that `write_overview` kept (bool H x W), without its pixels."""
        tissue, pen = (np.asarray(self._array(f"overview/{name}")[:], bool) for name in ("tissue", "pen"))
        return tissue, pen

    def read_picture(self) -> Overview | None:
        """The finer view that `write_overview` kept, if any."""
        if "overview/picture" not in self._group:
            return None
        array = self._array("overview/picture")
        rgb = np.asarray(array[:], np.uint8)
        mpp: Any = array.attrs["mpp"]
        return Overview(rgb, np.zeros(rgb.shape[:2], bool), float(mpp), self.overview_box)

    @property
    def overview_box(self) -> Box:
        """The part of the slide that the kept overview shows, level-0 pixels."""
        attributes: dict[str, Any] = dict(self._group["overview"].attrs)
        return Box(*(int(value) for value in attributes["box"]))

    def write_examples(self, examples: Mapping[str, Sequence[tuple[int, int, RGB]]]) -> None:
        """Keep a few patches of each class: level-0 position and pixels (uint8 H x W x 3, all of one size)."""
        group = self._group.require_group("examples")
        for name, patches in examples.items():
            if patches:
                array = _write_whole(group, name.replace("+", "plus"), np.stack([rgb for _, _, rgb in patches]))
                array.attrs.update({"class": name, "xy": [[x, y] for x, y, _ in patches]})

    def read_examples(self) -> dict[str, list[tuple[int, int, RGB]]]:
        """What `write_examples` kept, in the order of the classes."""
        return {
            name: [(x, y, rgb) for (x, y), rgb in zip(places, np.asarray(array[:], np.uint8), strict=True)]
            for name, array, places in self._kept_examples()
        }

    def example_places(self) -> dict[str, list[tuple[int, int]]]:
        """Where the patches lie that `write_examples` kept, in the order of the classes."""
        return {name: places for name, _, places in self._kept_examples()}

    def _kept_examples(self) -> Iterator[tuple[str, zarr.Array[Any], list[tuple[int, int]]]]:
        """By class, its patches, not read yet, and where they lie."""
        for name in self.classes if "examples" in self._group else ():
            key = f"examples/{name.replace('+', 'plus')}"
            if key in self._group:
                array = self._array(key)
                places: Any = array.attrs["xy"]
                yield name, array, [(int(x), int(y)) for x, y in places]

    def write_cell_views(self, views: Sequence[tuple[int, int, RGB]]) -> None:
        """Keep pictures of fields in which cells were counted: level-0 position and pixels, all of one size."""
        if views:
            group = self._group.require_group("cell_views")
            array = _write_whole(group, "rgb", np.stack([rgb for _, _, rgb in views]))
            array.attrs.update({"xy": [[x, y] for x, y, _ in views]})

    def read_cell_views(self) -> list[tuple[int, int, RGB]]:
        """What `write_cell_views` kept."""
        if "cell_views" not in self._group:
            return []
        array = self._array("cell_views/rgb")
        places: Any = array.attrs["xy"]
        return [(int(x), int(y), rgb) for (x, y), rgb in zip(places, np.asarray(array[:], np.uint8), strict=True)]

    @property
    def grid(self) -> PatchGrid:
        """The grid that the store was made for."""
        described = self.attributes
        return PatchGrid(
            patch_px=int(described["patch_px"]),
            patch_px0=int(described["patch_px0"]),
            mpp=float(described["mpp"]),
            mpp_requested=float(described["mpp_requested"]),
            block_edge=int(described["block_edge"]),
            block_xy=self.xy[:: self._rows],
            tissue=self.tissue,
            min_tissue=float(described["min_tissue"]),
        )

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Which blocks are complete (bool B)."""
        return np.asarray(self._column("done") == 1, bool)

    @property
    def xy(self) -> npt.NDArray[np.int32]:
        """Top-left corners in level-0 pixels (int32 N x 2)."""
        return np.asarray(self._column("xy"), np.int32)

    @property
    def tissue(self) -> Float32:
        """Share of tissue (float32 N)."""
        return np.asarray(self._column("tissue"), np.float32)

    @property
    def probabilities(self) -> Float32:
        """Class probabilities (float32 N x K)."""
        return np.asarray(self._column("probabilities"), np.float32)

    @property
    def quality(self) -> Float32:
        """Quality of the patches (float32 N x Q)."""
        return np.asarray(self._column("quality"), np.float32)

    @property
    def measures(self) -> Float32:
        """What the classifier measured (float32 N x M); M = 0 where it measures nothing."""
        if not self.measure_names:
            return np.zeros((len(self.tissue), 0), np.float32)
        return np.asarray(self._column("measures"), np.float32)

    @property
    def pixels(self) -> zarr.Array[Any] | None:
        """The patches (uint8 N x H x W x 3), None where they were not kept."""
        return self._array("pixels") if "pixels" in self._group else None

    def _column(self, name: str) -> npt.NDArray[Any]:
        if self._columns is None:
            return self._whole(name)
        if name not in self._columns:
            self._columns[name] = self._whole(name)
            self._columns[name].flags.writeable = False
        return self._columns[name]

    def _whole(self, name: str) -> npt.NDArray[Any]:
        try:
            return np.asarray(self._array(name)[:])
        except (RuntimeError, ValueError) as error:
            raise StoreError(
                f"{self._group.store_path}: a chunk of {name!r} is damaged ({error}). Run again with --fresh."
            ) from error

    @cached_property
    def _keeps_pixels(self) -> bool:
        return "pixels" in self._group

    def _writable(self, name: str) -> zarr.Array[Any]:
        """An array of the grid, opened once: what describes it is read from a file, and does not change."""
        if name not in self._written:
            self._written[name] = self._array(name)
        return self._written[name]

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._group.get(name)
        if not isinstance(array, zarr.Array):
            raise StoreError(f"{self._group.store_path}: {name!r} is missing. Run again with --fresh.")
        # Of the pixels a chunk is read at a time, of everything else all of it.
        whole = array.shape if name != "pixels" else array.chunks
        if math.prod(whole) * array.dtype.itemsize > _MAX_ARRAY_BYTES:
            raise StoreError(
                f"{self._group.store_path}: {name!r} says it takes more than {_MAX_ARRAY_BYTES:,} bytes: "
                "it is damaged. Run again with --fresh."
            )
        return array


def _write_whole(group: zarr.Group, name: str, data: npt.NDArray[Any]) -> zarr.Array[Any]:
    """Write an array that one process writes at once: a single chunk, a single file."""
    return group.create_array(
        name,
        data=data,
        chunks=tuple(max(1, side) for side in data.shape),
        compressors=ZstdCodec(level=3, checksum=True),
        overwrite=True,
    )
