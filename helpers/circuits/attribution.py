"""Attribution: what exact patching measures one node at a time, estimated for all nodes from gradients.

The effect of putting z' in place of z is, to first order, the difference times the gradient. Three ways to
choose the gradient go by three names here, for nodes and for edges alike:

- ``"gradient"``: at the clean run. On nodes this is attribution patching, on edges EAP.
- ``"integrated"``: averaged along the line between the two inputs' embeddings. On edges this is EAP-IG.
- ``"relp"``: with layer-wise relevance rules in place of the derivative.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from helpers.circuits.patching import (
    Activations,
    Effects,
    answer_gap,
    check_reference,
    exact,
    top_heads,
)
from helpers.circuits.tasks import Prompts
from helpers.circuits.wires import Tape, Wires, end_logits, linearised, recording
from helpers.models import LanguageModel

__all__ = ["Edges", "Method", "attribute", "checked", "edges"]

Method = Literal["gradient", "integrated", "relp"]


@dataclass(frozen=True)
class Edges:
    """Hold a score for every edge of the computation: who writes, who reads.

    Parameters
    ----------
    scores_UI : Float[Tensor, "writer input"]
        Estimated fall of the logit difference if this input alone gets this writer's corrupted output; 0
        where the writer comes after the input.
    writers : tuple of str
        ``"embed"``, then layer by layer the heads (``"a3.1"``) and the MLP (``"m3"``).
    inputs : tuple of str
        Layer by layer each query (``"a3.1.q"``), key and value head, and the MLP; last ``"logits"``.

    Examples
    --------
    >>> from helpers.circuits import edges, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> found = edges(lm, ioi(lm, n=4))
    >>> len(found.writers), len(found.inputs), len(found.top(3))
    (11, 27, 3)

    Taught in: toxic-finetuning
    """

    scores_UI: Float[Tensor, "writer input"]
    writers: tuple[str, ...]
    inputs: tuple[str, ...]

    def top(self, n: int) -> list[tuple[str, str, float]]:
        """Return the n edges of largest magnitude: writer, input, score."""
        order = self.scores_UI.abs().flatten().argsort(descending=True)[:n]
        places = [divmod(place, len(self.inputs)) for place in order.tolist()]
        return [(self.writers[u], self.inputs[i], float(self.scores_UI[u, i])) for u, i in places]


def attribute(
    lm: LanguageModel,
    prompts: Prompts,
    reference: Activations,
    *,
    method: str = "gradient",
    steps: int = 5,
    batch_size: int = 16,
) -> Effects:
    """Estimate the effect of patching each head and MLP, all in one backward pass.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    reference : Activations
        What would be put in, as for `exact`.
    method : {"gradient", "integrated", "relp"}
        Which gradient; see the head of this file.
    steps : int
        Points on the line, for ``"integrated"``.
    batch_size : int
        Prompts in one pass.

    Returns
    -------
    Effects
        As `exact` would measure them, to first order.

    Raises
    ------
    ValueError
        If the method is not known, there is no step, or the reference does not fit.

    References
    ----------
    Syed et al. (2023), arXiv 2310.10348; Hanna et al. (2024), arXiv 2403.17806; Jafari et al. (2025), arXiv
    2508.21258.

    Examples
    --------
    >>> from helpers.circuits import activations, attribute, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> attribute(lm, prompts, activations(lm, prompts, corrupted=True), method="relp").heads_LH.shape
    torch.Size([2, 4])

    Taught in: toxic-finetuning
    """
    _check_method(method, steps)
    check_reference(lm, prompts, reference)
    wires = Wires(lm)
    heads_LH, mlps_L = torch.zeros(lm.n_layers, wires.n_heads), torch.zeros(lm.n_layers)
    for start in range(0, len(prompts), batch_size):
        rows = slice(start, start + batch_size)
        part, other = prompts.take(rows), reference.take(rows)
        clean, heads, mlps = _node_gradients(lm, part, method, steps)
        for layer in range(lm.n_layers):
            moved = other.heads_LBTHC[layer] - wires.split(clean.heads[layer])
            heads_LH[layer] -= (moved * wires.split(heads[layer])).sum((0, 1, 3)).cpu() / len(prompts)
            moved = other.mlps_LBTD[layer] - clean.mlps[layer]
            mlps_L[layer] -= float((moved * mlps[layer]).sum()) / len(prompts)
    return Effects(heads_LH, mlps_L)


def checked(
    lm: LanguageModel,
    prompts: Prompts,
    reference: Activations,
    *,
    k: int = 12,
    batch_size: int = 16,
) -> Effects:
    """Estimate every head twice, and patch exactly those on which the two estimates differ most.

    Where a head acts almost linearly, the gradient and RelP agree. Where they do not, at least one is wrong,
    and a few runs settle it. The other heads get the mean of the two estimates, and so do the MLPs.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        What to run.
    reference : Activations
        What would be put in, as for `exact`.
    k : int
        How many heads to patch, from 0 to all.
    batch_size : int
        Prompts in one pass.

    Returns
    -------
    Effects
        Measured for k heads, estimated for all others.

    Raises
    ------
    ValueError
        If there are fewer heads than k, or the reference does not fit.

    Notes
    -----
    The two estimates are those of Syed et al. (2023) and Jafari et al. (2025); to let them check each other
    is this book's.

    Examples
    --------
    >>> from helpers.circuits import activations, checked, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=4)
    >>> checked(lm, prompts, activations(lm, prompts, corrupted=True), k=2).heads_LH.shape
    torch.Size([2, 4])

    Taught in: toxic-finetuning
    """
    one, two = (
        attribute(lm, prompts, reference, method=method, batch_size=batch_size)
        for method in ("gradient", "relp")
    )
    disputed_LH = top_heads(one.heads_LH - two.heads_LH, k=k)
    nodes = [(layer, head) for layer, head in disputed_LH.nonzero().tolist()]
    measured_LH = exact(lm, prompts, reference, nodes=nodes, batch_size=batch_size).heads_LH
    return Effects(
        torch.where(disputed_LH, measured_LH, (one.heads_LH + two.heads_LH) / 2),
        (one.mlps_L + two.mlps_L) / 2,
    )


def edges(
    lm: LanguageModel,
    prompts: Prompts,
    *,
    method: str = "gradient",
    steps: int = 5,
    batch_size: int = 8,
) -> Edges:
    """Estimate the effect of patching each edge: one writer, as one input sees it.

    Inputs are each query head's, each key and value head's (with grouped-query attention there are fewer of
    those), each MLP's, and the logits'. All read the residual stream, each through its own normalisation.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    prompts : Prompts
        The corrupted prompts give what is put in.
    method : {"gradient", "integrated", "relp"}
        As for `attribute`: EAP, EAP-IG, RelP.
    steps : int
        Points on the line, for ``"integrated"``.
    batch_size : int
        Prompts in one pass; a batch holds (writers + inputs) x prompts x positions x d_model numbers.

    Returns
    -------
    Edges
        Mean over the prompts.

    Raises
    ------
    ValueError
        If the method is not known, or there is no step.

    References
    ----------
    Syed et al. (2023), arXiv 2310.10348, Section 3; Hanna et al. (2024), arXiv 2403.17806, Section 3.

    Examples
    --------
    >>> from helpers.circuits import edges, ioi
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> edges(lm, ioi(lm, n=4), method="integrated").scores_UI.shape
    torch.Size([11, 27])

    Taught in: toxic-finetuning
    """
    _check_method(method, steps)
    writers, inputs, before_UI = _graph(lm)
    total_UI = torch.zeros(len(writers), len(inputs))
    for part in prompts.batches(batch_size):
        moved_UN = (_writes(lm, part, corrupted=True) - _writes(lm, part)).flatten(1)
        read_IN = torch.zeros(len(inputs), moved_UN.shape[1], device=lm.device, dtype=moved_UN.dtype)
        points = steps if method == "integrated" else 1
        for point in range(1, points + 1):
            read_IN += _read_gradients(lm, part, method, point / points).flatten(1) / points
        total_UI -= (moved_UN @ read_IN.T).float().cpu() / len(prompts)
    return Edges(total_UI * before_UI, writers, inputs)


def _check_method(method: str, steps: int) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; expected one of {', '.join(get_args(Method))}")
    if steps < 1:
        raise ValueError(f"steps is {steps}; expected 1 or more points on the line between the inputs")


def _embeds(lm: LanguageModel, prompts: Prompts, share: float) -> Tensor:
    """Return the point on the line from the corrupted (0) to the clean (1) embeddings, with gradients on."""
    embed = lm.model.get_input_embeddings()
    with torch.no_grad():
        clean, corrupted = (embed(ids.to(lm.device)) for ids in (prompts.tokens_BT, prompts.corrupted_BT))
        mixed_BTD = torch.lerp(corrupted, clean, share) if share < 1 else clean
    return mixed_BTD.requires_grad_()


def _forward(lm: LanguageModel, prompts: Prompts, method: str, share: float) -> tuple[Tape, Tensor]:
    """Run with gradients on at one point of the line; return the tape and the sum of logit differences."""
    embeds = _embeds(lm, prompts, share)
    rules = linearised(lm) if method == "relp" else nullcontext()
    with torch.enable_grad(), rules, recording(lm) as tape:
        logits_BA = end_logits(
            lm, prompts.tokens_BT, prompts.ends_B, answers_A=prompts.answers_A, embeds_BTD=embeds
        )
    return tape, answer_gap(logits_BA, prompts).sum()


def _node_gradients(
    lm: LanguageModel, prompts: Prompts, method: str, steps: int
) -> tuple[Tape, list[Tensor], list[Tensor]]:
    """Return the clean tape, and gradients at heads and MLPs, averaged over the points of the line."""
    points = steps if method == "integrated" else 1
    sums: list[Tensor] = []
    for point in range(1, points + 1):  # the last point is the clean run
        tape, gap = _forward(lm, prompts, method, point / points)
        found = torch.autograd.grad(gap, [*tape.heads, *tape.mlps])
        sums = [new / points + (sums[i] if sums else 0) for i, new in enumerate(found)]
    clean = Tape(heads=[x.detach() for x in tape.heads], mlps=[x.detach() for x in tape.mlps])
    return clean, sums[: lm.n_layers], sums[lm.n_layers :]


def _graph(lm: LanguageModel) -> tuple[tuple[str, ...], tuple[str, ...], Bool[Tensor, "writer input"]]:
    """Name writers and inputs, and say which writer comes before which input."""
    wires = Wires(lm)
    heads, groups = range(wires.n_heads), range(wires.n_groups)
    writers, written = ["embed"], [-1]
    inputs, read = [], []
    for layer in range(lm.n_layers):
        inputs += [f"a{layer}.{h}.q" for h in heads]
        inputs += [f"a{layer}.{g}.{what}" for what in "kv" for g in groups]
        read += [2 * layer] * (len(heads) + 2 * len(groups))
        writers += [f"a{layer}.{h}" for h in heads]
        written += [2 * layer] * len(heads)
        inputs.append(f"m{layer}")
        read.append(2 * layer + 1)
        writers.append(f"m{layer}")
        written.append(2 * layer + 1)
    inputs.append("logits")
    read.append(2 * lm.n_layers)
    before_UI = torch.tensor(written)[:, None] < torch.tensor(read)
    return tuple(writers), tuple(inputs), before_UI


def _writes(lm: LanguageModel, prompts: Prompts, *, corrupted: bool = False) -> Float[Tensor, "writer b t d"]:
    """Run once, and return what each writer adds to the residual stream."""
    wires = Wires(lm)
    tokens_BT = prompts.corrupted_BT if corrupted else prompts.tokens_BT
    with torch.no_grad(), recording(lm) as tape:
        end_logits(lm, tokens_BT, prompts.ends_B, answers_A=prompts.answers_A)
        written = [tape.resid[0][None]]
        for layer in range(lm.n_layers):
            written.append(wires.head_writes(layer, tape.heads[layer]).movedim(2, 0))
            written.append(wires.mlp_write(layer, tape.mlps[layer])[None])
    return torch.cat(written)


def _read_gradients(lm: LanguageModel, prompts: Prompts, method: str, share: float) -> Tensor:
    """Return the gradient of the logit difference at the residual stream, as each input alone reads it."""
    wires = Wires(lm)
    tape, gap = _forward(lm, prompts, method, share)
    parts = [len(layer) for layer in tape.qkv]
    flat = [*(x for layer in tape.qkv for x in layer), *tape.normed, tape.resid[-1]]
    found = list(torch.autograd.grad(gap, flat))
    read: list[Tensor] = []
    for layer in range(lm.n_layers):
        qkv_BTIC = wires.split(torch.cat([found.pop(0) for _ in range(parts[layer])], dim=-1))
        normed_IBTD = torch.einsum("btic,icd->ibtd", qkv_BTIC, wires.input_weights(layer))
        read.append(_through_norm(lm, layer, 0, tape.resid[layer], normed_IBTD, method))
        mlp_1BTD = found[sum(parts[layer + 1 :]) + layer][None]
        read.append(_through_norm(lm, layer, 1, tape.middle[layer], mlp_1BTD, method))
    return torch.cat([*read, found[-1][None]])


def _through_norm(
    lm: LanguageModel, layer: int, half: int, x_BTD: Tensor, grad_IBTD: Tensor, method: str
) -> Tensor:
    """Carry gradients from behind a layer's normalisation to before it, each input on its own."""
    norm = Wires(lm).norm(layer, half)
    rules = linearised(lm) if method == "relp" else nullcontext()
    with torch.enable_grad(), rules:
        x_IBTD = x_BTD.detach().expand_as(grad_IBTD).clone().requires_grad_()
        (found,) = torch.autograd.grad(norm(x_IBTD), x_IBTD, grad_IBTD)
    return found
