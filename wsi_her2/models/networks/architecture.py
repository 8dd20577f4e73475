"""What a network looks like, in words and numbers that need no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from wsi_her2.errors import ClassifierError

Family = Literal["pruneff", "ather2"]

PATCH_PX = {"pruneff": 224, "ather2": 512}
"""Side of the patches of the publication, pixels."""

USUAL_MPP = 0.5
"""Assumed, and said to be, where nobody states the scale of the training images, um/px."""

CUTS = (1, 2, 3, 4, 5)
"""Blocks of EfficientNetV2-B0 after which PrunEff may be cut."""

CBAM_REDUCTION = 16

MAX_PATCH_PX = 4096
"""Side of a patch: eight times the largest of the publication. Memory grows with its square."""

MAX_CLASSES = 4096
"""Outputs of a network: far more than a score needs, and than a file of weights by mistake names."""

_MIN_PATCH_PX = {
    # The 7 x 7 convolution without padding needs 7 x 7 positions behind a body that halves the image so often.
    **{("pruneff", cut): 6 * 2**halvings + 1 for cut, halvings in zip(CUTS, (1, 2, 3, 4, 4), strict=True)},
    # Smallest side for which every pooling of both branches has a window.
    ("ather2", 0): 86,
}


@dataclass(frozen=True)
class Architecture:
    """A network without its weights.

    Attributes
    ----------
    family : {'pruneff', 'ather2'}
    n_classes : int
        Columns of the output, at least 2.
    patch_px : int
        Side of the input, pixels.
    cut : int
        Of PrunEff: the last block of EfficientNetV2-B0 that is kept, 1 to 5. Of ATHER2: 0.
    sigmoid : bool
        Whether two classes share one unit, whose sigmoid is the probability of the second.
    cbam_reduction : int
        Of ATHER2: ratio of the channel attention; 0 for no attention at all. Of PrunEff: 0.

    Raises
    ------
    ClassifierError
        There is no such network.
    """

    family: Family
    n_classes: int
    patch_px: int
    cut: int = 0
    sigmoid: bool = False
    cbam_reduction: int = 0

    def __post_init__(self) -> None:
        if self.family not in PATCH_PX:
            raise ClassifierError(f"there is no network {self.family!r}; there are {', '.join(PATCH_PX)}")
        if (self.family, self.cut) not in _MIN_PATCH_PX:
            raise ClassifierError(f"{self.family} cannot be cut after block {self.cut}")
        if self.n_classes > MAX_CLASSES or self.patch_px > MAX_PATCH_PX:
            raise ClassifierError(
                f"{self.n_classes:,} classes of patches of {self.patch_px:,} px: networks have at most "
                f"{MAX_CLASSES:,} and {MAX_PATCH_PX:,} px"
            )
        if self.n_classes < 2 or (self.sigmoid and self.n_classes != 2):
            raise ClassifierError(f"{self.n_classes} classes with {'one unit' if self.sigmoid else 'a softmax'}")
        if self.patch_px < self.min_patch_px:
            raise ClassifierError(
                f"{self.name} needs patches of at least {self.min_patch_px} px, not {self.patch_px}"
            )
        if (
            self.cbam_reduction < 0
            or self.cbam_reduction > 64
            or (self.cbam_reduction and self.family != "ather2")
        ):
            raise ClassifierError(f"{self.name} with a channel attention of ratio {self.cbam_reduction}")

    @property
    def name(self) -> str:
        """'pruneff4', 'ather2'."""
        return f"{self.family}{self.cut}" if self.family == "pruneff" else self.family

    @property
    def min_patch_px(self) -> int:
        """Smallest side of an input that every layer can work on."""
        return int(_MIN_PATCH_PX[self.family, self.cut])

    @property
    def head_units(self) -> int:
        """Units of the last layer."""
        return 1 if self.sigmoid else self.n_classes

    @property
    def preprocessing(self) -> str:
        """What happens to the pixels inside the network, in words."""
        if self.family == "pruneff":
            return "x / 255, minus 0.485 0.456 0.406, divided by 0.229 0.224 0.225 (RGB)"
        return "x / 127.5 - 1"


def named_architecture(
    name: str, n_classes: int = 4, *, sigmoid: bool = False, patch_px: int | None = None, cbam: bool = True
) -> Architecture:
    """An architecture by the name it has in the publication.

    Parameters
    ----------
    name : str
        'pruneff1' to 'pruneff5' ('pruneff' is 'pruneff4'), or 'ather2'.
    n_classes : int
    sigmoid : bool
        One unit for two classes.
    patch_px : int, optional
        224 or 512 by default, as published.
    cbam : bool
        Whether ATHER2 has its attention.

    Raises
    ------
    ClassifierError
    """
    match = re.fullmatch(r"(pruneff)([1-5]?)|(ather2)", name.lower())
    if match is None:
        raise ClassifierError(f"there is no network {name!r}; there are pruneff1 to pruneff5, and ather2")
    if match[3]:
        reduction = CBAM_REDUCTION if cbam else 0
        return Architecture("ather2", n_classes, patch_px or 512, sigmoid=sigmoid, cbam_reduction=reduction)
    return Architecture("pruneff", n_classes, patch_px or 224, cut=int(match[2] or 4), sigmoid=sigmoid)
