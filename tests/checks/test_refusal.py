"""The checkers of the chapter refusal name typical mistakes."""

import pytest
import torch

from helpers import checks, directions


def said(checker, answer, capsys):
    checker(answer)
    return capsys.readouterr().out


def outer(one, other):
    return one[:, None] * other


MISTAKES = [
    ("refusal_score", lambda p, ids: float(p[ids].sum().log()), "as likely as not"),
    ("refusal_score", lambda p, ids: float(p[ids].logit().sum()), "sum them"),
    ("refusal_score", lambda p, ids: float((p[ids].sum() / 0.5 - 1) * 2.025), "divide by 1 - P"),
    ("remove", lambda x, r: x - r, "is left"),
    ("remove", lambda x, r: torch.zeros_like(x), "orthogonal to the direction has changed"),
    ("remove", lambda x, r: x - (x @ r)[:, None] * r, "length 1"),
    ("orthogonal", lambda w, r: w - (w @ r)[:, None] * r, "what the matrix reads"),
    ("orthogonal", lambda w, r: w, "r^T W should be zero"),
    ("rank_one_repair", lambda pruned, dense, r: dense, "as before pruning"),
    ("rank_one_repair", lambda pruned, dense, r: pruned + outer(r, r @ dense), "on top"),
    ("rank_one_repair", lambda pruned, dense, r: (pruned + dense) / 2, "rank one"),
    ("corrected_cosine", lambda across, a, b: across / (a * b), "as near as"),
    ("corrected_cosine", lambda across, a, b: across / a, "count alike"),
    ("corrected_cosine", lambda across, a, b: min(1.0, across / (a * b) ** 0.5 * 1.2), "half of what"),
]


@pytest.mark.parametrize(("name", "answer", "why"), MISTAKES)
def test_mistakes_are_named(name, answer, why, capsys):
    assert why in said(getattr(checks.refusal, name), answer, capsys)


RIGHT = {
    "refusal_score": lambda p, ids: float(p[ids].sum().logit()),
    "remove": lambda x, r: x - outer(x @ r, r) / (r @ r),
    "orthogonal": lambda w, r: w - outer(r, r @ w),
    "rank_one_repair": lambda pruned, dense, r: directions.restore(pruned, r, dense_DI=dense),
    "corrected_cosine": lambda across, a, b: across / (a * b) ** 0.5,
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_answers_pass_and_empty_ones_are_not_written_yet(name, capsys):
    checker = getattr(checks.refusal, name)
    assert "right." in said(checker, RIGHT[name], capsys)
    assert "it returns nothing" in said(checker, lambda *given: None, capsys)
