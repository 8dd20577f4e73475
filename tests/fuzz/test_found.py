"""Hostile files that once took a process with them, or are a known way to try: refused at once, in little memory.

Each is used as a user would, in a process with the limits of `conftest`; any error that is not ours, a crash, a
hang, memory beyond the limit or a file outside fails. The files are made by a few lines of code each.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz.conftest import MEMORY_MB, SECONDS
from tests.fuzz.corpus import LABS, REGIONS, TABLES, YAMLS
from tests.fuzz.crafted import SLIDES
from tests.fuzz.crafted_models import BUNDLES, KERAS
from tests.fuzz.pool import Child

REFUSED = {
    "billion_pixels_a_side": "1,000,000,000 x 1,000,000,000 px",
    "billion_pixels_a_side_of_nothing": "1,000,000,000 x 1,000,000,000 px",
    "billion_pixels_in_strips": "1,000,000,000 x 1,000,000,000 px",
    "million_pixels_a_side": "cannot hold",
    "tile_as_large_as_the_slide": "cannot hold",
    "uncompressed_tile_of_gigabytes": "cannot hold",
    "deflate_bomb_in_a_tile_that_large": "takes 805,306,368 bytes of memory",
    "directories_in_a_circle": "in a circle",
    "directory_that_follows_itself": "in a circle",
    "directories_below_directories": "in a circle",
    "many_directories": "more than 2,000 images",
    "four_billion_tiles": "takes 17,179,869,180 bytes",
    "tiny_tiles": "cannot hold",
    "tiles_of_one_row": "100,000 tiles, and its table has 400",
    "no_samples": "bytes of memory",
    "description_of_megabytes": "bytes of description",
    "tile_of_two_gigabytes": "2,147,483,632 bytes",
    "hamamatsu_of_billions": "1,000,000,000 x 1,000,000,000 px",
    "hamamatsu_whose_jpeg_is_larger": "cannot hold",
}
"""Slides that are refused before a library opens them, and what is said. Others may be read as far as they go."""


def text_of(make: Callable[[], str | bytes], path: Path) -> Path:
    content = make()
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize("name", SLIDES)
def test_a_slide_that_claims_what_cannot_be_does_no_harm(child: Child, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.tif"
    path.write_bytes(SLIDES[name]())
    # Variants: any backend, then each by name.
    for variant in (1, 4, 8):
        verdict = child.use("slide", path, variant)
        assert verdict.outcome in ("ok", "refused"), (variant, verdict)
        if name in REFUSED:
            assert (verdict.outcome, verdict.what) == ("refused", "UnsupportedSlide")
            assert REFUSED[name] in verdict.said
            assert verdict.seconds < SECONDS / 10


@pytest.mark.parametrize("number", range(len(REGIONS)))
def test_regions_that_are_made_to_harm_do_none(child: Child, number: int, tmp_path: Path) -> None:
    verdict = child.use("regions", text_of(REGIONS[number], tmp_path / "regions.geojson"), 0)
    assert verdict.outcome in ("ok", "refused"), verdict
    assert verdict.what in ("", "RegionsError")


@pytest.mark.parametrize("number", range(len(YAMLS)))
def test_configurations_that_are_made_to_harm_do_none(child: Child, number: int, tmp_path: Path) -> None:
    verdict = child.use("config", text_of(YAMLS[number], tmp_path / "config.yaml"), 0)
    assert verdict.outcome in ("ok", "refused"), verdict
    assert verdict.what in ("", "ConfigurationError")


@pytest.mark.parametrize("number", range(len(LABS)))
def test_laboratory_profiles_that_are_made_to_harm_are_refused(child: Child, number: int, tmp_path: Path) -> None:
    verdict = child.use("lab", text_of(LABS[number], tmp_path / "lab.json"), 0)
    assert (verdict.outcome, verdict.what) == ("refused", "LabProfileError"), verdict


@pytest.mark.parametrize("number", range(len(TABLES)))
def test_tables_that_are_made_to_harm_do_none(child: Child, number: int, tmp_path: Path) -> None:
    verdict = child.use("table", text_of(TABLES[number], tmp_path / "truth.csv"), 0)
    assert verdict.outcome in ("ok", "refused"), verdict
    assert verdict.what in ("", "DatasetError")


# Models


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    """As `child`, with what networks need imported already; that alone takes a gigabyte."""
    for package in ("torch", "timm", "h5py", "onnx", "onnxscript"):
        pytest.importorskip(package)
    modules = ("wsi_her2.models.telemetry", "h5py", "wsi_her2.models.networks.deployed", "timm", "onnxruntime")
    made = Child(tmp_path_factory.mktemp("fuzz") / "torch", 2 * MEMORY_MB, SECONDS, modules)
    yield made
    made.close()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, with_torch: Child) -> Path:
    """A small good bundle; not to be changed."""
    from tests.models.conftest import pack_small
    from wsi_her2.models.networks.architecture import named_architecture

    folder = tmp_path_factory.mktemp("bundles") / "bundle"
    pack_small(folder, named_architecture("pruneff1", 2, sigmoid=True, patch_px=16))
    return folder


@pytest.mark.parametrize("name", KERAS)
def test_keras_files_that_are_made_to_harm_are_refused(with_torch: Child, name: str, tmp_path: Path) -> None:
    for seed in range(3 if name in ("shapes", "outside", "units") else 1):
        KERAS[name](tmp_path / "model.h5", random.Random(seed))
        verdict = with_torch.use("keras", tmp_path / "model.h5", 0)
        assert (verdict.outcome, verdict.what) == ("refused", "ClassifierError"), verdict


def test_a_good_bundle_is_used(with_torch: Child, bundle: Path) -> None:
    assert with_torch.use("model", bundle, 1).outcome == "ok"


@pytest.mark.parametrize("name", BUNDLES)
@pytest.mark.parametrize("variant", [1, 5], ids=["onnx", "openvino"])
def test_bundles_that_are_made_to_harm_are_refused(
    with_torch: Child, bundle: Path, name: str, variant: int, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "bundle")
    BUNDLES[name](tmp_path / "bundle")
    verdict = with_torch.use("model", tmp_path / "bundle", variant)
    if name == "many empty tensors" or (name, variant) == ("graph with two_inputs", 5):
        # They take no room, and OpenVINO leaves out an input that nothing uses.
        assert verdict.outcome in ("ok", "refused"), verdict
    else:
        assert (verdict.outcome, verdict.what) in (("refused", "ClassifierError"), ("refused", "MissingExtra")), (
            verdict
        )
