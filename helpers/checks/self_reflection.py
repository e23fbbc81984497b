"""Checkers for the exercises of the chapter `self-reflection`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.checks import verdict

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def cut_before_wait(answer: Callable[[list[list[str]], str], list[list[str]] | None]) -> None:
    """Check the cut of reflection-inducing probing.

    Parameters
    ----------
    answer : Callable[[list[list[str]], str], list[list[str]] | None]
        From traces and the token to the traces cut before it.

    Examples
    --------
    >>> cut_before_wait(lambda traces, wait: [t[: t.index(wait) + 1] for t in traces if wait in t])
    answer: not yet.
      - the cut still holds 'wait': the model that continues must say it by itself.

    Taught in: self-reflection
    """
    traces = [["5", ".", "wait", "8", ".", "wait", "8"], ["8", ".", "end"], ["1", ".", "wait", "2"]]
    found = answer([list(trace) for trace in traces], "wait")
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if any(trace and trace[-1] == "wait" for trace in found):
        faults.append("the cut still holds 'wait': the model that continues must say it by itself.")
    elif any("wait" in trace for trace in found):
        faults.append("a trace is cut at its last 'wait': cut at the first, or the probe measures copying.")
    elif len(found) != 2:
        faults.append(f"{len(found)} traces came back of 3, of which 2 say 'wait': leave the other out.")
    elif [list(trace) for trace in found] != [["5", "."], ["1", "."]]:
        faults.append(f"it gives {found}, and should give [['5', '.'], ['1', '.']].")
    return verdict(_name(answer), faults)


def vector_at_stop(answer: Callable[..., Tensor | None]) -> None:
    """Check the difference of means at one token.

    Parameters
    ----------
    answer : Callable[..., Tensor | None]
        From states (token, d_model), tokens, next tokens, and the ids of stop and wait to a vector.

    Examples
    --------
    >>> vector_at_stop(
    ...     lambda h, now, after, *, stop, wait: h[after == wait].mean(0) - h[after != wait].mean(0)
    ... )
    answer: not yet.
      - other tokens are among the negatives: both means are over states at the stop.

    Taught in: self-reflection
    """
    acts_ND = torch.tensor([[4.0, 1.0], [6.0, 1.0], [1.0, 1.0], [3.0, 1.0], [0.0, 9.0], [0.0, 7.0]])
    tokens_N, next_N = torch.tensor([7, 7, 7, 7, 1, 2]), torch.tensor([8, 8, 9, 9, 7, 7])
    found = answer(acts_ND, tokens_N, next_N, stop=7, wait=8)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    right_D = torch.tensor([3.0, 0.0])
    faults = []
    if found.shape != right_D.shape:
        faults.append(
            f"its shape is {tuple(found.shape)}, and should be (2,): a mean over tokens for each set."
        )
    elif torch.allclose(found, -right_D):
        faults.append("it points the other way: take the states before wait, minus the others.")
    elif abs(float(found[1])) > 1e-6:
        faults.append("other tokens are among the negatives: both means are over states at the stop.")
    elif not torch.allclose(found, right_D):
        faults.append(f"it gives {found.tolist()}, and should give [3, 0].")
    return verdict(_name(answer), faults)


def steer_from(answer: Callable[[Tensor, Tensor, float, Tensor], Tensor | None]) -> None:
    """Check the projected form with a centre.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor, float, Tensor], Tensor | None]
        From states (batch, position, d_model), a vector, alpha and the centre to new states.

    Examples
    --------
    >>> steer_from(lambda h_BTD, v_D, alpha, m_D: h_BTD + alpha * ((h_BTD - m_D) @ v_D)[..., None] * v_D)
    answer: not yet.
      - a vector twice as long gives another result: scale it to length one first.

    Taught in: self-reflection
    """
    dice = torch.Generator().manual_seed(0)
    h_BTD, v_D, m_D = (torch.randn(*shape, generator=dice) for shape in ((2, 3, 4), (4,), (4,)))
    v_D = v_D / v_D.norm()
    found = answer(h_BTD, 2 * v_D, 0.5, m_D)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    right_BTD = h_BTD + 0.5 * ((h_BTD - m_D) @ v_D)[..., None] * v_D
    plain_BTD = h_BTD + 0.5 * (h_BTD @ v_D)[..., None] * v_D
    at_centre, once = answer(m_D[None, None], 2 * v_D, 0.5, m_D), answer(h_BTD, v_D, 0.5, m_D)
    faults = []
    if found.shape != h_BTD.shape:
        faults.append(f"its shape is {tuple(found.shape)}, and should stay {tuple(h_BTD.shape)}.")
    elif torch.allclose(found, plain_BTD, atol=1e-5):
        faults.append("it measures from zero: take the component of h - m.")
    elif once is None or not torch.allclose(found, once, atol=1e-5):
        faults.append("a vector twice as long gives another result: scale it to length one first.")
    elif at_centre is None or not torch.allclose(at_centre[0, 0], m_D, atol=1e-5):
        faults.append("a state at the centre moves: it must stay, whatever alpha.")
    elif not torch.allclose(found, right_BTD, atol=1e-5):
        faults.append("the change is not alpha times the component of h - m along v.")
    return verdict(_name(answer), faults)


def coin_ceiling(answer: Callable[[float, float, float], float | None]) -> None:
    """Check the best balanced accuracy of a reader who knows which answers are wrong.

    Parameters
    ----------
    answer : Callable[[float, float, float], float | None]
        From the share of wrong answers and the two probabilities of looking back to the accuracy.

    Examples
    --------
    >>> coin_ceiling(lambda w, p_w, p_r: (p_w + 1 - p_r) / 2)
    answer: not yet.
      - with (0.4, 0.7, 0.05) it gives 0.825, and should give 0.865: condition on looking back.

    Taught in: self-reflection
    """
    cases = {
        (0.5, 1.0, 0.0): (1.0, "no coin, so no doubt"),
        (0.4, 0.5, 0.5): (0.5, "looking back says nothing about the answer"),
        (0.4, 0.7, 0.05): (_ceiling(0.4, 0.7, 0.05), "condition on looking back"),
    }
    found = {case: answer(*case) for case in cases}
    if None in found.values():
        return verdict(_name(answer), UNWRITTEN)
    return verdict(
        _name(answer),
        [
            f"with {case} it gives {found[case]:.3g}, and should give {right:.3g}: {why}."
            for case, (right, why) in cases.items()
            if abs(float(found[case] or 0) - right) > 1e-6
        ],
    )


def selectivity(answer: Callable[[Tensor, Tensor], Any]) -> None:
    """Check the selectivity of looking back.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], Any]
        From who looked back and whose first answer was right (both bool) to the difference of shares.

    Examples
    --------
    >>> selectivity(lambda looks, right: float(looks.float().mean()))
    answer: not yet.
      - a model that always looks back gets 1, and should get 0.

    Taught in: self-reflection
    """
    right_B = torch.tensor([True] * 6 + [False] * 2)
    always = torch.ones(8, dtype=torch.bool)
    some = torch.tensor([True, False, False, False, False, False, True, True])
    found = [answer(always, right_B), answer(some, right_B)]
    if None in found:
        return verdict(_name(answer), UNWRITTEN)
    faults, (every, mixed) = [], [float(value) for value in found]
    if abs(every) > 1e-6:
        faults.append(f"a model that always looks back gets {every:g}, and should get 0.")
    elif abs(mixed + 5 / 6) < 1e-6:
        faults.append("the sign is turned round: wrong answers first, minus right ones.")
    elif abs(mixed - 5 / 6) > 1e-6:
        faults.append(f"it gives {mixed:.3g}, and should give 0.833: take each share among its own traces.")
    return verdict(_name(answer), faults)


def _ceiling(w: float, p_w: float, p_r: float) -> float:
    """Return the mean of P(wrong | looked) and P(right | did not)."""
    looked = w * p_w + (1 - w) * p_r
    return (w * p_w / looked + (1 - w) * (1 - p_r) / (1 - looked)) / 2


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
