"""The family is unbiased, and samples have its chances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers import privacy
from tests.privacy.mechanisms import BINS, GRID, some_mechanism


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_family_is_unbiased(seed: int) -> None:
    made = some_mechanism(seed)
    np.testing.assert_allclose(made.probabilities(GRID).sum(1), 1)
    np.testing.assert_allclose(made.mean(GRID), GRID, atol=1e-12)


def test_levels_of_every_number() -> None:
    np.testing.assert_allclose(privacy.levels(3, margin=1.0, inner=0.7), [-2, 0, 2])
    np.testing.assert_allclose(privacy.levels(2, margin=1.0, inner=0.7), [-2, 2])
    np.testing.assert_allclose(privacy.levels(5, margin=1.0, clip=2.0), [-3, -1.5, 0, 1.5, 3])


def test_samples_have_the_chances_and_decode_to_levels() -> None:
    made = privacy.joint_lp(1.0, BINS)
    x = torch.tensor([[-0.7, 0.2]]).repeat(50_000, 1)
    index = made.sample(x, generator=torch.Generator().manual_seed(0))
    assert index.shape == x.shape
    for column, chance_M in zip(index.T, made.probabilities(np.array([-0.7, 0.2])), strict=True):
        np.testing.assert_allclose(torch.bincount(column, minlength=4) / len(column), chance_M, atol=0.01)
    assert torch.equal(made.decode(index), torch.from_numpy(BINS)[index])
    np.testing.assert_allclose(made.decode(index).mean(0), [-0.7, 0.2], atol=0.05)
    np.testing.assert_allclose(made.decode(index).var(0), made.variance(np.array([-0.7, 0.2])), rtol=0.03)
