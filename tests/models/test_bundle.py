"""A bundle is one thing: its hash names all of it, and whatever is not as it was written is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.models.conftest import SMALL, need_packing, pack_small, small_patches
from wsi_her2.errors import ClassifierError, OutputError
from wsi_her2.models.bundle import (
    Agreement,
    BundleCard,
    Graph,
    Training,
    bundle_file,
    read_bundle,
    write_bundle,
)
from wsi_her2.models.classifier import content_sha256
from wsi_her2.models.loading import load_classifier
from wsi_her2.models.networks.architecture import Architecture

GRAPHS = {"fp32": b"a graph in ONNX", "int8": b"a smaller one"}


def described(graphs, **fields):
    agreement = Agreement(images=8, source="noise", same_label=1, max_difference=1e-6, mean_difference=1e-7)
    card = {
        "name": "mine",
        "architecture": Architecture("pruneff", 2, 13, cut=1),
        "classes": ("negative", "positive"),
        "mpp": 0.5,
        "mpp_stated": True,
        "modality": "ihc",
        "preprocessing": "none",
        "training": Training(status="trained", data="noise"),
        "origin": "made for a test",
        "parameters": 10,
        "multiply_adds": 20,
        "version": "1",
        "graphs": {
            precision: Graph(sha256=content_sha256(graph), size_bytes=len(graph), agreement=agreement)
            for precision, graph in graphs.items()
        },
    }
    return BundleCard(**(card | fields))


def parts(graphs=GRAPHS, **fields):
    """What `write_bundle` is given, small and without a network."""
    rng = np.random.default_rng(0)
    return {
        "card": described(graphs, **fields),
        "weights": {"out.weight": rng.normal(size=(2, 5)).astype(np.float32), "steps": np.array(3)},
        "check_images": rng.integers(0, 256, (2, 13, 13, 3)).astype(np.uint8),
        "check_probabilities": {p: rng.random((2, 2)).astype(np.float32) for p in {"fp32", *graphs}},
        "graphs": graphs,
    }


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "mine", **parts())


def test_what_is_written_is_read(bundle, tmp_path):
    given = parts()
    for path in (tmp_path / "mine", str(tmp_path / "mine"), tmp_path / "mine" / "model.safetensors"):
        again = read_bundle(path)
        assert again.sha256 == bundle.sha256
        assert again.card == given["card"]
        assert again.weights.keys() == given["weights"].keys()
        for name, values in given["weights"].items():
            np.testing.assert_array_equal(again.weights[name], values)
        np.testing.assert_array_equal(again.check_images, given["check_images"])
        for precision, graph in GRAPHS.items():
            assert again.has(precision)
            assert again.graph(precision) == graph
            expected = given["check_probabilities"][precision]
            np.testing.assert_array_equal(again.check_probabilities(precision), expected)


def test_a_bundle_is_a_folder_of_three_files(bundle, tmp_path):
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {
        "model.safetensors",
        "model.onnx",
        "model.int8.onnx",
    }
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert bundle_file(tmp_path / "mine") == tmp_path / "mine" / "model.safetensors"
    assert bundle_file(tmp_path) is None
    assert bundle_file(tmp_path / "mine" / "model.onnx") is None


def test_a_graph_that_a_bundle_does_not_have_is_not_there(tmp_path):
    bundle = write_bundle(tmp_path / "mine", **parts({"fp32": b"graph"}))
    assert not bundle.has("int8")
    with pytest.raises(ClassifierError, match="no graph in int8"):
        bundle.graph("int8")


# The name of the whole


def test_the_same_content_has_the_same_hash_wherever_it_lies(bundle, tmp_path):
    other = write_bundle(tmp_path / "deep" / "er" / "other", **parts())
    assert other.sha256 == bundle.sha256 == content_sha256(other.path.read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"mpp": 0.25},
        {"mpp_stated": False},
        {"modality": "he"},
        {"classes": ("positive", "negative")},
        {"training": Training(status="unknown")},
        {"graphs": {**GRAPHS, "fp32": b"another graph"}},
        {"graphs": {**GRAPHS, "int8": b"another graph"}},
        {"graphs": {"fp32": GRAPHS["fp32"]}},
        {"weights": "one bit"},
        {"check_images": "one bit"},
        {"check_probabilities": "one bit"},
    ],
    ids=str,
)
def test_another_hash_names_anything_that_changed(bundle, tmp_path, change):
    graphs = change.pop("graphs", GRAPHS)
    flipped = next((name for name, value in change.items() if value == "one bit"), None)
    given = parts(graphs, **{name: value for name, value in change.items() if value != "one bit"})
    if flipped is not None:
        held = given[flipped]
        array = held if isinstance(held, np.ndarray) else next(iter(held.values()))
        array.view(np.uint8).flat[0] ^= 1
    assert write_bundle(tmp_path / "other", **given).sha256 != bundle.sha256


# The card


def test_the_card_for_people_says_what_the_weights_are(bundle):
    card = bundle.described
    assert card["trained_on"] == "noise"
    assert card["validated"] is False
    assert card["architecture"] == "pruneff1"
    assert card["origin"] == "made for a test"
    assert (card["parameters"], card["multiply_adds"], card["version"]) == (10, 20, "1")
    assert "100.0% of 8 patches (noise)" in card["fp32_agreement"]
    assert "int8_agreement" in card
    assert "scale" not in card


@pytest.mark.parametrize(("status", "said"), [("untrained", "never trained"), ("unknown", "not stated")])
def test_the_card_says_that_weights_produce_no_call(tmp_path, status, said):
    bundle = write_bundle(tmp_path / "mine", **parts(training=Training(status=status), mpp_stated=False))
    assert said in bundle.described["trained_on"]
    assert "assumed" in bundle.described["scale"]


# What was tampered with


def rewritten(bundle, change):
    """The same tensors under a header that a function changed."""
    path = bundle.path
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    path.write_bytes(safetensors.numpy.save(dict(bundle.tensors), change(header)))
    return path


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_graph_that_was_tampered_with_is_refused(bundle, tmp_path, precision):
    path = tmp_path / "mine" / {"fp32": "model.onnx", "int8": "model.int8.onnx"}[precision]
    path.write_bytes(GRAPHS[precision] + b" ")
    with pytest.raises(ClassifierError, match=rf"{path.name}: not the file that the bundle was made with"):
        read_bundle(bundle.path).graph(precision)
    path.unlink()
    with pytest.raises(ClassifierError, match=rf"{path.name}: cannot be read"):
        read_bundle(bundle.path).graph(precision)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 100, -1, -100])
def test_truncated_weights_are_refused(bundle, kept):
    bundle.path.write_bytes(bundle.path.read_bytes()[:kept])
    with pytest.raises(ClassifierError, match=r"model\.safetensors: damaged.*Copy the bundle again"):
        read_bundle(bundle.path)


def test_bytes_that_flipped_in_the_header_are_no_other_error(bundle):
    content = bundle.path.read_bytes()
    length = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, length, 300):
        spoiled = bytearray(content)
        spoiled[place] ^= 1 << int(rng.integers(0, 8))
        bundle.path.write_bytes(spoiled)
        try:
            assert read_bundle(bundle.path).sha256 != bundle.sha256
        except ClassifierError:
            refused += 1
    assert refused > 100


def test_weights_without_a_card_are_no_bundle(bundle):
    for header in ({}, {"format": "pt"}):
        path = rewritten(bundle, lambda _, header=header: header)
        with pytest.raises(ClassifierError, match=r"no bundle of wsi-her2.*import-keras"):
            read_bundle(path)


def card_with(**fields):
    return lambda header: {"wsi_her2": json.dumps(json.loads(header["wsi_her2"]) | fields)}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": ["negative"]}, "classes"),
        ({"classes": ["negative", "negative"]}, "classes"),
        ({"classes": ["0", "1+", "2+", "3+"]}, "classes"),
        ({"classes": None}, "classes"),
        ({"extra": 1}, "extra"),
        ({"format": 2}, "format"),
        ({"mpp": 0}, "mpp"),
        ({"mpp": "fine"}, "mpp"),
        ({"mpp": -0.5}, "mpp"),
        ({"modality": "dapi"}, "modality"),
        ({"name": ""}, "name"),
        ({"training": {"status": "trained", "data": " "}}, "on what data"),
        ({"training": {"status": "yes"}}, "training"),
        ({"architecture": {"family": "vgg", "n_classes": 2, "patch_px": 13}}, "family"),
        ({"architecture": {"family": "pruneff", "n_classes": 2, "patch_px": 13, "cut": 9}}, "block 9"),
        ({"architecture": {"family": "pruneff", "n_classes": 2, "patch_px": 12, "cut": 1}}, "at least 13 px"),
        ({"architecture": {"family": "ather2", "n_classes": 2, "patch_px": 128}}, "check images"),
        ({"graphs": {"fp16": {}}}, "graphs"),
        ({"graphs": {"fp32": {"sha256": "0", "size_bytes": 1}}}, "sha256"),
    ],
    ids=str,
)
def test_a_wrong_card_is_refused_with_the_field(bundle, fields, said):
    path = rewritten(bundle, card_with(**fields))
    with pytest.raises(ClassifierError, match=rf"(?s)model\.safetensors: .*{said}"):
        read_bundle(path)


@pytest.mark.parametrize("card", ["", "null", "[]", "{", "3", "{}"])
def test_a_card_that_is_no_card_is_refused(bundle, card):
    path = rewritten(bundle, lambda _: {"wsi_her2": card})
    with pytest.raises(ClassifierError, match="its description is wrong"):
        read_bundle(path)


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"network.out.weight": np.full((2, 5), np.nan, np.float32)}, "weights out.weight"),
        ({"network.out.weight": np.full((2, 5), np.inf, np.float32)}, "weights out.weight"),
        ({"check.images": np.zeros((2, 13, 13, 3), np.float32)}, "check images"),
        ({"check.images": np.zeros((2, 12, 13, 3), np.uint8)}, "check images"),
        ({"check.images": np.zeros((0, 13, 13, 3), np.uint8)}, "check images"),
        ({"check.images": None}, "check images"),
        ({"check.fp32": None}, "fp32"),
        ({"check.int8": None}, "int8"),
        ({"check.fp32": np.full((2, 2), np.nan, np.float32)}, "fp32"),
        ({"check.fp32": np.zeros((2, 3), np.float32)}, "fp32"),
        ({"check.fp32": np.zeros((2, 2))}, "fp32"),
    ],
    ids=lambda given: str(next(iter(given))) if isinstance(given, dict) else given,
)
def test_tensors_that_are_missing_or_wrong_are_refused(bundle, tensors, said):
    kept = {name: values for name, values in (dict(bundle.tensors) | tensors).items() if values is not None}
    header = {"wsi_her2": bundle.card.model_dump_json()}
    bundle.path.write_bytes(safetensors.numpy.save(kept, header))
    with pytest.raises(ClassifierError, match=rf"model\.safetensors: the .*{said}"):
        read_bundle(bundle.path)


def test_what_is_no_bundle_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    for path in (tmp_path, tmp_path / "absent", tmp_path / "notes.txt"):
        with pytest.raises(ClassifierError, match=rf"{path.name}: no model bundle"):
            read_bundle(path)


# Writing


def test_a_folder_that_exists_is_left_as_it_is(bundle, tmp_path):
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("kept")
    for name in ("mine", "empty", "file"):
        with pytest.raises(OutputError, match=f"{name}: exists already"):
            write_bundle(tmp_path / name, **parts(name="other"))
    assert {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()} == before
    assert list((tmp_path / "empty").iterdir()) == []
    assert (tmp_path / "file").read_text() == "kept"
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "empty", "file"}


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "file" / "mine", **parts())
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / ("x" * 300), **parts())
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_bundle_that_would_not_be_read_again_is_not_left_behind(tmp_path):
    given = parts()
    given["weights"]["out.weight"][0, 0] = np.nan
    with pytest.raises(ClassifierError, match=r"out\.weight"):
        write_bundle(tmp_path / "mine", **given)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing_behind(tmp_path):
    pytest.importorskip("resource")
    code = """if True:
        import resource, signal, sys
        import numpy as np
        from tests.models.test_bundle import parts
        from wsi_her2.errors import OutputError
        from wsi_her2.models.bundle import write_bundle
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        given = parts()
        given["weights"]["out.weight"] = np.zeros((300, 300), np.float32)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_bundle(sys.argv[1], **given)
        except OutputError as error:
            print(error)
    """
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", code, str(tmp_path / "mine")]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert "the bundle cannot be written" in ran.stdout, ran.stderr
    assert list(tmp_path.iterdir()) == []


# Packed from a network


@pytest.mark.parametrize("name", ["pruneff", "ather2"])
def test_a_packed_bundle_says_nothing_of_the_machine_that_made_it(bundle_of, name):
    folder = bundle_of(name).path.parent
    files = sorted(folder.iterdir())
    assert len(files) == 3
    secrets = {
        str(Path.home()),
        str(Path.cwd()),
        str(folder.parent),
        sys.prefix,
        "/tmp",
        "site-packages",
        '.py", line',
    }
    for path in files:
        content = path.read_bytes()
        for secret in secrets - {"/"}:
            assert secret.encode() not in content, (path.name, secret)


def test_packing_the_same_network_again_gives_the_same_bundle(bundle_of, tmp_path):
    again = pack_small(tmp_path / "sigmoid", SMALL["sigmoid"])
    first = bundle_of("sigmoid")
    for path in first.path.parent.iterdir():
        assert path.read_bytes() == (again.path.parent / path.name).read_bytes()
    assert again.sha256 == first.sha256


def test_a_network_whose_probabilities_are_no_numbers_is_not_packed(tmp_path):
    need_packing()
    from wsi_her2.models.networks.deployed import build_network
    from wsi_her2.models.packing import Identity, pack

    network = build_network(SMALL["sigmoid"])
    network.hidden.weight.data.fill_(0)
    network.hidden.bias.data.fill_(1e38)
    network.out.weight.data.fill_(1e38)
    network.out.weight.data[:, ::2] *= -1
    identity = Identity("x", ("negative", "positive"), 0.5, True, "ihc", Training(status="unknown"), "o", "v")
    with pytest.raises(ClassifierError, match="no numbers"):
        pack(tmp_path / "x", network, SMALL["sigmoid"], identity, small_patches(64), int8=False)
    assert list(tmp_path.iterdir()) == []


def test_a_packed_bundle_is_described_by_what_was_measured(bundle_of):
    card = bundle_of("pruneff").card
    assert card.architecture == SMALL["pruneff"]
    assert card.parameters == 1_536_672
    assert card.multiply_adds > 1e6
    assert card.graphs["fp32"].agreement.images == 24
    assert card.graphs["fp32"].agreement.max_difference < 1e-4
    assert card.graphs["fp32"].agreement.same_label == 1
    assert card.graphs["int8"].agreement.same_label > 0.5
    assert card.graphs["int8"].calibration == "16 patches (tissue in many colours)"
    assert card.graphs["int8"].size_bytes < 0.5 * card.graphs["fp32"].size_bytes


def test_a_classifier_of_a_bundle_is_what_its_card_says(bundle_of):
    bundle = bundle_of("sigmoid")
    classifier = load_classifier(bundle.path.parent, "onnx")
    assert classifier.sha256 == bundle.sha256
    assert (classifier.name, classifier.classes) == ("sigmoid", ("negative", "positive"))
    assert (classifier.patch_px, classifier.mpp, classifier.modality) == (64, 0.5, "ihc")
    assert classifier.trained
    assert (classifier.runtime, classifier.precision, classifier.augmentation) == ("onnx", "fp32", "none")
    assert (classifier.measure_names, classifier.confusion) == ((), None)
    assert classifier.card == bundle.described
