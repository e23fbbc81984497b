"""The rivals: Laplace or Gaussian noise, rounded to the levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from helpers.privacy.mechanisms import Array, Mechanism, inside

__all__ = ["RoundedNoise"]


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
        x_N1 = inside(x_N, self.clip)[:, None]
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
