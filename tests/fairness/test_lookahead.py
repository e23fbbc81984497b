"""Lookahead counterfactual fairness against closed forms, finite differences, and a search."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from helpers.fairness.lookahead import (
    Futures,
    World,
    counterfactually_fair,
    fit,
    flip,
    futures,
    lookahead_fair,
    overlap,
    respond,
    slope_limit,
    unaware,
)
from helpers.fairness.scm import SCM, coin, normal, uniform

ALPHA, BETA, W = (torch.tensor(row, dtype=torch.float64) for row in ([0.5, 1.0], [1.0, -0.3], [0.8, 0.4]))
GAMMA = 0.6
CAUSES = ("U_X", "U_Y")


def linear(eta: float = 2.0) -> World:
    scm = SCM(
        {"A": coin(), "U_X": uniform(2), "U_Y": uniform()},
        {"X": lambda A, U_X: ALPHA * U_X + BETA * A[:, None], "Y": lambda X, U_Y: X @ W + GAMMA * U_Y},
    )
    return World(scm, acts_on=CAUSES, eta=eta)


def product(eta: float = 2.0) -> World:
    scm = SCM(
        {"A": coin(values=(1.0, 2.0)), "U_X": uniform(2), "U_Y": uniform()},
        {"X": lambda A, U_X: A[:, None] * (ALPHA * U_X + BETA), "Y": lambda X, U_Y: X @ W + GAMMA * U_Y},
    )
    return World(scm, acts_on=CAUSES, eta=eta, values=(1.0, 2.0))


def curved() -> World:
    scm = SCM({"A": coin(values=(1.0, 2.0)), "U": uniform()}, {"Y": lambda A, U: (U + A.exp()) ** (2 / 3)})
    return World(scm, acts_on=("U",), eta=0.5, values=(1.0, 2.0))


def crowd(world: World, n: int = 60):
    u = world.scm.sample(n, seed=3)
    return u, world.here(u)


SQUARED = float(((W * ALPHA) ** 2).sum())


@pytest.mark.parametrize(
    ("world", "expected"), [(linear(), SQUARED + GAMMA**2), (product(), 2 * SQUARED + GAMMA**2)]
)
def test_the_overlap_is_the_constant_of_the_theorems(world, expected):
    u, _ = crowd(world)
    torch.testing.assert_close(overlap(world, u), torch.full((60,), expected, dtype=torch.float64))
    assert slope_limit(world, u) == pytest.approx(1 / (world.eta * expected))


def test_the_overlap_counts_only_what_people_act_on():
    world = World(linear().scm, acts_on=("U_Y",), eta=2.0)
    u, _ = crowd(world)
    torch.testing.assert_close(overlap(world, u), torch.full((60,), GAMMA**2, dtype=torch.float64))


def test_where_the_overlap_differs_the_largest_counts():
    world = curved()
    u, _ = crowd(world)
    inner = torch.stack([2 / 3 * (u["U"] + torch.tensor(a).exp()) ** (-1 / 3) for a in (1.0, 2.0)]).prod(0)
    torch.testing.assert_close(overlap(world, u), inner)
    assert slope_limit(world, u) == pytest.approx(float(1 / (0.5 * inner.max())))


def test_the_response_is_the_gradient_by_finite_differences():
    world = linear()
    u, people = crowd(world)
    predict = lookahead_fair(world, people, y_N=people["Y"], p1=0.7, causes=CAUSES)
    moved, h = respond(world, predict, u), 1e-6
    for column in range(2):
        step = torch.zeros(2, dtype=torch.float64)
        step[column] = h
        up, down = (predict(world.here({**u, "U_X": u["U_X"] + sign * step})) for sign in (1, -1))
        slope = (up - down) / (2 * h)
        torch.testing.assert_close(
            moved["U_X"][:, column], u["U_X"][:, column] + 2.0 * slope, atol=1e-6, rtol=0
        )
    assert torch.equal(moved["A"], u["A"])


@settings(deadline=None, max_examples=25)
@given(share=st.floats(0, 2), eta=st.floats(0.1, 5), make=st.sampled_from([linear, product]))
def test_the_gap_shrinks_by_the_line(share, eta, make):
    world = make(eta)
    u, people = crowd(world)
    causes = CAUSES if make is linear else ()
    predict = lookahead_fair(world, people, y_N=people["Y"], p1=share * slope_limit(world, u), causes=causes)
    after = futures(world, predict, u)
    torch.testing.assert_close(after.next_gap, (1 - 2 * share) * after.gap, atol=1e-8, rtol=1e-8)


def test_a_search_that_knows_no_theorem_finds_the_slope():
    world = product()
    u, people = crowd(world)

    def price(p1):
        return futures(world, lookahead_fair(world, people, y_N=people["Y"], p1=p1), u).afce

    found = minimize_scalar(price, bounds=(0, 2), method="bounded", options={"xatol": 1e-8})
    assert found.x == pytest.approx(slope_limit(world, u) / 2, rel=1e-4)


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
def test_every_convex_predictor_obeys_the_general_line(power):
    world = linear(0.05)
    u, people = crowd(world)
    p1 = 0.3
    after = futures(
        world, lookahead_fair(world, people, y_N=people["Y"], p1=p1, power=power, causes=CAUSES), u
    )
    slopes = [p1 * power * y_N ** (power - 1) for y_N in (after.y_there_N, after.y_N)]
    expected = after.gap + 0.05 * (SQUARED + GAMMA**2) * (slopes[0] - slopes[1])
    torch.testing.assert_close(after.next_gap, expected)
    assert 0 < after.improvement < 1


def test_counterfactual_fairness_leaves_the_gap_where_worlds_add_and_not_where_they_multiply():
    for world, moved in ((linear(), False), (product(), True)):
        u, people = crowd(world)
        predict = counterfactually_fair(world, people, causes=CAUSES, y_N=people["Y"])
        torch.testing.assert_close(predict(world.here(u)), predict(world.there(u)))
        after = futures(world, predict, u)
        assert (float((after.next_gap - after.gap).abs().max()) > 0.1) is moved


def test_a_cause_that_pushes_unequally_spoils_the_product_world():
    world = product()
    u, people = crowd(world)
    half = slope_limit(world, u) / 2
    with_h = lookahead_fair(world, people, y_N=people["Y"], p1=half, causes=CAUSES)
    assert futures(world, with_h, u).afce > 0.1


@pytest.mark.parametrize("believed", [0.0, 0.5, 1.0, 1.5])
def test_a_graph_that_misses_an_effect_errs_as_the_closed_form_says(believed):
    """The predictor believes in a share of the true effect, and infers U from what it sees."""
    world = linear()
    u, people = crowd(world)
    belief = World(
        world.scm.do(X=lambda A, U_X: ALPHA * U_X + believed * BETA * A[:, None]), acts_on=CAUSES, eta=2.0
    )

    def abduct(values):
        return {**values, "U_X": (values["X"] - believed * BETA * values["A"][:, None]) / ALPHA}

    half = slope_limit(belief, u) / 2
    predict = lookahead_fair(belief, people, y_N=people["Y"], p1=half, causes=CAUSES, abduct=abduct)
    after = futures(world, predict, u)
    torch.testing.assert_close(after.next_gap, 2 * (1 - believed) * after.gap, atol=1e-9, rtol=0)


def test_one_path_can_be_kept():
    full = linear()
    scm = SCM(
        {"A": coin(), "U_X": uniform(), "U_W": uniform()},
        {"X": lambda A, U_X: U_X + 2 * A, "W": lambda A, U_W: U_W + 3 * A, "Y": lambda X, W: X + W},
    ).split("A", keep=("W",))
    world = World(scm, acts_on=("U_X", "U_W"), eta=full.eta)
    u = scm.sample(40, seed=0)
    u["A_kept"] = u["A"]
    people = scm.solve(u)
    after = futures(
        world,
        lookahead_fair(world, people, y_N=people["Y"], p1=slope_limit(world, u) / 2, causes=("U_X", "U_W")),
        u,
    )
    assert after.now == pytest.approx(2.0)
    assert after.afce < 1e-12


def test_one_group_alone_can_be_measured_but_not_learned_from():
    world = linear()
    u, people = crowd(world)
    predict = lookahead_fair(world, people, y_N=people["Y"], p1=slope_limit(world, u) / 2, causes=CAUSES)
    alone = {name: value[u["A"] == 1] for name, value in u.items()}
    assert futures(world, predict, alone).afce < 1e-10
    there = world.here(alone)
    with pytest.raises(ValueError, match="same 'A'"):
        lookahead_fair(world, there, y_N=there["Y"], p1=0.1)


def test_without_an_effect_there_is_no_gap_to_close():
    one = torch.ones(3)
    assert Futures(one, one, one, one).improvement == 0
    assert Futures(one, one, one, 2 * one).improvement == -float("inf")
    assert Futures(one, 0 * one, 3 * one, one).improvement == -1.0


def test_fit_agrees_with_the_normal_equations_and_takes_dependent_columns():
    x = torch.linspace(0, 1, 20, dtype=torch.float64)
    y = 3 + 2 * x + 0.1 * torch.sin(40 * x)
    line = unaware({"x": x}, inputs=("x",), y_N=y)
    design = torch.stack([torch.ones_like(x), x], dim=1)
    torch.testing.assert_close(line.weights_C, torch.linalg.solve(design.T @ design, design.T @ y))
    twice = unaware({"x": x, "again": x}, inputs=("x", "again"), y_N=y)
    torch.testing.assert_close(twice({"x": x, "again": x}), line({"x": x}))
    assert float(twice.weights_C[1]) == pytest.approx(float(twice.weights_C[2]))


def test_a_predictor_that_reads_no_cause_moves_nobody():
    world = linear()
    u, _ = crowd(world)
    for predict in (lambda v: torch.zeros(60), lambda v: v["A"] * v["U_Y"].mean().detach()):
        assert torch.equal(respond(world, predict, u)["U_X"], u["U_X"])
    only_y = respond(world, lambda v: v["U_Y"], u)
    assert torch.equal(only_y["U_X"], u["U_X"])
    torch.testing.assert_close(only_y["U_Y"], u["U_Y"] + 2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"eta": 0.0}, "eta is 0"),
        ({"eta": float("nan")}, "eta is nan"),
        ({"acts_on": ()}, "acts_on is"),
        ({"acts_on": ("X",)}, "expected different exogenous"),
        ({"acts_on": ("A",)}, "expected different exogenous"),
        ({"attribute": "Y"}, "expected different exogenous"),
        ({"outcome": "U_Y"}, "has no equation"),
    ],
)
def test_a_world_that_does_not_fit_its_model_is_refused(change, why):
    with pytest.raises(ValueError, match=why):
        World(**{"scm": linear().scm, "acts_on": CAUSES, "eta": 2.0, **change})


def test_bad_people_and_predictors_are_refused():
    world = linear()
    u, people = crowd(world)
    with pytest.raises(ValueError, match="holds 3; expected 0 or 1"):
        flip(torch.tensor([0.0, 3.0]))
    with pytest.raises(ValueError, match="predictions hold NaN"):
        respond(world, lambda v: v["Y"] / 0 * 0, u)
    with pytest.raises(ValueError, match="2 people for 3 coefficients"):
        unaware({"X": people["X"][:2]}, inputs=("X",), y_N=people["Y"][:2])
    with pytest.raises(ValueError, match="columns or outcomes hold NaN"):
        fit(lambda v: v["X"], people, y_N=people["Y"] * float("nan"))
    with pytest.raises(ValueError, match="must not read them"):
        counterfactually_fair(world, people, causes=("A",), y_N=people["Y"])
    with pytest.raises(ValueError, match=r"power=1.5 needs >= 0"):
        lookahead_fair(world, {**people, "U_Y": people["U_Y"] - 9}, y_N=people["Y"], p1=0.1, power=1.5)


def test_a_gap_that_nobody_can_act_on_has_no_step():
    against = SCM({"A": coin(values=(-1.0, 1.0)), "U": normal()}, {"Y": lambda A, U: A * U})
    world = World(against, acts_on=("U",), eta=1.0, values=(-1.0, 1.0))
    with pytest.raises(ValueError, match="overlap S is -1"):
        slope_limit(world, against.sample(5, seed=0))
    idle = World(SCM({"A": coin(), "U": normal()}, {"Y": lambda A: A}), acts_on=("U",), eta=1.0)
    with pytest.raises(ValueError, match="overlap S is 0"):
        slope_limit(idle, idle.scm.sample(5, seed=0))


def test_a_response_that_leaves_the_equations_is_said():
    world = curved()
    u, _ = crowd(world)
    with pytest.raises(ValueError, match="the response takes somebody where"):
        futures(world, lambda v: -90 * v["U"], u)
