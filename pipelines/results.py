"""Reading and writing `result.json`, and putting a slide's finished folder in its place."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pipelines.sources import PARTIAL_FOLDER, RESULT_FILE
from wsi_her2.errors import OutputError
from wsi_her2.reports.atomic import text_beside
from wsi_her2.scoring.result import SlideResult

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
    try:
        return _ADAPTER.validate_json((folder / RESULT_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def read_results(output: Path) -> list[SlideResult]:
    """All results in an output folder, by slide identifier."""
    folders = sorted(file.parent for file in output.glob(f"*/{RESULT_FILE}"))
    return [result for folder in folders if (result := read_result(folder)) is not None]


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


def cannot_write(output: Path, error: OSError) -> OutputError:
    """The error of a run whose tables cannot be written."""
    return OutputError(
        f"{output}: the results cannot be written ({error.strerror or error}). Finished slides are kept: free "
        "space, then run the same command again."
    )
