"""Choose a block size within one run: all sizes train together, a rising price leaves one."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from helpers.blocksparse.blocks import Shape, soft
from helpers.blocksparse.conversion import layers_of, replaced
from helpers.blocksparse.layers import KroneckerLinear
from helpers.blocksparse.training import descend

__all__ = ["Candidates", "Search", "search"]

GROWTH = 1e5  # how much the price rises over a search


class Candidates(nn.Module):
    """A layer that is the sum of several `KroneckerLinear`, one for each block size.

    Parameters
    ----------
    linear : nn.Linear
        What to begin from: every candidate gets its share of the weight.
    blocks : sequence of (int, int)
        The block sizes.
    rank : int
        Number of terms of each.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from helpers import blocksparse
    >>> layer = blocksparse.Candidates(nn.Linear(8, 8), blocks=[(2, 2), (4, 4)], rank=1)
    >>> layer(torch.zeros(3, 8)).shape
    torch.Size([3, 8])

    Taught in: block-sparsity
    """

    def __init__(self, linear: nn.Linear, *, blocks: Sequence[Shape], rank: int) -> None:
        super().__init__()
        share = copy.deepcopy(linear)
        share.weight.data /= len(blocks)
        share.bias = None  # type: ignore[assignment]
        self.layers = nn.ModuleList(
            KroneckerLinear.from_linear(share, block=block, rank=rank) for block in blocks
        )
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())

    def forward(self, x: Float[Tensor, "*batch input"]) -> Float[Tensor, "*batch output"]:
        """Return the sum of what the candidates give."""
        out = sum(layer(x) for layer in self.layers)
        return out if self.bias is None else out + self.bias


@dataclass(frozen=True)
class Search:
    """What a search found.

    Parameters
    ----------
    block : (int, int)
        The block size that was left.
    sizes : list of list of float
        How large each candidate's S was after every step; 0 from where it was given up.
    """

    block: Shape
    sizes: list[list[float]]


def search(
    model: nn.Module, x_ND: Float[Tensor, "input feature"], *, target_N: Tensor, blocks: Sequence[Shape],
    rank: int = 1, each: float = 0.1, steps: int = 600, batch: int = 128, lr: float = 2e-3, seed: int = 0,
    skip: Sequence[str] = (),
) -> Search:  # fmt: skip
    """Choose a block size in one run: all train together, and a rising price on each drives all but one out.

    The price is a group penalty: ``sum_k |S_k|``, with S_k all scales of candidate k in all layers, and
    the norm not squared, so that whole candidates become exactly zero; beside it a smaller price on the
    single entries of S. It rises until one candidate is left. This form is the book's reading of the paper's
    words, whose equation was not found.

    Parameters
    ----------
    model : nn.Module
        What to begin from; it stays as it is.
    x_ND : Float[Tensor, "input feature"]
        Training inputs.
    target_N : Tensor
        Classes as whole numbers, or numbers to predict.
    blocks : sequence of (int, int)
        Block sizes, two or more; a layer is searched if all of them divide it.
    rank : int
        Number of terms of each candidate.
    each : float
        Price of single entries as a share of the group's, 0 or more.
    steps, batch, lr, seed, skip
        As in `fit`.

    Returns
    -------
    Search
        The block size that was left, and the path to it.

    Raises
    ------
    ValueError
        If there are fewer than two block sizes, or no layer fits all.

    References
    ----------
    arXiv 2503.21928, pattern selection.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from helpers import blocksparse
    >>> weight = torch.kron(torch.randn(2, 2), torch.randn(4, 4))
    >>> x = torch.randn(256, 8)
    >>> found = blocksparse.search(
    ...     nn.Linear(8, 8), x, target_N=x @ weight.T, blocks=[(2, 2), (4, 4)], steps=200, lr=0.02
    ... )
    >>> len(found.sizes), sum(size > 0 for size in found.sizes[-1])
    (200, 1)

    Taught in: block-sparsity
    """
    if len(blocks) < 2:
        raise ValueError(f"{len(blocks)} block size is no choice; give two or more")
    fitting = [{name for name, _ in layers_of(model, block, skip=skip)} for block in blocks]
    names = [name for name, _ in model.named_modules() if all(name in found for found in fitting)]
    if not names:
        raise ValueError(
            f"no linear layer has blocks of all of {list(blocks)}; give sizes that divide one layer"
        )
    made = replaced(model, lambda linear: Candidates(linear, blocks=blocks, rank=rank), names)
    mixtures = [module for module in made.modules() if isinstance(module, Candidates)]
    groups = [[mixture.layers[k] for mixture in mixtures] for k in range(len(blocks))]
    race = _Race(groups, each=each, growth=GROWTH ** (1 / steps))
    for moment in descend(made, x_ND, target_N, steps=steps, batch=batch, lr=lr, seed=seed):
        if moment.stepped:
            race.step()
    left = max(range(len(blocks)), key=lambda k: race.sizes[-1][k])
    return Search(tuple(blocks[left]), race.sizes)  # type: ignore[arg-type]


class _Race:
    """Candidates under a rising price; who has no size left is out."""

    def __init__(self, groups: list[list[nn.Module]], *, each: float, growth: float) -> None:
        self.groups: list[list[KroneckerLinear]] = groups  # type: ignore[assignment]
        self.each, self.growth, self.level = each, growth, 1e-5
        self.sizes: list[list[float]] = []
        self.alive = list(range(len(groups)))
        self.start = sum(self._sizes())

    def _sizes(self) -> list[float]:
        for layer in (layer for group in self.groups for layer in group):
            layer.normalise_()
        return [
            math.hypot(*(float(layer.scale_PQ.detach().norm()) for layer in group)) for group in self.groups
        ]

    def step(self) -> None:
        """Take a proximal step on all candidates, unless only one is left."""
        sizes = self._sizes()
        alive = [k for k in self.alive if sizes[k] > 0] or self.alive[:1]
        self.alive = alive
        if len(alive) > 1:
            self.level *= self.growth
            best = max(alive, key=lambda k: sizes[k])
            for k in alive:
                self._shrink(self.groups[k], sizes[k], spare=k == best)
        for k, group in enumerate(self.groups):
            if k not in alive:
                for layer in group:
                    layer.scale_PQ.zero_()
        self.sizes.append(self._sizes())

    def _shrink(self, group: list[KroneckerLinear], size: float, *, spare: bool) -> None:
        """Shorten all scales of a candidate together, and each a little; the last one is not wiped out."""
        amount = self.level * self.start
        keep = max(1 - amount / size, 0.1 if spare else 0.0)
        for layer in group:
            layer.scale_PQ.mul_(keep)
            if amount < 0.9 * size:
                each = self.each * amount / math.sqrt(layer.scale_PQ.numel())
                layer.scale_PQ.copy_(soft(layer.scale_PQ, each))
