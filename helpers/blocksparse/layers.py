"""A linear layer in Kronecker factors, what it costs, and what it becomes when it only has to be run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from helpers.blocksparse.blocks import TINY, Shape, factorise, from_blocks, grid, soft, to_blocks

__all__ = ["BlockSparseLinear", "Cost", "KroneckerLinear", "cost"]


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
    (p, q), (m, n) = grid((n_outputs, n_inputs), block), block
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
        self.scale_PQ.copy_(soft(self.scale_PQ, amount))

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
