"""`models cards`: what is known of each classifier, as one page that people can read."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from pipelines.models import describe_model, list_models
from wsi_her2.atomic import text_beside
from wsi_her2.cells.grading import load_grader
from wsi_her2.errors import OutputError

_WORDS = {
    "modality": "stain",
    "classes": "classes, in the order of its outputs",
    "patch_px": "side of a patch, pixels",
    "mpp": "scale, um/px",
    "architecture": "network",
    "preprocessing": "done to pixels before the network",
    "parameters": "parameters, as Keras counts them",
    "multiply_adds": "multiply-adds for a patch",
    "trained_on": "trained on",
    "training": "training",
    "origin": "where it is from",
    "checked_on": "checked on",
    "held_out": "measured on patches that were held out",
    "confusion": "share of true 0, 1+, 2+ and 3+ (rows) that are found as 0, 1+, 2+ and 3+",
    "on_digital_slides": "measured on digital slides",
    "on_real_cores": "measured on real tissue",
    "fp32_agreement": "its graph in fp32",
    "int8_agreement": "its graph in int8",
    "fp32_bytes": "size of the graph in fp32, bytes",
    "int8_bytes": "size of the graph in int8, bytes",
    "version": "made by version",
    "sha256": "sha256",
}
"""What a key of a card is called; keys that are not here stand under their own name."""

_STAINS = {"ihc": "HER2 immunohistochemistry (DAB and hematoxylin)", "he": "hematoxylin and eosin"}


def write_model_cards(path: Path, folder: Path | None = None) -> int:
    """Write the cards of the bundled classifiers, the network for cells and the bundles in a folder, in Markdown.

    Parameters
    ----------
    path : pathlib.Path
        File to write.
    folder : pathlib.Path, optional
        With further bundles.

    Returns
    -------
    int
        How many cards were written.

    Raises
    ------
    ClassifierError
        There is no such folder, or it holds a bundle that is damaged.
    OutputError
        The page cannot be written.
    """
    names = [row["name"] for row in list_models(folder)]
    command = "wsi-her2 models cards " + ("FOLDER " if folder else "") + f"-o {path.as_posix()}"
    parts = [
        "# Model cards",
        f"Written by `{command}` from what the classifiers say of themselves. **Research use only.** "
        "A classifier calls slides of the stain and the scale that it is for, and of nothing else; "
        "no card is a validation.",
        *(_card(describe_model(name)) for name in names),
        _card({"name": "cells", "modality": "ihc"} | dict(load_grader().card)),
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with text_beside(path) as page:
            page.write("\n\n".join(parts) + "\n")
    except OSError as error:
        raise OutputError(f"{path}: the cards cannot be written ({error.strerror or error})") from error
    return len(names) + 1


def _card(described: dict[str, Any]) -> str:
    known = dict(described)
    name, validated = known.pop("name"), known.pop("validated", False)
    known["modality"] = _STAINS.get(known["modality"], known["modality"])
    keys = [key for key in _WORDS if key in known] + [key for key in known if key not in _WORDS]
    rows = [f"| {_cell(_WORDS.get(key, key))} | {_cell(_in_words(known[key]))} |" for key in keys]
    said = "Its card says that it was validated." if validated else "It was not validated."
    return "\n".join([f"## {_cell(name)}", "", said, "", "| | |", "|---|---|", *rows])


def _in_words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _cell(text: object) -> str:
    """Text of a card as text of a table: a bundle may come from anywhere, and pages may hold HTML."""
    one_line = " ".join(str(text).split())
    escaped = html.escape(one_line, quote=False)
    return "".join(f"\\{character}" if character in "|[]`*_\\" else character for character in escaped)
