"""Learn groups that nobody named, and a classifier for each of them.

Demographic-Agnostic Fairness without Harm (arXiv 2509.24077) learns a gate that sorts people into K groups by
their features, and a classifier for each group, such that no group would be better off with the one
classifier for everybody (rationality) nor with another group's (envy-freeness). The paper's objective is not
public; what stands here, (A-1) and (A-2), is this book's derivation from the two definitions. Shapes: N
people, D features with a one for the intercept, K groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

__all__ = [
    "Audit", "Decoupled", "Training", "agreement", "audit", "decouple", "fit", "harms", "joint_risk",
    "logistic", "mcnemar", "objective", "population", "random_gate",
]  # fmt: skip

LABEL_WEIGHTS = ((1.5, -1.0, 0.0, 0.5), (-1.5, 1.0, 0.8, 0.5))  # of the majority's rule and the minority's
LABEL_SHIFTS = (-0.3, 0.3)
STEEPNESS = 3.0
NEWTON_STEPS, LEFT = 100, 1e-13  # the most steps, and the gain in nats at which they end


@dataclass(frozen=True)
class Training:
    """How to descend on (A-2).

    Attributes
    ----------
    steps : int
        Full-batch steps of Adam, >= 1.
    lr : float
        Its step size, above 0.
    restarts : int
        Starts from different noise; the lowest training loss wins. >= 1.
    hot, cold : float
        Temperature of the gate at the first and the last step, above 0.
    rational, envy : float
        Prices of breaking rationality and envy-freeness, lam_r and lam_e of (A-2), >= 0.
    ridge : float
        Price of the squared weights, above 0.
    noise : float
        Spread of the heads' first weights around the pooled classifier's.

    Examples
    --------
    >>> Training(steps=100).temperature(99)
    0.3
    """

    steps: int = 400
    lr: float = 0.05
    restarts: int = 3
    hot: float = 1.0
    cold: float = 0.3
    rational: float = 1.0
    envy: float = 1.0
    ridge: float = 1e-3
    noise: float = 0.5

    def temperature(self, step: int) -> float:
        """Give the gate's temperature at a step, falling in a line from hot to cold."""
        done = step / max(1, self.steps - 1)
        return (1 - done) * self.hot + done * self.cold

    def __post_init__(self) -> None:
        if min(self.steps, self.restarts) < 1 or min(self.lr, self.hot, self.cold, self.ridge) <= 0:
            raise ValueError(
                f"steps {self.steps}, restarts {self.restarts}, lr {self.lr}, hot {self.hot}, "
                f"cold {self.cold} and ridge {self.ridge} must be above zero"
            )
        if min(self.rational, self.envy) < 0:
            raise ValueError(
                f"prices of harm are {self.rational} and {self.envy}: they must not be below zero"
            )


@dataclass(frozen=True)
class Decoupled:
    """A gate, a classifier for each of its groups, and the pooled classifier; all of them linear.

    Attributes
    ----------
    gate_DK : Tensor or None
        Weights of the gate, the intercept first; a person's group is the largest of K scores. None where the
        groups are known, as in decoupling by a demographic.
    heads_DK : Tensor
        Weights of the K classifiers, the intercept first.
    pooled_D : Tensor
        Weights of the one classifier for everybody.

    Examples
    --------
    >>> gate_DK = torch.tensor([[0.0, 0.0], [-1.0, 1.0]], dtype=torch.float64)
    >>> made = Decoupled(gate_DK, heads_DK=-gate_DK, pooled_D=gate_DK[:, 0])
    >>> made.groups(torch.tensor([[-2.0], [2.0]])).tolist()
    [0, 1]
    >>> made.predict(torch.tensor([[-2.0], [2.0]])).tolist()
    [False, False]
    """

    gate_DK: Float[Tensor, "features groups"] | None
    heads_DK: Float[Tensor, "features groups"]
    pooled_D: Float[Tensor, "features"]

    def groups(self, x_ND: Float[Tensor, "people plain"]) -> Int[Tensor, "people"]:
        """Sort people into groups, 0 to K - 1, by their features alone."""
        if self.gate_DK is None:
            raise ValueError("these classifiers were fitted on known groups and have no gate: give groups_N")
        return (_with_one(x_ND.double()) @ self.gate_DK).argmax(1)

    def guesses(self, x_ND: Float[Tensor, "people plain"]) -> Bool[Tensor, "people groups"]:
        """Say what every group's classifier predicts for everybody."""
        return _with_one(x_ND.double()) @ self.heads_DK > 0

    def pooled(self, x_ND: Float[Tensor, "people plain"]) -> Bool[Tensor, "people"]:
        """Say what the one classifier for everybody predicts."""
        return _with_one(x_ND.double()) @ self.pooled_D > 0

    def predict(
        self, x_ND: Float[Tensor, "people plain"], groups_N: Int[Tensor, "people"] | None = None
    ) -> Bool[Tensor, "people"]:
        """Predict with the classifier of each person's group: the gate's, or the group that is given."""
        groups_N = (
            self.groups(x_ND)
            if groups_N is None
            else _known(groups_N, self.heads_DK.shape[1], people=len(x_ND))
        )
        return self.guesses(x_ND).gather(1, groups_N[:, None])[:, 0]


def objective(
    gate_NK: Float[Tensor, "*starts people groups"],
    loss_NK: Float[Tensor, "*starts people groups"],
    *,
    pooled_N: Float[Tensor, "people"],
    rational: float = 1.0,
    envy: float = 1.0,
) -> Float[Tensor, "*starts"]:
    """Price a soft partition and its classifiers: (A-2), the book's derivation.

    Parameters
    ----------
    gate_NK : Tensor
        Share of each person in each group, rows sum to 1. Several starts of a descent may stand in front.
    loss_NK : Tensor
        Loss of each person under each group's classifier, in nats.
    pooled_N : Tensor
        Loss of each person under the pooled classifier, in nats.
    rational, envy : float
        Prices lam_r and lam_e, >= 0.

    Returns
    -------
    Tensor
        Mean loss, plus the price of every harm: of every group whose risk is above the pooled classifier's,
        and of every pair in which a group would be better off with the other's classifier.

    Notes
    -----
    With hard gates and no prices this is (A-1), the joint empirical risk. Source: derived for this book from
    the definitions of Ustun, Liu and Parkes (2019); the objective of arXiv 2509.24077 was not at hand.

    Examples
    --------
    >>> gate_NK, loss_NK = torch.eye(2), torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    >>> objective(gate_NK, loss_NK, pooled_N=torch.tensor([2.0, 2.0])).item()
    1.0
    >>> objective(gate_NK, loss_NK.flip(1), pooled_N=torch.tensor([2.0, 2.0])).item()
    9.0

    Taught in: fairness-without-harm
    """
    mass_K = gate_NK.sum(-2).clamp(min=1e-12)  # an empty group has no risk, and no price
    risk_KK = gate_NK.mT @ loss_NK / mass_K[..., None]  # row: whose people; column: whose classifier
    pooled_K = pooled_N @ gate_NK / mass_K
    own_K = risk_KK.diagonal(dim1=-2, dim2=-1)
    joint = (mass_K * own_K).sum(-1) / gate_NK.shape[-2]
    irrational = (own_K - pooled_K).clamp(min=0).sum(-1)
    envious = (own_K[..., None] - risk_KK).clamp(min=0).sum((-2, -1))
    return joint + rational * irrational + envy * envious


def fit(
    x_ND: Float[Tensor, "people plain"],
    y_N: Bool[Tensor, "people"],
    *,
    k: int = 2,
    training: Training | None = None,
    seed: int = 0,
) -> Decoupled:
    """Learn a gate and its classifiers together, by descent on (A-2), with no group given.

    After the descent each classifier is fitted again on the people whom the hard gate sends to it, so that
    it is the best of its kind there: that makes it harmless on the training data. A group to which nobody is
    sent keeps the pooled classifier.

    Parameters
    ----------
    x_ND : Tensor
        Features, standardised, no group among them.
    y_N : Tensor
        Labels.
    k : int
        Groups to learn, from 1 to the number of people.
    training : Training, optional
        How to descend.
    seed : int
        Seed of the first weights.

    Returns
    -------
    Decoupled
        The restart with the lowest training loss under its hard gate.

    Raises
    ------
    ValueError
        If a feature is NaN or infinite, the sizes do not fit, or k is not from 1 to the number of people.

    Examples
    --------
    >>> x_ND, y_N, _ = population(400, separation=3.0, seed=0)
    >>> made = fit(x_ND, y_N, training=Training(steps=60, restarts=1))
    >>> bool((made.predict(x_ND) != y_N).sum() < (made.pooled(x_ND) != y_N).sum())
    True

    Taught in: fairness-without-harm
    """
    _check(x_ND, y_N, k)
    x_ND, training = x_ND.double(), training or Training()
    pooled_D = logistic(x_ND, y_N, ridge=training.ridge)
    gates_RDK = _descend(x_ND, y_N, pooled_D, k, training, seed)
    made = [decouple(x_ND, y_N, gate_DK=g_DK, pooled_D=pooled_D, ridge=training.ridge) for g_DK in gates_RDK]
    return min(made, key=lambda one: joint_risk(one, x_ND, y_N))


def _descend(x_ND: Tensor, y_N: Tensor, pooled_D: Tensor, k: int, training: Training, seed: int) -> Tensor:
    """Follow the gradient of (A-2) from every start at once; return the gates (starts, features, groups)."""
    x_ND, sign_N, dice = _with_one(x_ND), 2.0 * y_N - 1, torch.Generator().manual_seed(seed)
    shape = (training.restarts, x_ND.shape[1], k)
    noise_RDK, gate_RDK = (
        training.noise * torch.randn(shape, generator=dice, dtype=x_ND.dtype) for _ in range(2)
    )
    heads_RDK = (pooled_D[:, None] + noise_RDK).requires_grad_()
    pooled_N = softplus(-sign_N * (x_ND @ pooled_D))
    descent = torch.optim.Adam([gate_RDK.requires_grad_(), heads_RDK], lr=training.lr)
    prices = {"rational": training.rational, "envy": training.envy}
    x_DN = x_ND.T.contiguous()
    for step in range(training.steps):
        gate_RNK = (_scores(gate_RDK, x_DN) / training.temperature(step)).softmax(1).mT
        loss_RNK = softplus(-sign_N * _scores(heads_RDK, x_DN)).mT
        squares = gate_RDK[:, 1:].square().sum() + heads_RDK[:, 1:].square().sum()
        loss = objective(gate_RNK, loss_RNK, pooled_N=pooled_N, **prices).sum() + training.ridge / 2 * squares
        descent.zero_grad()
        loss.backward()
        descent.step()
    return gate_RDK.detach()


def _scores(weights_RDK: Tensor, x_DN: Tensor) -> Tensor:
    """Score all people for every group of every start in one product, people last: that is twice as fast."""
    return (weights_RDK.mT.flatten(0, 1) @ x_DN).unflatten(0, weights_RDK.shape[::2])


def joint_risk(
    made: Decoupled,
    x_ND: Float[Tensor, "people plain"],
    y_N: Bool[Tensor, "people"],
) -> float:
    """Measure (A-1): everybody's mean logistic loss under the classifier of the group that the gate gives.

    Parameters
    ----------
    made : Decoupled
        A gate with its classifiers.
    x_ND, y_N : Tensor
        Features and labels.

    Returns
    -------
    float
        In nats, >= 0.

    Examples
    --------
    >>> zeros = torch.zeros(2, 1).double()
    >>> made = Decoupled(zeros, heads_DK=zeros, pooled_D=zeros[:, 0])
    >>> round(joint_risk(made, torch.zeros(3, 1), torch.tensor([True, False, True])), 3)
    0.693

    Taught in: fairness-without-harm
    """
    own_N = (_with_one(x_ND.double()) @ made.heads_DK).gather(1, made.groups(x_ND)[:, None])[:, 0]
    return float(softplus(-(2.0 * y_N - 1) * own_N).mean())


def logistic(
    x_ND: Float[Tensor, "people plain"], y_N: Bool[Tensor, "people"], *, ridge: float = 1e-3
) -> Float[Tensor, "features"]:
    """Fit a linear classifier: the least mean logistic loss plus ridge / 2 times the squared weights.

    By Newton's steps, each halved until the loss falls.

    Parameters
    ----------
    x_ND : Tensor
        Features.
    y_N : Tensor
        Labels; when all are the same, the intercept alone says so.
    ridge : float
        Price of the squared weights, above 0. It keeps collinear or separable data from weights without end.
        The intercept costs a thousandth of it.

    Returns
    -------
    Tensor
        Weights, the intercept first, in double precision.

    Raises
    ------
    ValueError
        If a feature is NaN or infinite, nobody is there, or the ridge is not above 0.

    Examples
    --------
    >>> logistic(torch.tensor([[-1.0], [1.0]]), torch.tensor([False, True]), ridge=1.0).tolist()
    [0.0, 0.40...]

    Taught in: fairness-without-harm
    """
    _check(x_ND, y_N)
    if ridge <= 0:
        raise ValueError(f"ridge = {ridge}: it must be above zero, or weights may grow without end")
    x_ND, sign_N = _with_one(x_ND.double()), 2.0 * y_N - 1
    price_D = torch.full((x_ND.shape[1],), ridge, dtype=torch.float64)
    price_D[0] *= 1e-3

    def loss(weights_D: Tensor) -> float:
        return float(softplus(-sign_N * (x_ND @ weights_D)).mean() + (price_D * weights_D.square()).sum() / 2)

    weights_D = torch.zeros_like(price_D)
    for _ in range(NEWTON_STEPS):
        miss_N = (-sign_N * (x_ND @ weights_D)).sigmoid()
        slope_D = price_D * weights_D - x_ND.T @ (sign_N * miss_N) / len(x_ND)
        curve_DD = (x_ND.T * (miss_N * (1 - miss_N))) @ x_ND / len(x_ND) + price_D.diag()
        step_D, length, before = torch.linalg.solve(curve_DD, slope_D), 1.0, loss(weights_D)
        if slope_D @ step_D < LEFT:  # twice what is left to gain, in nats
            break
        while loss(weights_D - length * step_D) > before:
            length /= 2
        weights_D = weights_D - length * step_D
    return weights_D


def decouple(
    x_ND: Float[Tensor, "people plain"],
    y_N: Bool[Tensor, "people"],
    *,
    groups_N: Int[Tensor, "people"] | None = None,
    gate_DK: Float[Tensor, "features groups"] | None = None,
    k: int = 1,
    pooled_D: Float[Tensor, "features"] | None = None,
    ridge: float = 1e-3,
) -> Decoupled:
    """Fit one classifier for each group, where the groups are known or a gate makes them.

    Parameters
    ----------
    x_ND, y_N : Tensor
        Features and labels.
    groups_N : Tensor, optional
        Known groups, from 0: decoupling by a demographic (Dwork et al. 2018).
    gate_DK : Tensor, optional
        Weights of a gate, the intercept first. One of the two must be given.
    k : int
        Known groups, where some of them may have nobody here; the gate, or the people, may bring more.
    pooled_D : Tensor, optional
        The pooled classifier, if it is fitted already.
    ridge : float
        As in `logistic`.

    Returns
    -------
    Decoupled
        A group that has nobody keeps the pooled classifier.

    Raises
    ------
    ValueError
        If both or none of groups and gate are given, or the data do not fit.

    Examples
    --------
    >>> x_ND, y_N, a_N = population(200, separation=0.0)
    >>> decouple(x_ND, y_N, groups_N=a_N).heads_DK.shape
    torch.Size([6, 2])

    Taught in: fairness-without-harm
    """
    _check(x_ND, y_N)
    x_ND, pooled_D = x_ND.double(), logistic(x_ND, y_N, ridge=ridge) if pooled_D is None else pooled_D
    if groups_N is not None and gate_DK is None:
        k = max(k, int(groups_N.max()) + 1)
        groups_N = _known(groups_N, k, people=len(x_ND))
    elif gate_DK is not None and groups_N is None:
        k, groups_N = gate_DK.shape[1], (_with_one(x_ND) @ gate_DK).argmax(1)
    else:
        raise ValueError("give either groups_N, the known groups, or gate_DK, the gate that makes them")
    cells = [(groups_N == group).nonzero()[:, 0] for group in range(k)]
    heads = [logistic(x_ND[cell], y_N[cell], ridge=ridge) if len(cell) else pooled_D for cell in cells]
    return Decoupled(gate_DK, torch.stack(heads, 1), pooled_D)


def random_gate(x_ND: Float[Tensor, "people plain"], *, k: int = 2, seed: int = 0) -> Tensor:
    """Draw a gate that knows nothing: the control for any gain of a learned one.

    Parameters
    ----------
    x_ND : Tensor
        Features, whose medians the gate's K regions meet at, so that none is empty by accident.
    k : int
        Groups, >= 1.
    seed : int
        Seed of the draw.

    Returns
    -------
    Tensor
        Weights of shape (features + 1, k), the intercept first.

    Examples
    --------
    >>> x_ND, _, _ = population(300, separation=0.0)
    >>> made = Decoupled(random_gate(x_ND), heads_DK=random_gate(x_ND), pooled_D=torch.zeros(6).double())
    >>> made.groups(x_ND).bincount().min().item() > 100
    True

    Taught in: fairness-without-harm
    """
    dice = torch.Generator().manual_seed(seed)
    weights_DK = torch.randn((x_ND.shape[1], k), generator=dice, dtype=torch.float64)
    shift_1K = -(x_ND.double() @ weights_DK).median(0).values[None]
    return torch.cat([shift_1K, weights_DK])


def population(
    n: int, *, separation: float, share: float = 0.35, copy: float = 1.0, seed: int = 0
) -> tuple[Float[Tensor, "n 5"], Bool[Tensor, "n"], Int[Tensor, "n"]]:
    """Draw people of two kinds, whose labels follow two nearly opposite rules.

    Parameters
    ----------
    n : int
        People, >= 1.
    separation : float
        How far the last feature's mean is from zero, in standard deviations, up for the rarer kind and down
        for the other. With 0 the features do not say of which kind somebody is.
    share : float
        Share of the rarer kind, in [0, 1].
    copy : float
        Share of people whose recorded demographic is their kind, in [0, 1]; the others' is drawn anew. With 0
        the demographic says nothing.
    seed : int
        Seed of the draw.

    Returns
    -------
    tuple of Tensor
        Features, labels, and the recorded demographic, 1 for the minority.

    Raises
    ------
    ValueError
        If `n` is below 1, or a share is not in [0, 1].

    Examples
    --------
    >>> x_ND, y_N, a_N = population(10_000, separation=2.0, seed=1)
    >>> bool((a_N == 1).double().mean().sub(0.35).abs() < 0.02)
    True

    Taught in: fairness-without-harm
    """
    if n < 1 or not (0 <= share <= 1 and 0 <= copy <= 1):
        raise ValueError(f"n = {n}, share = {share}, copy = {copy}: n must be 1 or more, shares in [0, 1]")
    dice = torch.Generator().manual_seed(seed)
    kind_N = (torch.rand(n, generator=dice) < share).long()
    x_ND = torch.randn(n, 5, generator=dice, dtype=torch.float64)
    x_ND[:, 4] += separation * (2.0 * kind_N - 1)
    weights_DK = torch.tensor(LABEL_WEIGHTS, dtype=torch.float64).T
    margin_NK = x_ND[:, :4] @ weights_DK + torch.tensor(LABEL_SHIFTS)
    margin_N = margin_NK.gather(1, kind_N[:, None])[:, 0]
    y_N = torch.rand(n, generator=dice) < (STEEPNESS * margin_N).sigmoid()
    recorded = torch.rand(n, generator=dice) < copy
    fresh_N = (torch.rand(n, generator=dice) < share).long()
    return x_ND, y_N, torch.where(recorded, kind_N, fresh_N)


@dataclass(frozen=True)
class Audit:
    """Say for every group who would serve it better, on people that no classifier has seen.

    Attributes
    ----------
    share_K : ndarray
        Share of people in each group.
    error_KK : ndarray
        Error of each group (row) under each group's classifier (column), in [0, 1]; NaN for an empty group.
    pooled_K : ndarray
        Error of each group under the pooled classifier.
    p_rational_K, p_envy_KK : ndarray
        One-sided p-values of "this group errs more with its own classifier than with the pooled one", and
        "... than with that group's". Small is bad. NaN where there is nothing to compare.

    Examples
    --------
    >>> wrong_NK = torch.tensor([[False, True], [False, True], [True, False], [True, False]])
    >>> found = audit(wrong_NK, torch.tensor([False, True, False, True]), groups_N=torch.tensor([0, 0, 1, 1]))
    >>> found.rationality, found.envy
    (-0.5, -1.0)
    """

    share_K: np.ndarray
    error_KK: np.ndarray
    pooled_K: np.ndarray
    p_rational_K: np.ndarray
    p_envy_KK: np.ndarray

    @property
    def rationality(self) -> float:
        """The worst group's error less its error under the pooled classifier; above 0 somebody is harmed."""
        return float(np.nanmax(np.diagonal(self.error_KK) - self.pooled_K))

    @property
    def envy(self) -> float:
        """The worst pair's error less that under the other's classifier; above 0 somebody envies."""
        gap_KK = np.diagonal(self.error_KK)[:, None] - self.error_KK
        others = ~np.eye(len(gap_KK), dtype=bool)
        return float(np.nanmax(gap_KK[others])) if others.any() else 0.0

    def p_values(self) -> list[float]:
        """All tests in one list, rationality first."""
        both = np.concatenate([self.p_rational_K, self.p_envy_KK.ravel()])
        return [float(p) for p in both[np.isfinite(both)]]


def audit(
    wrong_NK: Bool[Tensor, "people groups"],
    pooled_N: Bool[Tensor, "people"],
    *,
    groups_N: Int[Tensor, "people"],
    least: int = 1,
) -> Audit:
    """Test rationality and envy-freeness of every group, by paired one-sided tests.

    Parameters
    ----------
    wrong_NK : Tensor
        Whether each group's classifier is wrong about each person.
    pooled_N : Tensor
        Whether the pooled classifier is.
    groups_N : Tensor
        The group of each person, 0 to K - 1; a group may be empty.
    least : int
        People that a group must have to be judged, >= 1. Of a smaller one only the share is given, since a
        gap of one or two people is noise. Say so where it is above 1.

    Returns
    -------
    Audit
        Errors and p-values.

    Raises
    ------
    ValueError
        If no group has that many people, or a group is not among the K.

    Notes
    -----
    Definitions: Ustun, Liu and Parkes (2019), which arXiv 2509.24077 follows.

    Examples
    --------
    >>> wrong_NK = torch.tensor([[False, True]] * 6)
    >>> audit(wrong_NK, torch.tensor([True] * 6), groups_N=torch.tensor([1] * 6)).p_envy_KK.round(3).tolist()
    [[nan, nan], [0.016, nan]]

    Taught in: fairness-without-harm
    """
    k = wrong_NK.shape[1]
    groups_N = _known(groups_N, k, people=len(wrong_NK))
    size_K = groups_N.bincount(minlength=k)
    if not (size_K >= max(1, least)).any():
        raise ValueError(f"{len(groups_N)} people are too few to judge: a group must have at least {least}")
    error_KK, p_KK = np.full((k, k), np.nan), np.full((k, k), np.nan)
    pooled_K, p_K = np.full(k, np.nan), np.full(k, np.nan)
    for group in (size_K >= max(1, least)).nonzero()[:, 0].tolist():
        wrong_RK, pooled_R = wrong_NK[groups_N == group], pooled_N[groups_N == group]
        error_KK[group] = wrong_RK.double().mean(0)
        pooled_K[group] = pooled_R.double().mean()
        p_K[group] = mcnemar(wrong_RK[:, group], pooled_R)
        for other in set(range(k)) - {group}:
            p_KK[group, other] = mcnemar(wrong_RK[:, group], wrong_RK[:, other])
    return Audit((size_K.double() / len(groups_N)).numpy(), error_KK, pooled_K, p_K, p_KK)


def mcnemar(ours_N: Bool[Tensor, "people"], theirs_N: Bool[Tensor, "people"]) -> float:
    """Test whether one classifier errs more often than another on the same people: McNemar, one-sided, exact.

    Only people on whom the two differ count. If neither is worse, each of them is a coin flip.

    Parameters
    ----------
    ours_N, theirs_N : Tensor
        Whether each classifier is wrong about each person.

    Returns
    -------
    float
        The chance of as many errors of ours alone, or more, if neither is worse; 1 if they never differ.

    Examples
    --------
    >>> mcnemar(torch.tensor([True] * 5), torch.tensor([False] * 5))
    0.03125

    Taught in: fairness-without-harm
    """
    from scipy import stats

    ours_alone, theirs_alone = int((ours_N & ~theirs_N).sum()), int((theirs_N & ~ours_N).sum())
    if not ours_alone + theirs_alone:
        return 1.0
    return float(stats.binomtest(ours_alone, ours_alone + theirs_alone, alternative="greater").pvalue)


def harms(
    wrong_N: Bool[Tensor, "people"], pooled_N: Bool[Tensor, "people"], *, people: Sequence[str]
) -> pd.DataFrame:
    """Compare errors with the pooled classifier's, for groups that the method never saw.

    Parameters
    ----------
    wrong_N, pooled_N : Tensor
        Whether the method, and the pooled classifier, is wrong about each person.
    people : sequence of str
        The demographic group of each person.

    Returns
    -------
    DataFrame
        One row a group: its people, both errors, their difference (``"harm"``, above 0 is worse off), and the
        one-sided p-value of `mcnemar`.

    Raises
    ------
    ValueError
        If the lengths differ or nobody is there.

    Examples
    --------
    >>> harms(torch.tensor([True, False]), torch.tensor([False, False]), people=["a", "b"]).harm.to_dict()
    {'a': 1.0, 'b': 0.0}

    Taught in: fairness-without-harm
    """
    words = np.asarray(people)
    if not len(words) == len(wrong_N) > 0:
        raise ValueError(
            f"{len(words)} people for {len(wrong_N)} answers: give the group of each, of one or more"
        )
    rows = {}
    for word in np.unique(words):
        theirs = torch.tensor(words == word)
        ours, pooled = wrong_N[theirs].double().mean().item(), pooled_N[theirs].double().mean().item()
        p = mcnemar(wrong_N[theirs], pooled_N[theirs])
        rows[str(word)] = {"people": int(theirs.sum()), "pooled": pooled, "ours": ours, "p": p}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.assign(harm=frame.ours - frame.pooled)


def agreement(groups_N: Int[Tensor, "people"], people_N: Int[Tensor, "people"]) -> float:
    """Measure how well learned groups match known ones, under the best matching of their numbers.

    Parameters
    ----------
    groups_N, people_N : Tensor
        Two partitions of the same people, numbered from 0.

    Returns
    -------
    float
        Share of people in matched groups, in [0, 1]. A partition that knows nothing scores well above 0:
        compare with a shuffled one.

    Examples
    --------
    >>> agreement(torch.tensor([0, 0, 1, 1]), torch.tensor([1, 1, 0, 1]))
    0.75

    Taught in: fairness-without-harm
    """
    from scipy.optimize import linear_sum_assignment

    table_KK = np.zeros((int(groups_N.max()) + 1, int(people_N.max()) + 1))
    np.add.at(table_KK, (groups_N.numpy(), people_N.numpy()), 1)
    rows, columns = linear_sum_assignment(table_KK, maximize=True)
    return float(table_KK[rows, columns].sum() / len(groups_N))


def _with_one(x_ND: Tensor) -> Tensor:
    """Put a column of ones first."""
    return torch.cat([x_ND.new_ones(len(x_ND), 1), x_ND], 1)


def _known(groups_N: Tensor, k: int, *, people: int) -> Tensor:
    """Refuse a group for which there is no classifier, and groups of other people."""
    if len(groups_N) != people:
        raise ValueError(f"{len(groups_N)} groups for {people} people: give the group of each")
    strange = sorted(set(groups_N.unique().tolist()) - set(range(k)))
    if strange:
        raise ValueError(f"groups {strange} have no classifier: expected 0 to {k - 1}, as in training")
    return groups_N


def _check(x_ND: Tensor, y_N: Tensor, k: int = 1) -> None:
    """Refuse data that no classifier can be fitted to."""
    if len(x_ND) != len(y_N) or not len(x_ND):
        raise ValueError(f"{len(x_ND)} rows of features and {len(y_N)} labels: give one label a person")
    if not x_ND.isfinite().all():
        rows = int((~x_ND.isfinite()).any(1).sum())
        raise ValueError(f"the features of {rows} people hold NaN or infinity: drop or fill them first")
    if not 1 <= k <= len(x_ND):
        raise ValueError(f"k = {k} groups for {len(x_ND)} people: choose from 1 to the number of people")
