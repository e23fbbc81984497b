"""Checkers for the exercises of the chapter `sae-derivation`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from helpers.checks import verdict
from helpers.sae import SparseAutoencoder, sign_audit, unroll

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def soft_threshold(answer: Callable[[Tensor, float], Tensor | None]) -> None:
    """Check the proximal operator of the plain L1 norm, sign(u) max(|u| - lambda, 0).

    Parameters
    ----------
    answer : Callable[[Tensor, float], Tensor | None]
        From pre-activations (latents,) and lambda to codes.

    Examples
    --------
    >>> soft_threshold(lambda u_P, level: (u_P - level).clamp(min=0))
    answer: not yet.
      - u = -3, lambda = 1 gives 0, and should give -2: without z >= 0 a large negative entry stays.
    >>> soft_threshold(lambda u_P, level: u_P.sign() * (u_P.abs() - level).clamp(min=0))
    answer: right.

    Taught in: sae-derivation
    """
    why = {
        3.0: "the L1 norm pulls a large entry towards zero by lambda",
        -3.0: "without z >= 0 a large negative entry stays",
        0.5: "an entry smaller than lambda costs less as zero",
    }
    entries = torch.tensor(list(why))
    found = answer(entries, 1.0)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    right = entries.sign() * (entries.abs() - 1).clamp(min=0)
    return verdict(
        _name(answer),
        [
            f"u = {u:g}, lambda = 1 gives {z:g}, and should give {r + 0:g}: {why[u]}."
            for u, z, r in zip(entries.tolist(), found.tolist(), right.tolist(), strict=True)
            if abs(z - r) > 1e-6
        ],
    )


def loss_recovered(answer: Callable[[float, float, float], float | None]) -> None:
    """Check loss recovered from the three losses: original, spliced, ablated.

    Parameters
    ----------
    answer : Callable[[float, float, float], float | None]
        From the three losses in nats to the share that comes back.

    Examples
    --------
    >>> loss_recovered(lambda original, spliced, ablated: (ablated - spliced) / (ablated - original))
    answer: right.
    >>> loss_recovered(lambda original, spliced, ablated: original / spliced)
    answer: not yet.
      - with losses (2, 10, 10) it gives 0.2, and should give 0: as bad as the ablation.
      - with losses (2, 4, 10) it gives 0.5, and should give 0.75: 6 of the gap of 8 nats are closed.
      - with losses (2, 12, 10) it gives 0.167, and should give -0.25: worse than the ablation.

    Taught in: sae-derivation
    """
    cases = {
        (2.0, 2.0, 10.0): (1.0, "lossless"),
        (2.0, 10.0, 10.0): (0.0, "as bad as the ablation"),
        (2.0, 4.0, 10.0): (0.75, "6 of the gap of 8 nats are closed"),
        (2.0, 12.0, 10.0): (-0.25, "worse than the ablation"),
    }
    found = {losses: answer(*losses) for losses in cases}
    if None in found.values():
        return verdict(_name(answer), UNWRITTEN)
    return verdict(
        _name(answer),
        [
            f"with losses ({', '.join(f'{x:g}' for x in losses)}) it gives {found[losses]:.3g}, "
            f"and should give {right:g}: {why}."
            for losses, (right, why) in cases.items()
            if abs(float(found[losses] or 0) - right) > 1e-6
        ],
    )


def two_sided_share(answer: Callable[[Tensor, float], float | None]) -> None:
    """Check the share of latents that fire on both sides.

    Parameters
    ----------
    answer : Callable[[Tensor, float], float | None]
        From codes (token, latents) and the least share of the rarer sign to the share of two-sided latents
        among those that fire at all.

    Examples
    --------
    >>> two_sided_share(lambda z_NP, each_side: 1.0)
    answer: not yet.
      - 9 firings up and 1 down count at each_side = 0.2: the rarer sign has only a tenth.

    Taught in: sae-derivation
    """
    lopsided = torch.tensor([[1.0]] * 9 + [[-1.0]])
    silent = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    found = [answer(lopsided, 0.2), answer(silent, 0.2)]
    if None in found:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if found[0] != 0:
        faults.append("9 firings up and 1 down count at each_side = 0.2: the rarer sign has only a tenth.")
    if found[1] != 1:
        faults.append("a latent that never fires is counted: take the share among latents that fire.")
    sae = SparseAutoencoder(6, 12, operator="abstopk", k=3)
    acts_ND = torch.randn(400, 6, generator=torch.Generator().manual_seed(0)) + 0.8
    with torch.no_grad():
        ours, theirs = sign_audit(sae, acts_ND, at_least=1).share, answer(sae.encode(acts_ND), 0.2)
    if not faults and abs(float(theirs or 0) - ours) > 1e-6:
        faults.append(f"on random codes it gives {theirs:.3f}, and helpers.sae.sign_audit {ours:.3f}.")
    return verdict(_name(answer), faults)


def one_more_step(answer: Callable[[Any, Tensor, Tensor], Tensor | None]) -> None:
    """Check one further proximal step, with step size 1 / L.

    Parameters
    ----------
    answer : Callable[[Any, Tensor, Tensor], Tensor | None]
        From an SAE with scale 1, activations (batch, d_model) and codes (batch, latents) to the next codes.

    Examples
    --------
    >>> one_more_step(lambda sae, acts_BD, z_BP: z_BP)
    answer: not yet.
      - the error stays as it was: the step must follow the residual acts - sae.decode(z).

    Taught in: sae-derivation
    """
    sae = SparseAutoencoder(8, 24, operator="abstopk", k=4)
    acts_BD = torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z_BP = sae.encode(acts_BD)
        found = answer(sae, acts_BD, z_BP)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        before, after = (float((acts_BD - sae.decode(z)).square().sum()) for z in (z_BP, found))
        target = float((acts_BD - sae.decode(unroll(sae, acts_BD, steps=2))).square().sum())
    faults = []
    if int((found != 0).sum(1).max()) > sae.k:
        faults.append(
            f"a code has more than k = {sae.k} active latents: end with the operator, sae.operator.prox."
        )
    elif after > 1.001 * before:
        faults.append(
            "the error rises: follow D (x - x_hat), and use a step of 1 / L, L the largest eigenvalue."
        )
    elif after > 0.999 * before:
        faults.append("the error stays as it was: the step must follow the residual acts - sae.decode(z).")
    elif after - target > 0.8 * (before - target):
        faults.append("the error hardly falls: is the step 1 / L, with L the largest eigenvalue of D D^T?")
    return verdict(_name(answer), faults)


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
