"""What a denoiser of ECGs has to beat: filters, wavelets, local polynomials. Each takes a whole recording."""

from __future__ import annotations

import math
import warnings

import numpy as np
from jaxtyping import Float
from scipy.signal import butter, savgol_filter, sosfiltfilt

__all__ = ["neurokit", "savitzky_golay", "wavelet", "without_wander"]

Array = np.ndarray


def neurokit(
    signal_CT: Float[Array, "lead sample"], *, rate: int, method: str = "neurokit"
) -> Float[Array, "lead sample"]:
    """Clean with neurokit2.

    Parameters
    ----------
    signal_CT : Float[ndarray, "lead sample"]
        A recording, some seconds long.
    rate : int
        Samples a second.
    method : str
        ``"neurokit"`` (high-pass at 0.5 Hz, power line), ``"biosppy"`` (0.67 to 45 Hz), or another of
        neurokit2's ``ecg_clean``.

    Returns
    -------
    Float[ndarray, "lead sample"]
        The cleaned recording.

    References
    ----------
    Makowski et al. (2021), neurokit2.

    Examples
    --------
    >>> from helpers.ecg import baselines, signals
    >>> record = signals.simulate(0, seconds=5)
    >>> baselines.neurokit(record.signal_CT, rate=360).shape
    (2, 1800)

    Taught in: ecg-denoising
    """
    import neurokit2 as nk

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.stack([nk.ecg_clean(lead_T, sampling_rate=rate, method=method) for lead_T in signal_CT])


def wavelet(
    signal_CT: Float[Array, "lead sample"], *, rate: float, name: str = "sym8", above: float = 10.0,
    strength: float = 0.8, rule: str = "universal",
) -> Float[Array, "lead sample"]:  # fmt: skip
    """Shrink the wavelet coefficients of each band towards zero, after a high-pass at 0.5 Hz.

    The threshold of a band is ``strength sigma sqrt(2 log n)``, with sigma from the median of its magnitudes:
    noise of this kind is not white, so each band has its own (Johnstone and Silverman 1997). Bands below
    `above` hold the waves of the heart beat and are left alone.

    Parameters
    ----------
    signal_CT : Float[ndarray, "lead sample"]
        A recording, a second or longer.
    rate : float
        Samples a second.
    name : str
        A wavelet of PyWavelets.
    above : float
        Bands whose lower end is above this frequency (Hz) are thresholded.
    strength : float
        Factor of the threshold.
    rule : {"universal", "share"}
        ``"share"`` is the rule of the released comparison: 0.04 of each band's maximum, and no high-pass.

    Returns
    -------
    Float[ndarray, "lead sample"]
        The denoised recording.

    Raises
    ------
    ValueError
        If the rule is not one of the two.

    References
    ----------
    Donoho (1995); Johnstone and Silverman (1997).

    Examples
    --------
    >>> from helpers.ecg import baselines, signals
    >>> record = signals.simulate(0, seconds=5)
    >>> baselines.wavelet(record.signal_CT, rate=360).shape
    (2, 1800)

    Taught in: ecg-denoising
    """
    import pywt

    if rule not in ("universal", "share"):
        raise ValueError(f"rule={rule!r}; expected 'universal' or 'share'")
    T = signal_CT.shape[1]
    high_CT = signal_CT if rule == "share" else without_wander(signal_CT, rate=rate)
    levels = min(max(1, int(math.log2(rate / 5))), pywt.dwt_max_level(T, name))
    slow, *details = pywt.wavedec(high_CT, name, mode="symmetric", level=levels, axis=1)
    for place, band_CT in enumerate(details):
        low = rate / 2 ** (levels - place + 1)
        spread_C1 = np.median(np.abs(band_CT), axis=1, keepdims=True) / 0.6745
        limit_C1 = strength * spread_C1 * math.sqrt(2 * math.log(T)) * (low > above)
        if rule == "share":
            limit_C1 = 0.04 * np.abs(band_CT).max(axis=1, keepdims=True)
        details[place] = np.sign(band_CT) * np.maximum(np.abs(band_CT) - limit_C1, 0)
    return pywt.waverec([slow, *details], name, mode="symmetric", axis=1)[:, :T]


def without_wander(
    signal_CT: Float[Array, "lead sample"], *, rate: float, below: float = 0.5
) -> Float[Array, "lead sample"]:
    """Take off what is slower than `below`, forwards and backwards so that nothing is shifted.

    Parameters
    ----------
    signal_CT : Float[ndarray, "lead sample"]
        A recording, a second or longer.
    rate : float
        Samples a second.
    below : float
        Hz, below half the rate.

    Returns
    -------
    Float[ndarray, "lead sample"]
        The recording without its wander, and without its mean.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import baselines
    >>> slow = np.sin(2 * np.pi * 0.05 * np.arange(9000) / 180)[None]
    >>> bool(np.abs(baselines.without_wander(slow, rate=180)).max() < 0.1)
    True

    Taught in: ecg-denoising
    """
    return sosfiltfilt(butter(2, below, "highpass", fs=rate, output="sos"), signal_CT, axis=1)


def savitzky_golay(
    signal_CT: Float[Array, "lead sample"], *, rate: float, window: float = 0.06, order: int = 3
) -> Float[Array, "lead sample"]:
    """Fit a polynomial in a short window around every sample, after a high-pass at 0.5 Hz.

    Parameters
    ----------
    signal_CT : Float[ndarray, "lead sample"]
        A recording, a second or longer.
    rate : float
        Samples a second.
    window : float
        Seconds; rounded to an odd number of samples that is above the order.
    order : int
        Degree of the polynomial.

    Returns
    -------
    Float[ndarray, "lead sample"]
        The smoothed recording.

    References
    ----------
    Savitzky and Golay (1964).

    Examples
    --------
    >>> from helpers.ecg import baselines, signals
    >>> record = signals.simulate(0, seconds=5)
    >>> baselines.savitzky_golay(record.signal_CT, rate=360).shape
    (2, 1800)

    Taught in: ecg-denoising
    """
    samples = max(int(window * rate) // 2 * 2 + 1, order + 2 - order % 2)
    return savgol_filter(without_wander(signal_CT, rate=rate), samples, order, axis=1)
