"""How fast the networks are in each runtime, and how far each runtime is from torch.

    python benchmarks/networks.py [BUNDLE...] [--threads N] [--repeats N] [--batch N] [--table docs/speed.md]

Without bundles it makes PrunEff4 and ATHER2 with new weights, whose normalisations have seen digital phantoms;
time does not depend on what the weights are. All contenders of a network run in turn within each repeat, so that
what else the machine does hits them alike; figures are medians over the repeats. The first row of each network is
torch as a user of torch would run it: the network as published, eager, images in torch's own layout.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pipelines.cluster import available_cores
from pipelines.fingerprint import software_version
from wsi_her2.models.bundle import Bundle, Training, read_bundle
from wsi_her2.models.calibration import CalibrationPatches, phantom_patches
from wsi_her2.models.networks.architecture import named_architecture
from wsi_her2.models.networks.deployed import build_network, network_of
from wsi_her2.models.packing import Identity, compare, pack
from wsi_her2.models.runtimes.onnx_session import OnnxSession
from wsi_her2.models.runtimes.openvino_session import OpenVinoSession
from wsi_her2.models.runtimes.session import BATCH, run_in_batches
from wsi_her2.models.runtimes.torch_session import TorchSession

NETWORKS = ("pruneff4", "ather2")
EAGER = "torch eager, as published"
TIMED = 16
"""Patches of a repeat."""

Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Timing:
    """A contender's figures."""

    name: str
    precision: str
    images_per_s: float
    cpu_ms: float
    size_bytes: int
    same_label: float
    max_difference: float


class Eager:
    """The network as published in torch, with images as contiguous N x 3 x H x W."""

    def __init__(self, bundle: Bundle) -> None:
        self._network = network_of(bundle.card.architecture, bundle.weights)
        self._sigmoid = bundle.card.architecture.sigmoid

    def run(self, images: np.ndarray) -> np.ndarray:
        """Probabilities of patches (uint8 N x H x W x 3)."""
        with torch.inference_mode():
            given = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float()
            logits = self._network(given)
            if self._sigmoid:
                positive = torch.sigmoid(logits)
                return torch.cat([1 - positive, positive], dim=1).numpy()
            return torch.softmax(logits, dim=1).numpy()


def contenders(bundle: Bundle, threads: int) -> dict[tuple[str, str], Predict]:
    """Runtime and precision, and what runs them."""
    found: dict[tuple[str, str], Predict] = {
        (EAGER, "fp32"): Eager(bundle).run,
        ("torch, as run here", "fp32"): TorchSession(bundle, threads).run,
    }
    for precision in bundle.card.graphs:
        graph = bundle.graph(precision)
        found["ONNX Runtime", precision] = OnnxSession(graph, threads).run
        found["OpenVINO", precision] = OpenVinoSession(graph, threads).run
    torch.set_num_threads(threads)
    return found


def measure(bundle: Bundle, patches: np.ndarray, threads: int, repeats: int, batch: int) -> list[Timing]:
    """Time every contender and compare it with the first."""
    running = contenders(bundle, threads)
    expected = np.concatenate(
        [running[EAGER, "fp32"](patches[i : i + TIMED]) for i in range(0, len(patches), TIMED)]
    )
    wall: dict[tuple[str, str], list[float]] = {key: [] for key in running}
    cpu: dict[tuple[str, str], list[float]] = {key: [] for key in running}
    for repeat in range(-1, repeats):
        for key, run in running.items():
            started, cpu_started = time.perf_counter(), time.process_time()
            for start in range(0, TIMED, batch):
                run(patches[start : min(start + batch, TIMED)])
            if repeat >= 0:
                wall[key].append(time.perf_counter() - started)
                cpu[key].append(time.process_time() - cpu_started)
    timings = []
    for (name, precision), run in running.items():
        session = type("Contender", (), {"run": staticmethod(run), "device": "cpu"})()
        agreement = compare(run_in_batches(session, patches), expected, "digital phantoms")
        size = bundle.path.stat().st_size - bundle.check_images.nbytes
        if not name.startswith("torch"):
            size = bundle.card.graphs[precision].size_bytes  # type: ignore[index]
        timings.append(
            Timing(
                name,
                precision,
                TIMED / float(np.median(wall[name, precision])),
                1000 * float(np.median(cpu[name, precision])) / TIMED,
                size,
                agreement.same_label,
                agreement.max_difference,
            )
        )
    return timings


def new_bundle(name: str, folder: Path) -> Bundle:
    """A bundle of a network with new weights that tells patches apart."""
    torch.manual_seed(0)
    architecture = named_architecture(name)
    network = build_network(architecture)
    patches = phantom_patches(architecture.patch_px, 0.5, "ihc")
    images = torch.from_numpy(patches.calibration.transpose(0, 3, 1, 2).copy()).float()
    with torch.no_grad():
        network.train()
        for start in range(0, len(images), TIMED):
            network(images[start : start + TIMED])
        network.eval()
        logits = torch.cat([network(images[i : i + TIMED]) for i in range(0, len(images), TIMED)])
        spread = logits.std(dim=0)
        network.out.bias -= logits.mean(dim=0)
        network.out.weight /= spread[:, None]
        network.out.bias /= spread
    identity = Identity(
        name, ("0", "1+", "2+", "3+"), 0.5, True, "ihc", Training(status="untrained"), "new", software_version()
    )
    return pack(folder / name, network, architecture, identity, patches)


def page(measured: dict[str, tuple[Bundle, list[Timing]]], threads: int, repeats: int, batch: int) -> str:
    """The figures as Markdown."""
    machine = platform.processor() or platform.machine()
    lines = [
        "# Speed of the networks",
        "",
        f"Made by `python benchmarks/networks.py --batch {batch} --table docs/speed.md` on {machine}, {threads} "
        f"threads, batches of {batch}, medians of {repeats} repeats; torch {torch.__version__}. Ratios are to the "
        "first row of each table. Absolute figures vary with the machine; ratios hold better.",
        "",
    ]
    for name, (bundle, timings) in measured.items():
        card = bundle.card
        eager = timings[0].images_per_s
        lines += [
            f"## {name}",
            "",
            f"{card.parameters:,} parameters (Keras count), {card.multiply_adds / 1e6:,.0f} million "
            f"multiply-adds for a patch of {card.architecture.patch_px} px. Agreement with torch eager in fp32 on "
            f"{card.graphs['fp32'].agreement.images} patches of {card.graphs['fp32'].agreement.source}"
            f"{'; new weights' if card.training.status == 'untrained' else ''}.",
            "",
            "| runtime | precision | images/s | ratio | CPU-ms per image | file, MB | same label | difference |",
            "|---|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {t.name} | {t.precision} | {t.images_per_s:.1f} | {t.images_per_s / eager:.2f} | {t.cpu_ms:.1f} "
            f"| {t.size_bytes / 1e6:.2f} | {t.same_label:.1%} | {t.max_difference:.1e} |"
            for t in timings
        ]
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="*", type=Path)
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--batch", type=int, default=BATCH, help="patches given to a runtime at a time")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        bundles = [read_bundle(path) for path in options.bundles]
        for bundle in bundles or (new_bundle(name, Path(folder)) for name in NETWORKS):
            card = bundle.card
            patches: CalibrationPatches = phantom_patches(card.architecture.patch_px, card.mpp, card.modality)
            measured[card.name] = (
                bundle,
                measure(bundle, patches.held_out, options.threads, options.repeats, options.batch),
            )
    text = page(measured, options.threads, options.repeats, options.batch)
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
