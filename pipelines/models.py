"""`models`: bundles made from Keras files, quantised, exported, listed and shown."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pipelines.fingerprint import software_version
from wsi_her2.errors import ClassifierError, ConfigurationError
from wsi_her2.models.bundle import Bundle, Training, bundle_file, read_bundle
from wsi_her2.models.calibration import CalibrationPatches, folder_patches, phantom_patches
from wsi_her2.models.classifier import GRADES, OTHER, Modality
from wsi_her2.models.keras_file import KerasFile, read_keras_file
from wsi_her2.models.keras_import import architecture_of, weights_from_keras, were_trained
from wsi_her2.models.loading import MEMBRANE, bundle_path, bundled_bundles, load_classifier
from wsi_her2.models.networks.architecture import USUAL_MPP, Architecture, named_architecture

_log = logging.getLogger(__name__)


def import_keras(
    file: Path,
    output: Path,
    *,
    arch: str | None = None,
    classes: tuple[str, ...] | None = None,
    mpp: float | None = None,
    modality: Modality = "ihc",
    trained_on: str | None = None,
    name: str | None = None,
    int8: bool = True,
    calibration: Path | None = None,
) -> Bundle:
    """Make a bundle from a whole-model file of Keras.

    Parameters
    ----------
    file : pathlib.Path
        HDF5.
    output : pathlib.Path
        Folder to make.
    arch : str, optional
        'pruneff1' to 'pruneff5' or 'ather2', when it is known; the file must be that. 'pruneff' is any cut.
    classes : tuple of str, optional
        Names of the outputs in their order; by default those of HER2 for 1, 2, 4 or 5 units.
    mpp : float, optional
        Scale of the training images, um/px; 0.5 is assumed otherwise, and the card says that it was.
    modality : {'ihc', 'he'}
    trained_on : str, optional
        What the weights were trained on, in words. Without it they cannot produce a call.
    name : str, optional
        Of the bundle; by default the file's.
    int8 : bool
        Whether to make an int8 graph.
    calibration : pathlib.Path, optional
        Folder of images to quantise on and to measure agreement on; by default digital phantoms.

    Raises
    ------
    ClassifierError, ConfigurationError, OutputError, MissingExtra
    """
    content = read_keras_file(file)
    architecture = _wanted(content, arch)
    from wsi_her2.models.extras import need

    torch = need("torch", "Importing a network")
    need("timm", "Importing a network")
    from wsi_her2.models.networks.deployed import build_network
    from wsi_her2.models.packing import Identity, pack

    network = build_network(architecture)
    weights = weights_from_keras(content, architecture, network)
    training = _training(file, trained_on, were_trained(weights))
    names = classes or _usual_classes(file, architecture)
    if len(names) != architecture.n_classes:
        raise ConfigurationError(
            f"{file}: has {architecture.n_classes} classes, but --classes names {len(names)}: {', '.join(names)}"
        )
    if mpp is None:
        _log.warning(
            "%s: the file does not say at which um/px its images were; %g is assumed. Pass --mpp to state it.",
            file.name,
            USUAL_MPP,
        )
    network.load_state_dict({key: torch.from_numpy(values) for key, values in weights.items()}, strict=False)
    identity = Identity(
        name=name or output.name,
        classes=names,
        mpp=mpp or USUAL_MPP,
        mpp_stated=mpp is not None,
        modality=modality,
        training=training,
        origin=f"imported from the Keras file {file.name}",
        version=software_version(),
    )
    patches = _patches(calibration, architecture.patch_px, identity.mpp, modality)
    return pack(output, network, architecture, identity, patches, int8=int8)


def quantise(source: Path, output: Path, calibration: Path | None = None) -> Bundle:
    """A copy of a bundle with an int8 graph made on other images.

    Raises
    ------
    ClassifierError, OutputError, MissingExtra
    """
    from wsi_her2.models.packing import requantise

    bundle = read_bundle(bundle_path(source) or source)
    card = bundle.card
    patches = _patches(calibration, card.architecture.patch_px, card.mpp, card.modality)
    return requantise(bundle, output, patches)


def list_models(folder: Path | None = None) -> list[dict[str, Any]]:
    """The bundled classifiers, and the bundles in a folder.

    Raises
    ------
    ClassifierError
        There is no such folder, or it holds a bundle that is damaged.
    """
    membrane = load_classifier(MEMBRANE)
    rows: list[dict[str, Any]] = [
        {
            "name": membrane.name,
            "modality": membrane.modality,
            "classes": list(membrane.classes),
            "trained": membrane.trained,
            "sha256": membrane.sha256,
        }
    ]
    bundles = dict(bundled_bundles())
    if folder is not None:
        if not folder.is_dir():
            raise ClassifierError(f"{folder}: there is no such folder")
        bundles |= {str(path): path for path in sorted(folder.iterdir()) if bundle_file(path) is not None}
    for name, path in bundles.items():
        bundle = read_bundle(path)
        rows.append(
            {
                "name": name,
                "modality": bundle.card.modality,
                "classes": list(bundle.card.classes),
                "trained": bundle.card.training.status == "trained",
                "sha256": bundle.sha256,
            }
        )
    return rows


def describe_model(name_or_path: str) -> dict[str, Any]:
    """The card of a classifier; a bundle is read but not run.

    Raises
    ------
    ClassifierError
    """
    path = bundle_path(name_or_path)
    if path is not None:
        bundle = read_bundle(path)
        card = bundle.card
        sizes = {precision: graph.size_bytes for precision, graph in card.graphs.items()}
        return {
            "name": card.name,
            "modality": card.modality,
            "classes": list(card.classes),
            "patch_px": card.architecture.patch_px,
            "mpp": card.mpp,
            "sha256": bundle.sha256,
            **bundle.described,
            **{f"{precision}_bytes": size for precision, size in sizes.items()},
        }
    classifier = load_classifier(name_or_path)
    return {
        "name": classifier.name,
        "modality": classifier.modality,
        "classes": list(classifier.classes),
        "patch_px": classifier.patch_px,
        "mpp": classifier.mpp,
        "sha256": classifier.sha256,
        **classifier.card,
    }


def _wanted(file: KerasFile, arch: str | None) -> Architecture:
    """What the file holds; or what it is said to hold, so that what differs from that is named."""
    if arch is None or arch.lower() == "pruneff":
        return architecture_of(file, None if arch is None else "pruneff")
    said = named_architecture(arch)
    found = architecture_of(file, said.family)
    return Architecture(
        found.family, found.n_classes, found.patch_px, said.cut, found.sigmoid, found.cbam_reduction
    )


def _training(file: Path, trained_on: str | None, were: bool) -> Training:
    if trained_on is not None and not trained_on.strip():
        raise ConfigurationError("--trained-on names the training data, as in --trained-on 'BCI, IHC'")
    if not were:
        if trained_on is not None:
            raise ClassifierError(
                f"{file}: no normalisation of the network has seen an image, so it was never trained, whatever "
                "--trained-on says"
            )
        return Training(status="untrained")
    if trained_on is None:
        _log.warning(
            "%s: nobody says what these weights were trained on, so they will score patches but produce no call. "
            "Pass --trained-on to state it.",
            file.name,
        )
        return Training(status="unknown")
    return Training(status="trained", data=trained_on.strip())


def _usual_classes(file: Path, architecture: Architecture) -> tuple[str, ...]:
    usual = {2: ("negative", "positive"), 4: GRADES, 5: (OTHER, *GRADES)}
    if architecture.n_classes not in usual:
        raise ConfigurationError(
            f"{file}: has {architecture.n_classes} classes: name them in their order with --classes A,B,..."
        )
    return usual[architecture.n_classes]


def _patches(calibration: Path | None, patch_px: int, mpp: float, modality: Modality) -> CalibrationPatches:
    if calibration is not None:
        return folder_patches(calibration, patch_px)
    return phantom_patches(patch_px, mpp, modality)
