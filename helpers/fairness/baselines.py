"""What a method for fair regression has to beat: barycentres, decorrelation, reductions.

The last two are fairlearn's, brought to regression. Every baseline says whether it asks for a person's group
when it predicts.

Shapes: N people, F features.

Examples
--------
>>> from helpers.fairness import baselines
>>> made = baselines.barycentre([0.0, 1.0, 10.0, 11.0], ["a", "a", "b", "b"])
>>> made.move([0.5], ["a"]).tolist(), made.move([0.5], ["a"], share=0.5).tolist()
([5.5], [3.0])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from helpers.fairness.metrics import two_groups

__all__ = [
    "Barycentre", "Randomised", "barycentre", "bounded_loss", "decorrelate", "parity_reduction", "reached",
]  # fmt: skip


@dataclass(frozen=True)
class Barycentre:
    """Move every group's scores to the groups' common barycentre. Made by `barycentre`.

    Attributes
    ----------
    scores : dict
        The scores seen of each group, sorted.
    shares : dict
        The share of people in each group.

    Taught in: fair-regression
    """

    scores: Mapping[Any, np.ndarray]
    shares: Mapping[Any, float]

    def move(self, scores_N: Any, groups_N: Any, *, share: float = 1.0, seed: int = 0) -> np.ndarray:
        """Give each person the score of the same rank at the barycentre.

        Parameters
        ----------
        scores_N : array-like of float
            The scores of new people.
        groups_N : array-like
            Their groups: true ones or predicted ones. A group that was seen may be absent here.
        share : float
            How far to move, 0 (stay) to 1 (all the way).
        seed : int
            Seed of the ranks of equal scores, which are drawn.

        Returns
        -------
        ndarray
            New scores.

        Raises
        ------
        ValueError
            If a group was not seen before, or `share` is outside [0, 1].
        """
        scores_N, groups_N = np.asarray(scores_N, dtype=float), np.asarray(groups_N)
        new = sorted(set(groups_N.tolist()) - set(self.scores))
        if new:
            raise ValueError(f"the groups {new} were not seen; known: {sorted(self.scores)}")
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share:g}: give 0 (stay) to 1 (all the way)")
        dice, moved_N = np.random.default_rng(seed), np.empty(len(scores_N))
        for name in self.scores:
            mask_N = groups_N == name
            moved_N[mask_N] = self._quantile(self._rank(name, scores_N[mask_N], dice))
        return (1 - share) * scores_N + share * moved_N

    def _rank(self, name: Any, scores_N: np.ndarray, dice: np.random.Generator) -> np.ndarray:
        """Return F_s(score) in [0, 1], drawn between the two sides of a tie."""
        seen = self.scores[name]
        low_N, high_N = (np.searchsorted(seen, scores_N, side=side) for side in ("left", "right"))
        return np.clip((low_N + dice.random(len(scores_N)) * (high_N - low_N)) / len(seen), 0, 1)

    def _quantile(self, rank_N: np.ndarray) -> np.ndarray:
        """Return the quantile function of the barycentre: the mean of the groups' quantile functions."""
        parts = [self.shares[name] * np.quantile(seen, rank_N) for name, seen in self.scores.items()]
        return np.sum(parts, axis=0)


def barycentre(scores_N: Any, groups_N: Any) -> Barycentre:
    """Learn the Wasserstein barycentre of two groups' scores.

    The optimal fair regression if the group is known at prediction: g(x, s) = sum_t p_t Q_t(F_s(f(x))), with
    F the distribution and Q the quantile function of the scores of a group.

    Parameters
    ----------
    scores_N : array-like of float
        Scores of people with a known group; no outcomes are needed.
    groups_N : array-like
        Their groups, two different ones.

    Returns
    -------
    Barycentre
        With a method ``move``. It needs each new person's group.

    Raises
    ------
    ValueError
        If there are not two groups or a score is not finite.

    Notes
    -----
    Chzhen et al. (2020), arXiv 2006.07286. They split the scores in halves, one for F and one for Q, for a
    proof; here both use all. Equal scores get ranks by lot instead of a jitter.

    Examples
    --------
    >>> made = barycentre([0.0, 1.0, 10.0, 11.0], [0, 0, 1, 1])
    >>> made.move([0.5, 10.5], [0, 1]).tolist()  # both are the median of their group
    [5.5, 5.5]

    Taught in: fair-regression
    """
    scores_N, groups_N = np.asarray(scores_N, dtype=float), np.asarray(groups_N)
    if not np.isfinite(scores_N).all():
        raise ValueError("a score is NaN or infinite: look where it comes from")
    names = two_groups(groups_N)
    scores = {name: np.sort(scores_N[groups_N == name]) for name in names}
    return Barycentre(scores, {name: len(seen) / len(scores_N) for name, seen in scores.items()})


def decorrelate(
    scores_N: Any, groups_N: Any, *, new_scores_N: Any, new_groups_N: Any, share: float = 1.0
) -> np.ndarray:
    """Subtract from scores what is linear in the group: fairlearn's CorrelationRemover.

    Parameters
    ----------
    scores_N, groups_N : array-like
        Scores of people with a known group, two different ones: to learn from.
    new_scores_N, new_groups_N : array-like
        Scores to change, with each person's group, true or predicted.
    share : float
        How much of it to subtract, 0 to 1.

    Returns
    -------
    ndarray
        The new people's changed scores.

    Raises
    ------
    ValueError
        If there are not two groups to learn from.

    Examples
    --------
    >>> given = [0.0, 1.0, 4.0, 5.0], [0, 0, 1, 1]
    >>> decorrelate(*given, new_scores_N=given[0], new_groups_N=given[1]).tolist()
    [2.0, 3.0, 2.0, 3.0]

    Taught in: fair-regression
    """
    from fairlearn.preprocessing import CorrelationRemover

    second = two_groups(groups_N)[1]
    old, new = (
        np.column_stack([np.asarray(groups) == second, np.asarray(scores, dtype=float)])
        for groups, scores in ((groups_N, scores_N), (new_groups_N, new_scores_N))
    )
    remover = CorrelationRemover(sensitive_feature_ids=[0], alpha=share).fit(old)
    return np.asarray(remover.transform(new))[:, 0]


@dataclass(frozen=True)
class Randomised:
    """A lottery over predictors, as the reductions return it. It does not ask for the group.

    Attributes
    ----------
    predictors : tuple
        Fitted predictors.
    weights : tuple of float
        Their probabilities.
    levels : tuple of float or None
        Thresholds of a discretised target, or None where the predictors are regressors.

    Taught in: fair-regression
    """

    predictors: tuple[Any, ...]
    weights: tuple[float, ...]
    levels: tuple[float, ...] | None = None

    def predict(self, features_NF: Any, *, seed: int = 0) -> np.ndarray:
        """Draw one predictor for each person, and predict with it."""
        features_NF = np.asarray(features_NF, dtype=float)
        said_MN = np.stack([self._one(predictor, features_NF) for predictor in self.predictors])
        drawn_N = np.random.default_rng(seed).choice(len(said_MN), len(features_NF), p=self.weights)
        return said_MN[drawn_N, np.arange(len(features_NF))]

    def _one(self, predictor: Any, features_NF: np.ndarray) -> np.ndarray:
        """Predict with one of them; each level that is passed adds its step."""
        if self.levels is None:
            return np.asarray(predictor.predict(features_NF), dtype=float)
        rows = _with_levels(features_NF, self.levels)
        passed_LN = np.asarray(predictor.predict(rows)).reshape(len(self.levels), -1)
        step = self.levels[1] - self.levels[0]
        return self.levels[0] - step / 2 + step * passed_LN.sum(0)


def parity_reduction(
    features_NF: Any,
    target_N: Any,
    *,
    groups_N: Any,
    learner: Any,
    eps: float = 0.05,
    levels: int = 8,
    max_iter: int = 12,
) -> Randomised:
    """Train for statistical parity by exponentiated gradient on a discretised target.

    The prediction is put on a grid. Each person is asked one question a level, "above it?", weighted by what
    a wrong answer costs in squared error; fairlearn's exponentiated gradient keeps the groups' rates of yes
    within `eps` of each other at every level, and so the distance between the distributions. No group is
    needed to predict.

    Parameters
    ----------
    features_NF, target_N, groups_N : array-like
        People to train on, of two groups.
    learner : scikit-learn classifier
        Is fitted on the features and the level, with ``sample_weight``, many times.
    eps : float
        Allowed difference of the rates, above 0.
    levels : int
        How many levels, 2 or more, between the 2nd and the 98th percentile of the target.
    max_iter : int
        At most so many rounds of training.

    Returns
    -------
    Randomised
        A lottery over the learners that were fitted.

    Raises
    ------
    ValueError
        If there are not two groups, or fewer than two levels, or a constant target.

    Notes
    -----
    Agarwal et al. (2019), arXiv 1905.12843, for the squared loss, with fairlearn's solver.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> x = np.random.default_rng(0).normal(size=(200, 1))
    >>> groups = (x[:, 0] > 0).astype(int)
    >>> few = {"learner": LogisticRegression(), "levels": 3, "max_iter": 4}
    >>> fair = parity_reduction(x, x[:, 0], groups_N=groups, **few)
    >>> fair.predict(x).shape
    (200,)

    Taught in: fair-regression
    """
    from fairlearn.reductions import DemographicParity, ExponentiatedGradient

    two_groups(groups_N)
    features_NF, target_N = np.asarray(features_NF, dtype=float), np.asarray(target_N, dtype=float)
    low, high = np.quantile(target_N, (0.02, 0.98))
    if levels < 2 or low == high:
        raise ValueError(
            f"{levels} levels from {low:g} to {high:g}: give two or more, and a target that varies"
        )
    grid = low + (high - low) * (np.arange(levels) + 0.5) / levels
    rows, above_L = (
        _with_levels(features_NF, grid),
        np.tile(target_N, levels) > np.repeat(grid, len(target_N)),
    )
    costs = np.abs(np.tile(target_N, levels) - np.repeat(grid, len(target_N)))
    search = ExponentiatedGradient(
        learner,
        constraints=DemographicParity(difference_bound=eps),
        objective=_cost_of_levels(costs / costs.mean()),
        max_iter=max_iter,
        eps=eps,
    )
    sensitive = {"sensitive_features": np.tile(groups_N, levels)}
    search.fit(rows, above_L.astype(int), control_features=rows[:, -1].round(6), **sensitive)
    return _lottery(search, tuple(grid.tolist()))


def bounded_loss(
    features_NF: Any,
    target_N: Any,
    *,
    groups_N: Any,
    learner: Any,
    bound: float,
    max_iter: int = 12,
) -> Randomised:
    """Train so that no group's mean squared error is above a bound: fairlearn's bounded group loss.

    It evens out how *well* people are predicted, not *what* is predicted; no group is needed to predict.

    Parameters
    ----------
    features_NF, target_N, groups_N : array-like
        People to train on, of two groups.
    learner : scikit-learn regressor
        Is fitted with ``sample_weight``, many times.
    bound : float
        Largest mean squared error of a group, above 0, in squared units of the target. If no mixture of
        learners meets it, the least violation is returned.
    max_iter : int
        At most so many rounds of training.

    Returns
    -------
    Randomised
        A lottery over the learners that were fitted.

    Raises
    ------
    ValueError
        If there are not two groups, or the bound is not above 0.

    Notes
    -----
    Agarwal et al. (2019), arXiv 1905.12843.

    Examples
    --------
    >>> from sklearn.linear_model import LinearRegression
    >>> x = np.random.default_rng(0).normal(size=(200, 1))
    >>> groups = (x[:, 0] > 0).astype(int)
    >>> fair = bounded_loss(x, x[:, 0], groups_N=groups, learner=LinearRegression(), bound=0.1, max_iter=6)
    >>> bool(abs(fair.predict(x) - x[:, 0]).max() < 0.1)
    True

    Taught in: fair-regression
    """
    from fairlearn.reductions import BoundedGroupLoss, ExponentiatedGradient, SquareLoss

    two_groups(groups_N)
    if not bound > 0:
        raise ValueError(f"the bound is {bound:g}: give a mean squared error above 0")
    target_N = np.asarray(target_N, dtype=float)
    constraint = BoundedGroupLoss(SquareLoss(target_N.min(), target_N.max()), upper_bound=bound)
    search = ExponentiatedGradient(learner, constraints=constraint, max_iter=max_iter)
    search.fit(np.asarray(features_NF, dtype=float), target_N, sensitive_features=np.asarray(groups_N))
    return _lottery(search, None)


def reached(errors: Sequence[float], disparities: Sequence[float], *, budget: float) -> float:
    """Return the least disparity that a method reaches without a larger error than the budget.

    Between two neighbouring settings the curve is taken to be straight: a lottery between them.

    Parameters
    ----------
    errors, disparities : sequence of float
        A method's trade-off, one entry a setting, neighbours beside each other; begin with no processing.
    budget : float
        The largest error.

    Returns
    -------
    float
        NaN if even the least error is above the budget.

    Raises
    ------
    ValueError
        If the two differ in length or are empty.

    Examples
    --------
    >>> reached([1.0, 2.0, 4.0], [0.8, 0.6, 0.2], budget=3.0)
    0.4

    Taught in: fair-regression
    """
    if len(errors) != len(disparities) or not errors:
        raise ValueError(
            f"{len(errors)} errors and {len(disparities)} disparities: give one of each a setting"
        )
    points = list(zip(map(float, errors), map(float, disparities), strict=True))
    within = [disparity for error, disparity in points if error <= budget]
    for (e0, d0), (e1, d1) in pairwise(points):
        if min(e0, e1) <= budget < max(e0, e1):
            within.append(d0 + (d1 - d0) * (budget - e0) / (e1 - e0))
    return min(within, default=float("nan"))


def _with_levels(features_NF: np.ndarray, levels: Sequence[float] | np.ndarray) -> np.ndarray:
    """Repeat everybody once a level, with the level as a further feature."""
    return np.column_stack([np.tile(features_NF, (len(levels), 1)), np.repeat(levels, len(features_NF))])


def _cost_of_levels(costs_N: np.ndarray) -> Any:
    """Return fairlearn's error rate with a cost for each row, which it does not offer itself."""
    import pandas as pd
    from fairlearn.reductions import ErrorRate

    class CostOfLevels(ErrorRate):
        def gamma(self, predictor: Any) -> pd.Series:
            wrong_N = np.abs(np.asarray(self.tags["label"]) - np.asarray(predictor(self.X)).ravel())
            return pd.Series(float((costs_N * wrong_N).mean()), index=self.index)

        def signed_weights(self, lambda_vec: Any = None) -> pd.Series:
            return super().signed_weights(lambda_vec) * costs_N

    return CostOfLevels()


def _lottery(search: Any, levels: tuple[float, ...] | None) -> Randomised:
    """Keep the predictors that may be drawn."""
    weights = search.weights_.sort_index()
    kept = [place for place in weights.index if weights[place] > 1e-9]
    total = sum(weights[place] for place in kept)
    return Randomised(
        tuple(search.predictors_[place] for place in kept),
        tuple(float(weights[place] / total) for place in kept),
        levels,
    )
