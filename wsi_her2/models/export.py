"""A bundle's network in the format of another device, preprocessing inside, and proof that it is the same."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsi_her2.errors import ClassifierError, OutputError
from wsi_her2.models.bundle import Bundle, Float32, Precision
from wsi_her2.models.extras import need
from wsi_her2.models.runtimes.choice import TOLERANCE
from wsi_her2.models.runtimes.onnx_session import OnnxSession

ExportFormat = Literal["onnx", "openvino", "torchscript"]

SUFFIXES: dict[ExportFormat, str] = {"onnx": ".onnx", "openvino": ".xml", "torchscript": ".pt"}


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    files : tuple of pathlib.Path
        The network, and a JSON file that says what goes in and what comes out.
    max_difference : float
        Of the probabilities on the bundle's check images, read back from the written file.
    """

    files: tuple[Path, ...]
    max_difference: float


def export_bundle(bundle: Bundle, form: ExportFormat, path: str | Path, precision: Precision = "fp32") -> Exported:
    """Write a bundle's network for another runtime and check what was written.

    Parameters
    ----------
    bundle : Bundle
    form : {'onnx', 'openvino', 'torchscript'}
    path : str or pathlib.Path
        File to write, with the suffix of the format; must not exist.
    precision : {'fp32', 'int8'}
        TorchScript is fp32 only.

    Raises
    ------
    ClassifierError
        There is no such format or precision, or the file that was written does not give the same probabilities.
    OutputError, MissingExtra
    """
    path = Path(path)
    if form not in SUFFIXES:
        raise ClassifierError(f"there is no format {form!r}; there are {', '.join(SUFFIXES)}")
    if path.suffix.lower() != SUFFIXES[form]:
        raise OutputError(f"{path}: a file in the format {form} ends with {SUFFIXES[form]}")
    if form == "torchscript" and precision != "fp32":
        raise ClassifierError("TorchScript is exported in fp32 only: use onnx or openvino for int8")
    targets = [path, path.with_suffix(".json"), *([path.with_suffix(".bin")] if form == "openvino" else [])]
    try:
        for target in targets:
            if target.exists():
                raise OutputError(f"{target}: exists already; name another file, or remove this one first")
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", dir=path.parent) as folder:
            beside = Path(folder) / path.name
            found = _WRITERS[form](bundle, beside, precision)
            difference = float(np.abs(found - bundle.check_probabilities(precision)).max())
            if not difference <= TOLERANCE[precision]:
                raise ClassifierError(
                    f"{path}: the exported network differs from the bundle by {difference:.2g} (limit "
                    f"{TOLERANCE[precision]:g}); nothing was written"
                )
            description = _description(bundle, form, precision, difference)
            beside.with_suffix(".json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")
            for target in targets:
                shutil.move(Path(folder) / target.name, target)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    return Exported(tuple(targets), difference)


def _write_onnx(bundle: Bundle, path: Path, precision: Precision) -> Float32:
    path.write_bytes(bundle.graph(precision))
    return OnnxSession(path.read_bytes()).run(bundle.check_images)


def _write_openvino(bundle: Bundle, path: Path, precision: Precision) -> Float32:
    openvino = need("openvino", "Exporting to OpenVINO")
    core = openvino.Core()
    openvino.save_model(core.read_model(bundle.graph(precision), b""), str(path), compress_to_fp16=False)
    # Read from the two files as another program would, in full precision.
    compiled = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([bundle.check_images])[0], np.float32)


def _write_torchscript(bundle: Bundle, path: Path, _: Precision) -> Float32:
    torch: Any = need("torch", "Exporting to TorchScript")
    from wsi_her2.models.networks.deployed import Deployed, for_inference, network_of

    network = for_inference(network_of(bundle.card.architecture, bundle.weights))
    deployed = Deployed(network, bundle.card.architecture.sigmoid).eval()
    images = torch.from_numpy(np.array(bundle.check_images))
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracer warns that sizes become constants, which is meant: the patch size is.
        warnings.simplefilter("ignore")
        torch.jit.trace(deployed, images[:2], check_trace=False).save(str(path))
        return np.asarray(torch.jit.load(str(path))(images).numpy(), np.float32)


_WRITERS = {"onnx": _write_onnx, "openvino": _write_openvino, "torchscript": _write_torchscript}


def _description(bundle: Bundle, form: str, precision: str, difference: float) -> dict[str, object]:
    card, side = bundle.card, bundle.card.architecture.patch_px
    return {
        "name": card.name,
        "bundle_sha256": bundle.sha256,
        "format": form,
        "precision": precision,
        "input": f"images: uint8 N x {side} x {side} x 3, RGB, as read",
        "preprocessing": f"inside the network: {card.preprocessing}",
        "output": f"probabilities: float32 N x {len(card.classes)}",
        "classes": list(card.classes),
        "mpp": card.mpp,
        "modality": card.modality,
        "trained_on": bundle.described["trained_on"],
        "max_difference_to_the_bundle": difference,
        "use": "Research use only.",
    }
