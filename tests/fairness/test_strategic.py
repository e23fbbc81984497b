"""The game against closed forms, brute force, quadrature and simulated people; and bad input."""

from dataclasses import astuple, fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from helpers import data
from helpers.fairness import strategic
from helpers.report import t_interval

GAUSSIAN = strategic.gaussian_game(0.4, 0.25, eps=0.25)
BETA = strategic.beta_game(0.34, 0.3, eps=0.5, unqualified=(1.2, 16.0), qualified=(1.8, 2.3))
THETAS = np.array([-np.inf, -1.0, 0.1, 0.4, 0.9, 3.0, np.inf])

shares = st.floats(0.02, 0.98)
probabilities = st.floats(0, 1)


def table(group="White", **changes):
    rows = data.load_scores().query("group == @group")
    columns = {
        "scores": rows["score"].to_numpy() / 100,
        "at_or_below": rows["at_or_below"].to_numpy(),
        "unqualified": rows["default"].to_numpy(),
    } | changes
    return strategic.table_game(columns.pop("scores"), 0.3, eps=0.5, **columns)


# The equations


@given(alpha=shares, q=probabilities, eps=probabilities, gain=st.floats(0.1, 5), loss=st.floats(0.1, 5))
@settings(max_examples=40, deadline=None)
def test_the_terms_add_up_to_the_difference(alpha, q, eps, gain, loss):
    for game in (GAUSSIAN, BETA):
        game = replace(game, alpha=alpha, q=q, eps=eps, gain=gain, loss=loss)
        phi_1, phi_2, phi_3 = strategic.terms(game, THETAS)
        difference = strategic.utility(game, THETAS) - strategic.naive_utility(game, THETAS)
        np.testing.assert_allclose(difference, phi_1 - phi_2 - phi_3, atol=1e-12)
        assert (phi_1 >= -1e-15).all()
        assert (phi_2 >= -1e-15).all()


def test_the_response_is_the_share_whose_costs_are_low_enough():
    theta = 0.7
    game = replace(GAUSSIAN, cost=stats.uniform(-0.5, 1))
    F_I, F_1 = stats.norm.cdf(theta, 0.5), stats.norm.cdf(theta, 1)
    by_manipulating, by_improving = 0.75 * (1 - F_1), 0.25 * (1 - F_1) + 0.75 * (1 - F_I)
    assert strategic.manipulation(game, theta) == pytest.approx(by_manipulating - by_improving + 0.5)


def test_the_utilities_are_integrals_over_accepted_people():
    theta, game = 0.3, BETA
    P_M = strategic.manipulation(game, theta)
    density = {
        +1: lambda x: (game.alpha + (1 - game.alpha) * (1 - P_M) * game.q) * game.qualified.pdf(x),
        -1: lambda x: (
            (1 - game.alpha)
            * ((1 - game.eps) * P_M * game.qualified.pdf(x) + (1 - P_M) * (1 - game.q) * game.failed.pdf(x))
        ),
    }
    total = sum(sign * integrate.quad(each, theta, 1)[0] for sign, each in density.items())
    assert strategic.utility(game, theta) == pytest.approx(total, abs=1e-7)


@pytest.mark.parametrize("game", [GAUSSIAN, BETA, table()])
def test_the_limits_of_manipulation(game):
    low, high = game.support
    assert strategic.manipulation(game, low) == pytest.approx(game.cost.cdf(-game.eps))
    assert strategic.manipulation(game, high) == pytest.approx(game.cost.cdf(0))


def test_weights_of_one_and_of_nothing():
    for theta in (-0.5, 0.2, 1.4):
        assert strategic.objective(GAUSSIAN, theta) == pytest.approx(
            strategic.utility(GAUSSIAN, theta), abs=1e-15
        )
        assert strategic.objective(GAUSSIAN, theta, k=(0, 0, 0)) == strategic.naive_utility(GAUSSIAN, theta)


# The shape of the curve


@given(q=st.floats(0.01, 0.95), eps=st.floats(0.01, 0.95), middle=st.floats(0.1, 0.9))
@settings(max_examples=25, deadline=None)
def test_the_peak_is_where_most_people_manipulate(q, eps, middle):
    game = strategic.gaussian_game(0.4, q, eps=eps, means=(0, middle, 1))
    curve = strategic.manipulation(game, game.grid())
    if q + eps >= 1:
        assert strategic.peak(game) == np.inf
        assert (np.diff(curve) >= -1e-12).all()
    elif strategic.peak(game) < np.inf:
        assert strategic.manipulation(game, strategic.peak(game)) >= curve.max() - 1e-12


def test_the_peak_of_normal_scores_has_a_closed_form():
    wanted = ((1 - 0.5**2) / 2 + np.log(0.75 / 0.5)) / 0.5
    assert strategic.peak(GAUSSIAN) == pytest.approx(wanted)


def test_without_detection_the_curve_peaks_where_the_densities_cross():
    game = replace(BETA, eps=0.0)
    crossing = strategic.peak(game)
    assert game.qualified.pdf(crossing) == pytest.approx(game.failed.pdf(crossing))


def test_a_table_peaks_between_two_of_its_scores():
    game = table()
    grid = game.grid(20_001)
    assert strategic.peak(game) == pytest.approx(grid[strategic.manipulation(game, grid).argmax()], abs=0.01)


def test_a_curve_that_falls_from_the_start_peaks_at_its_first_score():
    game = table(
        scores=np.array([0.0, 0.5, 1.0]), at_or_below=np.array([0.0, 0.5, 1.0]), unqualified=np.full(3, 0.5)
    )
    assert strategic.peak(replace(game, q=0.0, eps=0.0)) == game.support[1]


def test_other_spreads_break_the_assumption_and_the_shape():
    game = replace(GAUSSIAN, qualified=stats.norm(1, 2), q=0.0, eps=0.05)
    assert not strategic.assumptions(game)["p1/pI"]
    slopes = np.sign(np.diff(strategic.manipulation(game, game.grid())))
    assert (np.diff(slopes[slopes != 0]) != 0).sum() > 1  # it turns more than once
    with pytest.raises(ValueError, match="p1/pI falls somewhere"):
        strategic.peak(game)


def test_unsuccessful_people_are_halfway_in_all_three_kinds_of_game():
    score = np.array([0.2, 0.35, 0.7])
    for game in (GAUSSIAN, BETA, table()):
        ratio = game.failed.pdf(score) ** 2 / (game.unqualified.pdf(score) * game.qualified.pdf(score))
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)


def test_a_default_rate_that_falls_with_the_score_is_a_rising_likelihood_ratio():
    assert all(strategic.assumptions(table("White")).values())
    assert not any(strategic.assumptions(table("Black")).values())


# The leader


def test_the_naive_threshold_has_a_closed_form():
    for alpha in (0.2, 0.4, 0.6):
        game = strategic.gaussian_game(alpha, 0.5, eps=0.5)
        found = strategic.best_threshold(game, naive=True)
        assert found.theta == pytest.approx(0.5 + np.log((1 - alpha) / alpha), abs=1e-6)


@pytest.mark.parametrize(
    "game", [GAUSSIAN, BETA, table("Hispanic"), strategic.gaussian_game(0.3, 0.2, eps=0.2)]
)
@pytest.mark.parametrize("k", [(1, 1, 1), (1.3, 1, 1), (1, 3.25, 1), (1, 1, 3)])
def test_no_threshold_of_a_fine_grid_is_better(game, k):
    found = strategic.best_threshold(game, k=k)
    assert found.value >= strategic.objective(game, game.grid(50_001), k=k).max() - 1e-9
    assert found.value == pytest.approx(strategic.objective(game, found.theta, k=k))


def test_optima_that_run_away_are_reported_as_such():
    everybody = strategic.best_threshold(strategic.gaussian_game(0.25, 0.5, eps=0.5), k=(1.25, 1, 1))
    nobody = strategic.best_threshold(strategic.gaussian_game(0.3, 0.2, eps=0.2), k=(1, 1, 3))
    on_scores = strategic.best_threshold(BETA, k=(3, 1, 1))
    assert (everybody.theta, everybody.accepts) == (-np.inf, "everybody")
    assert (nobody.theta, nobody.accepts) == (np.inf, "nobody")
    assert (on_scores.theta, on_scores.accepts) == (0, "everybody")
    assert strategic.best_threshold(GAUSSIAN).accepts == "some"


def test_figures_of_the_papers_code():
    """Outputs that are stored in the authors' notebook: the gap, and two utilities of group b."""
    games = {name: strategic.gaussian_game(alpha, 0.5, eps=0.5) for name, alpha in (("a", 0.2), ("b", 0.25))}
    naive = {name: strategic.best_threshold(game, naive=True).theta for name, game in games.items()}
    assert strategic.disparity(games, naive) == pytest.approx(0.08699, abs=1e-5)
    assert strategic.best_threshold(games["b"]).value == pytest.approx(0.2506, abs=5e-5)
    assert strategic.utility(games["b"], -np.inf) == pytest.approx(0.2415, abs=5e-5)


def test_the_tipping_weight_is_where_everybody_is_accepted():
    for game in (BETA, strategic.gaussian_game(0.4, 0.25, eps=0.25)):
        weight = strategic.tipping(game)
        assert strategic.best_threshold(game, k=(weight, 1, 1)).accepts == "everybody"
        assert strategic.best_threshold(game, k=(weight - 0.002, 1, 1)).accepts == "some"
    assert strategic.tipping(BETA, most=1.2) == np.inf
    assert strategic.tipping(strategic.gaussian_game(0.9, 0.9, eps=0.5)) == 1
    for wrong in ({"term": 4}, {"most": 1.0}):
        with pytest.raises(ValueError, match="expected a term 1, 2 or 3"):
            strategic.tipping(BETA, **wrong)


# Groups


def test_disparities_by_hand():
    games = {"a": GAUSSIAN, "b": replace(GAUSSIAN, alpha=0.6)}
    thetas = {"a": 0.9, "b": 0.1}
    F = stats.norm.cdf
    assert strategic.disparity(games, thetas) == pytest.approx(F(-0.1) - F(-0.9))
    of_all = [alpha * F(t - 1) + (1 - alpha) * F(t) for alpha, t in ((0.4, 0.9), (0.6, 0.1))]
    assert strategic.disparity(games, thetas, among="all") == pytest.approx(of_all[0] - of_all[1])
    assert strategic.disparity(games, dict.fromkeys(games, -np.inf)) == 0


def test_equal_opportunity_is_the_best_of_equal_rejections():
    games = {name: table(name) for name in ("White", "Black")}
    sizes = {"White": 3.0, "Black": 1.0}
    thetas = strategic.equal_opportunity(games, sizes)

    def total(chosen):
        return sum(sizes[name] * strategic.utility(game, chosen[name]) for name, game in games.items())

    assert strategic.disparity(games, thetas) < 1e-9
    for rate in np.random.default_rng(0).random(200):
        other = {name: float(game.qualified.ppf(rate)) for name, game in games.items()}
        assert total(other) <= total(thetas) + 1e-4
    free = {name: strategic.best_threshold(game).theta for name, game in games.items()}
    assert total(thetas) < total(free)


# People


@pytest.mark.parametrize(("game", "theta"), [(GAUSSIAN, 0.5), (BETA, 0.2), (table("Asian"), 0.3)])
def test_simulated_people_agree_with_the_closed_forms(game, theta):
    counted = np.array([astuple(strategic.simulate(game, theta, n=20_000, seed=seed)) for seed in range(12)])
    wanted = astuple(strategic.expected(game, theta))
    level = 1 - 0.01 / counted.shape[1]
    for name, sample, value in zip(fields(strategic.Census), counted.T, wanted, strict=True):
        low, high = t_interval(sample, level)
        assert low <= value <= high, name.name


def test_the_simulation_tells_a_wrong_detection_rate_apart():
    wrong = replace(GAUSSIAN, eps=0.2)
    sample = [strategic.simulate(wrong, 0.5, n=20_000, seed=seed).manipulation for seed in range(12)]
    low, high = t_interval(sample, 0.999)
    assert not low <= strategic.expected(GAUSSIAN, 0.5).manipulation <= high


def test_the_account_of_every_simulation_adds_up():
    one = strategic.simulate(GAUSSIAN, 0.5, n=1_000)
    assert one.utility == pytest.approx(one.naive + one.phi_1 - one.phi_2 - one.phi_3)
    assert one == strategic.simulate(GAUSSIAN, 0.5, n=1_000)
    assert one != strategic.simulate(GAUSSIAN, 0.5, n=1_000, seed=1)


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"alpha": 1.0}, "only there is nothing to decide"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"q": 1.2}, "q is 1.2: expected a probability"),
        ({"eps": float("nan")}, "eps is nan"),
        ({"gain": 0.0}, "gain is 0.0"),
        ({"loss": float("inf")}, "loss is inf"),
        ({"cost": stats.norm(0, -1)}, "the distribution cost has no quartiles"),
        ({"failed": stats.norm(float("nan"), 1)}, "the distribution failed has no quartiles"),
    ],
)
def test_games_that_make_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(GAUSSIAN, **changes)


def test_scores_without_spread():
    with pytest.raises(ValueError, match=r"sd is 0: expected a positive spread"):
        strategic.gaussian_game(0.4, 0.3, eps=0.3, sd=0)
    with pytest.raises(ValueError, match="cost_sd is nan"):
        strategic.gaussian_game(0.4, 0.3, eps=0.3, cost_sd=float("nan"))
    with pytest.raises(ValueError, match="expected four positive numbers"):
        strategic.beta_game(0.4, 0.3, eps=0.3, unqualified=(0, 1), qualified=(2, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": np.array([0.0, np.nan, 1.0])}, "holds NaN or infinity"),
        ({"scores": np.array([0.0, 1.0, 1.0])}, "each larger than the one before"),
        ({"at_or_below": np.array([0.0, 0.6, 0.5])}, "must rise to 1"),
        ({"at_or_below": np.zeros(3)}, "is the group empty"),
        ({"at_or_below": np.array([0.0, 1.0, 1.0])}, "have one score"),
        ({"unqualified": np.array([90.0, 50.0, 10.0])}, "divide percentages by 100"),
        ({"unqualified": np.zeros(3)}, "qualified or unqualified people only"),
        ({"unqualified": np.ones(3)}, "qualified or unqualified people only"),
    ],
)
def test_tables_that_make_no_sense(changes, message):
    fine = {
        "scores": np.array([0.0, 0.5, 1.0]),
        "at_or_below": np.array([0.1, 0.5, 1.0]),
        "unqualified": np.array([0.9, 0.5, 0.1]),
    }
    assert table(**fine).alpha == pytest.approx(0.5 * 0.5 + 0.5 * 0.9)
    with pytest.raises(ValueError, match=message):
        table(**fine | changes)


def test_thresholds_outside_the_support_accept_everybody_or_nobody():
    assert strategic.expected(BETA, -3.0) == strategic.expected(BETA, 0.0)
    assert strategic.expected(BETA, 7.0).utility == 0
    with pytest.raises(ValueError, match="a threshold is NaN"):
        strategic.utility(BETA, float("nan"))


@pytest.mark.parametrize("k", [(1, 1), (1, -1, 1), (1, float("nan"), 1), (1, 1, float("inf"))])
def test_weights_that_make_no_sense(k):
    with pytest.raises(ValueError, match="expected three weights"):
        strategic.best_threshold(GAUSSIAN, k=k)


def test_groups_that_are_missing():
    games = {"a": GAUSSIAN, "b": BETA}
    with pytest.raises(ValueError, match="1 group was given"):
        strategic.disparity({"a": GAUSSIAN}, {"a": 0.0})
    with pytest.raises(ValueError, match="no threshold for b"):
        strategic.disparity(games, {"a": 0.0})
    with pytest.raises(ValueError, match="among is 'everyone'"):
        strategic.disparity(games, {"a": 0.0, "b": 0.0}, among="everyone")
    with pytest.raises(ValueError, match="a threshold is NaN"):
        strategic.disparity(games, {"a": 0.0, "b": float("nan")})
    with pytest.raises(ValueError, match="the size of b is missing"):
        strategic.equal_opportunity(games, {"a": 1.0})
    with pytest.raises(ValueError, match="the size of a, b is missing or not positive"):
        strategic.equal_opportunity(games, {"a": 0.0, "b": float("nan")})


def test_too_few_people():
    with pytest.raises(ValueError, match="n is 0"):
        strategic.simulate(GAUSSIAN, 0.5, n=0)
    with pytest.raises(ValueError, match="none of the 1 people is unqualified"):
        strategic.simulate(replace(GAUSSIAN, alpha=0.999), 0.5, n=1, seed=0)
