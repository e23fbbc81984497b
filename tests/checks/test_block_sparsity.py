"""The checkers of the chapter block-sparsity name typical mistakes."""

import pytest
import torch

from helpers import checks

chapter = checks.block_sparsity


def by_sum(weight, side):
    p, q = weight.shape[0] // side, weight.shape[1] // side
    return float((weight.reshape(p, side, q, side).sum(dim=(1, 3)) == 0).double().mean())


def overshoot(block, amount):
    return block * (1 - amount / block.norm()) if block.norm() > 0 else block


def shuffled(c, b, x):
    return (c @ x.reshape(3, 5) @ b.T).T.reshape(-1)


@pytest.mark.parametrize(
    ("checker", "answer", "why"),
    [
        (chapter.zero_share, lambda w, side: (w < 1e-4).double().mean(), "negative is not small"),
        (chapter.zero_share, lambda w, side: (w == 0).double().mean(), "only if all its entries are"),
        (chapter.zero_share, by_sum, "may cancel"),
        (chapter.kron_times, lambda c, b, x: torch.kron(b, c) @ x, "C says which block"),
        (chapter.kron_times, shuffled, "in another order"),
        (chapter.kron_times, lambda c, b, x: c @ x.reshape(3, 5), "it gives 10 numbers"),
        (chapter.kron_times, lambda c, b, x: -torch.kron(c, b) @ x, "pieces of 5"),
        (chapter.shorten, overshoot, "does not turn round"),
        (chapter.shorten, lambda b, t: b.sign() * (b.abs() - t).clamp(min=0), "direction must stay"),
        (chapter.shorten, lambda b, t: b / b.norm() * (b.norm() - t).clamp(min=0), "stays one"),
        (chapter.most_terms, lambda width, side: side, "times as many as dense"),
        (chapter.most_terms, lambda width, side: 1, "should give 7"),
    ],
)
def test_typical_mistakes_are_named(checker, answer, why, capsys):
    checker(answer)
    assert why in capsys.readouterr().out


@pytest.mark.parametrize("name", ["zero_share", "kron_times", "shorten", "most_terms"])
def test_nothing_written_yet(name, capsys):
    getattr(chapter, name)(lambda *given: None)
    assert "returns nothing" in capsys.readouterr().out
