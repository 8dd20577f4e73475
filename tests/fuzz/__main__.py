"""`python -m tests.fuzz COUNT --seed S`: use hostile inputs, say what came of them, keep what found something."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.corpus import SHARES, corpus
from tests.fuzz.pool import MEMORY_MB, SECONDS, Child
from tests.fuzz.tally import Tally

_FOR_NETWORKS = (
    "wsi_her2.models.telemetry",
    "h5py",
    "wsi_her2.models.networks.deployed",
    "timm",
    "onnxruntime",
    "pipelines.models",
)


def main() -> int:
    """Run, report, and say by the exit code whether something was found."""
    options = _options()
    work = Path(tempfile.mkdtemp(prefix="fuzz-"))
    plain = Child(work / "plain", options.memory_mb, options.seconds)
    with_torch = Child(work / "with_torch", options.memory_mb, options.seconds, _FOR_NETWORKS)
    tally = Tally(list(SHARES))
    started = time.monotonic()
    try:
        seeds = corpus(work / "seeds")
        kinds = {kind: share for kind, share in SHARES.items() if seeds[kind] and kind in (options.kind or SHARES)}
        numbers = [options.only] if options.only is not None else range(options.count)
        for number in numbers:
            rng = random.Random(f"{options.seed}/{number}")
            kind = rng.choices(list(kinds), list(kinds.values()))[0]
            seed = rng.choice([s for s in seeds[kind] if options.name in s.name])
            child = with_torch if kind in ("keras", "model") else plain
            folder = child.inputs / str(number)
            folder.mkdir()
            path = seed.make(folder, rng)
            verdict = child.use(kind, path, rng.randrange(1000))
            name = f"{number} {kind} ({seed.name})"
            found = tally.add(kind, name, verdict)
            if options.only is not None or options.verbose:
                _say(f"{name}: {verdict}")
            if options.keep and 0 < found <= 3:
                shutil.copytree(folder, options.keep / str(number), symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        _say("interrupted; what came until then:")
    finally:
        plain.close()
        with_torch.close()
        shutil.rmtree(work, ignore_errors=True)
    _say(
        f"{tally.total} hostile inputs, seed {options.seed}, in {time.monotonic() - started:.0f} s; limits "
        f"{options.memory_mb} MB and {options.seconds:g} s for each"
    )
    for line in tally.lines():
        _say(line)
    if options.table is not None:
        from benchmarks.machine import machine

        command = f"python -m tests.fuzz {options.count} --seed {options.seed} --table {options.table}"
        limits = {"memory_mb": options.memory_mb, "seconds": options.seconds}
        options.table.write_text(tally.page(command=command, machine=machine(), **limits), encoding="utf-8")
    return int(tally.has_findings)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=2000, help="how many inputs")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds make equal inputs")
    parser.add_argument("--only", type=int, help="the number of one input, to see it again")
    parser.add_argument(
        "--kind", action="append", choices=list(SHARES), help="only inputs of this kind; repeatable"
    )
    parser.add_argument("--name", default="", help="only seeds whose name has this in it")
    parser.add_argument("--keep", type=Path, help="folder for inputs that found something, up to three of a place")
    parser.add_argument("--table", type=Path, help="Markdown file for what came of all of them")
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="anonymous memory of the process")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a processor, for an input")
    parser.add_argument("--verbose", action="store_true", help="say what came of each input")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
