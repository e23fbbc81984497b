"""Checkers for the exercises of the chapter `refusal`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers import directions
from helpers.checks import verdict

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def refusal_score(answer: Callable[[Tensor, list[int]], float | None]) -> None:
    """Check the log-odds that the next token is one of the openings.

    Parameters
    ----------
    answer : Callable[[Tensor, list[int]], float | None]
        From the probabilities of the next token (vocab,) and the openings' token ids to the score in nats.

    Examples
    --------
    >>> refusal_score(lambda p_V, opening: float(p_V[opening].sum().log()))
    answer: not yet.
      - with P = 0.5 it gives -0.693, and should give 0: as likely as not.
    >>> refusal_score(lambda p_V, opening: float(p_V[opening].sum().logit()))
    answer: right.

    Taught in: refusal
    """
    cases = {
        (0.5, 0.2, 0.3): ([0], 0.0, "with P = 0.5", "as likely as not"),
        (0.3, 0.3, 0.4): ([0, 1], 0.405, "with two openings at 0.3 each", "sum them before the logarithm"),
        (0.1, 0.1, 0.8): ([0], -2.197, "with P = 0.1", "divide by 1 - P, not by the other opening"),
    }
    for probabilities, (opening, right, when, why) in cases.items():
        found = answer(torch.tensor(probabilities), opening)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        if abs(float(found) - right) > 2e-3:
            fault = f"{when} it gives {float(found):.3g}, and should give {right:.3g}: {why}."
            return verdict(_name(answer), [fault])
    return verdict(_name(answer), [])


def remove(answer: Callable[[Tensor, Tensor], Tensor | None]) -> None:
    """Check the ablation of a direction from activations.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], Tensor | None]
        From activations (batch, d_model) and a direction of any length to activations without it.

    Examples
    --------
    >>> remove(lambda x_BD, direction_D: x_BD - direction_D)
    answer: not yet.
      - something along the direction is left: each row needs its own amount, (x . r) r.
    >>> remove(lambda x_BD, direction_D: x_BD - (x_BD @ direction_D)[:, None] * direction_D)
    answer: not yet.
      - it works only for directions of length 1: scale the direction first.

    Taught in: refusal
    """
    dice = torch.Generator().manual_seed(0)
    x_BD, unit_D = torch.randn(6, 8, generator=dice), normalize(torch.randn(8, generator=dice), dim=0)
    found, longer = answer(x_BD, unit_D), answer(x_BD, 3 * unit_D)
    if found is None or longer is None:
        return verdict(_name(answer), UNWRITTEN)
    right = x_BD - (x_BD @ unit_D)[:, None] * unit_D
    if float((found @ unit_D).abs().max()) > 1e-4:
        fault = "something along the direction is left: each row needs its own amount, (x . r) r."
    elif not torch.allclose(found, right, atol=1e-4):
        fault = "what is orthogonal to the direction has changed: subtract nothing else."
    elif not torch.allclose(longer, right, atol=1e-4):
        fault = "it works only for directions of length 1: scale the direction first."
    else:
        return verdict(_name(answer), [])
    return verdict(_name(answer), [fault])


def orthogonal(answer: Callable[[Tensor, Tensor], Tensor | None]) -> None:
    """Check weight orthogonalisation of one matrix.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], Tensor | None]
        From a matrix (d_model, in), whose rows are coordinates of the stream, and a unit direction (d_model,)
        to the matrix that cannot write it.

    Examples
    --------
    >>> orthogonal(lambda weight_DI, unit_D: weight_DI - weight_DI @ unit_D[:, None] * unit_D)
    answer: not yet.
      - the direction is gone from what the matrix reads; it must go from what it writes, r^T W = 0.

    Taught in: refusal
    """
    dice = torch.Generator().manual_seed(0)
    weight_DI, unit_D = torch.randn(8, 8, generator=dice), normalize(torch.randn(8, generator=dice), dim=0)
    found = answer(weight_DI, unit_D)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    if torch.allclose(found, directions.project_out(weight_DI, unit_D), atol=1e-4):
        return verdict(_name(answer), [])
    fault = "r^T W should be zero, and W unchanged elsewhere: subtract r (r^T W), an outer product."
    if float((found @ unit_D).abs().max()) < 1e-4:
        fault = "the direction is gone from what the matrix reads; it must go from what it writes, r^T W = 0."
    return verdict(_name(answer), [fault])


def rank_one_repair(answer: Callable[[Tensor, Tensor, Tensor], Tensor | None]) -> None:
    """Check the repair that gives a pruned matrix back what the dense one writes along a direction.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor, Tensor], Tensor | None]
        From the pruned matrix, the dense one (both (d_model, in)) and a unit direction to the repaired one.

    Examples
    --------
    >>> rank_one_repair(lambda pruned_DI, dense_DI, unit_D: dense_DI)
    answer: not yet.
      - everything is as before pruning: restore only the part along the direction.

    Taught in: refusal
    """
    dice = torch.Generator().manual_seed(0)
    dense_DI, unit_D = torch.randn(8, 6, generator=dice), normalize(torch.randn(8, generator=dice), dim=0)
    pruned_DI = dense_DI * (dense_DI.abs() > 0.6)
    found = answer(pruned_DI, dense_DI, unit_D)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    if torch.allclose(found, directions.restore(pruned_DI, unit_D, dense_DI=dense_DI), atol=1e-4):
        return verdict(_name(answer), [])
    rest = directions.project_out(found - pruned_DI, unit_D).abs().max()
    if torch.allclose(found, dense_DI):
        fault = "everything is as before pruning: restore only the part along the direction."
    elif float(rest) > 1e-4:
        fault = "the change is not of rank one along r: it should be r (r^T (dense - pruned))."
    else:
        fault = "r^T W should be what the dense matrix has: add the difference, not the dense part on top."
    return verdict(_name(answer), [fault])


def corrected_cosine(answer: Callable[[float, float, float], float | None]) -> None:
    """Check the correction of a cosine for sampling noise.

    Parameters
    ----------
    answer : Callable[[float, float, float], float | None]
        From the cosine across models, and both models' split-half cosines, to the corrected one.

    Examples
    --------
    >>> corrected_cosine(lambda across, null, other_null: across)
    answer: not yet.
      - with cosines (0.8, 0.8, 0.8) it gives 0.8, and should give 1: as near as each is to itself.

    Taught in: refusal
    """
    cases = {
        (0.8, 0.8, 0.8): (1.0, "as near as each is to itself"),
        (0.6, 0.9, 0.4): (1.0, "the two nulls count alike, by their geometric mean"),
        (0.45, 0.9, 0.9): (0.5, "half of what noise allows"),
    }
    found = {given: answer(*given) for given in cases}
    if None in found.values():
        return verdict(_name(answer), UNWRITTEN)
    return verdict(
        _name(answer),
        [
            f"with cosines ({', '.join(f'{x:g}' for x in given)}) it gives {found[given]:.3g}, "
            f"and should give {right:g}: {why}."
            for given, (right, why) in cases.items()
            if abs(float(found[given] or 0) - right) > 1e-3
        ][:1],
    )


def _name(answer: Callable[..., object]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
