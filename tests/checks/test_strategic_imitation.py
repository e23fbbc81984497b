"""The checkers of the chapter strategic-imitation name typical mistakes."""

import numpy as np
import pytest

from helpers import checks

CHAPTER = checks.strategic_imitation


def said(checker, answer, capsys):
    checker(answer)
    return capsys.readouterr().out


def forgets_failed_attempts(F_0, F_I, F_1, q, eps, cost_manipulate, cost_improve):
    ways = {
        "stay": 1 - F_0,
        "improve": q * (1 - F_1) - cost_improve,
        "manipulate": (1 - eps) * (1 - F_1) - cost_manipulate,
    }
    return max(ways, key=ways.get)


def test_a_failed_attempt_may_pass(capsys):
    assert "a failed attempt often passes" in said(CHAPTER.choice, forgets_failed_attempts, capsys)


def test_the_tie(capsys):
    def eager(F_0, F_I, F_1, q, eps, cost_manipulate, cost_improve):
        ways = {
            "manipulate": (1 - eps) * (1 - F_1) - cost_manipulate,
            "improve": q * (1 - F_1) + (1 - q) * (1 - F_I) - cost_improve,
            "stay": 1 - F_0,
        }
        return max(ways, key=ways.get)

    out = said(CHAPTER.choice, eager, capsys)
    assert "nobody is accepted" in out
    assert out.count("  - ") == 1


def test_the_saved_loss_is_forgotten(capsys):
    def forgetful(kind, passes, would_have, gain, loss):
        return (gain if kind == "improved" else -loss) * passes

    out = said(CHAPTER.change, forgetful, capsys)
    assert "manipulated, rejected now, would have passed: it gives 0, and should give 3" in out
    assert "would not have" not in out


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda m, n, sd, q, e: np.inf if q + e >= 1 else (m + n) / 2, "the peak is at 1.561"),
        (lambda m, n, sd, q, e: np.inf if q + e >= 1 else None, "it gives None"),
        (
            lambda m, n, sd, q, e: (
                np.inf if q + e >= 1 else (m + n) / 2 + np.log((1 - q) / (1 - q - e)) / (n - m)
            ),
            "sd = 0.5",
        ),
    ],
)
def test_mistakes_in_the_peak(answer, why, capsys):
    assert why in said(CHAPTER.gaussian_peak, answer, capsys)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda d, alpha: d / (1 - d) * alpha / (1 - alpha), "it is p_0 / p_1"),
        (lambda d, alpha: (1 - d) / d, "off by one factor"),
        (lambda d, alpha: 1 - d, "use Bayes' rule"),
    ],
)
def test_mistakes_in_the_ratio(answer, why, capsys):
    assert why in said(CHAPTER.likelihood_ratio, answer, capsys)


def test_a_gap_without_its_reason(capsys):
    def one_sided(rejected):
        gap = max(rejected) - min(rejected)
        return gap, "everybody" if min(rejected) < 0.001 else "some"

    out = said(CHAPTER.gap_report, one_sided, capsys)
    assert "hardly anybody passes" in out
    assert "one group is rejected in part" in out
