"""Imitative strategic behaviour: a lender, and people who respond (Xie et al., arXiv 2405.01797).

A leader posts a threshold. Each unqualified person either *manipulates* (copies the features of a qualified
person, and may be caught) or tries to *improve* (and may fail). Neither can foresee the score that comes of
it. The functions read like the equations of the chapter: F_0, F_I and F_1 are the shares of unqualified, of
unsuccessful and of qualified people below a threshold, P_M is the share of the unqualified who manipulate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats
from scipy.optimize import brentq, minimize_scalar

__all__ = [
    "Census", "Game", "Optimum", "assumptions", "best_threshold", "beta_game", "disparity",
    "equal_opportunity", "expected", "gaussian_game", "manipulation", "naive_utility", "objective", "peak",
    "simulate", "table_game", "terms", "tipping", "utility",
]  # fmt: skip

Thresholds = float | Float[np.ndarray, "*thresholds"]
TAIL, TIE = 1e-12, 1e-12


@runtime_checkable
class Scores(Protocol):
    """A distribution of scores: any continuous one of `scipy.stats`."""

    def cdf(self, x: Any) -> Any:
        """Share below x."""

    def pdf(self, x: Any) -> Any:
        """Density at x."""

    def ppf(self, q: Any) -> Any:
        """Score below which the share q lies."""

    def rvs(self, *, size: Any, random_state: Any) -> Any:
        """Draw scores."""

    def support(self) -> Any:
        """Lowest and highest score."""


@dataclass(frozen=True)
class Game:
    """Hold one group of people, and what the leader gains and loses by accepting them.

    Parameters
    ----------
    unqualified, failed, qualified : Scores
        Scores of unqualified people (P_0), of those who tried to improve in vain (P_I) and of qualified
        people (P_1): continuous distributions of `scipy.stats`.
    alpha : float
        Share of people who are qualified before anybody acts, between 0 and 1 (both excluded).
    q : float
        Probability that an attempt to improve succeeds, 0 to 1.
    eps : float
        Probability that manipulation is detected, 0 to 1. Who is detected is rejected.
    cost : Scores
        Distribution F_C of the cost of manipulating minus the cost of improving.
    gain, loss : float
        What the leader gains by accepting a qualified person, and loses by an unqualified one, positive.

    Raises
    ------
    ValueError
        If a probability, a gain or a distribution is not usable.

    Examples
    --------
    >>> game = gaussian_game(0.4, 0.25, eps=0.25)
    >>> game.support
    (-inf, inf)
    """

    unqualified: Scores
    failed: Scores
    qualified: Scores
    alpha: float
    q: float
    eps: float
    cost: Scores
    gain: float = 1.0
    loss: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"alpha is {self.alpha}: expected a share between 0 and 1 (both excluded); in a group with "
                "qualified or unqualified people only there is nothing to decide"
            )
        for name in ("q", "eps"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a probability, 0 to 1")
        for name in ("gain", "loss"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a positive number")
        for name in ("unqualified", "failed", "qualified", "cost"):
            if not np.isfinite(getattr(self, name).ppf([0.25, 0.75])).all():
                raise ValueError(f"the distribution {name} has no quartiles: is a parameter NaN or negative?")

    @property
    def support(self) -> tuple[float, float]:
        """Lowest and highest score that anybody can have."""
        ends = [each.support() for each in (self.unqualified, self.failed, self.qualified)]
        return float(min(low for low, _ in ends)), float(max(high for _, high in ends))

    def below(self, theta: Thresholds) -> tuple[Any, Any, Any]:
        """Return F_0, F_I and F_1, the shares below a threshold; infinite thresholds are fine, NaN is not."""
        if np.isnan(theta).any():
            raise ValueError("a threshold is NaN: give a number; -inf accepts everybody, inf nobody")
        return self.unqualified.cdf(theta), self.failed.cdf(theta), self.qualified.cdf(theta)

    def grid(self, n: int = 2001) -> Float[np.ndarray, "n"]:
        """Return thresholds that cover all but one person in a million million."""
        scores = (self.unqualified, self.failed, self.qualified)
        return np.linspace(min(s.ppf(TAIL) for s in scores), max(s.ppf(1 - TAIL) for s in scores), n)


def gaussian_game(
    alpha: float,
    q: float,
    *,
    eps: float,
    means: tuple[float, float, float] = (0.0, 0.5, 1.0),
    sd: float = 1.0,
    cost_sd: float = 0.25,
) -> Game:
    """Make the game with normal scores and costs.

    Parameters
    ----------
    alpha, q, eps : float
        As in `Game`.
    means : tuple of float
        Means of the scores of unqualified, unsuccessful and qualified people.
    sd, cost_sd : float
        Standard deviations of scores and of the cost difference, positive.

    Returns
    -------
    Game
        With the settings of the paper's code unless others are given.

    Raises
    ------
    ValueError
        If a standard deviation is not positive: scores without spread are no distribution.

    Notes
    -----
    Settings of the code for arXiv 2405.01797 (Gaussian experiments).

    Examples
    --------
    >>> float(gaussian_game(0.4, 0.25, eps=0.25).qualified.mean())
    1.0

    Taught in: strategic-imitation
    """
    for name, value in (("sd", sd), ("cost_sd", cost_sd)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name} is {value}: expected a positive spread; equal scores cannot be ranked")
    P_0, P_I, P_1 = (stats.norm(mean, sd) for mean in means)
    return Game(P_0, P_I, P_1, alpha, q, eps, stats.norm(0, cost_sd))


def beta_game(
    alpha: float,
    q: float,
    *,
    eps: float,
    unqualified: tuple[float, float],
    qualified: tuple[float, float],
    cost_sd: float = 0.25,
) -> Game:
    """Make the game with Beta scores between 0 and 1.

    Unsuccessful people have the means of the two parameters, as in the paper's code.

    Parameters
    ----------
    alpha, q, eps : float
        As in `Game`.
    unqualified, qualified : tuple of float
        The two positive parameters of each Beta distribution.
    cost_sd : float
        Standard deviation of the cost difference, positive.

    Returns
    -------
    Game
        The game; its density of failed scores is the geometric mean of the two others, up to a constant.

    Raises
    ------
    ValueError
        If a parameter is not positive.

    Notes
    -----
    Settings of the code for arXiv 2405.01797 (credit scores).

    Examples
    --------
    >>> game = beta_game(0.76, 0.3, eps=0.5, unqualified=(1.2, 12.3), qualified=(2.6, 1.2))
    >>> round(float(game.failed.mean()), 3)
    0.22

    Taught in: strategic-imitation
    """
    parameters = np.array([unqualified, np.add(unqualified, qualified) / 2, qualified], dtype=float)
    if not (np.isfinite(parameters) & (parameters > 0)).all():
        raise ValueError(f"Beta parameters {unqualified} and {qualified}: expected four positive numbers")
    P_0, P_I, P_1 = (stats.beta(a, b) for a, b in parameters)
    return Game(P_0, P_I, P_1, alpha, q, eps, stats.norm(0, cost_sd))


def table_game(
    scores: Float[np.ndarray, "rows"],
    q: float,
    *,
    eps: float,
    at_or_below: Float[np.ndarray, "rows"],
    unqualified: Float[np.ndarray, "rows"],
    cost_sd: float = 0.25,
) -> Game:
    """Make the game from a table of scores, without fitting anything.

    Between two scores of the table people are spread evenly. Bayes' rule gives the scores of unqualified and
    of qualified people; unsuccessful people lie between them, at the geometric mean of the two densities.

    Parameters
    ----------
    scores : Float[np.ndarray, "rows"]
        Scores, rising.
    q, eps : float
        As in `Game`.
    at_or_below : Float[np.ndarray, "rows"]
        Share of the group at or below each score: rising, the last one is 1.
    unqualified : Float[np.ndarray, "rows"]
        Share of the unqualified among people with each score, 0 to 1.
    cost_sd : float
        Standard deviation of the cost difference, positive.

    Returns
    -------
    Game
        With histograms as scores, and alpha as the table has it.

    Raises
    ------
    ValueError
        If the group is empty, all have one score, or the columns are not what they should be.

    Examples
    --------
    >>> game = table_game(np.array([0.0, 0.5, 1.0]), 0.3, eps=0.5, at_or_below=np.array([0.0, 0.5, 1.0]),
    ...     unqualified=np.array([0.9, 0.8, 0.4]))
    >>> round(game.alpha, 3)
    0.4

    Taught in: strategic-imitation
    """
    mass = np.diff(at_or_below)
    mass[:1] += at_or_below[:1]  # who has the lowest score joins the first bin
    _check_table(scores, mass, unqualified)
    bad, good = mass * unqualified[1:], mass * (1 - unqualified[1:])
    if not min(bad.sum(), good.sum()) > 0:
        raise ValueError("the table has qualified or unqualified people only: there is nothing to decide")
    alpha = float(good.sum() / mass.sum())
    P_0, P_I, P_1 = (
        stats.rv_histogram((each, scores), density=False) for each in (bad, np.sqrt(bad * good), good)
    )
    return Game(P_0, P_I, P_1, alpha, q, eps, stats.norm(0, cost_sd))


def _check_table(scores: np.ndarray, mass: np.ndarray, unqualified: np.ndarray) -> None:
    """Raise if the columns of a table of scores are not usable."""
    columns = np.concatenate([scores, mass, unqualified])
    if not np.isfinite(columns).all():
        raise ValueError("the table of scores holds NaN or infinity: drop those rows, or find their values")
    if len(scores) < 3 or (np.diff(scores) <= 0).any():
        raise ValueError(f"{len(scores)} scores: expected three or more, each larger than the one before")
    if (mass < 0).any() or not math.isclose(mass.sum(), 1, abs_tol=1e-6):
        raise ValueError(f"at_or_below must rise to 1, not to {mass.sum():g}: is the group empty?")
    if (mass > 0).sum() < 2:
        raise ValueError("all people of the group have one score: no threshold tells them apart")
    if unqualified.min() < 0 or unqualified.max() > 1:
        raise ValueError("unqualified holds shares outside 0 to 1: divide percentages by 100")


def manipulation(game: Game, theta: Thresholds) -> Any:
    """Compute P_M, the share of the unqualified who manipulate rather than try to improve.

    Parameters
    ----------
    game : Game
        The group.
    theta : Thresholds
        One threshold or several. Outside the support it accepts everybody, or nobody.

    Returns
    -------
    float or array
        P_M for each threshold, 0 to 1: F_C(-eps) where all are accepted, F_C(0) where nobody is.

    Raises
    ------
    ValueError
        If a threshold is NaN.

    Notes
    -----
    arXiv 2405.01797, best response of the individual.

    Examples
    --------
    >>> round(float(manipulation(gaussian_game(0.4, 0.25, eps=0.25), 1.561)), 3)
    0.556

    Taught in: strategic-imitation
    """
    _, F_I, F_1 = game.below(theta)
    return game.cost.cdf((1 - game.q) * (F_I - F_1) - game.eps * (1 - F_1))


def assumptions(game: Game, *, n: int = 2001) -> dict[str, bool]:
    """Say which likelihood ratios rise with the score, as the theory assumes of all three.

    Parameters
    ----------
    game : Game
        The group.
    n : int
        How many scores are looked at, 3 or more.

    Returns
    -------
    dict of str to bool
        For the ratios ``"p1/p0"``, ``"p1/pI"`` and ``"pI/p0"``, whether they never fall where both densities
        are positive.

    Examples
    --------
    >>> assumptions(gaussian_game(0.4, 0.25, eps=0.25))
    {'p1/p0': True, 'p1/pI': True, 'pI/p0': True}

    Taught in: strategic-imitation
    """
    inner = game.grid(n)[1:-1]
    density = {
        "p0": game.unqualified.pdf(inner),
        "pI": game.failed.pdf(inner),
        "p1": game.qualified.pdf(inner),
    }
    return {
        f"{above}/{under}": bool(_rises(density[above], density[under]))
        for above, under in (("p1", "p0"), ("p1", "pI"), ("pI", "p0"))
    }


def _rises(above: np.ndarray, under: np.ndarray) -> bool:
    """Say whether a ratio of densities never falls, rounding apart, where both are positive."""
    both = (above > 0) & (under > 0)
    log_ratio = np.log(above[both]) - np.log(under[both])
    return bool((np.diff(log_ratio) >= -1e-9 * np.abs(log_ratio[1:]).clip(min=1)).all())


def peak(game: Game) -> float:
    """Find the threshold at which most people manipulate, from the likelihood ratio alone.

    Parameters
    ----------
    game : Game
        The group; p1/pI must rise with the score.

    Returns
    -------
    float
        Where p1/pI = (1 - q) / (1 - q - eps). The upper end of the support (which may be infinite) if
        q + eps >= 1 or the ratio never gets there: then P_M rises all the way.

    Raises
    ------
    ValueError
        If p1/pI does not rise: then the curve may have several peaks, and this is not their place.

    Notes
    -----
    Derived for this book from the response in arXiv 2405.01797: P_M is monotone in its argument, whose
    derivative is (1 - q) pI - (1 - q - eps) p1.

    Examples
    --------
    >>> round(peak(gaussian_game(0.4, 0.25, eps=0.25)), 3)
    1.561
    >>> peak(gaussian_game(0.4, 0.5, eps=0.5))
    inf

    Taught in: strategic-imitation
    """
    if not assumptions(game)["p1/pI"]:
        raise ValueError(
            "the likelihood ratio p1/pI falls somewhere, so P_M may have several peaks: look at "
            "manipulation(game, game.grid()) instead"
        )

    def slope(theta: Thresholds) -> Any:
        rising = (1 - game.q) * game.failed.pdf(theta)
        return rising - (1 - game.q - game.eps) * game.qualified.pdf(theta)

    grid = game.grid()
    falls = np.flatnonzero(slope(grid) < 0)
    if game.q + game.eps >= 1 or not len(falls):
        return game.support[1]
    first = int(falls[0])
    return float(brentq(slope, grid[first - 1], grid[first])) if first else float(grid[0])


def naive_utility(game: Game, theta: Thresholds) -> Any:
    """Compute what a leader expects who thinks that nobody responds.

    Parameters
    ----------
    game : Game
        The group.
    theta : Thresholds
        One threshold or several.

    Returns
    -------
    float or array
        Utility a person: gain alpha (1 - F_1) - loss (1 - alpha) (1 - F_0).

    Notes
    -----
    arXiv 2405.01797, the non-strategic decision-maker.

    Examples
    --------
    >>> round(float(naive_utility(gaussian_game(0.4, 0.25, eps=0.25), 0.9055)), 3)
    0.105

    Taught in: strategic-imitation
    """
    F_0, _, F_1 = game.below(theta)
    return game.gain * game.alpha * (1 - F_1) - game.loss * (1 - game.alpha) * (1 - F_0)


def utility(game: Game, theta: Thresholds) -> Any:
    """Compute what the leader gets once people have responded.

    Parameters
    ----------
    game : Game
        The group.
    theta : Thresholds
        One threshold or several.

    Returns
    -------
    float or array
        Utility a person.

    Notes
    -----
    arXiv 2405.01797, the strategic decision-maker.

    Examples
    --------
    >>> round(float(utility(gaussian_game(0.25, 0.5, eps=0.5), -0.66)), 3)
    0.251

    Taught in: strategic-imitation
    """
    _, F_I, F_1 = game.below(theta)
    P_M, rest = manipulation(game, theta), 1 - game.alpha
    good = (game.alpha + rest * (1 - P_M) * game.q) * (1 - F_1)
    bad = rest * ((1 - game.eps) * P_M * (1 - F_1) + (1 - P_M) * (1 - game.q) * (1 - F_I))
    return game.gain * good - game.loss * bad


def terms(game: Game, theta: Thresholds) -> tuple[Any, Any, Any]:
    """Split the difference of the two utilities by what people did.

    Parameters
    ----------
    game : Game
        The group.
    theta : Thresholds
        One threshold or several.

    Returns
    -------
    tuple
        phi_1, the benefit of those who improved; phi_2, the loss by those who tried in vain; phi_3, the loss
        by those who manipulated. utility = naive_utility + phi_1 - phi_2 - phi_3.

    Notes
    -----
    arXiv 2405.01797, the decomposition of the leader's objective.

    Examples
    --------
    >>> game = gaussian_game(0.4, 0.25, eps=0.25)
    >>> phi_1, phi_2, phi_3 = terms(game, 0.5)
    >>> bool(abs(utility(game, 0.5) - naive_utility(game, 0.5) - phi_1 + phi_2 + phi_3) < 1e-12)
    True

    Taught in: strategic-imitation
    """
    F_0, F_I, F_1 = game.below(theta)
    P_M, rest = manipulation(game, theta), 1 - game.alpha
    phi_1 = rest * (1 - P_M) * game.q * (game.gain * (1 - F_1) + game.loss * (1 - F_0))
    phi_2 = game.loss * rest * (1 - P_M) * (1 - game.q) * (F_0 - F_I)
    phi_3 = game.loss * rest * P_M * ((1 - game.eps) * (1 - F_1) - (1 - F_0))
    return phi_1, phi_2, phi_3


def objective(game: Game, theta: Thresholds, *, k: Sequence[float] = (1.0, 1.0, 1.0)) -> Any:
    """Compute what a leader with adjusted preferences maximises.

    Parameters
    ----------
    game : Game
        The group.
    theta : Thresholds
        One threshold or several.
    k : sequence of float
        Weights of phi_1, phi_2 and phi_3, not negative. With (1, 1, 1) this is `utility`, with (0, 0, 0)
        `naive_utility`.

    Returns
    -------
    float or array
        naive_utility + k_1 phi_1 - k_2 phi_2 - k_3 phi_3.

    Raises
    ------
    ValueError
        If there are not three weights, or one is negative or not finite.

    Notes
    -----
    arXiv 2405.01797, adjusted preferences.

    Examples
    --------
    >>> game = gaussian_game(0.4, 0.25, eps=0.25)
    >>> bool(objective(game, 0.5, k=(0, 0, 0)) == naive_utility(game, 0.5))
    True

    Taught in: strategic-imitation
    """
    if len(k) != 3 or not all(0 <= weight < math.inf for weight in k):
        raise ValueError(f"k is {tuple(k)}: expected three weights that are not negative, (k_1, k_2, k_3)")
    phi_1, phi_2, phi_3 = terms(game, theta)
    return naive_utility(game, theta) + k[0] * phi_1 - k[1] * phi_2 - k[2] * phi_3


@dataclass(frozen=True)
class Optimum:
    """Hold the threshold that a leader posts.

    Made by `best_threshold`.

    Parameters
    ----------
    theta : float
        The threshold; an end of the support, which may be infinite, where the optimum runs away.
    value : float
        What the leader maximised, at that threshold.
    accepts : str
        ``"everybody"``, ``"nobody"`` or ``"some"``.

    Examples
    --------
    >>> best_threshold(gaussian_game(0.25, 0.5, eps=0.5), k=(1.25, 1, 1)).accepts
    'everybody'
    """

    theta: float
    value: float
    accepts: str


def best_threshold(game: Game, *, k: Sequence[float] = (1.0, 1.0, 1.0), naive: bool = False) -> Optimum:
    """Find the leader's best threshold by a global search.

    The objective may have several maxima, and it may be best to accept everybody or nobody. So every local
    maximum on a grid is refined, and the best one is compared with the two ends. At a tie an end wins.

    Parameters
    ----------
    game : Game
        The group.
    k : sequence of float
        Weights of the three terms, as in `objective`.
    naive : bool
        True for a leader who thinks that nobody responds; `k` then plays no part.

    Returns
    -------
    Optimum
        The threshold, its value, and whom it accepts.

    Raises
    ------
    ValueError
        If a weight is negative or not finite.

    Notes
    -----
    The code for arXiv 2405.01797 uses a local search and clips thresholds that run away.

    Examples
    --------
    >>> round(best_threshold(gaussian_game(0.4, 0.25, eps=0.25), naive=True).theta, 3)
    0.905
    >>> round(best_threshold(gaussian_game(0.4, 0.25, eps=0.25)).theta, 2)
    -0.43

    Taught in: strategic-imitation
    """

    def value(theta: Thresholds) -> Any:
        return naive_utility(game, theta) if naive else objective(game, theta, k=k)

    (low, high), (theta, best) = game.support, _inner_best(value, game.grid())
    ends = {"everybody": (low, float(value(low))), "nobody": (high, float(value(high)))}
    name, (end, at_end) = max(ends.items(), key=lambda item: item[1][1])
    if best - at_end <= TIE * (game.gain + game.loss):
        return Optimum(end, at_end, name)
    return Optimum(theta, best, "some")


def tipping(game: Game, *, term: int = 1, most: float = 10.0) -> float:
    """Find the smallest weight of a term at which the leader's best threshold accepts everybody.

    Parameters
    ----------
    game : Game
        The group.
    term : {1, 2, 3}
        Which weight is raised; the others stay 1.
    most : float
        The largest weight that is tried, above 1.

    Returns
    -------
    float
        The weight, to three decimals; 1 if everybody is accepted anyway, infinite if not even `most` does it.

    Raises
    ------
    ValueError
        If there is no such term, or `most` is not above 1.

    Notes
    -----
    Beyond arXiv 2405.01797. Raising k_1 adds an amount that is largest where everybody is accepted, so for
    the first term there is one tipping point; for the others this finds one of them.

    Examples
    --------
    >>> round(tipping(gaussian_game(0.25, 0.5, eps=0.5)), 2)
    1.13

    Taught in: strategic-imitation
    """
    if term not in (1, 2, 3) or not 1 < most < math.inf:
        raise ValueError(f"term is {term} and most {most}: expected a term 1, 2 or 3, and most above 1")

    def tipped(weight: float) -> bool:
        k = [weight if each == term else 1.0 for each in (1, 2, 3)]
        return best_threshold(game, k=k).accepts == "everybody"

    if tipped(1.0) or not tipped(most):
        return 1.0 if tipped(1.0) else math.inf
    low, high = 1.0, most
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if tipped(middle) else (middle, high)
    return high


def _inner_best(value: Callable[[Any], Any], grid: Float[np.ndarray, "n"]) -> tuple[float, float]:
    """Return the best threshold inside a grid, and its value: every local maximum is refined."""
    values = value(grid)
    inner = values[1:-1]
    tops = 1 + np.flatnonzero((inner >= values[:-2]) & (inner > values[2:]))
    tops = tops[np.argsort(values[tops])[-5:]]  # on a histogram there are ripples; the best five are enough
    found = [(float(grid[i]), float(values[i])) for i in (0, len(grid) - 1)]
    for i in tops:
        near = minimize_scalar(
            lambda theta: -float(value(theta)),
            bounds=(grid[i - 1], grid[i + 1]),
            method="bounded",
            options={"xatol": 1e-10},
        )
        found += [(float(near.x), -float(near.fun)), (float(grid[i]), float(values[i]))]
    return max(found, key=lambda pair: pair[1])


def disparity(games: Mapping[str, Game], thetas: Mapping[str, float], *, among: str = "qualified") -> float:
    """Compute the largest difference between groups in the share that is rejected.

    Parameters
    ----------
    games : mapping of str to Game
        Two groups or more, by name.
    thetas : mapping of str to float
        Each group's threshold.
    among : {"qualified", "all"}
        Among qualified people (equal opportunity: |F_1a(theta_a) - F_1b(theta_b)|) or among all (demographic
        parity). Both look at scores before anybody responds, as the paper does.

    Returns
    -------
    float
        0 to 1; 0 means that the groups do not differ in this respect. It does not mean that the decision is
        fair: 0 is also what accepting everybody gives.

    Raises
    ------
    ValueError
        If there are fewer than two groups, a threshold is missing or NaN, or `among` is unknown.

    Notes
    -----
    arXiv 2405.01797, unfairness; for two groups.

    Examples
    --------
    >>> games = {"a": gaussian_game(0.4, 0.25, eps=0.25), "b": gaussian_game(0.6, 0.25, eps=0.25)}
    >>> round(disparity(games, {"a": 0.906, "b": 0.094}), 2)
    0.28

    Taught in: strategic-imitation
    """
    if len(games) < 2:
        raise ValueError(f"{len(games)} group was given: a disparity needs two or more")
    missing = sorted(set(games) - set(thetas))
    if missing:
        raise ValueError(f"no threshold for {', '.join(missing)}: give one for each group of the game")
    if among not in ("qualified", "all"):
        raise ValueError(f"among is {among!r}: expected 'qualified' or 'all'")
    shares = []
    for name, game in games.items():
        F_0, _, F_1 = game.below(thetas[name])
        shares.append(F_1 if among == "qualified" else game.alpha * F_1 + (1 - game.alpha) * F_0)
    return float(max(shares) - min(shares))


def equal_opportunity(
    games: Mapping[str, Game], shares: Mapping[str, float], *, n: int = 2001
) -> dict[str, float]:
    """Find the thresholds of most utility that reject the same share of qualified people in every group.

    The direct way to the same goal: no preference is adjusted, the disparity among qualified people is zero
    by construction.

    Parameters
    ----------
    games : mapping of str to Game
        The groups, by name.
    shares : mapping of str to float
        How large each group is, positive; only ratios matter.
    n : int
        How many rejection rates are tried.

    Returns
    -------
    dict of str to float
        Each group's threshold.

    Raises
    ------
    ValueError
        If the size of a group is missing or not positive.

    Notes
    -----
    The idea is Hardt, Price & Srebro's (2016); the utility is that of arXiv 2405.01797, after the response.

    Examples
    --------
    >>> games = {"a": gaussian_game(0.4, 0.25, eps=0.25), "b": gaussian_game(0.6, 0.25, eps=0.25)}
    >>> thetas = equal_opportunity(games, {"a": 1, "b": 1})
    >>> disparity(games, thetas) < 1e-9
    True

    Taught in: strategic-imitation
    """
    empty = [name for name in games if not 0 < shares.get(name, 0) < math.inf]
    if empty:
        raise ValueError(
            f"the size of {', '.join(empty)} is missing or not positive: give each group's share"
        )
    rates = np.linspace(0, 1, n)
    thetas = {name: np.asarray(game.qualified.ppf(rates), dtype=float) for name, game in games.items()}
    total = sum(shares[name] * utility(game, thetas[name]) for name, game in games.items())
    best = int(np.argmax(total))
    return {name: float(values[best]) for name, values in thetas.items()}


@dataclass(frozen=True)
class Census:
    """Count what came of a threshold: expected, or among simulated people.

    Parameters
    ----------
    manipulation : float
        P_M, the share of the unqualified who manipulated.
    improved, failed : float
        Shares of everybody who improved, and who tried in vain.
    good, bad : float
        Shares of everybody who were accepted and are qualified in the end, or are not.
    utility, naive : float
        Utility a person: with the response, and had nobody responded.
    phi_1, phi_2, phi_3 : float
        The three terms between them.

    Examples
    --------
    >>> found = expected(gaussian_game(0.4, 0.25, eps=0.25), 0.5)
    >>> round(found.good - found.bad - found.utility, 12)
    0.0
    """

    manipulation: float
    improved: float
    failed: float
    good: float
    bad: float
    utility: float
    naive: float
    phi_1: float
    phi_2: float
    phi_3: float


def expected(game: Game, theta: float) -> Census:
    """Compute what comes of a threshold, in closed form.

    Parameters
    ----------
    game : Game
        The group.
    theta : float
        The threshold.

    Returns
    -------
    Census
        Every quantity that `simulate` counts.

    Examples
    --------
    >>> round(expected(gaussian_game(0.4, 0.25, eps=0.25), 0.5).manipulation, 3)
    0.453

    Taught in: strategic-imitation
    """
    _, F_I, F_1 = game.below(theta)
    P_M, rest = float(manipulation(game, theta)), 1 - game.alpha
    improved, failed = rest * (1 - P_M) * game.q, rest * (1 - P_M) * (1 - game.q)
    good = (game.alpha + improved) * (1 - F_1)
    bad = rest * P_M * (1 - game.eps) * (1 - F_1) + failed * (1 - F_I)
    money = (utility(game, theta), naive_utility(game, theta), *terms(game, theta))
    return Census(P_M, improved, failed, float(good), float(bad), *map(float, money))


def simulate(game: Game, theta: float, *, n: int = 100_000, seed: int = 0) -> Census:
    """Let people respond to a threshold, one by one, and count.

    Nothing here uses the closed forms. Each person knows how often qualified and unsuccessful people were
    accepted among as many others, has costs of her own, and chooses what promises more. Then chance decides:
    whom she copies, whether she is caught, whether she succeeds. The three terms are sums over the people
    who improved, failed and manipulated of what each changed in the leader's account.

    Parameters
    ----------
    game : Game
        The group.
    theta : float
        The threshold.
    n : int
        How many people, positive.
    seed : int
        Seed of all draws.

    Returns
    -------
    Census
        The counts, as shares and as utility a person.

    Raises
    ------
    ValueError
        If there are no people, or by chance no unqualified ones.

    Examples
    --------
    >>> game = gaussian_game(0.4, 0.25, eps=0.25)
    >>> abs(simulate(game, 0.5, seed=1).manipulation - expected(game, 0.5).manipulation) < 0.01
    True

    Taught in: strategic-imitation
    """
    if n < 1:
        raise ValueError(f"n is {n}: expected at least one person")
    dice = np.random.default_rng(seed)
    qualified_N = dice.random(n) < game.alpha
    if qualified_N.all():
        raise ValueError(f"none of the {n} people is unqualified: give more people, or a smaller alpha")
    copies_N, failed_N, own_N = (
        scores.rvs(size=n, random_state=dice) >= theta
        for scores in (game.qualified, game.failed, game.unqualified)
    )
    manipulates_N = ~qualified_N & _prefers(game, theta, n, dice)
    improves_N = ~qualified_N & ~manipulates_N & (dice.random(n) < game.q)
    fails_N = ~qualified_N & ~manipulates_N & ~improves_N
    passes_N = copies_N & (dice.random(n) >= game.eps)
    good_N = copies_N & (qualified_N | improves_N)
    bad_N = passes_N & manipulates_N | failed_N & fails_N
    account = (
        good_N * game.gain - bad_N * game.loss,
        (copies_N & qualified_N) * game.gain - (own_N & ~qualified_N) * game.loss,
        improves_N * (copies_N * game.gain + own_N * game.loss),
        fails_N * (failed_N * game.loss - own_N * game.loss),
        manipulates_N * (passes_N * game.loss - own_N * game.loss),
    )
    shares = (
        manipulates_N.sum() / (~qualified_N).sum(),
        *(x.mean() for x in (improves_N, fails_N, good_N, bad_N)),
    )
    return Census(*map(float, shares), *(float(each.mean()) for each in account))


def _prefers(game: Game, theta: float, n: int, dice: np.random.Generator) -> Bool[np.ndarray, "n"]:
    """Say who of n people would rather manipulate, from what they saw of others and their own costs."""
    seen = [scores.rvs(size=n, random_state=dice) >= theta for scores in (game.qualified, game.failed)]
    chance_copy, chance_failed = (float(each.mean()) for each in seen)
    improving_N = dice.random(n)  # the cost of improving: only the difference of the two costs matters
    manipulating_N = improving_N + game.cost.rvs(size=n, random_state=dice)
    by_manipulating_N = (1 - game.eps) * chance_copy - manipulating_N
    by_improving_N = game.q * chance_copy + (1 - game.q) * chance_failed - improving_N
    return by_manipulating_N > by_improving_N
