"""The layers, against dense products."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from helpers.blocksparse import BlockSparseLinear, KroneckerLinear, cost, layers
from tests.blocksparse.matrices import kron_sum, random_layer, sparse_weight

SHAPES = [((4, 4), 1), ((2, 8), 3), ((8, 2), 2), ((1, 3), 2), ((12, 24), 1)]


@pytest.mark.parametrize(("block", "rank"), SHAPES)
@pytest.mark.parametrize("sizes", [(24, 24), (24, 48), (48, 24)])
def test_forward_is_the_dense_product(block, rank, sizes):
    torch.manual_seed(0)
    layer = random_layer(block, rank, n_inputs=sizes[0], n_outputs=sizes[1])
    x = torch.randn(2, 3, sizes[0])
    right = F.linear(x, kron_sum(layer.scale_PQ, layer.left_RPQ, layer.right_RMN), layer.bias)
    torch.testing.assert_close(layer(x), right, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.to_linear()(x), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multiply", [layers._a_first, layers._b_first])
def test_both_orders_give_the_same(multiply):
    torch.manual_seed(0)
    layer = random_layer((2, 4), 3, n_inputs=16, n_outputs=8)
    x = torch.randn(5, 16)
    out = multiply(x, layer.scale_PQ * layer.left_RPQ, layer.right_RMN)
    torch.testing.assert_close(out, x @ layer.weight.T, rtol=1e-4, atol=1e-4)


def test_gradients_are_those_of_the_dense_product():
    torch.manual_seed(0)
    layer, x = random_layer((4, 2), 2).double(), torch.randn(5, 24).double()
    twin = copy.deepcopy(layer)
    layer(x).sin().sum().backward()
    F.linear(x, twin.weight, twin.bias).sin().sum().backward()
    for ours, theirs in zip(layer.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_weight_is_never_formed():
    layer, x = KroneckerLinear(64, 64, block=(8, 8), rank=1), torch.randn(2, 64)
    sizes = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with Watch():
        layer(x).sum().backward()
    assert 0 < max(sizes) < 64 * 64


def test_normalising_moves_scale_and_keeps_the_weight():
    torch.manual_seed(1)
    layer = random_layer((4, 4), 2)
    with torch.no_grad():
        layer.left_RPQ[:, 0, 0] = 0  # a block without a direction
    before = layer.weight.detach().clone()
    layer.normalise_()
    torch.testing.assert_close(layer.weight.detach(), before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer.right_RMN.flatten(1).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(layer.left_RPQ.norm(dim=0), torch.ones(6, 6))
    assert layer.scale_PQ[0, 0] == 0


def test_scale_cannot_flee_from_the_proximal_step():
    """The same weight with A a hundred times larger, S smaller: the step must come to the same."""
    torch.manual_seed(2)
    one = random_layer((4, 4), 1)
    other = copy.deepcopy(one)
    with torch.no_grad():
        other.scale_PQ /= 100
        other.left_RPQ *= 100
    one.shrink_(1.0)
    other.shrink_(1.0)
    torch.testing.assert_close(one.weight, other.weight, rtol=1e-3, atol=1e-4)
    assert (one.scale_PQ == 0).any()


def test_costs_agree_with_the_layer_and_with_torch():
    for sizes, block, rank in (((64, 32), (4, 8), 3), ((32, 64), (8, 2), 2), ((48, 48), (4, 4), 1)):
        layer = KroneckerLinear(*sizes, block=block, rank=rank, bias=False)
        found = cost(*sizes, block=block, rank=rank)
        with FlopCounterMode(display=False) as counter:
            layer(torch.randn(7, sizes[0]))
        assert counter.get_total_flops() == 2 * 7 * found.macs
        assert sum(p.numel() for p in layer.parameters()) == found.parameters


@pytest.mark.parametrize("kept", [0, 1, 5, 12])
@pytest.mark.parametrize("mkl", [True, False])
def test_block_sparse_export_is_the_dense_layer(kept, mkl, monkeypatch):
    if not mkl:
        monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    linear = nn.Linear(12, 12)
    linear.weight.data = sparse_weight(3, kept=kept)
    sparse = BlockSparseLinear.from_linear(linear, block=(3, 4))
    x = torch.randn(2, 5, 12)
    assert sparse.kept == kept
    torch.testing.assert_close(sparse(x), linear(x).detach(), rtol=1e-4, atol=1e-5)
    assert set(sparse.state_dict()) == {"blocks_KMN", "rows_P", "columns_K", "bias_O"}


def test_export_after_training_keeps_zeros():
    layer = random_layer((4, 4), 2)
    layer.shrink_(3.0)
    zeros = int((layer.scale_PQ == 0).sum())
    sparse = layer.to_block_sparse()
    assert 0 < zeros < 36
    assert sparse.kept == 36 - zeros
    x = torch.randn(3, 24)
    torch.testing.assert_close(sparse(x), layer(x).detach(), rtol=1e-4, atol=1e-4)


def test_a_cost_of_no_terms_is_refused():
    with pytest.raises(ValueError, match="expected 1 or more"):
        cost(4, 4, block=(2, 2), rank=0)
