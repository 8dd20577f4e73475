"""Whatever is wrong with a slide is one row with a reason, and no other slide's trouble."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile

from pipelines.configuration import RunConfig, load_config
from pipelines.run.score import score
from tests.pipelines.conftest import GLASS, ihc_pixels, rows, write_slide

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def made(ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """Rows of one run over one good slide and many that are not."""
    folder = tmp_path_factory.mktemp("bad")
    blank = np.full((1024, 1024, 3), GLASS, np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
    write_slide(folder / "no_tissue.tif", blank)
    write_slide(folder / "white.tif", np.full_like(blank, 255))
    write_slide(folder / "black.tif", np.zeros_like(blank))
    write_slide(folder / "noise.tif", noise)
    write_slide(folder / "coarse.tif", ihc_pixels(), mpp=2.0)
    write_slide(folder / "absurd_mpp.tif", ihc_pixels(), mpp=50.0)
    write_slide(folder / "blurred.tif", _blurred(ihc_pixels()))
    write_slide(folder / "inked.tif", _inked(ihc_pixels()))
    tifffile.imwrite(folder / "no_mpp.tif", ihc_pixels(), tile=(256, 256), photometric="rgb")
    (folder / "text.svs").write_text("this is not a slide")
    (folder / "empty.ndpi").touch()
    whole = ihc_slide.read_bytes()
    (folder / "truncated.tif").write_bytes(whole[: len(whole) // 3])
    for name in ("one stem", "two/one stem", "[brackets] (and) spaces é 😐", "<b>bold<b> & co"):
        target = folder / f"{name}.tif"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(ihc_slide, target)
    config = load_config(None, {"compute.workers": 2, "compute.processes": False})
    output = folder.parent / "bad-out"
    score([folder], output, config)
    return rows(output)


def _blurred(pixels: np.ndarray) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(pixels, (0, 0), 4.0)


def _inked(pixels: np.ndarray) -> np.ndarray:
    """Everything but a corner under green felt pen."""
    inked = pixels.copy()
    inked[: int(0.8 * len(inked))] = (40, 160, 130)
    return inked


@pytest.mark.parametrize(
    ("slide_id", "status", "said"),
    [
        ("no_tissue", "not_assessable", "too little tissue"),
        ("white", "not_assessable", "too little tissue"),
        ("black", "not_assessable", "not a brightfield"),
        ("noise", "not_assessable", ""),
        ("blurred", "not_assessable", "out of focus"),
        ("inked", "not_assessable", "pen"),
        ("coarse", "failed", "--mpp"),
        ("absurd_mpp", "failed", "--mpp"),
        ("no_mpp", "failed", "--mpp"),
        ("text", "failed", "not a slide"),
        ("empty", "failed", "not a slide"),
        ("truncated", "failed", ""),
        ("one stem", "scored", ""),
        ("one stem_2", "scored", ""),
        ("[brackets] (and) spaces é 😐", "scored", ""),
        ("_b_bold_b_ _ co", "scored", ""),
    ],
)
def test_each_slide_has_its_row_and_its_reason(
    made: dict[str, dict[str, str]], slide_id: str, status: str, said: str
) -> None:
    row = made[slide_id]
    assert row["status"] == status
    assert said in row["reason"]
    assert (row["reason"] == "") == (status == "scored")
    assert (row["her2_score"] == "") == (status != "scored")


def test_a_reason_states_what_was_measured_and_the_limit(made: dict[str, dict[str, str]]) -> None:
    for row in made.values():
        if row["status"] == "not_assessable":
            assert "limit" in row["reason"]


def test_a_damaged_tile_costs_its_patches_and_is_counted(
    ihc_slide: Path, tmp_path: Path, config: RunConfig
) -> None:
    damaged = tmp_path / "damaged.tif"
    shutil.copyfile(ihc_slide, damaged)
    with tifffile.TiffFile(damaged) as tiff:
        page = tiff.pages[0]
        middle = len(page.dataoffsets) // 2
        offset, size = page.dataoffsets[middle], page.databytecounts[middle]
    with damaged.open("r+b") as stream:
        stream.seek(offset)
        stream.write(b"\x00" * size)
    score([damaged], tmp_path / "out", config)
    row = rows(tmp_path / "out")["damaged"]
    assert row["status"] == "scored"
    assert 0 < float(row["unreadable_fraction"]) < 0.1
    assert int(row["cells"]) > 100, "fields that can be read are still counted"


def test_h_and_e_is_refused_by_an_ihc_classifier_and_the_other_way_round(data_dir: Path, tmp_path: Path) -> None:
    from importlib import resources

    described = json.loads((resources.files("wsi_her2.models.membrane") / "coefficients.json").read_text())
    described.update(modality="he", name="for-h-and-e")
    he_model = tmp_path / "he.json"
    he_model.write_text(json.dumps(described))
    he, ihc = data_dir / "slides/he_aperio_cmu1_small_region.svs", data_dir / "slides/ihc_core_score2_a.tif"
    for slide, options in ((he, {}), (ihc, {"model": str(he_model), "modality": "he"})):
        config = load_config(None, {"compute.workers": 1, "compute.processes": False, **options})
        output = tmp_path / f"out-{slide.stem}"
        score([slide], output, config)
        row = rows(output)[slide.stem]
        assert row["status"] == "not_assessable"
        assert "eosin" in row["reason"]


def test_fluorescence_is_refused_and_damaged_files_fail(data_dir: Path, tmp_path: Path, config: RunConfig) -> None:
    slides = data_dir / "slides"
    chosen = [
        *sorted(slides.glob("*.ndpi")),
        slides / "truncated_ihc_core.tif",
        *sorted((slides / "tiny").iterdir()),
    ]
    score(chosen, tmp_path / "out", config)
    found = rows(tmp_path / "out")
    assert len(found) == len(chosen)
    for path in slides.glob("*.ndpi"):
        assert "not a brightfield" in found[path.stem]["reason"]
    for damaged in ("truncated_ihc_core", "unopenable", "unreadable"):
        assert found[damaged]["status"] == "failed"
        assert found[damaged]["reason"]


def test_a_slide_without_scale_is_scored_with_the_users(data_dir: Path, tmp_path: Path) -> None:
    config = load_config(None, {"compute.workers": 1, "compute.processes": False, "mpp": 0.5})
    score([data_dir / "slides/he_aperio_tcga_no_mpp.svs"], tmp_path / "out", config)
    row = rows(tmp_path / "out")["he_aperio_tcga_no_mpp"]
    assert (row["mpp"], row["mpp_source"]) == ("0.5", "user")
    assert "eosin" in row["reason"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    mount = tmp_path / "tiny"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_said_and_a_second_try_elsewhere_works(
    cli: Cli, ihc_slide: Path, tiny_disk: Path, tmp_path: Path
) -> None:
    full = cli("score", ihc_slide, "-o", tiny_disk / "out", "--store-patches", "--workers", 1)
    assert full.returncode in (1, 2), full.stderr
    assert "No space left" in full.stderr + full.stdout
    assert "Traceback" not in full.stderr
    assert not (tiny_disk / "out" / "stained" / "patches.zarr").exists()
    elsewhere = cli("score", ihc_slide, "-o", tmp_path / "out", "--workers", 1)
    assert elsewhere.returncode == 0, elsewhere.stderr


def test_a_slide_that_vanishes_is_a_row(ihc_slide: Path, tmp_path: Path, config: RunConfig) -> None:
    from pipelines.cluster import connect
    from pipelines.run.score import resolve_classifier
    from pipelines.scheduling.events import SlideFailed, SlideStarted
    from pipelines.scheduling.schedule import score_slides
    from pipelines.scheduling.slide_queue import SlideQueue
    from pipelines.slide_claims import Claims
    from pipelines.worker.task import SlideTask

    slide = tmp_path / "leaving.tif"
    shutil.copyfile(ihc_slide, slide)
    choice, classifier = resolve_classifier(config)
    tasks = [SlideTask("leaving", slide, tmp_path / "out", config, choice, classifier.sha256)]
    slide.unlink()
    (tmp_path / "out").mkdir()
    with Claims(tmp_path / "out") as claims, connect(config.compute) as client:
        events = list(score_slides(client, SlideQueue(tasks, claims)))
    assert [type(event) for event in events] == [SlideStarted, SlideFailed]
    assert isinstance(events[-1].error, FileNotFoundError)
    assert events[-1].cause == "lasting"
