"""How much of the tumour is of each class: proportions, estimated as such.

The mean of softmax outputs is not a proportion: a truly negative core carries 18 to 26 % of soft "1+". What is
counted here is the most probable class of each patch, and where the classifier's own confusion matrix is known
the counts are corrected by it (class-prior estimation; Saerens 2002, Lipton 2018).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


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
