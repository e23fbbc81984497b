"""Weights and layers to test with."""

import torch
from torch import nn

from helpers import blocksparse
from helpers.blocksparse import KroneckerLinear


def kron_sum(s, a, b):
    """W by torch's own Kronecker product, term by term."""
    return sum(torch.kron(s * a_i, b_i) for a_i, b_i in zip(a, b, strict=True))


def random_layer(block, rank, *, n_inputs=24, n_outputs=24):
    layer = KroneckerLinear(n_inputs, n_outputs, block=block, rank=rank)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return layer


def sparse_weight(seed, p=4, q=3, block=(3, 4), kept=5):
    dice = torch.Generator().manual_seed(seed)
    blocks = torch.zeros(p * q, *block)
    blocks[torch.randperm(p * q, generator=dice)[:kept]] = torch.randn(kept, *block, generator=dice)
    return blocksparse.from_blocks(blocks.view(p, q, *block))
