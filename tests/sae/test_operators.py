"""Each operator against brute force over all supports, and against a wrong one."""

from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from helpers.sae.operators import OPERATORS, objective

NAMES = list(OPERATORS)
LEVEL = {"relu": 0.7, "jumprelu": 0.9, "topk": 2, "abstopk": 2}


def brute_force(name, u, level):
    """Minimise over every support by a numerical solver that knows nothing of thresholds."""
    operator, best = OPERATORS[name], float("inf")
    for size in range(len(u) + 1):
        if operator.counts and size > level:
            break
        for support in combinations(range(len(u)), size):
            on = list(support)

            def price(v, on=on):
                z = torch.zeros(len(u), dtype=torch.float64)
                z[on] = torch.as_tensor(v, dtype=torch.float64)
                penalty = 0 if operator.counts else level * (z.sum() if name == "relu" else len(on))
                return float((u - z).square().sum() / 2 + penalty)

            start = [0.1] * size
            bounds = [(None if operator.signed else 0, None)] * size
            value = (
                minimize(price, start, bounds=bounds, method="L-BFGS-B", tol=1e-14).fun if on else price([])
            )
            best = min(best, value)
    return best


@pytest.mark.parametrize("name", NAMES)
def test_operator_minimises_its_objective(name):
    dice = torch.Generator().manual_seed(3)
    for _ in range(5):
        u = 1.5 * torch.randn(5, generator=dice, dtype=torch.float64)
        operator, level = OPERATORS[name], LEVEL[name]
        ours = objective(operator, operator.prox(u, level), u_BP=u, level=level).item()
        assert abs(ours - brute_force(name, u, level)) < 1e-6


@pytest.mark.parametrize(
    ("right", "wrong"), [("abstopk", "topk"), ("relu", "jumprelu"), ("jumprelu", "relu")]
)
def test_another_operator_does_not_minimise_it(right, wrong):
    u = torch.tensor([2.0, -3.0, 1.8, 0.2], dtype=torch.float64)
    best = objective(OPERATORS[right], OPERATORS[right].prox(u, LEVEL[right]), u_BP=u, level=LEVEL[right])
    other = objective(OPERATORS[right], OPERATORS[wrong].prox(u, LEVEL[wrong]), u_BP=u, level=LEVEL[right])
    assert other > best + 1e-3


@given(values=st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=12), name=st.sampled_from(NAMES))
@settings(max_examples=60, deadline=None)
def test_output_is_always_feasible(values, name):
    u = torch.tensor(values)
    z = OPERATORS[name].prox(u, LEVEL[name])
    assert OPERATORS[name].feasible(z, LEVEL[name]).item()
    assert torch.isfinite(objective(OPERATORS[name], z, u_BP=u, level=LEVEL[name]))


def test_infeasible_code_costs_infinity():
    u = torch.tensor([1.0, -1.0])
    assert objective(OPERATORS["relu"], u, u_BP=u, level=0.1).item() == float("inf")
    assert objective(OPERATORS["abstopk"], u, u_BP=u, level=1).item() == float("inf")


@pytest.mark.parametrize("level", [0, 2.5, 9])
@pytest.mark.parametrize("name", ["topk", "abstopk"])
def test_level_must_be_a_count(name, level):
    with pytest.raises(ValueError, match="whole number from 1 to 4"):
        OPERATORS[name].prox(torch.zeros(4), level)


def test_topk_fires_fewer_when_fewer_are_positive():
    u = torch.tensor([1.0, -2.0, -3.0])
    assert (OPERATORS["topk"].prox(u, 2) != 0).sum() == 1
    assert (OPERATORS["abstopk"].prox(u, 2) != 0).sum() == 2
