"""Labelled pictures from the layouts in which they lie on disk.

A `read_...` function for each layout looks at everything, leaves out what is wrong, says so in findings, and
raises `DatasetError` only if nothing is left.
"""

from __future__ import annotations

from wsi_her2.learning.datasets.bci import read_bci
from wsi_her2.learning.datasets.breakhis import read_breakhis
from wsi_her2.learning.datasets.dataset import PARTS, Dataset, Example, Part, Pixels, combine
from wsi_her2.learning.datasets.findings import Finding, Reading
from wsi_her2.learning.datasets.folder import read_folder
from wsi_her2.learning.datasets.phantoms import PhantomRecipe, read_phantoms
from wsi_her2.learning.datasets.stores import read_stores
from wsi_her2.learning.datasets.truth import CaseTruth, read_truth
from wsi_her2.learning.datasets.warwick import PatchPlan, read_warwick

__all__ = [
    "PARTS",
    "CaseTruth",
    "Dataset",
    "Example",
    "Finding",
    "Part",
    "PatchPlan",
    "PhantomRecipe",
    "Pixels",
    "Reading",
    "combine",
    "read_bci",
    "read_breakhis",
    "read_folder",
    "read_phantoms",
    "read_stores",
    "read_truth",
    "read_warwick",
]
