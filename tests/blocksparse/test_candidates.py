"""The search for a block size."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers import blocksparse


def test_search_leaves_exactly_one():
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    found = blocksparse.search(
        nn.Linear(8, 8), x, target_N=x.flip(1), blocks=[(2, 2), (4, 4)], steps=150, lr=0.02
    )
    assert sum(size > 0 for size in found.sizes[-1]) == 1
    alive = [sum(size > 0 for size in sizes) for sizes in found.sizes]
    assert alive == sorted(alive, reverse=True)
    assert found.sizes[-1][[(2, 2), (4, 4)].index(found.block)] > 0


def test_candidates_share_the_weight():
    linear = nn.Linear(8, 8)
    layer = blocksparse.Candidates(linear, blocks=[(2, 2), (2, 4)], rank=4)
    x = torch.randn(3, 8)
    weight = sum(part.weight for part in layer.layers)
    torch.testing.assert_close(layer(x), F.linear(x, weight, linear.bias), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ([(2, 2)], "give two or more"),
        ([(2, 2), (5, 5)], r"no linear layer of the model has blocks of \(5, 5\)"),
        ([(2, 2), (3, 3)], "no linear layer has blocks of all of"),  # each fits one layer, both fit none
    ],
)
def test_errors_say_what_was_expected(blocks, said):
    model = nn.Sequential(nn.Linear(4, 9), nn.Linear(9, 9), nn.Linear(9, 4), nn.Linear(4, 4))
    with pytest.raises(ValueError, match=said):
        blocksparse.search(model, torch.zeros(4, 4), target_N=torch.zeros(4, 4), blocks=blocks)
