"""The joint program, against a naive one."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.optimize import linprog

from helpers import privacy
from tests.privacy.mechanisms import BINS, GRID


def naive_optimum(epsilon: float, bins_M: np.ndarray, x_N: np.ndarray) -> float:
    """The least mean error over x_N: chances of pairs, all pairs of inputs compared one by one."""
    pairs = [
        (x, left, right)
        for x in range(len(x_N))
        for left in range(len(bins_M))
        for right in range(left + 1, len(bins_M))
        if bins_M[left] <= x_N[x] < bins_M[right]
    ]
    interval = [int(np.searchsorted(bins_M, x, side="right")) for x in x_N]
    names = sorted({(interval[x], left, right) for x, left, right in pairs})
    place = {name: i for i, name in enumerate(names)}
    chance = np.zeros((len(x_N), len(bins_M), len(names)))
    cost = np.zeros(len(names))
    for x, left, right in pairs:
        gap, at = bins_M[right] - bins_M[left], place[interval[x], left, right]
        chance[x, left, at] = (bins_M[right] - x_N[x]) / gap
        chance[x, right, at] = (x_N[x] - bins_M[left]) / gap
        cost[at] += 2 * (bins_M[right] - x_N[x]) * (x_N[x] - bins_M[left]) / gap / len(x_N)
    unequal = [
        chance[a, i] - math.exp(epsilon) * chance[b, i]
        for a, b in itertools.permutations(range(len(x_N)), 2)
        for i in range(len(bins_M))
    ]
    sums = [[float(name[0] == j) for name in names] for j in sorted(set(interval))]
    found = linprog(cost, A_ub=unequal, b_ub=np.zeros(len(unequal)), A_eq=sums, b_eq=np.ones(len(sums)))
    return float(found.fun)


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_the_joint_program_agrees_with_a_naive_one(epsilon: float) -> None:
    """The naive program compares every pair of inputs; the inputs hold both sides of each level."""
    inner = BINS[1:-1]
    x_N = np.sort(np.concatenate([np.linspace(-1, 1, 9), inner, inner - 1e-9]))
    made = privacy.joint_lp(epsilon, BINS, inputs_N=x_N)
    assert made.error(x_N).mean() == pytest.approx(naive_optimum(epsilon, BINS, x_N), abs=1e-6)
    assert privacy.privacy_loss(made) <= epsilon + 1e-6


def test_the_integral_is_the_limit_of_a_fine_grid() -> None:
    x_N = (np.arange(2000) + 0.5) / 1000 - 1
    by_integral, by_grid = privacy.joint_lp(1.0, BINS), privacy.joint_lp(1.0, BINS, inputs_N=x_N)
    assert by_integral.error(x_N).mean() == pytest.approx(by_grid.error(x_N).mean(), abs=1e-5)


def test_the_squared_program_has_the_least_variance() -> None:
    """The price of the least absolute error is more variance, and the other way round."""
    bins_M = privacy.levels(8, margin=2.0, inner=0.8)
    absolute, squared = (privacy.joint_lp(2.0, bins_M, squared=flag, inputs_N=GRID) for flag in (False, True))
    assert squared.variance(GRID).mean() < absolute.variance(GRID).mean()
    assert absolute.error(GRID).mean() < squared.error(GRID).mean()
    x_N = (np.arange(2000) + 0.5) / 1000 - 1
    by_integral, by_grid = (
        privacy.joint_lp(2.0, bins_M, squared=True, inputs_N=some) for some in (None, x_N)
    )
    assert by_integral.variance(x_N).mean() == pytest.approx(by_grid.variance(x_N).mean(), rel=1e-5)


def test_an_impossible_answer_is_no_leak_and_a_level_beyond_the_inputs_is_allowed() -> None:
    """Levels outside the inputs make intervals that no input meets."""
    bins_M = privacy.levels(6, margin=4.0)
    made = privacy.joint_lp(1.0, bins_M)
    np.testing.assert_allclose(made.mean(GRID), GRID, atol=1e-9)
    assert privacy.privacy_loss(made) <= 1.0 + 1e-9
