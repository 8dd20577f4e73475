"""A bundle behind the face of a `PatchClassifier`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from wsi_her2.errors import ClassifierError
from wsi_her2.models.augmentation import Augmentation, averaged
from wsi_her2.models.bundle import Bundle, Precision
from wsi_her2.models.classifier import Float32, Modality, Outputs
from wsi_her2.models.runtimes.session import Session, run_in_batches
from wsi_her2.slides.backends import RGB


@dataclass(frozen=True, eq=False)
class NetworkClassifier:
    """A network of a bundle in a runtime; see `wsi_her2.models.classifier.PatchClassifier`.

    Attributes
    ----------
    bundle : Bundle
    session : Session
    precision : {'fp32', 'int8'}
    augmentation : {'none', 'flips', 'turns'}
    """

    bundle: Bundle
    session: Session
    precision: Precision = "fp32"
    augmentation: Augmentation = "none"
    measure_names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the bundle."""
        return self.bundle.card.name

    @property
    def sha256(self) -> str:
        """Of the bundle."""
        return self.bundle.sha256

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.bundle.card.classes

    @property
    def patch_px(self) -> int:
        """Side of a patch, pixels."""
        return self.bundle.card.architecture.patch_px

    @property
    def mpp(self) -> float:
        """Scale of a patch, um/px."""
        return self.bundle.card.mpp

    @property
    def modality(self) -> Modality:
        """Stain."""
        return self.bundle.card.modality

    @property
    def trained(self) -> bool:
        """Whether it is known on what the weights were trained."""
        return self.bundle.card.training.status == "trained"

    @property
    def card(self) -> dict[str, object]:
        """For people."""
        return self.bundle.described

    @property
    def outputs(self) -> Outputs:
        """Whether a row is what a patch is, or what it holds."""
        return self.bundle.card.outputs

    @property
    def confusion(self) -> tuple[tuple[float, ...], ...] | None:
        """What is found for each true class."""
        return self.bundle.card.confusion

    @property
    def runtime(self) -> str:
        """What computes."""
        return self.session.runtime

    def predict(self, batch: RGB) -> Float32:
        """Probabilities (float32 N x K) of raw RGB patches (uint8 N x H x W x 3) of the network's size.

        Raises
        ------
        ClassifierError
            The patches are of another size or type.
        """
        side = self.patch_px
        if batch.ndim != 4 or batch.shape[1:] != (side, side, 3) or batch.dtype != np.uint8:
            raise ClassifierError(
                f"{self.name}: takes uint8 patches of N x {side} x {side} x 3, not {batch.dtype} {batch.shape}"
            )
        if len(batch) == 0:
            return np.zeros((0, len(self.classes)), np.float32)
        return averaged(partial(run_in_batches, self.session), batch, self.augmentation)

    def predict_and_measure(self, batch: RGB) -> tuple[Float32, Float32]:
        """`predict`, and no measures (float32 N x 0)."""
        return self.predict(batch), np.zeros((len(batch), 0), np.float32)
