"""Tables of whole numbers: their sums, their loss, their draws."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from helpers import privacy
from helpers.privacy import integers
from tests.privacy.mechanisms import BINS


def test_whole_numbers_sum_exactly_and_keep_the_loss(monkeypatch: Any) -> None:
    made = privacy.joint_lp(1.0, BINS)
    table = privacy.IntegerSampler(made, inputs=65, bits=40)
    assert (table.weight_NM.sum(1) == 2**40).all()
    assert table.privacy_loss() == pytest.approx(1.0, abs=1e-6)
    monkeypatch.setattr(integers.secrets, "randbits", random.Random(0).getrandbits)
    share_M = np.bincount(table.sample([0.5] * 20_000), minlength=4) / 20_000
    np.testing.assert_allclose(share_M, made.probabilities(np.array([0.5]))[0], atol=0.015)


def test_few_bits_cost_privacy_and_too_few_are_refused() -> None:
    made = privacy.joint_lp(1.0, BINS)
    assert privacy.IntegerSampler(made, bits=8).privacy_loss() > 1.001
    rare = privacy.exponential(privacy.levels(8, margin=0.5), gamma=24.0)
    with pytest.raises(ValueError, match="possible under some inputs only"):
        privacy.IntegerSampler(rare, bits=8)
