"""The checkers of the chapter lookahead-fairness name typical mistakes."""

import pytest
import torch

from helpers import checks


def said(checker, answer, capsys):
    checker(answer)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda x, a: 3 * x + 1 - a, "in the equation of Y only"),
        (lambda x, a: 3 * x + a, "as it is"),
        (lambda x, a: 3 * (x + 2 - 4 * a) + a, "keeps the old attribute"),
        (lambda x, a: 3 * (2 * (1 - a) + x) + 1 - a, "X itself is taken for U"),
        (lambda x, a: x.mean(), "its shape is"),
        (lambda x, a: x, "where"),
    ],
)
def test_a_step_left_out_of_the_counterfactual_is_named(answer, why, capsys):
    assert why in said(checks.lookahead_fairness.other_outcome, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda left, eta, s: (1 - left) / (eta * s), "twice too large"),
        (lambda left, eta, s: left / (2 * eta * s), "solve 1 - 2 p1 eta S"),
        (lambda left, eta, s: (1 - left) * eta / (2 * s), "people end at"),
    ],
)
def test_a_wrong_slope_is_tried_on_people(answer, why, capsys):
    assert why in said(checks.lookahead_fairness.slope_for, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda h, t: abs(float((h - t).mean())), "cancel"),
        (lambda h, t: (h - t).abs().sum(), "it is the sum"),
        (lambda h, t: (h - t).square().mean(), "mean square"),
        (lambda h, t: torch.tensor(9.0), "it gives 9 where 1.67"),
    ],
)
def test_what_is_no_afce_is_named(answer, why, capsys):
    assert why in said(checks.lookahead_fairness.afce, answer, capsys)


def test_a_response_that_is_only_scaled_is_named(capsys):
    chapter = checks.lookahead_fairness
    assert "overshoots" in said(chapter.share_left, lambda wanted, ratio: wanted, capsys)
    assert "right." in said(chapter.share_left, lambda wanted, ratio: 1 - (1 - wanted) * ratio, capsys)
