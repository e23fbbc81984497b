"""The disparities, against brute force and closed forms."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mean_squared_error

from helpers.fairness import metrics

GROUPS = np.array(["a"] * 40 + ["b"] * 25 + ["c"] * 10)
VALUES = np.random.default_rng(0).normal(size=75).round(1)  # rounded: ties between the groups


def brute_ks(values, groups):
    """The largest gap between the shares at or below any threshold."""
    names = sorted(set(groups))
    shares = [[(values[groups == name] <= t).mean() for t in values] for name in names]
    return max(abs(a - b) for one in shares for other in shares for a, b in zip(one, other, strict=True))


def test_ks_distance_is_the_largest_gap_at_any_threshold():
    assert metrics.ks_distance(VALUES, GROUPS) == pytest.approx(brute_ks(VALUES, GROUPS))
    two = GROUPS != "c"
    assert metrics.ks_distance(VALUES[two], GROUPS[two]) == pytest.approx(brute_ks(VALUES[two], GROUPS[two]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 5.0), st.floats(-3, 3))
def test_ks_distance_knows_no_scale(seed, slope, offset):
    values = np.random.default_rng(seed).integers(0, 9, 30).astype(float)
    groups = np.arange(30) % 2
    assert metrics.ks_distance(slope * values + offset, groups) == pytest.approx(
        metrics.ks_distance(values, groups)
    )


def test_ks_distance_of_shifted_uniforms_is_the_shift():
    grid = np.arange(1000) / 1000
    values, groups = np.concatenate([grid, grid + 0.3]), np.repeat([0, 1], 1000)
    assert metrics.ks_distance(values, groups) == pytest.approx(0.3, abs=2e-3)


def test_ks_distance_of_large_groups_gives_no_warning():
    values = np.random.default_rng(1).normal(size=30_000)
    assert metrics.ks_distance(values, np.arange(30_000) % 2) < 0.03


def test_mean_gap_is_the_widest_pair():
    means = [VALUES[name == GROUPS].mean() for name in "abc"]
    assert metrics.mean_gap(VALUES, GROUPS) == pytest.approx(max(means) - min(means))


def test_rate_gap_counts_yes():
    assert metrics.rate_gap([True, True, False, False], [0, 0, 1, 1]) == 1.0
    with pytest.raises(ValueError, match=r"a decision is 0\.5: give 0 or 1, or take mean_gap"):
        metrics.rate_gap([0, 0.5], [0, 1])


def test_by_group_agrees_with_the_groups_taken_one_by_one():
    predicted = VALUES + GROUPS.astype("U1").view(np.uint32) % 5
    found = metrics.by_group({"MSE": mean_squared_error}, VALUES, predicted_N=predicted, groups_N=GROUPS)
    for name in "abc":
        mask = name == GROUPS
        assert found.loc[name, "MSE"] == pytest.approx(mean_squared_error(VALUES[mask], predicted[mask]))
        assert found.loc[name, "people"] == mask.sum()
    assert found.loc["everybody", "people"] == 75


MEASURES = [metrics.ks_distance, metrics.mean_gap, metrics.rate_gap]


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("values", "groups", "why"),
    [
        ([0, 1], ["a", "a"], r"everybody is in one group \(a\)"),
        ([], [], r"everybody is in one group \(none\)"),
        ([0, np.nan, np.inf], ["a", "b", "b"], "2 of 3 values are NaN or infinite"),
        ([0, 1, 1], ["a", "b"], "give one each a person"),
        ([0, 1, 1], ["a", None, "b"], "1 of 3 people have no group"),
        ([[0, 1]], [["a", "b"]], "give one each a person"),
    ],
)
def test_bad_input_is_named(measure, values, groups, why):
    with pytest.raises(ValueError, match=why):
        measure(np.array(values), np.array(groups, dtype=object))


def test_two_groups_are_two():
    assert metrics.two_groups([True, False, True]) == (False, True)
    with pytest.raises(ValueError, match=r"3 groups were given \(a, b, c\): this method compares two"):
        metrics.two_groups(GROUPS)
    with pytest.raises(ValueError, match=r"1 groups were given \(a\)"):
        metrics.two_groups(["a", "a"])
