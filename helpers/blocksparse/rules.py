"""What each way to train does to the blocks of a layer: seven rules, from none at all to RigL's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from helpers.blocksparse.blocks import Shape, block_norms, shrink_blocks, to_blocks
from helpers.blocksparse.layers import KroneckerLinear

__all__ = ["METHODS"]

DROP = 0.3  # share of the kept blocks that RigL swaps at first


class Units:
    """The blocks of one layer, dense or factored: how strong each is, and which may be other than zero."""

    def __init__(self, layer: nn.Module, block: Shape, sparsity: float) -> None:
        self.layer, self.block = layer, block
        self.factored = isinstance(layer, KroneckerLinear)
        self.kept_PQ = torch.ones_like(self.strengths(), dtype=torch.bool)
        self.n_kept = max(1, round((1 - sparsity) * self.kept_PQ.numel()))

    @property
    def values(self) -> nn.Parameter:
        """What is zero where a block is."""
        return self.layer.scale_PQ if self.factored else self.layer.weight  # type: ignore[return-value]

    def strengths(self) -> Tensor:
        """Return how strong each block is: |S|, or its norm."""
        values = self.values.detach()
        return values.abs() if self.factored else block_norms(values, self.block)

    def gradients(self) -> Tensor:
        """Return how much the loss asks of each block."""
        assert self.values.grad is not None
        return self.values.grad.abs() if self.factored else block_norms(self.values.grad, self.block)

    def keep_(self, strength_PQ: Tensor, count: int) -> None:
        """Keep so many of the strongest blocks, and set the others to zero."""
        kept = torch.zeros_like(strength_PQ.flatten(), dtype=torch.bool)
        kept[strength_PQ.flatten().topk(count).indices] = True
        self.kept_PQ = kept.view_as(strength_PQ)
        self.mask_(self.values.data)

    def mask_(self, values: Tensor) -> None:
        """Set to zero what belongs to no kept block."""
        if not self.kept_PQ.all():
            outside_PQ = ~self.kept_PQ
            if self.factored:
                values.masked_fill_(outside_PQ, 0.0)
            else:
                to_blocks(values, self.block).masked_fill_(outside_PQ[:, :, None, None], 0.0)

    def shrink_(self, amount: float, each: float) -> None:
        """Take a proximal step on the layer's blocks."""
        if isinstance(self.layer, KroneckerLinear):
            self.layer.shrink_(amount)
        else:
            self.values.data = shrink_blocks(self.values.detach(), self.block, amount=amount, each=each)

    def zeros(self) -> float:
        """Return the share of blocks that are zero."""
        return float((self.strengths() == 0).double().mean())


class Rule:
    """What becomes of one layer's blocks while it is trained; this one leaves them alone."""

    def __init__(self, units: Units, *, sparsity: float, dice: torch.Generator) -> None:
        self.units, self.sparsity, self.dice = units, sparsity, dice
        self.begin()

    def begin(self) -> None:
        """Prepare the layer."""

    def every_step(self, progress: float) -> None:
        """Act after a step of the optimiser."""

    def revise(self, progress: float) -> None:
        """Act at a revision, with the full gradient at hand; ``progress`` goes from 0 to 1."""

    def freeze(self) -> None:
        """Act when the pattern becomes final."""


class _Random(Rule):
    """Blocks drawn by lot before training: the negative control."""

    def begin(self) -> None:
        lots = torch.rand(self.units.kept_PQ.shape, generator=self.dice)
        self.units.keep_(lots.to(self.units.kept_PQ.device), self.units.n_kept)


class Rising(Rule):
    """What iterative pruning and the penalties share: a rising share of zeros, and the strongest stay."""

    def scheduled(self, progress: float) -> float:
        """Return the share of zeros that is due: a cubic rise, fast at first."""
        return self.sparsity * (1 - (1 - progress) ** 3)

    def freeze(self) -> None:
        self.units.keep_(self.units.strengths(), self.units.n_kept)


class _Pruning(Rising):
    """Set the weakest blocks to zero, a few more at each revision."""

    def revise(self, progress: float) -> None:
        count = round((1 - self.scheduled(progress)) * self.units.kept_PQ.numel())
        self.units.keep_(self.units.strengths(), max(count, self.units.n_kept))


class _RigL(_Random):
    """Sparse from the start; each revision drops the weakest and grows where the gradient is largest."""

    def revise(self, progress: float) -> None:
        units = self.units
        swap = int(DROP / 2 * (1 + math.cos(math.pi * progress)) * units.n_kept)
        if swap:
            wanted_PQ = units.gradients().masked_fill(units.kept_PQ, -1.0)  # grow outside only
            units.keep_(units.strengths().masked_fill(~units.kept_PQ, -1.0), units.n_kept - swap)
            grown = wanted_PQ.flatten().topk(swap).indices
            units.kept_PQ.view(-1)[grown] = True


class _Lasso(Rising):
    """Shrink all blocks after every step, by the least amount that leaves the share due at exactly zero."""

    each = 0.0  # single entries are shrunk by this share of the amount

    def every_step(self, progress: float) -> None:
        if progress <= 1:
            strengths_PQ = self.units.strengths()
            due = round(self.scheduled(progress) * strengths_PQ.numel())
            if due:
                amount = float(strengths_PQ.flatten().kthvalue(due).values)
                self.units.shrink_(amount, self.each * amount)


class _Elastic(_Lasso):
    """The group lasso with a penalty on single entries beside it."""

    each = 0.5 / 4  # half of the group's price, spread over the sixteen entries of a 4 x 4 block's norm


METHODS: dict[str, type[Rule]] = {
    "dense": Rule,
    "Kronecker factors": _Lasso,
    "group lasso": _Lasso,
    "elastic group lasso": _Elastic,
    "block RigL": _RigL,
    "iterative pruning": _Pruning,
    "random blocks": _Random,
}
