"""The checkers of `toxic-finetuning` name typical mistakes."""

import pytest
import torch

from helpers.checks import toxic_finetuning as checks


def said(capsys, checker, answer):
    checker(answer)
    return capsys.readouterr().out


def length(vectors):
    return vectors.norm(dim=-1)


ANSWERS = {
    checks.restored: [
        (lambda base, toxic, patched: (patched - toxic) / (base - toxic), "answer: right."),
        (lambda base, toxic, patched: patched / base, "3 of the 6 logits that were lost are back"),
        (lambda base, toxic, patched: max(0, (patched - toxic) / (base - toxic)), "made it worse"),
    ],
    checks.key_head: [
        (lambda head, n, g: head // (n // g), "answer: right."),
        (lambda head, n, g: head % g, "query head 1 reads key head 0, not 1"),
        (lambda head, n, g: head, "query head 1 reads key head 0, not 1"),
    ],
    checks.attribution: [
        (lambda c, o, g: ((c - o) * g).sum((1, 3)).mean(0), "answer: right."),
        (lambda c, o, g: ((o - c) * g).sum((1, 3)).mean(0), "the sign is turned round"),
        (lambda c, o, g: ((c - o) * g).sum((0, 1, 3)), "it sums over the prompts"),
        (lambda c, o, g: ((c - o) * g).mean((0, 1, 3)), "it averages over positions or width"),
        (lambda c, o, g: ((c - o) * g).sum((0, 3)), "it gives shape (4, 3)"),
        (lambda c, o, g: (c * g).sum((0, 1, 3)) / 5, "not the difference times the gradient"),
    ],
    checks.tuning_share: [
        (lambda p, f: length(f.sum(0)) / (length(p.sum(0)) + length(f.sum(0))), "answer: right."),
        (lambda p, f: length(f).sum(0) / (length(p).sum(0) + length(f).sum(0)), "must cancel"),
        (lambda p, f: length(f.sum(0)) / length(p.sum(0)), "divide by the sum"),
        (lambda p, f: length(f.sum(0)) / length((p + f).sum(0)), "divide by the sum"),
    ],
}
CASES = [(checker, *case) for checker, cases in ANSWERS.items() for case in cases]


@pytest.mark.parametrize(("checker", "answer", "expected"), CASES)
def test_typical_answers(capsys, checker, answer, expected):
    assert expected in said(capsys, checker, answer)


@pytest.mark.parametrize(
    "checker", [checks.restored, checks.key_head, checks.attribution, checks.tuning_share]
)
def test_an_unwritten_function_is_not_an_error(capsys, checker):
    assert "it returns nothing" in said(capsys, checker, lambda *_: None)


def test_the_readers_name_is_used(capsys):
    def mine(base, toxic, patched):
        return torch.tensor((patched - toxic) / (base - toxic))

    assert said(capsys, checks.restored, mine) == "mine: right.\n"
