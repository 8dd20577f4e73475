"""PrunEff starts from ImageNet's weights as timm and Keras publish them, or says that it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.models.conftest import randomise, varied_patches
from wsi_her2.errors import ClassifierError
from wsi_her2.models.imagenet import start_from_imagenet
from wsi_her2.models.networks.architecture import named_architecture

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

from safetensors.torch import save_file  # noqa: E402

from wsi_her2.models.networks.deployed import build_network  # noqa: E402


@pytest.fixture(scope="module")
def backbone():
    """timm's whole backbone, as it is published, with weights of its own."""
    made = timm.create_model("tf_efficientnetv2_b0", pretrained=False)
    randomise(made, 0)
    return made.eval()


def new_network(cut=4):
    network = build_network(named_architecture(f"pruneff{cut}"))
    randomise(network, 1)
    return network.eval()


def scaled(side=96):
    return torch.from_numpy(varied_patches(2, side)).permute(0, 3, 1, 2).float() / 127.5 - 1


def features_of_timm(backbone, cut):
    with torch.inference_mode():
        return backbone.blocks[:cut](backbone.bn1(backbone.conv_stem(scaled()))).numpy()


def features(network):
    with torch.inference_mode():
        return network.body(scaled()).numpy()


def written(state, path):
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize(("name", "cut"), [("a.safetensors", 4), ("a.pth", 4), ("a.bin", 1), ("a.safetensors", 5)])
def test_the_body_takes_the_weights_that_timm_publishes(backbone, tmp_path, name, cut):
    network = new_network(cut)
    head = network.out.weight.clone()
    said = start_from_imagenet(network, written(backbone.state_dict(), tmp_path / name))
    np.testing.assert_array_equal(features(network), features_of_timm(backbone, cut))
    assert torch.equal(network.out.weight, head)
    assert "ImageNet-1k" in said
    assert name in said


def test_weights_of_a_backbone_without_its_classifier_suffice(backbone, tmp_path):
    state = {
        name: v for name, v in backbone.state_dict().items() if not name.startswith(("classifier", "conv_head"))
    }
    network = new_network()
    start_from_imagenet(network, str(written(state, tmp_path / "a.safetensors")))
    np.testing.assert_array_equal(features(network), features_of_timm(backbone, 4))


@pytest.mark.parametrize("layout", ["whole", "legacy weights"])
def test_the_body_takes_the_weights_that_keras_publishes(keras_models, tmp_path, layout):
    h5py = pytest.importorskip("h5py")
    path = keras_models / "backbone.h5"
    if layout == "legacy weights":
        # As in efficientnetv2-b0_notop.h5: layers at the root, no model, ':0' behind each variable.
        with h5py.File(path) as whole, h5py.File(tmp_path / "notop.h5", "w") as bare:
            layers = whole["model_weights"]
            for name, layer in layers.items():
                for variable, values in layer.get(name, {}).items():
                    kind = "depthwise_kernel" if "dwconv" in name and variable == "kernel" else variable
                    bare[f"{name}/{name}/{kind}:0"] = values[()]
            bare.attrs["layer_names"] = layers.attrs["layer_names"]
        path = tmp_path / "notop.h5"
    network, kept = new_network(), np.load(keras_models / "backbone.npz")
    said = start_from_imagenet(network, path)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    images = ((kept["images"] / 255 - mean) / std).astype(np.float32)
    with torch.inference_mode():
        found = network.body(torch.from_numpy(images).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    wanted = kept["features"]
    assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()
    assert path.name in said


def changed(backbone, **values):
    return backbone.state_dict() | values


@pytest.mark.parametrize("name", ["a.safetensors", "a.pth"])
def test_weights_of_another_network_are_refused_with_what_is_wrong(backbone, tmp_path, name):
    network = new_network()
    before = features(network)
    state = changed(backbone, **{"conv_stem.weight": torch.zeros((32, 4, 3, 3))})
    del state["blocks.2.0.conv_exp.weight"]
    with pytest.raises(ClassifierError, match=rf"{name}(?s:.*)stem\.weight: \(32, 4, 3, 3\), not \(32, 3, 3, 3\)"):
        start_from_imagenet(network, written(state, tmp_path / name))
    with pytest.raises(ClassifierError, match=r"blocks\.2\.0\.conv_exp\.weight: missing"):
        start_from_imagenet(network, tmp_path / name)
    np.testing.assert_array_equal(features(network), before)


def test_weights_of_nothing_like_it_name_some_and_count_the_rest(tmp_path):
    path = written({"layer1.weight": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(ClassifierError, match=r"stem\.weight: missing.* and \d+ more"):
        start_from_imagenet(new_network(), path)


def test_weights_that_are_no_numbers_are_refused(backbone, tmp_path):
    spoiled = backbone.conv_stem.weight.detach().clone()
    spoiled[0, 0, 0, 0] = torch.nan
    path = written(changed(backbone, **{"conv_stem.weight": spoiled}), tmp_path / "a.safetensors")
    with pytest.raises(ClassifierError, match=r"stem\.weight"):
        start_from_imagenet(new_network(), path)


def test_a_keras_file_of_another_network_is_refused_by_layer(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["conv1/conv1/kernel:0"] = np.zeros((7, 7, 3, 64), np.float32)
    with pytest.raises(
        ClassifierError, match=r"other\.h5: not EfficientNetV2-B0(?s:.*)stem_conv: the convolution"
    ):
        start_from_imagenet(new_network(), tmp_path / "other.h5")


@pytest.mark.parametrize("name", ["absent.pth", "absent.h5"])
def test_a_missing_file_is_named(tmp_path, name):
    with pytest.raises(ClassifierError, match=f"{name}: there is no such file"):
        start_from_imagenet(new_network(), tmp_path / name)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "a.h5"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", bytes(64)])
def test_what_holds_no_weights_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ClassifierError, match=name):
        start_from_imagenet(new_network(), tmp_path / name)


@pytest.mark.parametrize("content", [[1, 2], {"state": {"a": 1}}, torch.zeros(3), {1: torch.zeros(3)}])
def test_what_torch_saved_but_are_no_weights_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ClassifierError, match=r"a\.pth"):
        start_from_imagenet(new_network(), tmp_path / "a.pth")


class Malicious:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return Path.touch, (Path(self.marker),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_code_in_a_file_of_weights_is_refused_and_never_run(tmp_path, zipped):
    marker = tmp_path / "executed"
    content = {"conv_stem.weight": Malicious(marker)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ClassifierError, match="not a file of weights"):
        start_from_imagenet(new_network(), tmp_path / "a.pth")
    assert not marker.exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert marker.exists()


def test_where_nothing_can_be_fetched_it_keeps_its_weights_and_says_so(tmp_path):
    code = """if True:
        import logging, torch
        from wsi_her2.models.imagenet import start_from_imagenet
        from wsi_her2.models.networks.architecture import named_architecture
        from wsi_her2.models.networks.deployed import build_network
        logging.basicConfig(level=logging.WARNING)
        network = build_network(named_architecture("pruneff1"))
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        print(start_from_imagenet(network))
        print(all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items()))
    """
    empty = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | empty, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said, unchanged = ran.stdout.strip().splitlines()
    assert said == "new weights: ImageNet's could not be fetched"
    assert unchanged == "True"
    assert "WARNING:wsi_her2.models.imagenet:ImageNet's weights cannot be fetched" in ran.stderr
    assert "starting from scratch" in ran.stderr
