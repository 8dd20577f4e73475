"""How much of the tumour is of each class: proportions, estimated as such.

The mean of softmax outputs is not a proportion: a truly negative core carries 18 to 26 % of soft "1+". For a
classifier that tells what a patch is, the most probable class of each patch is counted. A classifier that was
fitted to the share that each class has in a patch gives shares, which are added up; they still lean to what it
saw in training. In either case, where it is known what the classifier makes of each true class (its confusion or
response matrix), the sums are corrected by it (class-prior estimation; Saerens 2002, Bella 2010, Lipton 2018).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


TUMOUR_FROM = 0.2
"""Share of a patch that is tumour from which on the patch counts as tumour."""

_OTHER = "other"


def main_classes(
    probabilities: npt.NDArray[np.float32], classes: tuple[str, ...], shares: bool = False
) -> npt.NDArray[np.int64]:
    """The class of each patch.

    Parameters
    ----------
    probabilities : float32 N x K
        Without NaN.
    classes : tuple of str
    shares : bool
        Whether they are shares of the patch. A patch of which a fifth is tumour is a patch of tumour, though most
        of it is not; its class is then the largest among those of tumour.

    Returns
    -------
    int64 N
        Columns.
    """
    if not shares or _OTHER not in classes:
        return np.asarray(probabilities.argmax(axis=1), np.int64)
    other = classes.index(_OTHER)
    tumour = probabilities.copy()
    tumour[:, other] = -1
    is_tumour = 1 - probabilities[:, other] >= np.float32(TUMOUR_FROM)
    return np.asarray(np.where(is_tumour, tumour.argmax(axis=1), other), np.int64)


def hard_counts(probabilities: npt.NDArray[np.float32], weights: Float64) -> Float64:
    """Weight of the patches whose most probable class is each of the classes.

    Parameters
    ----------
    probabilities : float32 N x K
    weights : float64 N

    Returns
    -------
    float64 N x K
        A patch's weight in the column of its class, 0 elsewhere.
    """
    counted = np.zeros(probabilities.shape, np.float64)
    counted[np.arange(len(probabilities)), probabilities.argmax(axis=1)] = weights
    return counted


def share_counts(probabilities: npt.NDArray[np.float32], weights: Float64) -> Float64:
    """Weight of each class in each patch, for a classifier whose outputs are shares.

    Parameters
    ----------
    probabilities : float32 N x K
    weights : float64 N

    Returns
    -------
    float64 N x K
    """
    return np.asarray(probabilities, np.float64) * weights[:, None]


def response_matrix(found: npt.NDArray[np.float32], true: npt.NDArray[np.float32]) -> Float64:
    """What a classifier makes of a patch that is all of one class, from patches that are mixed.

    Parameters
    ----------
    found, true : float32 N x K
        Shares that the classifier gives and true ones, of patches that it was not fitted to.

    Returns
    -------
    float64 K x K
        Row: true class; column: share found for it; rows sum to 1. The least-squares solution of
        found = true @ response, kept from 0 on. A class that no patch holds stands for itself.
    """
    classes = true.shape[1]
    response = np.eye(classes)
    held = np.flatnonzero(true.sum(axis=0) > 0)
    solved = np.linalg.lstsq(true[:, held].astype(np.float64), found.astype(np.float64), rcond=None)[0]
    response[held] = np.maximum(solved, 0)
    return np.asarray(response / np.maximum(response.sum(axis=1, keepdims=True), 1e-12))


def correct_by_confusion(
    observed: Float64, confusion: Float64, prior: float = 0.0005, iterations: int = 500
) -> Float64:
    """Proportions of the true classes that best explain the observed ones.

    Expectation maximisation for the mixture observed = truth @ confusion; it stays on the simplex, where solving
    the equations would leave it.

    Parameters
    ----------
    observed : float64 B x K
        Shares of the assigned classes, rows sum to 1.
    confusion : float64 K x K
        Row: true class; column: share of it that is assigned to each class.
    prior : float
        Share that each class has before anything is observed (a Dirichlet prior): what explains nothing becomes
        small, not impossible, and slides that differ stay apart.
    iterations : int

    Returns
    -------
    float64 B x K
        Rows sum to 1.
    """
    truth = np.full_like(observed, 1.0 / observed.shape[1])
    for _ in range(iterations):
        expected = np.maximum(truth @ confusion, 1e-12)
        truth = truth * ((observed / expected) @ confusion.T) + prior
        truth /= np.maximum(truth.sum(axis=1, keepdims=True), 1e-12)
    return truth
