"""Checkers for the exercises of the chapter `toxic-finetuning`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from helpers.checks import verdict

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def restored(answer: Callable[[float, float, float], float | None]) -> None:
    """Check the share of a corruption that patching undoes.

    Parameters
    ----------
    answer : Callable[[float, float, float], float | None]
        From the logit differences of the base, the corrupted and the patched model to the share.

    Examples
    --------
    >>> restored(lambda base, toxic, patched: patched / base)
    answer: not yet.
      - with (4, -2, -2) it gives -0.5, and should give 0: patching changed nothing.
      - with (4, -2, 1) it gives 0.25, and should give 0.5: 3 of the 6 logits that were lost are back.
      - with (4, -2, -5) it gives -1.25, and should give -0.5: patching made it worse.
    >>> restored(lambda base, toxic, patched: (patched - toxic) / (base - toxic))
    answer: right.

    Taught in: toxic-finetuning
    """
    cases = {
        (4.0, -2.0, 4.0): (1.0, "all of it is back"),
        (4.0, -2.0, -2.0): (0.0, "patching changed nothing"),
        (4.0, -2.0, 1.0): (0.5, "3 of the 6 logits that were lost are back"),
        (4.0, -2.0, -5.0): (-0.5, "patching made it worse"),
    }
    found = {gaps: answer(*gaps) for gaps in cases}
    if None in found.values():
        return verdict(_name(answer), UNWRITTEN)
    return verdict(
        _name(answer),
        [
            f"with ({', '.join(f'{x:g}' for x in gaps)}) it gives {found[gaps]:.3g}, "
            f"and should give {right:g}: {why}."
            for gaps, (right, why) in cases.items()
            if abs(float(found[gaps] or 0) - right) > 1e-6
        ],
    )


def key_head(answer: Callable[[int, int, int], int | None]) -> None:
    """Check which key and value head a query head reads, with grouped-query attention.

    Parameters
    ----------
    answer : Callable[[int, int, int], int | None]
        From a query head, the number of query heads and the number of key heads to the key head.

    Examples
    --------
    >>> key_head(lambda head, n_heads, n_groups: head % n_groups)
    answer: not yet.
      - of 9 query heads and 3 key heads, query head 1 reads key head 0, not 1: neighbours share one.
    >>> key_head(lambda head, n_heads, n_groups: head * n_groups // n_heads)
    answer: right.

    Taught in: toxic-finetuning
    """
    faults: list[str] = []
    for heads, groups in ((9, 3), (12, 12), (8, 1)):
        for head in range(heads):
            found, right = answer(head, heads, groups), head // (heads // groups)
            if found is None:
                return verdict(_name(answer), UNWRITTEN)
            if found != right and not faults:
                faults.append(
                    f"of {heads} query heads and {groups} key heads, query head {head} reads key "
                    f"head {right}, not {found}: neighbours share one."
                )
    return verdict(_name(answer), faults)


def attribution(answer: Callable[[Tensor, Tensor, Tensor], Tensor | None]) -> None:
    """Check attribution patching: the estimated fall of the logit difference, for every head of a layer.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor, Tensor], Tensor | None]
        From clean and corrupted values and the gradient of the summed logit difference at the clean ones,
        each (batch, position, head, width), to one number a head: the mean over prompts.

    Examples
    --------
    >>> attribution(lambda clean, other, grad: ((other - clean) * grad).sum((1, 3)).mean(0))
    answer: not yet.
      - the sign is turned round: a fall is what is lost when the corrupted value comes in.
    >>> attribution(lambda clean, other, grad: ((clean - other) * grad).sum((1, 3)).mean(0))
    answer: right.

    Taught in: toxic-finetuning
    """
    dice = torch.Generator().manual_seed(0)
    clean, other, grad = (torch.randn(5, 4, 3, 2, generator=dice) for _ in range(3))
    found, right = answer(clean, other, grad), ((clean - other) * grad).sum((0, 1, 3)) / 5
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    if found.shape != right.shape:
        fault = f"it gives shape {tuple(found.shape)}; expected one number a head, so {tuple(right.shape)}."
    elif torch.allclose(found, -right, atol=1e-5):
        fault = "the sign is turned round: a fall is what is lost when the corrupted value comes in."
    elif torch.allclose(found, right * 5, atol=1e-4):
        fault = "it sums over the prompts; the effect is a mean over them."
    elif torch.allclose(found, right / 8, atol=1e-5):
        fault = "it averages over positions or width; all of a head changes at once, so sum over them."
    else:
        fault = "it is not the difference times the gradient, summed over positions and width."
    return verdict(_name(answer), [] if torch.allclose(found, right, atol=1e-5) else [fault])


def tuning_share(answer: Callable[[Tensor, Tensor], Tensor | None]) -> None:
    """Check TuCo from what each layer adds: by pre-training, and by fine-tuning.

    Parameters
    ----------
    answer : Callable[[Tensor, Tensor], Tensor | None]
        From PTC and FTC, each (layer, batch, d_model), to one number a prompt in [0, 1].

    Examples
    --------
    >>> tuning_share(lambda ptc, ftc: ftc.norm(dim=-1).sum(0) / (ptc + ftc).norm(dim=-1).sum(0))
    answer: not yet.
      - what two layers add in opposite directions must cancel: sum the vectors, then take lengths.
    >>> tuning_share(
    ...     lambda ptc, ftc: ftc.sum(0).norm(dim=-1) / (ptc.sum(0).norm(dim=-1) + ftc.sum(0).norm(dim=-1))
    ... )
    answer: right.

    Taught in: toxic-finetuning
    """
    ptc = torch.tensor([[[3.0, 0.0]], [[0.0, 4.0]]])
    cancels = torch.tensor([[[1.0, 0.0]], [[-1.0, 0.0]]])
    adds = torch.tensor([[[5.0, 0.0]], [[0.0, 0.0]]])
    found = [answer(ptc, ftc) for ftc in (cancels, adds)]
    if found[0] is None or found[1] is None:
        return verdict(_name(answer), UNWRITTEN)
    faults = []
    if abs(float(found[0])) > 1e-6:
        faults.append(
            "what two layers add in opposite directions must cancel: sum the vectors, then take lengths."
        )
    elif abs(float(found[1]) - 0.5) > 1e-6:
        faults.append(
            f"with sums of lengths 5 and 5 it gives {float(found[1]):.3g}, and should give 0.5: "
            "divide by the sum of both lengths."
        )
    return verdict(_name(answer), faults)


def _name(answer: Callable[..., object]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
