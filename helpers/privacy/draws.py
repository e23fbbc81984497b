"""Two draws by a formula: the left and the right level independently of each other."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from helpers.privacy.mechanisms import TINY, Array, TwoLevel

__all__ = ["exponential", "rqm"]


def rqm(bins_M: Float[Array, "bin"], *, keep: float, clip: float = 1.0) -> TwoLevel:
    """Return the randomised quantisation mechanism: drop inner levels by chance, use the nearest two left.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        Levels, symmetric around zero; the original has them evenly spaced.
    keep : float
        Chance that an inner level is kept, between 0 and 1; the outer two always are.
    clip : float
        Inputs lie in [-clip, clip].

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If ``keep`` is not between 0 and 1, or the levels are not symmetric.

    References
    ----------
    Youn, Hu, Ziani, Abernethy (2023), *Randomized Quantization is All You Need for Differential Privacy in
    Federated Learning*, arXiv 2306.11913.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.rqm(privacy.levels(4, margin=1.7), keep=0.22)
    >>> made.selection_JMM[1].sum(1).round(2)  # the left level, for inputs in the middle
    array([0.78, 0.22, 0.  , 0.  ])

    Taught in: private-quantization
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is {keep}; expected a chance, 0 to 1")
    left_JM = np.zeros((len(bins_M) - 1, len(bins_M)))
    for j in range(len(left_JM)):
        for i in range(j + 1):
            left_JM[j, i] = (keep if i else 1.0) * (1 - keep) ** (j - i)
    return independent(_symmetric(bins_M), clip, left_JM, mirrored(left_JM))


def exponential(bins_M: Float[Array, "bin"], *, gamma: float, clip: float = 1.0) -> TwoLevel:
    """Return the exponential mechanism of the family: near levels are drawn more often, by a factor.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        Levels, symmetric around zero.
    gamma : float
        How strongly near levels are preferred; 0 draws all alike, negative ones prefer far levels.
    clip : float
        Inputs lie in [-clip, clip].

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If gamma is not finite, or the levels are not symmetric.

    References
    ----------
    arXiv 2406.02599, the exponential randomised mechanism.

    Examples
    --------
    >>> from helpers import privacy
    >>> privacy.exponential(privacy.levels(4, margin=2.0), gamma=0.0).selection_JMM[2].sum(1).round(2)
    array([0.33, 0.33, 0.33, 0.  ])

    Taught in: private-quantization
    """
    if not math.isfinite(gamma):
        raise ValueError(f"gamma is {gamma}; expected a finite number")
    bins_M = _symmetric(bins_M)
    left_JM = np.zeros((len(bins_M) - 1, len(bins_M)))
    for j in range(len(left_JM)):
        far_I = (bins_M[j] - bins_M[: j + 1]) / max(bins_M[j] - bins_M[0], TINY)
        weight_I = np.exp(-gamma * far_I / 2)
        left_JM[j, : j + 1] = weight_I / weight_I.sum()
    return independent(bins_M, clip, left_JM, mirrored(left_JM))


def independent(bins_M: Array, clip: float, left_JM: Array, right_JM: Array) -> TwoLevel:
    """Make the mechanism that draws the left and the right level independently: the paper's family."""
    return TwoLevel(bins_M, clip, left_JM[:, :, None] * right_JM[:, None, :])


def mirrored(left_JM: Array) -> Array:
    """Give the right-hand draw that mirrors a left-hand one on symmetric levels."""
    return left_JM[::-1, ::-1]


def _symmetric(bins_M: Array) -> Array:
    """Return levels as floats; refuse ones that are not symmetric around zero."""
    bins_M = np.asarray(bins_M, dtype=float)
    if not np.allclose(bins_M, -bins_M[::-1]):
        raise ValueError(f"the levels are {bins_M}; expected them symmetric around zero")
    return bins_M
