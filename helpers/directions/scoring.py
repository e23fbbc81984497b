"""How near a model is to refusing, how far its predictions move, and shares with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from helpers.models import LanguageModel

__all__ = ["Rate", "divergence", "log_odds", "openings", "rate"]


def openings(lm: LanguageModel, words: Sequence[str]) -> Int[Tensor, "word"]:
    """Look up the first tokens of refusals.

    Parameters
    ----------
    lm : LanguageModel
        Gives the tokenizer.
    words : sequence of str
        How a refusal begins, such as ``"Sorry"`` or ``"I"``. Only the first token of each counts.

    Returns
    -------
    Int[Tensor, "word"]
        Token ids, each once, in ascending order.

    Raises
    ------
    ValueError
        If there is no word, or one has no token.

    Examples
    --------
    >>> from helpers.models import random_model
    >>> openings(random_model(), ["Sorry", "So"])  # one token a byte
    tensor([50])

    Taught in: refusal
    """
    ids = [lm.tokenizer(word, add_special_tokens=False).input_ids for word in words]
    if not ids or not all(ids):
        raise ValueError(f"the words are {list(words)}; expected at least one, each with a token")
    return torch.tensor(sorted({row[0] for row in ids}))


def log_odds(
    logprobs_NV: Float[Tensor, "prompt vocab"], tokens: Int[Tensor, "word"]
) -> Float[Tensor, "prompt"]:
    """Return the log-odds that the next token is one of some.

    Parameters
    ----------
    logprobs_NV : Float[Tensor, "prompt vocab"]
        Log-probabilities of the next token, from `helpers.trace.next_token`.
    tokens : Int[Tensor, "word"]
        Which tokens count, from `openings`.

    Returns
    -------
    Float[Tensor, "prompt"]
        ``log P - log (1 - P)`` in nats; above 0 if they are likelier than all others together.

    References
    ----------
    Arditi et al. (2024), appendix B: the *refusal metric*.

    Examples
    --------
    >>> log_odds(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([0]))
    tensor([1.0986])

    Taught in: refusal
    """
    others_V = torch.ones(logprobs_NV.shape[1], dtype=torch.bool)
    others_V[tokens] = False
    yes_N = logprobs_NV[:, tokens].double().logsumexp(1)
    return (yes_N - logprobs_NV[:, others_V].double().logsumexp(1)).to(logprobs_NV.dtype)


def divergence(
    logprobs_NV: Float[Tensor, "prompt vocab"], changed_NV: Float[Tensor, "prompt vocab"]
) -> Float[Tensor, "prompt"]:
    """Return how far predictions are from others: the Kullback-Leibler divergence of each prompt.

    Parameters
    ----------
    logprobs_NV, changed_NV : Float[Tensor, "prompt vocab"]
        Log-probabilities before and after a change.

    Returns
    -------
    Float[Tensor, "prompt"]
        In nats, 0 or more.

    Examples
    --------
    >>> divergence(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log())
    tensor([0.1438])

    Taught in: refusal
    """
    return (logprobs_NV.exp() * (logprobs_NV - changed_NV)).sum(1).clamp(min=0)


@dataclass(frozen=True)
class Rate:
    """Hold a share of prompts with its 95 % interval.

    Parameters
    ----------
    share, low, high : float
        Between 0 and 1.
    n : int
        Prompts.

    Examples
    --------
    >>> Rate(0.5, 0.2, 0.8, 10).interval
    (0.2, 0.8)

    Taught in: refusal
    """

    share: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return both ends, as `run.record` takes them."""
        return self.low, self.high


def rate(scores_N: Float[Tensor, "prompt"], *, above: float = 0.0) -> Rate:
    """Count how many scores are above a threshold, with Wilson's interval.

    Parameters
    ----------
    scores_N : Float[Tensor, "prompt"]
        One a prompt.
    above : float
        The threshold.

    Returns
    -------
    Rate
        The share and its 95 % interval, which has a width even when all prompts agree.

    Raises
    ------
    ValueError
        If there is no score, or one is not a number.

    Examples
    --------
    >>> rate(torch.tensor([-1.0, -2.0, -3.0, 4.0])).share
    0.25

    Taught in: refusal
    """
    from scipy.stats import binomtest

    if len(scores_N) == 0 or bool(scores_N.isnan().any()):
        raise ValueError(f"{len(scores_N)} scores, some perhaps NaN, were given; expected numbers")
    hits, n = int((scores_N > above).sum()), len(scores_N)
    ends = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Rate(hits / n, float(ends.low), float(ends.high), n)
