"""Optional packages, imported when they are first needed."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from wsi_her2.errors import MissingExtra
from wsi_her2.models.telemetry import forbid_telemetry

EXTRA_OF = {
    "torch": "torch",
    "timm": "torch",
    "h5py": "torch",
    "onnx": "torch",
    "onnxscript": "torch",
    "openvino": "openvino",
    "starlette": "view",
    "uvicorn": "view",
    "reportlab": "pdf",
}
"""The extra of this package that brings each optional package."""


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    return find_spec(package) is not None


def need(package: str, purpose: str) -> Any:
    """Import an optional package.

    Parameters
    ----------
    package : str
        One of `EXTRA_OF`.
    purpose : str
        What it is needed for, to begin a sentence.

    Raises
    ------
    MissingExtra
        It is not installed, or it does not import.
    """
    forbid_telemetry()
    try:
        return import_module(package)
    except ImportError as error:
        raise MissingExtra(
            f"{purpose} needs {package} ({error}): pip install 'wsi-her2[{EXTRA_OF[package]}]'"
        ) from error
