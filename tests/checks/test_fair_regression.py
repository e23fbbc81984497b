"""The checkers of the chapter fair-regression name typical mistakes."""

import numpy as np
import pytest

from helpers import checks

HERE = checks.fair_regression


def one_sided(first, second):
    return max((first <= t).mean() - (second <= t).mean() for t in [*first, *second])


def strict(first, second):
    grid = np.unique([*first, *second])[:-1]
    return max(abs((first <= t).mean() - (second <= t).mean()) for t in grid[:1])


def complex_root(sigma, k, multiplier):
    return np.roots([2 * multiplier, 0, k, -k * sigma])[0]


def without_two(sigma, k, multiplier):
    roots = np.roots([multiplier, 0, k, -k * sigma])
    return float(roots[abs(roots.imag).argmin()].real)


@pytest.mark.parametrize(
    ("checker", "answer", "why"),
    [
        (HERE.distance, one_sided, "the lower one"),
        (HERE.distance, strict, "should give"),
        (HERE.distance, lambda a, b: abs(a.mean() - b.mean()) > 0, "equal values"),
        (HERE.shrunk, without_two, "factor of 2"),
        (HERE.shrunk, complex_root, "see what is left"),
        (HERE.erased, lambda w, d, g: w, "should be zero"),
        (HERE.erased, lambda w, d, g: w[0], "its shape is"),
        (HERE.erased, lambda w, d, g: w - np.outer(w @ d, d) / (d @ d), "weigh the change by X^T X"),
        (HERE.blind_spot, lambda: (np.eye(2), np.diag([1.0, -1.0])), "Let two inputs cancel"),
        (HERE.blind_spot, lambda: (np.eye(2), np.ones((2, 3))), "symmetric"),
        (HERE.blind_spot, lambda: (np.eye(3), np.eye(2)), "symmetric"),
        (HERE.undo, lambda a, m: a, "solve for it"),
        (HERE.undo, lambda a, m: np.linalg.inv(m) @ a, "transposed"),
    ],
)
def test_typical_mistakes_are_named(checker, answer, why, capsys):
    checker(answer)
    said = capsys.readouterr().out
    assert "not yet" in said
    assert why in said


def test_a_named_answer_is_called_by_its_name(capsys):
    HERE.distance(one_sided)
    assert capsys.readouterr().out.startswith("one_sided: not yet.")
