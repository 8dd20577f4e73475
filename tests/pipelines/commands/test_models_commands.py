"""Contracts of the `models` commands and of scoring with a bundle, run as a user runs them."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipelines.configuration import load_config
from pipelines.models import import_keras
from pipelines.run.score import resolve_classifier, score
from tests.models.conftest import need_packing, pack_small, varied_patches
from tests.pipelines.conftest import PATIENCE_S, ihc_pixels, rows
from tests.pipelines.preloaded import Preloaded
from wsi_her2.errors import HER2Error
from wsi_her2.models.bundle import Bundle, Training, read_bundle, write_bundle
from wsi_her2.models.calibration import CalibrationPatches
from wsi_her2.models.loading import load_classifier
from wsi_her2.models.networks.architecture import named_architecture

Cli = Callable[..., subprocess.CompletedProcess[str]]
Completed = subprocess.CompletedProcess[str]

FAMILIES = {"pruneff": "pruneff4_4class", "ather2": "ather2_4class"}


@pytest.fixture(scope="session")
def run() -> Iterator[Cli]:
    """Run a command that needs torch, on one core."""
    need_packing()
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    installed = [name for name in ("timm", "onnxruntime", "openvino", "h5py", "onnxscript") if find_spec(name)]
    with Preloaded(("pipelines.run.score", "pipelines.models", "torch", *installed), environment) as started:
        yield lambda *given: started.run([str(word) for word in given], timeout=PATIENCE_S, env=environment)


def run_all(run: Cli, commands: dict[str, tuple[object, ...]]) -> dict[str, Completed]:
    """Run commands two at a time."""
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(commands, pool.map(lambda given: run(*given), commands.values()), strict=True))


def refused(shown: Completed, said: str) -> None:
    """One line on stderr that says what is wrong, and nothing else."""
    assert shown.returncode == 2, shown.stderr
    assert said in shown.stderr
    assert "Traceback" not in shown.stderr
    assert shown.stderr.startswith("wsi-her2: ")
    assert shown.stdout == ""


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images, so that importing is quick."""
    folder = tmp_path_factory.mktemp("calibration")
    for index, image in enumerate(varied_patches(4, 512)):
        Image.fromarray(image).save(folder / f"{index}.png")
    return folder


# Importing


@pytest.fixture(scope="session")
def imported(
    run: Cli, data_dir: Path, calibration: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Completed]]:
    """Bundles of both files of Keras; PrunEff's says what it was trained on, ATHER2's does not."""
    need_packing()
    pytest.importorskip("h5py")
    folder = tmp_path_factory.mktemp("imported")
    options = {"pruneff": ("--trained-on", "BCI, IHC", "--mpp", 0.46, "--json"), "ather2": ("--name", "mine")}
    return folder, run_all(
        run,
        {
            family: (
                *("models", "import-keras", data_dir / "keras" / f"{file}.h5", "-o", folder / family),
                *("--calibration", calibration, *options[family]),
            )
            for family, file in FAMILIES.items()
        },
    )


def test_a_keras_file_becomes_a_bundle_that_gives_its_probabilities(
    imported: tuple[Path, dict[str, Completed]], data_dir: Path
) -> None:
    folder, shown = imported
    for family, file in FAMILIES.items():
        assert shown[family].returncode == 0, shown[family].stderr
        kept = np.load(data_dir / "keras" / f"{file}.npz")
        found = load_classifier(folder / family, "onnx").predict(kept["images"])
        np.testing.assert_allclose(found, kept["probabilities"], atol=1e-4)


def test_what_was_imported_is_printed(imported: tuple[Path, dict[str, Completed]]) -> None:
    folder, shown = imported
    described = json.loads(shown["pruneff"].stdout)
    assert described["bundle"] == str(folder / "pruneff")
    assert (described["name"], described["architecture"], described["mpp"]) == ("pruneff", "pruneff4", 0.46)
    assert described["trained_on"] == "BCI, IHC"
    assert "um/px" not in shown["pruneff"].stderr
    assert "mine" in shown["ather2"].stdout


def test_what_nobody_says_is_warned_of(imported: tuple[Path, dict[str, Completed]]) -> None:
    folder, shown = imported
    assert "--mpp" in shown["ather2"].stderr
    assert "--trained-on" in shown["ather2"].stderr
    card = read_bundle(folder / "ather2").card
    assert card.training == Training(status="unknown")
    assert not card.mpp_stated
    trained = read_bundle(folder / "pruneff").card
    assert trained.training == Training(status="trained", data="BCI, IHC")
    assert trained.mpp_stated


def test_show_prints_the_card(imported: tuple[Path, dict[str, Completed]], cli: Cli) -> None:
    folder, _ = imported
    described = json.loads(cli("models", "show", folder / "ather2", "--json").stdout)
    bundle = read_bundle(folder / "ather2")
    assert described["sha256"] == bundle.sha256
    assert described["classes"] == ["0", "1+", "2+", "3+"]
    assert (described["patch_px"], described["parameters"]) == (512, 345_914)
    assert "not stated" in described["trained_on"]
    assert "assumed" in described["scale"]
    assert described["fp32_bytes"] == (folder / "ather2" / "model.onnx").stat().st_size
    assert "4 images" in described["int8_agreement"]
    assert "trained_on" in cli("models", "show", folder / "ather2" / "model.safetensors").stdout


def test_list_names_the_bundles_of_a_folder_and_which_produce_calls(
    imported: tuple[Path, dict[str, Completed]], cli: Cli
) -> None:
    folder, _ = imported
    listed = {row["name"]: row for row in json.loads(cli("models", "list", folder, "--json").stdout)}
    bundled = {"membrane", "ather2-phantoms", "pruneff4-phantoms"}
    assert set(listed) == bundled | {str(folder / "pruneff"), str(folder / "ather2")}
    assert listed[str(folder / "pruneff")]["trained"] is True
    assert listed[str(folder / "ather2")]["trained"] is False
    assert listed[str(folder / "pruneff")]["sha256"] == read_bundle(folder / "pruneff").sha256
    (line,) = (
        line for line in cli("models", "list", folder).stdout.splitlines() if str(folder / "ather2") in line
    )
    assert line.endswith("not trained: no calls")


def test_wrong_files_exit_with_2_and_one_clear_line(run: Cli, data_dir: Path, tmp_path: Path) -> None:
    need_packing()
    (tmp_path / "wrong.h5").write_bytes(b"nothing")
    given = ("-o", tmp_path / "new", "--mpp", 0.5, "--trained-on", "BCI")
    pruneff = data_dir / "keras" / "pruneff4_4class.h5"
    shown = run_all(
        run,
        {
            "there is no such file": ("models", "import-keras", tmp_path / "absent.h5", *given),
            "not a Keras file in HDF5": ("models", "import-keras", tmp_path / "wrong.h5", *given),
            "block4a_expand_conv: is not part of": (
                "models",
                "import-keras",
                pruneff,
                *given,
                "--arch",
                "pruneff3",
            ),
        },
    )
    for said, completed in shown.items():
        refused(completed, said)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("file", "given", "said"),
    [
        ("ather2", {"arch": "pruneff4"}, "stem_conv: the convolution is missing"),
        ("ather2", {"arch": "pruneff"}, "stem_conv: the convolution is missing"),
        ("pruneff", {"arch": "ather2"}, "not ather2 as published"),
        ("pruneff", {"arch": "pruneff5"}, "block5a_expand_conv: the convolution is missing"),
        ("pruneff", {"arch": "resnet"}, "there is no network 'resnet'"),
        ("pruneff", {"classes": ("a", "b")}, "--classes names 2: a, b"),
        ("pruneff", {"trained_on": " "}, "--trained-on names the training data"),
        ("pruneff", {"calibration": Path(__file__).parent}, "calibration needs two images"),
    ],
    ids=str,
)
def test_what_is_said_of_a_file_must_be_so(
    data_dir: Path, tmp_path: Path, file: str, given: dict[str, Any], said: str
) -> None:
    need_packing()
    with pytest.raises(HER2Error, match=said):
        import_keras(data_dir / "keras" / f"{FAMILIES[file]}.h5", tmp_path / "new", mpp=0.5, **given)
    assert not (tmp_path / "new").exists()


def test_a_network_that_was_never_trained_stays_so_whatever_is_said(
    keras_fresh: Path, tmp_path: Path, calibration: Path
) -> None:
    with pytest.raises(HER2Error, match="never trained"):
        import_keras(keras_fresh, tmp_path / "new", mpp=0.5, trained_on="BCI")
    bundle = import_keras(keras_fresh, tmp_path / "new", mpp=0.5, int8=False, calibration=calibration)
    assert bundle.card.training == Training(status="untrained")
    assert not bundle.has("int8")


@pytest.fixture
def keras_fresh(data_dir: Path, tmp_path: Path) -> Path:
    """ATHER2 whose only normalisation has seen no image."""
    h5py = pytest.importorskip("h5py")
    need_packing()
    path = tmp_path / "fresh.h5"
    shutil.copyfile(data_dir / "keras" / "ather2_4class.h5", path)
    with h5py.File(path, "r+") as file:
        statistics = file["model_weights/right_bn/right_bn"]
        statistics["moving_mean:0"][...] = 0
        statistics["moving_variance:0"][...] = 1
    return path


# Quantising and exporting


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small network that tells the patches of the small slide apart."""
    need_packing()
    picture = ihc_pixels()
    rng = np.random.default_rng(0)
    places = rng.integers(300, 900, (40, 2))
    drawn = np.stack([picture[y : y + 64, x : x + 64] for y, x in places])
    patches = CalibrationPatches(drawn[:16], drawn[16:], "the small slide")
    folder = tmp_path_factory.mktemp("models") / "small"
    return pack_small(folder, named_architecture("pruneff1", patch_px=64), patches=patches)


def variant(bundle: Bundle, folder: Path, **fields: Any) -> Path:
    """The same network under another card."""
    card = bundle.card.model_copy(update=fields)
    graphs = {precision: bundle.graph(precision) for precision in bundle.card.graphs}
    check = {precision: bundle.check_probabilities(precision) for precision in graphs}
    return write_bundle(folder, card, bundle.weights, bundle.check_images, check, graphs).path.parent


def test_quantise_makes_a_copy_with_another_graph_in_int8(
    run: Cli, bundle: Bundle, calibration: Path, tmp_path: Path
) -> None:
    output = tmp_path / "quantised"
    shown = run("models", "quantise", bundle.path.parent, "-o", output, "--calibration", calibration, "--json")
    assert shown.returncode == 0, shown.stderr
    assert f"4 images of {calibration.name}" in json.loads(shown.stdout)["int8_agreement"]
    quantised = read_bundle(output)
    assert quantised.graph("fp32") == bundle.graph("fp32")
    assert quantised.graph("int8") != bundle.graph("int8")
    assert quantised.sha256 != bundle.sha256
    assert quantised.card.graphs["fp32"] == bundle.card.graphs["fp32"]
    assert load_classifier(output, "onnx", "int8").precision == "int8"
    refused(run("models", "quantise", bundle.path.parent, "-o", output, "--calibration", calibration), "exists")


def test_export_writes_each_format(run: Cli, bundle: Bundle, tmp_path: Path) -> None:
    forms = {"onnx": "a.onnx", "torchscript": "b.pt"}
    if find_spec("openvino"):
        forms["openvino"] = "c.xml"
    shown = run_all(
        run,
        {
            form: ("models", "export", bundle.path.parent, "-o", tmp_path / name, "--format", form, "--json")
            for form, name in forms.items()
        },
    )
    for form, name in forms.items():
        assert shown[form].returncode == 0, shown[form].stderr
        described = json.loads(shown[form].stdout)
        assert described["max_difference"] < 1e-4
        assert str(tmp_path / name) in described["files"]
        assert all(Path(file).is_file() for file in described["files"])
        assert json.loads((tmp_path / name).with_suffix(".json").read_text())["format"] == form


def test_wrong_exports_exit_with_2(run: Cli, bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.path.parent
    shown = run_all(
        run,
        {
            "ends with .pt": ("models", "export", folder, "-o", tmp_path / "a.onnx", "--format", "torchscript"),
            "no model bundle": ("models", "export", tmp_path, "-o", tmp_path / "a.onnx"),
            "exists already": ("models", "export", folder, "-o", folder / "model.onnx"),
        },
    )
    for said, completed in shown.items():
        refused(completed, said)
    assert list(tmp_path.iterdir()) == []


# Scoring


@pytest.fixture(scope="session")
def scored(
    run: Cli, bundle: Bundle, ihc_slide: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Completed]]:
    """The small slide scored in many ways, each into the folder of its name."""
    folder = tmp_path_factory.mktemp("scored")
    config = folder / "quick.yaml"
    config.write_text("compute: {workers: 1, processes: false}\ncells: {mode: none}\n")
    plain = bundle.path.parent
    unknown = variant(bundle, folder / "unknown-bundle", training=Training(status="unknown"))
    ways: dict[str, tuple[object, ...]] = {
        "torch": (plain, "--runtime", "torch"),
        "onnx": (plain, "--runtime", "onnx"),
        "int8": (plain, "--precision", "int8", "--runtime", "onnx"),
        "turns": (plain, "--tta", "turns", "--runtime", "onnx"),
        "auto": (plain,),
        "unknown": (unknown, "--runtime", "onnx"),
    }
    if find_spec("openvino"):
        ways["openvino"] = (plain, "--runtime", "openvino")
    return folder, run_all(
        run,
        {
            name: ("score", ihc_slide, "-o", folder / name, "--config", config, "--model", *given)
            for name, given in ways.items()
        },
    )


def labels(output: Path) -> list[str]:
    with (output / "stained" / "patches.csv").open(newline="") as stream:
        return [row["label"] for row in csv.DictReader(stream)]


def model_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "stained" / "result.json").read_text())["model"]


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["torch", "openvino"])
def test_the_runtimes_give_every_patch_the_same_label(
    scored: tuple[Path, dict[str, Completed]], runtime: str
) -> None:
    folder, shown = scored
    if runtime not in shown:
        pytest.skip(f"needs {runtime}")
    assert shown[runtime].returncode == 0, shown[runtime].stderr
    assert labels(folder / runtime) == labels(folder / "onnx")
    assert len(set(labels(folder / "onnx"))) >= 3


@pytest.mark.parametrize(
    ("name", "runtime", "precision", "augmentation"),
    [
        ("torch", "torch", "fp32", "none"),
        ("onnx", "onnx", "fp32", "none"),
        ("openvino", "openvino", "fp32", "none"),
        ("int8", "onnx", "int8", "none"),
        ("turns", "onnx", "fp32", "turns"),
    ],
)
def test_the_result_names_what_computed_it(
    scored: tuple[Path, dict[str, Completed]],
    bundle: Bundle,
    name: str,
    runtime: str,
    precision: str,
    augmentation: str,
) -> None:
    folder, shown = scored
    if name not in shown:
        pytest.skip(f"needs {name}")
    assert shown[name].returncode == 0, shown[name].stderr
    model = model_of(folder / name)
    assert model["sha256"] == bundle.sha256
    assert (model["name"], model["runtime"], model["precision"]) == ("small", runtime, precision)
    assert model["augmentation"] == augmentation
    assert rows(folder / name)["stained"]["her2_score"] in ("0", "1+", "2+", "3+")


def test_int8_and_orientations_change_some_probabilities(scored: tuple[Path, dict[str, Completed]]) -> None:
    folder, _ = scored
    plain = (folder / "onnx" / "stained" / "patches.csv").read_text()
    for name in ("int8", "turns"):
        assert (folder / name / "stained" / "patches.csv").read_text() != plain


def test_auto_names_the_runtime_that_it_took(scored: tuple[Path, dict[str, Completed]]) -> None:
    folder, shown = scored
    assert shown["auto"].returncode == 0, shown["auto"].stderr
    assert model_of(folder / "auto")["runtime"] in ("onnx", "openvino", "torch")
    assert labels(folder / "auto") == labels(folder / "onnx")


def test_the_same_run_again_reuses_the_result(
    run: Cli, scored: tuple[Path, dict[str, Completed]], bundle: Bundle, ihc_slide: Path
) -> None:
    folder, _ = scored
    result = folder / "auto" / "stained" / "result.json"
    before = (result.stat().st_mtime_ns, result.stat().st_ino, result.read_bytes())
    given = ("--config", folder / "quick.yaml", "--model", bundle.path.parent, "--runtime", "auto")
    again = run("score", ihc_slide, "-o", folder / "auto", *given)
    assert again.returncode == 0, again.stderr
    assert (result.stat().st_mtime_ns, result.stat().st_ino, result.read_bytes()) == before


def test_another_runtime_scores_again(
    scored: tuple[Path, dict[str, Completed]], bundle: Bundle, ihc_slide: Path, tmp_path: Path
) -> None:
    folder, _ = scored
    shutil.copytree(folder / "onnx", tmp_path / "out")
    given = {"model": str(bundle.path.parent), "runtime": "torch"}
    score([ihc_slide], tmp_path / "out", load_config(folder / "quick.yaml", given))
    assert model_of(tmp_path / "out")["runtime"] == "torch"


def test_weights_of_which_nobody_says_what_they_learnt_produce_no_call(
    scored: tuple[Path, dict[str, Completed]],
) -> None:
    folder, shown = scored
    assert shown["unknown"].returncode == 1, shown["unknown"].stderr
    row = rows(folder / "unknown")["stained"]
    assert row["status"] == "not_assessable"
    assert "--trained-on" in row["reason"]
    assert row["her2_score"] == ""
    result = json.loads((folder / "unknown" / "stained" / "result.json").read_text())
    assert result["call"] is None
    assert [reason["code"] for reason in result["gate"]] == ["untrained"]
    assert labels(folder / "unknown") == labels(folder / "onnx")
    assert "not assessable" in shown["unknown"].stdout


def test_what_cannot_be_scored_exits_with_2_before_anything_is_written(
    run: Cli, bundle: Bundle, ihc_slide: Path, tmp_path: Path
) -> None:
    odd = variant(bundle, tmp_path / "odd", classes=("low", "middle", "high", "highest"))
    output = tmp_path / "out"
    shown = run_all(
        run,
        {
            "cannot be called": ("score", ihc_slide, "-o", output, "--model", odd),
            "takes runtime 'auto'": ("score", ihc_slide, "-o", output, "--runtime", "onnx"),
        },
    )
    for said, completed in shown.items():
        refused(completed, said)
    assert not (output / "stained").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "membrane", "precision": "int8"}, "precision 'fp32'"),
        ({"model": "membrane", "tta": "turns"}, "augmentation 'none'"),
        ({"model": "PLAIN", "runtime": "torch", "precision": "int8"}, "fp32 only: use onnx or openvino"),
        ({"model": "HE"}, "--modality he"),
        ({"model": "TAMPERED", "runtime": "onnx"}, "its sha256 differs"),
    ],
    ids=str,
)
def test_what_does_not_fit_a_run_is_refused(
    bundle: Bundle, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    shutil.copytree(bundle.path.parent, tmp_path / "tampered")
    (tmp_path / "tampered" / "model.onnx").write_bytes(b"another")
    places = {
        "PLAIN": bundle.path.parent,
        "HE": variant(bundle, tmp_path / "he", modality="he"),
        "TAMPERED": tmp_path / "tampered",
    }
    model = str(places.get(given["model"], given["model"]))
    with pytest.raises(HER2Error, match=said):
        resolve_classifier(load_config(None, given | {"model": model}))
