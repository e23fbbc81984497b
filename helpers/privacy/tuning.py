"""Settings within a budget: one parameter by bisection, several on a grid."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping

from helpers.privacy.limits import check_epsilon
from helpers.privacy.measuring import privacy_loss
from helpers.privacy.mechanisms import Array, Mechanism

__all__ = ["calibrate", "search"]


def calibrate(
    make: Callable[[float], Mechanism], epsilon: float, *, low: float, high: float, rounds: int = 60
) -> Mechanism:
    """Return the mechanism with the parameter nearest to ``low`` whose audited loss is within the budget.

    Parameters
    ----------
    make : callable
        From a parameter to a mechanism whose loss falls as the parameter goes from ``low`` to ``high``.
    epsilon : float
        Privacy budget, above 0.
    low, high : float
        Where to look: too little privacy, and enough.
    rounds : int
        Bisections.

    Returns
    -------
    Mechanism
        Its loss is at most epsilon.

    Raises
    ------
    ValueError
        If epsilon is no budget, or the loss is above it at ``high`` as well.

    Examples
    --------
    >>> from helpers import privacy
    >>> bins = privacy.levels(4, margin=1.0)
    >>> made = privacy.calibrate(lambda s: privacy.RoundedNoise(bins, 1.0, scale=s), 1.0, low=0.01, high=50.0)
    >>> round(privacy.privacy_loss(made), 6)
    1.0

    Taught in: private-quantization
    """
    check_epsilon(epsilon)
    if privacy_loss(make(high)) > epsilon:
        raise ValueError(
            f"the loss is above {epsilon} even at {high}; look further, or move the outer levels out"
        )
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (low, middle) if privacy_loss(make(middle)) <= epsilon else (middle, high)
    return make(high)


def search(
    make: Callable[..., Mechanism], epsilon: float, *, over: Mapping[str, Iterable[float]], inputs_N: Array
) -> tuple[Mechanism, dict[str, float]]:
    """Return the mechanism with the smallest mean absolute error on a grid of settings, within the budget.

    Parameters
    ----------
    make : callable
        From settings, by keyword, to a mechanism; a ValueError means that there is none.
    epsilon : float
        Privacy budget, above 0; what the audit finds above it is left out.
    over : mapping of str to iterable of float
        The values of each setting; all combinations are tried.
    inputs_N : Float[ndarray, "input"]
        Inputs over which the error is averaged.

    Returns
    -------
    mechanism : Mechanism
        The best.
    settings : dict of str to float
        Its settings.

    Raises
    ------
    ValueError
        If epsilon is no budget, or no setting is feasible.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers import privacy
    >>> def make(margin):
    ...     return privacy.joint_lp(2.0, privacy.levels(4, margin=margin, inner=0.5))
    >>> grid = {"margin": [0.1, 1.0, 3.0]}
    >>> made, best = privacy.search(make, 2.0, over=grid, inputs_N=np.linspace(-1, 1, 9))
    >>> best
    {'margin': 1.0}

    Taught in: private-quantization
    """
    check_epsilon(epsilon)
    found: list[tuple[float, Mechanism, dict[str, float]]] = []
    for values in itertools.product(*over.values()):
        settings = dict(zip(over, map(float, values), strict=True))
        try:
            made = make(**settings)
        except ValueError:
            continue
        if privacy_loss(made) <= epsilon + 1e-9:
            found.append((float(made.error(inputs_N).mean()), made, settings))
    if not found:
        raise ValueError(f"no setting has a loss of {epsilon} or less; look further out: {dict(over)}")
    _, best, settings = min(found, key=lambda one: one[0])
    return best, settings
