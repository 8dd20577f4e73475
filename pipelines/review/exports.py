"""Reviews in the forms that other programs take: a table, a truth, and the drawn regions for another run."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pipelines.configuration import RunConfig
from pipelines.results import read_result
from pipelines.review.drawing import EXCLUDE, SCORE, as_geojson, parse_drawn, sorted_drawn
from pipelines.review.journal import DrawnRegions, Review
from pipelines.run.record import run_config
from pipelines.sources import REGION_SUFFIXES, folder_names, regions_named
from wsi_her2.atomic import text_beside
from wsi_her2.errors import OutputError, RegionsError
from wsi_her2.reports.slide_table import guarded
from wsi_her2.scoring.result import SlideResult
from wsi_her2.scoring.rule import SCORES, Score
from wsi_her2.slides.location import locate
from wsi_her2.slides.regions import Region, read_regions, sort_by_name

REVIEW_COLUMNS = (
    "number",
    "time",
    "slide_id",
    "reviewer",
    "verdict",
    "score",
    "called",
    "reason",
    "comment",
    "regions",
    "rescored",
    "of_current_result",
    "version",
    "model",
    "model_sha256",
    "fingerprint",
)
TRUTH_COLUMNS = ("slide_id", "her2_score", "reviewer", "time")

Target = Path | IO[str]


def write_reviews_csv(
    target: Target, reviews: Iterable[Review], fingerprints: Mapping[str, str] | None = None
) -> None:
    """Write all reviews as a table, in their order.

    Texts that a spreadsheet would take for a formula are guarded as in `slides.csv`.

    Parameters
    ----------
    target : pathlib.Path or text stream
    reviews : iterable of Review
    fingerprints : mapping of str to str, optional
        Of the slides' results as they are now, so that reviews of earlier ones are told.
    """
    now = fingerprints or {}
    with _stream(target) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(REVIEW_COLUMNS)
        for review in reviews:
            current = review.is_of(now[review.slide_id]) if review.slide_id in now else None
            cells = review.model_dump() | {"of_current_result": current}
            writer.writerow(_cell(cells[column]) for column in REVIEW_COLUMNS)


@dataclass(frozen=True)
class Signed:
    """The score that was signed for a slide.

    Attributes
    ----------
    score : {'0', '1+', '2+', '3+'}
    reviewers : tuple of str
        Who gave it.
    time : str
        When it was given last.
    fingerprints : frozenset of str
        Of the results that they looked at.
    """

    score: Score
    reviewers: tuple[str, ...]
    time: str
    fingerprints: frozenset[str]


@dataclass(frozen=True)
class SignedScores:
    """Scores by slide, and slides that were reviewed and have none.

    Attributes
    ----------
    scores : dict of str to Signed
    unsure : list of str
        Slides whose reviewer is unsure.
    without_score : list of str
        Slides for which no score follows: a refusal was agreed with, or a group.
    divided : list of str
        Slides of whose reviewers no more than half gave the same score.
    """

    scores: dict[str, Signed] = field(default_factory=dict)
    unsure: list[str] = field(default_factory=list)
    without_score: list[str] = field(default_factory=list)
    divided: list[str] = field(default_factory=list)


def signed_scores(reviews: Iterable[Review], *, consensus: bool = False) -> SignedScores:
    """What the reviewers say of each slide.

    Parameters
    ----------
    reviews : iterable of Review
        Oldest first.
    consensus : bool
        Of each reviewer the newest review of a slide counts, and a score must be that of more than half of them,
        those who are unsure among them. Otherwise the newest review of a slide decides, whoever signed it.
    """
    newest: dict[str, dict[str, Review]] = {}
    for review in reviews:
        newest.setdefault(review.slide_id, {})[_who(review.reviewer) if consensus else ""] = review
    found = SignedScores()
    for slide_id in sorted(newest):
        votes = list(newest[slide_id].values())
        for score in SCORES:
            giving = [review for review in votes if review.score == score]
            if 2 * len(giving) > len(votes):
                found.scores[slide_id] = Signed(
                    score,
                    tuple(review.reviewer for review in giving),
                    max(giving, key=lambda review: review.number).time,
                    frozenset(review.fingerprint for review in giving),
                )
        if slide_id not in found.scores:
            undecided = [review for review in votes if review.score is None]
            if len(undecided) < len(votes):
                found.divided.append(slide_id)
            elif any(review.verdict == "unsure" for review in undecided):
                found.unsure.append(slide_id)
            else:
                found.without_score.append(slide_id)
    return found


def reviews_by(reviews: Iterable[Review], reviewer: str) -> list[Review]:
    """Those of one reviewer; capitals make no difference."""
    return [review for review in reviews if _who(review.reviewer) == _who(reviewer)]


def write_truth(
    target: Target, reviews: Iterable[Review], *, reviewer: str | None = None, consensus: bool = False
) -> SignedScores:
    """Write the signed scores as a truth that `evaluate` and `calibrate` take.

    Parameters
    ----------
    target : pathlib.Path or text stream
    reviews : iterable of Review
        Oldest first.
    reviewer : str, optional
        Only whose reviews count.
    consensus : bool
        See `signed_scores`.

    Returns
    -------
    SignedScores
        What was written, and which slides were left out.
    """
    counted = reviews if reviewer is None else reviews_by(reviews, reviewer)
    signed = signed_scores(counted, consensus=consensus)
    with _stream(target) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(TRUTH_COLUMNS)
        for slide_id, of_slide in signed.scores.items():
            cells = (slide_id, of_slide.score, "; ".join(of_slide.reviewers), of_slide.time)
            writer.writerow(map(_cell, cells))
    return signed


@dataclass(frozen=True)
class WrittenRegions:
    """Files of regions, and the slides that have none although somebody drew on them.

    Attributes
    ----------
    paths : tuple of str
        Of the slides, as the run knows them.
    left_out : dict of str to str
        Why, by slide.
    """

    paths: tuple[str, ...]
    left_out: dict[str, str]


def write_regions(folder: Path, output: Path, drawings: Iterable[DrawnRegions]) -> WrittenRegions:
    """Write the regions in force as a folder of GeoJSON files for `score --roi`, named like their slides.

    Where the run was itself restricted by annotated regions, these go on to hold: what they exclude stays
    excluded, and what they include is the restriction unless other regions were drawn to be scored.

    Parameters
    ----------
    folder : pathlib.Path
        Of the run.
    output : pathlib.Path
        Folder to write; made if needed.
    drawings : iterable of DrawnRegions
        Oldest first; the newest of each slide counts.

    Raises
    ------
    OutputError
        The folder holds other regions, which `--roi` would take as well.
    OSError
        The files cannot be written.
    """
    newest = {drawn.slide_id: drawn for drawn in drawings}
    config, known = run_config(folder), set(folder_names(folder))
    left_out: dict[str, str] = {}
    named: dict[str, list[tuple[str, SlideResult, list[Region]]]] = {}
    for slide_id, drawn in sorted(newest.items()):
        try:
            if not (regions := parse_drawn(drawn.regions)):
                continue
            result = read_result(folder / slide_id) if slide_id in known else None
            if result is None:
                raise RegionsError("the run has no result of it any more")
            name = f"{locate(result.path).name}.geojson"
            named.setdefault(name, []).append((slide_id, result, _with_earlier(regions, result, config)))
        except RegionsError as error:
            left_out[slide_id] = str(error)
    for name, slides in named.items():
        if len(slides) > 1:
            left_out |= dict.fromkeys((slide[0] for slide in slides), f"several slides would have the file {name}")
    files = {name: slides[0] for name, slides in named.items() if len(slides) == 1}
    if not files:
        return WrittenRegions((), left_out)
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(output.iterdir()):
        if path.suffix.lower() in REGION_SUFFIXES and path.name not in files:
            raise OutputError(
                f"{output}: holds {path.name}, which `--roi {output}` would take as well. Choose a new folder."
            )
    for name, (_, _, regions_of_slide) in files.items():
        with text_beside(output / name) as stream:
            json.dump(as_geojson(regions_of_slide, _names_for(config)), stream)
            stream.write("\n")
    return WrittenRegions(tuple(result.path for _, result, _ in files.values()), left_out)


def _with_earlier(drawn: Sequence[Region], result: SlideResult, config: RunConfig) -> list[Region]:
    """Drawn regions together with those that restricted the run, all under the names of drawn ones."""
    if result.regions is None:
        return list(drawn)
    file = regions_named(config.regions.files, result.regions.file)
    if file is None:
        raise RegionsError(f"it was scored within {result.regions.file}, which is no longer where it was")
    included, excluded, _ = sort_by_name(read_regions(file), config.regions.names)
    earlier = [Region(EXCLUDE, region.rings) for region in excluded]
    if not sorted_drawn(drawn)[0]:
        earlier += [Region(SCORE, region.rings) for region in included]
    return [*drawn, *earlier]


def _names_for(config: RunConfig) -> dict[str, str]:
    """Names by which a run with the same settings knows what is to be scored and what is not to count."""
    include, exclude = config.regions.include, config.regions.exclude
    return {
        SCORE: "roi" if "roi" in include or not include else include[0],
        EXCLUDE: "ignore" if "ignore" in exclude or not exclude else exclude[0],
    }


def _who(reviewer: str) -> str:
    return " ".join(reviewer.split()).casefold()


def _cell(value: str | int | bool | None) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else guarded(str(value))


@contextmanager
def _stream(target: Target) -> Iterator[IO[str]]:
    with text_beside(target) if isinstance(target, Path) else nullcontext(target) as stream:
        yield stream
