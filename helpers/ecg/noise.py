"""Noise of electrocardiograms: the wandering baseline, muscles, electrodes that move, and all three.

Each seed is a *noise record* with spectrum, bursts and events of its own. A denoiser that was trained on one
noise record knows that record: so records are split, never segments.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.signal import butter, sosfiltfilt

__all__ = ["KINDS", "draw", "make", "mix", "snr"]

Array = np.ndarray
KINDS = ("wander", "muscle", "electrode", "mixture")
LEVELS = (-4.0, -2.0, 0.0, 2.0, 4.0)  # dB, those of the paper's code


def make(kind: str, seed: int, *, seconds: float = 60.0, rate: float = 360.0) -> Float[Array, "2 sample"]:
    """Make one noise record of two leads, each with mean 0 and standard deviation 1.

    Parameters
    ----------
    kind : {"wander", "muscle", "electrode", "mixture"}
        Baseline wander (below 1 Hz), muscle (15 to 150 Hz, in bursts), electrode motion (jumps and bumps that
        look like beats), or the sum of all three at equal power.
    seed : int
        Which record: its spectrum, bursts and events come from it.
    seconds : float
        Length, two seconds or more.
    rate : float
        Samples a second, 100 or more.

    Returns
    -------
    Float[ndarray, "2 sample"]
        The noise; the leads are correlated, as electrodes share a body.

    Raises
    ------
    ValueError
        If the kind is not one of the four, or the length or rate is too small.

    References
    ----------
    After Moody, Muldrow and Mark (1984), whose recorded noise these stand in for.

    Examples
    --------
    >>> from helpers.ecg import noise
    >>> noise.make("muscle", 0, seconds=4).std(axis=1).round(6)
    array([1., 1.])

    Taught in: ecg-denoising
    """
    if kind not in KINDS or seconds < 2 or rate < 100:
        raise ValueError(
            f"kind={kind!r}, seconds={seconds}, rate={rate}; expected one of {', '.join(KINDS)}, "
            "2 seconds and 100 samples a second or more"
        )
    if kind == "mixture":
        parts = [make(part, seed, seconds=seconds, rate=rate) for part in KINDS[:3]]
        return _standard(np.sum(parts, axis=0))
    rng = np.random.default_rng([KINDS.index(kind), seed])
    count = round(seconds * rate)
    draw_one = {"wander": _wander, "muscle": _muscle, "electrode": _electrode}[kind]
    own_CT = np.stack([draw_one(rng, count, rate) for _ in range(2)])
    shared_T = draw_one(rng, count, rate)
    share = rng.uniform(0.3, 0.9)
    return _standard(np.sqrt(1 - share) * _standard(own_CT) + np.sqrt(share) * _standard(shared_T[None]))


def _standard(signal_CT: Float[Array, "lead sample"]) -> Float[Array, "lead sample"]:
    """Give each lead a mean of 0 and a standard deviation of 1."""
    return (signal_CT - signal_CT.mean(1, keepdims=True)) / signal_CT.std(1, keepdims=True)


def _shaped(
    rng: np.random.Generator, count: int, rate: float, power: float, low: float, high: float
) -> Array:
    """Draw Gaussian noise whose amplitude falls as frequency to a power, between two frequencies."""
    frequency = np.fft.rfftfreq(count, 1 / rate)
    inside = (frequency >= low) & (frequency <= high)
    amplitude = np.where(inside, np.maximum(frequency, 1e-3) ** -power, 0)
    phases = np.exp(2j * np.pi * rng.random(len(frequency)))
    shaped = np.fft.irfft(amplitude * phases * rng.rayleigh(size=len(frequency)), count)
    return shaped / (shaped.std() + 1e-12)


def _wander(rng: np.random.Generator, count: int, rate: float) -> Float[Array, "sample"]:
    """Breathing, and a slow drift."""
    time_T = np.arange(count) / rate
    breath_T = np.sin(2 * np.pi * (rng.uniform(0.15, 0.4) * time_T + rng.random()))
    drift_T = _shaped(rng, count, rate, rng.uniform(0.6, 1.4), 0.04, rng.uniform(0.5, 1.0))
    return drift_T + rng.uniform(0.2, 1.2) * breath_T


def _muscle(rng: np.random.Generator, count: int, rate: float) -> Float[Array, "sample"]:
    """Fast noise that swells and fades."""
    high = min(rng.uniform(80, 150), 0.48 * rate)
    fast_T = _shaped(rng, count, rate, rng.uniform(0, 0.5), rng.uniform(12, 25), high)
    return fast_T * np.exp(rng.uniform(0.3, 0.9) * _shaped(rng, count, rate, 0.5, 0.05, 1.5))


def _electrode(rng: np.random.Generator, count: int, rate: float) -> Float[Array, "sample"]:
    """Jumps that fade and bumps that come and go, over restless noise of 0.5 to 10 Hz."""
    restless_T = _shaped(rng, count, rate, rng.uniform(0.5, 1.0), 0.5, 10)
    events_T, spacing = np.zeros(count), rate / rng.uniform(0.7, 2.0)
    at = rng.exponential(spacing)
    while at < count:
        length = int(rate * rng.uniform(0.1, 0.9))
        tail_T = np.arange(length) / length
        jump = np.exp(-4 * tail_T) if rng.random() < 0.5 else np.sin(np.pi * tail_T) ** 2
        room = min(length, count - int(at))
        events_T[int(at) : int(at) + room] += (rng.standard_normal() * jump)[:room]
        at += rng.exponential(spacing)
    smooth = butter(2, min(40, 0.4 * rate), fs=rate, output="sos")
    events_T = sosfiltfilt(smooth, events_T - events_T.mean())
    return restless_T + rng.uniform(0.7, 1.5) * events_T / (events_T.std() + 1e-12)


def mix(
    clean_BCT: Float[Array, "*batch lead sample"], noise_BCT: Float[Array, "*batch lead sample"],
    snr_B: Float[Array, "*batch"] | float,
    *,
    around: int = 0,
) -> Float[Array, "*batch lead sample"]:  # fmt: skip
    """Add noise at a signal-to-noise ratio in dB, power being the mean square over both leads.

    Parameters
    ----------
    clean_BCT, noise_BCT : Float[ndarray, "batch lead sample"]
        Signals and noise of one shape.
    snr_B : Float[ndarray, "batch"] or float
        The ratio, dB; one for all or one each.
    around : int
        Samples at either end that get the same noise but do not count for the ratio.

    Returns
    -------
    Float[ndarray, "batch lead sample"]
        ``x + n sqrt(mean(x^2) / (mean(n^2) 10^(snr / 10)))``.

    Raises
    ------
    ValueError
        If the noise of a segment is nothing but zeros.

    References
    ----------
    The released code of arXiv 2407.11065, data preparation.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import noise
    >>> clean, dirt = np.ones((1, 2, 8)), np.full((1, 2, 8), 5.0)
    >>> noise.mix(clean, dirt, 0.0)[0, 0, 0]
    np.float64(2.0)

    Taught in: ecg-denoising
    """
    inner = slice(around, clean_BCT.shape[-1] - around)
    power_B = (clean_BCT[..., inner] ** 2).mean((-2, -1))
    noise_power_B = (noise_BCT[..., inner] ** 2).mean((-2, -1))
    if not np.all(noise_power_B > 0):
        raise ValueError(
            "the noise of a segment has no power: no ratio can be set; give noise that is not flat"
        )
    scale_B = np.sqrt(power_B / (noise_power_B * 10 ** (np.asarray(snr_B) / 10)))
    return clean_BCT + noise_BCT * scale_B[..., None, None]


def snr(
    clean_BCT: Float[Array, "*batch lead sample"], found_BCT: Float[Array, "*batch lead sample"]
) -> Float[Array, "*batch"] | float:
    """Return the output signal-to-noise ratio of each segment in dB.

    Parameters
    ----------
    clean_BCT, found_BCT : Float[ndarray, "batch lead sample"]
        What it should be, and what it is.

    Returns
    -------
    Float[ndarray, "batch"]
        ``10 log10(mean(x^2) / mean((x - found)^2))``; what is right to the last digit counts as 100.

    References
    ----------
    The released code of arXiv 2407.11065, metrics.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import noise
    >>> noise.snr(np.ones((1, 2, 8)), np.full((1, 2, 8), 1.1)).round(6)
    array([20.])

    Taught in: ecg-denoising
    """
    power_B = (clean_BCT**2).mean((-2, -1))
    error_B = ((clean_BCT - found_BCT) ** 2).mean((-2, -1))
    return 10 * np.log10(np.maximum(power_B, 1e-12) / np.maximum(error_B, 1e-10 * power_B + 1e-22))


def draw(
    clean_RCT: Float[Array, "record lead sample"], noise_RCT: Float[Array, "noise_record lead sample"], *,
    count: int, levels: tuple[float, ...] = LEVELS, length: int = 256, seed: int | list[int] = 0,
    part: tuple[float, float] = (0.0, 1.0),
    around: int = 0,
) -> tuple[Float[Array, "batch lead length"], Float[Array, "batch lead length"]]:  # fmt: skip
    """Draw segments of random records at random places, with random noise at random levels.

    Parameters
    ----------
    clean_RCT, noise_RCT : Float[ndarray, "record lead sample"]
        The records to draw from.
    count : int
        How many segments.
    levels : tuple of float
        Signal-to-noise ratios, dB.
    length : int
        Samples of a segment.
    seed : int or list of int
        Of the draw.
    part : tuple of float
        Which part of each record to draw from, as shares of its length: a split by segment cuts records.
    around : int
        Samples before and after each segment that come along, for filters that need a longer look. The level
        is that of the segment alone.

    Returns
    -------
    tuple of Float[ndarray, "batch lead length"]
        The clean segments, and the same with noise.

    Raises
    ------
    ValueError
        If the part of a record is shorter than a segment.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import noise
    >>> records = np.random.default_rng(0).standard_normal((3, 2, 600))
    >>> clean, noisy = noise.draw(records, records, count=5, levels=(0.0,))
    >>> clean.shape, bool(abs(noise.snr(clean, noisy)).max() < 1e-9)
    ((5, 2, 256), True)

    Taught in: ecg-denoising
    """
    rng = np.random.default_rng(seed)
    taken, whole = [], length + 2 * around
    for records_RCT in (clean_RCT, noise_RCT):
        first, last = (int(share * records_RCT.shape[2]) for share in part)
        if last - first < whole:
            raise ValueError(
                f"a part of {last - first} samples has no segment of {whole}; take a longer part"
            )
        start_B = rng.integers(first, last - whole + 1, count)
        row_B = rng.integers(len(records_RCT), size=count)
        place_BT = start_B[:, None] + np.arange(whole)
        taken.append(records_RCT[row_B[:, None, None], np.arange(2)[:, None], place_BT[:, None]])
    return taken[0], mix(taken[0], taken[1], rng.choice(levels, count), around=around)
