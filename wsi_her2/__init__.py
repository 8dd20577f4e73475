"""HER2 scoring of whole-slide images: slides, classifiers, calls and reports.

Names are imported when they are first used, so that `import wsi_her2` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsi_her2.errors import HER2Error as HER2Error
    from wsi_her2.models.classifier import PatchClassifier as PatchClassifier
    from wsi_her2.models.loading import load_classifier as load_classifier
    from wsi_her2.phantom import PhantomSpec as PhantomSpec
    from wsi_her2.phantom import render_phantom as render_phantom
    from wsi_her2.scoring.call import SlideCall as SlideCall
    from wsi_her2.scoring.call import call_slide as call_slide
    from wsi_her2.slides.grid import PatchGrid as PatchGrid
    from wsi_her2.slides.grid import plan_patches as plan_patches
    from wsi_her2.slides.slide import Slide as Slide
    from wsi_her2.slides.slide import open_slide as open_slide
    from wsi_her2.slides.slide import slide_from_array as slide_from_array
    from wsi_her2.slides.stain import fit_stain as fit_stain
    from wsi_her2.slides.store import PatchStore as PatchStore
    from wsi_her2.slides.tissue import TissueMask as TissueMask
    from wsi_her2.slides.tissue import detect_tissue as detect_tissue

_HOMES = {
    "HER2Error": "wsi_her2.errors",
    "PatchClassifier": "wsi_her2.models.classifier",
    "PatchGrid": "wsi_her2.slides.grid",
    "PatchStore": "wsi_her2.slides.store",
    "PhantomSpec": "wsi_her2.phantom",
    "Slide": "wsi_her2.slides.slide",
    "SlideCall": "wsi_her2.scoring.call",
    "TissueMask": "wsi_her2.slides.tissue",
    "call_slide": "wsi_her2.scoring.call",
    "detect_tissue": "wsi_her2.slides.tissue",
    "fit_stain": "wsi_her2.slides.stain",
    "load_classifier": "wsi_her2.models.loading",
    "open_slide": "wsi_her2.slides.slide",
    "plan_patches": "wsi_her2.slides.grid",
    "render_phantom": "wsi_her2.phantom",
    "slide_from_array": "wsi_her2.slides.slide",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'wsi_her2' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
