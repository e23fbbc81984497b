"""Checkers for the exercises of the chapter `strategic-imitation`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from helpers.checks import verdict
from helpers.fairness import strategic

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def choice(answer: Callable[..., str | None]) -> None:
    """Check the choice among manipulating, improving and staying.

    Parameters
    ----------
    answer : Callable[..., str | None]
        From F_0, F_I, F_1, q, eps, cost_manipulate and cost_improve to "manipulate", "improve" or "stay".

    Examples
    --------
    >>> choice(lambda F_0, F_I, F_1, q, eps, cost_manipulate, cost_improve: "stay")
    answer: not yet.
      - copying is free and never detected, and it says 'stay': it should be 'manipulate'.
      - trying always succeeds and costs little, and it says 'stay': it should be 'improve'.
      - trying never succeeds, but a failed attempt often passes, and it says 'stay': it should be 'improve'.

    Taught in: strategic-imitation
    """
    cases = {
        "copying is free and never detected": ((0.9, 0.7, 0.2, 0.1, 0.0, 0.0, 0.2), "manipulate"),
        "trying always succeeds and costs little": ((0.9, 0.7, 0.2, 1.0, 0.5, 0.1, 0.1), "improve"),
        "trying never succeeds, but a failed attempt often passes": (
            (0.9, 0.3, 0.2, 0.0, 0.9, 0.1, 0.1),
            "improve",
        ),
        "her own score passes nearly as often": ((0.2, 0.15, 0.1, 0.2, 0.3, 0.1, 0.3), "stay"),
        "nobody is accepted and nothing costs anything": ((1.0, 1.0, 1.0, 0.5, 0.5, 0.0, 0.0), "stay"),
    }
    found = {why: answer(*case) for why, (case, _) in cases.items()}
    if None in found.values():
        return verdict(_name(answer), UNWRITTEN)
    return verdict(
        _name(answer),
        [
            f"{why}, and it says {found[why]!r}: it should be {right!r}."
            for why, (_, right) in cases.items()
            if found[why] != right
        ],
    )


def change(answer: Callable[..., float | None]) -> None:
    """Check what one unqualified person changes in the lender's account.

    Parameters
    ----------
    answer : Callable[..., float | None]
        From what she did ("improved", "failed", "manipulated"), whether she passes, whether she would have
        passed, the gain and the loss, to the change.

    Examples
    --------
    >>> change(lambda kind, passes, would_have, gain, loss: gain if kind == "improved" else -loss * passes)
    answer: not yet.
      - improved, passes now, would have passed: it gives 2, and should give 5.
      - improved, rejected now, would have passed: it gives 2, and should give 3.
      - improved, rejected now, would not have passed: it gives 2, and should give 0.
      - failed, passes now, would have passed: it gives -3, and should give 0.
      - failed, rejected now, would have passed: it gives 0, and should give 3.
      - manipulated, passes now, would have passed: it gives -3, and should give 0.
      - manipulated, rejected now, would have passed: it gives 0, and should give 3.

    Taught in: strategic-imitation
    """
    faults = []
    for kind in ("improved", "failed", "manipulated"):
        for passes, would_have in ((True, True), (True, False), (False, True), (False, False)):
            found = answer(kind, passes, would_have, 2.0, 3.0)
            if found is None:
                return verdict(_name(answer), UNWRITTEN)
            right = (2.0 if kind == "improved" else -3.0) * passes + 3.0 * would_have
            if abs(found - right) > 1e-9:
                now, then = "passes" if passes else "rejected", "would" if would_have else "would not"
                faults.append(
                    f"{kind}, {now} now, {then} have passed: it gives {found + 0.0:g}, "
                    f"and should give {right:g}."
                )
    return verdict(_name(answer), faults)


def gaussian_peak(answer: Callable[..., float | None]) -> None:
    """Check the place of the peak for normal scores, against the search on the densities.

    Parameters
    ----------
    answer : Callable[..., float | None]
        From mean_failed, mean_qualified, sd, q and eps to the threshold, infinite if there is no peak.

    Examples
    --------
    >>> gaussian_peak(lambda mean_failed, mean_qualified, sd, q, eps: (mean_failed + mean_qualified) / 2)
    answer: not yet.
      - q + eps = 1: it gives 0.75, and should be infinite, since the curve rises all the way.
      - q = 0.25, eps = 0.25, sd = 1: it gives 0.75, and the peak is at 1.561.
      - q = 0.1, eps = 0.6, sd = 0.5: it gives 1.25, and the peak is at 1.433.

    Taught in: strategic-imitation
    """
    found = answer(0.5, 1.0, 1.0, 0.5, 0.5)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if found != np.inf:
        faults.append(
            f"q + eps = 1: it gives {found:g}, and should be infinite, since the curve rises all the way."
        )
    for mean_failed, mean_qualified, sd, q, eps in (
        (0.5, 1.0, 1.0, 0.25, 0.25),
        (0.5, 1.0, 1.0, 0.25, 0.0),
        (0.5, 2.0, 0.5, 0.1, 0.6),
    ):
        game = strategic.gaussian_game(0.5, q, eps=eps, means=(0.0, mean_failed, mean_qualified), sd=sd)
        right, found = strategic.peak(game), answer(mean_failed, mean_qualified, sd, q, eps)
        if found is None or not abs(found - right) < 1e-4:
            faults.append(
                f"q = {q}, eps = {eps}, sd = {sd:g}: it gives {found}, and the peak is at {right:.3f}."
            )
    return verdict(_name(answer), faults)


def likelihood_ratio(answer: Callable[[np.ndarray, float], Any]) -> None:
    """Check p_1 / p_0 from default rates.

    Parameters
    ----------
    answer : Callable[[array, float], array | None]
        From the share of unqualified people at each score, and the share of qualified people, to the ratio.

    Examples
    --------
    >>> likelihood_ratio(lambda d, alpha: (1 - d) / d)
    answer: not yet.
      - the ratio is off by one factor, 0.333: the two groups differ in size, divide by alpha and 1 - alpha.

    Taught in: strategic-imitation
    """
    d, alpha = np.array([0.9, 0.5, 0.2]), 0.25
    found = answer(d, alpha)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    right = (1 - d) / d * (1 - alpha) / alpha
    off = np.broadcast_to(np.asarray(found, dtype=float), d.shape) / right
    if np.allclose(off, 1):
        return verdict(_name(answer), [])
    if np.allclose(off, off[0]):
        return verdict(
            _name(answer),
            [
                f"the ratio is off by one factor, {off[0]:.3g}: the two groups differ in size, "
                "divide by alpha and 1 - alpha."
            ],
        )
    if np.allclose(off * right, 1 / right):
        return verdict(_name(answer), ["it is p_0 / p_1: d is the share of the *un*qualified."])
    return verdict(
        _name(answer),
        [f"at d = {d[0]} it gives {off[0] * right[0]:.3g}, and should give {right[0]:.3g}: use Bayes' rule."],
    )


def gap_report(answer: Callable[[Sequence[float]], tuple[float, str] | None]) -> None:
    """Check a gap that says why it is small.

    Parameters
    ----------
    answer : Callable[[Sequence[float]], tuple[float, str] | None]
        From the share of qualified people that each group rejects to the gap and to "everybody", "nobody" or
        "some".

    Examples
    --------
    >>> gap_report(lambda rejected: (rejected[0] - rejected[1], "some"))
    answer: not yet.
      - with 0.1, 0.3 rejected the gap is -0.2, and should be 0.2.
      - with 0.1, 0.4, 0.2 rejected the gap is -0.3, and should be 0.3.
      - with 0, 0.0005 rejected the gap is -0.0005, and should be 0.0005.
      - with 0, 0.0005 rejected it says 'some': nobody of note is rejected, say 'everybody'.
      - with 1, 0.9995 rejected it says 'some': hardly anybody passes, say 'nobody'.
      - with 0, 0.2 rejected the gap is -0.2, and should be 0.2.

    Taught in: strategic-imitation
    """
    cases = {
        (0.1, 0.3): (0.2, "some", "some pass and some do not"),
        (0.1, 0.4, 0.2): (0.3, "some", "some pass and some do not"),
        (0.0, 0.0005): (0.0005, "everybody", "nobody of note is rejected"),
        (1.0, 0.9995): (0.0005, "nobody", "hardly anybody passes"),
        (0.0, 0.2): (0.2, "some", "one group is rejected in part"),
    }
    faults = []
    for rejected, (gap, word, why) in cases.items():
        found = answer(list(rejected))
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        shown = ", ".join(f"{share:g}" for share in rejected)
        if abs(found[0] - gap) > 1e-9:
            faults.append(f"with {shown} rejected the gap is {found[0]:.3g}, and should be {gap:.3g}.")
        if found[1] != word:
            faults.append(f"with {shown} rejected it says {found[1]!r}: {why}, say {word!r}.")
    return verdict(_name(answer), faults)


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
