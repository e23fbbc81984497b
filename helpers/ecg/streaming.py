"""Denoise a recording of any length, rate and unit with a network that knows short segments only."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from jaxtyping import Float
from scipy.signal import resample_poly
from torch import nn

from helpers.ecg.baselines import without_wander

__all__ = ["Denoiser", "fill_gaps", "windows"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Denoiser:
    """Denoise recordings: resample, cut into overlapping windows, denoise each, and blend them.

    Windows overlap by half and are weighted by a raised cosine. The weights of two neighbours sum to one, so
    where both agree nothing is seen of the seam. This is a teaching tool, not a medical device.

    Parameters
    ----------
    net : Module
        From (batch, 2, length) to the same, in ``eval()``.
    rate : float
        Samples a second that the network was trained on.
    length : int
        Samples of its segments, even.
    batch : int
        Windows that go through the network together: what bounds the memory.
    longest_gap : float
        Seconds. Missing samples (NaN) are bridged for the network; those of longer gaps come out as NaN.
    highpass : float
        Hz; what is slower is taken off before the network sees it, as monitors do. 0 is off.

    Raises
    ------
    ValueError
        If the rate is not above zero or the length is odd.

    Examples
    --------
    >>> import numpy as np, torch
    >>> from helpers.ecg import streaming
    >>> denoise = streaming.Denoiser(torch.nn.Identity(), rate=180, length=128)
    >>> x = np.sin(np.arange(1000) / 20)[None]
    >>> bool(np.abs(denoise(x, rate=180) - x).max() < 1e-5)
    True

    Taught in: ecg-denoising
    """

    net: nn.Module
    rate: float = 180.0
    length: int = 128
    batch: int = 256
    longest_gap: float = 0.1
    highpass: float = 0.0

    def __post_init__(self) -> None:
        if not self.rate > 0 or self.length % 2 or self.length < 4:
            raise ValueError(
                f"rate={self.rate}, length={self.length}; expected a rate above 0 and an even length"
            )

    def __call__(self, signal_CT: Float[Array, "lead sample"], *, rate: float) -> Float[Array, "lead sample"]:
        """Denoise one recording of one or two leads; flat leads stay flat, the mean of each is put back.

        Parameters
        ----------
        signal_CT : Float[ndarray, "lead sample"]
            One or two leads, any unit; NaN where samples are missing.
        rate : float
            Samples a second.

        Returns
        -------
        Float[ndarray, "lead sample"]
            As many leads and samples, in the unit that came in.

        Raises
        ------
        ValueError
            If there are not one or two leads, there is no sample, the rate is not above zero, or a sample is
            infinite.
        """
        given_CT = np.asarray(signal_CT, dtype=float)
        if given_CT.ndim != 2 or len(given_CT) not in (1, 2) or not given_CT.size or not rate > 0:
            raise ValueError(
                f"shape {given_CT.shape} at rate {rate}; expected (1 or 2 leads, samples) and a rate "
                "above 0: transpose it, or choose two leads"
            )
        if np.isinf(given_CT).any():
            raise ValueError("the recording has infinite samples; put NaN where samples are missing")
        missing_CT = np.isnan(given_CT)
        whole_CT = np.stack([fill_gaps(lead_T) for lead_T in given_CT])
        if self.highpass:
            whole_CT = _without_slow(whole_CT, self.highpass, rate)
        centre_C1 = np.median(whole_CT, axis=1, keepdims=True)
        spread_C1 = (whole_CT - centre_C1).std(axis=1, keepdims=True)
        flat_C1 = spread_C1 <= 1e-9 * (1 + np.abs(centre_C1))
        scaled_CT = np.where(flat_C1, 0, (whole_CT - centre_C1) / np.where(flat_C1, 1, spread_C1))
        found_CT = np.where(flat_C1, 0, self._at_own_rate(scaled_CT, rate)) * spread_C1 + centre_C1
        for lead_T, missing_T in zip(found_CT, missing_CT, strict=True):
            lead_T[_long_runs(missing_T, self.longest_gap * rate)] = np.nan
        return found_CT

    def _at_own_rate(self, scaled_CT: Array, rate: float) -> Array:
        """Resample, denoise, resample back."""
        ratio = Fraction(self.rate / rate).limit_denominator(1000)
        up, down = ratio.numerator, ratio.denominator
        own_CT = scaled_CT if up == down else resample_poly(scaled_CT, up, down, axis=1, padtype="line")
        clean_CT = self._blended(own_CT)
        if up != down:
            clean_CT = resample_poly(clean_CT, down, up, axis=1, padtype="line")
        T = scaled_CT.shape[1]
        return np.pad(clean_CT, ((0, 0), (0, max(0, T - clean_CT.shape[1]))), mode="edge")[:, :T]

    @torch.no_grad()
    def _blended(self, own_CT: Array) -> Array:
        """Denoise overlapping windows and add them up."""
        C, T = own_CT.shape
        both_CT = own_CT if C == 2 else np.repeat(own_CT, 2, axis=0)
        half = self.length // 2
        count = -(-T // half) + 1
        padded_CT = np.pad(both_CT, ((0, 0), (half, (count + 1) * half - half - T)), mode="edge")
        weight_T = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(self.length) + 0.5) / self.length)
        made_CT = np.zeros_like(padded_CT)
        for first in range(0, count, self.batch):
            last = min(first + self.batch, count)
            some_BCT = windows(padded_CT[:, first * half : (last + 1) * half], length=self.length)
            out_BCT = self.net(torch.from_numpy(some_BCT.copy()).float()).numpy() * weight_T
            for place, out_CT in enumerate(out_BCT, first):
                made_CT[:, place * half : place * half + self.length] += out_CT
        made_CT = made_CT[:, half : half + T]
        return made_CT if C == 2 else made_CT.mean(0, keepdims=True)


def windows(signal_CT: Float[Array, "lead sample"], *, length: int) -> Float[Array, "window lead length"]:
    """Return the windows of a signal that overlap by half, without copying it.

    Parameters
    ----------
    signal_CT : Float[ndarray, "lead sample"]
        The signal, one window or longer.
    length : int
        Samples of a window, even.

    Returns
    -------
    Float[ndarray, "window lead length"]
        The windows, in order; a rest shorter than half a window is dropped.

    Raises
    ------
    ValueError
        If the signal is shorter than one window.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import streaming
    >>> streaming.windows(np.arange(6.0)[None], length=4)[:, 0]
    array([[0., 1., 2., 3.],
           [2., 3., 4., 5.]])

    Taught in: ecg-denoising
    """
    if signal_CT.shape[1] < length:
        raise ValueError(f"the signal has {signal_CT.shape[1]} samples, a window {length}; give a longer one")
    view = np.lib.stride_tricks.sliding_window_view(signal_CT, length, axis=1)
    return view[:, :: length // 2].swapaxes(0, 1)


def fill_gaps(lead_T: Float[Array, "sample"]) -> Float[Array, "sample"]:
    """Bridge missing samples with straight lines; a lead without any sample becomes 0.

    Parameters
    ----------
    lead_T : Float[ndarray, "sample"]
        One lead; NaN where samples are missing.

    Returns
    -------
    Float[ndarray, "sample"]
        The lead without NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import streaming
    >>> streaming.fill_gaps(np.array([1.0, np.nan, 3.0, np.nan]))
    array([1., 2., 3., 3.])

    Taught in: ecg-denoising
    """
    known_T = ~np.isnan(lead_T)
    if not known_T.any():
        return np.zeros_like(lead_T)
    places_T = np.arange(len(lead_T))
    return np.interp(places_T, places_T[known_T], lead_T[known_T])


def _without_slow(whole_CT: Array, frequency: float, rate: float) -> Array:
    """Take off what is slower than a frequency; the mean stays. Too short a recording is left as it is."""
    if whole_CT.shape[1] < 16:
        return whole_CT
    return without_wander(whole_CT, rate=rate, below=frequency) + whole_CT.mean(1, keepdims=True)


def _long_runs(missing_T: Array, longest: float) -> Array:
    """Say which samples belong to a gap that is longer than so many samples."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], missing_T.astype(int), [0]])))
    long_T = np.zeros(len(missing_T), dtype=bool)
    for first, last in edges.reshape(-1, 2):
        long_T[first:last] = last - first > longest
    return long_T
