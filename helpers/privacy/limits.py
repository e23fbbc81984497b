"""What a budget is, and what it costs at least: two closed forms."""

from __future__ import annotations

import math

__all__ = ["duchi_level", "staircase_error"]


def check_epsilon(epsilon: float) -> None:
    """Refuse a budget that is no budget."""
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(
            f"epsilon is {epsilon}; expected a finite number above zero (0 would forbid any answer that "
            "depends on the input, infinity any privacy)"
        )


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
    check_epsilon(epsilon)
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
    check_epsilon(epsilon)
    return 2 * clip * math.exp(epsilon / 2) / math.expm1(epsilon)
