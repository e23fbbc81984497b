"""The baselines, against closed forms, and on data where it is known what they must do."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from helpers.fairness import baselines, metrics

DICE = np.random.default_rng(0)
GROUPS = np.arange(3000) % 3 == 0
SCORES = np.where(GROUPS, DICE.normal(2, 3, 3000), DICE.normal(-1, 1, 3000))


def test_barycentre_of_two_normals_is_the_normal_between_them():
    made = baselines.barycentre(SCORES, GROUPS)
    moved = made.move(SCORES, GROUPS)
    assert metrics.ks_distance(moved, GROUPS) < 0.01
    # shares 1/3 and 2/3: mean 2/3 - 2/3 = 0, deviation 3/3 + 2/3
    assert moved.mean() == pytest.approx(0, abs=0.1)
    assert moved.std() == pytest.approx(5 / 3, abs=0.1)
    inside = abs(SCORES[GROUPS] - 2) < 4
    line = (SCORES[GROUPS] - 2) / 3 * 5 / 3
    assert abs(moved[GROUPS] - line)[inside].max() < 0.35


def test_barycentre_keeps_the_order_within_a_group():
    moved = baselines.barycentre(SCORES, GROUPS).move(SCORES, GROUPS)
    for mask in (GROUPS, ~GROUPS):
        order = np.argsort(SCORES[mask])
        assert (np.diff(moved[mask][order]) >= -1e-9).all()


def test_part_of_the_way_is_a_mean_of_both_ends():
    made = baselines.barycentre(SCORES, GROUPS)
    half = made.move(SCORES, GROUPS, share=0.5)
    np.testing.assert_allclose(half, (SCORES + made.move(SCORES, GROUPS)) / 2)
    np.testing.assert_array_equal(made.move(SCORES, GROUPS, share=0.0), SCORES)


def test_equal_scores_are_spread_by_lot():
    made = baselines.barycentre(np.repeat([0.0, 1.0], 50), np.repeat(["a", "b"], 50))
    moved = made.move(np.zeros(50), np.repeat("a", 50), seed=1)
    assert np.array_equal(moved, made.move(np.zeros(50), np.repeat("a", 50), seed=1))
    assert set(moved) == {0.5}


def test_a_group_may_be_absent_but_not_new():
    made = baselines.barycentre(SCORES, GROUPS)
    assert np.isfinite(made.move(SCORES[GROUPS], GROUPS[GROUPS])).all()
    with pytest.raises(ValueError, match=r"the groups \[2\] were not seen; known: \[False, True\]"):
        made.move([0.0], [2])
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        made.move([0.0], [True], share=1.5)


def test_barycentre_refuses_what_it_cannot_learn_from():
    with pytest.raises(ValueError, match="1 groups were given"):
        baselines.barycentre([0.0, 1.0], [1, 1])
    with pytest.raises(ValueError, match="a score is NaN"):
        baselines.barycentre([0.0, np.nan], [0, 1])


def test_decorrelation_leaves_no_difference_of_means_and_keeps_the_overall_mean():
    found = baselines.decorrelate(SCORES, GROUPS, new_scores_N=SCORES, new_groups_N=GROUPS)
    assert metrics.mean_gap(found, GROUPS) == pytest.approx(0, abs=1e-9)
    assert found.mean() == pytest.approx(SCORES.mean())
    half = baselines.decorrelate(SCORES, GROUPS, new_scores_N=SCORES, new_groups_N=GROUPS, share=0.5)
    assert metrics.mean_gap(half, GROUPS) == pytest.approx(metrics.mean_gap(SCORES, GROUPS) / 2)


def students(n=800, seed=0):
    """One feature tells the group, the other does not; the target needs both."""
    dice = np.random.default_rng(seed)
    groups = dice.random(n) < 0.5
    features = np.column_stack([1.5 * groups + 0.4 * dice.normal(size=n), dice.normal(size=n)])
    return features, features.sum(1) + 0.1 * dice.normal(size=n), groups


@pytest.fixture(scope="module")
def lotteries():
    features, target, groups = students()
    learner = DecisionTreeClassifier(max_leaf_nodes=60, random_state=0)
    return {
        eps: baselines.parity_reduction(
            features, target, groups_N=groups, learner=learner, eps=eps, levels=4, max_iter=8
        )
        for eps in (0.03, 0.9)
    }


def test_parity_reduction_lowers_the_distance_on_new_people(lotteries):
    features, target, groups = students(seed=1)
    fair, free = (metrics.ks_distance(lotteries[eps].predict(features), groups) for eps in (0.03, 0.9))
    assert free > 0.3
    assert fair < 0.15
    error = ((lotteries[0.9].predict(features) - target) ** 2).mean()
    assert error < 0.25 * target.var()  # a free one still regresses, on a grid


def test_lottery_is_drawn_by_seed_and_by_weight(lotteries):
    features = students()[0]
    fair = lotteries[0.03]
    assert sum(fair.weights) == pytest.approx(1)
    assert np.array_equal(fair.predict(features, seed=3), fair.predict(features, seed=3))
    ones = [LinearRegression().fit(features, np.full(len(features), value)) for value in (0.0, 1.0)]
    mixed = baselines.Randomised(tuple(ones), (0.8, 0.2)).predict(features)
    assert mixed.mean() == pytest.approx(0.2, abs=0.04)


def test_bounded_loss_helps_the_group_that_is_predicted_worse():
    dice = np.random.default_rng(0)
    x, groups = dice.normal(size=(1200, 1)), np.arange(1200) % 6 == 0
    target = np.where(groups, -x[:, 0], x[:, 0])  # the few have the other sign
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fair = baselines.bounded_loss(
            x, target, groups_N=groups, learner=LinearRegression(), bound=1.3, max_iter=10
        )
    plain = LinearRegression().fit(x, target)
    worst = [((p - target)[groups] ** 2).mean() for p in (plain.predict(x), fair.predict(x))]
    assert worst[1] < 0.7 * worst[0]


def test_bad_input_is_named():
    features, target, groups = students(60)
    one = {"groups_N": np.zeros(60), "learner": LogisticRegression()}
    with pytest.raises(ValueError, match="1 groups were given"):
        baselines.parity_reduction(features, target, **one)
    with pytest.raises(ValueError, match="1 groups were given"):
        baselines.bounded_loss(features, target, bound=1.0, **one)
    with pytest.raises(ValueError, match="the bound is 0"):
        baselines.bounded_loss(features, target, groups_N=groups, learner=LinearRegression(), bound=0.0)
    for levels, values in ((1, target), (4, np.ones(60))):
        with pytest.raises(ValueError, match="give two or more, and a target that varies"):
            baselines.parity_reduction(
                features, values, groups_N=groups, learner=LogisticRegression(), levels=levels
            )


def test_reached_goes_along_the_curve():
    errors, gaps = [1.0, 2.0, 3.0], [0.5, 0.3, 0.4]
    assert baselines.reached(errors, gaps, budget=1.0) == 0.5
    assert baselines.reached(errors, gaps, budget=1.25) == pytest.approx(0.45)
    assert baselines.reached(errors, gaps, budget=9.0) == 0.3
    assert np.isnan(baselines.reached(errors, gaps, budget=0.5))
    assert baselines.reached(errors[::-1], gaps[::-1], budget=1.25) == pytest.approx(0.45)
    with pytest.raises(ValueError, match="2 errors and 1 disparities"):
        baselines.reached([1.0, 2.0], [0.5], budget=1.0)
    with pytest.raises(ValueError, match="0 errors"):
        baselines.reached([], [], budget=1.0)
