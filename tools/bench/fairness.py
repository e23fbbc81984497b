"""Make a trained network fairer: change one layer and refit the last, or train anew with a reduction."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin

from helpers import data
from helpers.fairness import baselines, svd

Numbers = dict[str, float]
ROUNDS = 12


class Network(RegressorMixin, BaseEstimator):
    """The chapter's network as fairlearn wants it: trained anew with other weights in every round."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, features: Any, target: Any, sample_weight: Any = None) -> Network:
        """Train with the settings of the chapter."""
        net = svd.Regressor(np.shape(features)[1], seed=self.seed)
        self.net_ = svd.fit(net, features, target_N=target, weights_N=sample_weight, seed=self.seed)
        return self

    def predict(self, features: Any) -> np.ndarray:
        """Predict with the network."""
        return self.net_.predict(features)


def students(people: int, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, undergraduate grades and race of so many students."""
    table = data.load_table("law")
    kept = np.flatnonzero(table.groups["race"].isin(["Black", "White"]))
    rows = np.random.default_rng(seed).permutation(kept)[:people]
    seen = np.column_stack([table.features["LSAT"], table.target, table.groups["sex"] == "female"])[rows]
    seen = (seen - seen.mean(0)) / seen.std(0)
    return seen, table.features["UGPA"].to_numpy()[rows], table.groups["race"].to_numpy()[rows]


def ours(net: svd.Regressor, features: np.ndarray, target: np.ndarray, groups: np.ndarray) -> None:
    """Change the fourth layer, with the released factors, and refit the last."""
    svd.refit(svd.postprocess(net, features, groups), features, target_N=target)


def reduction(net: svd.Regressor, features: np.ndarray, target: np.ndarray, groups: np.ndarray) -> None:
    """Train anew under fairlearn's bounded group loss, a little below the loss of the worse group."""
    square = (net.predict(features) - target) ** 2
    worst = max(float(square[groups == name].mean()) for name in set(groups))
    baselines.bounded_loss(
        features, target, groups_N=groups, learner=Network(), bound=0.98 * worst, max_iter=ROUNDS
    )


def measure(people: int, *, seed: int) -> Numbers:
    """Return the seconds of each, on the same trained network; training that one is not counted."""
    features, target, groups = students(people, seed=seed)
    net = Network(seed).fit(features, target).net_
    ours(net, features, target, groups)  # to warm up
    found = {}
    for name, make in {"ours": ours, "reduction": reduction}.items():
        began = time.perf_counter()
        make(net, features, target, groups)
        found[name] = time.perf_counter() - began
    return found
