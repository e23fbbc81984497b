"""Layers whose weights are zero in whole blocks, trained through small factors: arXiv 2503.21928.

A weight of P x Q blocks, each M x N, is written as W = sum_i (S * A_i) (x) B_i, where (x) is the Kronecker
product: block (a, b) is S_ab times a mix of the R small matrices B_i. Where S is zero, the whole block is.

Read the files in this order: `blocks` (a matrix as a grid of blocks, and its factors), `layers` (the layer
that trains factors and never forms W, and the one that runs non-zero blocks alone), `conversion` (any model),
`images` and `models` (what there is to classify, and by what), `rules` (seven ways to reach zero blocks),
`training`, `candidates` (one run for the size of a block).

Examples
--------
>>> import torch
>>> from helpers import blocksparse
>>> layer = blocksparse.KroneckerLinear(64, 32, block=(4, 4), rank=2)
>>> layer(torch.zeros(5, 64)).shape
torch.Size([5, 32])
"""

from helpers.blocksparse.blocks import block_norms, factorise, from_blocks, shrink_blocks, to_blocks
from helpers.blocksparse.candidates import Candidates, Search, search
from helpers.blocksparse.conversion import convert, zero_blocks
from helpers.blocksparse.images import Images, Part, cifar100, digits
from helpers.blocksparse.layers import BlockSparseLinear, Cost, KroneckerLinear, cost
from helpers.blocksparse.models import PatchTransformer, mlp
from helpers.blocksparse.rules import METHODS
from helpers.blocksparse.training import Fitted, fit

__all__ = [
    "METHODS", "BlockSparseLinear", "Candidates", "Cost", "Fitted", "Images", "KroneckerLinear", "Part",
    "PatchTransformer", "Search", "block_norms", "cifar100", "convert", "cost", "digits", "factorise", "fit",
    "from_blocks", "mlp", "search", "shrink_blocks", "to_blocks", "zero_blocks",
]  # fmt: skip
