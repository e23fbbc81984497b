"""Bad input to any file of the room is refused with a reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from helpers import privacy
from tests.privacy.mechanisms import BINS, GRID


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_that_is_none(epsilon: float) -> None:
    for call in (
        lambda: privacy.joint_lp(epsilon, BINS),
        lambda: privacy.bracketed_lp(epsilon, margin=1.0, inner=0.5),
        lambda: privacy.duchi_level(epsilon),
        lambda: privacy.staircase_error(epsilon),
        lambda: privacy.calibrate(lambda s: privacy.rqm(BINS, keep=s), epsilon, low=0.9, high=0.1),
        lambda: privacy.search(lambda: privacy.rqm(BINS, keep=0.5), epsilon, over={}, inputs_N=GRID),
    ):
        with pytest.raises(ValueError, match="expected a finite number above zero"):
            call()


@pytest.mark.parametrize("x", [1.01, -2.0, math.nan, math.inf])
def test_an_input_outside_is_refused(x: float) -> None:
    made = privacy.rqm(BINS, keep=0.3)
    for call in (made.probabilities, made.error, made.mean):
        with pytest.raises(ValueError, match="clip them first"):
            call(np.array([0.0, x]))
    with pytest.raises(ValueError, match="clip them first"):
        privacy.joint_lp(1.0, BINS, inputs_N=np.array([x]))


def selection(change: Callable[[np.ndarray], Any]) -> np.ndarray:
    made_JMM = privacy.rqm(BINS, keep=0.5).selection_JMM.copy()
    change(made_JMM)
    return made_JMM


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: privacy.levels(1, margin=1.0), "1 levels with margin"),
        (lambda: privacy.levels(4, margin=0.0), "a margin above zero"),
        (lambda: privacy.levels(4, margin=1.0, inner=2.5), "between 0 and the outer level"),
        (lambda: privacy.rqm(BINS, keep=1.2), "expected a chance"),
        (lambda: privacy.rqm(np.array([-2.0, 0.3, 2.0]), keep=0.5), "symmetric"),
        (lambda: privacy.exponential(BINS, gamma=math.inf), "expected a finite number"),
        (lambda: privacy.rqm(np.array([-2.0, 2.0]), keep=0.5, clip=-1.0), "clip is"),
        (lambda: privacy.RoundedNoise(np.array([1.0, 1.0]), 1.0, scale=1.0), "increasing"),
        (lambda: privacy.RoundedNoise(BINS, 1.0, scale=0.0), "of scale 0.0"),
        (lambda: privacy.RoundedNoise(BINS, 1.0, scale=1.0, noise="cauchy"), "cauchy"),  # type: ignore[arg-type]
        (lambda: privacy.rqm(np.array([-0.5, 0.5]), keep=0.5), "span"),
        (lambda: privacy.TwoLevel(BINS, 1.0, np.ones((2, 4, 4))), "has shape"),
        (lambda: privacy.TwoLevel(BINS, 1.0, selection(lambda s: s.__setitem__((0, 2, 3), 0.1))), "enclose"),
        (lambda: privacy.TwoLevel(BINS, 1.0, selection(lambda s: s.__imul__(0.5))), "sum to"),
        (lambda: privacy.bracketed_lp(1.0, margin=1.0, inner=1.5), "at most the clip"),
        (lambda: privacy.bracketed_lp(0.3, margin=0.2, inner=0.5, step=0.2), "no bracket is feasible"),
        (
            lambda: privacy.joint_lp(0.5, privacy.levels(4, margin=0.5, inner=0.5)),
            "move the outer levels out",
        ),
        (lambda: privacy.renyi(privacy.rqm(BINS, keep=0.3), 1.0), "more than 1"),
        (lambda: privacy.audit(lambda x, n: np.zeros(n, int), [0.0]), "two inputs"),
        (lambda: privacy.pack(torch.tensor([4]), bits=2), "bits hold 0 to 3"),
        (lambda: privacy.pack(torch.tensor([1]), bits=9), "expected 1 to 8"),
        (lambda: privacy.unpack(torch.tensor([1], dtype=torch.uint8), bits=2, count=5), "hold fewer"),
        (lambda: privacy.IntegerSampler(privacy.rqm(BINS, keep=0.3), inputs=1), "2 inputs or more"),
        (
            lambda: privacy.calibrate(lambda s: privacy.rqm(BINS, keep=s), 0.01, low=0.9, high=0.5),
            "the loss is above 0.01 even at 0.5",
        ),
        (
            lambda: privacy.search(
                lambda margin: privacy.joint_lp(0.5, privacy.levels(4, margin=margin)),
                0.5,
                over={"margin": [0.1, 0.2]},
                inputs_N=GRID,
            ),
            "no setting has a loss of 0.5",
        ),
    ],
)
def test_bad_input_is_refused_with_a_reason(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
