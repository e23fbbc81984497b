"""What a deployment needs: a mechanism as a table of whole numbers, drawn from with secret random bits."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable

import numpy as np

from helpers.privacy.mechanisms import Array, Mechanism, inside

__all__ = ["IntegerSampler"]


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
        x_N = inside(np.array(list(x)), self.mechanism.clip)
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
