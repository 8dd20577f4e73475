"""Classifiers by name or by file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import cast, get_args

from wsi_her2.bounded_file import read_bounded
from wsi_her2.errors import ClassifierError
from wsi_her2.models.augmentation import AUGMENTATIONS, Augmentation
from wsi_her2.models.bundle import Precision, bundle_file, read_bundle
from wsi_her2.models.classifier import PatchClassifier
from wsi_her2.models.membrane.scorer import MembraneScorer, membrane_scorer
from wsi_her2.models.network_classifier import NetworkClassifier
from wsi_her2.models.runtimes.choice import open_session

MEMBRANE = "membrane"
"""Name of the bundled membrane scorer, the default classifier for IHC."""

_BUNDLES = "bundles"

_MAX_COEFFICIENTS_BYTES = 1_000_000
"""Of a JSON file of a membrane scorer; the bundled one has some 5 kB."""


def bundled_bundles() -> dict[str, Path]:
    """Networks that come with the package, by name."""
    folder = Path(str(resources.files("wsi_her2.models"))) / _BUNDLES
    return {path.name: path for path in sorted(folder.glob("*")) if bundle_file(path) is not None}


def bundle_path(name_or_path: str | Path) -> Path | None:
    """Where the bundle of a name or a path lies; None where it is no bundle's."""
    if str(name_or_path) == MEMBRANE:
        return None
    path = Path(name_or_path)
    if path.is_dir() or bundle_file(path) is not None:
        return path
    return bundled_bundles().get(str(name_or_path))


@dataclass(frozen=True)
class ClassifierChoice:
    """Which classifier, and how it is to run.

    Attributes
    ----------
    name_or_path : str
    runtime : str
    precision : {'fp32', 'int8'}
    augmentation : {'none', 'flips', 'turns'}
    """

    name_or_path: str = MEMBRANE
    runtime: str = "auto"
    precision: Precision = "fp32"
    augmentation: Augmentation = "none"

    def load(self) -> PatchClassifier:
        """The classifier; see `load_classifier`."""
        return load_classifier(self.name_or_path, self.runtime, self.precision, self.augmentation)


def load_classifier(
    name_or_path: str | Path = MEMBRANE,
    runtime: str = "auto",
    precision: str = "fp32",
    augmentation: str = "none",
) -> PatchClassifier:
    """Load a classifier.

    Parameters
    ----------
    name_or_path : str or pathlib.Path
        'membrane' or the name of a bundled network, a JSON file of the same form as the bundled coefficients, or a
        model bundle: its folder, or the safetensors file in it.
    runtime : {'auto', 'torch', 'onnx', 'openvino'}
        What computes a network; 'auto' takes the fastest that is installed and agrees with torch. The membrane
        scorer is no network and takes 'auto' only.
    precision : {'fp32', 'int8'}
        Of a network's numbers. The membrane scorer takes 'fp32' only.
    augmentation : {'none', 'flips', 'turns'}
        Orientations of a patch over which a network's probabilities are averaged: 1, 4 or 8. The membrane scorer
        does not depend on orientation and takes 'none' only.

    Raises
    ------
    ClassifierError
        There is no such classifier, its file is wrong, or it does not run as asked.
    MissingExtra
        The runtime is not installed.
    """
    if precision not in get_args(Precision):
        raise ClassifierError(f"there is no precision {precision!r}; there are fp32 and int8")
    if augmentation not in AUGMENTATIONS:
        raise ClassifierError(f"there is no augmentation {augmentation!r}; there are {', '.join(AUGMENTATIONS)}")
    of_bundle = bundle_path(name_or_path)
    if of_bundle is not None:
        bundle = read_bundle(of_bundle)
        numbers = cast(Precision, precision)
        session = open_session(bundle, runtime, numbers)
        return NetworkClassifier(bundle, session, numbers, augmentation)
    if runtime not in ("auto", MembraneScorer.runtime) or (precision, augmentation) != ("fp32", "none"):
        raise ClassifierError(
            f"{name_or_path}: the membrane scorer is no network: it takes runtime 'auto', precision 'fp32' and "
            f"augmentation 'none', not {runtime!r}, {precision!r} and {augmentation!r}"
        )
    if str(name_or_path) == MEMBRANE:
        content = (resources.files("wsi_her2.models.membrane") / "coefficients.json").read_bytes()
        return membrane_scorer(content, source=f"the bundled classifier {MEMBRANE!r}")
    path = Path(name_or_path)
    if not path.is_file():
        named = ", ".join((MEMBRANE, *bundled_bundles()))
        raise ClassifierError(
            f"{name_or_path}: neither the name of a bundled classifier ({named}) nor a file. "
            "`wsi-her2 models list` shows what there is."
        )
    if path.suffix.lower() in (".h5", ".hdf5", ".keras"):
        raise ClassifierError(
            f"{path}: a Keras file is imported first: `wsi-her2 models import-keras {path} -o DIR`"
        )
    if path.suffix.lower() != ".json":
        raise ClassifierError(
            f"{path}: a classifier is a model bundle or a JSON file of membrane coefficients; "
            f"{path.suffix or 'this'} is not read"
        )
    try:
        content = read_bounded(path, _MAX_COEFFICIENTS_BYTES)
    except OSError as error:
        raise ClassifierError(f"{path}: cannot be read ({error.strerror or error})") from error
    return membrane_scorer(content, source=str(path))
