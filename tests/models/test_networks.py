"""What is worked out beforehand changes nothing: a network as it is run is the network as published."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.conftest import randomise, varied_patches
from wsi_her2.errors import ClassifierError
from wsi_her2.models.networks.architecture import CUTS, Architecture, named_architecture

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

from wsi_her2.models.networks.deployed import (  # noqa: E402
    Deployed,
    build_network,
    count_multiply_adds,
    for_inference,
    network_of,
)

NETWORKS = {
    **{f"pruneff{cut}": named_architecture(f"pruneff{cut}") for cut in CUTS},
    "ather2": named_architecture("ather2"),
    "ather2 without attention": named_architecture("ather2", cbam=False),
    "ather2, attention of ratio 8": Architecture("ather2", 4, 512, cbam_reduction=8),
}


def random_network(architecture, seed=0):
    network = build_network(architecture)
    randomise(network, seed)
    return network.eval()


def probabilities(network, images, sigmoid=False):
    with torch.inference_mode():
        return Deployed(network, sigmoid).eval()(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize("side", [225, 257, 301])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_for_inference_gives_the_probabilities_of_the_network(name, side):
    network, images = random_network(NETWORKS[name]), varied_patches(2, side)
    found = probabilities(for_inference(network), images)
    np.testing.assert_allclose(found, probabilities(network, images), atol=1e-5)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["pruneff2", "ather2"])
def test_one_unit_gives_the_probability_of_the_second_of_two_classes(name):
    network = random_network(named_architecture(name, 2, sigmoid=True))
    images = varied_patches(3, 225)
    found = probabilities(network, images, sigmoid=True)
    assert found.shape == (3, 2)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    with torch.inference_mode():
        logits = network(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()[:, 0]
    np.testing.assert_allclose(found[:, 1], 1 / (1 + np.exp(-logits.astype(np.float64))), atol=1e-6)
    np.testing.assert_allclose(probabilities(for_inference(network), images, sigmoid=True), found, atol=1e-5)


@pytest.mark.parametrize("name", ["pruneff1", "ather2"])
def test_the_network_itself_is_left_as_it_was(name):
    network = random_network(named_architecture(name)).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for_inference(network)
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["pruneff1", "ather2"])
def test_a_network_of_given_weights_is_the_network_that_had_them(name):
    architecture = named_architecture(name)
    network, images = random_network(architecture), varied_patches(2, 225)
    weights = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
    again = network_of(architecture, weights)
    assert not again.training
    np.testing.assert_array_equal(probabilities(again, images), probabilities(network, images))


def test_weights_of_another_architecture_are_refused_with_their_names():
    weights = {key: t.numpy() for key, t in build_network(named_architecture("pruneff2")).state_dict().items()}
    with pytest.raises(ClassifierError, match=r"(?s)pruneff1.*blocks\.1"):
        network_of(named_architecture("pruneff1"), weights)


def test_a_patch_is_scored_alike_alone_and_in_a_batch():
    network, images = for_inference(random_network(named_architecture("ather2"))), varied_patches(3, 128)
    found = probabilities(network, images)
    for row, image in zip(found, images, strict=True):
        np.testing.assert_allclose(probabilities(network, image[None])[0], row, atol=1e-6)


def test_every_block_more_costs_more_multiplications():
    counts = {
        cut: count_multiply_adds(build_network(named_architecture(f"pruneff{cut}")).eval(), 128) for cut in CUTS
    }
    # The neck, the largest layer, has the less to do the smaller the image is that comes to it.
    without_neck = [count - neck_multiply_adds(cut, 128) for cut, count in counts.items()]
    assert without_neck[0] > 0
    assert without_neck == sorted(set(without_neck))


def neck_multiply_adds(cut, side):
    channels, halvings = {1: (16, 1), 2: (32, 2), 3: (48, 3), 4: (96, 4), 5: (112, 4)}[cut]
    out = side // 2**halvings - 6
    return out * out * 7 * 7 * channels * 192


def test_multiply_adds_grow_with_the_area_of_a_patch():
    network = build_network(named_architecture("ather2")).eval()
    small, large = count_multiply_adds(network, 128), count_multiply_adds(network, 256)
    assert 3.5 < large / small < 5
