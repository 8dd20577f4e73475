"""How far digital phantoms are from real HER2 cores, in numbers and side by side.

    WSI_HER2_TEST_DATA=/path/to/data python benchmarks/phantom_realism.py -o OUT

The folder holds `slides/ihc_core_score<score>_<letter>.tif`, tissue-microarray cores of known score. The
measures are made the same way on both kinds of image: dyes are unmixed with one fixed pair of vectors and
the image's own white point, nuclei are dark blobs of hematoxylin. So a number tells phantoms
and cores apart; it is not the truth of either.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.stats import wasserstein_distance

from wsi_her2.phantom import PhantomSpec, make_phantom

MPP = 0.25
CROP_PX = 768
# Mean vectors of the microarray's stains, red, green and blue.
VECTORS = np.array([[0.66, 0.62, 0.42], [0.34, 0.57, 0.75]])
PERCENTILES = (50, 75, 90, 97, 99.5)
# Spatial frequency in cycles per pixel.
BANDS = ((0.01, 0.03), (0.03, 0.06), (0.06, 0.12), (0.12, 0.25), (0.25, 0.5))

Read = Callable[[int, int, int], NDArray[np.uint8]]


@dataclass(frozen=True)
class Source:
    """A core, real or drawn: where to read it, how large it is, and its white point."""

    name: str
    score: str
    size: tuple[int, int]
    read: Read
    thumbnail: NDArray[np.uint8]


@dataclass(frozen=True)
class Measures:
    """Pooled values of the crops of one score."""

    hematoxylin: NDArray[np.float64]
    dab: NDArray[np.float64]
    diameter_um: NDArray[np.float64]
    spacing_um: NDArray[np.float64]
    per_mm2: float
    spectrum: NDArray[np.float64]
    gradient: NDArray[np.float64]


def real_sources(folder: Path) -> Iterator[Source]:
    import openslide

    for path in sorted((folder / "slides").glob("ihc_core_score*_*.tif")):
        score = path.stem.removeprefix("ihc_core_score").split("_")[0]
        slide = openslide.OpenSlide(path)
        thumbnail = np.asarray(slide.get_thumbnail((500, 500)).convert("RGB"))

        def read(x: int, y: int, side: int, slide: openslide.OpenSlide = slide) -> NDArray[np.uint8]:
            return np.asarray(slide.read_region((x, y), 0, (side, side)))[..., :3]

        yield Source(
            path.stem, {"0": "0", "1": "1+", "2": "2+", "3": "3+"}[score], slide.dimensions, read, thumbnail
        )


def phantom_sources(scores: list[str], seeds: int, look: str) -> Iterator[Source]:
    for score in scores:
        for seed in range(seeds):
            # The cores are adenocarcinoma, mostly glands, with about as much tumour as this.
            spec = PhantomSpec(
                score=score,
                seed=1000 + seed,
                look=look,
                mpp=MPP,
                width_mm=0.9,
                height_mm=0.9,
                tumour_share=0.55,
                pattern="mixed" if seed % 2 else "glandular",
            )
            phantom = make_phantom(spec)
            whole = phantom.read(0, 0, spec.width_px, spec.height_px)

            def read(x: int, y: int, side: int, whole: NDArray[np.uint8] = whole) -> NDArray[np.uint8]:
                # The real cores have been through JPEG, so the phantoms go through it too.
                crop = cv2.cvtColor(whole[y : y + side, x : x + side], cv2.COLOR_RGB2BGR)
                done = cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 88])[1], 1)
                return cv2.cvtColor(done, cv2.COLOR_BGR2RGB)

            thumbnail = cv2.resize(whole, (500, 500), interpolation=cv2.INTER_AREA)
            yield Source(f"phantom_{score}_{seed}", score, (spec.width_px, spec.height_px), read, thumbnail)


def white_point(thumbnail: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The commonest bright colour of the slide."""
    grey = thumbnail.mean(-1)
    bright = thumbnail[grey > np.percentile(grey, 80)]
    return np.median(bright, axis=0).astype(float)


def tissue_places(source: Source, count: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Corners of crops that lie in tissue and hold many nuclei, as tumour does."""
    white = white_point(source.thumbnail)
    density = np.maximum(-np.log10(np.clip(source.thumbnail, 1, None) / white), 0).mean(-1)
    tissue = cv2.GaussianBlur(density, (0, 0), 4) > 0.02
    scale = source.size[0] / source.thumbnail.shape[1]
    side = int(CROP_PX / scale)
    cover = cv2.boxFilter(tissue.astype(np.float32), -1, (side, side), anchor=(0, 0))
    dark = cv2.boxFilter(density.astype(np.float32), -1, (side, side), anchor=(0, 0))
    fits = np.zeros_like(cover, bool)
    fits[: -side or None, : -side or None] = True
    rows, columns = np.nonzero(fits & (cover > 0.95))
    if len(rows) == 0:
        rows, columns = np.nonzero(fits & (cover >= np.percentile(cover[fits], 95)))
    weight = dark[rows, columns].astype(float) ** 2 + 1e-9
    chosen = rng.choice(len(rows), min(count, len(rows)), replace=False, p=weight / weight.sum())
    return [(int(columns[k] * scale), int(rows[k] * scale)) for k in chosen]


def measure(crops: list[tuple[NDArray[np.uint8], NDArray[np.float64]]]) -> Measures:
    third = np.cross(*VECTORS)
    basis = np.vstack([VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), third / np.linalg.norm(third)])
    inverse = np.linalg.inv(basis)
    hs, ds, diameters, spacings, spectra, gradients, nuclei = [], [], [], [], [], [], 0
    for pixels, white in crops:
        density = -np.log10(np.clip(pixels.astype(float), 1, None) / white)
        h, d, _ = np.moveaxis(density @ inverse, -1, 0)
        tissue = cv2.GaussianBlur(density.mean(-1), (0, 0), 6) > 0.02
        hs.append(h[tissue][::7])
        ds.append(d[tissue][::7])
        found = find_nuclei(h, d)
        nuclei += len(found)
        if len(found) > 5:
            diameters.append(found[:, 2])
            spacings.append(cKDTree(found[:, :2]).query(found[:, :2], k=2)[0][:, 1])
        grey = pixels.astype(float).mean(-1)
        window = np.outer(np.hanning(grey.shape[0]), np.hanning(grey.shape[1]))
        power = np.abs(np.fft.fft2((grey - grey.mean()) * window)) ** 2 / grey.size
        radius = np.hypot(np.fft.fftfreq(grey.shape[0])[:, None], np.fft.fftfreq(grey.shape[1])[None, :])
        spectra.append([np.log10(power[(radius >= a) & (radius < b)].mean()) for a, b in BANDS])
        gx, gy = cv2.Sobel(grey, cv2.CV_64F, 1, 0), cv2.Sobel(grey, cv2.CV_64F, 0, 1)
        gradients.append(np.percentile(np.hypot(gx, gy) / 8, [50, 90, 99]))
    area_mm2 = len(crops) * (CROP_PX * MPP / 1000) ** 2
    empty = np.zeros(1)
    return Measures(
        np.concatenate(hs),
        np.concatenate(ds),
        np.concatenate(diameters) if diameters else empty,
        np.concatenate(spacings) if spacings else empty,
        nuclei / area_mm2,
        np.mean(spectra, axis=0),
        np.mean(gradients, axis=0),
    )


def find_nuclei(h: NDArray[np.float64], d: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions and equivalent diameters in microns of dark blobs of hematoxylin, N x 3."""
    smooth = cv2.GaussianBlur(h - 0.3 * np.maximum(d, 0), (0, 0), 0.6 / MPP)
    ground = cv2.GaussianBlur(smooth, (0, 0), 12 / MPP)
    excess = smooth - ground
    threshold = max(0.012, 0.8 * float(excess.std()))
    mask = ndimage.binary_fill_holes(ndimage.binary_opening(excess > threshold, iterations=2))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 0.6 / MPP)
    peaks = (distance == ndimage.maximum_filter(distance, size=int(3.5 / MPP))) & (distance > 1.2 / MPP)
    markers, count = ndimage.label(peaks)
    if count == 0:
        return np.zeros((0, 3))
    # Each pixel of the mask belongs to the nearest peak.
    nearest = ndimage.distance_transform_edt(markers == 0, return_distances=False, return_indices=True)
    labels = np.where(mask, markers[tuple(nearest)], 0)
    index = np.arange(1, count + 1)
    area = ndimage.sum_labels(mask, labels, index) * MPP**2
    centres = np.array(ndimage.center_of_mass(mask, labels, index)) * MPP
    diameter = 2 * np.sqrt(area / np.pi)
    kept = (diameter > 3) & (diameter < 18)
    return np.column_stack([centres[kept], diameter[kept]])


def row(label: str, real: NDArray[np.float64], drawn: NDArray[np.float64], digits: int = 3) -> str:
    def text(values: NDArray[np.float64]) -> str:
        return " ".join(f"{v:7.{digits}f}" for v in np.atleast_1d(values))

    return f"  {label:<34} real {text(real)}   phantom {text(drawn)}"


def compare(score: str, real: Measures, drawn: Measures) -> list[str]:
    names = "/".join(f"{p:g}" for p in PERCENTILES)
    lines = [f"score {score}"]
    for name, a, b in (("hematoxylin", real.hematoxylin, drawn.hematoxylin), ("DAB", real.dab, drawn.dab)):
        lines.append(
            row(f"{name}, percentiles {names}", np.percentile(a, PERCENTILES), np.percentile(b, PERCENTILES))
        )
        lines.append(f"  {name + ', earth mover distance':<34} {wasserstein_distance(a, b):.4f}")
    for name, a, b in (
        ("nucleus diameter um, 25/50/75", real.diameter_um, drawn.diameter_um),
        ("nearest nucleus um, 25/50/75", real.spacing_um, drawn.spacing_um),
    ):
        lines.append(row(name, np.percentile(a, (25, 50, 75)), np.percentile(b, (25, 50, 75)), 1))
    lines.append(row("nuclei per mm2", np.array(real.per_mm2), np.array(drawn.per_mm2), 0))
    lines.append(row("log10 power, coarse to fine", real.spectrum, drawn.spectrum, 2))
    lines.append(row("gradient in grey levels, 50/90/99", real.gradient, drawn.gradient, 1))
    return lines


def sheet_row(real: list[NDArray[np.uint8]], drawn: list[NDArray[np.uint8]], side: int) -> NDArray[np.uint8]:
    def strip(crops: list[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        tiles = [crop[:side, :side] for crop in crops[:3]]
        tiles += [np.full((side, side, 3), 255, np.uint8)] * (3 - len(tiles))
        return np.hstack(tiles)

    return np.hstack([strip(real), np.zeros((side, 12, 3), np.uint8), strip(drawn)])


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare digital phantoms with real HER2 cores.")
    parser.add_argument("-o", "--output", type=Path, default=Path("phantom-realism"))
    parser.add_argument("--seeds", type=int, default=3, help="phantoms per score")
    parser.add_argument("--crops", type=int, default=4, help="crops per core")
    parser.add_argument("--look", default="oesophagus_tma")
    options = parser.parse_args()
    data = os.environ.get("WSI_HER2_TEST_DATA")
    if not data or not (Path(data) / "slides").is_dir():
        print("Set WSI_HER2_TEST_DATA to the folder that holds slides/ihc_core_score*.tif.", file=sys.stderr)
        return 2
    cores = list(real_sources(Path(data)))
    if not cores:
        print(f"There is no ihc_core_score*.tif in {Path(data) / 'slides'}.", file=sys.stderr)
        return 2
    rng = np.random.default_rng(0)
    scores = sorted({core.score for core in cores})
    pools: dict[tuple[str, bool], list[tuple[NDArray[np.uint8], NDArray[np.float64]]]] = {}
    for drawn, sources in (
        (False, iter(cores)),
        (True, phantom_sources(scores, options.seeds, options.look)),
    ):
        for source in sources:
            white = white_point(source.thumbnail)
            for x, y in tissue_places(source, options.crops, rng):
                pools.setdefault((source.score, drawn), []).append((source.read(x, y, CROP_PX), white))
    options.output.mkdir(parents=True, exist_ok=True)
    lines, rows = [], []
    for score in scores:
        real, phantom = pools[score, False], pools[score, True]
        lines += compare(score, measure(real), measure(phantom))
        # Spread over the pool, so that each core and each phantom has its turn.
        real_crops = [real[len(real) * k // 3][0] for k in range(3)]
        drawn_crops = [phantom[len(phantom) * k // 3][0] for k in range(3)]
        rows.append(sheet_row(real_crops, drawn_crops, 400))
    text = "\n".join(lines)
    print(text)
    (options.output / "table.txt").write_text(text + "\n", encoding="utf-8")
    sheet = options.output / "contact_sheet.png"
    cv2.imwrite(str(sheet), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))
    print(f"Real cores at the left, phantoms at the right: {sheet}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
