"""Private quantisers: against brute force, simulation, closed forms, and deliberately broken ones."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

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


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_family_is_unbiased(seed: int) -> None:
    made = some_mechanism(seed)
    np.testing.assert_allclose(made.probabilities(GRID).sum(1), 1)
    np.testing.assert_allclose(made.mean(GRID), GRID, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_finite_audit_finds_what_a_fine_grid_finds(seed: int) -> None:
    made = some_mechanism(seed)
    x_N = np.sort(np.concatenate([np.linspace(-1, 1, 4001), made.bins_M[1:-1], made.bins_M[1:-1] - 1e-9]))
    chance_NM = made.probabilities(x_N)
    assert privacy.privacy_loss(made) == pytest.approx(
        np.log(chance_NM.max(0) / chance_NM.min(0)).max(), abs=1e-6
    )


def naive_optimum(epsilon: float, bins_M: np.ndarray, x_N: np.ndarray) -> float:
    """The least mean error over x_N: chances of pairs, all pairs of inputs compared one by one."""
    pairs = [
        (x, left, right)
        for x in range(len(x_N))
        for left in range(len(bins_M))
        for right in range(left + 1, len(bins_M))
        if bins_M[left] <= x_N[x] < bins_M[right]
    ]
    interval = [int(np.searchsorted(bins_M, x, side="right")) for x in x_N]
    names = sorted({(interval[x], left, right) for x, left, right in pairs})
    place = {name: i for i, name in enumerate(names)}
    chance = np.zeros((len(x_N), len(bins_M), len(names)))
    cost = np.zeros(len(names))
    for x, left, right in pairs:
        gap, at = bins_M[right] - bins_M[left], place[interval[x], left, right]
        chance[x, left, at] = (bins_M[right] - x_N[x]) / gap
        chance[x, right, at] = (x_N[x] - bins_M[left]) / gap
        cost[at] += 2 * (bins_M[right] - x_N[x]) * (x_N[x] - bins_M[left]) / gap / len(x_N)
    unequal = [
        chance[a, i] - math.exp(epsilon) * chance[b, i]
        for a, b in itertools.permutations(range(len(x_N)), 2)
        for i in range(len(bins_M))
    ]
    sums = [[float(name[0] == j) for name in names] for j in sorted(set(interval))]
    found = linprog(cost, A_ub=unequal, b_ub=np.zeros(len(unequal)), A_eq=sums, b_eq=np.ones(len(sums)))
    return float(found.fun)


@pytest.mark.parametrize("epsilon", [1.0, 2.0])
def test_the_joint_program_agrees_with_a_naive_one(epsilon: float) -> None:
    """The naive program compares every pair of inputs; the inputs hold both sides of each level."""
    inner = BINS[1:-1]
    x_N = np.sort(np.concatenate([np.linspace(-1, 1, 9), inner, inner - 1e-9]))
    made = privacy.joint_lp(epsilon, BINS, inputs_N=x_N)
    assert made.error(x_N).mean() == pytest.approx(naive_optimum(epsilon, BINS, x_N), abs=1e-6)
    assert privacy.privacy_loss(made) <= epsilon + 1e-6


def test_the_integral_is_the_limit_of_a_fine_grid() -> None:
    x_N = (np.arange(2000) + 0.5) / 1000 - 1
    by_integral, by_grid = privacy.joint_lp(1.0, BINS), privacy.joint_lp(1.0, BINS, inputs_N=x_N)
    assert by_integral.error(x_N).mean() == pytest.approx(by_grid.error(x_N).mean(), abs=1e-5)


def test_the_squared_program_has_the_least_variance() -> None:
    """The price of the least absolute error is more variance, and the other way round."""
    bins_M = privacy.levels(8, margin=2.0, inner=0.8)
    absolute, squared = (privacy.joint_lp(2.0, bins_M, squared=flag, inputs_N=GRID) for flag in (False, True))
    assert squared.variance(GRID).mean() < absolute.variance(GRID).mean()
    assert absolute.error(GRID).mean() < squared.error(GRID).mean()
    x_N = (np.arange(2000) + 0.5) / 1000 - 1
    by_integral, by_grid = (
        privacy.joint_lp(2.0, bins_M, squared=True, inputs_N=some) for some in (None, x_N)
    )
    assert by_integral.variance(x_N).mean() == pytest.approx(by_grid.variance(x_N).mean(), rel=1e-5)


@given(st.floats(0.3, 4.0))
@settings(max_examples=10)
def test_two_levels_give_the_one_bit_mechanism(epsilon: float) -> None:
    """Duchi's levels are feasible, and nothing nearer to zero is."""
    margin = privacy.duchi_level(epsilon) - 1
    made = privacy.joint_lp(epsilon, privacy.levels(2, margin=margin * (1 + 1e-6)))
    assert privacy.privacy_loss(made) == pytest.approx(epsilon, abs=1e-4)
    with pytest.raises(ValueError, match="move the outer levels out"):
        privacy.joint_lp(epsilon, privacy.levels(2, margin=margin * 0.99))


@pytest.mark.parametrize(
    ("epsilon", "margin", "error"), [(1.0, 2.0, 1.882), (2.0, 2.0, 0.858), (3.0, 1.0, 0.574)]
)
def test_the_papers_programs_reach_the_known_errors(epsilon: float, margin: float, error: float) -> None:
    """Errors that another implementation of the same equations gave."""
    made = privacy.bracketed_lp(epsilon, margin=margin, inner=0.5)
    assert made.error(GRID).mean() == pytest.approx(error, abs=5e-4)
    assert privacy.privacy_loss(made) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 3.0])
def test_a_joint_draw_is_never_worse_than_independent_ones(epsilon: float) -> None:
    bins_M = privacy.levels(4, margin=2.0, inner=0.5)
    joint = privacy.joint_lp(epsilon, bins_M, inputs_N=GRID)
    product = privacy.bracketed_lp(epsilon, margin=2.0, inner=0.5)
    assert joint.error(GRID).mean() <= product.error(GRID).mean() + 1e-9


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


# Audits


def test_a_broken_mechanism_fails_both_audits() -> None:
    """One interval uses its two nearest levels only, as plain stochastic rounding does."""
    made = privacy.joint_lp(1.0, BINS)
    broken_JMM = made.selection_JMM.copy()
    broken_JMM[1] = 0
    broken_JMM[1, 1, 2] = 1
    broken = privacy.TwoLevel(BINS, 1.0, broken_JMM)
    assert privacy.privacy_loss(broken) == math.inf
    dice = torch.Generator().manual_seed(0)

    def answers(one: privacy.Mechanism) -> Callable[[float, int], Any]:
        return lambda x, n: one.sample(torch.full((n,), x), generator=dice).numpy()

    inputs = [-1.0, -0.45, 0.0, 0.44, 1.0]
    assert privacy.audit(answers(broken), inputs, draws=20_000) > 1.0
    assert 0.8 < privacy.audit(answers(made), inputs, draws=20_000) <= 1.0


def test_the_bound_of_the_audit_rises_to_the_truth() -> None:
    dice = np.random.default_rng(0)

    def answer(x: float, n: int) -> np.ndarray:
        return (dice.random(n) < (0.8 if x > 0 else 0.2)).astype(int)

    few, many = (privacy.audit(answer, [-1.0, 1.0], draws=n) for n in (200, 200_000))
    assert few < many < math.log(4)
    assert many > math.log(4) - 0.05


def test_the_audit_keeps_its_confidence() -> None:
    """A fair coin leaks nothing: a positive bound is a false alarm, and may come up in one of twenty."""
    dice = np.random.default_rng(1)
    alarms = [
        privacy.audit(lambda x, n: dice.integers(0, 2, n), [0.0, 1.0], draws=500) > 0 for _ in range(200)
    ]
    assert sum(alarms) <= 20


@pytest.mark.parametrize("order", [1.5, 2.0, 16.0])
def test_renyi_loss_against_all_pairs_of_a_grid(order: float) -> None:
    made = some_mechanism(3)
    inner = made.bins_M[1:-1]
    chance_NM = made.probabilities(np.concatenate([np.linspace(-1, 1, 101), inner, inner - 1e-9]))
    pairs = [
        np.log((p_M**order * q_M ** (1 - order)).sum()) / (order - 1)
        for p_M, q_M in itertools.product(chance_NM, chance_NM)
    ]
    assert privacy.renyi(made, order) == pytest.approx(max(pairs), abs=1e-6)
    assert privacy.renyi(made, order) <= privacy.privacy_loss(made)


# Sampling and packing


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


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=40))
def test_packing_loses_nothing(bits: int, numbers: list[int]) -> None:
    index = torch.tensor([n % 2**bits for n in numbers], dtype=torch.long)
    packed = privacy.pack(index, bits=bits)
    assert len(packed) == math.ceil(len(index) * bits / 8)
    assert torch.equal(privacy.unpack(packed, bits=bits, count=len(index)), index)


def test_whole_numbers_sum_exactly_and_keep_the_loss(monkeypatch: Any) -> None:
    made = privacy.joint_lp(1.0, BINS)
    table = privacy.IntegerSampler(made, inputs=65, bits=40)
    assert (table.weight_NM.sum(1) == 2**40).all()
    assert table.privacy_loss() == pytest.approx(1.0, abs=1e-6)
    monkeypatch.setattr(privacy.secrets, "randbits", random.Random(0).getrandbits)
    share_M = np.bincount(table.sample([0.5] * 20_000), minlength=4) / 20_000
    np.testing.assert_allclose(share_M, made.probabilities(np.array([0.5]))[0], atol=0.015)


def test_few_bits_cost_privacy_and_too_few_are_refused() -> None:
    made = privacy.joint_lp(1.0, BINS)
    assert privacy.IntegerSampler(made, bits=8).privacy_loss() > 1.001
    rare = privacy.exponential(privacy.levels(8, margin=0.5), gamma=24.0)
    with pytest.raises(ValueError, match="possible under some inputs only"):
        privacy.IntegerSampler(rare, bits=8)


# Bad input


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


def test_levels_of_every_number() -> None:
    np.testing.assert_allclose(privacy.levels(3, margin=1.0, inner=0.7), [-2, 0, 2])
    np.testing.assert_allclose(privacy.levels(2, margin=1.0, inner=0.7), [-2, 2])
    np.testing.assert_allclose(privacy.levels(5, margin=1.0, clip=2.0), [-3, -1.5, 0, 1.5, 3])


def test_an_impossible_answer_is_no_leak_and_a_level_beyond_the_inputs_is_allowed() -> None:
    """Levels outside the inputs make intervals that no input meets."""
    bins_M = privacy.levels(6, margin=4.0)
    made = privacy.joint_lp(1.0, bins_M)
    np.testing.assert_allclose(made.mean(GRID), GRID, atol=1e-9)
    assert privacy.privacy_loss(made) <= 1.0 + 1e-9
