"""How far apart a model's answers are for the groups of people that it answers about.

A metric names one disparity. A small one says that this disparity is small and nothing more. What
fairlearn has is taken from there; what is added is the distance between whole distributions, and errors
that name the group which asked for too few people or for numbers that are none.

Shapes: N people.

Examples
--------
>>> import numpy as np
>>> from helpers.fairness import metrics
>>> metrics.ks_distance(np.array([0.1, 0.2, 0.8, 0.9]), np.array(["a", "a", "b", "b"]))
1.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["by_group", "ks_distance", "mean_gap", "rate_gap", "two_groups"]


def ks_distance(values_N: Any, groups_N: Any) -> float:
    """Compute the Kolmogorov-Smirnov distance between the groups' distributions of a value.

    For two groups it is sup_t |F_a(t) - F_b(t)|, the largest gap between the shares of people who are at or
    below a threshold: whatever threshold somebody sets later, the groups' rates differ by no more. For more
    groups it is the largest over all pairs.

    Parameters
    ----------
    values_N : array-like of float
        One value a person, such as a prediction; finite.
    groups_N : array-like
        The group of each person, two or more different ones.

    Returns
    -------
    float
        In [0, 1]; 0 if the distributions are the same, 1 if they do not overlap.

    Raises
    ------
    ValueError
        If a value is not finite, the lengths differ, or there are fewer than two groups.

    Examples
    --------
    >>> ks_distance([1, 2, 3, 4], ["a", "a", "b", "b"]), ks_distance([1, 2, 1, 2], ["a", "a", "b", "b"])
    (1.0, 0.0)
    >>> ks_distance([10 * value + 3 for value in (1, 2, 3, 9)], ["a", "b", "a", "b"])  # scale is no matter
    0.5

    Taught in: fair-regression
    """
    from itertools import combinations

    from scipy.stats import ks_2samp

    parts = _parts(values_N, groups_N)
    pairs = combinations(parts.values(), 2)
    return max(float(ks_2samp(one, other, method="asymp").statistic) for one, other in pairs)


def mean_gap(values_N: Any, groups_N: Any) -> float:
    """Compute the largest difference between the groups' mean values.

    Parameters
    ----------
    values_N : array-like of float
        One value a person, such as a prediction; finite.
    groups_N : array-like
        The group of each person, two or more different ones.

    Returns
    -------
    float
        Zero or more, in the unit of the values.

    Raises
    ------
    ValueError
        If a value is not finite, the lengths differ, or there are fewer than two groups.

    Examples
    --------
    >>> mean_gap([1.0, 3.0, 5.0, 7.0], ["a", "a", "b", "b"])
    4.0

    Taught in: fair-regression
    """
    from fairlearn.metrics import MetricFrame, mean_prediction

    values_N, groups_N = _checked(values_N, groups_N)
    frame = MetricFrame(
        metrics=mean_prediction, y_true=values_N, y_pred=values_N, sensitive_features=groups_N
    )
    return float(frame.difference(method="between_groups"))


def rate_gap(decisions_N: Any, groups_N: Any) -> float:
    """Compute the largest difference between the groups' rates of a yes.

    Parameters
    ----------
    decisions_N : array-like of bool or 0/1
        One decision a person.
    groups_N : array-like
        The group of each person, two or more different ones.

    Returns
    -------
    float
        In [0, 1]: fairlearn's demographic parity difference.

    Raises
    ------
    ValueError
        If a decision is neither 0 nor 1, the lengths differ, or there are fewer than two groups.

    Examples
    --------
    >>> rate_gap([1, 1, 1, 0], ["a", "a", "b", "b"])
    0.5
    """
    from fairlearn.metrics import demographic_parity_difference

    decisions_N, groups_N = _checked(decisions_N, groups_N)
    if not np.isin(decisions_N, (0, 1)).all():
        odd = decisions_N[~np.isin(decisions_N, (0, 1))][0]
        raise ValueError(f"a decision is {odd:g}: give 0 or 1, or take mean_gap for a score")
    return float(demographic_parity_difference(decisions_N, decisions_N, sensitive_features=groups_N))


def by_group(
    metrics: Mapping[str, Callable[..., float]], target_N: Any, *, predicted_N: Any, groups_N: Any
) -> pd.DataFrame:
    """Compute measures of (target, predicted) for everybody and for each group.

    Parameters
    ----------
    metrics : dict of str to callable
        Each takes targets and predictions, such as scikit-learn's or fairlearn's.
    target_N, predicted_N : array-like of float
        What was true and what the model said; finite.
    groups_N : array-like
        The group of each person, two or more different ones.

    Returns
    -------
    DataFrame
        One row a group and one for "everybody"; the measures and ``"people"``, how many there are.

    Raises
    ------
    ValueError
        If a value is not finite, the lengths differ, or there are fewer than two groups.

    Examples
    --------
    >>> from sklearn.metrics import mean_squared_error
    >>> by_group({"MSE": mean_squared_error}, [0, 0, 1], predicted_N=[0, 2, 1], groups_N=["a", "a", "b"])
                    MSE  people
    a          2.000000       2
    b          0.000000       1
    everybody  1.333333       3

    Taught in: fair-regression
    """
    import pandas as pd
    from fairlearn.metrics import MetricFrame, count

    target_N, groups_N = _checked(target_N, groups_N)
    predicted_N, _ = _checked(predicted_N, groups_N)
    frame = MetricFrame(
        metrics={**metrics, "people": count}, y_true=target_N, y_pred=predicted_N, sensitive_features=groups_N
    )
    table = pd.concat([frame.by_group, frame.overall.to_frame("everybody").T]).rename_axis(None)
    return table.astype({**dict.fromkeys(metrics, float), "people": int})


def two_groups(groups_N: Any) -> tuple[Any, Any]:
    """Return the names of the two groups, or say why there are not two.

    Parameters
    ----------
    groups_N : array-like
        The group of each person.

    Returns
    -------
    tuple
        The two names, in sorted order.

    Raises
    ------
    ValueError
        If there are fewer or more than two, or a person has none.

    Examples
    --------
    >>> two_groups(["b", "a", "b"])
    ('a', 'b')

    Taught in: fair-regression
    """
    names = _names(np.asarray(groups_N))
    if len(names) != 2:
        raise ValueError(
            f"{len(names)} groups were given ({_listed(names)}): this method compares two; keep two"
        )
    return names[0], names[1]


def _parts(values_N: Any, groups_N: Any) -> dict[Any, np.ndarray]:
    """Return each group's values."""
    values_N, groups_N = _checked(values_N, groups_N)
    return {name: values_N[groups_N == name] for name in _names(groups_N)}


def _checked(values_N: Any, groups_N: Any) -> tuple[np.ndarray, np.ndarray]:
    """Check that there is one finite value and one group for each person, and two groups or more."""
    values_N, groups_N = np.asarray(values_N, dtype=float), np.asarray(groups_N)
    if values_N.ndim != 1 or values_N.shape != groups_N.shape:
        raise ValueError(
            f"values of shape {values_N.shape} and groups of shape {groups_N.shape}: give one each a person"
        )
    if not np.isfinite(values_N).all():
        count = int((~np.isfinite(values_N)).sum())
        raise ValueError(f"{count} of {len(values_N)} values are NaN or infinite: look where they come from")
    names = _names(groups_N)
    if len(names) < 2:
        raise ValueError(
            f"everybody is in one group ({_listed(names)}): a disparity needs two; was one lost in the split?"
        )
    return values_N, groups_N


def _names(groups_N: np.ndarray) -> list[Any]:
    """List the groups in order, and refuse people without one."""
    import pandas as pd

    lost = int(pd.isna(groups_N).sum())
    if lost:
        raise ValueError(f"{lost} of {len(groups_N)} people have no group: drop them, or name the group")
    return sorted(set(groups_N.tolist()))


def _listed(names: list[Any]) -> str:
    """Write a few names."""
    return ", ".join(map(str, names[:5])) or "none"
