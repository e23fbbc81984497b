"""The checkers of the chapter fairness-without-harm name typical mistakes."""

import pytest
import torch

from helpers.checks import fairness_without_harm as chapter


def said(checker, answer, capsys):
    checker(answer)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("checker", "answer", "why"),
    [
        (chapter.soft_risks, lambda g, x: (g.T @ x / g.sum(0)[:, None]).T, "people go along the rows"),
        (chapter.soft_risks, lambda g, x: g.T @ x / g.sum(0), "each column is divided"),
        (chapter.soft_risks, lambda g, x: g.T @ x, "these are sums"),
        (chapter.soft_risks, lambda g, x: g.T @ x / len(g), "not by n"),
        (chapter.soft_risks, lambda g, x: x, "on a small example"),
        (
            chapter.worst_gap,
            lambda e, p: float((e.diagonal()[:, None] - e).max()),
            "pooled classifier is not seen",
        ),
        (chapter.worst_gap, lambda e, p: float((e.diagonal() - p).max()), "envy is not seen"),
        (
            chapter.worst_gap,
            lambda e, p: max(
                float((e.diagonal() - p).max()), float((e.diagonal() - e)[~torch.eye(2).bool()].max())
            ),
            "along its row",
        ),
        (
            chapter.worst_gap,
            lambda e, p: max(float((e.diagonal() - p).max()), float((e.diagonal()[:, None] - e).max())),
            "leave the diagonal out",
        ),
        (chapter.sign_test, lambda a, b: min(1.0, 2 * chapter.dafh.mcnemar(a, b)), "4 against 1"),
        (chapter.sign_test, lambda a, b: chapter.dafh.mcnemar(b, a), "one-sided"),
        (chapter.peeking_error, lambda w: float(w.any(1).double().mean()), "only where all do"),
        (chapter.peeking_error, lambda w: float(w.double().mean()), "mean over classifiers"),
        (chapter.peeking_error, lambda w: float(w.double().mean(0).min()), "best single classifier"),
        (chapter.peeking_error, lambda w: 0.7, "on a small example"),
    ],
)
def test_typical_mistakes_are_named(checker, answer, why, capsys):
    assert why in said(checker, answer, capsys)


@pytest.mark.parametrize(
    "checker", [chapter.soft_risks, chapter.worst_gap, chapter.sign_test, chapter.peeking_error]
)
def test_an_empty_answer_is_not_written_yet(checker, capsys):
    assert "it returns nothing" in said(checker, lambda *_: None, capsys)
