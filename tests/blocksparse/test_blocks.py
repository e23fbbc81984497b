"""The grid of blocks and its factors, against slices, closed forms and the objectives themselves."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import blocksparse
from helpers.blocksparse import factorise, shrink_blocks
from tests.blocksparse.matrices import kron_sum, sparse_weight


def test_blocks_are_cut_as_slices_say():
    weight = torch.arange(24.0).reshape(4, 6)
    blocks = blocksparse.to_blocks(weight, (2, 3))
    assert torch.equal(blocks[1, 0], weight[2:4, 0:3])
    assert torch.equal(blocksparse.from_blocks(blocks), weight)


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: blocksparse.to_blocks(torch.zeros(5, 4), (2, 2)), "do not divide a weight of 5 x 4"),
        (lambda: factorise(torch.zeros(4, 4), (2, 2), rank=5), "expected 1 to 4"),
        (lambda: shrink_blocks(torch.zeros(2, 2), (2, 2), amount=-1.0), "0 or more"),
    ],
)
def test_errors_say_what_was_expected(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
