"""A script that loads a whole run into a QuPath project."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from pipelines.results import no_results, read_results
from wsi_her2.atomic import text_beside
from wsi_her2.reports.palette import Colour
from wsi_her2.reports.qupath_classes import Names, class_colours
from wsi_her2.reports.wording import group_in_words
from wsi_her2.scoring.result import SlideResult

SCRIPT = "load_run.groovy"

_MOST_LITERALS = 1000
"""Java takes 64 KiB of code for a method and of text for a literal; a run of 100,000 slides stays below both."""

_IMAGE_TYPES = {"ihc": "BRIGHTFIELD_H_DAB", "he": "BRIGHTFIELD_H_E"}

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def write_qupath_script(run: Path, folder: Path) -> tuple[Path, int]:
    """Write the script.

    Parameters
    ----------
    run : pathlib.Path
        Output folder of `score`.
    folder : pathlib.Path
        Where the script is written.

    Returns
    -------
    tuple of pathlib.Path and int
        The script, and how many slides it knows.

    Raises
    ------
    ConfigurationError
        The run has no results.
    """
    slides, colours = [], class_colours(())
    for result in read_results(run):
        slides.append(_row(result))
        colours.update(class_colours(result.model.classes))
    if not slides:
        raise no_results(run)
    folder.mkdir(parents=True, exist_ok=True)
    filled = _template()
    for place, text in (
        ("@RUN@", groovy_string(str(run.resolve()))),
        ("@TABLE@", _literals(slides)),
        ("@CLASSES@", _class_literals(colours)),
    ):
        # Split and joined, so that a name that looks like a place is none.
        before, after = filled.split(place)
        filled = before + text + after
    with text_beside(folder / SCRIPT) as stream:
        stream.write(filled)
    return folder / SCRIPT, len(slides)


def groovy_string(text: str) -> str:
    """A literal of Groovy that is this text and nothing else.

    In single quotes nothing is filled in. What is not ASCII is escaped, so that the encoding in which the script
    is read makes no difference; quotes and ends of lines have escapes of their own, because those by number may be
    read before the literal is.
    """
    return "'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if " " <= character <= "~":
        return character
    # UTF-16, as Java has it: what lies beyond 16 bits takes two.
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[place]:02x}{units[place + 1]:02x}" for place in range(0, len(units), 2))


def _row(result: SlideResult) -> dict[str, Any]:
    call = result.call
    kept = {"HER2 status": result.status.replace("_", " "), "HER2 software": f"wsi-her2 {result.version}"}
    if call is None:
        kept["HER2 reason"] = result.reason
        said = f"{kept['HER2 status']}: {result.reason}"
    else:
        kept["HER2 score"] = call.score or call.group
        kept["HER2 group"] = group_in_words(call)
        kept["HER2 confidence"] = f"{call.confidence:.3f}"
        kept["HER2 calibration"] = result.calibration
        if call.h_score is not None:
            kept["HER2 H-score"] = f"{call.h_score:.0f}"
        said = f"{call.score or call.group} ({kept['HER2 group']})"
    kept["HER2 note"] = "research use only"
    return {
        "slide_id": result.slide_id,
        "path": result.path,
        # Of a slide that was refused it is not known, be it because it is of another stain.
        "image_type": _IMAGE_TYPES.get(result.modality, "") if call is not None else "",
        "said": said,
        "call": kept,
    }


def _literals(rows: list[dict[str, Any]]) -> str:
    """Rows as JSON arrays in string literals: as data, whatever stands in them."""
    each = max(1, math.ceil(len(rows) / _MOST_LITERALS))
    parts = (rows[start : start + each] for start in range(0, len(rows), each))
    return ",\n".join(f"    {groovy_string(_json(part))}" for part in parts)


def _class_literals(colours: dict[Names, Colour]) -> str:
    return ",\n".join(_indented(groovy_string(_json([names, colour])) for names, colour in colours.items()))


def _indented(lines: Iterable[str]) -> Iterable[str]:
    return (f"    {line}" for line in lines)


def _json(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


def _template() -> str:
    return (
        (resources.files("pipelines.exports") / "templates" / SCRIPT)
        .read_text(encoding="utf-8")
        .replace("\r\n", "\n")
    )
