"""An exported file, read back by its own engine without this package, gives the bundle's probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.models.conftest import SMALL, varied_patches
from wsi_her2.errors import ClassifierError, OutputError
from wsi_her2.models.bundle import write_bundle
from wsi_her2.models.export import SUFFIXES, export_bundle
from wsi_her2.models.loading import load_classifier


def run_onnx(path, images):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["images"]
    assert [entry.name for entry in session.get_outputs()] == ["probabilities"]
    return session.run(["probabilities"], {"images": images})[0]


def run_openvino(path, images):
    openvino = pytest.importorskip("openvino")
    # Without the hint a processor that offers bfloat16 would use it.
    compiled = openvino.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled({"images": images})["probabilities"])


def run_torchscript(path, images):
    import torch

    with torch.inference_mode():
        return torch.jit.load(str(path))(torch.from_numpy(images)).numpy()


ENGINES = {"onnx": run_onnx, "openvino": run_openvino, "torchscript": run_torchscript}


@pytest.fixture(params=ENGINES)
def form(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.mark.parametrize("name", SMALL)
def test_an_exported_network_gives_the_probabilities_of_the_bundle(bundle_of, tmp_path, form, name):
    bundle = bundle_of(name)
    path = tmp_path / "new folder" / f"model{SUFFIXES[form]}"
    exported = export_bundle(bundle, form, path)
    assert exported.max_difference < 1e-4
    images = varied_patches(5, bundle.card.architecture.patch_px, seed=3)
    expected = load_classifier(bundle.path, "onnx").predict(images)
    for count in (1, 5):
        found = ENGINES[form](path, images[:count])
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:count], atol=1e-4)


def test_beside_the_network_lies_a_file_that_says_what_goes_in_and_comes_out(bundle_of, tmp_path, form):
    bundle = bundle_of("sigmoid")
    exported = export_bundle(bundle, form, tmp_path / f"model{SUFFIXES[form]}")
    suffixes = {".json", SUFFIXES[form], *([".bin"] if form == "openvino" else [])}
    assert {path.suffix for path in exported.files} == suffixes
    assert set(exported.files) == set(tmp_path.iterdir())
    described = json.loads((tmp_path / "model.json").read_text())
    assert described["bundle_sha256"] == bundle.sha256
    assert described["format"] == form
    assert described["precision"] == "fp32"
    assert described["classes"] == ["negative", "positive"]
    assert described["mpp"] == 0.5
    assert described["modality"] == "ihc"
    assert described["input"].startswith("images: uint8 N x 64 x 64 x 3, RGB")
    assert described["output"] == "probabilities: float32 N x 2"
    assert bundle.card.preprocessing in described["preprocessing"]
    assert described["trained_on"] == bundle.described["trained_on"]
    assert described["max_difference_to_the_bundle"] == exported.max_difference


@pytest.mark.parametrize("graph_form", ["onnx", "openvino"])
def test_int8_is_exported_as_int8(bundle_of, tmp_path, graph_form):
    if graph_form == "openvino":
        pytest.importorskip("openvino")
    bundle = bundle_of("pruneff")
    path = tmp_path / f"model{SUFFIXES[graph_form]}"
    export_bundle(bundle, graph_form, path, "int8")
    images = varied_patches(5, bundle.card.architecture.patch_px, seed=3)
    found = ENGINES[graph_form](path, images)
    np.testing.assert_allclose(found, load_classifier(bundle.path, graph_form, "int8").predict(images), atol=1e-5)
    assert json.loads(path.with_suffix(".json").read_text())["precision"] == "int8"
    weights = path if graph_form == "onnx" else path.with_suffix(".bin")
    assert weights.stat().st_size < 0.5 * bundle.card.graphs["fp32"].size_bytes


@pytest.mark.parametrize("taken", ["model.json", "the network itself", "model.bin"])
def test_a_file_that_exists_is_kept_and_nothing_is_written(bundle_of, tmp_path, form, taken):
    name = f"model{SUFFIXES[form]}"
    kept = tmp_path / (name if taken.startswith("the") else taken)
    kept.write_text("kept")
    if taken == "model.bin" and form != "openvino":
        export_bundle(bundle_of("sigmoid"), form, tmp_path / name)
    else:
        with pytest.raises(OutputError, match=f"{kept.name}: exists already"):
            export_bundle(bundle_of("sigmoid"), form, tmp_path / name)
        assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("name", ["model", "model.h5", "model.json", "model.onnx.gz"])
def test_a_wrong_suffix_is_refused_with_the_right_one(bundle_of, tmp_path, form, name):
    with pytest.raises(OutputError, match=rf"ends with \{SUFFIXES[form]}"):
        export_bundle(bundle_of("sigmoid"), form, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused_with_what_can(bundle_of, tmp_path):
    with pytest.raises(ClassifierError, match="there are onnx, openvino, torchscript"):
        export_bundle(bundle_of("sigmoid"), "coreml", tmp_path / "model.mlpackage")
    with pytest.raises(ClassifierError, match="use onnx or openvino for int8"):
        export_bundle(bundle_of("sigmoid"), "torchscript", tmp_path / "model.pt", "int8")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("graph_form", ["onnx", "openvino"])
def test_int8_that_a_bundle_does_not_have_is_refused(bundle_of, tmp_path, graph_form):
    if graph_form == "openvino":
        pytest.importorskip("openvino")
    bundle = bundle_of("sigmoid")
    card = bundle.card.model_copy(update={"graphs": {"fp32": bundle.card.graphs["fp32"]}})
    check, graphs = {"fp32": bundle.check_probabilities("fp32")}, {"fp32": bundle.graph("fp32")}
    plain = write_bundle(tmp_path / "plain", card, bundle.weights, bundle.check_images, check, graphs)
    with pytest.raises(ClassifierError, match="no graph in int8"):
        export_bundle(plain, graph_form, tmp_path / f"model{SUFFIXES[graph_form]}", "int8")


def test_a_network_that_differs_from_its_bundle_is_not_left_behind(bundle_of, tmp_path, form):
    bundle = bundle_of("sigmoid")
    graphs = {precision: bundle.graph(precision) for precision in ("fp32", "int8")}
    check = {precision: 1 - bundle.check_probabilities(precision) for precision in graphs}
    other = write_bundle(tmp_path / "other", bundle.card, bundle.weights, bundle.check_images, check, graphs)
    with pytest.raises(ClassifierError, match=r"differs from the bundle.*nothing was written"):
        export_bundle(other, form, tmp_path / f"model{SUFFIXES[form]}")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_a_place_that_cannot_be_written_is_named(bundle_of, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot be written"):
        export_bundle(bundle_of("sigmoid"), "onnx", tmp_path / "file" / "model.onnx")
    with pytest.raises(OutputError, match="cannot be written"):
        export_bundle(bundle_of("sigmoid"), "onnx", tmp_path / f"{'x' * 300}.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
