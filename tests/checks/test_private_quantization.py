"""The checkers of the chapter private-quantization name typical mistakes."""

import math

import numpy as np
import pytest

from helpers import checks

chapter = checks.private_quantization


def said(checker, answer, capsys):
    checker(answer)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("checker", "answer", "why"),
    [
        (chapter.high_chance, lambda x, e: (1 + x) / 2, "the loss of yours is inf"),
        (
            chapter.high_chance,
            lambda x, e: 1 / (1 + math.exp(-e * np.sign(x))) if x else 0.5,
            "the mean answer is not x",
        ),
        (chapter.exact_loss, lambda c: np.log(c.max() / c.min()), "compare each answer with itself"),
        (chapter.exact_loss, lambda c: np.log(c[0] / c[1]).max(), "either input may be the likelier"),
        (
            chapter.exact_loss,
            lambda c: np.log(np.maximum(c.max(0), 1e-3) / np.maximum(c.min(0), 1e-3)).max(),
            "gives it away",
        ),
        (chapter.pair_error, lambda x, low, high: (high - low) / 2, "need not lie"),
        (chapter.pair_error, lambda x, low, high: (high - x) * (x - low), "half way"),
        (chapter.people_needed, lambda w, e: 1 / w**2, "the level squared"),
        (chapter.people_needed, lambda w, e: 1 / np.tanh(e / 2) ** 2 / w**2, "people come whole"),
    ],
)
def test_typical_mistakes_are_named(checker, answer, why, capsys):
    assert why in said(checker, answer, capsys)
