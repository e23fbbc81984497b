"""Activations at the last positions of each prompt, and the difference of their means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from helpers import trace
from helpers.models import LanguageModel

__all__ = ["difference_of_means", "last_positions"]


def last_positions(
    lm: LanguageModel, texts: Sequence[str], *, positions: int = 5, batch_size: int = 24
) -> Float[Tensor, "text position layer d_model"]:
    """Collect the residual stream after every layer, at the last positions of each text.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    texts : sequence of str
        Prompts of any lengths, each longer than `positions`.
    positions : int
        How many; index -1 is the last token.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    Float[Tensor, "text position layer d_model"]
        float32, on the CPU.

    Raises
    ------
    ValueError
        If a text is too short.

    Examples
    --------
    >>> from helpers import directions, models
    >>> directions.last_positions(models.random_model(), ["good", "evening"], positions=2).shape
    torch.Size([2, 2, 2, 16])

    Taught in: refusal
    """
    tokens_NT, lengths_N = trace.pad_texts(lm, texts)
    if positions < 1 or int(lengths_N.min()) <= positions:
        raise ValueError(
            f"positions is {positions} and the shortest text has {int(lengths_N.min())} tokens; "
            "expected 1 or more, and fewer than that"
        )
    sites = [trace.Site(layer) for layer in range(lm.n_layers)]
    flat = trace.collect(lm, tokens_NT, sites=sites, batch_size=batch_size, skip_first=0, progress=False)
    where_NT = lengths_N[:, None] - positions + torch.arange(positions)
    rows_N1 = torch.arange(len(texts))[:, None]
    shape = (*tokens_NT.shape, lm.d_model)
    return torch.stack([flat[site].view(shape)[rows_N1, where_NT] for site in sites], dim=2)


def difference_of_means(
    one: Float[Tensor, "prompt *rest"], other: Float[Tensor, "prompt2 *rest"]
) -> Float[Tensor, "*rest"]:
    """Subtract the mean of one set of activations from the mean of another, in double precision.

    Parameters
    ----------
    one, other : Float[Tensor, "prompt *rest"]
        Activations, one row a prompt; the numbers of prompts may differ.

    Returns
    -------
    Float[Tensor, "*rest"]
        Points from `other` to `one`, in the activations' own units.

    Raises
    ------
    ValueError
        If a set is empty.

    References
    ----------
    Arditi et al. (2024), *Refusal in Language Models Is Mediated by a Single Direction*, arXiv 2406.11717,
    section 2.3.

    Examples
    --------
    >>> difference_of_means(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0]]))
    tensor([2.])

    Taught in: refusal
    """
    if not (len(one) and len(other)):
        raise ValueError(f"{len(one)} and {len(other)} prompts were given; expected at least one of each")
    return (one.double().mean(0) - other.double().mean(0)).to(one.dtype)
