"""An architecture is checked in words, before any torch, and its numbers are those of the publication."""

from __future__ import annotations

import pytest

from wsi_her2.errors import ClassifierError
from wsi_her2.models.networks.architecture import CUTS, Architecture, named_architecture


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pruneff", Architecture("pruneff", 4, 224, cut=4)),
        ("pruneff1", Architecture("pruneff", 4, 224, cut=1)),
        ("PrunEff5", Architecture("pruneff", 4, 224, cut=5)),
        ("ather2", Architecture("ather2", 4, 512, cbam_reduction=16)),
        ("ATHER2", Architecture("ather2", 4, 512, cbam_reduction=16)),
    ],
)
def test_the_names_of_the_publication_name_its_networks(name, expected):
    assert named_architecture(name) == expected


@pytest.mark.parametrize("cut", CUTS)
def test_a_name_leads_to_an_architecture_of_that_name(cut):
    assert named_architecture(f"pruneff{cut}").name == f"pruneff{cut}"


def test_options_of_a_named_architecture_are_taken():
    assert named_architecture("ather2", cbam=False).cbam_reduction == 0
    assert named_architecture("pruneff2", 5, patch_px=256) == Architecture("pruneff", 5, 256, cut=2)
    one_unit = named_architecture("ather2", 2, sigmoid=True)
    assert (one_unit.head_units, one_unit.n_classes) == (1, 2)
    assert named_architecture("ather2", 2).head_units == 2


@pytest.mark.parametrize(
    "name", ["", "pruneff0", "pruneff6", "pruneff44", "ather", "ather2x", "ather3", "resnet50"]
)
def test_a_wrong_name_is_refused_with_the_names_that_there_are(name):
    with pytest.raises(ClassifierError, match="pruneff1 to pruneff5, and ather2"):
        named_architecture(name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"family": "vgg"}, "vgg"),
        ({"cut": 0}, "block 0"),
        ({"cut": 6}, "block 6"),
        ({"family": "ather2", "cut": 4}, "block 4"),
        ({"n_classes": 1}, "1 classes"),
        ({"n_classes": 0}, "0 classes"),
        ({"n_classes": 3, "sigmoid": True}, "3 classes with one unit"),
        ({"patch_px": 96}, "at least 97 px, not 96"),
        ({"patch_px": 0}, "at least 97 px"),
        ({"patch_px": -224}, "at least 97 px"),
        ({"cbam_reduction": 16}, "channel attention"),
        ({"family": "ather2", "cut": 0, "cbam_reduction": -1}, "ratio -1"),
        ({"family": "ather2", "cut": 0, "cbam_reduction": 65}, "ratio 65"),
        ({"family": "ather2", "cut": 0, "patch_px": 85}, "at least 86 px"),
    ],
    ids=str,
)
def test_a_network_that_cannot_be_is_refused(wrong, said):
    with pytest.raises(ClassifierError, match=said):
        Architecture(**({"family": "pruneff", "n_classes": 4, "patch_px": 224, "cut": 4} | wrong))


@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("pruneff1", {}, 358_884),
        ("pruneff2", {}, 562_660),
        ("pruneff3", {}, 850_020),
        ("pruneff4", {}, 1_536_672),
        ("pruneff5", {}, 2_648_424),
        ("ather2", {}, 345_914),
        ("ather2", {"cbam": False}, 345_316),
    ],
)
def test_the_parameters_are_as_many_as_published(name, options, count):
    pytest.importorskip("torch")
    pytest.importorskip("timm")
    from wsi_her2.models.networks.deployed import build_network, count_parameters

    assert count_parameters(build_network(named_architecture(name, **options))) == count


@pytest.mark.parametrize(
    ("name", "options"),
    [*((f"pruneff{cut}", {}) for cut in CUTS), ("ather2", {}), ("ather2", {"cbam": False})],
)
def test_the_smallest_patch_is_the_smallest_that_the_network_can_work_on(name, options):
    torch = pytest.importorskip("torch")
    pytest.importorskip("timm")
    from wsi_her2.models.networks.deployed import Deployed, build_network, for_inference

    architecture = named_architecture(name, **options)
    network, side = build_network(architecture).eval(), architecture.min_patch_px
    for deployed in (Deployed(network, sigmoid=False), Deployed(for_inference(network), sigmoid=False)):
        with torch.inference_mode():
            found = deployed(torch.zeros((1, side, side, 3), dtype=torch.uint8))
            assert torch.isfinite(found).all()
            with pytest.raises(RuntimeError):
                deployed(torch.zeros((1, side - 1, side - 1, 3), dtype=torch.uint8))
