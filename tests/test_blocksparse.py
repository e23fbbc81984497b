"""The block-sparse layers, against dense products, brute force and closed forms."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from helpers import blocksparse
from helpers.blocksparse import BlockSparseLinear, KroneckerLinear, cost, factorise, shrink_blocks

SHAPES = [((4, 4), 1), ((2, 8), 3), ((8, 2), 2), ((1, 3), 2), ((12, 24), 1)]


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


@pytest.mark.parametrize(("block", "rank"), SHAPES)
@pytest.mark.parametrize("sizes", [(24, 24), (24, 48), (48, 24)])
def test_forward_is_the_dense_product(block, rank, sizes):
    torch.manual_seed(0)
    layer = random_layer(block, rank, n_inputs=sizes[0], n_outputs=sizes[1])
    x = torch.randn(2, 3, sizes[0])
    right = F.linear(x, kron_sum(layer.scale_PQ, layer.left_RPQ, layer.right_RMN), layer.bias)
    torch.testing.assert_close(layer(x), right, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(layer.to_linear()(x), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("multiply", [blocksparse._a_first, blocksparse._b_first])
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

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    with Watch():
        layer(x).sum().backward()
    assert 0 < max(sizes) < 64 * 64


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 8))
def test_the_nearest_factors_leave_what_eckart_and_young_say(seed, rank):
    weight = torch.randn(12, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    s, a, b = factorise(weight, (3, 4), rank=min(rank, 8))
    rows = blocksparse.to_blocks(weight, (3, 4)).flatten(2).flatten(0, 1)
    left_over = torch.linalg.svdvals(rows)[min(rank, 8) :].norm()
    assert (kron_sum(s, a, b) - weight).norm().item() == pytest.approx(left_over.item(), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12))
def test_every_block_sparse_matrix_has_this_form(seed, kept):
    weight = sparse_weight(seed, kept=kept).double()
    s, a, b = factorise(weight, (3, 4), rank=min(12, kept))
    assert (kron_sum(s, a, b) - weight).abs().max() < 1e-9
    assert torch.equal(s == 0, blocksparse.block_norms(weight, (3, 4)) == 0)
    torch.testing.assert_close(s, blocksparse.block_norms(weight, (3, 4)))


def test_blocks_are_cut_as_slices_say():
    weight = torch.arange(24.0).reshape(4, 6)
    blocks = blocksparse.to_blocks(weight, (2, 3))
    assert torch.equal(blocks[1, 0], weight[2:4, 0:3])
    assert torch.equal(blocksparse.from_blocks(blocks), weight)


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


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 999), st.floats(0, 2), st.floats(0, 1))
def test_shrinking_minimises_its_objective(seed, amount, each):
    dice = torch.Generator().manual_seed(seed)
    weight = torch.randn(2, 4, generator=dice, dtype=torch.float64)

    def objective(v):
        norms = blocksparse.block_norms(v, (2, 2)).sum()
        return float((v - weight).square().sum() / 2 + amount * norms + each * v.abs().sum())

    found = shrink_blocks(weight, (2, 2), amount=amount, each=each)
    for size in (1e-3, 1e-1):
        near = found + size * torch.randn(2, 4, generator=dice, dtype=torch.float64)
        assert objective(found) <= objective(near) + 1e-9


def test_costs_agree_with_the_layer_and_with_torch():
    from torch.utils.flop_counter import FlopCounterMode

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


@pytest.fixture(scope="module")
def task():
    dice = torch.Generator().manual_seed(0)
    x = torch.randn(256, 16, generator=dice)
    return x, (x[:, :4].argmax(1))  # only the first four inputs matter


@pytest.mark.parametrize("method", list(blocksparse.METHODS))
def test_every_method_ends_at_the_share(method, task):
    x, y = task
    start = blocksparse.mlp([16, 32, 4], seed=1)
    before = copy.deepcopy(start.state_dict())
    done = blocksparse.fit(
        start, x, target_N=y, method=method, block=(4, 4), rank=4, sparsity=0.5, steps=120, batch=64, lr=1e-2
    )
    share = blocksparse.zero_blocks(done.model, (4, 4))
    assert share == (0.0 if method == "dense" else 0.5)
    assert done.accuracy(x, y) > (0.4 if method in ("random blocks", "Kronecker factors") else 0.7)
    assert all(torch.equal(before[name], value) for name, value in start.state_dict().items())


def test_penalties_give_exact_zeros_before_anything_is_cut(task):
    x, y = task
    for method in ("Kronecker factors", "group lasso"):
        done = blocksparse.fit(
            blocksparse.mlp([16, 32, 4], seed=1), x, target_N=y, method=method, sparsity=0.5, steps=120
        )
        assert done.zeros_before == pytest.approx(0.5, abs=0.05)


def test_learnt_patterns_keep_the_inputs_that_matter(task):
    """Blocks over the first four inputs are the only useful ones of the first layer."""
    x, y = task
    for method in ("group lasso", "iterative pruning", "block RigL"):
        done = blocksparse.fit(
            blocksparse.mlp([16, 32, 4], seed=2), x, target_N=y, method=method, block=(4, 4), sparsity=0.6,
            steps=200, batch=64, lr=1e-2,
        )  # fmt: skip
        kept_PQ = blocksparse.block_norms(done.model[0].weight.detach(), (4, 4)) > 0
        assert kept_PQ[:, 0].double().mean() > kept_PQ[:, 1:].double().mean(), method


def test_the_same_seed_gives_the_same_model(task):
    x, y = task
    one, two = (
        blocksparse.fit(
            blocksparse.mlp([16, 8, 4], seed=0), x, target_N=y, method="block RigL", block=(2, 2), steps=60
        )
        for _ in range(2)
    )
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


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


def test_zeros_are_counted_by_absolute_value():
    model = nn.Linear(8, 8, bias=False)
    model.weight.data.fill_(-1.0)
    assert blocksparse.zero_blocks(model, (2, 2)) == 0.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: blocksparse.to_blocks(torch.zeros(5, 4), (2, 2)), "do not divide a weight of 5 x 4"),
        (lambda: factorise(torch.zeros(4, 4), (2, 2), rank=5), "expected 1 to 4"),
        (lambda: cost(4, 4, block=(2, 2), rank=0), "expected 1 or more"),
        (lambda: shrink_blocks(torch.zeros(2, 2), (2, 2), amount=-1.0), "0 or more"),
        (lambda: blocksparse.convert(nn.Linear(3, 3), block=(2, 2), rank=1), "no linear layer"),
        (lambda: blocksparse.zero_blocks(nn.ReLU(), (2, 2)), "no linear layer"),
        (lambda: fit_wrong(method="magic"), "expected one of dense"),
        (lambda: fit_wrong(sparsity=1.0), "0 to below 1"),
        (lambda: fit_wrong(block=(3, 3)), "no linear layer"),
        (lambda: search_wrong([(2, 2)]), "give two or more"),
        (lambda: search_wrong([(2, 2), (3, 3)]), "no linear layer"),
    ],
)
def test_errors_say_what_was_expected(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()


def fit_wrong(**changes):
    given = {"method": "dense", "steps": 1} | changes
    blocksparse.fit(nn.Linear(4, 4), torch.zeros(4, 4), target_N=torch.zeros(4, 4), **given)


def search_wrong(blocks):
    blocksparse.search(nn.Linear(4, 4), torch.zeros(4, 4), target_N=torch.zeros(4, 4), blocks=blocks)


def test_rise_of_zeros_is_cubic():
    rule = blocksparse._Rule.__new__(blocksparse._Rule)
    rule.sparsity = 0.8
    assert [rule.scheduled(t) for t in (0, 0.5, 1)] == pytest.approx([0, 0.7, 0.8])
    assert math.isclose(rule.scheduled(0.25), 0.8 * (1 - 0.75**3))
