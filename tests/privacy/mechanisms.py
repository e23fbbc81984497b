"""Levels, inputs and a random member of the family to test with."""

from __future__ import annotations

import numpy as np

from helpers import privacy

GRID = np.linspace(-1, 1, 51)
BINS = privacy.levels(4, margin=2.5, inner=0.45)


def some_mechanism(seed: int, n_bins: int = 5) -> privacy.TwoLevel:
    """A random member of the family."""
    dice = np.random.default_rng(seed)
    bins_M = np.sort(dice.uniform(-1, 1, n_bins))
    bins_M[[0, -1]] = -1 - dice.uniform(0.1, 2), 1 + dice.uniform(0.1, 2)
    made_JMM = np.zeros((n_bins - 1, n_bins, n_bins))
    for j in range(n_bins - 1):
        made_JMM[j, : j + 1, j + 1 :] = dice.dirichlet(np.ones((j + 1) * (n_bins - 1 - j))).reshape(j + 1, -1)
    return privacy.TwoLevel(bins_M, 1.0, made_JMM)
