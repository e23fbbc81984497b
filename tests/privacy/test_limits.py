"""The closed forms, against the density and the program that they stand for."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import privacy
from tests.privacy.mechanisms import GRID


@given(st.floats(0.3, 4.0))
@settings(max_examples=10)
def test_two_levels_give_the_one_bit_mechanism(epsilon: float) -> None:
    """Duchi's levels are feasible, and nothing nearer to zero is."""
    margin = privacy.duchi_level(epsilon) - 1
    made = privacy.joint_lp(epsilon, privacy.levels(2, margin=margin * (1 + 1e-6)))
    assert privacy.privacy_loss(made) == pytest.approx(epsilon, abs=1e-4)
    with pytest.raises(ValueError, match="move the outer levels out"):
        privacy.joint_lp(epsilon, privacy.levels(2, margin=margin * 0.99))


def test_the_staircase_error_is_that_of_its_density() -> None:
    epsilon, width = 1.3, 2.0
    cut = 1 / (1 + math.exp(epsilon / 2))
    height = (1 - math.exp(-epsilon)) / (2 * width * (cut + math.exp(-epsilon) * (1 - cut)))
    edges = [(k, k + cut, k + 1) for k in range(60)]
    mass = error = 0.0
    for k, middle, end in edges:
        for low, high, step in ((k, middle, k), (middle, end, k + 1)):
            density = height * math.exp(-epsilon * step)
            mass += 2 * density * width * (high - low)
            error += density * width**2 * (high**2 - low**2)
    assert mass == pytest.approx(1)
    assert privacy.staircase_error(epsilon) == pytest.approx(error)


def test_no_noise_is_below_the_staircase_but_a_bounded_mechanism_is() -> None:
    """Laplace noise before rounding errs by 2 / epsilon; knowing the range of inputs is worth something."""
    assert privacy.staircase_error(1.0) < 2.0
    wide = privacy.joint_lp(1.0, privacy.levels(16, margin=2.5, inner=0.9))
    assert wide.error(GRID).mean() < privacy.staircase_error(1.0)
