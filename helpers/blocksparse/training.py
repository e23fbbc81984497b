"""Train a classifier by one of the rules, such that a given share of its blocks ends at zero."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from helpers.blocksparse.blocks import Shape
from helpers.blocksparse.conversion import convert, layers_of
from helpers.blocksparse.layers import KroneckerLinear
from helpers.blocksparse.rules import METHODS, Rule, Units

__all__ = ["Fitted", "fit"]

FROZEN = 0.75  # share of the training after which the pattern of blocks stays as it is
UPDATES = 40  # how often a pattern is revised until then
AT_ONCE = 1000  # inputs that are classified together


@dataclass(frozen=True)
class Fitted:
    """A trained model.

    Parameters
    ----------
    model : nn.Module
        In evaluation mode.
    trained : int
        How many numbers were trained, in the whole model.
    zeros_before : float
        Share of blocks that were exactly zero when the pattern was made final, before the weakest were cut
        to reach the share that was asked for; over the layers that count.
    """

    model: nn.Module
    trained: int
    zeros_before: float

    @torch.no_grad()
    def accuracy(self, x_ND: Float[Tensor, "input feature"], target_N: Int[Tensor, "input"]) -> float:
        """Return the share of inputs that are classified rightly."""
        guesses = torch.cat([self.model(rows).argmax(1) for rows in x_ND.split(AT_ONCE)])
        return float((guesses == target_N).double().mean())


def fit(
    model: nn.Module, x_ND: Float[Tensor, "input feature"], *, target_N: Tensor, method: str,
    block: Shape = (4, 4), rank: int = 1, sparsity: float = 0.5, steps: int = 600, batch: int = 128,
    lr: float = 2e-3, seed: int = 0, skip: Sequence[str] = (),
) -> Fitted:  # fmt: skip
    """Train a copy of a classifier such that a given share of its weight blocks is exactly zero.

    All methods take the same steps of Adam on the same batches. Patterns are looked for during the first
    three quarters, then the strongest blocks of each layer are kept, as many as the share allows, and
    trained on without a penalty. Penalties are proximal steps after each step of Adam; their size is the
    least that leaves as many zeros as are due, by the rising share that iterative pruning follows too.

    Parameters
    ----------
    model : nn.Module
        What to begin from; it stays as it is.
    x_ND : Float[Tensor, "input feature"]
        Training inputs.
    target_N : Tensor
        Classes as whole numbers, or numbers to predict (squared error).
    method : str
        One of `METHODS`. "Kronecker factors" trains factors only; the others train dense weights.
    block : (int, int)
        Rows and columns of a block.
    rank : int
        Number of terms of the factors.
    sparsity : float
        Share of zero blocks in every layer that counts, from 0 to below 1.
    steps, batch : int
        Steps of the optimiser and rows in each.
    lr : float
        Learning rate of Adam, with a cosine fall to zero.
    seed : int
        Decides the batches, and random patterns.
    skip : sequence of str
        Layers that stay dense.

    Returns
    -------
    Fitted
        The trained model.

    Raises
    ------
    ValueError
        If the method is unknown, the share out of range, or no layer has such blocks.

    References
    ----------
    arXiv 2503.21928 (factors); Yuan, Lin (2006) (group lasso); Evci et al. (2020), arXiv 1911.11134 (RigL);
    Zhu, Gupta (2017), arXiv 1710.01878 (iterative pruning).

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> x, y = torch.randn(64, 8), torch.arange(64) % 4
    >>> start = blocksparse.mlp([8, 8, 4], seed=0)
    >>> done = blocksparse.fit(start, x, target_N=y, method="Kronecker factors", block=(2, 2), steps=40)
    >>> blocksparse.zero_blocks(done.model, (2, 2))
    0.5

    Taught in: block-sparsity
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; expected one of {', '.join(METHODS)}")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; expected a share from 0 to below 1")
    if method == "Kronecker factors":
        model = convert(model, block=block, rank=rank, skip=skip)[0]
    else:
        model = copy.deepcopy(model)
    dice = torch.Generator().manual_seed(seed)
    found = layers_of(model, block, skip=skip, kinds=(KroneckerLinear,))
    rules = [
        METHODS[method](Units(layer, block, sparsity), sparsity=sparsity, dice=dice) for _, layer in found
    ]
    before = 0.0
    revisions = max(1, int(FROZEN * steps) // UPDATES)
    last = int(FROZEN * steps)
    for step in descend(model, x_ND, target_N, steps=steps, batch=batch, lr=lr, seed=seed):
        before = _act(rules, step.number, step.stepped, last=last, revisions=revisions, before=before)
    return Fitted(model.eval(), sum(p.numel() for p in model.parameters()), before)


@dataclass(frozen=True)
class Moment:
    """Where the training is: before or after the optimiser's step of this number."""

    number: int
    stepped: bool


def descend(
    model: nn.Module, x_ND: Tensor, target_N: Tensor, *, steps: int, batch: int, lr: float, seed: int
) -> Iterator[Moment]:
    """Train, and stop twice at each step: with the gradient at hand, and after the optimiser has moved."""
    dice = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    error = F.mse_loss if target_N.is_floating_point() else F.cross_entropy
    order = torch.empty(0, dtype=torch.long)
    model.train()
    for number in range(steps):
        if len(order) < batch:
            order = torch.cat([order, torch.randperm(len(x_ND), generator=dice)])
        rows, order = order[:batch], order[batch:]
        optimiser.zero_grad()
        error(model(x_ND[rows]), target_N[rows]).backward()
        yield Moment(number, stepped=False)
        optimiser.step()
        fall.step()
        with torch.no_grad():
            yield Moment(number, stepped=True)


def _act(rules: list[Rule], number: int, stepped: bool, *, last: int, revisions: int, before: float) -> float:
    """Let the rules act at one moment; return the share of zeros before the pattern became final."""
    progress = number / last
    for rule in rules:
        if not stepped:
            if number % revisions == 0 and 0 < number < last:
                rule.revise(progress)
            assert rule.units.values.grad is not None
            rule.units.mask_(rule.units.values.grad)
        else:
            rule.units.mask_(rule.units.values.data)
            rule.every_step(progress)
    if number == last and stepped:
        blocks = sum(rule.units.kept_PQ.numel() for rule in rules)
        before = sum(rule.units.zeros() * rule.units.kept_PQ.numel() for rule in rules) / blocks
        for rule in rules:
            rule.freeze()
    return before
