"""Models with other layers in them."""

import pytest
import torch
from torch import nn

from helpers import blocksparse
from helpers.blocksparse import KroneckerLinear


def test_convert_takes_what_it_can():
    model = blocksparse.PatchTransformer(width=16, heads=2, layers=1, seed=0)
    made, names = blocksparse.convert(model, block=(4, 4), rank=16, skip=("embed",))
    assert names == ["layers.0.qkv", "layers.0.out", "layers.0.up", "layers.0.down"]
    x = torch.randn(2, 64)
    torch.testing.assert_close(made(x), model(x), rtol=1e-4, atol=1e-4)  # so many terms lose nothing
    assert isinstance(model.layers[0].qkv, nn.Linear)
    alone, names = blocksparse.convert(nn.Linear(8, 8), block=(2, 2), rank=1)
    assert isinstance(alone, KroneckerLinear)
    assert names == [""]


def test_convert_leaves_attention_of_torch_alone():
    made, names = blocksparse.convert(nn.TransformerEncoderLayer(8, 2, 16), block=(4, 4), rank=1)
    assert names == ["linear1", "linear2"]
    assert made.eval()(torch.zeros(3, 1, 8)).shape == (3, 1, 8)


def test_zeros_are_counted_by_absolute_value():
    model = nn.Linear(8, 8, bias=False)
    model.weight.data.fill_(-1.0)
    assert blocksparse.zero_blocks(model, (2, 2)) == 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: blocksparse.convert(nn.Linear(3, 3), block=(2, 2), rank=1), "no linear layer"),
        (lambda: blocksparse.zero_blocks(nn.ReLU(), (2, 2)), "no linear layer"),
    ],
)
def test_errors_say_what_was_expected(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
