"""What a mechanism is, the unbiased family of the paper, and where levels stand."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Mechanism", "TwoLevel", "levels"]

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
        x_N = inside(x_N, self.clip)
        interval_N = np.clip(np.searchsorted(self.bins_M, x_N, side="right") - 1, 0, len(self.bins_M) - 2)
        return self._chances(x_N, interval_N)

    def extremes(self) -> Float[Array, "point bin"]:
        """Return the chances at both ends of every interval.

        Within an interval each chance is a line in x, so its largest and smallest values stand at the ends.
        At a level between two intervals both one-sided limits count.
        """
        low_J, high_J, used_J = intervals(self.bins_M, self.clip)
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


def inside(x_N: Array, clip: float) -> Array:
    """Return inputs as an array of floats; refuse what is outside the range, or no number."""
    x_N = np.asarray(x_N, dtype=float)
    bad = ~(np.abs(x_N) <= clip * (1 + TINY))
    if bad.any():
        raise ValueError(
            f"{bad.sum()} of {x_N.size} inputs are outside [-{clip}, {clip}] or not a number, such as "
            f"{x_N[bad].flat[0]}; clip them first (and say so: clipping is a second error)"
        )
    return x_N


def intervals(bins_M: Array, clip: float) -> tuple[Array, Array, Array]:
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
