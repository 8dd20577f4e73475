"""The runtimes give the same probabilities, in one thread and from several; one that does not is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.models.conftest import SMALL, small_patches, varied_patches
from wsi_her2.errors import ClassifierError
from wsi_her2.models.augmentation import AUGMENTATIONS, averaged
from wsi_her2.models.bundle import read_bundle, write_bundle
from wsi_her2.models.classifier import content_sha256
from wsi_her2.models.loading import load_classifier
from wsi_her2.models.runtimes.choice import TOLERANCE, installed_runtimes, open_session
from wsi_her2.models.runtimes.onnx_session import OnnxSession
from wsi_her2.models.runtimes.session import BATCH, run_in_batches

PACKAGE = {"torch": "torch", "onnx": "onnxruntime", "openvino": "openvino"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(params=PACKAGE)
def runtime(request):
    pytest.importorskip(PACKAGE[request.param])
    return request.param


@pytest.fixture(params=["onnx", "openvino"])
def graph_runtime(request):
    pytest.importorskip(PACKAGE[request.param])
    return request.param


@pytest.fixture(scope="module")
def images_of():
    return {name: varied_patches(21, architecture.patch_px, seed=5) for name, architecture in SMALL.items()}


@pytest.fixture(scope="module")
def reference(bundle_of, images_of):
    """What the network as published gives, in torch."""
    from wsi_her2.models.networks.deployed import network_of
    from wsi_her2.models.packing import torch_probabilities

    made = {}
    for name, architecture in SMALL.items():
        network = network_of(architecture, bundle_of(name).weights)
        made[name] = torch_probabilities(network, architecture, images_of[name])
    return made


# Agreement


@pytest.mark.parametrize("name", SMALL)
def test_a_runtime_gives_the_probabilities_and_labels_of_torch(bundle_of, images_of, reference, runtime, name):
    classifier = load_classifier(bundle_of(name).path, runtime)
    assert classifier.runtime == runtime
    found, expected = classifier.predict(images_of[name]), reference[name]
    assert found.dtype == np.float32
    assert len(set(expected.argmax(axis=1).tolist())) >= min(3, expected.shape[1])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("name", SMALL)
def test_int8_agrees_with_fp32_as_the_card_says(bundle_of, graph_runtime, name):
    bundle = bundle_of(name)
    said, held_out = bundle.card.graphs["int8"].agreement, small_patches(SMALL[name].patch_px).held_out
    int8 = load_classifier(bundle.path, graph_runtime, "int8").predict(held_out)
    fp32 = load_classifier(bundle.path, graph_runtime).predict(held_out)
    assert said.images == len(held_out)
    difference, same = np.abs(int8 - fp32), int8.argmax(axis=1) == fp32.argmax(axis=1)
    assert difference.max() > 1e-4  # it is another graph
    if graph_runtime == "onnx":
        assert same.mean() == pytest.approx(said.same_label, abs=1e-6)
        assert difference.max() == pytest.approx(said.max_difference, abs=1e-4)
        assert difference.mean() == pytest.approx(said.mean_difference, abs=1e-4)
    else:
        # The card was measured in ONNX Runtime; OpenVINO rounds differently, and close calls fall to either side.
        assert difference.max() < said.max_difference + TOLERANCE["int8"]
        assert difference.mean() < 2 * said.mean_difference
        assert same.mean() > said.same_label - 0.2


def test_auto_takes_an_installed_runtime_that_works(bundle_of, images_of, reference):
    classifier = load_classifier(bundle_of("sigmoid").path)
    assert classifier.runtime in installed_runtimes()
    np.testing.assert_allclose(classifier.predict(images_of["sigmoid"]), reference["sigmoid"], atol=1e-4)


def test_auto_takes_a_runtime_that_has_int8(bundle_of):
    classifier = load_classifier(bundle_of("sigmoid").path, precision="int8")
    assert classifier.runtime in ("onnx", "openvino")
    assert classifier.precision == "int8"


@pytest.fixture(scope="module")
def wrong_graph(bundle_of, tmp_path_factory):
    """A bundle whose graph is another network's, and whose card says that this is right."""
    from tests.models.conftest import network_that_tells_apart
    from wsi_her2.models.packing import onnx_graph

    bundle, architecture = bundle_of("sigmoid"), SMALL["sigmoid"]
    other = network_that_tells_apart(architecture, small_patches(architecture.patch_px).held_out, seed=9)
    graph = onnx_graph(other.eval(), architecture)
    described = bundle.card.graphs["fp32"].model_copy(update={"sha256": content_sha256(graph)})
    card = bundle.card.model_copy(update={"graphs": {"fp32": described}})
    check = {"fp32": bundle.check_probabilities("fp32")}
    folder = tmp_path_factory.mktemp("wrong") / "wrong"
    return write_bundle(folder, card, bundle.weights, bundle.check_images, check, {"fp32": graph})


def test_a_runtime_that_gives_other_numbers_is_refused(wrong_graph, graph_runtime):
    with pytest.raises(ClassifierError, match=f"{graph_runtime} does not give this bundle's probabilities"):
        load_classifier(wrong_graph.path, graph_runtime)


def test_auto_leaves_out_a_runtime_that_gives_other_numbers(wrong_graph):
    assert load_classifier(wrong_graph.path).runtime == "torch"


def test_where_no_runtime_is_right_auto_says_why(wrong_graph, tmp_path):
    flat = {"fp32": np.full_like(wrong_graph.check_probabilities("fp32"), 0.5)}
    graphs = {"fp32": wrong_graph.graph("fp32")}
    bundle = write_bundle(
        tmp_path / "flat", wrong_graph.card, wrong_graph.weights, wrong_graph.check_images, flat, graphs
    )
    with pytest.raises(ClassifierError, match=r"no runtime can run this bundle in fp32.*onnx: .*torch: "):
        load_classifier(bundle.path)


def test_a_graph_that_is_none_is_refused(bundle_of, tmp_path, graph_runtime):
    bundle = bundle_of("sigmoid")
    described = bundle.card.graphs["fp32"].model_copy(update={"sha256": content_sha256(b"no graph")})
    card = bundle.card.model_copy(update={"graphs": {"fp32": described}})
    check = {"fp32": bundle.check_probabilities("fp32")}
    graphs = {"fp32": b"no graph"}
    broken = write_bundle(tmp_path / "broken", card, bundle.weights, bundle.check_images, check, graphs)
    with pytest.raises(ClassifierError, match="cannot load the graph"):
        load_classifier(broken.path, graph_runtime)


def test_weights_that_are_not_those_of_the_card_are_refused(bundle_of, tmp_path):
    bundle = bundle_of("sigmoid")
    weights = {name: values for name, values in bundle.weights.items() if name != "out.bias"}
    graphs = {precision: bundle.graph(precision) for precision in ("fp32", "int8")}
    check = {precision: bundle.check_probabilities(precision) for precision in graphs}
    other = write_bundle(tmp_path / "other", bundle.card, weights, bundle.check_images, check, graphs)
    with pytest.raises(ClassifierError, match=r"(?s)not those of pruneff1: .*out\.bias"):
        load_classifier(other.path, "torch")


# What is asked for


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"runtime": "tensorrt"}, "no runtime 'tensorrt'; there are auto, onnx, openvino, torch"),
        ({"runtime": "numpy"}, "no runtime 'numpy'"),
        ({"runtime": ""}, "no runtime ''"),
        ({"precision": "fp16"}, "no precision 'fp16'; there are fp32 and int8"),
        ({"augmentation": "spin"}, "no augmentation 'spin'; there are none, flips, turns"),
        ({"runtime": "torch", "precision": "int8"}, "use onnx or openvino for int8"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_with_what_can(bundle_of, asked, said):
    with pytest.raises(ClassifierError, match=said):
        load_classifier(bundle_of("sigmoid").path, **asked)


@pytest.mark.parametrize("asked", ["auto", "onnx", "torch"])
def test_int8_without_a_graph_says_how_to_make_one(wrong_graph, asked):
    with pytest.raises(ClassifierError, match=r"no graph in int8: make one with `wsi-her2 models quantise`"):
        load_classifier(wrong_graph.path, asked, "int8")


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((2, 63, 63, 3), np.uint8),
        np.zeros((2, 64, 65, 3), np.uint8),
        np.zeros((2, 64, 64, 4), np.uint8),
        np.zeros((2, 3, 64, 64), np.uint8),
        np.zeros((64, 64, 3), np.uint8),
        np.zeros((2, 64, 64, 3), np.float32),
        np.zeros((0, 32, 32, 3), np.uint8),
    ],
    ids=lambda batch: f"{batch.dtype}{batch.shape}",
)
def test_patches_of_another_size_or_type_are_refused(bundle_of, batch):
    classifier = load_classifier(bundle_of("sigmoid").path, "onnx")
    with pytest.raises(ClassifierError, match=r"takes uint8 patches of N x 64 x 64 x 3, not .*\("):
        classifier.predict(batch)


def test_no_patches_give_no_rows(bundle_of):
    classifier = load_classifier(bundle_of("ather2").path, "onnx", augmentation="turns")
    probabilities, measures = classifier.predict_and_measure(np.zeros((0, 128, 128, 3), np.uint8))
    assert (probabilities.shape, probabilities.dtype, measures.shape) == ((0, 4), np.float32, (0, 0))


@pytest.mark.parametrize("count", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 1])
def test_any_number_of_patches_is_predicted_as_each_is(bundle_of, images_of, runtime, count):
    classifier = load_classifier(bundle_of("sigmoid").path, runtime)
    images = images_of["sigmoid"][:count]
    found = classifier.predict(images)
    assert found.shape == (count, 2)
    alone = np.concatenate([classifier.predict(image[None]) for image in images])
    np.testing.assert_allclose(found, alone, atol=1e-5)


def test_arrays_that_are_views_or_read_only_are_taken(bundle_of, images_of, runtime):
    classifier = load_classifier(bundle_of("sigmoid").path, runtime)
    images = images_of["sigmoid"]
    views = [images[::-2], images[:, ::-1], images.transpose(0, 2, 1, 3), images[..., ::-1]]
    frozen = images.copy()
    frozen.flags.writeable = False
    for view in (*views, frozen):
        expected = classifier.predict(np.ascontiguousarray(view).copy())
        np.testing.assert_array_equal(classifier.predict(view), expected)


# Orientations


@pytest.mark.parametrize("name", ["pruneff", "ather2"])
def test_turns_do_not_depend_on_how_a_patch_lies(bundle_of, images_of, name):
    images = images_of[name][:3]
    turned = load_classifier(bundle_of(name).path, "onnx", augmentation="turns")
    plain = load_classifier(bundle_of(name).path, "onnx")
    assert (turned.augmentation, plain.augmentation) == ("turns", "none")
    expected, as_it_is = turned.predict(images), plain.predict(images)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-5)
    for mirrored in (images, images[:, :, ::-1]):
        for turns in range(4):
            laid = np.rot90(mirrored, turns, axes=(1, 2))
            np.testing.assert_allclose(turned.predict(laid), expected, atol=1e-6)
            if turns or mirrored is not images:
                assert np.abs(plain.predict(laid) - as_it_is).max() > 1e-3


@pytest.mark.parametrize(("augmentation", "count"), [("none", 1), ("flips", 4), ("turns", 8)])
def test_an_augmentation_averages_different_orientations(augmentation, count):
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    seen = []

    def predict(batch):
        seen.append(batch.tobytes())
        return np.full((1, 2), len(seen), np.float32)

    found = averaged(predict, image, augmentation)
    assert len(seen) == len(set(seen)) == count
    assert seen[0] == image.tobytes()
    np.testing.assert_allclose(found, (count + 1) / 2)
    assert found.dtype == np.float32


def test_the_orientations_of_flips_are_some_of_those_of_turns():
    image = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    seen = {name: set() for name in AUGMENTATIONS}
    for name, orientations in seen.items():
        averaged(lambda b, kept=orientations: kept.add(b.tobytes()) or np.zeros((1, 2), np.float32), image, name)
    assert seen["none"] < seen["flips"] < seen["turns"]
    assert image[:, ::-1].tobytes() in seen["flips"]
    assert image[:, :, ::-1].tobytes() in seen["flips"]


# Threads


def python(code, *arguments, timeout=120):
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=timeout)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_a_runtime_computes_in_one_thread(bundle_of, runtime):
    code = """if True:
        import sys, time
        import numpy as np
        from wsi_her2.models.loading import load_classifier
        classifier = load_classifier(sys.argv[1], sys.argv[2])
        batch = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3)).astype(np.uint8)
        classifier.predict(batch)
        wall, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - wall < 1:
            classifier.predict(batch)
        print((time.process_time() - cpu) / (time.perf_counter() - wall))
    """
    assert float(python(code, bundle_of("ather2").path, runtime)) <= 1.3


@pytest.mark.parametrize("name", ["pruneff", "ather2"])
def test_calls_from_several_threads_give_the_same_bits(bundle_of, images_of, runtime, name):
    classifier = load_classifier(bundle_of(name).path, runtime)
    batches = [images_of[name][start : start + 5] for start in range(0, 20, 5)] * 3
    expected = [classifier.predict(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(classifier.predict, batches))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_session_of_graph_and_batches_is_the_classifier(bundle_of, images_of, graph_runtime):
    bundle = bundle_of("sigmoid")
    session = open_session(bundle, graph_runtime)
    found = run_in_batches(session, images_of["sigmoid"])
    expected = load_classifier(bundle.path, graph_runtime).predict(images_of["sigmoid"])
    np.testing.assert_array_equal(found, expected)
    assert session.device == "cpu"


def test_a_graph_cannot_refer_to_other_files(bundle_of, tmp_path, graph_runtime):
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(bundle_of("sigmoid").graph("fp32"))
    (tmp_path / "secret").write_bytes(bytes(10_000_000))
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    size = len(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": str(tmp_path / "secret"), "offset": "0", "length": str(size)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph = model.SerializeToString()
    opened = {"onnx": OnnxSession}
    if graph_runtime == "openvino":
        from wsi_her2.models.runtimes.openvino_session import OpenVinoSession

        opened["openvino"] = OpenVinoSession
    with pytest.raises(ClassifierError, match="cannot load the graph"):
        opened[graph_runtime](graph)


# Without the optional packages


@pytest.mark.parametrize("asked", ["onnx", "auto"])
def test_the_base_installation_runs_a_bundle(bundle_of, images_of, reference, tmp_path, asked):
    np.save(tmp_path / "images.npy", images_of["pruneff"])
    code = """if True:
        import sys
        for name in ("torch", "torchvision", "timm", "openvino", "onnx", "h5py", "onnxscript"):
            sys.modules[name] = None
        import numpy as np
        from wsi_her2.models.loading import load_classifier
        for precision in ("int8", "fp32"):
            classifier = load_classifier(sys.argv[1], sys.argv[3], precision)
            found = classifier.predict(np.load(sys.argv[2] + "/images.npy"))
        np.save(sys.argv[2] + "/found.npy", found)
        print(classifier.runtime, classifier.card["architecture"])
    """
    assert python(code, bundle_of("pruneff").path, tmp_path, asked) == "onnx pruneff4"
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), reference["pruneff"], atol=1e-4)


def test_a_runtime_that_is_not_installed_is_named_with_the_line_that_installs_it(bundle_of):
    code = """if True:
        import sys
        for name in ("torch", "openvino", "h5py"):
            sys.modules[name] = None
        from wsi_her2.errors import MissingExtra
        from wsi_her2.models.keras_file import read_keras_file
        from wsi_her2.models.loading import load_classifier
        for act in (
            lambda: load_classifier(sys.argv[1], "torch"),
            lambda: load_classifier(sys.argv[1], "openvino"),
            lambda: read_keras_file(sys.argv[1]),
        ):
            try:
                act()
            except MissingExtra as error:
                print(error)
    """
    torch, openvino, h5py = python(code, bundle_of("sigmoid").path).splitlines()
    assert "pip install 'wsi-her2[torch]'" in torch
    assert "pip install 'wsi-her2[openvino]'" in openvino
    assert "pip install 'wsi-her2[torch]'" in h5py


def test_a_bundle_without_a_graph_runs_in_torch(bundle_of, tmp_path, images_of, reference):
    bundle = bundle_of("sigmoid")
    card = bundle.card.model_copy(update={"graphs": {}})
    check = {"fp32": bundle.check_probabilities("fp32")}
    bare = write_bundle(tmp_path / "bare", card, bundle.weights, bundle.check_images, check, {})
    assert read_bundle(bare.path).sha256 == bare.sha256
    found = load_classifier(bare.path).predict(images_of["sigmoid"])
    np.testing.assert_allclose(found, reference["sigmoid"], atol=1e-4)
    with pytest.raises(ClassifierError, match="no graph in fp32"):
        load_classifier(bare.path, "onnx")
