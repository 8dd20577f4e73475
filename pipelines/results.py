"""Reading and writing `result.json`, and putting a slide's finished folder in its place."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.sources import PARTIAL_FOLDER, RESULT_FILE, folder_names, read_result_file
from wsi_her2.atomic import append_rows, text_beside
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.reports.reading_ahead import read_ahead
from wsi_her2.scoring.result import SlideResult

_log = logging.getLogger(__name__)

STORE = "patches.zarr"
"""Of the patches, in a slide's folder."""

_ADAPTER: TypeAdapter[SlideResult] = TypeAdapter(SlideResult)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON beside the target, then rename it into place."""
    with text_beside(path) as stream:
        stream.write(json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_result(folder: Path, result: SlideResult) -> None:
    """Write `result.json` into a folder."""
    write_json(folder / RESULT_FILE, _ADAPTER.dump_python(result, mode="json"))


def read_result(folder: Path) -> SlideResult | None:
    """`result.json` of a folder; None where there is none or it is not a result of this version's form."""
    content = read_result_file(folder)
    return None if content is None else _parsed(content)


def read_results(output: Path) -> Iterator[SlideResult]:
    """All results in an output folder, by the names of their folders, one at a time.

    A `result.json` that cannot be read is passed over, and a warning says how many there were.
    """
    strange = []
    names = folder_names(output)
    for name, content in zip(names, read_ahead(read_result_file, (output / name for name in names)), strict=True):
        result = None if content is None else _parsed(content)
        if result is not None:
            yield result
        elif content is not None:
            strange.append(name)
    if strange:
        _log.warning(
            "%s: %d of the folders hold a %s that is damaged or of another version, %s for one: they are left out "
            "until their slides are scored again",
            output,
            len(strange),
            RESULT_FILE,
            strange[0],
        )


def no_results(output: Path) -> ConfigurationError:
    """The error of a folder in which no slide has a result."""
    return ConfigurationError(f"{output}: no results here; give the folder that `wsi-her2 score -o` wrote")


def partial_folder(output: Path, slide_id: str) -> Path:
    """Where the results of a slide grow until they are complete."""
    return output / PARTIAL_FOLDER / slide_id


def publish(output: Path, slide_id: str) -> Path:
    """Move a slide's complete folder into place, by rename; an older one gives way.

    Returns
    -------
    pathlib.Path
        The folder in its place.
    """
    partial, final = partial_folder(output, slide_id), output / slide_id
    old = output / PARTIAL_FOLDER / f"{slide_id}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    return final


def add_rows(path: Path, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Add rows to a table of a run; the caller holds the tables.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    try:
        append_rows(path, columns, rows)
    except OSError as error:
        raise cannot_write(path.parent, error) from error


def cannot_write(output: Path, error: OSError) -> OutputError:
    """The error of a run whose tables cannot be written."""
    return OutputError(
        f"{output}: the results cannot be written ({error.strerror or error}). Finished slides are kept: free "
        "space, then run the same command again."
    )


def _parsed(content: bytes) -> SlideResult | None:
    try:
        return _ADAPTER.validate_json(content)
    except ValidationError:
        pass
    try:
        # A file name that is not valid Unicode, which POSIX allows, is beyond pydantic's reader of JSON.
        return _ADAPTER.validate_python(json.loads(content))
    except ValueError:
        return None
