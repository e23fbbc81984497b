"""Sparse encoders as proximal operators (Zhu, Khalili & Zhu, arXiv 2510.00404, Lemma 1).

A proximal operator answers one question: which code z is close to the pre-activation u and cheap under a
regulariser R? Each SAE encoder in use answers it for another R. Shapes: B batch, P latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Codes = Float[Tensor, "*batch latents"]


def relu(u_BP: Codes, level: float) -> Codes:
    """Soft-threshold and keep what is positive: the operator of level * ||z||_1 with z >= 0.

    Parameters
    ----------
    u_BP : Codes
        Pre-activations, any leading shape, latents last.
    level : float
        The weight lambda of the L1 norm, >= 0.

    Returns
    -------
    Codes
        Codes of the same shape: max(u - lambda, 0).

    Notes
    -----
    arXiv 2510.00404, Lemma 1.

    Examples
    --------
    >>> relu(torch.tensor([3.0, 0.5, -3.0]), 1.0)
    tensor([2., 0., 0.])

    Taught in: sae-derivation
    """
    return (u_BP - level).clamp(min=0)


def jumprelu(u_BP: Codes, level: float) -> Codes:
    """Keep entries of at least sqrt(2 lambda): the operator of lambda * ||z||_0 with z >= 0.

    Parameters
    ----------
    u_BP : Codes
        Pre-activations, any leading shape, latents last.
    level : float
        The price lambda of one active latent, >= 0.

    Returns
    -------
    Codes
        Codes of the same shape; kept entries are not shrunk.

    Notes
    -----
    arXiv 2510.00404, Lemma 1: keeping u_i costs lambda, dropping it costs u_i^2 / 2.

    Examples
    --------
    >>> jumprelu(torch.tensor([3.0, 0.5, -3.0]), 2.0)
    tensor([3., 0., 0.])

    Taught in: sae-derivation
    """
    return torch.where(u_BP >= (2 * level) ** 0.5, u_BP, 0.0).clamp(min=0)


def topk(u_BP: Codes, level: float) -> Codes:
    """Keep the k largest entries if positive: projection on {at most k non-zeros, z >= 0}.

    Parameters
    ----------
    u_BP : Codes
        Pre-activations, any leading shape, latents last.
    level : float
        K, the number of latents that may be active, 1 <= k <= latents.

    Returns
    -------
    Codes
        Codes of the same shape, at most k non-zero. Fewer when fewer than k entries are
        positive.

    Notes
    -----
    arXiv 2510.00404, Lemma 1.

    Examples
    --------
    >>> topk(torch.tensor([3.0, 0.5, -4.0]), 1)
    tensor([3., 0., 0.])

    Taught in: sae-derivation
    """
    values_BK, index_BK = u_BP.topk(_count(level, u_BP), dim=-1)
    return torch.zeros_like(u_BP).scatter(-1, index_BK, values_BK.clamp(min=0))


def abstopk(u_BP: Codes, level: float) -> Codes:
    """Keep the k entries of largest magnitude with their sign: projection on {at most k non-zeros}.

    Parameters
    ----------
    u_BP : Codes
        Pre-activations, any leading shape, latents last.
    level : float
        K, the number of latents that are active, 1 <= k <= latents.

    Returns
    -------
    Codes
        Codes of the same shape: the classical hard-thresholding operator.

    Notes
    -----
    arXiv 2510.00404, Lemma 1: dropping entry i costs u_i^2 / 2, so the k entries of largest magnitude stay.

    Examples
    --------
    >>> abstopk(torch.tensor([3.0, 0.5, -4.0]), 1)
    tensor([ 0.,  0., -4.])

    Taught in: sae-derivation
    """
    index_BK = u_BP.abs().topk(_count(level, u_BP), dim=-1).indices
    return torch.zeros_like(u_BP).scatter(-1, index_BK, u_BP.gather(-1, index_BK))


def _count(level: float, u_BP: Codes) -> int:
    """Read a level as a number of latents, or say why it is none."""
    if level != int(level) or not 1 <= level <= u_BP.shape[-1]:
        raise ValueError(
            f"level is {level}, but here it is k, the number of active latents: "
            f"give a whole number from 1 to {u_BP.shape[-1]}"
        )
    return int(level)


@dataclass(frozen=True)
class Operator:
    """One sparse encoder: its proximal map, and the regulariser that it minimises.

    Attributes
    ----------
    name : str
        The field's name, as it stands in figures.
    prox : callable
        (u, level) -> z.
    penalty : callable
        Of z: the part of R that a level multiplies, one number a code; zero where R is a set
        alone.
    counts : bool
        True if the level is k, the number of active latents; False if it is a price lambda.
    signed : bool
        True if codes may be negative.

    Examples
    --------
    >>> OPERATORS["abstopk"].signed, OPERATORS["topk"].signed
    (True, False)
    """

    name: str
    prox: Callable[[Codes, float], Codes]
    penalty: Callable[[Codes], Float[Tensor, "*batch"]]
    counts: bool
    signed: bool

    def feasible(self, z_BP: Codes, level: float) -> Bool[Tensor, "*batch"]:
        """Say which codes lie in the operator's constraint set."""
        fine_B = torch.ones(z_BP.shape[:-1], dtype=torch.bool, device=z_BP.device)
        if not self.signed:
            fine_B &= (z_BP >= 0).all(-1)
        if self.counts:
            fine_B &= l0(z_BP) <= level
        return fine_B


def l1(z_BP: Codes) -> Float[Tensor, "*batch"]:
    """Sum the magnitudes of each code.

    Examples
    --------
    >>> l1(torch.tensor([1.0, -2.0, 0.0]))
    tensor(3.)
    """
    return z_BP.abs().sum(-1)


def l0(z_BP: Codes) -> Float[Tensor, "*batch"]:
    """Count the non-zero entries of each code.

    Examples
    --------
    >>> l0(torch.tensor([1.0, -2.0, 0.0]))
    tensor(2.)
    """
    return (z_BP != 0).sum(-1).to(z_BP.dtype)


def _free(z_BP: Codes) -> Float[Tensor, "*batch"]:
    """Charge nothing: the regulariser is a constraint alone."""
    return z_BP.new_zeros(z_BP.shape[:-1])


OPERATORS = {
    "relu": Operator("ReLU", relu, l1, counts=False, signed=False),
    "jumprelu": Operator("JumpReLU", jumprelu, l0, counts=False, signed=False),
    "topk": Operator("TopK", topk, _free, counts=True, signed=False),
    "abstopk": Operator("AbsTopK", abstopk, _free, counts=True, signed=True),
}


def objective(operator: Operator, z_BP: Codes, *, u_BP: Codes, level: float) -> Float[Tensor, "*batch"]:
    """Evaluate 1/2 ||u - z||^2 + level * R(z), infinite outside the constraint set.

    Parameters
    ----------
    operator : Operator
        One of `OPERATORS`.
    z_BP, u_BP : Codes
        A code and the pre-activation it answers, same shape.
    level : float
        Lambda or k, as the operator has it.

    Returns
    -------
    Float[Tensor, "*batch"]
        One number a code.

    Notes
    -----
    arXiv 2510.00404, Section 3 (definition of the proximal operator).

    Examples
    --------
    >>> u = torch.tensor([3.0, -4.0])
    >>> [objective(OPERATORS[name], OPERATORS[name].prox(u, 1), u_BP=u, level=1).item()
    ...  for name in ("topk", "abstopk")]
    [8.0, 4.5]

    Taught in: sae-derivation
    """
    distance_B = (u_BP - z_BP).square().sum(-1) / 2
    price_B = distance_B + (0 if operator.counts else level) * operator.penalty(z_BP)
    return torch.where(operator.feasible(z_BP, level), price_B, torch.inf)
