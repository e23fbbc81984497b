"""The checkers of the chapter compressed-models name typical mistakes."""

import math
from itertools import pairwise

import pytest
import torch

from helpers import checks

CHAPTER = checks.compressed_models


def lowest(scores, share):
    """Keep all but the lowest share of each row, with a threshold."""
    drop = int(share * scores.shape[1])
    return scores.argsort(dim=1).argsort(dim=1) >= drop


def rounded(weight, scale):
    return (weight / scale).round() * scale


def sorted_line(l0, score, target):
    order = l0.argsort()
    l0, score = l0[order].tolist(), score[order].tolist()
    for (a, b), (p, q) in zip(pairwise(l0), pairwise(score), strict=True):
        if a <= target <= b:
            return p + (q - p) * (target - a) / (b - a)
    return math.nan


CASES = [
    ("wanda_mask", lambda w, n, s: lowest(w.abs(), s), "norm of its input"),
    ("wanda_mask", lambda w, n, s: lowest(w * n, s), "absolute value"),
    ("wanda_mask", lambda w, n, s: w.abs() * n > (w.abs() * n).median(), "within each row"),
    ("wanda_mask", lambda w, n, s: lowest(w.abs() * n, 0.25), "should keep 2"),
    ("wanda_mask", lambda w, n, s: lowest(w.abs() * n, s + 0.2), "round the number down"),
    ("wanda_mask", lambda w, n, s: lowest(w.abs() * n, s), "right."),
    ("round_rows", lambda w, bits: rounded(w, w.abs().max() / 3), "sets the scale"),
    ("round_rows", lambda w, bits: rounded(w, w.abs().amax(1, keepdim=True) / 3), "row of zeros"),
    (
        "round_rows",
        lambda w, bits: (
            (w / (w.abs().amax(1, keepdim=True) / 3).clamp(min=1e-9)).ceil()
            * w.abs().amax(1, keepdim=True)
            / 3
        ),
        "nearest",
    ),
    (
        "round_rows",
        lambda w, bits: torch.cat([rounded(w[:1], 0.4 / 3), w[1:2].floor(), w[2:]]),
        "nearest",
    ),
    ("bits_per_weight", lambda w: 1 + 32 * (w != 0).float().mean().item(), "cheaper"),
    ("bits_per_weight", lambda w: min(32, 1 + 32 * (w > 1e-9).float().mean().item()), "not zero"),
    ("bits_per_weight", lambda w: 32.0, "17 bits"),
    ("survivors", lambda b, a: (b == a).all(1).float().mean().item(), "a set"),
    (
        "survivors",
        lambda b, a: ((b[:, :, None] == a[:, None]).any(2).float().mean(1) >= 0.5).float().mean().item(),
        "with a -1|has a -1",
    ),
    (
        "survivors",
        lambda b, a: (
            (b[:, :, None] == a[:, None]).any(2).float().mean(1)[(b >= 0).all(1)].mean().item() * 0.9
            + 0.1 * float(len(b) == 1)
        ),
        "as a whole",
    ),
    ("score_at", lambda x, y, t: float(torch.tensor(sorted_line(x, y, t)).nan_to_num(0.8)), "do not guess"),
    ("score_at", lambda x, y, t: math.nan if t > 50 else 0.61, "any order"),
    ("score_at", sorted_line, "right."),
]


@pytest.mark.parametrize(("checker", "answer", "words"), CASES)
def test_typical_mistakes_are_named(checker, answer, words, capsys):
    getattr(CHAPTER, checker)(answer)
    said = capsys.readouterr().out
    assert any(word in said for word in words.split("|")), said


@pytest.mark.parametrize("checker", ["wanda_mask", "round_rows", "bits_per_weight", "survivors", "score_at"])
def test_nothing_written_is_said(checker, capsys):
    def stub(*_):
        return None

    getattr(CHAPTER, checker)(stub)
    assert "stub: not yet.\n  - it returns nothing" in capsys.readouterr().out
