"""Checkers for the exercises of the chapter `private-quantization`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.checks import verdict
from helpers.privacy import duchi_level

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def high_chance(answer: Callable[[float, float], Any]) -> None:
    """Check the chance of the one-bit mechanism's high answer.

    Parameters
    ----------
    answer : callable
        From an input in [-1, 1] and epsilon to a chance.

    Examples
    --------
    >>> high_chance(lambda x, epsilon: (1 + x) / 2)
    answer: not yet.
      - at x = 1, epsilon = 1 the chance is 1, and should be 0.731: the loss of yours is inf, not 1.
    >>> high_chance(lambda x, epsilon: (1 + x * np.tanh(epsilon / 2)) / 2)
    answer: right.

    Taught in: private-quantization
    """
    faults = []
    for x, epsilon in ((1.0, 1.0), (-0.4, 2.0), (0.0, 0.5)):
        found = answer(x, epsilon)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        right = (1 + x / duchi_level(epsilon)) / 2
        if abs(float(found) - right) > 1e-6:
            top, bottom = float(answer(1.0, epsilon)), float(answer(-1.0, epsilon))
            loss = math.log(top / bottom) if top > 0 and bottom > 0 else math.inf
            why = f"the loss of yours is {loss:.3g}, not {epsilon:g}"
            if abs(loss - epsilon) < 1e-6:
                why = "the loss is right, but the mean answer is not x"
            faults.append(
                f"at x = {x:g}, epsilon = {epsilon:g} the chance is {float(found):.3g}, and should be "
                f"{right:.3g}: {why}."
            )
    return verdict(_name(answer), faults[:1])


def exact_loss(answer: Callable[[np.ndarray], Any]) -> None:
    """Check the exact privacy loss of a table of chances.

    Parameters
    ----------
    answer : callable
        From chances (input, answer) to the loss.

    Examples
    --------
    >>> exact_loss(lambda chance_NM: np.log(chance_NM.max() / chance_NM.min()))
    answer: not yet.
      - two inputs, chances .8 .2 and .9 .1: it gives 2.2, and should give 0.693: compare each answer ...

    Taught in: private-quantization
    """
    cases = [
        ([[0.8, 0.2], [0.9, 0.1]], math.log(2), "chances .8 .2 and .9 .1", "compare each answer with itself"),
        (
            [[0.2, 0.8], [0.5, 0.5]],
            math.log(2.5),
            "chances .2 .8 and .5 .5",
            "either input may be the likelier",
        ),
        (
            [[1.0, 0.0], [0.5, 0.5]],
            math.inf,
            "chances 1 0 and .5 .5",
            "the second answer gives it away",
        ),
        (
            [[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]],
            math.log(1.5),
            "a third answer that never comes",
            "it leaks nothing",
        ),
    ]
    faults = []
    for chances, right, what, why in cases:
        with np.errstate(all="ignore"):
            found = answer(np.array(chances))
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        if not (float(found) == right or abs(float(found) - right) < 1e-6):
            faults.append(
                f"two inputs, {what}: it gives {float(found):.3g}, and should give {right:.3g}: {why}."
            )
    return verdict(_name(answer), faults[:1])


def pair_error(answer: Callable[[float, float, float], Any]) -> None:
    """Check the mean absolute error of an unbiased choice between two levels.

    Parameters
    ----------
    answer : callable
        From the input, the low and the high level to the error.

    Examples
    --------
    >>> pair_error(lambda x, low, high: (high - low) / 2)
    answer: not yet.
      - at x = -1 between -1 and 3 it gives 2, and should give 0: at a level the mechanism need not lie.

    Taught in: private-quantization
    """
    cases = [
        (-1.0, -1.0, 3.0, 0.0, "at a level the mechanism need not lie"),
        (1.0, -1.0, 3.0, 2.0, "half way, both levels are two away"),
        (0.0, -1.0, 3.0, 1.5, "low comes with chance 3/4 and is 1 off, high with 1/4 and is 3 off"),
    ]
    faults = []
    for x, low, high, right, why in cases:
        found = answer(x, low, high)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        if abs(float(found) - right) > 1e-6:
            where = f"at x = {x:g} between {low:g} and {high:g}"
            faults.append(f"{where} it gives {float(found):.3g}, and should give {right:g}: {why}.")
    return verdict(_name(answer), faults[:1])


def people_needed(answer: Callable[[float, float], Any]) -> None:
    """Check how many people one bit needs for a wanted standard error.

    Parameters
    ----------
    answer : callable
        From the wanted standard error and epsilon to a whole number.

    Examples
    --------
    >>> people_needed(lambda wanted, epsilon: 1 / wanted**2)
    answer: not yet.
      - for 0.1 at epsilon = 1 it gives 100, and should give 469: an answer's variance is the level squared.

    Taught in: private-quantization
    """
    faults = []
    for wanted, epsilon in ((0.1, 1.0), (0.01, 3.0)):
        found = answer(wanted, epsilon)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        right = math.ceil(duchi_level(epsilon) ** 2 / wanted**2)
        if found != right:
            why = "an answer's variance is the level squared"
            if abs(found - right) < 1:
                why = "people come whole, and too few would miss the goal"
            faults.append(
                f"for {wanted:g} at epsilon = {epsilon:g} it gives {found:g}, and should give {right}: {why}."
            )
    return verdict(_name(answer), faults[:1])


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
