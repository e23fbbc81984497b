"""Make a language model smaller, and say honestly by how much.

Pruning sets weights to zero, rounding puts them on a coarse grid. Both act on the linear matrices inside the
decoder layers. The embedding, the head, the norms and the biases stay as they are. Each function leaves its
model alone, and gives a compressed copy with a report.

Weights stay in the model's number format, so a compressed copy is no faster here; it computes what the small
one would. Shapes: O outputs of a matrix, I its inputs, G inputs in one group.

Examples
--------
>>> from helpers import compress, models
>>> lm = models.random_model()
>>> pruned, report = compress.magnitude(lm, sparsity=0.5)
>>> report.sparsity
0.5
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import attrgetter

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from helpers import trace
from helpers.models import FAMILIES, LanguageModel

__all__ = [
    "Report",
    "count_zeros",
    "input_norms",
    "keep_best",
    "linear_layers",
    "magnitude",
    "matrix",
    "perplexity",
    "random_mask",
    "round_matrix",
    "round_to_nearest",
    "wanda",
]

Tokens = Int[Tensor, "batch position"]
Weights = Float[Tensor, "out in"]


@dataclass(frozen=True)
class Report:
    """Say what a compression did.

    Parameters
    ----------
    method : str
        What was done, with its setting.
    layers : tuple of str
        Names of the matrices that it touched.
    weights, zeros : int
        How many weights they have, and how many of those are exactly zero in the copy.
    bits : float
        Storage a weight, in bits, if the copy were packed: see `magnitude` and `round_to_nearest`.
    perplexity : float, optional
        Of the copy on held-out text, if such text was given.

    Examples
    --------
    >>> Report("magnitude 50 %", ("a",), weights=8, zeros=4, bits=17.0).sparsity
    0.5

    Taught in: compressed-models
    """

    method: str
    layers: tuple[str, ...] = field(repr=False)
    weights: int
    zeros: int
    bits: float
    perplexity: float | None = None

    @property
    def sparsity(self) -> float:
        """Share of exact zeros among the weights of the touched layers."""
        return self.zeros / self.weights


def linear_layers(lm: LanguageModel) -> dict[str, nn.Module]:
    """Find the linear matrices inside the decoder layers: not the embedding, not the head.

    Parameters
    ----------
    lm : LanguageModel
        The model.

    Returns
    -------
    dict of str to torch.nn.Module
        By name, in the order in which the model holds them.

    Examples
    --------
    >>> from helpers import compress, models
    >>> list(compress.linear_layers(models.random_model(n_layers=1)))
    ['h.0.attn.c_attn', 'h.0.attn.c_proj', 'h.0.mlp.c_fc', 'h.0.mlp.c_proj']

    Taught in: compressed-models
    """
    from transformers.pytorch_utils import Conv1D

    path = FAMILIES[lm.family].layers
    inside = attrgetter(path)(lm.model).named_modules(prefix=path.rpartition(".")[2])
    return {name: module for name, module in inside if isinstance(module, nn.Linear | Conv1D)}


def matrix(module: nn.Module) -> Weights:
    """Give a module's weights with outputs in rows: gpt2's Conv1D stores them the other way round.

    Parameters
    ----------
    module : torch.nn.Module
        One of `linear_layers`.

    Returns
    -------
    Float[Tensor, "out in"]
        A view: writing into it changes the module.

    Examples
    --------
    >>> matrix(nn.Linear(3, 2)).shape
    torch.Size([2, 3])

    Taught in: compressed-models
    """
    weight = module.get_parameter("weight").data
    return weight if isinstance(module, nn.Linear) else weight.T


def keep_best(
    score_OI: Weights, *, sparsity: float | None = None, n: int | None = None, m: int | None = None
) -> Bool[Tensor, "out in"]:
    """Mark the weights with the highest scores in each row.

    Parameters
    ----------
    score_OI : Float[Tensor, "out in"]
        How much each weight matters. Scores are compared within a row.
    sparsity : float, optional
        Share of each row to drop, [0, 1), rounded down to whole weights.
    n, m : int, optional
        Instead of the share: keep n of every m neighbouring inputs, 1 <= n < m. Processors that skip zeros
        ask for 2 of 4.

    Returns
    -------
    Bool[Tensor, "out in"]
        True where a weight stays. Among equal scores the choice is torch's, and the number is exact.

    Raises
    ------
    ValueError
        A sparsity outside [0, 1), n and m out of range, both or neither, or rows that do not divide into
        groups of m.

    Examples
    --------
    >>> keep_best(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), sparsity=0.5).tolist()
    [[True, True, False, False]]
    >>> keep_best(torch.tensor([[4.0, 3.0, 2.0, 1.0]]), n=1, m=2).tolist()
    [[True, False, True, False]]

    Taught in: compressed-models
    """
    _check_share(sparsity, n, m)
    if n is None or m is None:
        drop = math.floor((sparsity or 0.0) * score_OI.shape[1])
        groups = score_OI
    else:
        _check_groups(score_OI.shape[1], m, "m")
        drop, groups = m - n, score_OI.reshape(-1, m)
    lowest = groups.topk(drop, dim=1, largest=False, sorted=False).indices
    kept = torch.ones_like(groups, dtype=torch.bool).scatter_(1, lowest, False)
    return kept.view(score_OI.shape)


def magnitude(
    lm: LanguageModel,
    *,
    sparsity: float | None = None,
    n: int | None = None,
    m: int | None = None,
    held_out_BT: Tokens | None = None,
) -> tuple[LanguageModel, Report]:
    """Prune the smallest weights of each matrix.

    Parameters
    ----------
    lm : LanguageModel
        The model; it is not changed.
    sparsity : float, optional
        Share of each matrix to drop, [0, 1).
    n, m : int, optional
        Instead: keep n of every m neighbouring inputs.
    held_out_BT : Int[Tensor, "batch position"], optional
        Text for the perplexity in the report.

    Returns
    -------
    LanguageModel, Report
        The copy, and what was done to it. Its bits a weight count a mask of one bit a weight beside the
        weights that stay, or for n of m the place of each kept weight in its group.

    Raises
    ------
    ValueError
        As `keep_best`; the message names the layer whose inputs do not divide into groups.

    Examples
    --------
    >>> from helpers import compress, models
    >>> _, report = compress.magnitude(models.random_model(), n=2, m=4)
    >>> report.method, report.sparsity, report.bits
    ('magnitude 2:4', 0.5, 17.0)

    Taught in: compressed-models
    """

    def change(_: LanguageModel, name: str, weight_OI: Tensor) -> Tensor:
        score_OI = weight_OI.abs() if n else weight_OI.abs().reshape(1, -1)
        kept = keep_best(score_OI, sparsity=sparsity, n=n, m=m)
        return weight_OI * kept.view(weight_OI.shape)

    return _pruned(lm, change, f"magnitude {_setting(sparsity, n, m)}", (sparsity, n, m), held_out_BT)


def random_mask(
    lm: LanguageModel,
    *,
    sparsity: float | None = None,
    n: int | None = None,
    m: int | None = None,
    seed: int = 0,
    held_out_BT: Tokens | None = None,
) -> tuple[LanguageModel, Report]:
    """Prune weights drawn at random: the control of every pruning rule.

    Parameters
    ----------
    lm, sparsity, n, m, held_out_BT : LanguageModel
        As in `magnitude`; the share is dropped from each row.
    seed : int
        Of the draw.

    Returns
    -------
    LanguageModel, Report
        As from `magnitude`.

    Raises
    ------
    ValueError
        As `keep_best`.

    Examples
    --------
    >>> from helpers import compress, models
    >>> compress.random_mask(models.random_model(), sparsity=0.25)[1].sparsity
    0.25

    Taught in: compressed-models
    """
    dice = torch.Generator().manual_seed(seed)

    def change(_: LanguageModel, name: str, weight_OI: Tensor) -> Tensor:
        score_OI = torch.rand(weight_OI.shape, generator=dice).to(weight_OI.device)
        return weight_OI * keep_best(score_OI, sparsity=sparsity, n=n, m=m)

    return _pruned(lm, change, f"random {_setting(sparsity, n, m)}", (sparsity, n, m), held_out_BT)


def wanda(
    lm: LanguageModel,
    calibration_BT: Tokens,
    *,
    sparsity: float | None = None,
    n: int | None = None,
    m: int | None = None,
    layer_by_layer: bool = False,
    batch_size: int = 8,
    held_out_BT: Tokens | None = None,
) -> tuple[LanguageModel, Report]:
    """Prune the weights that matter least for what passes through them.

    The score of a weight is its size times the norm of its input over the calibration tokens, and scores
    are compared within each output's row.

    Parameters
    ----------
    lm : LanguageModel
        The model; it is not changed.
    calibration_BT : Int[Tensor, "batch position"]
        Text that says which inputs are large. It streams: memory does not grow with it.
    sparsity, n, m, held_out_BT : float
        As in `magnitude`; the share is dropped from each row.
    layer_by_layer : bool
        Take each layer's norms after the layers before it were pruned, as the authors' code does. It runs
        the text once for every layer; otherwise one pass through the original model gives all norms.
    batch_size : int
        Sequences in one forward pass.

    Returns
    -------
    LanguageModel, Report
        As from `magnitude`.

    Raises
    ------
    ValueError
        As `keep_best`, or calibration text without tokens.

    Notes
    -----
    Sun et al. (2023), arXiv 2306.11695, equation 1: S = |W| ||X||_2.

    Examples
    --------
    >>> from helpers import compress, models
    >>> lm = models.random_model()
    >>> text_BT = models.tokenize_blocks(lm, "a text to calibrate on", length=8)
    >>> compress.wanda(lm, text_BT, sparsity=0.5)[1].method
    'wanda 50 %'

    Taught in: compressed-models
    """
    norms = {} if layer_by_layer else input_norms(lm, calibration_BT, batch_size=batch_size)

    def change(small: LanguageModel, name: str, weight_OI: Tensor) -> Tensor:
        if name not in norms:
            block = [other for other in linear_layers(small) if _block(other) == _block(name)]
            norms.update(input_norms(small, calibration_BT, layers=block, batch_size=batch_size))
        score_OI = weight_OI.abs() * norms[name].to(weight_OI)  # equation 1
        return weight_OI * keep_best(score_OI, sparsity=sparsity, n=n, m=m)

    return _pruned(lm, change, f"wanda {_setting(sparsity, n, m)}", (sparsity, n, m), held_out_BT)


def input_norms(
    lm: LanguageModel,
    calibration_BT: Tokens,
    *,
    layers: Iterable[str] | None = None,
    batch_size: int = 8,
) -> dict[str, Float[Tensor, "in"]]:
    """Measure the norm of every input of the linear matrices over some text.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    calibration_BT : Int[Tensor, "batch position"]
        The text. All positions count, the first one too, as in the authors' code.
    layers : iterable of str, optional
        Names from `linear_layers`; all if not given. The pass stops after the last of them.
    batch_size : int
        Sequences in one forward pass.

    Returns
    -------
    dict of str to Float[Tensor, "in"]
        The root of the sum of squares over all tokens, in float32.

    Raises
    ------
    ValueError
        Text without tokens.

    Examples
    --------
    >>> from helpers import compress, models
    >>> lm = models.random_model(n_layers=1, d_model=8)
    >>> text_BT = models.tokenize_blocks(lm, "four", length=4)
    >>> {name: len(norm_I) for name, norm_I in compress.input_norms(lm, text_BT).items()}
    {'h.0.attn.c_attn': 8, 'h.0.attn.c_proj': 8, 'h.0.mlp.c_fc': 8, 'h.0.mlp.c_proj': 32}

    Taught in: compressed-models
    """
    if calibration_BT.numel() == 0:
        raise ValueError(
            f"the calibration set has shape {tuple(calibration_BT.shape)}, so no tokens; give a block or more"
        )
    every = linear_layers(lm)
    chosen = {name: every[name] for name in (every if layers is None else layers)}
    squares = {name: torch.zeros(matrix(layer).shape[1]).double() for name, layer in chosen.items()}
    with _listening(chosen, squares, last=list(chosen)[-1]), torch.no_grad():
        for batch_BT in calibration_BT.split(batch_size):
            try:
                lm.model.base_model(batch_BT.to(lm.device), use_cache=False)
            except _PassDoneError:
                continue
    return {name: total_I.sqrt().float() for name, total_I in squares.items()}


def round_to_nearest(
    lm: LanguageModel, *, bits: int, group: int | None = None, held_out_BT: Tokens | None = None
) -> tuple[LanguageModel, Report]:
    """Round every weight to the nearest point of a symmetric grid: quantisation without training.

    Parameters
    ----------
    lm : LanguageModel
        The model; it is not changed.
    bits : int
        Bits a weight, 2 to 8.
    group : int, optional
        Neighbouring inputs that share one scale; if not given, the whole row does (per channel).
    held_out_BT : Int[Tensor, "batch position"], optional
        Text for the perplexity in the report.

    Returns
    -------
    LanguageModel, Report
        The copy holds the rounded values in the model's own number format. Its bits a weight count a scale
        of that format for each group.

    Raises
    ------
    ValueError
        Bits out of range, or a layer whose inputs do not divide into groups.

    Examples
    --------
    >>> from helpers import compress, models
    >>> _, report = compress.round_to_nearest(models.random_model(), bits=4, group=16)
    >>> report.method, report.bits
    ('int4, groups of 16', 6.0)

    Taught in: compressed-models
    """

    def change(_: LanguageModel, name: str, weight_OI: Tensor) -> Tensor:
        return round_matrix(weight_OI, bits=bits, group=group)

    def price(weight_OI: Tensor) -> float:
        return bits + 8 * weight_OI.element_size() / (group or weight_OI.shape[1])

    method = f"int{bits}, {f'groups of {group}' if group else 'per channel'}"
    return _compressed(lm, change, method, price, held_out_BT)


def round_matrix(weight_OI: Weights, *, bits: int, group: int | None = None) -> Weights:
    """Round a matrix to the grid of `bits` bits, with one scale for each group of inputs.

    Parameters
    ----------
    weight_OI : Float[Tensor, "out in"]
        The weights.
    bits : int
        2 to 8. The grid has the points -q, ..., 0, ..., q times the scale, with q = 2^(bits - 1) - 1.
    group : int, optional
        Inputs that share a scale; the row if not given.

    Returns
    -------
    Float[Tensor, "out in"]
        The nearest grid points, in the format of the input. The largest weight of a group stays.

    Raises
    ------
    ValueError
        Bits out of range, or rows that do not divide into groups.

    Examples
    --------
    >>> round_matrix(torch.tensor([[3.0, 1.4, -0.2]]), bits=3)
    tensor([[3., 1., -0.]])

    Taught in: compressed-models
    """
    if not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits}; expected 2 to 8")
    _check_groups(weight_OI.shape[1], group or weight_OI.shape[1], "group")
    top = 2 ** (bits - 1) - 1
    rows_RG = weight_OI.reshape(-1, group or weight_OI.shape[1])
    scale_R1 = rows_RG.abs().amax(dim=1, keepdim=True) / top
    steps_RG = (rows_RG / scale_R1.clamp(min=torch.finfo(rows_RG.dtype).tiny)).round()
    return (steps_RG.clamp(-top, top) * scale_R1).view(weight_OI.shape)


def count_zeros(lm: LanguageModel) -> tuple[int, int]:
    """Count the weights that are exactly zero, and all weights, in the linear matrices of the layers.

    Parameters
    ----------
    lm : LanguageModel
        The model.

    Returns
    -------
    zeros, weights : int
        A weight of -0.0 is zero; one that is only small is not.

    Examples
    --------
    >>> from helpers import compress, models
    >>> compress.count_zeros(models.random_model(n_layers=1, d_model=8))
    (0, 768)

    Taught in: compressed-models
    """
    every = [matrix(module) for module in linear_layers(lm).values()]
    return sum(int((w.abs() == 0).sum()) for w in every), sum(w.numel() for w in every)


def perplexity(lm: LanguageModel, tokens_BT: Tokens, *, batch_size: int = 8) -> float:
    """Measure how unsure a model is of the next token: the exponential of its mean loss.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    tokens_BT : Int[Tensor, "batch position"]
        Held-out text.
    batch_size : int
        Sequences in one forward pass.

    Returns
    -------
    float
        1 is certain; the size of the vocabulary is a blind guess.

    Examples
    --------
    >>> from helpers import compress, models
    >>> lm = models.random_model()
    >>> 230 < compress.perplexity(lm, models.tokenize_blocks(lm, "eight by", length=4)) < 290
    True

    Taught in: compressed-models
    """
    return math.exp(trace.loss(lm, tokens_BT, batch_size=batch_size))


Change = Callable[[LanguageModel, str, Tensor], Tensor]


def _compressed(
    lm: LanguageModel,
    change: Change,
    method: str,
    price: Callable[[Tensor], float],
    held_out_BT: Tensor | None,
) -> tuple[LanguageModel, Report]:
    """Copy a model, change its matrices one after the other, and report."""
    small = replace(lm, name=f"{lm.name}, {method}", model=copy.deepcopy(lm.model), source="folder")
    layers, stored = linear_layers(small), 0.0
    for name, module in layers.items():
        weight_OI = matrix(module)
        try:
            weight_OI.copy_(change(small, name, weight_OI))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        stored += weight_OI.numel() * price(weight_OI)
    zeros, weights = count_zeros(small)
    held_out = None if held_out_BT is None else perplexity(small, held_out_BT)
    return small, Report(method, tuple(layers), weights, zeros, stored / weights, held_out)


def _pruned(
    lm: LanguageModel,
    change: Change,
    method: str,
    share: tuple[float | None, int | None, int | None],
    held_out_BT: Tensor | None,
) -> tuple[LanguageModel, Report]:
    """Prune a copy; its price counts the weights that stay and where they are."""
    _check_share(*share)
    _, n, m = share

    def price(weight_OI: Tensor) -> float:
        whole, kept = 8 * weight_OI.element_size(), float((weight_OI != 0).float().mean())
        if n and m:
            return n / m * (whole + math.ceil(math.log2(m)))
        return min(whole, 1 + kept * whole)

    return _compressed(lm, change, method, price, held_out_BT)


def _setting(sparsity: float | None, n: int | None, m: int | None) -> str:
    """Write the share for people."""
    return f"{n}:{m}" if sparsity is None else f"{100 * sparsity:g} %"


def _check_share(sparsity: float | None, n: int | None, m: int | None) -> None:
    """Refuse anything but one share: a sparsity, or n of m."""
    if (sparsity is None) == (n is None) or (n is None) != (m is None):
        raise ValueError(f"sparsity is {sparsity}, n {n}, m {m}; give either a sparsity, or both n and m")
    if sparsity is not None and not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; expected at least 0 and below 1, the share to drop")
    if n is not None and m is not None and not 1 <= n < m:
        raise ValueError(f"n is {n} and m {m}; expected 1 <= n < m: n weights stay of every m")


def _check_groups(inputs: int, size: int, word: str) -> None:
    """Refuse rows that do not divide into groups."""
    if size < 1 or inputs % size:
        raise ValueError(
            f"{inputs} inputs do not divide into groups of {word} = {size}; choose a divisor of {inputs}"
        )


def _block(name: str) -> str:
    """Give the decoder layer that a matrix belongs to."""
    return ".".join(name.split(".")[:2])


class _PassDoneError(Exception):
    """Ends a forward pass whose rest nobody needs."""


@contextmanager
def _listening(chosen: dict[str, nn.Module], squares: dict[str, Tensor], *, last: str) -> Iterator[None]:
    """Add up the squared inputs of some modules while they run, and stop the pass after the last."""

    def listen(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            squares[name] += inputs[0].flatten(0, -2).double().square().sum(0).cpu()
            if name == last:
                raise _PassDoneError

        return add

    handles = [module.register_forward_pre_hook(listen(name)) for name, module in chosen.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
