"""Directions of two models, against what theory says of noise."""

import pytest
import torch

from helpers import directions
from helpers.directions import comparing


def pair(dice, *, direction, n=120, noise=1.0):
    d = len(direction)
    return direction + noise * torch.randn(n, d, generator=dice), noise * torch.randn(n, d, generator=dice)


def test_one_direction_seen_twice_has_the_null_s_cosine_and_a_corrected_one_of_one(dice):
    direction = torch.ones(32) / 3
    found = directions.agreement(*(pair(dice, direction=direction, n=1200) for _ in range(2)), splits=100)
    assert found.null.mean() < 0.97
    assert abs(float((found.across - found.null).mean())) < 0.02
    low, high = found.interval("corrected")
    assert low < 1 < high < 1.1


def test_the_null_is_what_theory_says(dice):
    """Of two noisy means m + e, the expected cosine is about |m|^2 / (|m|^2 + E|e|^2)."""
    direction, n = torch.ones(400) / 4, 400
    one = pair(dice, direction=direction, n=n)
    found = directions.agreement(one, one, splits=60)
    # A half has n / 2 rows of each kind, and drawing them again doubles the variance of the mean.
    noise = 400 * 2 * 2 / (n / 2)
    signal = float(direction.square().sum())
    assert float(found.null.mean()) == pytest.approx(signal / (signal + noise), abs=0.05)
    assert found.same == pytest.approx(1)


def test_a_rotation_is_seen_through_the_noise(dice):
    first, second = torch.zeros(32), torch.zeros(32)
    first[0], second[:2] = 2.0, torch.tensor([1.6, 1.2])  # a cosine of 0.8
    found = directions.agreement(*(pair(dice, direction=d, n=1200) for d in (first, second)), splits=100)
    low, high = found.interval("corrected")
    assert low < 0.8 < high < 0.9
    assert (found.across < found.null).float().mean() > 0.95


def test_noise_without_a_direction_stays_finite(dice):
    nothing = pair(dice, direction=torch.zeros(64), n=8)
    found = directions.agreement(nothing, pair(dice, direction=torch.zeros(64), n=8), splits=40)
    assert found.corrected.abs().max() <= found.across.abs().max() / 0.05 + 1e-6


def test_the_same_seed_gives_the_same_splits(dice):
    one = pair(dice, direction=torch.ones(4), n=10)
    runs = [directions.agreement(one, one, splits=5, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(runs[0].null, runs[1].null)
    assert not torch.equal(runs[0].null, runs[2].null)


def test_halves_are_disjoint():
    for seed in range(20):
        one, other = comparing._two_halves(9, torch.Generator().manual_seed(seed))
        assert len(one) == len(other) == 4
        assert not set(one.tolist()) & set(other.tolist())


@pytest.mark.parametrize("sizes", [((3, 9), (3, 9)), ((8, 8), (8, 9))])
def test_unequal_or_few_prompts_are_refused(sizes):
    pairs = [tuple(torch.ones(n, 2) for n in two) for two in sizes]
    with pytest.raises(ValueError, match="each 4 or more"):
        directions.agreement(*pairs)
