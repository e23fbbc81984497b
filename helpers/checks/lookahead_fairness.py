"""Checkers for the exercises of the chapter `lookahead-fairness`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.checks import verdict
from helpers.fairness.lookahead import World, flip, futures, slope_limit
from helpers.fairness.scm import SCM, coin, normal

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def other_outcome(answer: Callable[[Tensor, Tensor], Tensor | None]) -> None:
    """Check the counterfactual outcome in X = 2 A + U, Y = 3 X + A.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], Tensor | None]
        From the observed feature and attribute (people,) to the outcome under the other attribute.

    Examples
    --------
    >>> other_outcome(lambda x_N, a_N: 3 * x_N + (1 - a_N))
    answer: not yet.
      - the attribute is flipped in the equation of Y only: X would be another too.
    >>> other_outcome(lambda x_N, a_N: 3 * (x_N + 2 - 4 * a_N) + 1 - a_N)
    answer: right.

    Taught in: lookahead-fairness
    """
    scm = SCM({"A": coin(), "U": normal()}, {"X": lambda A, U: 2 * A + U, "Y": lambda X, A: 3 * X + A})
    people = scm.solve(scm.sample(20, seed=0))
    x_N, a_N = people["X"], people["A"]
    found = answer(x_N.clone(), a_N.clone())
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    right = scm.solve({**people, "A": flip(a_N)})["Y"]
    slips = {
        "the attribute is flipped in the equation of Y only: X would be another too.": (3 * x_N + 1 - a_N),
        "this is the outcome as it is: put the other attribute in.": people["Y"],
        "X is changed and Y keeps the old attribute: flip it in both equations.": right + 2 * a_N - 1,
        "X itself is taken for U: first subtract what the old attribute added.": (
            3 * (2 * (1 - a_N) + x_N) + 1 - a_N
        ),
    }
    return verdict(_name(answer), _faults(found, right, slips))


def slope_for(answer: Callable[[float, float, float], float | None]) -> None:
    """Check the coefficient p1 that leaves a wanted share of the gap.

    Parameters
    ----------
    answer : Callable[[float, float, float], float | None]
        From the share, eta and the overlap to p1.

    Examples
    --------
    >>> slope_for(lambda left, eta, overlap: (1 - left) / (eta * overlap))
    answer: not yet.
      - it is twice too large: the derivative of p1 y^2 is 2 p1 y.
    >>> slope_for(lambda left, eta, overlap: (1 - left) / (2 * eta * overlap))
    answer: right.

    Taught in: lookahead-fairness
    """
    scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + 3 * U})
    world = World(scm, acts_on=("U",), eta=0.2)
    u = scm.sample(10, seed=0)
    cases = {left: answer(left, world.eta, 9.0) for left in (0.0, 0.5, -1.0)}
    if None in cases.values():
        return verdict(_name(answer), UNWRITTEN)
    limit = slope_limit(world, u)
    ratios = {left: float(p1 or 0) / (limit * (1 - left) / 2) for left, p1 in cases.items()}
    if all(abs(ratio - 2) < 1e-6 for ratio in ratios.values()):
        return verdict(_name(answer), ["it is twice too large: the derivative of p1 y^2 is 2 p1 y."])
    faults = []
    for left, p1 in cases.items():

        def predict(values: dict[str, Tensor], p1: float = float(p1 or 0)) -> Tensor:
            return p1 * world.there(values)["Y"] ** 2

        after = futures(world, predict, u)
        got = float((after.next_gap / after.gap).mean())
        if abs(got - left) > 1e-6:
            faults.append(
                f"for left = {left:g}, eta = 0.2, overlap = 9 people end at {got:.3g} of the gap: "
                "solve 1 - 2 p1 eta S = left."
            )
    return verdict(_name(answer), faults)


def afce(answer: Callable[[Tensor, Tensor], float | None]) -> None:
    """Check the average future causal effect.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], float | None]
        From the outcomes after the response, here and in the other world, to one number.

    Examples
    --------
    >>> afce(lambda here, there: abs(here.mean() - there.mean()))
    answer: not yet.
      - people of both groups cancel: take the distance of each person first, then the mean.

    Taught in: lookahead-fairness
    """
    here_N, there_N = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([2.0, 1.0, 2.0])
    found = answer(here_N, there_N)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    slips = {
        "people of both groups cancel: take the distance of each person first, then the mean.": torch.tensor(
            1.0
        ),
        "it is the sum over people: take the mean, or more people would mean more disparity.": torch.tensor(
            5.0
        ),
        "it is the mean square: take the size of the difference, in units of the outcome.": torch.tensor(
            11 / 3
        ),
    }
    return verdict(_name(answer), _faults(torch.as_tensor(found), (here_N - there_N).abs().mean(), slips))


def share_left(answer: Callable[[float, float], float | None]) -> None:
    """Check what is left of the gap if people respond otherwise than believed.

    Parameters
    ----------
    answer : Callable[[float, float], float | None]
        From the wanted share, and the true over the believed response, to the share that is left.

    Examples
    --------
    >>> share_left(lambda wanted, ratio: wanted * ratio)
    answer: not yet.
      - wanted = 0.5, ratio = 0 gives 0, and should give 1: nobody responds, so the whole gap is left.
      - wanted = 0, ratio = 2 gives 0, and should give -1: twice the step overshoots by the whole gap.
      - wanted = 0.5, ratio = 4 gives 2, and should give -1: four half steps overshoot by the whole gap.

    Taught in: lookahead-fairness
    """
    cases = {
        (0.5, 0.0): (1.0, "nobody responds, so the whole gap is left"),
        (0.5, 1.0): (0.5, "all is as believed"),
        (0.0, 2.0): (-1.0, "twice the step overshoots by the whole gap"),
        (0.5, 4.0): (-1.0, "four half steps overshoot by the whole gap"),
    }
    found = {case: answer(*case) for case in cases}
    if None in found.values():
        return verdict(_name(answer), UNWRITTEN)
    return verdict(
        _name(answer),
        [
            f"wanted = {wanted:g}, ratio = {ratio:g} gives {found[wanted, ratio]:.3g}, "
            f"and should give {right:g}: {why}."
            for (wanted, ratio), (right, why) in cases.items()
            if abs(float(found[wanted, ratio] or 0) - right) > 1e-6
        ],
    )


def _faults(found: Any, right: Tensor, slips: dict[str, Tensor]) -> list[str]:
    """Name the slip that an answer shows, or say how far it is off."""
    found = torch.as_tensor(found).to(right.dtype)
    if found.shape != right.shape:
        return [f"its shape is {tuple(found.shape)}, and should be {tuple(right.shape)}."]
    if torch.allclose(found, right, atol=1e-6):
        return []
    for why, wrong in slips.items():
        if torch.allclose(found, wrong.to(right.dtype), atol=1e-6):
            return [why]
    worst = int((found - right).abs().argmax())
    return [f"it gives {found.flatten()[worst]:.3g} where {right.flatten()[worst]:.3g} is right."]


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
