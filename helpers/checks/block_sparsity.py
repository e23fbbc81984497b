"""Checkers for the exercises of the chapter `block-sparsity`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.blocksparse import cost, shrink_blocks
from helpers.checks import verdict

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def zero_share(answer: Callable[[Tensor, int], Any]) -> None:
    """Check the share of zero blocks.

    Parameters
    ----------
    answer : callable
        From a weight and the side of a block to a share.

    Examples
    --------
    >>> zero_share(lambda weight, side: (weight < 1e-4).double().mean())
    answer: not yet.
      - a dense weight with negative entries: it gives 0.5, and should give 0: negative is not small.

    Taught in: block-sparsity
    """
    signs = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(2, 2)
    uneven = torch.tensor([[1.0, -2.0], [-1.0, 3.0]]).repeat(2, 2)
    one = torch.zeros(4, 4)
    one[0, 1] = -1.0
    cancels = torch.zeros(4, 4)
    cancels[:2, :2] = signs[:2, :2]
    cases = [
        (uneven, 0.0, "a dense weight with negative entries", "negative is not small"),
        (one, 0.75, "one entry in one block", "a block is zero only if all its entries are"),
        (cancels, 0.75, "a block whose sum is zero", "entries may cancel without being zero"),
    ]
    for weight, right, what, why in cases:
        found = answer(weight.clone(), 2)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        if abs(float(found) - right) > 1e-6:
            fault = f"{what}: it gives {float(found):.3g}, and should give {right:.3g}: {why}."
            return verdict(_name(answer), [fault])
    return verdict(_name(answer), [])


def kron_times(answer: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """Check the product of a Kronecker product with a vector.

    Parameters
    ----------
    answer : callable
        From C (p, q), B (m, n) and x (q * n) to a vector of p * m numbers.

    Examples
    --------
    >>> kron_times(lambda c, b, x: torch.kron(b, c) @ x)
    answer: not yet.
      - 2 x 3 blocks of 4 x 5: the numbers are those of B (x) C: C says which block, B what is in it.

    Taught in: block-sparsity
    """
    dice = torch.Generator().manual_seed(0)
    c, b, x = (torch.randn(*shape, generator=dice) for shape in ((2, 3), (4, 5), (15,)))
    found = answer(c.clone(), b.clone(), x.clone())
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    found = torch.as_tensor(found).flatten()
    right = torch.kron(c, b) @ x
    start = "2 x 3 blocks of 4 x 5: "
    if len(found) != len(right):
        return verdict(
            _name(answer), [f"{start}it gives {len(found)} numbers, and should give {len(right)}."]
        )
    if (found - right).abs().max() < 1e-4:
        return verdict(_name(answer), [])
    why = "the numbers are wrong: cut x into 3 pieces of 5, one piece a row."
    if (found - torch.kron(b, c) @ x).abs().max() < 1e-4:
        why = "the numbers are those of B (x) C: C says which block, B what is in it."
    elif (found.sort().values - right.sort().values).abs().max() < 1e-4:
        why = "the numbers are right but in another order: read the result row by row, one block row a row."
    return verdict(_name(answer), [start + why])


def shorten(answer: Callable[[Tensor, float], Any]) -> None:
    """Check the proximal step of the group lasso for one block.

    Parameters
    ----------
    answer : callable
        From a block and an amount to a block.

    Examples
    --------
    >>> shorten(lambda block, amount: block.sign() * (block.abs() - amount).clamp(min=0))
    answer: not yet.
      - entries 3 and 4, amount 1: it gives 2, 3, and should give 2.4, 3.2: the direction must stay.

    Taught in: block-sparsity
    """
    cases = [
        ([3.0, 4.0], 1.0, "the direction must stay"),
        ([0.3, -0.4], 1.0, "a block that is shorter than the amount becomes zero, and does not turn round"),
        ([0.0, 0.0], 1.0, "a block of zeros stays one"),
    ]
    for entries, amount, why in cases:
        block = torch.tensor([entries])
        found = answer(block.clone(), amount)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        right = shrink_blocks(block, (1, 2), amount=amount)
        if not (found - right).abs().max() < 1e-5:
            gives, should = (", ".join(f"{value:.3g}" for value in t.flatten()) for t in (found, right))
            what = f"entries {entries[0]:g} and {entries[1]:g}, amount {amount:g}"
            fault = f"{what}: it gives {gives}, and should give {should}: {why}."
            return verdict(_name(answer), [fault])
    return verdict(_name(answer), [])


def most_terms(answer: Callable[[int, int], Any]) -> None:
    """Check up to how many terms factors need fewer multiplications than a dense layer.

    Parameters
    ----------
    answer : callable
        From the width of a square layer and the side of a block to a number of terms.

    Examples
    --------
    >>> most_terms(lambda width, side: side)
    answer: not yet.
      - width 1024, side 8: it gives 8, and should give 7: 8 terms take 1.0625 times as many as dense.

    Taught in: block-sparsity
    """
    for width, side in ((1024, 8), (64, 4), (8, 2), (8, 8)):
        found = answer(width, side)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        macs = cost(width, width, block=(side, side)).macs
        right = (width**2 - 1) // macs
        if int(found) != right:
            wrong = max(int(found), 1) if int(found) > right else right
            why = f"{wrong} terms take {wrong * macs / width**2:.5g} times as many as dense"
            fault = f"width {width}, side {side}: it gives {int(found)}, and should give {right}: {why}."
            return verdict(_name(answer), [fault])
    return verdict(_name(answer), [])


def _name(answer: Callable[..., Any]) -> str:
    """Return the name of the reader's function."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
