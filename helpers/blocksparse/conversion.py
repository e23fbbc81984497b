"""Other layers in place of the linear ones of a model, and how many of their blocks are zero."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from helpers.blocksparse.blocks import Shape, block_norms
from helpers.blocksparse.layers import KroneckerLinear

__all__ = ["convert", "zero_blocks"]


def layers_of(
    model: nn.Module, block: Shape, *, skip: Sequence[str], kinds: tuple[type, ...] = ()
) -> list[tuple[str, nn.Module]]:
    """Return the linear layers that a block divides, with their names; subclasses have their own reasons."""
    found: list[tuple[str, nn.Module]] = []
    for name, module in model.named_modules():
        if type(module) in (nn.Linear, *kinds) and name not in skip:
            sizes = (module.out_features, module.in_features)
            if not (sizes[0] % block[0] or sizes[1] % block[1]):
                found.append((name, module))
    if not found:
        raise ValueError(f"no linear layer of the model has blocks of {block}; give a block that divides one")
    return found


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

    names = [name for name, _ in layers_of(model, block, skip=skip)]
    return replaced(model, make, names), names


def replaced(model: nn.Module, make: Callable[[nn.Linear], nn.Module], names: list[str]) -> nn.Module:
    """Return a copy of a model with new layers under these names."""
    made = copy.deepcopy(model)
    for name in names:
        layer = make(made.get_submodule(name))  # type: ignore[arg-type]
        if name == "":
            return layer
        made.set_submodule(name, layer)
    return made


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
    found = layers_of(model, block, skip=skip, kinds=(KroneckerLinear,))
    weights = [cast(Tensor, layer.weight) for _, layer in found]
    zero = torch.cat([(block_norms(weight.detach(), block) == 0).flatten() for weight in weights])
    return float(zero.double().mean())
