"""Checkers for the exercises of the chapter `compressed-models`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.checks import verdict
from helpers.compress import keep_best, round_matrix
from helpers.sae import identity

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def wanda_mask(answer: Callable[[Tensor, Tensor, float], Tensor | None]) -> None:
    """Check which weights Wanda keeps.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor, float], Tensor | None]
        From weights (out, in), the norms of the inputs and the share to drop to a mask of what stays.

    Examples
    --------
    >>> wanda_mask(lambda weight_OI, norm_I, sparsity: keep_best(weight_OI.abs(), sparsity=sparsity))
    answer: not yet.
      - a small weight on a large input goes: multiply the size of each weight by the norm of its input.

    Taught in: compressed-models
    """
    weight_OI = torch.tensor([[1.0, -4.0, 2.0, 3.0], [0.1, 0.2, -0.3, 0.4]])
    norm_I = torch.tensor([9.0, 1.0, 1.0, 1.0])
    found = answer(weight_OI, norm_I, 0.5)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    kept, faults = found.bool(), []
    if not kept[1].any():
        faults.append("a whole row of small weights goes: compare scores within each row, not over all.")
    elif not kept[0, 0]:
        faults.append(
            "a small weight on a large input goes: multiply the size of each weight by the norm of its input."
        )
    elif not kept[0, 1]:
        faults.append("a large negative weight goes: its size counts, so take the absolute value.")
    elif not torch.equal(kept, keep_best(weight_OI.abs() * norm_I, sparsity=0.5)):
        faults.append(
            f"it keeps {kept.sum(1).tolist()} weights of the two rows of 4, and should keep 2 of each."
        )
    elif int(answer(weight_OI, norm_I, 0.3).sum()) != 6:  # type: ignore[union-attr]
        faults.append("sparsity 0.3 of a row of 4 drops 1 weight: round the number down.")
    return verdict(_name(answer), faults)


def round_rows(answer: Callable[[Tensor, int], Tensor | None]) -> None:
    """Check rounding to a symmetric grid with one scale a row.

    Parameters
    ----------
    answer : Callable[[Tensor, int], Tensor | None]
        From weights (out, in) and the number of bits to the rounded weights.

    Examples
    --------
    >>> round_rows(lambda weight_OI, bits: weight_OI.round())
    answer: not yet.
      - the row (0.1, 0.2, 0.4) becomes (0, 0, 0): its own largest weight sets the scale, here 0.4 / 3.

    Taught in: compressed-models
    """
    weight_OI = torch.tensor([[0.1, 0.2, 0.4], [100.0, -30.0, 20.0], [0.0, 0.0, 0.0]])
    found = answer(weight_OI, 3)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    right, faults = round_matrix(weight_OI, bits=3), []
    shown = ", ".join(f"{w:.2g}" for w in found[0].tolist())
    if not found[2].isfinite().all():
        faults.append("a row of zeros gives NaN: keep the scale above zero before you divide.")
    elif not torch.allclose(found[0], right[0], atol=1e-6):
        faults.append(
            f"the row (0.1, 0.2, 0.4) becomes ({shown}): its own largest weight sets the scale, here 0.4 / 3."
        )
    elif not torch.allclose(found[1], right[1], atol=1e-4):
        faults.append("-30 goes to the wrong point: round to the nearest one, do not cut.")
    return verdict(_name(answer), faults)


def bits_per_weight(answer: Callable[[Tensor], float | None]) -> None:
    """Check the storage of a pruned matrix, in bits a weight.

    Parameters
    ----------
    answer : Callable[[Tensor], float | None]
        From weights of 32 bits to the bits a weight of the cheaper form: all of them, or a mask of one bit a
        weight and the ones that are not zero.

    Examples
    --------
    >>> bits_per_weight(lambda weight_OI: 32 * (weight_OI != 0).float().mean().item())
    answer: not yet.
      - half zeros take 17 bits a weight, and it gives 16: a mask must say which half.

    Taught in: compressed-models
    """
    half, none, tiny = torch.tensor([[1.0, 0.0]]), torch.ones(1, 8), torch.tensor([[1.0, 1e-12]])
    found = [answer(weight_OI) for weight_OI in (half, none, tiny)]
    if found[0] is None or found[1] is None or found[2] is None:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if abs(found[0] - 17) > 1e-6:
        faults.append(
            f"half zeros take 17 bits a weight, and it gives {found[0]:g}: a mask must say which half."
        )
    if abs(found[1] - 32) > 1e-6:
        faults.append("a matrix without zeros needs no mask: take the cheaper of the two forms, 32 bits.")
    if abs(found[2] - 32) > 1e-6:
        faults.append("a weight of 1e-12 is small, not zero: it has to be stored.")
    return verdict(_name(answer), faults)


def survivors(answer: Callable[[Tensor, Tensor], float | None]) -> None:
    """Check the share of latents that keep at least half of their top tokens.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], float | None]
        From top tokens before and after (latent, n), -1 where a latent has too few, to the share.

    Examples
    --------
    >>> survivors(lambda before_PK, after_PK: (before_PK == after_PK).float().mean().item())
    answer: not yet.
      - the same tokens in another order give 0, and should give 1: a top list is a set.

    Taught in: compressed-models
    """
    before, turned = torch.tensor([[0, 1, 2, 3]]), torch.tensor([[3, 2, 1, 0]])
    mixed = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]])
    after = torch.tensor([[0, 1, 2, 9], [4, 10, 11, 12], [8, 9, -1, -1]])
    found = [answer(before, turned), answer(mixed, after)]
    if found[0] is None or found[1] is None:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if abs(found[0] - 1) > 1e-6:
        faults.append(
            f"the same tokens in another order give {found[0]:g}, and should give 1: a top list is a set."
        )
    elif abs(found[1] - identity(mixed, after).survive) > 1e-6:
        why = (
            "leave out latents whose list before has a -1"
            if abs(found[1] - 2 / 3) < 1e-6
            else "a latent counts as a whole, if half of its list is still there"
        )
        faults.append(f"one of two full lists survives, and it gives {found[1]:.3g}: {why}.")
    return verdict(_name(answer), faults)


def score_at(answer: Callable[[Tensor, Tensor, float], float | None]) -> None:
    """Check reading a score at a given true L0, from measurements at other ones.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor, float], float | None]
        From the true L0 and the score of some settings, and the L0 asked for, to the score there on the
        straight line between neighbours; NaN outside of what was measured.

    Examples
    --------
    >>> score_at(lambda l0_S, score_S, target: score_S[(l0_S - target).abs().argmin()].item())
    answer: not yet.
      - between L0 = 10 (0.5) and 30 (0.7) it gives 0.5 at 15, and should give 0.55: draw the line.
      - at L0 = 200 nothing was measured, and it gives 0.8: say NaN, do not guess.

    Taught in: compressed-models
    """
    l0_S, score_S = torch.tensor([30.0, 10.0, 50.0]), torch.tensor([0.7, 0.5, 0.8])
    found = [answer(l0_S, score_S, target) for target in (15.0, 40.0, 200.0)]
    if found[0] is None or found[1] is None or found[2] is None:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if abs(found[0] - 0.55) > 1e-6 or abs(found[1] - 0.75) > 1e-6:
        faults.append(
            f"between L0 = 10 (0.5) and 30 (0.7) it gives {found[0]:.3g} at 15, and should give 0.55: "
            "draw the line."
            if abs(found[0] - 0.5) < 1e-6
            else "the settings come in any order: sort them by L0 first."
        )
    if not math.isnan(found[2]):
        faults.append(
            f"at L0 = 200 nothing was measured, and it gives {found[2]:.3g}: say NaN, do not guess."
        )
    return verdict(_name(answer), faults)


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
