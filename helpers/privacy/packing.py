"""Answers of a few bits each in bytes, and back."""

from __future__ import annotations

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

__all__ = ["pack", "unpack"]


def pack(index_N: Int[Tensor, "n"], *, bits: int) -> UInt8[Tensor, "byte"]:
    """Pack whole numbers of a few bits each into bytes.

    Parameters
    ----------
    index_N : Int[Tensor, "n"]
        Numbers from 0 to ``2**bits - 1``.
    bits : int
        1 to 8.

    Returns
    -------
    UInt8[Tensor, "byte"]
        ``ceil(n * bits / 8)`` bytes, the lowest bit first.

    Raises
    ------
    ValueError
        If a number does not fit, or the bits are not between 1 and 8.

    Examples
    --------
    >>> import torch
    >>> from helpers import privacy
    >>> privacy.pack(torch.tensor([3, 0, 2, 1]), bits=2)
    tensor([99], dtype=torch.uint8)

    Taught in: private-quantization
    """
    _check_bits(bits)
    if len(index_N) and (int(index_N.min()) < 0 or int(index_N.max()) >= 2**bits):
        raise ValueError(
            f"the numbers run from {int(index_N.min())} to {int(index_N.max())}; {bits} bits hold "
            f"0 to {2**bits - 1}"
        )
    flat = ((index_N[:, None] >> torch.arange(bits)) & 1).flatten()
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (flat << torch.arange(8)).sum(1).to(torch.uint8)


def unpack(packed: UInt8[Tensor, "byte"], *, bits: int, count: int) -> Int[Tensor, "n"]:
    """Undo `pack`.

    Parameters
    ----------
    packed : UInt8[Tensor, "byte"]
        What `pack` returned.
    bits : int
        1 to 8, as given to `pack`.
    count : int
        How many numbers were packed.

    Returns
    -------
    Int[Tensor, "n"]
        The numbers.

    Raises
    ------
    ValueError
        If there are too few bytes, or the bits are not between 1 and 8.

    Examples
    --------
    >>> import torch
    >>> from helpers import privacy
    >>> privacy.unpack(torch.tensor([99], dtype=torch.uint8), bits=2, count=4)
    tensor([3, 0, 2, 1])

    Taught in: private-quantization
    """
    _check_bits(bits)
    if 8 * len(packed) < count * bits:
        raise ValueError(f"{len(packed)} bytes hold fewer than {count} numbers of {bits} bits")
    flat = ((packed[:, None].long() >> torch.arange(8)) & 1).flatten()[: count * bits]
    return (flat.view(count, bits) << torch.arange(bits)).sum(1)


def _check_bits(bits: int) -> None:
    """Refuse a number of bits that no byte holds."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits is {bits}; expected 1 to 8")
