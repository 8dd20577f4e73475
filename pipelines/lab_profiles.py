"""Where laboratory profiles lie, and which of them a run may use."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from pipelines.configuration import RunConfig
from wsi_her2.errors import ConfigurationError, LabProfileError
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.slides.lab_profile import read_profile

FOLDER_VARIABLE = "WSI_HER2_LABS"
"""Environment variable that names another folder of profiles, such as one that a department shares."""


def profiles_folder() -> Path:
    """Folder of the profiles that have a name."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named) if named else Path(typer.get_app_dir("wsi-her2")) / "labs"


def profile_path(name_or_path: str) -> Path:
    """File of a profile: the path as it stands, or the name in the folder of profiles.

    Raises
    ------
    ConfigurationError
        There is neither.
    """
    path = Path(name_or_path)
    if path.is_file():
        return path
    folder = profiles_folder()
    kept = folder / f"{name_or_path}.json"
    if path.name == name_or_path and kept.is_file():
        return kept
    names = ", ".join(sorted(file.stem for file in folder.glob("*.json"))) or "none"
    raise ConfigurationError(
        f"{name_or_path}: neither a file nor the name of a laboratory profile in {folder} ({names}). Make one "
        "with `wsi-her2 calibrate`."
    )


def find_profile(config: RunConfig, classifier: PatchClassifier) -> tuple[Path | None, str | None]:
    """The file of the profile that a run asks for, and its sha256.

    Raises
    ------
    ConfigurationError, LabProfileError
        There is none, it is damaged, or it was fitted for another classifier or stain.
    """
    if config.lab is None:
        return None, None
    if config.modality != "ihc":
        raise ConfigurationError("a laboratory profile is about DAB: it is for --modality ihc only")
    path = profile_path(config.lab)
    profile, sha256 = read_profile(path)
    if profile.classifier_sha256 != classifier.sha256:
        raise LabProfileError(
            f"{path}: was fitted for the classifier {profile.classifier!r} ({profile.classifier_sha256[:12]}), "
            f"the run uses {classifier.name!r} ({classifier.sha256[:12]}): calibrate again with --model"
        )
    return path.resolve(), sha256
