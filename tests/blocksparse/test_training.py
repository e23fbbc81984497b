"""The seven ways to train: the share they end at, and what they keep."""

import copy
import math

import pytest
import torch
from torch import nn

from helpers import blocksparse
from helpers.blocksparse import rules


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


def test_rise_of_zeros_is_cubic():
    rule = rules.Rising.__new__(rules.Rising)
    rule.sparsity = 0.8
    assert [rule.scheduled(t) for t in (0, 0.5, 1)] == pytest.approx([0, 0.7, 0.8])
    assert math.isclose(rule.scheduled(0.25), 0.8 * (1 - 0.75**3))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"method": "magic"}, "expected one of dense"),
        ({"sparsity": 1.0}, "0 to below 1"),
        ({"block": (3, 3)}, "no linear layer"),
    ],
)
def test_errors_say_what_was_expected(wrong, said):
    given = {"method": "dense", "steps": 1} | wrong
    with pytest.raises(ValueError, match=said):
        blocksparse.fit(nn.Linear(4, 4), torch.zeros(4, 4), target_N=torch.zeros(4, 4), **given)
