"""`export` for other programs, and `report` with reviews and PDF, over the results of a run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from pipelines.configuration import load_config
from pipelines.exports.export import ExportOptions, export
from pipelines.exports.qupath_project import SCRIPT, groovy_string
from pipelines.exports.rebuild import rebuild_reports
from pipelines.results import read_result
from pipelines.review.journal import JOURNAL_FILE, Journal, new_review
from pipelines.run.score import score
from tests.pipelines.conftest import MPP, differing_files, ihc_pixels, write_slide
from wsi_her2.errors import ConfigurationError, MissingExtra
from wsi_her2.reports.ome_tiff import downsample_for
from wsi_her2.reports.palette import colour_of

DOUBLE = Path(__file__).parent / "qupath_double"
HOW_TO_GET_GROOVY = (
    "no Groovy: install it (Debian, Ubuntu: `apt-get install groovy`), or set GROOVY_LIB to a folder that holds "
    "groovy-*.jar and groovy-json-*.jar; java must be on the PATH"
)
HOSTILE = "it's \"$x\" ${1/0} \\' \\u0027 é🙂"


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two slides, one of them with a name that tries to be code, and a file that is none."""
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "stained.tif", ihc_pixels())
    shutil.copy(folder / "stained.tif", folder / f"{HOSTILE.replace('/', '')}.tif")
    (folder / "broken.tif").write_bytes(b"no slide")
    return folder


@pytest.fixture(scope="module")
def run(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    config = load_config(None, {"compute.workers": 2, "compute.processes": False, "cells.mode": "all"})
    score([slides], output, config)
    return output


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run, tmp_path / "copy")


def reviewed(run: Path, **given: object) -> None:
    result = read_result(run / "stained")
    assert result is not None
    assert result.call is not None
    kept = {"slide_id": "stained", "reviewer": "Dr Example", "verdict": "overrule", "called": result.call.score}
    kept |= {"score": "0" if result.call.score != "0" else "1+", "fingerprint": result.fingerprint}
    Journal(run / JOURNAL_FILE).add_review(new_review(**(kept | given)))


# Reports


def test_without_reviews_reports_made_again_are_the_same_to_the_bit(run: Path, copy: Path) -> None:
    for page in copy.glob("*/report.html"):
        page.unlink()
    rebuild_reports(copy)
    assert differing_files(run, copy) == []


def test_a_review_stands_in_the_report_of_its_slide_and_in_no_other(run: Path, copy: Path) -> None:
    reviewed(copy, comment="cytoplasmic <b>only</b>", reason="staining artefact")
    reviewed(copy, verdict="unsure", score=None, reviewer="Dr Second")
    rebuild_reports(copy)
    source = (copy / "stained" / "report.html").read_text(encoding="utf-8")
    assert "Reviewed: undecided" in source
    assert "Dr Second" in source
    assert "by Dr Example, 20" in source
    assert "scored anew" not in source
    assert {str(name).split(" is in")[0] for name in differing_files(run, copy)} == {
        JOURNAL_FILE,
        "stained/report.html",
    }


def test_a_review_of_an_earlier_result_says_so(copy: Path) -> None:
    reviewed(copy, fingerprint="0" * 64, comment="<script>alert(1)</script>")
    rebuild_reports(copy)
    source = (copy / "stained" / "report.html").read_text(encoding="utf-8")
    assert "The slide has been scored anew since" in source
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in source


def test_a_review_of_a_slide_that_failed_stands_in_its_report(copy: Path) -> None:
    result = read_result(copy / "broken")
    assert result is not None
    reviewed(copy, slide_id="broken", called=None, score="2+", fingerprint=result.fingerprint)
    rebuild_reports(copy)
    assert "Reviewed: 2+ instead of no call" in (copy / "broken" / "report.html").read_text(encoding="utf-8")


def test_report_pdf_writes_one_beside_each_report_the_same_each_time(copy: Path, cli) -> None:
    done = cli("report", copy, "--pdf")
    assert done.returncode == 0, done.stderr
    pdfs = {path: path.read_bytes() for path in copy.glob("*/report.pdf")}
    assert len(pdfs) == 3
    assert all(content.startswith(b"%PDF-") for content in pdfs.values())
    rebuild_reports(copy, pdf=True)
    assert all(path.read_bytes() == content for path, content in pdfs.items())


def test_export_pdf_writes_a_file_named_after_each_slide(run: Path, tmp_path: Path) -> None:
    exported = export(run, "pdf", tmp_path / "pdf")
    assert {path.stem for path in (tmp_path / "pdf").iterdir()} == {
        path.parent.name for path in run.glob("*/result.json")
    }
    assert exported.written == "3 reports"
    assert exported.notes == ()


def test_a_slide_whose_patches_are_gone_is_left_out_and_named(copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(copy / "stained" / "patches.zarr")
    exported = export(copy, "pdf", tmp_path / "pdf")
    assert exported.notes == ("left out, because their patches are gone or damaged: stained",)
    before = (copy / "stained" / "report.html").read_bytes()
    rebuild_reports(copy, pdf=True)
    assert (copy / "stained" / "report.html").read_bytes() == before


# OME-TIFF


def test_maps_lie_over_the_slide(run: Path, tmp_path: Path) -> None:
    exported = export(run, "ome-tiff", tmp_path / "maps", ExportOptions(probabilities=True))
    assert exported.notes == ("left out, because nothing of them was scored: broken",)
    assert len(list((tmp_path / "maps").iterdir())) == 4
    result = read_result(run / "stained")
    assert result is not None
    assert result.reader is not None
    side = round(result.model.patch_px * result.model.mpp / MPP)
    downsample = downsample_for(side)
    image = tifffile.imread(tmp_path / "maps" / "stained.ome.tif")
    width, height = result.reader.dimensions
    assert image.shape[:2] == (-(-height // downsample), -(-width // downsample))
    lines = (run / "stained" / "patches.csv").read_text().splitlines()[1:]
    assert len(lines) > 20
    for line in lines:
        x, y, *_, label = line.split(",")
        middle = image[(int(y) + side // 2) // downsample, (int(x) + side // 2) // downsample]
        assert tuple(middle) == ((205, 206, 208) if label == "other" else colour_of(label))
    probabilities = tifffile.imread(tmp_path / "maps" / "stained.probabilities.ome.tif")
    assert probabilities.shape == (len(result.model.classes), *image.shape[:2])
    assert np.abs(probabilities.sum(axis=0, dtype=int)[probabilities.any(axis=0)] - 255).max() <= 3


# QuPath


def groovy() -> list[str] | None:
    """The command that runs a Groovy script; None where there is none."""
    library, java = os.environ.get("GROOVY_LIB"), shutil.which("java")
    if library and java:
        return [
            java,
            "-cp",
            os.pathsep.join(map(str, sorted(Path(library).glob("*.jar")))),
            "groovy.ui.GroovyMain",
        ]
    program = shutil.which("groovy")
    return [program] if program else None


@pytest.fixture
def in_qupath(run: Path, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Runs the script twice in a double of QuPath; what it said, and the project afterwards."""
    command = groovy()
    if command is None:
        pytest.skip(HOW_TO_GET_GROOVY)
    export(run, "qupath", tmp_path / "script")

    def load(images: list[dict[str, object]], opened: str, version: str) -> dict[str, object]:
        (tmp_path / "project.json").write_text(json.dumps(images))
        arguments = [
            DOUBLE / "run.groovy",
            tmp_path / "script" / SCRIPT,
            tmp_path / "project.json",
            opened,
            version,
        ]
        done = subprocess.run(
            [*command, *map(str, arguments)], capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
        return found

    return load


def image(path: Path, name: str | None = None, *, readable: bool = True) -> dict[str, object]:
    return {"name": name or path.name, "uri": path.as_uri(), "readable": readable}


@pytest.mark.parametrize(("opened", "version"), [("closed", "0.5"), ("open", "0.6")])
def test_the_script_loads_the_run_into_a_project_and_says_what_did_not_match(
    in_qupath, run: Path, slides: Path, tmp_path: Path, opened: str, version: str
) -> None:
    hostile = next(path for path in slides.iterdir() if path.name.startswith("it's"))
    elsewhere = tmp_path / "moved"
    images = [
        image(elsewhere / "stained.tif"),
        image(elsewhere / hostile.name, "renamed by hand"),
        image(elsewhere / "stranger.svs"),
        image(elsewhere / "broken.tif", readable=False),
    ]
    found = in_qupath(images, opened, version)
    stained, odd, stranger, broken = found["project"]["entries"]
    overlay = json.loads((run / "stained" / "overlay.geojson").read_text())["features"]
    kinds = [feature["properties"]["objectType"] for feature in overlay]
    for entry in (stained, odd):
        # Loaded twice, and there once; what was drawn by hand is still there.
        counts = entry["objects"]
        assert sum(count for name, count in counts.items() if name.startswith("tile Patch ")) == kinds.count(
            "tile"
        )
        assert sum(n for name, n in counts.items() if name.startswith("detection Tumor: ")) == kinds.count(
            "detection"
        )
        assert counts["annotation Tissue Tissue"] == 1
        assert entry["saves"] == 2
        assert entry["type"] == "BRIGHTFIELD_H_DAB"
        assert entry["metadata"]["HER2 note"] == "research use only"
    assert odd["objects"]["annotation Tissue mine"] == 1
    assert odd["closed"]
    assert stained["closed"] is (opened == "closed"), "an image that is open stays so"
    result = read_result(run / "stained")
    assert result is not None
    assert result.call is not None
    assert stained["metadata"]["HER2 score"] == result.call.score
    assert (stranger["metadata"], stranger["saves"]) == ({}, 0)
    assert broken["metadata"]["HER2 status"] == "failed"
    colours = dict(found["project"]["classes"])
    red, green, blue = colour_of("2+")
    assert colours["Tumor: 2+"] == colours["Patch 2+"] == (red << 16) | (green << 8) | blue
    assert "(1): stranger.svs" in found["said"]
    assert "Slides without an overlay: they failed (1): broken" in found["said"]
    assert "Slides of this run that are not in the project" not in found["said"]


def test_slides_of_one_file_name_are_told_apart_by_their_path_or_not_at_all(
    in_qupath, run: Path, slides: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    second = json.loads((twin / "stained" / "result.json").read_text())
    second |= {"slide_id": "stained_2", "path": "/other/stained.tif"}
    (twin / "stained_2").mkdir()
    (twin / "stained_2" / "result.json").write_text(json.dumps(second))
    shutil.copy(twin / "stained" / "overlay.geojson", twin / "stained_2")
    export(twin, "qupath", tmp_path / "script")
    images = [image(slides / "stained.tif"), image(Path("/other/stained.tif")), image(Path("/third/stained.tif"))]
    found = in_qupath(images, "closed", "0.6")
    assert [entry["saves"] for entry in found["project"]["entries"]] == [2, 2, 0]
    assert "cannot be told apart (1): stained.tif" in found["said"]


def test_groovy_reads_a_text_as_it_is_and_runs_nothing_of_it(tmp_path: Path) -> None:
    command = groovy()
    if command is None:
        pytest.skip(HOW_TO_GET_GROOVY)
    texts = [HOSTILE, "\\", "'", "\n\r\t\b\f\0\x7f", "'''", "$", "\\u0041", "*/ //", "\u2028", "🙂é", "end\\"]
    lines = [f"println groovy.json.JsonOutput.toJson({groovy_string(text)})" for text in texts]
    (tmp_path / "t.groovy").write_text("\n".join(lines), encoding="ascii")
    done = subprocess.run(
        [*command, str(tmp_path / "t.groovy")], capture_output=True, text=True, timeout=120, check=False
    )
    assert [json.loads(line) for line in done.stdout.splitlines()] == texts, done.stderr


def test_the_script_is_ascii_says_research_use_only_and_no_literal_is_too_long_for_java(
    run: Path, tmp_path: Path
) -> None:
    exported = export(run, "qupath", tmp_path / "q")
    assert exported.path == tmp_path / "q" / SCRIPT
    source = exported.path.read_bytes()
    assert source.isascii()
    assert b"Research use only" in source
    for placeholder in (b"@RUN@", b"@TABLE@", b"@CLASSES@"):
        assert placeholder not in source
    assert max(map(len, source.splitlines())) < 65_535


# SpatialData


def test_without_the_package_spatialdata_is_a_clear_error(run: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "spatialdata", None)
    with pytest.raises(MissingExtra, match="pip install spatialdata"):
        export(run, "spatialdata", tmp_path / "sd")


def test_patches_and_cells_are_read_back_as_spatialdata(run: Path, tmp_path: Path) -> None:
    spatialdata = pytest.importorskip("spatialdata", reason="pip install spatialdata")
    exported = export(run, "spatialdata", tmp_path / "sd")
    assert exported.notes == ("left out, because nothing of them was scored: broken",)
    data = spatialdata.read_zarr(tmp_path / "sd" / "stained.zarr")
    lines = (run / "stained" / "patches.csv").read_text().splitlines()[1:]
    table, shapes = data.tables["patch_classes"], data.shapes["patches"]
    assert len(table) == len(shapes) == len(lines)
    for line, probabilities, label, square in zip(
        lines, table.X, table.obs["label"], shapes.geometry, strict=True
    ):
        x, y, width, height, _, *given = line.split(",")
        assert square.bounds == (int(x), int(y), int(x) + int(width), int(y) + int(height))
        np.testing.assert_allclose(probabilities, np.array(given[:-1], float), atol=5e-5)
        assert label == given[-1]
    result = read_result(run / "stained")
    assert result is not None
    assert result.cells is not None
    assert len(data.points["cells"]) == result.cells.cells
    assert data.attrs["wsi_her2"]["note"] == "research use only"


def test_what_the_docs_show_of_reading_a_run_runs(run: Path) -> None:
    docs = Path(__file__).parents[3] / "docs" / "other_tools.md"
    *_, code = re.findall(r"```py\n(.*?)```", docs.read_text(encoding="utf-8"), re.DOTALL)
    read: dict[str, Any] = {}
    exec(code.replace("DIR/case", str(run / "stained")), read)
    result = read_result(run / "stained")
    assert result is not None
    assert result.cells is not None
    assert len(read["patches"]) == result.n_patches
    assert read["cells"]["tumour"].sum() == result.cells.cells
    assert tuple(read["store"].attrs["classes"]) == result.model.classes


@pytest.mark.parametrize("what", ["pdf", "ome-tiff", "qupath"])
def test_a_folder_without_results_is_a_clear_error(what: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no results here"):
        export(tmp_path, what, tmp_path / "x")
