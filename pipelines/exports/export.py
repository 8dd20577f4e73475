"""`export`: what a run holds, in the forms that other programs take.

A kind of export is a function of the run's folder, of the place to write and of the options; `EXPORTS` names them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from wsi_her2.errors import ConfigurationError, HER2Error, OutputError

if TYPE_CHECKING:
    from pipelines.review.journal import Review


@dataclass(frozen=True)
class ExportOptions:
    """What narrows an export; each kind takes what it knows of.

    Attributes
    ----------
    reviewer : str or None
        Only reviews of this reviewer.
    consensus : bool
        Only scores that more than half of a slide's reviewers gave.
    probabilities : bool
        Beside a map of classes one of their probabilities.
    """

    reviewer: str | None = None
    consensus: bool = False
    probabilities: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : pathlib.Path
        A file, or a folder of files.
    written : str
        How much of what, for people.
    notes : tuple of str
        What is not in it and why, what to mind.
    then : str
        The command that takes it.
    """

    path: Path
    written: str
    notes: tuple[str, ...] = ()
    then: str = ""


Export = Callable[[Path, Path, ExportOptions], Exported]


def export(folder: Path, what: str, output: Path, options: ExportOptions | None = None) -> Exported:
    """Write what a run holds in another form.

    Parameters
    ----------
    folder : pathlib.Path
        Output folder of `score`.
    what : str
        A key of `EXPORTS`.
    output : pathlib.Path
        File or folder to write; files that are there are replaced.
    options : ExportOptions, optional

    Raises
    ------
    ConfigurationError
        There is no such folder, or no such kind of export.
    HER2Error
        What the kind of export says.
    OutputError
        The files cannot be written.
    """
    if what not in EXPORTS:
        raise ConfigurationError(f"{what!r} is nothing that can be exported; there are {', '.join(EXPORTS)}")
    if not folder.is_dir():
        raise ConfigurationError(f"{folder}: no such folder. Name the output folder of `score`.")
    try:
        return EXPORTS[what](folder, output, options or ExportOptions())
    except HER2Error:
        raise
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error.strerror or error})") from error


def _reviews(folder: Path, output: Path, options: ExportOptions) -> Exported:
    """Every review, oldest first."""
    from pipelines.review.exports import write_reviews_csv

    reviews = _signed_by(folder, options)
    _make_room(output)
    write_reviews_csv(output, reviews, _fingerprints(folder, reviews))
    return Exported(output, _counted(len(reviews), "review"))


def _truth(folder: Path, output: Path, options: ExportOptions) -> Exported:
    """The score that was signed for each slide, as `evaluate` and `calibrate` take it."""
    from pipelines.review.exports import signed_scores, write_truth

    reviews = _signed_by(folder, options)
    signed = signed_scores(reviews, consensus=options.consensus)
    if not signed.scores:
        raise ConfigurationError(f"{folder}: no review says of a slide which score is right")
    _make_room(output)
    write_truth(output, reviews, consensus=options.consensus)
    now = _fingerprints(folder, reviews)
    earlier = [slide for slide, of in signed.scores.items() if slide in now and now[slide] not in of.fingerprints]
    notes = [
        f"{why}: {', '.join(slides)}"
        for why, slides in (
            ("left out, because it was signed as unsure", signed.unsure),
            ("left out, because what was agreed with is no score", signed.without_score),
            ("left out, because no score is that of more than half of the reviewers", signed.divided),
            ("kept, though it was signed on an earlier result of the slide", earlier),
        )
        if slides
    ]
    notes.append(
        "the reviewers saw the software's call, so that agreement with this truth is higher than with one that "
        "was read blind"
    )
    return Exported(output, f"signed scores of {_counted(len(signed.scores), 'slide')}", tuple(notes))


def _regions(folder: Path, output: Path, options: ExportOptions) -> Exported:
    """The regions in force as GeoJSON for `score --roi`, a file for each slide."""
    from pipelines.review.exports import write_regions
    from pipelines.review.journal import JOURNAL_FILE, Journal

    drawings = Journal(folder / JOURNAL_FILE).drawings()
    if options.reviewer is not None:
        drawings = [drawn for drawn in drawings if drawn.reviewer.casefold() == options.reviewer.casefold()]
    written = write_regions(folder, output, drawings)
    left_out = tuple(f"{slide} is left out: {why}" for slide, why in written.left_out.items())
    if not written.paths:
        raise ConfigurationError(
            f"{folder}: " + ("; ".join(left_out) or "nobody has drawn regions" + _by(options.reviewer))
        )
    slides = " ".join(shlex.quote(path) for path in written.paths)
    return Exported(
        output,
        f"regions of {_counted(len(written.paths), 'slide')}",
        (*left_out, "only these slides have regions; score them with the options of the run (argv in run.json)"),
        f"wsi-her2 score {slides} --roi {shlex.quote(str(output))} -o NEW_FOLDER",
    )


def _signed_by(folder: Path, options: ExportOptions) -> list[Review]:
    """The reviews of a run, or of one reviewer of it."""
    from pipelines.review.exports import reviews_by
    from pipelines.review.journal import JOURNAL_FILE, Journal

    reviews = Journal(folder / JOURNAL_FILE).reviews()
    if options.reviewer is not None:
        by, everyone = reviews_by(reviews, options.reviewer), sorted({review.reviewer for review in reviews})
        if not by and everyone:
            raise ConfigurationError(
                f"{folder}: no reviews{_by(options.reviewer)}; there are some by {', '.join(everyone)}"
            )
        reviews = by
    if not reviews:
        raise ConfigurationError(
            f"{folder}: no reviews yet. `wsi-her2 view {folder}` opens the pages to sign them."
        )
    return reviews


def _fingerprints(folder: Path, reviews: Sequence[Review]) -> dict[str, str]:
    """Of the results as they are now, of the slides that were reviewed."""
    from pipelines.results import read_result
    from pipelines.sources import folder_names

    known = set(folder_names(folder))
    slides = {review.slide_id for review in reviews} & known
    found = {slide: read_result(folder / slide) for slide in sorted(slides)}
    return {slide: result.fingerprint for slide, result in found.items() if result is not None}


def _by(reviewer: str | None) -> str:
    return "" if reviewer is None else f" by {reviewer}"


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _make_room(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)


def _pdf(folder: Path, output: Path, _options: ExportOptions) -> Exported:
    """A PDF report for each slide."""
    from pipelines.exports.slide_exports import write_pdfs

    count, without = write_pdfs(folder, output)
    return Exported(output, _counted(count, "report"), _left_out("their patches are gone or damaged", without))


def _ome_tiff(folder: Path, output: Path, options: ExportOptions) -> Exported:
    """Maps of the classes as pyramidal OME-TIFF."""
    from pipelines.exports.slide_exports import write_ome_tiffs

    count, without = write_ome_tiffs(folder, output, probabilities=options.probabilities)
    return Exported(
        output, f"maps of {_counted(count, 'slide')}", _left_out("nothing of them was scored", without)
    )


def _qupath(folder: Path, output: Path, _options: ExportOptions) -> Exported:
    """A script that loads the run into a QuPath project."""
    from pipelines.exports.qupath_project import write_qupath_script

    script, count = write_qupath_script(folder, output)
    return Exported(script, f"QuPath script for {_counted(count, 'slide')}")


def _spatialdata(folder: Path, output: Path, _options: ExportOptions) -> Exported:
    """A SpatialData store for each slide."""
    from pipelines.exports.spatial_data import write_spatial_data

    count, without = write_spatial_data(folder, output)
    return Exported(
        output,
        f"patches and cells of {_counted(count, 'slide')}",
        _left_out("nothing of them was scored", without),
    )


def _left_out(why: str, slides: Sequence[str]) -> tuple[str, ...]:
    return (f"left out, because {why}: {', '.join(slides)}",) if slides else ()


EXPORTS: Mapping[str, Export] = MappingProxyType(
    {
        "reviews": _reviews,
        "truth": _truth,
        "regions": _regions,
        "pdf": _pdf,
        "ome-tiff": _ome_tiff,
        "qupath": _qupath,
        "spatialdata": _spatialdata,
    }
)
"""The kinds of export by name. Each imports what it needs when it is called."""
