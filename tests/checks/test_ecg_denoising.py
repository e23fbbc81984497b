"""The checkers of the chapter ecg-denoising name typical mistakes."""

import numpy as np
import pytest

from helpers import checks

chapter = checks.ecg_denoising


def by_power(clean, noise, decibel, factor=10):
    wanted = (clean**2).mean() / 10 ** (decibel / factor)
    return clean + noise * np.sqrt(wanted / (noise**2).mean())


@pytest.mark.parametrize(
    ("checker", "answer", "why"),
    [
        (chapter.add_noise, lambda c, n, d: c + n, "must follow from both powers"),
        (chapter.add_noise, lambda c, n, d: by_power(c, n, d, 20), "not of amplitudes"),
        (chapter.add_noise, lambda c, n, d: by_power(c, n, -d), "upside down"),
        (chapter.split_by_record, lambda r, s: np.arange(len(r)) < s * len(r), "on both sides"),
        (chapter.split_by_record, lambda r, s: r == r[0], "are for testing, and should be"),
        (chapter.split_by_record, lambda r, s: np.unique(r), "a truth value a segment"),
        (chapter.weights, lambda n: np.full(n, 0.5), "start near zero"),
        (chapter.weights, lambda n: np.ones(n), "add up to 2"),
        (chapter.weights, lambda n: np.ones(3), "it gives shape"),
        (chapter.merged, lambda a, b: np.concatenate([a, np.zeros(4)]) + b, "centred on the same sample"),
        (chapter.merged, lambda a, b: np.pad(a, 2) * b, "the summed weights"),
        (chapter.merged, lambda a, b: a, "it gives shape"),
    ],
)
def test_typical_mistakes_are_named(checker, answer, why, capsys):
    checker(answer)
    assert why in capsys.readouterr().out
