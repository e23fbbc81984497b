"""Send a number in a few bits so that nobody can tell it well from another: private quantisers.

A mechanism takes an input in [-clip, clip] and answers with one of M levels, by chance. It has
**epsilon-local differential privacy** if no answer is more than ``exp(epsilon)`` times as likely under one
input as under any other. Three kinds are here:

- `TwoLevel`: the unbiased family of arXiv 2406.02599. For an input between two levels, draw a level below it
  and a level above it, then choose between the two so that the mean is the input. `rqm`, `exponential`,
  `bracketed_lp` (the paper's) and `joint_lp` (the book's) differ in how the pair is drawn.
- `RoundedNoise`: add Laplace or Gaussian noise, then round to the levels.
- `IntegerSampler`: any of these as a table of whole numbers, drawn from with the system's random bits.

Everything that samples with a floating-point generator here is for teaching: such generators are
predictable, and rounding moves probabilities. `IntegerSampler` shows what a deployment needs.

Examples
--------
>>> from helpers import privacy
>>> one_bit = privacy.joint_lp(1.0, privacy.levels(2, margin=1.17))
>>> one_bit.bins_M
array([-2.17,  2.17])
"""

from __future__ import annotations

import itertools
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

__all__ = [
    "IntegerSampler", "Mechanism", "RoundedNoise", "TwoLevel", "audit", "bracketed_lp", "calibrate",
    "duchi_level", "exponential", "joint_lp", "levels", "pack", "privacy_loss", "renyi", "rqm", "search",
    "staircase_error", "unpack",
]  # fmt: skip

Array = np.ndarray
TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Mechanism(ABC):
    """Answer an input with one of a few levels, by chance.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        The levels, increasing.
    clip : float
        Inputs lie in [-clip, clip].

    Raises
    ------
    ValueError
        If there are fewer than two levels, they do not increase, or the clip is not above zero.
    """

    bins_M: Float[Array, "bin"]
    clip: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.clip) and self.clip > 0):
            raise ValueError(f"clip is {self.clip}; expected a finite number above zero")
        bins_M = np.asarray(self.bins_M, dtype=float)
        if bins_M.ndim != 1 or len(bins_M) < 2 or not (np.diff(bins_M) > 0).all():
            raise ValueError(f"the levels are {bins_M}; expected two or more, increasing")
        object.__setattr__(self, "bins_M", bins_M)

    @abstractmethod
    def probabilities(self, x_N: Float[Array, "input"]) -> Float[Array, "input bin"]:
        """Return the chance of every level, for every input."""

    @abstractmethod
    def extremes(self) -> Float[Array, "point bin"]:
        """Return the chances at the inputs where the privacy loss is attained."""

    def error(self, x_N: Float[Array, "input"]) -> Float[Array, "input"]:
        """Return the mean absolute error E|M(x) - x| at every input."""
        return (self.probabilities(x_N) * np.abs(self.bins_M - np.asarray(x_N)[:, None])).sum(1)

    def mean(self, x_N: Float[Array, "input"]) -> Float[Array, "input"]:
        """Return the mean answer to every input; the input itself if the mechanism is unbiased."""
        return self.probabilities(x_N) @ self.bins_M

    def variance(self, x_N: Float[Array, "input"]) -> Float[Array, "input"]:
        """Return the variance of the answer to every input."""
        return self.probabilities(x_N) @ self.bins_M**2 - self.mean(x_N) ** 2

    def sample(self, x: Float[Tensor, "*shape"], *, generator: torch.Generator) -> Int[Tensor, "*shape"]:
        """Draw an answer to every input: the number of its level, 0 to M - 1."""
        flat_N = x.reshape(-1).double()
        chance_NM = torch.from_numpy(self.probabilities(flat_N.cpu().numpy()))
        below_NM = chance_NM.cumsum(1)[:, :-1]
        draw_N1 = torch.rand(len(flat_N), 1, dtype=torch.float64, generator=generator)
        return (draw_N1 >= below_NM).sum(1).reshape(x.shape)

    def decode(self, index: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the levels that the numbers stand for."""
        return torch.from_numpy(self.bins_M)[index]


@dataclass(frozen=True, eq=False)
class TwoLevel(Mechanism):
    """Draw a level on either side of the input, then choose between the two so that the mean is the input.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        The levels, increasing; they must span [-clip, clip].
    clip : float
        Inputs lie in [-clip, clip].
    selection_JMM : Float[ndarray, "interval left right"]
        For inputs between levels j and j + 1: the chance of drawing the pair (left, right), with left at most
        j and right above. Each interval's chances sum to one.

    Raises
    ------
    ValueError
        If the levels do not span the inputs, or the chances are negative, do not sum to one, or stand at a
        pair that does not enclose the interval.

    References
    ----------
    arXiv 2406.02599, the family of mechanisms; a joint draw of the pair contains the paper's independent one.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers import privacy
    >>> coin = privacy.TwoLevel(np.array([-2.0, 2.0]), 1.0, np.array([[[0.0, 1.0], [0.0, 0.0]]]))
    >>> coin.probabilities(np.array([0.0, 1.0]))
    array([[0.5 , 0.5 ],
           [0.25, 0.75]])

    Taught in: private-quantization
    """

    selection_JMM: Float[Array, "interval left right"]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins_M[0] > -self.clip or self.bins_M[-1] < self.clip:
            raise ValueError(
                f"the levels run from {self.bins_M[0]} to {self.bins_M[-1]}; expected them to span "
                f"the inputs, -{self.clip} to {self.clip}, or no mean can be exact at the ends"
            )
        _check_selection(self.selection_JMM, len(self.bins_M))

    def probabilities(self, x_N: Float[Array, "input"]) -> Float[Array, "input bin"]:
        """Return the chance of every level, for every input."""
        x_N = _inside(x_N, self.clip)
        interval_N = np.clip(np.searchsorted(self.bins_M, x_N, side="right") - 1, 0, len(self.bins_M) - 2)
        return self._chances(x_N, interval_N)

    def extremes(self) -> Float[Array, "point bin"]:
        """Return the chances at both ends of every interval.

        Within an interval each chance is a line in x, so its largest and smallest values stand at the ends.
        At a level between two intervals both one-sided limits count.
        """
        low_J, high_J, used_J = _intervals(self.bins_M, self.clip)
        return np.concatenate([self._chances(end_J[used_J], used_J) for end_J in (low_J, high_J)])

    def _chances(self, x_N: Array, interval_N: Array) -> Array:
        """Give the chances at inputs, with the interval that counts for each: equation (E-1)."""
        gap_MM = self.bins_M[None, :] - self.bins_M[:, None]
        share_JMM = self.selection_JMM / np.where(gap_MM > 0, gap_MM, np.inf)
        left_NM = (share_JMM[interval_N] * (self.bins_M - x_N[:, None])[:, None, :]).sum(2)
        right_NM = (share_JMM[interval_N] * (x_N[:, None] - self.bins_M)[:, :, None]).sum(1)
        return left_NM + right_NM


def _check_selection(selection_JMM: Array, n_bins: int) -> None:
    """Refuse a selection that is not a distribution over pairs around each interval."""
    if selection_JMM.shape != (n_bins - 1, n_bins, n_bins):
        raise ValueError(
            f"the selection has shape {selection_JMM.shape}; expected {(n_bins - 1, n_bins, n_bins)}"
        )
    interval, left, right = np.indices(selection_JMM.shape)
    outside = selection_JMM[(left > interval) | (right <= interval)]
    if np.abs(outside).max(initial=0.0) > 0 or selection_JMM.min() < 0:
        raise ValueError("the selection is negative, or picks a pair that does not enclose its interval")
    sums_J = selection_JMM.sum((1, 2))
    if np.abs(sums_J - 1).max() > 1e-9:
        raise ValueError(f"the selection's chances sum to {sums_J}; expected 1 in every interval")


def _inside(x_N: Array, clip: float) -> Array:
    """Return inputs as an array of floats; refuse what is outside the range, or no number."""
    x_N = np.asarray(x_N, dtype=float)
    bad = ~(np.abs(x_N) <= clip * (1 + TINY))
    if bad.any():
        raise ValueError(
            f"{bad.sum()} of {x_N.size} inputs are outside [-{clip}, {clip}] or not a number, such as "
            f"{x_N[bad].flat[0]}; clip them first (and say so: clipping is a second error)"
        )
    return x_N


def _intervals(bins_M: Array, clip: float) -> tuple[Array, Array, Array]:
    """Return where each interval between levels begins and ends inside the inputs, and which hold inputs."""
    low_J, high_J = np.maximum(bins_M[:-1], -clip), np.minimum(bins_M[1:], clip)
    return low_J, high_J, np.flatnonzero(high_J > low_J)


def levels(
    n_bins: int, *, margin: float, clip: float = 1.0, inner: float | None = None
) -> Float[Array, "bin"]:
    """Return symmetric levels: two outer ones beyond the inputs, the others evenly spaced.

    Parameters
    ----------
    n_bins : int
        How many, 2 or more; 4 levels take 2 bits.
    margin : float
        How far the outer levels stand beyond the inputs, above 0, in units of the input.
    clip : float
        Inputs lie in [-clip, clip].
    inner : float, optional
        The inner levels run from -inner to inner. Without it all levels are evenly spaced.

    Returns
    -------
    Float[ndarray, "bin"]
        Increasing.

    Raises
    ------
    ValueError
        If there are fewer than two, the margin is not above zero, or inner is not between zero and the outer
        level.

    Examples
    --------
    >>> from helpers import privacy
    >>> privacy.levels(4, margin=2.0, inner=0.5)
    array([-3. , -0.5,  0.5,  3. ])

    Taught in: private-quantization
    """
    outer = clip + margin
    if n_bins < 2 or not margin > 0:
        raise ValueError(f"{n_bins} levels with margin {margin}; expected 2 or more, and a margin above zero")
    if inner is None or n_bins == 2:
        return np.linspace(-outer, outer, n_bins)
    if not (0 < inner < outer) and n_bins > 3:
        raise ValueError(f"inner is {inner}; expected a number between 0 and the outer level, {outer}")
    return np.concatenate(
        [[-outer], np.linspace(-inner, inner, n_bins - 2) if n_bins > 3 else [0.0], [outer]]
    )


def _independent(bins_M: Array, clip: float, left_JM: Array, right_JM: Array) -> TwoLevel:
    """Make the mechanism that draws the left and the right level independently: the paper's family."""
    return TwoLevel(bins_M, clip, left_JM[:, :, None] * right_JM[:, None, :])


def _mirrored(left_JM: Array) -> Array:
    """Give the right-hand draw that mirrors a left-hand one on symmetric levels."""
    return left_JM[::-1, ::-1]


def rqm(bins_M: Float[Array, "bin"], *, keep: float, clip: float = 1.0) -> TwoLevel:
    """Return the randomised quantisation mechanism: drop inner levels by chance, use the nearest two left.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        Levels, symmetric around zero; the original has them evenly spaced.
    keep : float
        Chance that an inner level is kept, between 0 and 1; the outer two always are.
    clip : float
        Inputs lie in [-clip, clip].

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If ``keep`` is not between 0 and 1, or the levels are not symmetric.

    References
    ----------
    Youn, Hu, Ziani, Abernethy (2023), *Randomized Quantization is All You Need for Differential Privacy in
    Federated Learning*, arXiv 2306.11913.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.rqm(privacy.levels(4, margin=1.7), keep=0.22)
    >>> made.selection_JMM[1].sum(1).round(2)  # the left level, for inputs in the middle
    array([0.78, 0.22, 0.  , 0.  ])

    Taught in: private-quantization
    """
    if not 0 <= keep <= 1:
        raise ValueError(f"keep is {keep}; expected a chance, 0 to 1")
    left_JM = np.zeros((len(bins_M) - 1, len(bins_M)))
    for j in range(len(left_JM)):
        for i in range(j + 1):
            left_JM[j, i] = (keep if i else 1.0) * (1 - keep) ** (j - i)
    return _independent(_symmetric(bins_M), clip, left_JM, _mirrored(left_JM))


def exponential(bins_M: Float[Array, "bin"], *, gamma: float, clip: float = 1.0) -> TwoLevel:
    """Return the exponential mechanism of the family: near levels are drawn more often, by a factor.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        Levels, symmetric around zero.
    gamma : float
        How strongly near levels are preferred; 0 draws all alike, negative ones prefer far levels.
    clip : float
        Inputs lie in [-clip, clip].

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If gamma is not finite, or the levels are not symmetric.

    References
    ----------
    arXiv 2406.02599, the exponential randomised mechanism.

    Examples
    --------
    >>> from helpers import privacy
    >>> privacy.exponential(privacy.levels(4, margin=2.0), gamma=0.0).selection_JMM[2].sum(1).round(2)
    array([0.33, 0.33, 0.33, 0.  ])

    Taught in: private-quantization
    """
    if not math.isfinite(gamma):
        raise ValueError(f"gamma is {gamma}; expected a finite number")
    bins_M = _symmetric(bins_M)
    left_JM = np.zeros((len(bins_M) - 1, len(bins_M)))
    for j in range(len(left_JM)):
        far_I = (bins_M[j] - bins_M[: j + 1]) / max(bins_M[j] - bins_M[0], TINY)
        weight_I = np.exp(-gamma * far_I / 2)
        left_JM[j, : j + 1] = weight_I / weight_I.sum()
    return _independent(bins_M, clip, left_JM, _mirrored(left_JM))


def _symmetric(bins_M: Array) -> Array:
    """Return levels as floats; refuse ones that are not symmetric around zero."""
    bins_M = np.asarray(bins_M, dtype=float)
    if not np.allclose(bins_M, -bins_M[::-1]):
        raise ValueError(f"the levels are {bins_M}; expected them symmetric around zero")
    return bins_M


def _check_epsilon(epsilon: float) -> None:
    """Refuse a budget that is no budget."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(
            f"epsilon is {epsilon}; expected a finite number above zero (0 would forbid any answer that "
            "depends on the input, infinity any privacy)"
        )


def joint_lp(
    epsilon: float,
    bins_M: Float[Array, "bin"],
    *,
    clip: float = 1.0,
    inputs_N: Float[Array, "input"] | None = None,
    squared: bool = False,
) -> TwoLevel:
    """Return the best mechanism of the family on given levels: an exact linear program over pairs.

    The unknowns are the chances of the pairs, one set an interval, and for each level a floor that its
    chance may nowhere go below. The chance of a level is linear in the unknowns and a line in x inside an
    interval, so privacy is a finite list of linear conditions: at both ends of each interval, between its
    floor and ``exp(epsilon)`` times its floor. The mean absolute error is linear too. Sparse, solved by
    HiGHS.

    Parameters
    ----------
    epsilon : float
        Privacy budget, above 0.
    bins_M : Float[ndarray, "bin"]
        Levels, increasing, spanning the inputs.
    clip : float
        Inputs lie in [-clip, clip].
    inputs_N : Float[ndarray, "input"], optional
        Minimise the mean error over these inputs. Without them, over all inputs alike (an exact integral).
    squared : bool
        Minimise the mean squared error in place of the absolute; it counts where answers are averaged.

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If epsilon is not finite and above zero, an input is outside, or no mechanism on these levels has so
        little loss (move the outer levels out).

    References
    ----------
    The book's extension of arXiv 2406.02599: a joint draw of the pair in place of two independent ones makes
    the problem linear without brackets or bounds.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.joint_lp(1.0, privacy.levels(4, margin=2.5, inner=0.45))
    >>> round(float(privacy.privacy_loss(made)), 6)
    1.0

    Taught in: private-quantization
    """
    from scipy import sparse
    from scipy.optimize import linprog

    _check_epsilon(epsilon)
    bins_M = np.asarray(bins_M, dtype=float)
    pairs = _Pairs.of(bins_M, clip)
    chance = pairs.chances()
    floor = sparse.csr_array(np.tile(np.eye(len(bins_M)), (2 * len(pairs.used_J), 1)))
    unequal = sparse.vstack(
        [sparse.hstack([chance, -np.exp(epsilon) * floor]), sparse.hstack([-chance, floor])]
    )
    sums = pairs.sums(extra=len(bins_M))
    found = linprog(
        np.concatenate([pairs.costs(inputs_N, squared=squared), np.zeros(len(bins_M))]),
        A_ub=unequal.tocsr(), b_ub=np.zeros(unequal.shape[0]),
        A_eq=sums, b_eq=np.ones(sums.shape[0]),
        bounds=(0, None), method="highs",
    )  # fmt: skip
    if found.status != 0:
        raise ValueError(
            f"no unbiased mechanism on the levels {bins_M} has a loss of {epsilon} or less; move the outer "
            f"levels out, for two levels to {duchi_level(epsilon, clip=clip):.3f} or more ({found.message})"
        )
    return TwoLevel(bins_M, clip, pairs.selection(found.x[: len(pairs.left_U)]))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The unknowns of the linear program: pairs of levels around each interval that holds inputs."""

    bins_M: Array
    clip: float
    low_J: Array
    high_J: Array
    used_J: Array
    place_U: Array  # which of the used intervals
    left_U: Array
    right_U: Array

    @classmethod
    def of(cls, bins_M: Array, clip: float) -> _Pairs:
        """List the pairs."""
        low_J, high_J, used_J = _intervals(bins_M, clip)
        listed = [
            (place, left, right)
            for place, j in enumerate(used_J)
            for left, right in itertools.product(range(j + 1), range(j + 1, len(bins_M)))
        ]
        return cls(bins_M, clip, low_J, high_J, used_J, *np.array(listed).T)

    def terms(self, x_U: Array) -> tuple[Array, Array]:
        """Return the chances of the left and of the right level of each pair, at one input a pair."""
        gap_U = self.bins_M[self.right_U] - self.bins_M[self.left_U]
        return (self.bins_M[self.right_U] - x_U) / gap_U, (x_U - self.bins_M[self.left_U]) / gap_U

    def chances(self) -> Any:
        """Return the matrix from pair chances to level chances, at both ends of every interval."""
        from scipy import sparse

        count, n_bins = len(self.used_J), len(self.bins_M)
        rows, values = [], []
        for end, end_J in enumerate((self.low_J, self.high_J)):
            first_U = (end * count + self.place_U) * n_bins
            left_U, right_U = self.terms(end_J[self.used_J][self.place_U])
            rows += [first_U + self.left_U, first_U + self.right_U]
            values += [left_U, right_U]
        columns = np.tile(np.arange(len(self.left_U)), 4)
        shape = (2 * count * n_bins, len(self.left_U))
        return sparse.csr_array((np.concatenate(values), (np.concatenate(rows), columns)), shape=shape)

    def sums(self, *, extra: int) -> Any:
        """Return the matrix that sums the chances of each interval; the extra unknowns do not count."""
        from scipy import sparse

        shape = (len(self.used_J), len(self.left_U) + extra)
        places = (self.place_U, np.arange(len(self.left_U)))
        return sparse.csr_array((np.ones(len(self.left_U)), places), shape=shape)

    def error(self, x_U: Array, *, squared: bool) -> Array:
        """Return each pair's error: squared (r - x)(x - l), absolute 2 / (r - l) times that."""
        low_U, high_U = self.bins_M[self.left_U], self.bins_M[self.right_U]
        product_U = (high_U - x_U) * (x_U - low_U)
        return product_U if squared else 2 * product_U / (high_U - low_U)

    def costs(self, inputs_N: Array | None, *, squared: bool) -> Array:
        """Return what a unit of chance on each pair adds to the mean error."""
        if inputs_N is None:  # the error is quadratic in x, so Simpson's rule is exact
            low_U, high_U = (end_J[self.used_J][self.place_U] for end_J in (self.low_J, self.high_J))
            ends_U = self.error(low_U, squared=squared) + self.error(high_U, squared=squared)
            mean_U = (ends_U + 4 * self.error((low_U + high_U) / 2, squared=squared)) / 6
            return mean_U * (high_U - low_U) / (2 * self.clip)
        x_N = _inside(inputs_N, self.clip)
        edges = self.bins_M[self.used_J[1:]]
        cost_U = np.zeros(len(self.left_U))
        for place, some_N in enumerate(np.split(np.sort(x_N), np.searchsorted(np.sort(x_N), edges))):
            mine = self.place_U == place
            errors = [self.error(np.full(len(mine), x), squared=squared)[mine] for x in some_N]
            cost_U[mine] = np.sum(errors, axis=0) / len(x_N) if errors else 0.0
        return cost_U

    def selection(self, chance_U: Array) -> Array:
        """Return the pair chances as an array; an interval without inputs gets its nearest pair."""
        n_bins = len(self.bins_M)
        made_JMM = np.zeros((n_bins - 1, n_bins, n_bins))
        made_JMM[self.used_J[self.place_U], self.left_U, self.right_U] = np.maximum(chance_U, 0)
        for j in np.setdiff1d(np.arange(n_bins - 1), self.used_J):
            made_JMM[j, j, j + 1] = 1
        return made_JMM / made_JMM.sum((1, 2), keepdims=True)


def bracketed_lp(
    epsilon: float, *, margin: float, inner: float, clip: float = 1.0, step: float = 0.01
) -> TwoLevel:
    """Return the paper's optimised mechanism on four symmetric levels: a linear program a bracket.

    The draws on the two sides are independent, so chances are products of unknowns. The paper splits the
    range of one unknown, the chance of the outermost left level in the middle interval, into brackets of
    width ``step``; inside a bracket it bounds each product by a linear term. The bracket with the smallest
    true error wins.

    Parameters
    ----------
    epsilon : float
        Privacy budget, above 0.
    margin, inner : float
        Place of the levels, as for `levels`.
    clip : float
        Inputs lie in [-clip, clip].
    step : float
        Width of a bracket.

    Returns
    -------
    TwoLevel
        The mechanism.

    Raises
    ------
    ValueError
        If epsilon is not finite and above zero, or no bracket is feasible.

    References
    ----------
    arXiv 2406.02599; the linear programs follow the authors' code for m = 4 and symmetric levels.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.bracketed_lp(2.0, margin=2.0, inner=0.5, step=0.05)
    >>> float(privacy.privacy_loss(made)) <= 2.0
    True

    Taught in: private-quantization
    """
    _check_epsilon(epsilon)
    bins_M = levels(4, margin=margin, clip=clip, inner=inner)
    if not 0 < inner <= clip:
        raise ValueError(f"inner is {inner}; expected it above zero and at most the clip, {clip}")
    grid_N = np.linspace(-clip, clip, 51)
    solved = [_bracket(epsilon, bins_M, clip, low, low + step) for low in np.arange(step, 1 - step / 2, step)]
    made = [one for one in solved if one is not None and privacy_loss(one) <= epsilon + 1e-9]
    if not made:
        raise ValueError(
            f"no bracket is feasible at epsilon {epsilon} on the levels {bins_M}; move the outer levels out"
        )
    return min(made, key=lambda one: float(one.error(grid_N).mean()))


def _bracket(epsilon: float, bins_M: Array, clip: float, low: float, high: float) -> TwoLevel | None:
    """Solve the linear program of one bracket; None where it has no solution."""
    from scipy.optimize import linprog

    unequal = [
        most_U - math.exp(epsilon) * least_U
        for most_IU, least_IU in _bracket_bounds(bins_M, clip, low, high)
        for most_U, least_U in itertools.product(most_IU, least_IU)
    ]
    inner, outer = bins_M[2], bins_M[3]
    cost_U = np.array(
        [2 * inner * (outer - inner), 0, (clip - inner) * (outer + inner), 2 * inner * (clip - inner), 0]
    )
    found = linprog(
        cost_U,
        A_ub=np.array(unequal), b_ub=np.zeros(len(unequal)),
        A_eq=[[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]], b_eq=[1, 1],
        bounds=[(low, high), (1e-5, 1), *[(1e-5, 1)] * 3], method="highs",
    )  # fmt: skip
    if found.status != 0:
        return None
    near, far = found.x[:2], found.x[2:]
    left_JM = np.array([[1, 0, 0, 0], [near[0], near[1], 0, 0], [far[0], far[1], far[2], 0]])
    left_JM /= left_JM.sum(1, keepdims=True)
    return _independent(bins_M, clip, left_JM, _mirrored(left_JM))


def _bracket_bounds(bins_M: Array, clip: float, low: float, high: float) -> list[tuple[Array, Array]]:
    """Return, for the two left levels, rows that bound their largest and smallest chances, one an interval.

    A row times the unknowns (near 1, near 2, far 1, far 2, far 3) is a chance. In the middle interval the
    chance is an unknown times a mixture of two shares, with near 1 as its weight; the weight is replaced by
    an end of its bracket. The two right levels mirror the left ones.
    """
    first, second, third, last = bins_M

    def share(level: float, other: float, x: float) -> float:
        return (other - x) / (other - level)

    def mixture(level: float, x: float, weight: float) -> float:
        return weight * share(level, last, x) + (1 - weight) * share(level, third, x)

    def of_first(x_left: float, x_middle: float, x_right: float, weight: float) -> Array:
        left = [share(first, other, x_left) for other in (last, third, second)]
        middle = mixture(first, x_middle, weight)
        return np.array([[0, 0, *left], [middle, 0, 0, 0, 0], [0, 0, share(first, last, x_right), 0, 0]])

    def of_second(x_left: float, x_middle: float, x_right: float, weight: float) -> Array:
        left, right = share(second, first, x_left), share(second, last, x_right)
        middle = mixture(second, x_middle, weight)
        return np.array([[0, 0, 0, 0, left], [0, middle, 0, 0, 0], [0, 0, 0, right, 0]])

    return [
        (of_first(-clip, second, third, high), of_first(second, third, clip, low)),
        (of_second(second, second, third, high), of_second(-clip, third, clip, low)),
    ]


def duchi_level(epsilon: float, *, clip: float = 1.0) -> float:
    """Return where the two levels of the best one-bit mechanism stand.

    Parameters
    ----------
    epsilon : float
        Privacy budget, above 0.
    clip : float
        Inputs lie in [-clip, clip].

    Returns
    -------
    float
        The upper level; the lower one is its negative. Levels nearer to zero cannot have so little loss.

    Raises
    ------
    ValueError
        If epsilon is not finite and above zero.

    References
    ----------
    Duchi, Jordan, Wainwright (2018), *Minimax Optimal Procedures for Locally Private Estimation*.

    Examples
    --------
    >>> from helpers import privacy
    >>> round(privacy.duchi_level(1.0), 3)
    2.164

    Taught in: private-quantization
    """
    _check_epsilon(epsilon)
    return clip / math.tanh(epsilon / 2)


def staircase_error(epsilon: float, *, clip: float = 1.0) -> float:
    """Return the least mean absolute error of any noise that is added without looking at the input.

    Parameters
    ----------
    epsilon : float
        Privacy budget, above 0.
    clip : float
        Inputs lie in [-clip, clip], so two of them are at most 2 clip apart.

    Returns
    -------
    float
        The error of the staircase mechanism, in units of the input.

    Raises
    ------
    ValueError
        If epsilon is not finite and above zero.

    References
    ----------
    Geng, Viswanath (2016), *The Optimal Noise-Adding Mechanism in Differential Privacy*, Theorem 3.

    Examples
    --------
    >>> from helpers import privacy
    >>> round(privacy.staircase_error(1.0), 3)
    1.919

    Taught in: private-quantization
    """
    _check_epsilon(epsilon)
    return 2 * clip * math.exp(epsilon / 2) / math.expm1(epsilon)


@dataclass(frozen=True, eq=False)
class RoundedNoise(Mechanism):
    """Add noise, then round to the levels; what falls beyond the outer levels becomes them.

    Parameters
    ----------
    bins_M : Float[ndarray, "bin"]
        The levels, increasing.
    clip : float
        Inputs lie in [-clip, clip].
    scale : float
        Laplace: the scale parameter. Gaussian: the standard deviation. Above zero.
    noise : {"laplace", "gaussian"}
        Which noise.
    dithered : bool
        Round by chance to one of the two nearest levels, so that rounding adds no error in the mean;
        otherwise to the nearest.

    Raises
    ------
    ValueError
        If the scale is not above zero, or the noise is not known.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers import privacy
    >>> made = privacy.RoundedNoise(privacy.levels(2, margin=1.0), 1.0, scale=2.0)
    >>> made.probabilities(np.array([0.0]))
    array([[0.5, 0.5]])

    Taught in: private-quantization
    """

    scale: float
    noise: str = "laplace"
    dithered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.scale > 0 or self.noise not in ("laplace", "gaussian"):
            raise ValueError(
                f"got {self.noise!r} noise of scale {self.scale}; expected 'laplace' or 'gaussian', over zero"
            )

    def probabilities(self, x_N: Float[Array, "input"]) -> Float[Array, "input bin"]:
        """Return the chance of every level, for every input."""
        x_N1 = _inside(x_N, self.clip)[:, None]
        low_I, high_I = self.bins_M[:-1], self.bins_M[1:]
        if self.dithered:  # the chance of rounding down falls in a line from one level to the next
            below_NI = (self._area(high_I - x_N1) - self._area(low_I - x_N1)) / (high_I - low_I)
        else:
            below_NI = self._cdf((low_I + high_I) / 2 - x_N1)
        return np.diff(below_NI, axis=1, prepend=0.0, append=1.0)

    def extremes(self) -> Float[Array, "point bin"]:
        """Return the chances at a fine grid of inputs.

        The densities are log-concave in the noise, so each chance rises and then falls with the input: its
        smallest values stand at -clip and clip, which the grid has, and its largest where the grid is near.
        """
        return self.probabilities(np.linspace(-self.clip, self.clip, 401))

    def _cdf(self, t: Array) -> Array:
        """Return the chance that the noise is at most t."""
        from scipy import stats

        kind = stats.laplace if self.noise == "laplace" else stats.norm
        return kind.cdf(t, scale=self.scale)

    def _area(self, t: Array) -> Array:
        """Return the integral of the noise's distribution function up to t."""
        from scipy import stats

        if self.noise == "laplace":
            return np.maximum(t, 0) + self.scale * np.exp(-np.abs(t) / self.scale) / 2
        u = t / self.scale
        return self.scale * (u * stats.norm.cdf(u) + stats.norm.pdf(u))


def privacy_loss(mechanism: Mechanism) -> float:
    """Return the exact privacy loss: the largest log-ratio of the chances of an answer under two inputs.

    Parameters
    ----------
    mechanism : Mechanism
        Any mechanism with finitely many answers.

    Returns
    -------
    float
        The smallest epsilon that the mechanism satisfies; infinite if an answer is possible under one input
        and impossible under another.

    Examples
    --------
    >>> from helpers import privacy
    >>> level = privacy.duchi_level(0.7)
    >>> round(privacy.privacy_loss(privacy.joint_lp(0.7, privacy.levels(2, margin=level - 1))), 6)
    0.7

    Taught in: private-quantization
    """
    chance_EM = mechanism.extremes()
    return _loss(chance_EM.max(0), chance_EM.min(0))


def _loss(high_M: Array, low_M: Array) -> float:
    """Return the largest log-ratio over the answers that can occur."""
    possible = high_M > TINY
    if (low_M[possible] <= TINY).any():
        return math.inf
    return float(np.log(high_M[possible] / low_M[possible]).max())


def renyi(mechanism: Mechanism, order: float) -> float:
    """Return the Rényi privacy loss of one answer: the largest Rényi divergence between two inputs.

    The divergence is a convex function of the pair of distributions, and these move along straight lines
    between the points that the audit looks at, so its largest value is attained at a pair of those.

    Parameters
    ----------
    mechanism : Mechanism
        Any mechanism with finitely many answers.
    order : float
        Above 1.

    Returns
    -------
    float
        In nats. Losses of independent answers add up at equal order.

    Raises
    ------
    ValueError
        If the order is not above 1.

    References
    ----------
    Mironov (2017), *Rényi Differential Privacy*, arXiv 1702.07476, Definition 4 and Proposition 1.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.joint_lp(1.0, privacy.levels(4, margin=2.5, inner=0.45))
    >>> 0 < privacy.renyi(made, 2.0) < privacy.renyi(made, 50.0) < 1.0
    True

    Taught in: private-quantization
    """
    if not order > 1:
        raise ValueError(f"the order is {order}; expected more than 1")
    chance_EM = mechanism.extremes()
    logs_EM = np.log(np.maximum(chance_EM[:, chance_EM.max(0) > TINY], TINY))
    sums_EE = np.exp(order * logs_EM[:, None] + (1 - order) * logs_EM[None]).sum(2)
    return float(np.log(sums_EE).max() / (order - 1))


def audit(
    answer: Callable[[float, int], Int[Array, "draw"]],
    inputs: Sequence[float],
    *,
    draws: int = 100_000,
    confidence: float = 0.95,
) -> float:
    """Return a lower confidence bound on the privacy loss of a mechanism, from its answers alone.

    Nothing is known of the mechanism but what it answers. The chance of each answer under each input gets a
    Clopper-Pearson interval, all of them together at the confidence asked for. The bound is the largest
    log-ratio that is still certain: a low end under one input over a high end under another.

    Parameters
    ----------
    answer : callable
        From an input and a number of draws to that many answers, whole numbers from 0.
    inputs : sequence of float
        Inputs to try, two or more; the loss is often attained at the ends of the range and at levels.
    draws : int
        Answers to ask for at each input.
    confidence : float
        Chance that the true loss is at least the bound, between 0 and 1.

    Returns
    -------
    float
        A bound above epsilon proves, at that confidence, that the mechanism is not epsilon-private. A bound
        below it proves nothing.

    Raises
    ------
    ValueError
        If there are fewer than two inputs or no draws, or the confidence is not between 0 and 1.

    References
    ----------
    Clopper, Pearson (1934); the correction for many intervals is Bonferroni's.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers import privacy
    >>> dice = np.random.default_rng(0)
    >>> bad = lambda x, n: (dice.random(n) < (0.9 if x > 0 else 0.1)).astype(int)
    >>> round(privacy.audit(bad, [-1.0, 1.0], draws=2000), 1)  # the truth is log 9, or 2.2
    2.1

    Taught in: private-quantization
    """
    from scipy import stats

    if len(inputs) < 2 or draws < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"{len(inputs)} inputs, {draws} draws, confidence {confidence}; expected two inputs or "
            "more, a draw or more, and a confidence between 0 and 1"
        )
    answers = [np.asarray(answer(x, draws)) for x in inputs]
    width = 1 + max(int(one.max()) for one in answers)
    count_NM = np.stack([np.bincount(one, minlength=width) for one in answers])
    miss = (1 - confidence) / (2 * count_NM.size)
    low_NM = stats.beta.ppf(miss, count_NM, draws - count_NM + 1)
    high_NM = stats.beta.ppf(1 - miss, count_NM + 1, draws - count_NM)
    low_M = np.nan_to_num(low_NM, nan=0.0).max(0)
    high_M = np.nan_to_num(high_NM, nan=1.0).min(0)
    return float(np.log(np.maximum(low_M, TINY) / high_M).max())


def calibrate(
    make: Callable[[float], Mechanism], epsilon: float, *, low: float, high: float, rounds: int = 60
) -> Mechanism:
    """Return the mechanism with the parameter nearest to ``low`` whose audited loss is within the budget.

    Parameters
    ----------
    make : callable
        From a parameter to a mechanism whose loss falls as the parameter goes from ``low`` to ``high``.
    epsilon : float
        Privacy budget, above 0.
    low, high : float
        Where to look: too little privacy, and enough.
    rounds : int
        Bisections.

    Returns
    -------
    Mechanism
        Its loss is at most epsilon.

    Raises
    ------
    ValueError
        If epsilon is no budget, or the loss is above it at ``high`` as well.

    Examples
    --------
    >>> from helpers import privacy
    >>> bins = privacy.levels(4, margin=1.0)
    >>> made = privacy.calibrate(lambda s: privacy.RoundedNoise(bins, 1.0, scale=s), 1.0, low=0.01, high=50.0)
    >>> round(privacy.privacy_loss(made), 6)
    1.0

    Taught in: private-quantization
    """
    _check_epsilon(epsilon)
    if privacy_loss(make(high)) > epsilon:
        raise ValueError(
            f"the loss is above {epsilon} even at {high}; look further, or move the outer levels out"
        )
    for _ in range(rounds):
        middle = (low + high) / 2
        low, high = (low, middle) if privacy_loss(make(middle)) <= epsilon else (middle, high)
    return make(high)


def search(
    make: Callable[..., Mechanism], epsilon: float, *, over: Mapping[str, Iterable[float]], inputs_N: Array
) -> tuple[Mechanism, dict[str, float]]:
    """Return the mechanism with the smallest mean absolute error on a grid of settings, within the budget.

    Parameters
    ----------
    make : callable
        From settings, by keyword, to a mechanism; a ValueError means that there is none.
    epsilon : float
        Privacy budget, above 0; what the audit finds above it is left out.
    over : mapping of str to iterable of float
        The values of each setting; all combinations are tried.
    inputs_N : Float[ndarray, "input"]
        Inputs over which the error is averaged.

    Returns
    -------
    mechanism : Mechanism
        The best.
    settings : dict of str to float
        Its settings.

    Raises
    ------
    ValueError
        If epsilon is no budget, or no setting is feasible.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers import privacy
    >>> def make(margin):
    ...     return privacy.joint_lp(2.0, privacy.levels(4, margin=margin, inner=0.5))
    >>> grid = {"margin": [0.1, 1.0, 3.0]}
    >>> made, best = privacy.search(make, 2.0, over=grid, inputs_N=np.linspace(-1, 1, 9))
    >>> best
    {'margin': 1.0}

    Taught in: private-quantization
    """
    _check_epsilon(epsilon)
    found: list[tuple[float, Mechanism, dict[str, float]]] = []
    for values in itertools.product(*over.values()):
        settings = dict(zip(over, map(float, values), strict=True))
        try:
            made = make(**settings)
        except ValueError:
            continue
        if privacy_loss(made) <= epsilon + 1e-9:
            found.append((float(made.error(inputs_N).mean()), made, settings))
    if not found:
        raise ValueError(f"no setting has a loss of {epsilon} or less; look further out: {dict(over)}")
    _, best, settings = min(found, key=lambda one: one[0])
    return best, settings


def pack(index_N: Int[Tensor, "n"], *, bits: int) -> UInt8[Tensor, "byte"]:
    """Pack whole numbers of a few bits each into bytes.

    Parameters
    ----------
    index_N : Int[Tensor, "n"]
        Numbers from 0 to ``2**bits - 1``.
    bits : int
        1 to 8.

    Returns
    -------
    UInt8[Tensor, "byte"]
        ``ceil(n * bits / 8)`` bytes, the lowest bit first.

    Raises
    ------
    ValueError
        If a number does not fit, or the bits are not between 1 and 8.

    Examples
    --------
    >>> import torch
    >>> from helpers import privacy
    >>> privacy.pack(torch.tensor([3, 0, 2, 1]), bits=2)
    tensor([99], dtype=torch.uint8)

    Taught in: private-quantization
    """
    _check_bits(bits)
    if len(index_N) and (int(index_N.min()) < 0 or int(index_N.max()) >= 2**bits):
        raise ValueError(
            f"the numbers run from {int(index_N.min())} to {int(index_N.max())}; {bits} bits hold "
            f"0 to {2**bits - 1}"
        )
    flat = ((index_N[:, None] >> torch.arange(bits)) & 1).flatten()
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).view(-1, 8)
    return (flat << torch.arange(8)).sum(1).to(torch.uint8)


def unpack(packed: UInt8[Tensor, "byte"], *, bits: int, count: int) -> Int[Tensor, "n"]:
    """Undo `pack`.

    Parameters
    ----------
    packed : UInt8[Tensor, "byte"]
        What `pack` returned.
    bits : int
        1 to 8, as given to `pack`.
    count : int
        How many numbers were packed.

    Returns
    -------
    Int[Tensor, "n"]
        The numbers.

    Raises
    ------
    ValueError
        If there are too few bytes, or the bits are not between 1 and 8.

    Examples
    --------
    >>> import torch
    >>> from helpers import privacy
    >>> privacy.unpack(torch.tensor([99], dtype=torch.uint8), bits=2, count=4)
    tensor([3, 0, 2, 1])

    Taught in: private-quantization
    """
    _check_bits(bits)
    if 8 * len(packed) < count * bits:
        raise ValueError(f"{len(packed)} bytes hold fewer than {count} numbers of {bits} bits")
    flat = ((packed[:, None].long() >> torch.arange(8)) & 1).flatten()[: count * bits]
    return (flat.view(count, bits) << torch.arange(bits)).sum(1)


def _check_bits(bits: int) -> None:
    """Refuse a number of bits that no byte holds."""
    if not 1 <= bits <= 8:
        raise ValueError(f"bits is {bits}; expected 1 to 8")


class IntegerSampler:
    """Draw answers with whole numbers only, from the system's source of secret random bits.

    Floating-point sampling leaks: the last bits of a number that was made by a formula can tell which input
    went in. Here inputs are first rounded to a fixed grid. For every grid point the chances become whole
    numbers that sum to ``2**bits``, and an answer is drawn by comparing a secret whole number with their
    running sums. The privacy loss is that of the table, computed from the whole numbers themselves.

    Parameters
    ----------
    mechanism : Mechanism
        What to tabulate.
    inputs : int
        Points of the input grid, 2 or more, the ends of the range among them.
    bits : int
        Resolution of a chance, 8 to 62.

    Raises
    ------
    ValueError
        If the grid or the resolution is too small, or a possible answer would get a chance of zero somewhere.

    References
    ----------
    Mironov (2012), *On Significance of the Least Significant Bits for Differential Privacy*.

    Examples
    --------
    >>> from helpers import privacy
    >>> made = privacy.joint_lp(1.0, privacy.levels(4, margin=2.5, inner=0.45))
    >>> table = privacy.IntegerSampler(made, inputs=33, bits=32)
    >>> round(table.privacy_loss(), 6), len(table.sample([0.1, -0.9]))
    (1.0, 2)

    Taught in: private-quantization
    """

    def __init__(self, mechanism: Mechanism, *, inputs: int = 257, bits: int = 32) -> None:
        if inputs < 2 or not 8 <= bits <= 62:
            raise ValueError(f"{inputs} inputs, {bits} bits; expected 2 inputs or more, and 8 to 62 bits")
        self.mechanism, self.bits = mechanism, bits
        self.grid_N = np.linspace(-mechanism.clip, mechanism.clip, inputs)
        self.weight_NM = np.stack([_whole(row_M, bits) for row_M in mechanism.probabilities(self.grid_N)])
        if ((self.weight_NM == 0) & (self.weight_NM.max(0) > 0)).any():
            raise ValueError(f"{bits} bits are too few: an answer would be possible under some inputs only")

    def privacy_loss(self) -> float:
        """Return the exact privacy loss of the table."""
        high_M, low_M = self.weight_NM.max(0), self.weight_NM.min(0)
        used = high_M > 0
        return math.log(
            max(int(high) / int(low) for high, low in zip(high_M[used], low_M[used], strict=True))
        )

    def sample(self, x: Iterable[float]) -> list[int]:
        """Draw an answer to every input: the number of its level."""
        x_N = _inside(np.array(list(x)), self.mechanism.clip)
        place_N = np.abs(x_N[:, None] - self.grid_N).argmin(1)
        sums_NM = self.weight_NM.cumsum(1)
        return [int((sums_NM[place] <= secrets.randbits(self.bits)).sum()) for place in place_N]


def _whole(chance_M: Array, bits: int) -> Array:
    """Round chances to whole numbers that sum to ``2**bits``, the largest remainders up."""
    exact_M = np.maximum(chance_M, 0) / chance_M.sum() * 2.0**bits
    whole_M = np.floor(exact_M).astype(np.int64)
    missing = 2**bits - int(whole_M.sum())
    whole_M[np.argsort(whole_M - exact_M, kind="stable")[:missing]] += 1
    return whole_M
