"""What `info` and `tissue` say of one slide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.configuration import load_config
from wsi_her2.errors import MissingResolution, OutputError
from wsi_her2.reports.heatmap import write_png
from wsi_her2.slides.location import locate
from wsi_her2.slides.slide import open_slide
from wsi_her2.slides.tissue import detect_tissue, tissue_overlay


def describe_slide(path: str | Path, mpp: float | None) -> dict[str, Any]:
    """What a slide is, as plain values; see `open_slide` for what its path may be."""
    try:
        slide = open_slide(path, mpp=mpp)
        scale: dict[str, Any] = {"mpp": slide.mpp, "mpp_source": slide.mpp_source}
    except MissingResolution as error:
        # What the file is can be said without its scale; 1 only stands in while it is open.
        slide = open_slide(path, mpp=1.0)
        scale = {"mpp": None, "mpp_source": str(error)}
    with slide:
        width, height = slide.dimensions
        known = scale["mpp"] is not None
        return {
            "file": str(locate(path)),
            "backend": slide.backend,
            "vendor": slide.properties.get("openslide.vendor", "unknown"),
            "dimensions": f"{width} x {height} px",
            "size": f"{width * slide.mpp / 1000:.2f} x {height * slide.mpp / 1000:.2f} mm" if known else "unknown",
            **scale,
            "objective_power": slide.properties.get("openslide.objective-power", "unknown"),
            "levels": [
                f"{level.width} x {level.height} px, 1/{level.downsample:g}"
                + (f", {slide.mpp * level.downsample:.4g} um/px" if known else "")
                for level in slide.levels
            ],
        }


def draw_tissue(path: str | Path, target: Path, mpp: float | None, config: str | None) -> dict[str, Any]:
    """Draw the tissue mask of a slide and say what was found."""
    settings = load_config(config, {"mpp": mpp})
    with open_slide(path, mpp=settings.mpp, backend=settings.backend) as slide:
        mask = detect_tissue(slide, settings.tissue)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_png(target, tissue_overlay(mask))
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    return {
        "tissue_mm2": round(mask.area_mm2, 4),
        "pen_share": round(mask.pen_share, 4),
        "white_point": f"{', '.join(f'{value:g}' for value in mask.white_point.rgb)} ({mask.white_point.source})",
        "overview_mpp": round(mask.overview.mpp, 4),
        "picture": str(target),
    }
