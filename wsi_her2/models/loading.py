"""Classifiers by name or by file."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from wsi_her2.errors import ClassifierError
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.membrane.scorer import membrane_scorer

MEMBRANE = "membrane"
"""Name of the bundled membrane scorer, the default classifier for IHC."""


def load_classifier(
    name_or_path: str | Path = MEMBRANE, runtime: str = "auto", precision: str = "fp32"
) -> PatchClassifier:
    """Load a classifier.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        'membrane', or a JSON file of the same form as the bundled coefficients.
    runtime : str
        What computes a network. The membrane scorer is no network and takes 'auto' only.
    precision : str
        Of a network's numbers. The membrane scorer takes 'fp32' only.

    Raises
    ------
    ClassifierError
        There is no such classifier, its file is wrong, or it does not run as asked.
    """
    if (runtime, precision) != ("auto", "fp32"):
        raise ClassifierError(
            f"{name_or_path}: the membrane scorer is no network: it takes runtime 'auto' and precision 'fp32', "
            f"not {runtime!r} and {precision!r}"
        )

    if str(name_or_path) == MEMBRANE:
        content = (resources.files("wsi_her2.models.membrane") / "coefficients.json").read_bytes()
        return membrane_scorer(content, source=f"the bundled classifier {MEMBRANE!r}")
    path = Path(name_or_path)
    if not path.is_file():
        raise ClassifierError(
            f"{name_or_path}: neither the name of a bundled classifier ({MEMBRANE}) nor a file. "
            "`wsi-her2 models list` shows what there is."
        )
    if path.suffix.lower() != ".json":
        raise ClassifierError(
            f"{path}: a classifier is a JSON file of membrane coefficients; {path.suffix or 'this'} is not read"
        )
    return membrane_scorer(path.read_bytes(), source=str(path))
