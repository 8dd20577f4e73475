"""Digital HER2 slides whose truth is known to the cell.

A slide is asked for as a `PhantomSpec`; `render_phantom` writes it with its truth, `make_phantom` gives
regions of it without a file, and `render_patches` makes labelled patches for training. The pixels are drawn
from published ranges and by eye, not learnt from patients: agreement on them says nothing about agreement on
tissue.
"""

from __future__ import annotations

from wsi_her2.phantom.composition import PhantomError, PhantomSpec, score_of_fractions
from wsi_her2.phantom.patches import PatchBatch, iter_patches, render_patches
from wsi_her2.phantom.render import Phantom, make_phantom, render_phantom
from wsi_her2.phantom.truth import PhantomTruth

__all__ = [
    "PatchBatch",
    "Phantom",
    "PhantomError",
    "PhantomSpec",
    "PhantomTruth",
    "iter_patches",
    "make_phantom",
    "render_patches",
    "render_phantom",
    "score_of_fractions",
]
