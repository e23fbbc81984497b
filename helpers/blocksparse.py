"""Layers whose weights are zero in whole blocks, trained through small factors: arXiv 2503.21928.

A weight of P x Q blocks, each M x N, is written as W = sum_i (S * A_i) (x) B_i, where (x) is the Kronecker
product: block (a, b) is S_ab times a mix of the R small matrices B_i. Where S is zero, the whole block is.
`KroneckerLinear` holds the factors and never forms W; `convert` puts it in place of the linear layers of any
model; `BlockSparseLinear` is what a trained layer becomes when it only has to be run.

`fit` trains a classifier in one of seven ways that end with the same share of zero blocks, counted by
absolute value; `search` chooses a block size within one run.

Examples
--------
>>> import torch
>>> from helpers import blocksparse
>>> layer = blocksparse.KroneckerLinear(64, 32, block=(4, 4), rank=2)
>>> layer(torch.zeros(5, 64)).shape
torch.Size([5, 32])
"""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

__all__ = [
    "METHODS", "BlockSparseLinear", "Candidates", "Cost", "Fitted", "KroneckerLinear", "PatchTransformer",
    "Search", "block_norms", "convert", "cost", "factorise", "fit", "from_blocks", "mlp", "search",
    "shrink_blocks", "to_blocks", "zero_blocks",
]  # fmt: skip

Shape = tuple[int, int]
FROZEN = 0.75  # share of the training after which the pattern of blocks stays as it is
UPDATES = 40  # how often a pattern is revised until then
DROP = 0.3  # share of the kept blocks that RigL swaps at first
TINY = 1e-12
GROWTH = 1e5  # how much the price rises over a search


# Blocks of a matrix


def _grid(size: Shape, block: Shape) -> Shape:
    """Return how many blocks a matrix has, down and across; refuse blocks that do not fit."""
    if min(block) < 1 or size[0] % block[0] or size[1] % block[1]:
        raise ValueError(
            f"blocks of {block[0]} x {block[1]} do not divide a weight of {size[0]} x {size[1]}; "
            "give a block whose sides divide those of the weight"
        )
    return size[0] // block[0], size[1] // block[1]


def to_blocks(weight_OI: Float[Tensor, "output input"], block: Shape) -> Float[Tensor, "p q m n"]:
    """Cut a matrix into blocks.

    Parameters
    ----------
    weight_OI : Float[Tensor, "output input"]
        The matrix; its sides are multiples of the block's.
    block : (int, int)
        Rows and columns of a block.

    Returns
    -------
    Float[Tensor, "p q m n"]
        Block row, block column, then the block.

    Raises
    ------
    ValueError
        If the block does not divide the matrix.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> blocksparse.to_blocks(torch.arange(8.0).reshape(2, 4), (2, 2))[0, 1]
    tensor([[2., 3.],
            [6., 7.]])

    Taught in: block-sparsity
    """
    p, q = _grid((weight_OI.shape[0], weight_OI.shape[1]), block)
    return weight_OI.reshape(p, block[0], q, block[1]).transpose(1, 2)


def from_blocks(blocks_PQMN: Float[Tensor, "p q m n"]) -> Float[Tensor, "output input"]:
    """Put blocks together into a matrix: the inverse of `to_blocks`.

    Parameters
    ----------
    blocks_PQMN : Float[Tensor, "p q m n"]
        Block row, block column, then the block.

    Returns
    -------
    Float[Tensor, "output input"]
        The matrix.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> blocksparse.from_blocks(torch.ones(3, 2, 4, 5)).shape
    torch.Size([12, 10])

    Taught in: block-sparsity
    """
    p, q, m, n = blocks_PQMN.shape
    return blocks_PQMN.transpose(1, 2).reshape(p * m, q * n)


def block_norms(weight_OI: Float[Tensor, "output input"], block: Shape) -> Float[Tensor, "p q"]:
    """Return the Frobenius norm of every block.

    Parameters
    ----------
    weight_OI : Float[Tensor, "output input"]
        The matrix.
    block : (int, int)
        Rows and columns of a block.

    Returns
    -------
    Float[Tensor, "p q"]
        One norm a block, 0 where all of it is zero.

    Raises
    ------
    ValueError
        If the block does not divide the matrix.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> blocksparse.block_norms(torch.tensor([[3.0, 4.0, 0.0, 0.0]]), (1, 2))
    tensor([[5., 0.]])

    Taught in: block-sparsity
    """
    return to_blocks(weight_OI, block).flatten(2).norm(dim=2)


def zero_blocks(model: nn.Module, block: Shape, *, skip: Sequence[str] = ()) -> float:
    """Return the share of blocks that are zero in all their entries, by absolute value.

    Parameters
    ----------
    model : nn.Module
        Its `nn.Linear` and `KroneckerLinear` layers count, where the block divides them.
    block : (int, int)
        Rows and columns of a block.
    skip : sequence of str
        Names of layers that do not count, as `convert` has them.

    Returns
    -------
    float
        From 0 to 1, over all blocks of all layers that count.

    Raises
    ------
    ValueError
        If no layer counts.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from helpers import blocksparse
    >>> layer = nn.Linear(4, 4)
    >>> layer.weight.data[:2, :2] = 0
    >>> blocksparse.zero_blocks(layer, (2, 2))
    0.25

    Taught in: block-sparsity
    """
    found = _layers(model, block, skip=skip, kinds=(KroneckerLinear,))
    weights = [cast(Tensor, layer.weight) for _, layer in found]
    if not weights:
        raise ValueError(f"no linear layer has blocks of {block}; give a block that divides one")
    zero = torch.cat([(block_norms(weight.detach(), block) == 0).flatten() for weight in weights])
    return float(zero.double().mean())


def shrink_blocks(
    weight_OI: Float[Tensor, "output input"], block: Shape, *, amount: float, each: float = 0.0
) -> Float[Tensor, "output input"]:
    """Take a proximal step of the (sparse) group lasso: shorten every block, to exactly zero if it is short.

    Parameters
    ----------
    weight_OI : Float[Tensor, "output input"]
        The matrix after a step down the gradient.
    block : (int, int)
        Rows and columns of a block.
    amount : float
        By how much each block's norm is shortened, 0 or more.
    each : float
        By how much each entry is shortened before, 0 or more: the elastic variant.

    Returns
    -------
    Float[Tensor, "output input"]
        The minimiser of ``|V - W|^2 / 2 + amount * sum of block norms + each * sum of |entries|``.

    Raises
    ------
    ValueError
        If an amount is negative, or the block does not divide the matrix.

    References
    ----------
    Simon, Friedman, Hastie, Tibshirani (2013), *A Sparse-Group Lasso*: soft thresholding first, then the
    group's shrinkage, is the joint minimiser.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> blocksparse.shrink_blocks(torch.tensor([[3.0, 4.0, 0.1, 0.1]]), (1, 2), amount=1.0)
    tensor([[2.4000, 3.2000, 0.0000, 0.0000]])

    Taught in: block-sparsity
    """
    if amount < 0 or each < 0:
        raise ValueError(f"amounts are {amount} and {each}; expected numbers of 0 or more")
    blocks_PQMN = _soft(to_blocks(weight_OI, block), each)
    norms_PQ = blocks_PQMN.flatten(2).norm(dim=2)
    keep_PQ = (1 - amount / norms_PQ.clamp(min=TINY)).clamp(min=0)
    return from_blocks(blocks_PQMN * keep_PQ[:, :, None, None])


def _soft(values: Tensor, amount: float | Tensor) -> Tensor:
    """Shorten every entry by an amount, to exactly zero if it is shorter: the proximal map of the L1 norm."""
    return values.sign() * (values.abs() - amount).clamp(min=0)


def factorise(
    weight_OI: Float[Tensor, "output input"], block: Shape, *, rank: int
) -> tuple[Float[Tensor, "p q"], Float[Tensor, "r p q"], Float[Tensor, "r m n"]]:
    """Write a matrix as S, A, B with W = sum_i (S * A_i) (x) B_i, as nearly as the rank allows.

    Each block becomes a row of a matrix, whose singular value decomposition gives the factors: no other
    factors of that rank are nearer in Frobenius norm. S holds what scale there is: the A_i have length one
    at every block, the B_i are orthogonal and of norm one, so ``|S_ab|`` is the norm of block (a, b).

    Parameters
    ----------
    weight_OI : Float[Tensor, "output input"]
        The matrix; blocks that are zero get an S of exactly zero.
    block : (int, int)
        Rows and columns of a block.
    rank : int
        Number of terms, 1 or more. From ``min(M * N, blocks that are not zero)`` on the result is exact.

    Returns
    -------
    tuple of Tensor
        S (p, q), A (rank, p, q), B (rank, m, n).

    Raises
    ------
    ValueError
        If the rank is below one or above what M, N, P and Q allow, or the block does not divide the matrix.

    References
    ----------
    Van Loan, Pitsianis (1993), *Approximation with Kronecker Products*; arXiv 2503.21928, Proposition 1.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> s, a, b = blocksparse.factorise(torch.eye(6), (2, 2), rank=1)
    >>> bool((torch.kron(s * a[0], b[0]) - torch.eye(6)).abs().max() < 1e-6)
    True

    Taught in: block-sparsity
    """
    blocks_PQMN = to_blocks(weight_OI, block)
    p, q, m, n = blocks_PQMN.shape
    if not 1 <= rank <= min(p * q, m * n):
        raise ValueError(
            f"rank is {rank}; expected 1 to {min(p * q, m * n)} for {p} x {q} blocks of {m} x {n}"
        )
    left, sigma_R, right = torch.linalg.svd(blocks_PQMN.reshape(p * q, m * n), full_matrices=False)
    left_RPQ = (left[:, :rank] * sigma_R[:rank]).T.reshape(rank, p, q)
    zero_PQ = blocks_PQMN.flatten(2).abs().amax(2) == 0
    scale_PQ = left_RPQ.norm(dim=0).masked_fill(zero_PQ, 0.0)
    even = torch.full_like(left_RPQ, rank**-0.5)  # a zero block needs a direction too: training may revive it
    unit_RPQ = torch.where(scale_PQ > 0, left_RPQ / scale_PQ.clamp(min=TINY), even)
    return scale_PQ, unit_RPQ, right[:rank].reshape(rank, m, n)


# The layer


@dataclass(frozen=True)
class Cost:
    """What a layer costs.

    Parameters
    ----------
    parameters : int
        Numbers that are trained, without the bias.
    macs : int
        Multiplications (each with an addition) for one row of input, forward.
    order : str
        Which factor meets the input first: ``"B first"``, ``"A first"``, or ``"dense"``.
    """

    parameters: int
    macs: int
    order: str


def cost(n_inputs: int, n_outputs: int, *, block: Shape | None = None, rank: int = 1) -> Cost:
    """Count parameters and multiplications of a layer by hand.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Width of the input and of the output.
    block : (int, int), optional
        Rows and columns of a block; without it the layer is dense.
    rank : int
        Number of terms.

    Returns
    -------
    Cost
        With the cheaper of the two orders; forming W would cost ``rank * n_inputs * n_outputs`` more.

    Raises
    ------
    ValueError
        If the block does not divide the sizes, or the rank is below one.

    References
    ----------
    arXiv 2503.21928: (rank + 1) PQ + rank MN parameters.

    Examples
    --------
    >>> from helpers import blocksparse
    >>> blocksparse.cost(1024, 1024, block=(8, 8))
    Cost(parameters=32832, macs=139264, order='B first')
    >>> blocksparse.cost(1024, 1024).macs
    1048576

    Taught in: block-sparsity
    """
    if rank < 1:
        raise ValueError(f"rank is {rank}; expected 1 or more")
    if block is None:
        return Cost(n_inputs * n_outputs, n_inputs * n_outputs, "dense")
    (p, q), (m, n) = _grid((n_outputs, n_inputs), block), block
    b_first, a_first = rank * q * m * (n + p), rank * p * n * (q + m)
    order = "B first" if b_first <= a_first else "A first"
    return Cost((rank + 1) * p * q + rank * m * n, min(b_first, a_first), order)


class KroneckerLinear(nn.Module):
    """Map x to W x + b with W = sum_i (S * A_i) (x) B_i, without ever forming W.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Width of the input and of the output.
    block : (int, int)
        Rows and columns of a block; they divide outputs and inputs.
    rank : int
        Number of terms.
    bias : bool
        Whether b is there.

    Attributes
    ----------
    scale_PQ : nn.Parameter
        S; a zero in it makes a block zero.
    left_RPQ, right_RMN : nn.Parameter
        The A_i and the B_i.

    Raises
    ------
    ValueError
        If the block does not divide the sizes, or the rank is out of range.

    References
    ----------
    arXiv 2503.21928, the parameterisation. Which factor meets the input first is chosen by `cost`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from helpers import blocksparse
    >>> dense = nn.Linear(16, 8)
    >>> layer = blocksparse.KroneckerLinear.from_linear(dense, block=(2, 2), rank=4)
    >>> x = torch.randn(3, 16)
    >>> bool((layer(x) - dense(x)).abs().max() < 1e-5)  # a rank of 4 holds any 2 x 2 blocks
    True

    Taught in: block-sparsity
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, *, block: Shape, rank: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        self._begin(nn.Linear(n_inputs, n_outputs, bias=bias), (block[0], block[1]), rank)

    def _begin(self, linear: nn.Linear, block: Shape, rank: int) -> None:
        """Take sizes, factors and bias from a dense layer."""
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.block, self.rank = block, rank
        parts = factorise(linear.weight.detach(), block, rank=rank)
        self.order = cost(self.in_features, self.out_features, block=block, rank=rank).order
        self.scale_PQ, self.left_RPQ, self.right_RMN = (nn.Parameter(part) for part in parts)
        self.bias = None if linear.bias is None else nn.Parameter(linear.bias.detach().clone())

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, block: Shape, rank: int) -> KroneckerLinear:
        """Make the layer of that rank that is nearest to a dense one: exact if the rank suffices."""
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._begin(linear, (block[0], block[1]), rank)
        return made

    def forward(self, x: Float[Tensor, "*batch input"]) -> Float[Tensor, "*batch output"]:
        """Return W x + b: two products with small matrices in place of one with a large one."""
        mixed_RPQ = self.scale_PQ * self.left_RPQ
        flat_BI = x.reshape(-1, self.in_features)
        multiply = _b_first if self.order == "B first" else _a_first
        out = multiply(flat_BI, mixed_RPQ, self.right_RMN).reshape(*x.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias

    @property
    def weight(self) -> Float[Tensor, "output input"]:
        """W itself, formed only when somebody asks for it."""
        blocks_PQMN = torch.einsum("rpq,rmn->pqmn", self.scale_PQ * self.left_RPQ, self.right_RMN)
        return from_blocks(blocks_PQMN)

    @torch.no_grad()
    def normalise_(self) -> None:
        """Move all scale into S, and leave W as it is: every B_i gets norm one, A length one at each block.

        Without this, A can grow while S shrinks: a penalty on S would then cost nothing.
        """
        norms_R11 = self.right_RMN.flatten(1).norm(dim=1).clamp(min=TINY)[:, None, None]
        self.right_RMN.div_(norms_R11)
        self.left_RPQ.mul_(norms_R11)
        length_PQ = self.left_RPQ.norm(dim=0)
        fine_PQ = length_PQ > TINY
        self.scale_PQ.mul_(length_PQ)
        even = torch.full_like(self.left_RPQ, self.rank**-0.5)
        self.left_RPQ.copy_(torch.where(fine_PQ, self.left_RPQ / length_PQ.clamp(min=TINY), even))

    @torch.no_grad()
    def shrink_(self, amount: float) -> None:
        """Take a proximal step on S: shorten every entry by the amount, to exactly zero if it is shorter."""
        self.normalise_()
        self.scale_PQ.copy_(_soft(self.scale_PQ, amount))

    def to_linear(self) -> nn.Linear:
        """Return the dense layer with the same weight."""
        made = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        made = made.to(self.scale_PQ)
        made.weight.data = self.weight.detach().clone()
        if self.bias is not None:
            made.bias.data = self.bias.detach().clone()
        return made

    def to_block_sparse(self) -> BlockSparseLinear:
        """Return the layer for inference that skips zero blocks."""
        return BlockSparseLinear.from_linear(self.to_linear(), block=self.block)

    def extra_repr(self) -> str:
        """Say what the layer is, for `print(model)`."""
        return f"{self.in_features}, {self.out_features}, block={self.block}, rank={self.rank}"


def _b_first(x_BI: Tensor, mixed_RPQ: Tensor, right_RMN: Tensor) -> Tensor:
    """Multiply by the B_i, then by the S * A_i in one large product over all rows: R Q M (N + P) a row."""
    (r, p, q), (_, m, n) = mixed_RPQ.shape, right_RMN.shape
    small = x_BI.reshape(-1, n) @ right_RMN.permute(2, 0, 1).reshape(n, r * m)
    wide = small.view(-1, q, r, m).permute(0, 3, 2, 1).reshape(-1, r * q)
    tall = wide @ mixed_RPQ.permute(0, 2, 1).reshape(r * q, p)
    return tall.view(-1, m, p).transpose(1, 2).reshape(-1, p * m)


def _a_first(x_BI: Tensor, mixed_RPQ: Tensor, right_RMN: Tensor) -> Tensor:
    """Multiply by the S * A_i in one large product over all rows, then by the B_i: R P N (Q + M) a row."""
    (r, p, q), (_, m, n) = mixed_RPQ.shape, right_RMN.shape
    wide = x_BI.reshape(-1, q, n).transpose(1, 2).reshape(-1, q)
    tall = (wide @ mixed_RPQ.permute(2, 0, 1).reshape(q, r * p)).view(-1, n, r, p)
    small = tall.permute(0, 3, 2, 1).reshape(-1, r * n) @ right_RMN.permute(0, 2, 1).reshape(r * n, m)
    return small.view(-1, p * m)


class BlockSparseLinear(nn.Module):
    """Run a layer from its non-zero blocks alone.

    Parameters
    ----------
    blocks_KMN : Float[Tensor, "kept m n"]
        The blocks that are kept, row by row.
    rows_P : Int[Tensor, "p_and_one"]
        Where each block row begins and the last one ends.
    columns_K : Int[Tensor, "kept"]
        The block column of each block.
    size : (int, int)
        Outputs and inputs.
    bias_O : Float[Tensor, "output"], optional
        What is added.

    Notes
    -----
    The blocks are stored as torch's BSR format has them. Its product is used on the transposed input, since
    the way that `torch.nn.functional.linear` takes there is many times slower (``make bench``). It needs MKL
    and square blocks; elsewhere a slower one in plain torch takes its place.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from helpers import blocksparse
    >>> dense = nn.Linear(8, 8)
    >>> dense.weight.data = torch.kron(torch.eye(4), torch.ones(2, 2))
    >>> sparse = blocksparse.BlockSparseLinear.from_linear(dense, block=(2, 2))
    >>> sparse.kept, bool((sparse(torch.eye(8)) - dense(torch.eye(8))).abs().max() < 1e-6)
    (4, True)

    Taught in: block-sparsity
    """

    blocks_KMN: Tensor
    rows_P: Tensor
    columns_K: Tensor
    bias_O: Tensor | None

    def __init__(
        self,
        blocks_KMN: Float[Tensor, "kept m n"],
        rows_P: Int[Tensor, "p_and_one"],
        columns_K: Int[Tensor, "kept"],
        *,
        size: Shape,
        bias_O: Float[Tensor, "output"] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        for name, value in (("blocks_KMN", blocks_KMN), ("rows_P", rows_P), ("columns_K", columns_K)):
            self.register_buffer(name, value)
        self.register_buffer("bias_O", bias_O)

    @classmethod
    def from_linear(cls, linear: nn.Linear, *, block: Shape) -> BlockSparseLinear:
        """Keep the blocks of a dense layer that are not all zero."""
        blocks_PQMN = to_blocks(linear.weight.detach(), block)
        kept_PQ = blocks_PQMN.flatten(2).abs().amax(2) > 0
        ends = kept_PQ.sum(1).cumsum(0)
        return cls(
            blocks_PQMN[kept_PQ].contiguous(),
            torch.cat([ends.new_zeros(1), ends]).int(),
            kept_PQ.nonzero()[:, 1].int(),
            size=(linear.out_features, linear.in_features),
            bias_O=None if linear.bias is None else linear.bias.detach().clone(),
        )

    @property
    def kept(self) -> int:
        """How many blocks are kept."""
        return len(self.blocks_KMN)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "*batch input"]) -> Float[Tensor, "*batch output"]:
        """Return W x + b; for inference only, there is no gradient."""
        flat_IB = x.reshape(-1, self.size[1]).T.contiguous()
        square = self.blocks_KMN.shape[1] == self.blocks_KMN.shape[2]
        fast = x.device.type == "cpu" and torch.backends.mkl.is_available() and square and self.kept
        out_OB = self._bsr() @ flat_IB if fast else self._plain(flat_IB)
        out = out_OB.T.reshape(*x.shape[:-1], self.size[0])
        return out if self.bias_O is None else out + self.bias_O

    def _bsr(self) -> Tensor:
        """Return the weight as torch's own block-sparse tensor."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse BSR tensor support is in beta")
            return torch.sparse_bsr_tensor(
                self.rows_P, self.columns_K, self.blocks_KMN, self.size, check_invariants=False
            )

    def _plain(self, x_IB: Tensor) -> Tensor:
        """Multiply block by block: gather the inputs of each, multiply, add up by block row."""
        m, n = self.blocks_KMN.shape[1:]
        parts = torch.bmm(self.blocks_KMN, x_IB.reshape(-1, n, x_IB.shape[1])[self.columns_K.long()])
        rows = torch.arange(self.size[0] // m).repeat_interleave(self.rows_P.diff().long())
        out = x_IB.new_zeros(self.size[0] // m, m, x_IB.shape[1])
        return out.index_add_(0, rows.to(x_IB.device), parts).reshape(self.size[0], -1)


def _layers(
    model: nn.Module, block: Shape, *, skip: Sequence[str], kinds: tuple[type, ...] = ()
) -> Iterator[tuple[str, nn.Module]]:
    """Yield the linear layers that a block divides, with their names; subclasses have their own reasons."""
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, *kinds) and name not in skip:
            sizes = (module.out_features, module.in_features)
            if not (sizes[0] % block[0] or sizes[1] % block[1]):
                yield name, module


def convert(
    model: nn.Module, *, block: Shape, rank: int, skip: Sequence[str] = ()
) -> tuple[nn.Module, list[str]]:
    """Return a copy of a model with `KroneckerLinear` in place of its linear layers.

    Parameters
    ----------
    model : nn.Module
        Any model. Only `nn.Linear` itself is replaced: what inherits from it, such as the output layer in
        `nn.MultiheadAttention`, is often read by its owner in other ways.
    block : (int, int)
        Rows and columns of a block. Layers that it does not divide stay dense.
    rank : int
        Number of terms; a layer that has no room for so many gets as many as it has room for.
    skip : sequence of str
        Names of layers that stay dense, as `model.named_modules()` has them.

    Returns
    -------
    tuple of (nn.Module, list of str)
        The copy, and the names of the layers that were replaced.

    Raises
    ------
    ValueError
        If no layer can be replaced.

    References
    ----------
    arXiv 2503.21928: factors start from the nearest Kronecker decomposition of the weight.

    Examples
    --------
    >>> from torch import nn
    >>> from helpers import blocksparse
    >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    >>> blocksparse.convert(model, block=(4, 4), rank=1)[1]  # ten outputs are no multiple of four
    ['0']

    Taught in: block-sparsity
    """

    def make(linear: nn.Linear) -> nn.Module:
        room = min(linear.weight.numel() // (block[0] * block[1]), block[0] * block[1])
        return KroneckerLinear.from_linear(linear, block=block, rank=min(rank, room))

    return _replaced(model, make, [name for name, _ in _layers(model, block, skip=skip)], block)


def _replaced(
    model: nn.Module, make: Callable[[nn.Linear], nn.Module], names: list[str], block: object
) -> tuple[nn.Module, list[str]]:
    """Return a copy of a model with new layers under these names."""
    if not names:
        raise ValueError(f"no linear layer of the model has blocks of {block}; give a block that divides one")
    made = copy.deepcopy(model)
    for name in names:
        layer = make(made.get_submodule(name))  # type: ignore[arg-type]
        if name == "":
            return layer, names
        made.set_submodule(name, layer)
    return made, names


# Models


def mlp(widths: Sequence[int], *, seed: int) -> nn.Sequential:
    """Make linear layers of these widths, with a ReLU between them.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden layers, outputs.
    seed : int
        Decides the weights.

    Returns
    -------
    nn.Sequential
        The layers have the names "0", "2", "4", ...

    Examples
    --------
    >>> from helpers import blocksparse
    >>> len(blocksparse.mlp([64, 32, 10], seed=0))
    3

    Taught in: block-sparsity
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [part for n, m in itertools.pairwise(widths) for part in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class _Mixer(nn.Module):
    """One layer of the transformer: attention, then an MLP, each added to what came before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        b, t, d = x_BTD.shape
        parts = self.qkv(self.norm_1(x_BTD)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(b, t, d)
        x_BTD = x_BTD + self.out(mixed)
        return x_BTD + self.down(F.gelu(self.up(self.norm_2(x_BTD))))


class PatchTransformer(nn.Module):
    """Classify square images by a small transformer over square patches.

    Parameters
    ----------
    side, patch : int
        Side of the image and of a patch, in pixels.
    width, heads, layers, classes : int
        Sizes of the transformer.
    seed : int
        Decides the weights.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> blocksparse.PatchTransformer(width=16, heads=2, seed=0)(torch.zeros(3, 64)).shape
    torch.Size([3, 10])

    Taught in: block-sparsity
    """

    def __init__(
        self, *, side: int = 8, patch: int = 4, width: int = 32, heads: int = 4, layers: int = 2,
        classes: int = 10, seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.side, self.patch = side, patch
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Linear(patch**2, width)
            self.place = nn.Parameter(0.1 * torch.randn((side // patch) ** 2, width))
            self.layers = nn.Sequential(*(_Mixer(width, heads) for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x_BD: Float[Tensor, "batch pixel"]) -> Float[Tensor, "batch class"]:
        """Return one number a class."""
        along, patch = self.side // self.patch, self.patch
        cut = x_BD.reshape(-1, along, patch, along, patch).transpose(2, 3)
        patches = cut.reshape(-1, along**2, patch**2)
        return self.head(self.norm(self.layers(self.embed(patches) + self.place)).mean(1))


# Seven ways to train


class _Units:
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
        kept = torch.zeros(strength_PQ.numel(), dtype=torch.bool)
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


class _Rule:
    """What becomes of one layer's blocks while it is trained; this one leaves them alone."""

    def __init__(self, units: _Units, *, sparsity: float, dice: torch.Generator) -> None:
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

    def scheduled(self, progress: float) -> float:
        """Return the share of zeros that is due: a cubic rise, fast at first."""
        return self.sparsity * (1 - (1 - progress) ** 3)


class _Random(_Rule):
    """Blocks drawn by lot before training: the negative control."""

    def begin(self) -> None:
        lots = torch.rand(self.units.kept_PQ.shape, generator=self.dice)
        self.units.keep_(lots, self.units.n_kept)


class _Pruning(_Rule):
    """Set the weakest blocks to zero, a few more at each revision."""

    def revise(self, progress: float) -> None:
        count = round((1 - self.scheduled(progress)) * self.units.kept_PQ.numel())
        self.units.keep_(self.units.strengths(), max(count, self.units.n_kept))

    def freeze(self) -> None:
        self.units.keep_(self.units.strengths(), self.units.n_kept)


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


class _Lasso(_Rule):
    """Shrink all blocks after every step, by the least amount that leaves the share due at exactly zero."""

    each = 0.0  # single entries are shrunk by this share of the amount

    def every_step(self, progress: float) -> None:
        if progress <= 1:
            strengths_PQ = self.units.strengths()
            due = round(self.scheduled(progress) * strengths_PQ.numel())
            if due:
                amount = float(strengths_PQ.flatten().kthvalue(due).values)
                self.units.shrink_(amount, self.each * amount)

    def freeze(self) -> None:
        self.units.keep_(self.units.strengths(), self.units.n_kept)


class _Elastic(_Lasso):
    """The group lasso with a penalty on single entries beside it."""

    each = 0.5 / 4  # half of the group's price, spread over the sixteen entries of a 4 x 4 block's norm


METHODS: dict[str, type[_Rule]] = {
    "dense": _Rule,
    "Kronecker factors": _Lasso,
    "group lasso": _Lasso,
    "elastic group lasso": _Elastic,
    "block RigL": _RigL,
    "iterative pruning": _Pruning,
    "random blocks": _Random,
}


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
        return float((self.model(x_ND).argmax(1) == target_N).double().mean())


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
    found = _layers(model, block, skip=skip, kinds=(KroneckerLinear,))
    rules = [
        METHODS[method](_Units(layer, block, sparsity), sparsity=sparsity, dice=dice) for _, layer in found
    ]
    if not rules:
        raise ValueError(f"no linear layer of the model has blocks of {block}; give a block that divides one")
    before = 0.0
    revisions = max(1, int(FROZEN * steps) // UPDATES)
    last = int(FROZEN * steps)
    for step in _descend(model, x_ND, target_N, steps=steps, batch=batch, lr=lr, seed=seed):
        before = _act(rules, step.number, step.stepped, last=last, revisions=revisions, before=before)
    return Fitted(model.eval(), sum(p.numel() for p in model.parameters()), before)


@dataclass(frozen=True)
class _Moment:
    """Where the training is: before or after the optimiser's step of this number."""

    number: int
    stepped: bool


def _descend(
    model: nn.Module, x_ND: Tensor, target_N: Tensor, *, steps: int, batch: int, lr: float, seed: int
) -> Iterator[_Moment]:
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
        yield _Moment(number, stepped=False)
        optimiser.step()
        fall.step()
        with torch.no_grad():
            yield _Moment(number, stepped=True)


def _act(
    rules: list[_Rule], number: int, stepped: bool, *, last: int, revisions: int, before: float
) -> float:
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


# The search for a block size


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
    fitting = [{name for name, _ in _layers(model, block, skip=skip)} for block in blocks]
    names = [name for name, _ in model.named_modules() if all(name in found for found in fitting)]
    made, names = _replaced(
        model, lambda linear: Candidates(linear, blocks=blocks, rank=rank), names, list(blocks)
    )
    mixtures = [module for module in made.modules() if isinstance(module, Candidates)]
    groups = [[mixture.layers[k] for mixture in mixtures] for k in range(len(blocks))]
    race = _Race(groups, each=each, growth=GROWTH ** (1 / steps))
    for moment in _descend(made, x_ND, target_N, steps=steps, batch=batch, lr=lr, seed=seed):
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
                layer.scale_PQ.copy_(_soft(layer.scale_PQ, each))
