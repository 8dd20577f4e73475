"""`python -m tests.fuzz COUNT --seed S`: use hostile inputs, say what came of them, keep what found something."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.corpus import SHARES, Seed, corpus
from tests.fuzz.pool import MEMORY_MB, SECONDS, Child
from tests.fuzz.verdicts import Verdict

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
    found: dict[tuple[str, str], list[tuple[int, Seed, Verdict]]] = defaultdict(list)
    counts: Counter[tuple[str, str]] = Counter()
    started, largest, slowest = time.monotonic(), (0.0, ""), (0.0, "")
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
            counts[kind, verdict.outcome] += 1
            name = f"{number} {kind} ({seed.name})"
            largest, slowest = max(largest, (verdict.peak_mb, name)), max(slowest, (verdict.seconds, name))
            if options.only is not None or options.verbose:
                _say(f"{name}: {verdict}")
            if verdict.outcome in ("finding", "third-party crash"):
                found[verdict.outcome, f"{verdict.what} at {verdict.where}"].append((number, seed, verdict))
                if options.keep and len(found[verdict.outcome, f"{verdict.what} at {verdict.where}"]) <= 3:
                    shutil.copytree(folder, options.keep / str(number), symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
    except KeyboardInterrupt:
        _say("interrupted; what came until then:")
    finally:
        plain.close()
        with_torch.close()
        shutil.rmtree(work, ignore_errors=True)
    _report(options, counts, found, time.monotonic() - started)
    _say(f"most memory {largest[0]:.0f} MB: {largest[1]}; longest {slowest[0]:.1f} s: {slowest[1]}")
    return int(any(outcome == "finding" for outcome, _ in found))


def _report(
    options: argparse.Namespace,
    counts: Counter[tuple[str, str]],
    found: dict[tuple[str, str], list[tuple[int, Seed, Verdict]]],
    seconds: float,
) -> None:
    total = sum(counts.values())
    _say(
        f"{total} hostile inputs, seed {options.seed}, in {seconds:.0f} s; limits {options.memory_mb} MB and "
        f"{options.seconds:g} s for each"
    )
    outcomes = ("ok", "refused", "third-party crash", "finding")
    _say(f"{'':10}" + "".join(f"{name:>20}" for name in outcomes))
    for kind in SHARES:
        _say(f"{kind:10}" + "".join(f"{counts[kind, outcome]:20}" for outcome in outcomes))
    _say(f"{'all':10}" + "".join(f"{sum(counts[k, o] for k in SHARES):20}" for o in outcomes))
    for outcome, title in (
        ("third-party crash", "Crashes of third-party libraries: contained by a run, each costs one slide"),
        ("finding", "Findings"),
    ):
        groups = sorted(((k[1], v) for k, v in found.items() if k[0] == outcome), key=lambda each: -len(each[1]))
        _say(f"\n{title}: {sum(len(group) for _, group in groups)} in {len(groups)} places")
        for place, group in groups:
            number, seed, verdict = group[0]
            _say(f"  {len(group):4} x {place}\n         first {number} ({seed.name}): {verdict.said[:200]!r}")


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
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="anonymous memory of the process")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="time limit of an input")
    parser.add_argument("--verbose", action="store_true", help="say what came of each input")
    return parser.parse_args()


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
