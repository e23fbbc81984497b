"""Rounded noise, against a simulation and its promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers import privacy


@pytest.mark.parametrize("noise", ["laplace", "gaussian"])
@pytest.mark.parametrize("dithered", [False, True])
def test_rounded_noise_against_a_simulation(noise: Any, dithered: bool) -> None:
    bins_M, scale, n = privacy.levels(5, margin=0.5), 0.7, 200_000
    dice = np.random.default_rng(1)
    draw = dice.laplace if noise == "laplace" else dice.normal
    y_N = np.clip(0.2 + draw(scale=scale, size=n), bins_M[0], bins_M[-1])
    place_N = (y_N - bins_M[0]) / (bins_M[1] - bins_M[0])
    said_N = np.floor(place_N + (dice.random(n) if dithered else 0.5)).astype(int)
    made = privacy.RoundedNoise(bins_M, 1.0, scale=scale, noise=noise, dithered=dithered)
    share_M = np.bincount(said_N, minlength=5) / n
    np.testing.assert_allclose(made.probabilities(np.array([0.2]))[0], share_M, atol=5e-3)


def test_laplace_noise_keeps_its_promise_after_rounding() -> None:
    made = privacy.RoundedNoise(privacy.levels(16, margin=3.0), 1.0, scale=2 / 1.5)
    assert privacy.privacy_loss(made) == pytest.approx(1.5, abs=1e-9)
