"""How a network is fitted and how its patches are varied: what a configuration says, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field


@dataclass(frozen=True)
class Optimisation:
    """How weights are fitted.

    Attributes
    ----------
    optimiser : {'adam', 'adamw', 'sgd'}
    learning_rate, weight_decay : float
    epsilon : float
        Of Adam.
    amsgrad : bool
    batch : int
        Patches in a step.
    epochs : int
        At most.
    schedule : {'plateau', 'cosine', 'constant'}
        The learning rate falls tenfold when validation does not improve, or along half a cosine after a warm-up
        over the first twentieth, or not at all.
    plateau_patience : int
        Epochs without improvement before the rate falls.
    plateau_metric : {'accuracy', 'loss'}
        Of validation.
    min_learning_rate : float
    stop_after : int
        Epochs without improvement before training ends; 0 to train to the end.
    l2 : float
        Penalty on the squared weights of convolutions, as Keras has it.
    average : float
        Decay of an exponential mean of the weights, which is what is kept; 0 for none.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    optimiser: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    amsgrad: bool = False
    batch: Annotated[int, Field(ge=2)] = 24
    epochs: Annotated[int, Field(ge=1)] = 80
    schedule: Literal["plateau", "cosine", "constant"] = "cosine"
    plateau_patience: Annotated[int, Field(ge=1)] = 10
    plateau_metric: Literal["accuracy", "loss"] = "accuracy"
    min_learning_rate: Annotated[float, Field(ge=0)] = 6e-7
    stop_after: Annotated[int, Field(ge=0)] = 20
    l2: Annotated[float, Field(ge=0)] = 0.0
    average: Annotated[float, Field(ge=0, lt=1)] = 0.0


@dataclass(frozen=True)
class PatchAugmentation:
    """How far patches are varied; 0 leaves a trait as it is.

    Attributes
    ----------
    turns : bool
        Flips and quarter turns.
    shift : float
        Largest shift, as a share of the side; what moves in is mirrored.
    first_stain, second_stain : float
        Largest factor on a dye, as a deviation from 1: hematoxylin, and DAB or eosin.
    hue : float
        Standard deviation of a dye's optical density per channel, of a vector of length 1.
    glass : float
        Largest deviation of the white point from 1, per channel.
    blur_px : float
        Largest standard deviation of a blur.
    sharpen : float
        Largest strength of an unsharp mask.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    turns: bool = True
    shift: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    first_stain: Annotated[float, Field(ge=0, lt=1)] = 0.3
    second_stain: Annotated[float, Field(ge=0, lt=1)] = 0.1
    hue: Annotated[float, Field(ge=0, lt=0.3)] = 0.03
    glass: Annotated[float, Field(ge=0, lt=0.2)] = 0.02
    blur_px: Annotated[float, Field(ge=0, le=3)] = 0.6
    sharpen: Annotated[float, Field(ge=0, le=3)] = 0.5


@dataclass(frozen=True)
class GradingFit:
    """How the network for cells is fitted.

    Attributes
    ----------
    width : int
        Channels of every layer.
    epochs : int
    learning_rate, weight_decay : float
    seed : int
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    width: Annotated[int, Field(ge=4, le=256)] = 32
    epochs: Annotated[int, Field(ge=1)] = 14
    learning_rate: Annotated[float, Field(gt=0)] = 4e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    seed: Annotated[int, Field(ge=0)] = 0
