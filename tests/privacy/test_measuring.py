"""Audits, against brute force and deliberately broken mechanisms."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from helpers import privacy
from tests.privacy.mechanisms import BINS, some_mechanism


@pytest.mark.parametrize("seed", range(5))
def test_the_finite_audit_finds_what_a_fine_grid_finds(seed: int) -> None:
    made = some_mechanism(seed)
    x_N = np.sort(np.concatenate([np.linspace(-1, 1, 4001), made.bins_M[1:-1], made.bins_M[1:-1] - 1e-9]))
    chance_NM = made.probabilities(x_N)
    assert privacy.privacy_loss(made) == pytest.approx(
        np.log(chance_NM.max(0) / chance_NM.min(0)).max(), abs=1e-6
    )


def test_a_broken_mechanism_fails_both_audits() -> None:
    """One interval uses its two nearest levels only, as plain stochastic rounding does."""
    made = privacy.joint_lp(1.0, BINS)
    broken_JMM = made.selection_JMM.copy()
    broken_JMM[1] = 0
    broken_JMM[1, 1, 2] = 1
    broken = privacy.TwoLevel(BINS, 1.0, broken_JMM)
    assert privacy.privacy_loss(broken) == math.inf
    dice = torch.Generator().manual_seed(0)

    def answers(one: privacy.Mechanism) -> Callable[[float, int], Any]:
        return lambda x, n: one.sample(torch.full((n,), x), generator=dice).numpy()

    inputs = [-1.0, -0.45, 0.0, 0.44, 1.0]
    assert privacy.audit(answers(broken), inputs, draws=20_000) > 1.0
    assert 0.8 < privacy.audit(answers(made), inputs, draws=20_000) <= 1.0


def test_the_bound_of_the_audit_rises_to_the_truth() -> None:
    dice = np.random.default_rng(0)

    def answer(x: float, n: int) -> np.ndarray:
        return (dice.random(n) < (0.8 if x > 0 else 0.2)).astype(int)

    few, many = (privacy.audit(answer, [-1.0, 1.0], draws=n) for n in (200, 200_000))
    assert few < many < math.log(4)
    assert many > math.log(4) - 0.05


def test_the_audit_keeps_its_confidence() -> None:
    """A fair coin leaks nothing: a positive bound is a false alarm, and may come up in one of twenty."""
    dice = np.random.default_rng(1)
    alarms = [
        privacy.audit(lambda x, n: dice.integers(0, 2, n), [0.0, 1.0], draws=500) > 0 for _ in range(200)
    ]
    assert sum(alarms) <= 20


@pytest.mark.parametrize("order", [1.5, 2.0, 16.0])
def test_renyi_loss_against_all_pairs_of_a_grid(order: float) -> None:
    made = some_mechanism(3)
    inner = made.bins_M[1:-1]
    chance_NM = made.probabilities(np.concatenate([np.linspace(-1, 1, 101), inner, inner - 1e-9]))
    pairs = [
        np.log((p_M**order * q_M ** (1 - order)).sum()) / (order - 1)
        for p_M, q_M in itertools.product(chance_NM, chance_NM)
    ]
    assert privacy.renyi(made, order) == pytest.approx(max(pairs), abs=1e-6)
    assert privacy.renyi(made, order) <= privacy.privacy_loss(made)
