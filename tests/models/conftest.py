"""Small networks whose labels vary from patch to patch, and bundles of them, packed once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data

from tests.made_once import made_once
from wsi_her2.models.bundle import Bundle, Training, read_bundle
from wsi_her2.models.calibration import CalibrationPatches
from wsi_her2.models.networks.architecture import Architecture, named_architecture

CLASSES = {2: ("negative", "positive"), 4: ("0", "1+", "2+", "3+"), 5: ("other", "0", "1+", "2+", "3+")}

SMALL = {
    "pruneff": named_architecture("pruneff4", patch_px=120),
    "ather2": named_architecture("ather2", patch_px=128),
    "sigmoid": named_architecture("pruneff1", 2, sigmoid=True, patch_px=64),
}
"""Both networks, and one unit for two classes, at sizes that are quick."""


def varied_patches(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Real tissue in many colours, gains and grains (uint8 N x side x side x 3)."""
    rng = np.random.default_rng(seed)
    field = skimage.data.immunohistochemistry().astype(np.float32) / 255
    drawn = []
    for _ in range(count):
        y, x = rng.integers(0, 512 - side + 1, 2)
        patch = field[y : y + side, x : x + side][..., rng.permutation(3)]
        patch = patch ** rng.uniform(0.4, 2.5, 3) * rng.uniform(0.5, 1.0, 3)
        patch = patch + rng.normal(0, rng.uniform(0, 0.15), patch.shape)
        drawn.append(np.rint(np.clip(patch, 0, 1) * 255).astype(np.uint8))
    return np.stack(drawn)


def small_patches(side: int, seed: int = 0) -> CalibrationPatches:
    drawn = varied_patches(40, side, seed)
    return CalibrationPatches(drawn[:16], drawn[16:], "tissue in many colours")


def randomise(network: Any, seed: int) -> None:
    """New weights, statistics of normalisations included, so that every layer matters."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(0, 0.1, generator=generator)
            else:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5, generator=generator)
        for module in network.modules():
            if hasattr(module, "running_mean"):
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)


def network_that_tells_apart(architecture: Architecture, images: np.ndarray, seed: int = 0) -> Any:
    """A network with random weights whose labels of these images vary."""
    import torch

    from wsi_her2.models.networks.deployed import build_network

    network = build_network(architecture)
    randomise(network, seed)
    scaled = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        for module in network.modules():
            if hasattr(module, "running_mean"):
                module.momentum = None
                module.reset_running_stats()
        network.train()(scaled)
        network.eval()
        network.out.bias.zero_()
        logits = network(scaled)
        factors = 1 / logits.std(dim=0)
        network.out.weight.mul_(factors[:, None])
        network.out.bias.copy_(-logits.mean(dim=0) * factors)
    return network


def pack_small(folder: Path, architecture: Architecture, *, seed: int = 0, **identity: Any) -> Bundle:
    """A bundle of a network that tells patches apart."""
    from wsi_her2.models.packing import Identity, pack

    int8 = identity.pop("int8", True)
    patches = identity.pop("patches", None) or small_patches(architecture.patch_px)
    network = network_that_tells_apart(architecture, patches.held_out, seed)
    described = {
        "name": folder.name,
        "classes": CLASSES[architecture.n_classes],
        "mpp": 0.5,
        "mpp_stated": True,
        "modality": "ihc",
        "training": Training(status="trained", data="nothing real: a network for tests"),
        "origin": "made for tests",
        "version": "test",
    }
    return pack(folder, network, architecture, Identity(**(described | identity)), patches, int8=int8)


def need_packing() -> None:
    """Skip where a bundle cannot be packed."""
    for package in ("torch", "timm", "onnx", "onnxscript"):
        pytest.importorskip(package)
    _one_thread()


def _one_thread() -> None:
    """Threads of torch wait for each other by spinning, which on busy cores costs more than it saves."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    _one_thread()


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """A packed bundle by its name in SMALL, made when it is first asked for. Not to be changed."""
    need_packing()
    made = {}

    def get(name: str) -> Bundle:
        if name not in made:
            folder = made_once(
                tmp_path_factory, f"bundle-{name}", lambda folder: pack_small(folder / name, SMALL[name])
            )
            made[name] = read_bundle(folder / name)
        return made[name]

    return get


@pytest.fixture(scope="session")
def keras_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models that Keras wrote, each with images and Keras' probabilities for them."""
    from importlib.util import find_spec

    for package in ("keras", "torch", "h5py"):
        if find_spec(package) is None:
            pytest.skip(f"needs {package}")

    def write(folder: Path) -> None:
        # In a process of its own: Keras takes its backend from the environment when it is imported.
        script = Path(__file__).with_name("write_keras_models.py")
        written = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, check=False)
        assert written.returncode == 0, written.stderr

    return made_once(tmp_path_factory, "keras", write)
