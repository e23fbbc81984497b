"""The book's best joint draw of a pair, on any levels: one linear program."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from helpers.privacy.limits import check_epsilon, duchi_level
from helpers.privacy.mechanisms import Array, TwoLevel, inside, intervals

__all__ = ["joint_lp"]


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

    check_epsilon(epsilon)
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
        low_J, high_J, used_J = intervals(bins_M, clip)
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
        x_N = inside(inputs_N, self.clip)
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
