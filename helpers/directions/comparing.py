"""The directions of two models, beside the null that sampling noise alone would give."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.directions.reading import difference_of_means

__all__ = ["Agreement", "agreement"]

FAINT = 0.05  # a direction whose own halves agree less than this cannot be corrected for noise


@dataclass(frozen=True)
class Agreement:
    """Compare the directions of two models, with what noise alone would give.

    Parameters
    ----------
    same : float
        Cosine of the two directions, both from all prompts. Their noise is partly shared.
    null : Float[Tensor, "split"]
        Cosine of two directions of the *first* model, from two disjoint halves of the prompts.
    across : Float[Tensor, "split"]
        Cosine of the first model's direction from one half with the second model's from the other.
    corrected : Float[Tensor, "split"]
        ``across`` divided by the geometric mean of both models' mean nulls: what two noiseless directions
        would have. It can exceed 1 by chance. Means below 0.05 count as 0.05.

    Examples
    --------
    >>> one = Agreement(0.9, torch.tensor([0.8]), torch.tensor([0.7]), torch.tensor([0.875]))
    >>> one.interval("corrected")
    (0.875, 0.875)

    Taught in: refusal
    """

    same: float
    null: Float[Tensor, "split"]
    across: Float[Tensor, "split"]
    corrected: Float[Tensor, "split"]

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Return the interval in which a share `level` of the splits lies."""
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        low, high = torch.quantile(getattr(self, name).double(), ends).tolist()
        return low, high


def agreement(
    one: tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt2 d_model"]],
    other: tuple[Float[Tensor, "prompt3 d_model"], Float[Tensor, "prompt4 d_model"]],
    *,
    splits: int = 200,
    seed: int = 0,
) -> Agreement:
    """Compare the directions of two models on the same prompts, beside what sampling noise gives.

    In each split the prompts are cut into two disjoint halves, and each half is drawn again with
    replacement. A direction from one half and a direction from the other then share no noise.

    Parameters
    ----------
    one, other : pair of Float[Tensor, "prompt d_model"]
        Activations of each model under both kinds of prompts, row by row the same prompts.
    splits : int
        How many.
    seed : int
        Of the splits.

    Returns
    -------
    Agreement
        The cosine on all prompts, and for each split the null, the cosine across models, and the latter
        corrected for noise.

    Raises
    ------
    ValueError
        If there are fewer than four prompts of a kind, or the models saw different numbers.

    References
    ----------
    Spearman (1904), *The Proof and Measurement of Association between Two Things*: the correction.

    Examples
    --------
    >>> dice = torch.Generator().manual_seed(0)
    >>> noise = torch.randn(2, 40, 8, generator=dice)
    >>> pair = (noise[0] + 3.0, noise[1])
    >>> found = agreement(pair, pair, splits=20)
    >>> round(found.same, 3), bool(found.null.mean() < 1)
    (1.0, True)

    Taught in: refusal
    """
    sizes, others = [len(half) for half in one], [len(half) for half in other]
    if sizes != others or min(sizes) < 4:
        raise ValueError(
            f"the models have {sizes} and {others} prompts of the two kinds; expected equal numbers, "
            "each 4 or more"
        )
    dice = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(splits):
        halves = list(zip(*(_two_halves(size, dice) for size in sizes), strict=True))
        a, b = ([_mean_gap(pair, half) for half in halves] for pair in (one, other))
        across = (_cosine(a[0], b[1]) + _cosine(a[1], b[0])) / 2
        rows.append([_cosine(a[0], a[1]), _cosine(b[0], b[1]), across])
    null_S, other_null_S, across_S = torch.tensor(rows).T
    likeness = [max(float(null.mean()), FAINT) for null in (null_S, other_null_S)]
    same = _cosine(difference_of_means(*one), difference_of_means(*other))
    return Agreement(same, null_S, across_S, across_S / (likeness[0] * likeness[1]) ** 0.5)


def _two_halves(size: int, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut row numbers into two disjoint halves, and draw each again with replacement."""
    order = torch.randperm(size, generator=dice)
    halves = order[: size // 2], order[size // 2 : 2 * (size // 2)]
    first, second = (half[torch.randint(len(half), (len(half),), generator=dice)] for half in halves)
    return first, second


def _mean_gap(pair: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
    """Return the difference of means over some rows of each kind."""
    return difference_of_means(pair[0][rows[0]], pair[1][rows[1]])


def _cosine(one_D: Tensor, other_D: Tensor) -> float:
    """Return the cosine of two vectors, in double precision."""
    return float(torch.cosine_similarity(one_D.double(), other_D.double(), dim=0))
