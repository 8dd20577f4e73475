"""What a result depends on, in one hash: equal fingerprints give equal results, so they can be reused."""

from __future__ import annotations

import hashlib
import json
from importlib import metadata
from pathlib import Path

from pipelines.configuration import RunConfig
from wsi_her2.slides.location import SlideLocation, SlideUrl
from wsi_her2.slides.remote import state_of
from wsi_her2.slides.store import LAYOUT


def software_version() -> str:
    """Version of the installed package; 'unknown' when run from a folder that was never installed."""
    try:
        return metadata.version("wsi-her2")
    except metadata.PackageNotFoundError:
        return "unknown"


def slide_fingerprint(
    path: SlideLocation,
    config: RunConfig,
    classifier_sha256: str,
    runtime: str,
    *,
    regions: Path | None = None,
    lab_sha256: str | None = None,
) -> str:
    """Fingerprint of a slide under a configuration, a classifier and this version.

    Parameters
    ----------
    path : pathlib.Path or SlideUrl
        Its name, size and time of last change stand for its content: hashing gigabytes would cost more than
        scoring them. Of a URL instead of the time what the server says of the version, which may be nothing.
    config : RunConfig
        Without `compute`, which changes how fast but not what, and without the model's path and the runtime that
        was asked for, in whose place stand the two others.
    classifier_sha256 : str
    runtime : str
        The one that computes: two runtimes round differently.
    regions : pathlib.Path, optional
        Annotations of the slide; their content counts, not their name.
    lab_sha256 : str, optional
        Of the laboratory's profile.

    Returns
    -------
    str
        Hexadecimal sha256.

    Raises
    ------
    FileNotFoundError
    SlideError, MissingExtra
        The URL cannot be asked; see `wsi_her2.slides.remote.state_of`.
    """
    described = {
        "slide": [path.name, *_size_and_version(path)],
        "config": config.model_dump(
            mode="json",
            exclude={"compute": True, "model": True, "runtime": True, "lab": True, "regions": {"files"}},
        ),
        "lab": lab_sha256,
        "regions": None if regions is None else hashlib.sha256(regions.read_bytes()).hexdigest(),
        "classifier": classifier_sha256,
        "runtime": runtime,
        "software": software_version(),
        "layout": LAYOUT,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _size_and_version(path: SlideLocation) -> tuple[int | None, int | str | None]:
    if isinstance(path, SlideUrl):
        state = state_of(path)
        return state.size, state.version
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
