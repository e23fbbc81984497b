"""Two models on the same prompts: find the part of a fine-tuned model that makes the difference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helpers.circuits.attribution import attribute
from helpers.circuits.patching import Effects, activations, exact, forward_gap, patched
from helpers.circuits.tasks import Prompts
from helpers.circuits.wires import Change, Tape, Wires, eager, fed, patching, recording
from helpers.models import LanguageModel

__all__ = ["Contribution", "cmap", "cmap_set", "pattern_patched", "patterns", "tuning_contribution"]


@dataclass(frozen=True)
class Contribution:
    """Hold how far fine-tuning bends the residual stream: TuCo.

    Parameters
    ----------
    total : float
        ||sum of FTC|| / (||sum of PTC|| + ||sum of FTC||) at the last token, mean over prompts, in [0, 1].
    layers_L : Float[Tensor, "layer"]
        The same ratio for each layer alone.

    Examples
    --------
    >>> from helpers.circuits import ioi, tuning_contribution
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> tuning_contribution(lm, lm, ioi(lm, n=2)).total
    0.0

    Taught in: toxic-finetuning
    """

    total: float
    layers_L: Float[Tensor, "layer"]


def cmap(
    lm: LanguageModel,
    other: LanguageModel,
    prompts: Prompts,
    *,
    method: str | None = None,
    batch_size: int = 16,
) -> Effects:
    """Give each head and MLP of a model the activations of another one on the same prompts, one at a time.

    Parameters
    ----------
    lm : LanguageModel
        The model that runs.
    other : LanguageModel
        The model that gives the activations, of the same shape.
    prompts : Prompts
        What both run.
    method : {"gradient", "integrated", "relp"}, optional
        Estimate by attribution; patch exactly if not given.
    batch_size : int
        Prompts in one pass.

    Returns
    -------
    Effects
        Mean fall of the logit difference of ``lm``. Negative: the other model's head does better.

    References
    ----------
    Prakash et al. (2024), arXiv 2402.14811, Section 4 (cross-model activation patching).

    Examples
    --------
    >>> from helpers.circuits import cmap, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> cmap(lm, lm, ioi(lm, n=2)).heads_LH.abs().max() < 1e-5
    tensor(True)

    Taught in: toxic-finetuning
    """
    theirs = activations(other, prompts, batch_size=batch_size)
    if method is None:
        return exact(lm, prompts, theirs, batch_size=batch_size)
    return attribute(lm, prompts, theirs, method=method, batch_size=batch_size)


def cmap_set(
    lm: LanguageModel,
    other: LanguageModel,
    prompts: Prompts,
    *,
    heads_LH: Bool[Tensor, "layer head"],
    batch_size: int = 32,
) -> Float[Tensor, "batch"]:
    """Give several heads at once another model's activations; return the logit difference.

    Parameters
    ----------
    lm, other : LanguageModel
        The model that runs, and the one that gives.
    prompts : Prompts
        What both run.
    heads_LH : Bool[Tensor, "layer head"]
        Which heads.
    batch_size : int
        Prompts in one pass.

    Returns
    -------
    Float[Tensor, "batch"]
        In logits.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import cmap_set, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm, other = word_model(), word_model(seed=1)
    >>> cmap_set(lm, other, ioi(lm, n=2), heads_LH=torch.ones(2, 4, dtype=torch.bool)).shape
    torch.Size([2])

    Taught in: toxic-finetuning
    """
    theirs = activations(other, prompts, batch_size=batch_size)
    return patched(lm, prompts, theirs, heads_LH=heads_LH, batch_size=batch_size)


def patterns(lm: LanguageModel, prompts: Prompts) -> Float[Tensor, "layer batch head position position"]:
    """Return the attention patterns: how much each head looks, from each position, at each one before.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run, in one pass.

    Returns
    -------
    Float[Tensor, "layer batch head position position"]
        From the fourth to the fifth dimension; each row sums to one.

    Examples
    --------
    >>> from helpers.circuits import ioi, patterns
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> patterns(lm, ioi(lm, n=2)).sum(-1).round().unique()
    tensor([1.])

    Taught in: toxic-finetuning
    """
    with torch.no_grad(), eager(lm) as seen:
        forward_gap(lm, prompts)
    return torch.stack(seen)


def pattern_patched(
    lm: LanguageModel, other: LanguageModel, prompts: Prompts, *, heads_LH: Bool[Tensor, "layer head"]
) -> Float[Tensor, "batch"]:
    """Let heads look where another model's do, with their own values; return the logit difference.

    Parameters
    ----------
    lm, other : LanguageModel
        The model that runs, and the one whose attention patterns are put in.
    prompts : Prompts
        What both run, in one pass.
    heads_LH : Bool[Tensor, "layer head"]
        Which heads.

    Returns
    -------
    Float[Tensor, "batch"]
        In logits.

    References
    ----------
    Chhabra et al. (2025), arXiv 2503.01896, Figure 11 (cross-model pattern patching).

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import ioi, logit_difference, pattern_patched
    >>> from helpers.circuits.tasks import word_model
    >>> lm, every = word_model(), torch.ones(2, 4, dtype=torch.bool)
    >>> prompts = ioi(lm, n=2)
    >>> torch.allclose(
    ...     pattern_patched(lm, lm, prompts, heads_LH=every), logit_difference(lm, prompts), atol=1e-5
    ... )
    True

    Taught in: toxic-finetuning
    """
    theirs_LBHTT = patterns(other, prompts)
    with torch.no_grad(), recording(lm) as tape:
        chosen = [layer for layer, mask_H in enumerate(heads_LH) if mask_H.any()]
        heads = {at: _look(lm, tape, at, heads_LH[at], theirs_LBHTT[at]) for at in chosen}
        with patching(lm, heads=heads):
            return forward_gap(lm, prompts)


def tuning_contribution(base: LanguageModel, tuned: LanguageModel, prompts: Prompts) -> Contribution:
    """Split what each layer of a fine-tuned model adds into what the base would add, and the rest.

    The fine-tuned model runs. At each layer the base model's layer gets the same input: its addition is the
    pre-training component (PTC), and what the tuned layer adds beyond that the fine-tuning component (FTC).

    Parameters
    ----------
    base, tuned : LanguageModel
        Before and after fine-tuning.
    prompts : Prompts
        What the fine-tuned model runs.

    Returns
    -------
    Contribution
        At the last token of each prompt, mean over prompts: 0 if nothing changed.

    References
    ----------
    Nuti et al. (2025), arXiv 2506.23423, Algorithm 1.

    Examples
    --------
    >>> from helpers.circuits import ioi, tuning_contribution
    >>> from helpers.circuits.tasks import word_model
    >>> 0 < tuning_contribution(word_model(), word_model(seed=1), ioi(word_model(), n=2)).total < 1
    True

    Taught in: toxic-finetuning
    """
    with torch.no_grad(), recording(tuned) as tape:
        forward_gap(tuned, prompts)
    with torch.no_grad(), fed(base, tape.resid) as outputs:
        forward_gap(base, prompts)
    ends = (torch.arange(len(prompts)), prompts.ends_B)
    before_LBD, tuned_LBD = (
        torch.stack([x[ends] for x in part]) for part in (tape.resid[:-1], tape.resid[1:])
    )
    base_LBD = torch.stack([x[ends] for x in outputs])
    ptc_LBD, ftc_LBD = base_LBD - before_LBD, tuned_LBD - base_LBD
    total_B = _share(ftc_LBD.sum(0), ptc_LBD.sum(0))
    return Contribution(float(total_B.mean()), _share(ftc_LBD, ptc_LBD).mean(1).cpu())


def _share(one: Tensor, other: Tensor) -> Tensor:
    """Return the share of one vector's length in both lengths."""
    return one.norm(dim=-1) / (one.norm(dim=-1) + other.norm(dim=-1)).clamp(min=1e-30)


def _look(lm: LanguageModel, tape: Tape, layer: int, mask_H: Tensor, pattern_BHTT: Tensor) -> Change:
    """Make a change that weighs a layer's own values, of the run that is on, with other patterns."""
    wires = Wires(lm)

    def change(old_BTHC: Tensor) -> Tensor:
        values = wires.split(torch.cat(tape.qkv[layer], dim=-1))[:, :, -wires.n_groups :]
        values = values.repeat_interleave(wires.n_heads // wires.n_groups, dim=2)
        new_BTHC = torch.einsum("bhqk,bkhc->bqhc", pattern_BHTT.to(values), values)
        return torch.where(mask_H.to(old_BTHC.device)[:, None], new_BTHC, old_BTHC)

    return change
