"""Exact patching: put other activations in place of a model's own, run it, and look at its answer.

Where the other activations come from makes the experiment. From the corrupted prompts: activation patching.
From another model on the same prompts: cross-model activation patching (`helpers.circuits.crossmodel`). A
mean over corrupted prompts: mean-ablation. Activations of other corrupted prompts: resample-ablation. So
every function here takes a *reference*, an `Activations`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helpers.circuits.tasks import Prompts
from helpers.circuits.wires import (
    Change,
    Tape,
    Wires,
    end_logits,
    frozen_norm,
    patching,
    recording,
    starting_at,
)
from helpers.models import LanguageModel

__all__ = [
    "Activations", "Effects", "Faithfulness", "activations", "completeness", "direct", "exact",
    "faithfulness", "logit_difference", "mean_of", "minimality", "patched", "path", "resampled", "top_heads",
]  # fmt: skip

Node = tuple[int, int | None]  # layer and head; no head: the layer's MLP
Mask = Bool[Tensor, "layer head"]


@dataclass(frozen=True)
class Activations:
    """Hold what heads and MLPs gave on some prompts.

    Parameters
    ----------
    heads_LBTHC : Float[Tensor, "layer batch position head width"]
        The heads' values: the input of each attention's output projection.
    mlps_LBTD : Float[Tensor, "layer batch position d_model"]
        The MLPs' outputs.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import Activations
    >>> acts = Activations(torch.zeros(2, 3, 5, 4, 8), torch.zeros(2, 3, 5, 32))
    >>> acts.take(slice(0, 1)).mlps_LBTD.shape
    torch.Size([2, 1, 5, 32])

    Taught in: toxic-finetuning
    """

    heads_LBTHC: Float[Tensor, "layer batch position head width"]
    mlps_LBTD: Float[Tensor, "layer batch position d_model"]

    def take(self, rows: slice | Tensor) -> Activations:
        """Return those of some prompts."""
        return Activations(self.heads_LBTHC[:, rows], self.mlps_LBTD[:, rows])


@dataclass(frozen=True)
class Effects:
    """Hold how much the answer owes to each head and MLP.

    Parameters
    ----------
    heads_LH : Float[Tensor, "layer head"]
        Mean fall of the logit difference if the head gets the reference's activations, in logits. Positive:
        the head works for the right answer; negative: against it.
    mlps_L : Float[Tensor, "layer"]
        The same for the MLPs.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import Effects, top_heads
    >>> effects = Effects(torch.tensor([[0.1, -2.0], [1.0, 0.0]]), torch.zeros(2))
    >>> top_heads(effects.heads_LH, k=2)
    tensor([[False,  True],
            [ True, False]])

    Taught in: toxic-finetuning
    """

    heads_LH: Float[Tensor, "layer head"]
    mlps_L: Float[Tensor, "layer"]


@dataclass(frozen=True)
class Faithfulness:
    """Compare a circuit with its model: always both logit differences, never the ratio alone.

    Parameters
    ----------
    model, circuit : float
        Mean logit difference of the whole model, and with every head outside the circuit knocked out.

    Examples
    --------
    >>> from helpers.circuits import Faithfulness
    >>> Faithfulness(model=4.0, circuit=3.0).share
    0.75

    Taught in: toxic-finetuning
    """

    model: float
    circuit: float

    @property
    def share(self) -> float:
        """F(C) / F(M): 1 if the circuit does what the model does; above 1 if it does more."""
        return self.circuit / self.model


def logit_difference(
    lm: LanguageModel, prompts: Prompts, *, corrupted: bool = False, batch_size: int = 32
) -> Float[Tensor, "batch"]:
    """Say how much more the model favours the right answers than the wrong ones.

    With one right and one wrong answer (IOI) this is the difference of their logits. With several
    (greater-than) it is the logarithm of how many times more likely one of the right ones is.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        From `ioi` or `greater_than`.
    corrupted : bool
        Run the corrupted prompts, and score the same answers.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Float[Tensor, "batch"]
        In logits.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 2.

    Examples
    --------
    >>> from helpers.circuits import ioi, logit_difference
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> logit_difference(lm, ioi(lm, n=4)).shape
    torch.Size([4])

    Taught in: toxic-finetuning
    """
    with torch.no_grad():
        return torch.cat([forward_gap(lm, part, corrupted=corrupted) for part in prompts.batches(batch_size)])


def activations(
    lm: LanguageModel, prompts: Prompts, *, corrupted: bool = False, batch_size: int = 32
) -> Activations:
    """Collect the activations of all heads and MLPs.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    corrupted : bool
        Run the corrupted prompts.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Activations
        On the model's device: about 4 bytes x layers x prompts x positions x 2 d_model.

    Examples
    --------
    >>> from helpers.circuits import activations, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> activations(lm, ioi(lm, n=3)).heads_LBTHC.shape[:2]
    torch.Size([2, 3])

    Taught in: toxic-finetuning
    """
    wires = Wires(lm)
    heads, mlps = [], []
    for part in prompts.batches(batch_size):
        with torch.no_grad(), recording(lm) as tape:
            forward_gap(lm, part, corrupted=corrupted)
        heads.append(torch.stack([wires.split(flat) for flat in tape.heads]))
        mlps.append(torch.stack(tape.mlps))
    return Activations(torch.cat(heads, 1), torch.cat(mlps, 1))


def mean_of(prompts: Prompts, acts: Activations) -> Activations:
    """Put in place of each activation its mean over the prompts of the same template, by position.

    Parameters
    ----------
    prompts : Prompts
        They say which template each row has.
    acts : Activations
        Those of the corrupted prompts, for the knockout of Wang et al.

    Returns
    -------
    Activations
        Of the same shape.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 2.1.

    Examples
    --------
    >>> from helpers.circuits import activations, ioi, mean_of
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=16)
    >>> means = mean_of(prompts, activations(lm, prompts, corrupted=True)).mlps_LBTD
    >>> bool((means[:, 0] == means[:, 8]).all())  # the templates come round after eight prompts
    True

    Taught in: toxic-finetuning
    """
    heads, mlps = acts.heads_LBTHC.clone(), acts.mlps_LBTD.clone()
    for group in prompts.group_B.unique():
        rows = prompts.group_B == group
        heads[:, rows] = heads[:, rows].mean(1, keepdim=True)
        mlps[:, rows] = mlps[:, rows].mean(1, keepdim=True)
    return Activations(heads, mlps)


def resampled(prompts: Prompts, acts: Activations, *, seed: int = 0) -> Activations:
    """Give each prompt the activations of another one with the same template.

    A mean is a state that no prompt ever made; a resampled activation is a real one.

    Parameters
    ----------
    prompts : Prompts
        They say which template each row has.
    acts : Activations
        Those of the corrupted prompts.
    seed : int
        Of the order.

    Returns
    -------
    Activations
        Of the same shape; a template with one prompt keeps its own.

    Examples
    --------
    >>> from helpers.circuits import activations, ioi, resampled
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=16)
    >>> acts = activations(lm, prompts, corrupted=True)
    >>> other = resampled(prompts, acts)
    >>> bool((other.mlps_LBTD[:, 0] == acts.mlps_LBTD[:, 8]).all())
    True

    Taught in: toxic-finetuning
    """
    dice = torch.Generator().manual_seed(seed)
    order_B = torch.arange(len(prompts))
    for group in prompts.group_B.unique():
        rows = (prompts.group_B == group).nonzero().flatten()
        rows = rows[torch.randperm(len(rows), generator=dice)]
        order_B[rows] = rows.roll(1)
    return acts.take(order_B)


def patched(
    lm: LanguageModel,
    prompts: Prompts,
    reference: Activations,
    *,
    heads_LH: Mask,
    mlps_L: Bool[Tensor, "layer"] | None = None,
    batch_size: int = 32,
) -> Float[Tensor, "batch"]:
    """Give some heads, all at once, the reference's activations; return the logit difference.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    reference : Activations
        What to put in, row by row that of the prompts.
    heads_LH : Bool[Tensor, "layer head"]
        Which heads. ``~circuit`` knocks out everything but a circuit.
    mlps_L : Bool[Tensor, "layer"], optional
        Which MLPs; none if not given.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Float[Tensor, "batch"]
        In logits.

    Raises
    ------
    ValueError
        If the mask or the reference does not fit.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import activations, ioi, logit_difference, patched
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> every, own = torch.ones(2, 4, dtype=torch.bool), activations(lm, prompts)
    >>> torch.allclose(patched(lm, prompts, own, heads_LH=every), logit_difference(lm, prompts))
    True

    Taught in: toxic-finetuning
    """
    check_reference(lm, prompts, reference, heads_LH=heads_LH)
    mlps_L = torch.zeros(lm.n_layers, dtype=torch.bool) if mlps_L is None else mlps_L
    found = []
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        values = reference.take(rows)
        heads = {
            layer: _mix(mask_H, values.heads_LBTHC[layer])
            for layer, mask_H in enumerate(heads_LH)
            if mask_H.any()
        }
        mlps = {layer: _put(values.mlps_LBTD[layer]) for layer, on in enumerate(mlps_L) if on}
        with torch.no_grad(), patching(lm, heads=heads, mlps=mlps):
            found.append(forward_gap(lm, prompts.take(rows)))
    return torch.cat(found)


def exact(
    lm: LanguageModel,
    prompts: Prompts,
    reference: Activations,
    *,
    nodes: Iterable[Node] | None = None,
    batch_size: int = 32,
) -> Effects:
    """Patch one head or MLP at a time: the measurement that attribution approximates.

    Each run starts at the layer that is patched, from the residual stream of the unpatched run, so that a
    head costs half a forward pass on average.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    reference : Activations
        What to put in.
    nodes : iterable of (int, int or None), optional
        Layer and head, or layer and ``None`` for its MLP; every head and MLP if not given. The others get 0.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Effects
        Mean fall of the logit difference, in logits.

    Raises
    ------
    ValueError
        If the reference does not fit.

    Examples
    --------
    >>> from helpers.circuits import activations, exact, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> effects = exact(lm, prompts, activations(lm, prompts, corrupted=True), nodes=[(1, 2)])
    >>> effects.heads_LH.nonzero().tolist()
    [[1, 2]]

    Taught in: toxic-finetuning
    """
    wires = Wires(lm)
    check_reference(lm, prompts, reference)
    every = [(layer, head) for layer in range(lm.n_layers) for head in (*range(wires.n_heads), None)]
    nodes = every if nodes is None else list(nodes)
    heads_LH, mlps_L = torch.zeros(lm.n_layers, wires.n_heads), torch.zeros(lm.n_layers)
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        part, values = prompts.take(rows), reference.take(rows)
        with torch.no_grad(), recording(lm) as tape:
            whole_B = forward_gap(lm, part)
        for layer, head in nodes:
            fall = float((whole_B - _one(lm, part, values, tape, (layer, head))).sum()) / len(prompts)
            if head is None:
                mlps_L[layer] += fall
            else:
                heads_LH[layer, head] += fall
    return Effects(heads_LH, mlps_L)


def path(
    lm: LanguageModel,
    prompts: Prompts,
    reference: Activations,
    *,
    sender: tuple[int, int],
    receivers: Sequence[tuple[int, int, str]] | None = None,
) -> Float[Tensor, "batch"]:
    """Patch what one head sends to some receivers, and nothing else: path patching.

    The sender gets the reference's activations while every other head keeps its own; MLPs between follow.
    What the receivers read in that run is put into an otherwise untouched one.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run, in one forward pass.
    reference : Activations
        What the sender gets.
    sender : (int, int)
        Layer and head.
    receivers : sequence of (int, int, {"q", "k", "v"}), optional
        Layer, head and which of its inputs; keys and values count key and value heads. The logits if not
        given.

    Returns
    -------
    Float[Tensor, "batch"]
        The logit difference after patching, in logits.

    Raises
    ------
    ValueError
        If the reference does not fit, or an input is none of q, k and v.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 3.1 and Appendix B.

    Examples
    --------
    >>> from helpers.circuits import activations, ioi, path
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> other = activations(lm, prompts, corrupted=True)
    >>> path(lm, prompts, other, sender=(0, 1), receivers=[(1, 2, "q")]).shape
    torch.Size([4])

    Taught in: toxic-finetuning
    """
    wires = Wires(lm)
    check_reference(lm, prompts, reference)
    with torch.no_grad(), recording(lm) as clean:
        forward_gap(lm, prompts)
    frozen: dict[int, Change] = {layer: _put(wires.split(flat)) for layer, flat in enumerate(clean.heads)}
    layer, head = sender
    sends = wires.split(clean.heads[layer]).clone()
    sends[:, :, head] = reference.heads_LBTHC[layer][:, :, head]
    frozen[layer] = _put(sends)
    with torch.no_grad(), patching(lm, heads=frozen), recording(lm) as sent:
        at_logits_B = forward_gap(lm, prompts)
    if receivers is None:
        return at_logits_B
    changes = {at: _receive(wires, sent, receivers, at) for at in {at for at, _, _ in receivers}}
    with torch.no_grad(), patching(lm, qkv=changes):
        return forward_gap(lm, prompts)


def direct(lm: LanguageModel, prompts: Prompts, *, batch_size: int = 32) -> Effects:
    """Compute what each head and MLP itself adds to the logit difference: direct logit attribution.

    What a node writes at the last token goes through the final normalisation, its scale held constant, to
    the logits. Effects by way of later layers do not count.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Effects
        In logits. With the embedding's part, and that of biases, they sum to the logit difference, if the
        model does not cap its logits.

    Examples
    --------
    >>> from helpers.circuits import direct, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> direct(lm, ioi(lm, n=4)).heads_LH.shape
    torch.Size([2, 4])

    Taught in: toxic-finetuning
    """
    wires = Wires(lm)
    heads_LH, mlps_L = torch.zeros(lm.n_layers, wires.n_heads), torch.zeros(lm.n_layers)
    for part in prompts.batches(batch_size):
        with torch.no_grad(), recording(lm) as tape:
            forward_gap(lm, part)
        ends = (torch.arange(len(part), device=lm.device), part.ends_B.to(lm.device))
        final_BD = tape.resid[-1][ends].detach().requires_grad_()
        gap_B = answer_gap(_unembed(lm, frozen_norm(wires.final_norm, final_BD), part), part)
        (read_BD,) = torch.autograd.grad(gap_B.sum(), final_BD)
        for layer in range(lm.n_layers):
            heads_BHD = wires.head_writes(layer, tape.heads[layer])[ends]
            mlp_BD = wires.mlp_write(layer, tape.mlps[layer])[ends]
            heads_LH[layer] += torch.einsum("bhd,bd->h", heads_BHD, read_BD).cpu() / len(prompts)
            mlps_L[layer] += float((mlp_BD * read_BD).sum()) / len(prompts)
    return Effects(heads_LH, mlps_L)


def top_heads(scores_LH: Float[Tensor, "layer head"], *, k: int, among: Mask | None = None) -> Mask:
    """Mark the k heads of largest magnitude.

    Parameters
    ----------
    scores_LH : Float[Tensor, "layer head"]
        For instance ``Effects.heads_LH``.
    k : int
        How many, from 0 to all.
    among : Bool[Tensor, "layer head"], optional
        Choose only among these.

    Returns
    -------
    Bool[Tensor, "layer head"]
        True for the k heads.

    Raises
    ------
    ValueError
        If there are fewer heads than k.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import top_heads
    >>> top_heads(torch.tensor([[0.5, -3.0, 1.0]]), k=1)
    tensor([[False,  True, False]])

    Taught in: toxic-finetuning
    """
    allowed = torch.ones_like(scores_LH, dtype=torch.bool) if among is None else among
    if not 0 <= k <= int(allowed.sum()):
        raise ValueError(f"k is {k}; expected 0 to {int(allowed.sum())}, the number of heads")
    order = scores_LH.abs().masked_fill(~allowed, -1.0).flatten().argsort(descending=True, stable=True)
    chosen = torch.zeros(scores_LH.numel(), dtype=torch.bool)
    chosen[order[:k]] = True
    return chosen.view_as(scores_LH)


def faithfulness(
    lm: LanguageModel, prompts: Prompts, circuit_LH: Mask, *, reference: Activations, batch_size: int = 32
) -> Faithfulness:
    """Knock out every head outside a circuit, and compare with the whole model.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    circuit_LH : Bool[Tensor, "layer head"]
        The heads that stay. All MLPs stay, as in Wang et al.
    reference : Activations
        What the others get: `mean_of` or `resampled` activations of the corrupted prompts.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Faithfulness
        Both logit differences.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 4.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import activations, faithfulness, ioi, mean_of
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=16)
    >>> means = mean_of(prompts, activations(lm, prompts, corrupted=True))
    >>> whole = torch.ones(2, 4, dtype=torch.bool)
    >>> round(faithfulness(lm, prompts, whole, reference=means).share, 3)
    1.0

    Taught in: toxic-finetuning
    """
    whole_B = logit_difference(lm, prompts, batch_size=batch_size)
    kept_B = patched(lm, prompts, reference, heads_LH=~circuit_LH, batch_size=batch_size)
    return Faithfulness(model=float(whole_B.mean()), circuit=float(kept_B.mean()))


def completeness(
    lm: LanguageModel,
    prompts: Prompts,
    circuit_LH: Mask,
    *,
    reference: Activations,
    without: Sequence[Mask],
    batch_size: int = 32,
) -> list[tuple[float, float]]:
    """Take parts K out of a circuit and out of the model, and compare what is left.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    circuit_LH : Bool[Tensor, "layer head"]
        The circuit C.
    reference : Activations
        What knocked-out heads get.
    without : sequence of Bool[Tensor, "layer head"]
        The sets K, each part of the circuit.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    list of (float, float)
        F(C without K) and F(M without K) for each K, in logits. A complete circuit has them near each other.

    Raises
    ------
    ValueError
        If a K is not part of the circuit.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 4.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import activations, completeness, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> other, whole = activations(lm, prompts, corrupted=True), torch.ones(2, 4, dtype=torch.bool)
    >>> [(left, right)] = completeness(lm, prompts, whole, reference=other, without=[~whole])
    >>> left == right
    True

    Taught in: toxic-finetuning
    """
    found = []
    for k_LH in without:
        if bool((k_LH & ~circuit_LH).any()):
            raise ValueError("K has heads outside the circuit; expected a part of it")
        masks = (~circuit_LH | k_LH, k_LH)
        left, right = (
            float(patched(lm, prompts, reference, heads_LH=mask, batch_size=batch_size).mean())
            for mask in masks
        )
        found.append((left, right))
    return found


def minimality(
    lm: LanguageModel,
    prompts: Prompts,
    circuit_LH: Mask,
    *,
    reference: Activations,
    without: Mask,
    batch_size: int = 32,
) -> Float[Tensor, "layer head"]:
    """Ask of each head of a circuit what is lost without it, once a set K is gone already.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    circuit_LH : Bool[Tensor, "layer head"]
        The circuit C.
    reference : Activations
        What knocked-out heads get.
    without : Bool[Tensor, "layer head"]
        The set K. It must be stated: the score depends on it. Heads of K themselves score 0.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Float[Tensor, "layer head"]
        |F(C without K and v) - F(C without K)| for each head v, in logits; 0 outside the circuit.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 4.

    Examples
    --------
    >>> import torch
    >>> from helpers.circuits import activations, ioi, minimality
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> circuit = torch.tensor([[True, False, False, False], [False, True, False, False]])
    >>> other, none = activations(lm, prompts, corrupted=True), torch.zeros(2, 4, dtype=torch.bool)
    >>> (minimality(lm, prompts, circuit, reference=other, without=none) > 0).sum() <= 2
    tensor(True)

    Taught in: toxic-finetuning
    """

    def left(gone_LH: Mask) -> float:
        kept_B = patched(lm, prompts, reference, heads_LH=~circuit_LH | gone_LH, batch_size=batch_size)
        return float(kept_B.mean())

    start, scores_LH = left(without), torch.zeros(circuit_LH.shape)
    for layer, head in (circuit_LH & ~without).nonzero().tolist():
        gone_LH = without.clone()
        gone_LH[layer, head] = True
        scores_LH[layer, head] = abs(left(gone_LH) - start)
    return scores_LH


def answer_gap(logits_BA: Float[Tensor, "batch answer"], prompts: Prompts) -> Float[Tensor, "batch"]:
    """Return the log-odds of a right against a wrong answer."""
    right_BA, wrong_BA = prompts.right_BA.to(logits_BA.device), prompts.wrong_BA.to(logits_BA.device)
    return _lse(logits_BA, right_BA) - _lse(logits_BA, wrong_BA)


def _lse(logits_BA: Tensor, mask_BA: Tensor) -> Tensor:
    return logits_BA.masked_fill(~mask_BA, -torch.inf).logsumexp(1)


def forward_gap(lm: LanguageModel, prompts: Prompts, *, corrupted: bool = False) -> Tensor:
    """Run one batch and return its logit differences."""
    tokens_BT = prompts.corrupted_BT if corrupted else prompts.tokens_BT
    return answer_gap(end_logits(lm, tokens_BT, prompts.ends_B, answers_A=prompts.answers_A), prompts)


def _unembed(lm: LanguageModel, normed_BD: Tensor, prompts: Prompts) -> Tensor:
    return normed_BD @ lm.model.get_output_embeddings().weight[prompts.answers_A.to(lm.device)].T


def _put(value: Tensor) -> Change:
    """Make a change that puts a value in, whatever was there."""
    return lambda old: value.to(old)


def _mix(mask_H: Tensor, value_BTHC: Tensor) -> Change:
    """Make a change that puts some heads' values in."""

    def change(old_BTHC: Tensor) -> Tensor:
        return torch.where(mask_H.to(old_BTHC.device)[:, None], value_BTHC.to(old_BTHC), old_BTHC)

    return change


def _one(lm: LanguageModel, prompts: Prompts, values: Activations, tape: Tape, node: Node) -> Tensor:
    """Patch one node, from its layer on."""
    layer, head = node
    if head is None:
        changes = {"mlps": {layer: _put(values.mlps_LBTD[layer])}}
    else:
        mask_H = torch.arange(Wires(lm).n_heads) == head
        changes = {"heads": {layer: _mix(mask_H, values.heads_LBTHC[layer])}}
    with torch.no_grad(), starting_at(lm, layer, tape.resid[layer]), patching(lm, **changes):
        return forward_gap(lm, prompts)


def _receive(wires: Wires, sent: Tape, receivers: Sequence[tuple[int, int, str]], layer: int) -> Change:
    """Make a change that gives a layer's receivers what they read in the run with the patched sender."""
    offsets = {"q": 0, "k": wires.n_heads, "v": wires.n_heads + wires.n_groups}
    rows = []
    for at, head, what in receivers:
        if what not in offsets:
            raise ValueError(f"a receiver reads {what!r}; expected q, k or v")
        rows += [offsets[what] + head] if at == layer else []
    whole = wires.split(torch.cat(sent.qkv[layer], dim=-1))
    mask = torch.zeros(whole.shape[-2], dtype=torch.bool)
    mask[rows] = True
    return _mix(mask, whole)


def check_reference(
    lm: LanguageModel, prompts: Prompts, reference: Activations, *, heads_LH: Mask | None = None
) -> None:
    """Refuse a reference or a mask that does not fit."""
    wires = Wires(lm)
    expected = (lm.n_layers, *prompts.tokens_BT.shape, wires.n_heads, wires.width)
    if tuple(reference.heads_LBTHC.shape) != expected:
        raise ValueError(
            f"the reference has heads of shape {tuple(reference.heads_LBTHC.shape)}; expected {expected}. "
            "Collect it on the same prompts"
        )
    if heads_LH is not None and tuple(heads_LH.shape) != (lm.n_layers, wires.n_heads):
        raise ValueError(
            f"the mask has shape {tuple(heads_LH.shape)}; expected {(lm.n_layers, wires.n_heads)}, "
            "layers by heads"
        )
