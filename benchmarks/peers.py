"""How much work a patch is here and in TIAToolbox, LazySlide and WSInfer, on the same patches of a slide.

    python benchmarks/peers.py SLIDE -o OUT [--bundles NAME_OR_DIR...] [--networks published exported]
        [--patches N] [--repeats N] [--peers [REQUIREMENT...]] [--table docs/peers.md]

Takes whole blocks of patches full of tissue from a tiled slide and has every tool read and classify exactly these,
with the same weights, on the CPU, in one thread: this package as its workers do, in fp32 and in int8, and each
peer with its own reader, data set, loader and loop (how: see the drivers in `benchmarks/peer_drivers`). A peer has
the network in torch as published, traced, as somebody who has trained it would load it; and beside it the one that
`wsi-her2 models export` writes, which this package has simplified. Each peer lives in a virtual environment of its
own under OUT/envs, made with pip, some 7 GB each, which later runs use again. In each repeat every tool runs once,
in a new process, so that what else the machine does hits them alike; figures are medians over the repeats. A peer
that cannot be installed or run is listed with the reason. `--peers lazyslide==0.12.0` takes that one only.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from machine import machine

from pipelines.cluster import WORKER_ENVIRONMENT
from pipelines.configuration import load_config
from wsi_her2.models.bundle import Bundle, read_bundle
from wsi_her2.models.export import export_bundle
from wsi_her2.models.loading import bundle_path, bundled_bundles, load_classifier
from wsi_her2.models.runtimes.choice import TOLERANCE
from wsi_her2.slides.blocks import read_block
from wsi_her2.slides.grid import PatchGrid, plan_patches
from wsi_her2.slides.slide import Slide, open_slide
from wsi_her2.slides.tissue import detect_tissue

DRIVERS = Path(__file__).resolve().parent / "peer_drivers"
DEFAULT_BUNDLES = ("pruneff4-phantoms", "ather2-phantoms")
PUBLISHED, EXPORTED = "published", "exported"
NETWORKS = {PUBLISHED: "network as published, torch", EXPORTED: "network as exported here"}
"""What the peers run, and how the table says it."""

FULL = 0.9
"""Share of tissue of a patch that counts as full of it."""

MAX_DIFFERENCE = 0.05
"""Of probabilities, in the mean: readers resample differently; more than this and it is not the same work."""

HOUR_S = 3600
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Probabilities = npt.NDArray[np.float32]


class PeerError(Exception):
    """A peer that cannot be installed or run."""


@dataclass(frozen=True)
class Peer:
    """A tool to compare with.

    Attributes
    ----------
    how : str
        What of it is used, for people.
    beside : tuple of str
        Requirements that pip is given beside it, where the newest of what it depends on does not work with it.
    """

    how: str
    beside: tuple[str, ...] = ()


PEERS = {
    "tiatoolbox": Peer(
        "`PatchPredictor.run` on its OpenSlide reader of the slide, with a `ModelABC` for the network, given "
        "coordinates in place of those of its own grid, output to Zarr"
    ),
    "lazyslide": Peer(
        "`tl.tile_prediction` on tiles added with `add_tiles`, with a `TilePredictionModel` for the network and "
        "the transform of LazySlide's image models (`ToImage`, `ToDtype`)"
    ),
    "wsinfer": Peer(
        "`run_inference` on a file of patches made with its `save_hdf5`, with a local TorchScript model and the "
        "transforms `Resize` and `ToTensor`; installed with Zarr 2, whose `KVStore` it imports",
        beside=("zarr<3", "tifffile<2025.5.21"),
    ),
}


@dataclass(frozen=True)
class Chosen:
    """The patches of a benchmark.

    Attributes
    ----------
    slide : Slide
    grid : PatchGrid
    blocks : dict of lists of int
        Those that are scored first, and those that are timed.
    """

    slide: Slide
    grid: PatchGrid
    blocks: dict[str, list[int]]

    def places(self, plan: str) -> npt.NDArray[np.int32]:
        """Top-left corners of the patches (int32 n x 2), level-0 pixels, block after block."""
        rows = [self.grid.rows(block) for block in self.blocks[plan]]
        return np.concatenate([self.grid.xy[of_block][self.grid.selected[of_block]] for of_block in rows])


@dataclass
class Tool:
    """A row of the table, and how it is run.

    Attributes
    ----------
    name : str
    python : pathlib.Path
        Interpreter of its environment.
    driver : str
    network : str
        Which of `NETWORKS` it runs; this package runs its own graph and does not look at it.
    environment : dict
        Variables on top of those that all get.
    more : dict
        What only its driver needs.
    failure : str
        Why there are no figures.
    runs : list of dict
        What its driver measured.
    probabilities : float32 n x K
        Of the last run.
    """

    name: str
    python: Path
    driver: str
    network: str = EXPORTED
    environment: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    runs: list[dict[str, Any]] = field(default_factory=list)
    probabilities: Probabilities | None = None

    def median(self, figure: str) -> float:
        """Of the repeats."""
        return float(np.median([run[figure] for run in self.runs]))

    def seen(self, note: str) -> str:
        """What its driver noted; it may differ between repeats, as a runtime that is chosen by its speed."""
        return " or ".join(dict.fromkeys(run["notes"][note] for run in self.runs))


def choose(path: Path, bundle: Bundle, patches: int) -> Chosen:
    """Find the tissue and take whole blocks of it: the fullest, and of those the first; one more to warm up."""
    card, config = bundle.card, load_config()
    slide = open_slide(path)
    grid = plan_patches(
        slide,
        detect_tissue(slide, config.tissue),
        card.architecture.patch_px,
        card.mpp,
        min_tissue=config.patches.min_tissue,
        block_edge=config.patches.block_edge,
    )
    full = (grid.tissue.reshape(grid.n_blocks, -1) >= FULL).sum(axis=1)
    fullest = np.argsort(-full, kind="stable")
    needed = -(-patches // grid.block_rows)
    timed, rest = sorted(int(block) for block in fullest[:needed]), fullest[needed:]
    if len(rest) == 0:
        raise SystemExit(f"{path}: too little tissue for {patches} patches and a block beside them")
    return Chosen(slide, grid, {"warm_up": [int(rest[0])], "timed": timed})


def reference(chosen: Chosen, bundle: Bundle) -> Probabilities:
    """What the network makes of the patches as they are read here, without any correction of colours."""
    classifier = load_classifier(bundle.path.parent, "onnx")
    found = []
    for block in chosen.blocks["timed"]:
        patches, readable = read_block(chosen.slide, chosen.grid, block)
        found.append(classifier.predict(patches[readable]))
    return np.concatenate(found)


def install(requirements: Sequence[str], folder: Path) -> Path:
    """Make the environment of a peer and give its interpreter.

    Raises
    ------
    PeerError
    """
    python, complete = folder / "bin/python", folder / "installed.txt"
    wanted = "\n".join(requirements) + "\n"
    if complete.exists() and complete.read_text(encoding="utf-8") == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    finished = subprocess.run(
        [python, "-m", "pip", "install", "--no-cache-dir", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        raise PeerError(f"pip cannot install it: {_last_line(finished.stderr)}")
    # Written last: an install that was interrupted is made again.
    complete.write_text(wanted, encoding="utf-8")
    return python


def trace_published(bundle: Bundle, path: Path) -> None:
    """Write the network of a bundle as published as TorchScript, and see that it gives the bundle's probabilities.

    Raises
    ------
    SystemExit
        It does not.
    """
    import torch

    from wsi_her2.models.networks.deployed import network_of

    class Published(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network_of(bundle.card.architecture, bundle.weights)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            logits = self.network(images)
            if bundle.card.architecture.sigmoid:
                positive = torch.sigmoid(logits)
                return torch.cat([1 - positive, positive], dim=1)
            return torch.softmax(logits, dim=1)

    images = torch.from_numpy(bundle.check_images.transpose(0, 3, 1, 2).astype(np.float32))
    with torch.inference_mode():
        torch.jit.trace(Published().eval(), images[:2], check_trace=False).save(str(path))
        found = torch.jit.load(str(path))(images).numpy()
    off = float(np.abs(found - bundle.check_probabilities("fp32")).max())
    if not off <= TOLERANCE["fp32"]:
        raise SystemExit(f"{bundle.card.name}: the network as published differs from the bundle by {off:.2g}")


def run(tool: Tool, job: dict[str, Any], folder: Path) -> tuple[dict[str, Any], Probabilities]:
    """Run a tool once in a new process.

    Raises
    ------
    PeerError
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{tool.driver}-") as own:
        described = Path(own) / "job.json"
        networks = {"network": job["networks"][tool.network], "published": tool.network == PUBLISHED}
        asked = {name: value for name, value in job.items() if name != "networks"} | networks
        described.write_text(json.dumps({**asked, "folder": own, "more": tool.more}), encoding="utf-8")
        environment = {**os.environ, **dict.fromkeys(THREADS, "1"), **tool.environment}
        if tool.driver != "ours":
            environment.pop("PYTHONPATH", None)
        log = folder / f"{tool.driver}.log"
        with log.open("w", encoding="utf-8") as stream:
            try:
                finished = subprocess.run(
                    [tool.python, DRIVERS / f"drive_{tool.driver}.py", described],
                    stdout=stream,
                    stderr=stream,
                    stdin=subprocess.DEVNULL,
                    env=environment,
                    timeout=HOUR_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise PeerError(f"it did not finish within {HOUR_S // 60} minutes") from error
        if finished.returncode != 0:
            reason = _last_line(log.read_text(encoding="utf-8", errors="replace"))
            raise PeerError(f"it does not run: {reason or f'exit status {finished.returncode}'}")
        measured = json.loads((Path(own) / "measured.json").read_text(encoding="utf-8"))
        return measured, np.load(Path(own) / "probabilities.npy")


def tools(
    bundle: Bundle, chosen: Chosen, requirements: Sequence[str], networks: Sequence[str], environments: Path
) -> list[Tool]:
    """Ours and the peers with each network, installed; those that cannot be say why."""
    here = {name: str(value) for name, value in WORKER_ENVIRONMENT.items()}
    root = str(DRIVERS.parents[1])
    here["PYTHONPATH"] = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    found = []
    for precision in ("fp32", "int8"):
        if bundle.has(precision):
            more = {"bundle": str(bundle.path.parent.resolve()), "precision": precision, "blocks": chosen.blocks}
            python = Path(sys.executable)
            found.append(Tool(f"this package, {precision}", python, "ours", environment=here, more=more))
    for requirement in requirements:
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0].lower()
        if name not in PEERS:
            raise SystemExit(f"{name}: there is no driver; there are {', '.join(PEERS)}")
        python, failure = Path(), ""
        try:
            python = install((requirement, *PEERS[name].beside), environments / name)
        except PeerError as error:
            failure = str(error)
        found += [Tool(f"{name}, {NETWORKS[it]}", python, name, it, failure=failure) for it in networks]
    return found


def measure(running: Sequence[Tool], job: dict[str, Any], repeats: int, folder: Path) -> None:
    """Run all tools in turn, again and again."""
    for _ in range(repeats):
        for tool in running:
            if tool.failure:
                continue
            try:
                measured, tool.probabilities = run(tool, job, folder)
            except PeerError as error:
                if tool.driver == "ours":
                    raise SystemExit(f"{tool.name}: {error}") from error
                tool.failure = str(error)
                continue
            tool.runs.append(measured)


def difference(found: Probabilities, expected: Probabilities) -> float:
    """Mean absolute difference of the probabilities of the patches that both have."""
    if found.shape != expected.shape:
        return float("nan")
    return float(np.nanmean(np.abs(found - expected)))


def page(sections: Sequence[str], repeats: int, networks: Sequence[str]) -> str:
    """The figures as Markdown."""
    exported = (
        f'The "{NETWORKS[EXPORTED]}" is the TorchScript of `wsi-her2 models export`, in which this package has '
        "simplified the network: the two rows of a peer show what that gains, and the second what remains to the "
        "reader, the runtime and the loop. "
        if EXPORTED in networks
        else ""
    )
    lines = [
        "# A patch here and in other tools",
        "",
        f"Made by `{command()}` on {machine()}. CPU, one thread, medians of {repeats} repeats; in each all tools "
        "ran in turn, each in a new process.",
        "",
        "Times run from the first patch to what a tool leaves of the last: start-up, imports, loading the network "
        "and planning the patches are not in them, and other patches are scored first to warm up. The peak is "
        "that of the process, libraries included.",
        "",
        "All ran the same weights. This package ran its own graph in the runtime that it chose; it also corrected "
        "the white point, measured the quality of each patch and wrote what it found to its store. The peers ran "
        "with their defaults, batches too, but for the workers of their loaders, of which there were none. As "
        f'"{NETWORKS[PUBLISHED]}" they had the network as it was trained, traced to TorchScript: what they would '
        f"be given by somebody who has trained one. {exported}The ratios of CPU time are "
        "those to this package in fp32 and in int8. The difference is the mean absolute one of the probabilities "
        "from those of the same network on the patches as this package reads them, before any correction: of a "
        f"peer it says what its reader changes ({MAX_DIFFERENCE:g} and more is marked), of this package what the "
        "correction and the precision change.",
        "",
    ]
    return "\n".join([*lines, *sections])


def section(running: Sequence[Tool], chosen: Chosen, bundle: Bundle, expected: Probabilities) -> str:
    """The figures of one network."""
    base, card = running[0].median("cpu_s"), bundle.card
    int8 = next(
        (tool.median("cpu_s") for tool in running if tool.driver == "ours" and tool is not running[0]), base
    )
    levels = ", ".join(f"{chosen.slide.mpp * level.downsample:.3g}" for level in chosen.slide.levels)
    lines = [
        f"## {card.name}",
        "",
        f"{len(expected)} patches of {card.architecture.patch_px} px at {card.mpp:g} um/px of one slide with "
        f"levels of {levels} um/px.",
        "",
        "| tool | version | CPU-ms per patch | wall ms per patch | peak, MB | to fp32 | to int8 | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    notes = {}
    for tool in running:
        if tool.failure or tool.probabilities is None:
            lines.append(f"| {tool.name} | | {tool.failure or 'not run'} | | | | | |")
            continue
        last = tool.runs[-1]
        per_patch = 1000 / len(expected)
        off = difference(tool.probabilities, expected)
        lines.append(
            f"| {tool.name} | {last['version']} | {tool.median('cpu_s') * per_patch:.1f} "
            f"| {tool.median('wall_s') * per_patch:.1f} | {tool.median('peak_mb'):,.0f} "
            f"| {tool.median('cpu_s') / base:.2f} | {tool.median('cpu_s') / int8:.2f} "
            f"| {off:.4f}{'' if off < MAX_DIFFERENCE else ' (!)'} |"
        )
        described = "; ".join(f"{key} {tool.seen(key)}" for key in last["notes"])
        name = tool.driver if tool.driver in PEERS else tool.name
        notes[name] = f"- {name}: {PEERS[name].how + '; ' if name in PEERS else ''}{described}"
    return "\n".join([*lines, "", "What ran:", "", *notes.values(), ""])


def command() -> str:
    """The command line, without folders, which mean nothing elsewhere."""
    words = (Path(word).name if os.sep in word and not word.startswith("-") else word for word in sys.argv[1:])
    return " ".join(["python", "benchmarks/peers.py", *words])


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(ERROR|\w*(Error|Exception))\b", line)]
    return (errors or lines or [""])[-1][:300].replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="keeps the environments and the logs")
    parser.add_argument("--bundles", nargs="+", default=list(DEFAULT_BUNDLES), metavar="NAME_OR_DIR")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--patches", type=int, default=512, help="about so many: whole blocks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), metavar="REQUIREMENT")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    sections = []
    for name in options.bundles:
        path = bundle_path(name)
        if path is None:
            raise SystemExit(f"{name}: no bundle; there are {', '.join(bundled_bundles())}")
        sections.append(compare(read_bundle(path), options))
    text = page(sections, options.repeats, options.networks)
    print(text)
    if options.table:
        options.table.write_text(text, encoding="utf-8")


def compare(bundle: Bundle, options: argparse.Namespace) -> str:
    """Run all tools on one network and give its section of the page."""
    chosen = choose(options.slide, bundle, options.patches)
    running = tools(bundle, chosen, options.peers, options.networks, options.output.resolve() / "envs")
    with tempfile.TemporaryDirectory() as folder:
        networks = {name: Path(folder) / f"{name}.pt" for name in NETWORKS}
        export_bundle(bundle, "torchscript", networks[EXPORTED])
        trace_published(bundle, networks[PUBLISHED])
        job = {
            "slide": str(options.slide.resolve()),
            "slide_mpp": chosen.slide.mpp,
            "networks": {name: str(path) for name, path in networks.items()},
            "classes": list(bundle.card.classes),
            "patch_px": chosen.grid.patch_px,
            "patch_px0": chosen.grid.patch_px0,
            "mpp": chosen.grid.mpp,
            "places": {plan: chosen.places(plan).tolist() for plan in chosen.blocks},
        }
        measure(running, job, options.repeats, options.output.resolve())
    return section(running, chosen, bundle, reference(chosen, bundle))


if __name__ == "__main__":
    main()
