"""Checkers for the exercises of the chapter `fairness-without-harm`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.checks import verdict
from helpers.fairness import dafh

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def soft_risks(answer: Callable[[Tensor, Tensor], Tensor | None]) -> None:
    """Check the table of soft risks: every group under every classifier.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], Tensor | None]
        From shares (people, groups) and losses (people, groups) to risks (groups, groups).

    Examples
    --------
    >>> soft_risks(lambda gate_NK, loss_NK: gate_NK.T @ loss_NK / len(gate_NK))
    answer: not yet.
      - a small group's risk shrinks with the group: divide each row by its mass, not by n.
    >>> soft_risks(lambda gate_NK, loss_NK: gate_NK.T @ loss_NK / gate_NK.sum(0)[:, None])
    answer: right.

    Taught in: fairness-without-harm
    """
    gate_NK = torch.tensor([[1.0, 0.0], [0.8, 0.2], [1.0, 0.0], [0.2, 0.8]])
    loss_NK = torch.tensor([[1.0, 3.0], [2.0, 4.0], [0.0, 2.0], [5.0, 1.0]])
    found = answer(gate_NK, loss_NK)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    sum_KK, mass_K = gate_NK.T @ loss_NK, gate_NK.sum(0)
    right_KK = sum_KK / mass_K[:, None]
    mistakes = {
        "the rows are classifiers and the columns groups: people go along the rows.": right_KK.T,
        "a small group's risk shrinks with the group: divide each row by its mass, not by n.": sum_KK / 4,
        "these are sums: divide each row by the mass of its group.": sum_KK,
        "each column is divided by a mass: divide each row, by that of its own group.": sum_KK / mass_K,
    }
    return verdict(_name(answer), _compare(found, right_KK, mistakes))


def worst_gap(answer: Callable[[Tensor, Tensor], float | None]) -> None:
    """Check the largest of all rationality and envy gaps.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], float | None]
        From errors (groups, classifiers) and pooled errors (groups,) to the worst gap.

    Examples
    --------
    >>> worst_gap(lambda error_KK, pooled_K: float((error_KK.diagonal() - pooled_K).max()))
    answer: not yet.
      - envy is not seen: a group may be better off with another group's classifier.

    Taught in: fairness-without-harm
    """
    cases = {
        "a group that would be better off with the pooled classifier is not seen.": (
            [[0.2, 0.5], [0.4, 0.1]],
            [0.1, 0.3],
            0.1,
        ),
        "envy is not seen: a group may be better off with another group's classifier.": (
            [[0.3, 0.1], [0.1, 0.3]],
            [0.4, 0.4],
            0.2,
        ),
        "a group compares along its row, not along its column: its people, another's classifier.": (
            [[0.4, 0.5], [0.3, 0.1]],
            [0.4, 0.6],
            0.0,
        ),
        "where all are strictly best off at home the gap is below zero: leave the diagonal out.": (
            [[0.1, 0.5], [0.5, 0.1]],
            [0.4, 0.4],
            -0.3,
        ),
    }
    faults = []
    for why, (error, pooled, right) in cases.items():
        found = answer(torch.tensor(error), torch.tensor(pooled))
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        if abs(float(found) - right) > 1e-6:
            faults.append(why)
    return verdict(_name(answer), faults[:1])


def sign_test(answer: Callable[[Tensor, Tensor], float | None]) -> None:
    """Check the one-sided exact paired test of "ours errs more often".

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], float | None]
        From where each of two classifiers is wrong about the same people to a p-value.

    Examples
    --------
    >>> sign_test(lambda ours_N, theirs_N: 0.5)
    answer: not yet.
      - 6 alone against 0 give 0.5, and should give 0.0156: 6 coins, all heads.
      - 4 against 1 give 0.5, and should give 0.188: 4 or 5 heads of 5 coins.
      - two classifiers that never differ give 0.5, and should give 1: there is nothing to test.
      - 1 against 4 give 0.5, and should give 0.969: fewer errors are no harm, so the test is one-sided.

    Taught in: fairness-without-harm
    """
    cases = {
        (6, 0): ("6 alone against 0", "6 coins, all heads"),
        (4, 1): ("4 against 1", "4 or 5 heads of 5 coins"),
        (0, 0): ("two classifiers that never differ", "there is nothing to test"),
        (1, 4): ("1 against 4", "fewer errors are no harm, so the test is one-sided"),
    }
    faults = []
    for (alone, other), (what, why) in cases.items():
        ours_N = torch.tensor([True] * alone + [False] * other + [True, True, True, False])
        theirs_N = torch.tensor([False] * alone + [True] * other + [True, True, True, False])
        found, right = answer(ours_N, theirs_N), dafh.mcnemar(ours_N, theirs_N)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        if not abs(float(found) - right) < 1e-6:
            faults.append(f"{what} give {float(found):.3g}, and should give {right:.3g}: {why}.")
    return verdict(_name(answer), faults)


def peeking_error(answer: Callable[[Tensor], float | None]) -> None:
    """Check the error of a gate that chooses by the label.

    Parameters
    ----------
    answer : Callable[[Tensor], float | None]
        From where each classifier is wrong (people, groups) to the share of people whom all get wrong.

    Examples
    --------
    >>> peeking_error(lambda wrong_NK: float(wrong_NK.any(1).double().mean()))
    answer: not yet.
      - it counts people whom some classifier gets wrong: one that peeks errs only where all do.

    Taught in: fairness-without-harm
    """
    wrong_NK = torch.tensor([[True, False], [True, True], [False, True], [True, False], [False, False]])
    found = answer(wrong_NK)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    mistakes = {
        "it counts people whom some classifier gets wrong: one that peeks errs only where all do.": 0.8,
        "it is the error of the best single classifier: a gate that peeks chooses anew for everybody.": 0.4,
        "it is the mean over classifiers: choose the best one for every person first.": 0.5,
        "it counts who is served, not who is missed: take the share of errors.": 0.2 * 4,
    }
    return verdict(_name(answer), _compare(torch.tensor(float(found)), torch.tensor(0.2), mistakes))


def _compare(found: Tensor, right: Tensor, mistakes: dict[str, Any]) -> list[str]:
    """Name the mistake that gives this answer; say what was expected if none is known."""
    if found.shape == right.shape and torch.allclose(found, right, atol=1e-5):
        return []
    for why, wrong in mistakes.items():
        wrong = torch.as_tensor(wrong, dtype=found.dtype)
        if found.shape == wrong.shape and torch.allclose(found, wrong, atol=1e-5):
            return [why]
    return [f"on a small example it gives {found.tolist()}, and should give {right.tolist()}."]


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
