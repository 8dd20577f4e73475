"""`--roi`: regions meet their slides by name, restrict what is scored, and stand in the results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pipelines.configuration import RunConfig
from pipelines.fingerprint import slide_fingerprint
from pipelines.results import read_result
from pipelines.run.score import score
from pipelines.sources import find_regions
from wsi_her2.errors import ConfigurationError


def regions_file(path: Path, x: int, y: int, side: int, name: str = "Tumor") -> Path:
    ring = [[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]
    feature = {
        "type": "Feature",
        "properties": {"classification": {"name": name}},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def restricted(config: RunConfig, *files: Path) -> RunConfig:
    return config.model_copy(update={"regions": config.regions.model_copy(update={"files": files})})


def test_only_patches_within_the_regions_are_scored_and_the_result_says_so(
    ihc_slide: Path, config: RunConfig, tmp_path: Path
) -> None:
    roi = regions_file(tmp_path / "any name.geojson", -900, -200, 1700)
    whole = score([ihc_slide], tmp_path / "whole", config).results[0]
    part = score([ihc_slide], tmp_path / "part", restricted(config, roi)).results[0]
    assert 0 < part.n_patches < 0.8 * whole.n_patches
    assert part.tissue_mm2 is not None
    assert whole.tissue_mm2 is not None
    assert part.tissue_mm2 < 0.8 * whole.tissue_mm2
    patches = pd.read_csv(tmp_path / "part" / "stained" / "patches.csv")
    assert ((patches["x"] + patches["width"] / 2) < 800).all()
    assert part.regions is not None
    assert part.regions.included == {"Tumor": 1}
    assert read_result(tmp_path / "part" / "stained") == part
    assert (
        "any name.geojson: scored within 1 x Tumor" in (tmp_path / "part" / "stained" / "report.html").read_text()
    )


def test_a_slide_without_regions_is_a_row_that_says_which_file_to_add(
    ihc_slide: Path, config: RunConfig, tmp_path: Path
) -> None:
    other = Path(shutil.copy(ihc_slide, tmp_path / "other.tif"))
    folder = tmp_path / "regions"
    folder.mkdir()
    regions_file(folder / "stained.geojson", 0, 0, 2000)
    results = score([ihc_slide, other], tmp_path / "out", restricted(config, folder)).results
    assert [result.status for result in results] == ["scored", "failed"]
    assert "other.geojson" in results[1].reason


def test_the_content_of_the_regions_decides_whether_a_result_is_reused(ihc_slide: Path, tmp_path: Path) -> None:
    first = regions_file(tmp_path / "a.geojson", 0, 0, 600)
    fingerprint = slide_fingerprint(ihc_slide, RunConfig(), "model", "numpy", regions=first)
    assert fingerprint != slide_fingerprint(ihc_slide, RunConfig(), "model", "numpy")
    same = regions_file(tmp_path / "b.geojson", 0, 0, 600)
    assert (
        slide_fingerprint(ihc_slide, restricted(RunConfig(), same), "model", "numpy", regions=same) == fingerprint
    )
    regions_file(same, 0, 0, 500)
    assert slide_fingerprint(ihc_slide, RunConfig(), "model", "numpy", regions=same) != fingerprint


def test_files_belong_to_the_slides_that_they_are_named_like(tmp_path: Path) -> None:
    slides = [tmp_path / "a.ndpi", tmp_path / "b.ndpi"]
    by_stem, by_name = tmp_path / "a.geojson", tmp_path / "b.ndpi.geojson"
    stray = tmp_path / "c.geojson"
    for path in (by_stem, by_name, stray):
        path.touch()
    assert find_regions([by_stem, by_name], slides) == {slides[0]: by_stem, slides[1]: by_name}
    assert find_regions([tmp_path], slides) == {slides[0]: by_stem, slides[1]: by_name}
    assert find_regions([stray], slides[:1]) == {slides[0]: stray}
    with pytest.raises(ConfigurationError, match=r"c\.geojson"):
        find_regions([by_stem, stray], slides)
    with pytest.raises(ConfigurationError, match="nowhere"):
        find_regions([tmp_path / "nowhere"], slides)
    twice = tmp_path / "a.ndpi.geojson"
    twice.touch()
    with pytest.raises(ConfigurationError, match="both hold"):
        find_regions([by_stem, twice], slides)


def test_while_slides_are_still_to_come_only_names_say_whose_regions_are_whose(tmp_path: Path) -> None:
    slide, own, of_another = tmp_path / "a.ndpi", tmp_path / "a.geojson", tmp_path / "b.geojson"
    own.touch()
    of_another.touch()
    assert find_regions([of_another], [slide], more_to_come=True) == {}
    assert find_regions([own, of_another], [slide], more_to_come=True) == {slide: own}
