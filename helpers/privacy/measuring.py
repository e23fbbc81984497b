"""What a mechanism leaks: exactly, after many answers, and as far as its answers alone can prove."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from helpers.privacy.mechanisms import TINY, Array, Mechanism

__all__ = ["audit", "privacy_loss", "renyi"]


def privacy_loss(mechanism: Mechanism) -> float:
    """Return the exact privacy loss: the largest log-ratio of the chances of an answer under two inputs.

    Parameters
    ----------
    mechanism : Mechanism
        Any mechanism with finitely many answers.

    Returns
    -------
    float
        The smallest epsilon that the mechanism satisfies; infinite if an answer is possible under one input
        and impossible under another.

    Examples
    --------
    >>> from helpers import privacy
    >>> level = privacy.duchi_level(0.7)
    >>> round(privacy.privacy_loss(privacy.joint_lp(0.7, privacy.levels(2, margin=level - 1))), 6)
    0.7

    Taught in: private-quantization
    """
    chance_EM = mechanism.extremes()
    return _loss(chance_EM.max(0), chance_EM.min(0))


def _loss(high_M: Array, low_M: Array) -> float:
    """Return the largest log-ratio over the answers that can occur."""
    possible = high_M > TINY
    if (low_M[possible] <= TINY).any():
        return math.inf
    return float(np.log(high_M[possible] / low_M[possible]).max())


def renyi(mechanism: Mechanism, order: float) -> float:
    """Return the Rényi privacy loss of one answer: the largest Rényi divergence between two inputs.

    The divergence is a convex function of the pair of distributions, and these move along straight lines
    between the points that the audit looks at, so its largest value is attained at a pair of those.

    Parameters
    ----------
    mechanism : Mechanism
        Any mechanism with finitely many answers.
    order : float
        Above 1.

    Returns
    -------
    float
        In nats. Losses of independent answers add up at equal order.

    Raises
    ------
    ValueError
        If the order is not above 1.

    References
    ----------
    Mironov (2017), *Rényi Differential Privacy*, arXiv 1702.07476, Definition 4 and Proposition 1.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.joint_lp(1.0, privacy.levels(4, margin=2.5, inner=0.45))
    >>> 0 < privacy.renyi(made, 2.0) < privacy.renyi(made, 50.0) < 1.0
    True

    Taught in: private-quantization
    """
    if not order > 1:
        raise ValueError(f"the order is {order}; expected more than 1")
    chance_EM = mechanism.extremes()
    logs_EM = np.log(np.maximum(chance_EM[:, chance_EM.max(0) > TINY], TINY))
    sums_EE = np.exp(order * logs_EM[:, None] + (1 - order) * logs_EM[None]).sum(2)
    return float(np.log(sums_EE).max() / (order - 1))


def audit(
    answer: Callable[[float, int], Int[Array, "draw"]],
    inputs: Sequence[float],
    *,
    draws: int = 100_000,
    confidence: float = 0.95,
) -> float:
    """Return a lower confidence bound on the privacy loss of a mechanism, from its answers alone.

    Nothing is known of the mechanism but what it answers. The chance of each answer under each input gets a
    Clopper-Pearson interval, all of them together at the confidence asked for. The bound is the largest
    log-ratio that is still certain: a low end under one input over a high end under another.

    Parameters
    ----------
    answer : callable
        From an input and a number of draws to that many answers, whole numbers from 0.
    inputs : sequence of float
        Inputs to try, two or more; the loss is often attained at the ends of the range and at levels.
    draws : int
        Answers to ask for at each input.
    confidence : float
        Chance that the true loss is at least the bound, between 0 and 1.

    Returns
    -------
    float
        A bound above epsilon proves, at that confidence, that the mechanism is not epsilon-private. A bound
        below it proves nothing.

    Raises
    ------
    ValueError
        If there are fewer than two inputs or no draws, or the confidence is not between 0 and 1.

    References
    ----------
    Clopper, Pearson (1934); the correction for many intervals is Bonferroni's.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers import privacy
    >>> dice = np.random.default_rng(0)
    >>> bad = lambda x, n: (dice.random(n) < (0.9 if x > 0 else 0.1)).astype(int)
    >>> round(privacy.audit(bad, [-1.0, 1.0], draws=2000), 1)  # the truth is log 9, or 2.2
    2.1

    Taught in: private-quantization
    """
    from scipy import stats

    if len(inputs) < 2 or draws < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"{len(inputs)} inputs, {draws} draws, confidence {confidence}; expected two inputs or "
            "more, a draw or more, and a confidence between 0 and 1"
        )
    answers = [np.asarray(answer(x, draws)) for x in inputs]
    width = 1 + max(int(one.max()) for one in answers)
    count_NM = np.stack([np.bincount(one, minlength=width) for one in answers])
    miss = (1 - confidence) / (2 * count_NM.size)
    low_NM = stats.beta.ppf(miss, count_NM, draws - count_NM + 1)
    high_NM = stats.beta.ppf(1 - miss, count_NM + 1, draws - count_NM)
    low_M = np.nan_to_num(low_NM, nan=0.0).max(0)
    high_M = np.nan_to_num(high_NM, nan=1.0).min(0)
    return float(np.log(np.maximum(low_M, TINY) / high_M).max())
