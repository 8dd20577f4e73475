"""`report`: make a run's pictures and pages again from what its stores keep, without the slides."""

from __future__ import annotations

from pathlib import Path

from pipelines.record import PAGE_FILE, write_summaries
from pipelines.results import read_results
from pipelines.slide_files import write_views
from pipelines.steps import STORE
from wsi_her2.errors import ConfigurationError, OutputError
from wsi_her2.slides.store import PatchStore


def rebuild_reports(output: Path) -> tuple[Path, int]:
    """Rebuild the reports of a run.

    Returns
    -------
    tuple of pathlib.Path and int
        The page of the run, and how many slides it lists.

    Raises
    ------
    ConfigurationError
        The folder holds no results.
    OutputError
        They cannot be written.
    """
    results = read_results(output)
    if not results:
        raise ConfigurationError(f"{output}: no results here; give the folder that `wsi-her2 score -o` wrote")
    try:
        for result in results:
            folder = output / result.slide_id
            if (folder / STORE).is_dir():
                write_views(folder, result, PatchStore.open(folder / STORE))
        write_summaries(output)
    except OSError as error:
        raise OutputError(f"{output}: the reports cannot be written ({error})") from error
    return output / PAGE_FILE, len(results)
