"""A matrix as a grid of blocks: cut it, measure the blocks, shorten them, write them in factors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["block_norms", "factorise", "from_blocks", "shrink_blocks", "to_blocks"]

Shape = tuple[int, int]
TINY = 1e-12


def grid(size: Shape, block: Shape) -> Shape:
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
    p, q = grid((weight_OI.shape[0], weight_OI.shape[1]), block)
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
    blocks_PQMN = soft(to_blocks(weight_OI, block), each)
    norms_PQ = blocks_PQMN.flatten(2).norm(dim=2)
    keep_PQ = (1 - amount / norms_PQ.clamp(min=TINY)).clamp(min=0)
    return from_blocks(blocks_PQMN * keep_PQ[:, :, None, None])


def soft(values: Tensor, amount: float | Tensor) -> Tensor:
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
