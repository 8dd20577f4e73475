"""What came of many inputs: counts by kind, places of findings, the most that any took; as text and as a page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

from tests.fuzz.verdicts import Outcome, Verdict

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

_TITLES: dict[str, str] = {
    "third-party crash": "Crashes of third-party libraries: contained by a run, each costs one slide",
    "finding": "Findings",
}

_PAGE = """\
# Hostile files

Made by `{command}` on {machine}.

{total:,} files that were damaged at random or made to do harm, each used as a user would: slides are opened,
looked at for tissue and read; annotations, configurations, laboratory profiles, Keras files, models, tables of
truth, data sets and stores of earlier runs are read and used. The process that uses them may take {seconds:g} s
of a processor for each and {memory_mb:,} MB of memory; what it writes outside the folder of the file is noticed.

- *used*: read as far as it goes.
- *refused*: with an error of this project that says why.
- *library crashed*: a library that decodes ended the process. In a run that costs the slide, and nothing else.
- *finding*: any other error, more time or memory than that, or a file where none belongs.

{table}

*Most memory* is of the whole process, what it had imported included. The longest took {longest}.
{places}"""


@dataclass
class Tally:
    """Counts of what came of inputs.

    Attributes
    ----------
    kinds : sequence of str
        In the order in which they are shown.
    """

    kinds: Sequence[str]
    _counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _found: dict[tuple[str, str], list[tuple[str, Verdict]]] = field(default_factory=lambda: defaultdict(list))
    _longest: dict[str, tuple[float, str]] = field(default_factory=lambda: defaultdict(lambda: (0.0, "")))
    _largest: dict[str, tuple[float, str]] = field(default_factory=lambda: defaultdict(lambda: (0.0, "")))

    def add(self, kind: str, name: str, verdict: Verdict) -> int:
        """Count an input; returns how many have been found in the same place, 0 where nothing was."""
        self._counts[kind, verdict.outcome] += 1
        for most, value in ((self._longest, verdict.seconds), (self._largest, verdict.peak_mb)):
            most[kind] = max(most[kind], (value, name))
        if verdict.outcome not in _TITLES:
            return 0
        group = self._found[verdict.outcome, f"{verdict.what} at {verdict.where}"]
        group.append((name, verdict))
        return len(group)

    @property
    def total(self) -> int:
        """Inputs that were used."""
        return self._counts.total()

    @property
    def has_findings(self) -> bool:
        """Whether something came that must not happen."""
        return any(outcome == "finding" for outcome, _ in self._found)

    def lines(self) -> Iterator[str]:
        """The counts and the places, for a terminal."""
        yield f"{'':10}" + "".join(f"{outcome:>20}" for outcome in OUTCOMES)
        for kind in self.kinds:
            yield f"{kind:10}" + "".join(f"{self._counts[kind, outcome]:20}" for outcome in OUTCOMES)
        yield f"{'all':10}" + "".join(f"{self._of(outcome):20}" for outcome in OUTCOMES)
        for outcome, title in _TITLES.items():
            groups = self._groups(outcome)
            yield f"\n{title}: {sum(len(group) for _, group in groups)} in {len(groups)} places"
            for place, group in groups:
                name, verdict = group[0]
                yield f"  {len(group):4} x {place}\n         first {name}: {verdict.said[:200]!r}"
        (most_mb, large), (most_s, long) = max(self._largest.values()), max(self._longest.values())
        yield f"most memory {most_mb:.0f} MB: {large}; longest {most_s:.1f} s: {long}"

    def page(self, *, command: str, machine: str, memory_mb: int, seconds: float) -> str:
        """The same in Markdown, with how it was made."""
        rows = [
            "| kind of file | files | used | refused | library crashed | finding | longest, s | most memory, MB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for kind in self.kinds:
            counts = [self._counts[kind, outcome] for outcome in OUTCOMES]
            most = f"{self._longest[kind][0]:.1f} | {self._largest[kind][0]:.0f}"
            rows.append(f"| {kind} | {sum(counts)} | {' | '.join(map(str, counts))} | {most} |")
        most_s, longest = max(self._longest.values())
        most = f"{most_s:.1f} | {max(self._largest.values())[0]:.0f}"
        rows.append(f"| all | {self.total} | {' | '.join(str(self._of(o)) for o in OUTCOMES)} | {most} |")
        places = [
            f"- {outcome}, {len(group)} times: {place}"
            for outcome in _TITLES
            for place, group in self._groups(outcome)
        ]
        return _PAGE.format(
            command=command,
            machine=machine,
            total=self.total,
            seconds=seconds,
            memory_mb=memory_mb,
            table="\n".join(rows),
            longest=f"{most_s:.1f} s: {longest}",
            places="\n" + "\n".join(places) + "\n" if places else "",
        )

    def _of(self, outcome: str) -> int:
        return sum(self._counts[kind, outcome] for kind in self.kinds)

    def _groups(self, outcome: str) -> list[tuple[str, list[tuple[str, Verdict]]]]:
        groups = [(place, group) for (found, place), group in self._found.items() if found == outcome]
        return sorted(groups, key=lambda each: -len(each[1]))
