"""A candidate direction for each position and layer, what each does, which is best, and how sure that is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from helpers import trace
from helpers.directions.reading import difference_of_means
from helpers.directions.removing import Direction, ablation
from helpers.directions.scoring import divergence, log_odds
from helpers.models import LanguageModel

__all__ = ["Candidate", "candidates", "judge", "reselect", "select"]


@dataclass(frozen=True, eq=False)
class Candidate:
    """Hold a candidate direction's source and its three scores, one value a prompt.

    Parameters
    ----------
    position : int
        Counted from the end of the prompt: -1 is its last token.
    layer : int
        The direction is read after this layer.
    bypass_N : Float[Tensor, "prompt"]
        Score on harmful prompts with the direction ablated: low is good.
    induce_N : Float[Tensor, "prompt2"]
        Score on harmless prompts with the direction added: high is good.
    kl_N : Float[Tensor, "prompt2"]
        What the ablation changes on harmless prompts, in nats: low is good.

    Examples
    --------
    >>> one = Candidate(-1, 12, torch.tensor([-4.0, -2.0]), torch.tensor([3.0]), torch.tensor([0.02]))
    >>> one.bypass, one.source
    (-3.0, (-1, 12))

    Taught in: refusal
    """

    position: int
    layer: int
    bypass_N: Float[Tensor, "prompt"]
    induce_N: Float[Tensor, "prompt2"]
    kl_N: Float[Tensor, "prompt2"]

    @property
    def source(self) -> tuple[int, int]:
        """Position and layer."""
        return self.position, self.layer

    @property
    def bypass(self) -> float:
        """Mean score on harmful prompts with the direction ablated."""
        return float(self.bypass_N.mean())

    @property
    def induce(self) -> float:
        """Mean score on harmless prompts with the direction added."""
        return float(self.induce_N.mean())

    @property
    def kl(self) -> float:
        """Mean divergence of the ablated model on harmless prompts, in nats."""
        return float(self.kl_N.mean())


def candidates(
    positive_NTLD: Float[Tensor, "prompt position layer d_model"],
    negative_NTLD: Float[Tensor, "prompt2 position layer d_model"],
    *,
    layers: Iterable[int],
    positions: Iterable[int],
) -> dict[tuple[int, int], Direction]:
    """Make a direction for each position and layer.

    Parameters
    ----------
    positive_NTLD, negative_NTLD : Float[Tensor, "prompt position layer d_model"]
        From `last_positions`, for both kinds of prompts.
    layers : iterable of int
        After which layers.
    positions : iterable of int
        Negative: -1 is the last token.

    Returns
    -------
    dict of (int, int) to Float[Tensor, "d_model"]
        By (position, layer).

    Examples
    --------
    >>> made = candidates(torch.ones(3, 2, 4, 8), torch.zeros(3, 2, 4, 8), layers=(1, 2), positions=(-1,))
    >>> list(made)
    [(-1, 1), (-1, 2)]

    Taught in: refusal
    """
    means_TLD = difference_of_means(positive_NTLD, negative_NTLD)
    depths = list(layers)
    return {(at, layer): means_TLD[at, layer] for at in positions for layer in depths}


def judge(
    lm: LanguageModel,
    direction_D: Direction,
    *,
    at: tuple[int, int],
    harmful: Sequence[str],
    harmless: Sequence[str],
    tokens: Int[Tensor, "word"],
    unedited_NV: Float[Tensor, "prompt vocab"],
    batch_size: int = 24,
) -> Candidate:
    """Score a candidate: what is left of refusal without it, what comes with it, and what else changes.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    direction_D : Float[Tensor, "d_model"]
        The candidate, with its length: that much of it is added.
    at : (int, int)
        Its position and layer. It is added after that layer, at all positions.
    harmful, harmless : sequence of str
        Validation prompts, as the model takes them.
    tokens : Int[Tensor, "word"]
        First tokens of refusals, from `openings`.
    unedited_NV : Float[Tensor, "prompt vocab"]
        What the model predicts after the harmless prompts when nothing is edited.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Candidate
        With bypass, induce and KL.

    References
    ----------
    Arditi et al. (2024), appendix C: *direction selection*.

    Examples
    --------
    >>> from helpers import directions, models, trace
    >>> lm = models.random_model()
    >>> said = trace.next_token(lm, ["good day"])
    >>> found = directions.judge(lm, torch.ones(16), at=(-1, 0), harmful=["bad day"], harmless=["good day"],
    ...     tokens=torch.tensor([50]), unedited_NV=said)
    >>> found.source, found.kl >= 0
    ((-1, 0), True)

    Taught in: refusal
    """
    without = ablation(lm, direction_D)
    both = trace.next_token(lm, [*harmful, *harmless], edits=without, batch_size=batch_size)
    added = [trace.add(trace.Site(at[1]), direction_D)]
    pushed = trace.next_token(lm, harmless, edits=added, batch_size=batch_size)
    return Candidate(
        *at,
        bypass_N=log_odds(both[: len(harmful)], tokens),
        induce_N=log_odds(pushed, tokens),
        kl_N=divergence(unedited_NV, both[len(harmful) :]),
    )


def select(
    judged: Iterable[Candidate], *, layers: int, kl_ceiling: float = 0.1, deepest: float = 0.8
) -> Candidate:
    """Choose the candidate that takes away refusal best, among those that pass three filters.

    Parameters
    ----------
    judged : iterable of Candidate
        Keep them all: the ones that were not chosen say how close the choice was.
    layers : int
        How many the model has.
    kl_ceiling : float
        The most that the ablation may change on harmless prompts, in nats.
    deepest : float
        Only layers before this share of the depth: a late direction may only name the refusing words.

    Returns
    -------
    Candidate
        The one with the lowest bypass score whose induce score is at least 0.

    Raises
    ------
    ValueError
        If none passes; the message says how many fell to which filter.

    References
    ----------
    Arditi et al. (2024), appendix C.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> few = [Candidate(-1, 1, -3 * one, one, 0.5 * one), Candidate(-1, 2, -2 * one, one, 0.05 * one)]
    >>> select(few, layers=4).source
    (-1, 2)

    Taught in: refusal
    """
    pool = list(judged)
    fit = [c for c in pool if c.kl <= kl_ceiling and c.induce >= 0 and c.layer < deepest * layers]
    if not fit:
        raise ValueError(
            f"none of {len(pool)} candidates passes: {sum(c.kl > kl_ceiling for c in pool)} change harmless "
            f"answers by more than {kl_ceiling} nats, {sum(c.induce < 0 for c in pool)} induce no refusal, "
            f"{sum(c.layer >= deepest * layers for c in pool)} are too deep. Judge more, or raise kl_ceiling"
        )
    return min(fit, key=lambda c: c.bypass)


def reselect(
    judged: Sequence[Candidate],
    *,
    layers: int,
    draws: int = 200,
    seed: int = 0,
    kl_ceiling: float = 0.1,
    deepest: float = 0.8,
) -> Counter[tuple[int, int] | None]:
    """Choose again with other draws of the validation prompts, to see how sure the source is.

    A source that would have been another one with other prompts cannot be said to have moved.

    Parameters
    ----------
    judged : sequence of Candidate
        All of one model, judged on the same prompts.
    layers : int
        How many the model has.
    draws : int
        How often the prompts are drawn, with replacement.
    seed : int
        Of the draws.
    kl_ceiling, deepest : float
        As for `select`.

    Returns
    -------
    Counter of (int, int) or None
        How often each source was chosen; None counts the draws in which no candidate passed.

    Raises
    ------
    ValueError
        If there is no candidate.

    Examples
    --------
    >>> one = torch.ones(2)
    >>> reselect([Candidate(-1, 2, -2 * one, one, 0.05 * one)], layers=4, draws=5)
    Counter({(-1, 2): 5})

    Taught in: refusal
    """
    if not judged:
        raise ValueError("reselect got no candidates; judge some first")
    dice = torch.Generator().manual_seed(seed)
    bypass_CN, induce_CN, kl_CN = (
        torch.stack([getattr(c, name) for c in judged]) for name in ("bypass_N", "induce_N", "kl_N")
    )
    shallow_C = torch.tensor([c.layer < deepest * layers for c in judged])
    found: Counter[tuple[int, int] | None] = Counter()
    for _ in range(draws):
        harmful, harmless = (
            torch.randint(n, (n,), generator=dice) for n in (bypass_CN.shape[1], kl_CN.shape[1])
        )
        fit_C = (kl_CN[:, harmless].mean(1) <= kl_ceiling) & (induce_CN[:, harmless].mean(1) >= 0) & shallow_C
        best = torch.where(fit_C, bypass_CN[:, harmful].mean(1), torch.inf).argmin()
        found[judged[int(best)].source if bool(fit_C.any()) else None] += 1
    return found
