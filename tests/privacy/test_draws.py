"""Draws by a formula, against their stories."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import privacy
from tests.privacy.mechanisms import GRID


def test_rqm_does_what_its_story_says() -> None:
    """Keep each inner level by chance, take the nearest kept ones on both sides, and flip the fair coin."""
    bins_M, keep, x, n = privacy.levels(5, margin=1.0), 0.4, 0.3, 200_000
    dice = np.random.default_rng(0)
    kept_NM = dice.random((n, 5)) < keep
    kept_NM[:, [0, -1]] = True
    left_N = np.where(kept_NM & (bins_M <= x), bins_M, -np.inf).max(1)
    right_N = np.where(kept_NM & (bins_M > x), bins_M, np.inf).min(1)
    up_N = dice.random(n) < (x - left_N) / (right_N - left_N)
    said_N = np.where(up_N, right_N, left_N)
    share_M = [(said_N == level).mean() for level in bins_M]
    found_M = privacy.rqm(bins_M, keep=keep).probabilities(np.array([x]))[0]
    np.testing.assert_allclose(share_M, found_M, atol=4e-3)


def test_rqm_at_the_known_setting() -> None:
    made = privacy.rqm(privacy.levels(4, margin=1.7), keep=0.22)
    assert made.error(GRID).mean() == pytest.approx(1.993, abs=5e-4)
    assert privacy.privacy_loss(made) < 1.0


def test_the_exponential_mechanism_prefers_near_levels() -> None:
    flat, steep = (privacy.exponential(privacy.levels(5, margin=2.0), gamma=g) for g in (0.0, 3.0))
    left_JM = steep.selection_JMM.sum(2)
    assert (np.diff(left_JM[3, :4]) > 0).all()
    np.testing.assert_allclose(flat.selection_JMM.sum(2)[3, :4], 0.25)
    assert steep.error(GRID).mean() < flat.error(GRID).mean()
    assert privacy.privacy_loss(steep) > privacy.privacy_loss(flat)
