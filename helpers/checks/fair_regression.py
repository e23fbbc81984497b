"""Checkers for the exercises of the chapter `fair-regression`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.checks import verdict
from helpers.fairness.metrics import ks_distance

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]
Array = np.ndarray


def distance(answer: Callable[[Array, Array], float | None]) -> None:
    """Check the Kolmogorov-Smirnov distance of two groups of numbers.

    Parameters
    ----------
    answer : Callable[[Array, Array], float | None]
        From the two groups' values to their distance.

    Examples
    --------
    >>> distance(lambda first, second: abs(first.mean() - second.mean()))
    answer: not yet.
      - of (1, 2, 3) and (11, 12, 13) it gives 10, and should give 1: a difference of means has a unit.

    Taught in: fair-regression
    """
    dice = np.random.default_rng(0)
    cases = {
        "a difference of means has a unit": ([1, 2, 3], [11, 12, 13]),
        "the second group may be the lower one": ([11, 12, 13], [1, 2, 3]),
        "equal values count as at or below": ([1, 2, 2], [2, 2, 3]),
        "the means agree and the spreads do not": ([-1, 0, 1], [-9, 0, 9]),
        "try every value that occurs": (dice.integers(0, 9, 12).tolist(), dice.integers(3, 12, 15).tolist()),
    }
    faults = []
    for why, (first, second) in cases.items():
        found = answer(np.array(first, dtype=float), np.array(second, dtype=float))
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        right = ks_distance([*first, *second], [0] * len(first) + [1] * len(second))
        if abs(found - right) > 1e-9:
            shown = " and ".join(f"({', '.join(map(str, side))})" for side in (first, second))
            faults.append(f"of {shown} it gives {found:.3g}, and should give {right:.3g}: {why}.")
    return verdict(_name(answer), faults[:1])


def shrunk(answer: Callable[[float, float, float], float | None]) -> None:
    """Check the real root of 2 lambda x^3 + k x = k sigma.

    Parameters
    ----------
    answer : Callable[[float, float, float], float | None]
        From sigma, k and the multiplier to the new singular value.

    Examples
    --------
    >>> shrunk(lambda sigma, k, multiplier: k * sigma / (k + multiplier))
    answer: not yet.
      - sigma = 2, k = 3, multiplier = 1.5 gives 1.33, and should give 1: that is the first moment's formula.

    Taught in: fair-regression
    """
    faults = []
    for sigma, k, multiplier in ((2.0, 3.0, 1.5), (0.7, 40.0, 1e-6), (5.0, 0.2, 1e4)):
        found = answer(sigma, k, multiplier)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        right = _cubic(2 * multiplier, k, sigma)
        if not np.isreal(found) or abs(found - right) > 1e-6 * right:
            why = "put it into the equation and see what is left"
            if np.isclose(found, k * sigma / (k + multiplier)):
                why = "that is the first moment's formula"
            elif np.isclose(found, _cubic(multiplier, k, sigma), rtol=1e-6):
                why = "the cubic term has a factor of 2, or 4 / 2"
            given = f"sigma = {sigma:g}, k = {k:g}, multiplier = {multiplier:g}"
            faults.append(f"{given} gives {found:.3g}, and should give {right:.3g}: {why}.")
    return verdict(_name(answer), faults[:1])


def erased(answer: Callable[[Array, Array, Array], Array | None]) -> None:
    """Check the nearest layer that maps the difference of means to zero.

    Parameters
    ----------
    answer : Callable[[Array, Array, Array], Array | None]
        From the layer, delta and X^T X to the new layer.

    Examples
    --------
    >>> erased(lambda W, delta, G: W - np.outer(W @ delta, delta) / (delta @ delta))
    answer: not yet.
      - the means agree, but the outputs change by 42.8 times the least: weigh the change by X^T X.

    Taught in: fair-regression
    """
    dice = np.random.default_rng(0)
    acts_ND = dice.normal(size=(300, 4)) @ dice.normal(size=(4, 4))
    weight_OD, delta_D, gram_DD = dice.normal(size=(3, 4)), dice.normal(size=4), acts_ND.T @ acts_ND
    found = answer(weight_OD, delta_D, gram_DD)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    if np.shape(found) != weight_OD.shape:
        return verdict(_name(answer), [f"its shape is {np.shape(found)}, and should be that of the layer."])
    left = float(np.abs(found @ delta_D).max())
    if left > 1e-8:
        return verdict(_name(answer), [f"W' delta has an entry of size {left:.2g}, and should be zero."])
    reads_D = np.linalg.solve(gram_DD, delta_D)
    best = np.outer(weight_OD @ delta_D, reads_D) / (delta_D @ reads_D)
    times = float(np.square(acts_ND @ (found - weight_OD).T).sum() / np.square(acts_ND @ best.T).sum())
    fault = (
        f"the means agree, but the outputs change by {times:.1f} times the least: weigh the change by X^T X."
    )
    return verdict(_name(answer), [fault] if times > 1 + 1e-6 else [])


def blind_spot(answer: Callable[[], tuple[Array, Array] | None]) -> None:
    """Check an example in which the bound on the covariances is far from the truth.

    Parameters
    ----------
    answer : Callable[[], tuple[Array, Array] | None]
        Returns the layer and the difference of covariances.

    Examples
    --------
    >>> blind_spot(lambda: (np.eye(2), np.zeros((2, 2))))
    answer: not yet.
      - the bound is 0: the groups do not differ in what enters the layer.

    Taught in: fair-regression
    """
    made = answer()
    if made is None:
        return verdict(_name(answer), UNWRITTEN)
    weight_OD, spread_DD = (np.asarray(part, dtype=float) for part in made)
    square = spread_DD.ndim == 2 and spread_DD.shape == spread_DD.T.shape
    if not (square and np.allclose(spread_DD, spread_DD.T) and weight_OD.shape[-1:] == spread_DD.shape[:1]):
        fault = "give a layer and a symmetric matrix with as many columns, in this order."
        return verdict(_name(answer), [fault])
    values_D, vectors_DD = np.linalg.eigh(spread_DD)
    sigma_R = np.linalg.svd(np.atleast_2d(weight_OD) @ vectors_DD * np.abs(values_D) ** 0.5)[1]
    bound, truth = float((sigma_R**4).sum()), float(np.square(weight_OD @ spread_DD @ weight_OD.T).sum())
    faults = []
    if bound < 1e-6:
        faults.append("the bound is 0: the groups do not differ in what enters the layer.")
    elif truth > 1e-6 * bound:
        faults.append(f"the outputs' covariances differ: {truth:.2g} of {bound:.2g}. Let two inputs cancel.")
    return verdict(_name(answer), faults)


def undo(answer: Callable[[Array, Array], Array | None]) -> None:
    """Check the last layer that takes a rescaling of its inputs back.

    Parameters
    ----------
    answer : Callable[[Array, Array], Array | None]
        From the old last layer and M to the new last layer.

    Examples
    --------
    >>> undo(lambda last, M: np.linalg.inv(M) @ last)
    answer: not yet.
      - predictions are off by up to 4.7: a' meets M from the left, so M has to be transposed.

    Taught in: fair-regression
    """
    dice = np.random.default_rng(1)
    rescale_OO, last_O, z_NO = dice.normal(size=(3, 3)), dice.normal(size=3), dice.normal(size=(50, 3))
    found = answer(last_O, rescale_OO)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    off = float(np.abs(z_NO @ rescale_OO.T @ np.asarray(found) - z_NO @ last_O).max())
    why = "put a' into a'^T M z = a^T z and solve for it"
    if np.allclose(found, np.linalg.solve(rescale_OO, last_O)):
        why = "a' meets M from the left, so M has to be transposed"
    return verdict(_name(answer), [f"predictions are off by up to {off:.2g}: {why}."] if off > 1e-8 else [])


def _cubic(lead: float, k: float, sigma: float) -> float:
    """Return the real root of lead x^3 + k x = k sigma, by bracketing."""
    from scipy.optimize import brentq

    return float(brentq(lambda x: lead * x**3 + k * (x - sigma), 0, sigma, xtol=1e-15))


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
