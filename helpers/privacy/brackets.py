"""The paper's best independent draws on four levels: a linear program a bracket."""

from __future__ import annotations

import itertools
import math

import numpy as np

from helpers.privacy.draws import independent, mirrored
from helpers.privacy.limits import check_epsilon
from helpers.privacy.measuring import privacy_loss
from helpers.privacy.mechanisms import Array, TwoLevel, levels

__all__ = ["bracketed_lp"]


def bracketed_lp(
    epsilon: float, *, margin: float, inner: float, clip: float = 1.0, step: float = 0.01
) -> TwoLevel:
    """Return the paper's optimised mechanism on four symmetric levels: a linear program a bracket.

    The draws on the two sides are independent, so chances are products of unknowns. The paper splits the
    range of one unknown, the chance of the outermost left level in the middle interval, into brackets of
    width ``step``; inside a bracket it bounds each product by a linear term. The bracket with the smallest
    true error wins.

    Parameters
    ----------
    epsilon : float
        Privacy budget, above 0.
    margin, inner : float
        Place of the levels, as for `levels`.
    clip : float
        Inputs lie in [-clip, clip].
    step : float
        Width of a bracket.

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If epsilon is not finite and above zero, or no bracket is feasible.

    References
    ----------
    arXiv 2406.02599; the linear programs follow the authors' code for m = 4 and symmetric levels.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.bracketed_lp(2.0, margin=2.0, inner=0.5, step=0.05)
    >>> float(privacy.privacy_loss(made)) <= 2.0
    True

    Taught in: private-quantization
    """
    check_epsilon(epsilon)
    bins_M = levels(4, margin=margin, clip=clip, inner=inner)
    if not 0 < inner <= clip:
        raise ValueError(f"inner is {inner}; expected it above zero and at most the clip, {clip}")
    grid_N = np.linspace(-clip, clip, 51)
    solved = [_bracket(epsilon, bins_M, clip, low, low + step) for low in np.arange(step, 1 - step / 2, step)]
    made = [one for one in solved if one is not None and privacy_loss(one) <= epsilon + 1e-9]
    if not made:
        raise ValueError(
            f"no bracket is feasible at epsilon {epsilon} on the levels {bins_M}; move the outer levels out"
        )
    return min(made, key=lambda one: float(one.error(grid_N).mean()))


def _bracket(epsilon: float, bins_M: Array, clip: float, low: float, high: float) -> TwoLevel | None:
    """Solve the linear program of one bracket; None where it has no solution."""
    from scipy.optimize import linprog

    unequal = [
        most_U - math.exp(epsilon) * least_U
        for most_IU, least_IU in _bracket_bounds(bins_M, clip, low, high)
        for most_U, least_U in itertools.product(most_IU, least_IU)
    ]
    inner, outer = bins_M[2], bins_M[3]
    cost_U = np.array(
        [2 * inner * (outer - inner), 0, (clip - inner) * (outer + inner), 2 * inner * (clip - inner), 0]
    )
    found = linprog(
        cost_U,
        A_ub=np.array(unequal), b_ub=np.zeros(len(unequal)),
        A_eq=[[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]], b_eq=[1, 1],
        bounds=[(low, high), (1e-5, 1), *[(1e-5, 1)] * 3], method="highs",
    )  # fmt: skip
    if found.status != 0:
        return None
    near, far = found.x[:2], found.x[2:]
    left_JM = np.array([[1, 0, 0, 0], [near[0], near[1], 0, 0], [far[0], far[1], far[2], 0]])
    left_JM /= left_JM.sum(1, keepdims=True)
    return independent(bins_M, clip, left_JM, mirrored(left_JM))


def _bracket_bounds(bins_M: Array, clip: float, low: float, high: float) -> list[tuple[Array, Array]]:
    """Return, for the two left levels, rows that bound their largest and smallest chances, one an interval.

    A row times the unknowns (near 1, near 2, far 1, far 2, far 3) is a chance. In the middle interval the
    chance is an unknown times a mixture of two shares, with near 1 as its weight; the weight is replaced by
    an end of its bracket. The two right levels mirror the left ones.
    """
    first, second, third, last = bins_M

    def share(level: float, other: float, x: float) -> float:
        return (other - x) / (other - level)

    def mixture(level: float, x: float, weight: float) -> float:
        return weight * share(level, last, x) + (1 - weight) * share(level, third, x)

    def of_first(x_left: float, x_middle: float, x_right: float, weight: float) -> Array:
        left = [share(first, other, x_left) for other in (last, third, second)]
        middle = mixture(first, x_middle, weight)
        return np.array([[0, 0, *left], [middle, 0, 0, 0, 0], [0, 0, share(first, last, x_right), 0, 0]])

    def of_second(x_left: float, x_middle: float, x_right: float, weight: float) -> Array:
        left, right = share(second, first, x_left), share(second, last, x_right)
        middle = mixture(second, x_middle, weight)
        return np.array([[0, 0, 0, 0, left], [0, middle, 0, 0, 0], [0, 0, 0, right, 0]])

    return [
        (of_first(-clip, second, third, high), of_first(second, third, clip, low)),
        (of_second(second, second, third, high), of_second(-clip, third, clip, low)),
    ]
