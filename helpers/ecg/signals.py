"""Simulated electrocardiograms of two leads, with the place and the kind of every beat.

ECGSYN (McSharry et al. 2003) draws a heart beat as a point that runs round a circle, once a beat, and is
pulled up and down as it passes the angles of the waves P, Q, R, S and T. neurokit2 integrates it step by
step. On the circle itself, where the point always is, the equation of the voltage is linear, so `simulate`
solves it as a filter: the same signal, about a thousand times faster, and with one thing that ECGSYN does
not have: beats that come too early and are wide, as from a ventricle.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import lfilter

__all__ = ["Record", "cut", "from_neurokit", "real_sample", "simulate", "standardise"]

Array = np.ndarray
RATE = 360  # samples a second, as in the MIT-BIH databases
ANGLES = np.array([-70.0, -15.0, 0.0, 15.0, 100.0]) * np.pi / 180  # of P, Q, R, S, T
HEIGHTS = np.array([1.2, -5.0, 30.0, -7.5, 0.75])
WIDTHS = np.array([0.25, 0.1, 0.1, 0.1, 0.4])


@dataclass(frozen=True, eq=False)
class Record:
    """Hold one recording.

    Parameters
    ----------
    name : str
        Whose it is: a split by record is a split by this name.
    rate : float
        Samples a second.
    signal_CT : Float[ndarray, "lead sample"]
        The voltages; mV, or standard deviations after `standardise`.
    peaks_N : Int[ndarray, "beat"]
        The sample of each R peak, increasing.
    labels_N : ndarray of str
        The kind of each beat: ``"N"`` for normal, ``"V"`` for premature ventricular.

    Examples
    --------
    >>> from helpers.ecg import signals
    >>> record = signals.simulate(0, seconds=10)
    >>> record.signal_CT.shape, record.seconds
    ((2, 3600), 10.0)

    Taught in: ecg-denoising
    """

    name: str
    rate: float
    signal_CT: Float[Array, "lead sample"]
    peaks_N: Int[Array, "beat"]
    labels_N: Array

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.signal_CT.shape[1] / self.rate


def simulate(
    seed: int, *, seconds: float = 60.0, rate: float = RATE, heart_rate: float | None = None,
    premature: float = 0.12, early: float | None = None,
) -> Record:  # fmt: skip
    """Simulate a person: two leads with a morphology, a heart rate and premature beats of their own.

    Parameters
    ----------
    seed : int
        Who it is.
    seconds : float
        Length, two seconds or more.
    rate : float
        Samples a second, 50 or more.
    heart_rate : float, optional
        Beats a minute, 20 to 250; drawn from 55 to 100 by default.
    premature : float
        The chance that a beat is premature, 0 to 0.5; two never follow each other.
    early : float, optional
        When a premature beat comes, as a share of the usual interval; drawn from 0.55 to 0.75 by default.

    Returns
    -------
    Record
        Both leads with mean 0 and standard deviation 1.

    Raises
    ------
    ValueError
        If the length, the rate, the heart rate or the chance is out of its range.

    References
    ----------
    McSharry et al. (2003), equations 1 and 2; the premature beats are the book's.

    Examples
    --------
    >>> from helpers.ecg import signals
    >>> record = signals.simulate(0, seconds=10, heart_rate=60.0, premature=0.0)
    >>> len(record.peaks_N), set(record.labels_N.tolist())
    (10, {'N'})

    Taught in: ecg-denoising
    """
    rng = np.random.default_rng(seed)
    drawn = rng.uniform(55, 100), rng.uniform(0.55, 0.75)
    heart_rate, early = heart_rate or drawn[0], early or drawn[1]
    if not (seconds >= 2 and rate >= 50 and 20 <= heart_rate <= 250 and 0 <= premature <= 0.5):
        raise ValueError(
            f"seconds={seconds}, rate={rate}, heart_rate={heart_rate}, premature={premature}; expected at "
            "least 2 seconds, 50 samples a second, 20 to 250 beats a minute and a chance of 0 to 0.5"
        )
    intervals_N = _intervals(rng, heart_rate, count=int(seconds * heart_rate / 40) + 8)
    is_early_N = rng.random(len(intervals_N)) < premature
    is_early_N[1:] &= ~is_early_N[:-1]
    is_early_N[:2] = False
    for beat in np.flatnonzero(is_early_N[:-1]):  # the pause after it makes up for the time
        lost = (1 - early) * intervals_N[beat]
        intervals_N[beat] -= lost
        intervals_N[beat + 1] += lost
    times_N = np.cumsum(intervals_N) - intervals_N[0] * rng.uniform(0.1, 0.9)
    waves = _morphology(rng, heart_rate)
    kinds_N = is_early_N.astype(int)
    signal_CT = np.stack([_voltage(times_N, kinds_N, lead, seconds, rate) for lead in waves])
    kept = times_N < seconds - 0.5 / rate
    peaks_N = np.round(times_N[kept] * rate).astype(int)
    labels_N = np.where(is_early_N[kept], "V", "N")
    return standardise(Record(f"simulated {seed}", rate, signal_CT, peaks_N, labels_N))


def _intervals(rng: np.random.Generator, heart_rate: float, count: int) -> Float[Array, "beat"]:
    """Draw intervals between beats that swing with breathing (0.25 Hz) and blood pressure (0.1 Hz)."""
    mean, spread = 60 / heart_rate, rng.uniform(0.01, 0.05)
    time = np.arange(count) * mean
    swing = np.zeros(count)
    for centre, power in ((0.1, 0.5), (0.25, 1.0)):
        for frequency in centre + 0.01 * rng.standard_normal(8):
            swing += np.sqrt(power) * np.sin(2 * np.pi * (frequency * time + rng.random()))
    return mean * (1 + spread * swing / swing.std())


def _morphology(rng: np.random.Generator, heart_rate: float) -> list[Float[Array, "kind wave 3"]]:
    """Draw angle, height and width of the waves, for each lead; kind 1 is the premature beat."""
    factor = np.sqrt(heart_rate / 60)  # as in ECGSYN: faster hearts have rounder waves
    angles = ANGLES * factor ** np.array([0.5, 1, 1, 1, 0.5]) * rng.uniform(0.9, 1.1, 5)
    widths = WIDTHS * factor * rng.uniform(0.8, 1.25, 5)
    heights = HEIGHTS * np.exp(0.25 * rng.standard_normal(5))
    heights[4] *= rng.choice([-1, 1], p=[0.1, 0.9])
    wide = widths * np.array([1, 1, rng.uniform(2.0, 3.2), rng.uniform(2.0, 3.2), 1.2])
    leads = []
    for lead in range(2):
        view = (
            np.ones(5) if lead == 0 else rng.uniform([0.3, 0.2, -0.6, 0.3, -0.5], [1.2, 1.5, 0.9, 1.6, 1.2])
        )
        normal = np.stack([angles, heights * view, widths], axis=1)
        sign, size = rng.choice([-1, 1]), rng.uniform(0.6, 1.1)
        odd = HEIGHTS[2] * sign * size * np.array([0, 0, 1, -rng.uniform(0.2, 0.8), -rng.uniform(0.01, 0.03)])
        odd *= (widths / wide) ** 2  # a wave is as high as its height times its width squared
        leads.append(np.stack([normal, np.stack([angles * [1, 1, 1, 2.2, 1.1], odd, wide], axis=1)]))
    return leads


def _voltage(
    times_N: Array, kinds_N: Array, waves: Array, seconds: float, rate: float
) -> Float[Array, "sample"]:
    """Solve ECGSYN's equation of the voltage, dz/dt = drive(angle) - z, for given beats."""
    time_T = np.arange(-int(2 * rate), round(seconds * rate)) / rate
    before = times_N[0] - np.arange(6, 0, -1) * np.diff(times_N).mean()
    beat_T = np.interp(time_T, np.concatenate([before, times_N]), np.arange(-6, len(times_N)))
    nearest_T = np.clip(np.round(beat_T).astype(int), -6, len(times_N) - 1)
    kind_T = np.where(nearest_T >= 0, kinds_N[np.maximum(nearest_T, 0)], 0)
    angle_T = 2 * np.pi * (beat_T - nearest_T)
    angles_TW, heights_TW, widths_TW = np.moveaxis(waves[kind_T], 2, 0)
    turn_TW = angle_T[:, None] - angles_TW
    turn_TW -= 2 * np.pi * np.round(turn_TW / (2 * np.pi))
    drive_T = -(heights_TW * turn_TW * np.exp(-0.5 * (turn_TW / widths_TW) ** 2)).sum(1)
    keep = np.exp(-1 / rate)
    return lfilter([1 - keep], [1, -keep], drive_T)[-round(seconds * rate) :]


def standardise(record: Record) -> Record:
    """Give each lead a mean of 0 and a standard deviation of 1; a flat lead becomes 0.

    Parameters
    ----------
    record : Record
        Any record without missing samples.

    Returns
    -------
    Record
        The same beats, another scale.

    Examples
    --------
    >>> from helpers.ecg import signals
    >>> record = signals.standardise(signals.real_sample())
    >>> record.signal_CT.std().round(3)
    np.float64(1.0)

    Taught in: ecg-denoising
    """
    centred_CT = record.signal_CT - record.signal_CT.mean(1, keepdims=True)
    spread_C1 = centred_CT.std(1, keepdims=True)
    return replace(record, signal_CT=centred_CT / np.where(spread_C1 > 1e-9, spread_C1, 1))


def from_neurokit(seed: int, *, seconds: float = 10.0, rate: int = RATE) -> Record:
    """Simulate with neurokit2's own ECGSYN: slow, without premature beats, and a check on `simulate`.

    Two leads are two calls with one random state, which fixes the intervals, and with other waves.

    Parameters
    ----------
    seed : int
        Who it is.
    seconds : float
        Length.
    rate : int
        Samples a second.

    Returns
    -------
    Record
        Standardised; the peaks are the maxima of the first lead that neurokit2 finds.

    References
    ----------
    McSharry et al. (2003), as in neurokit2's ``ecg_simulate(method="ecgsyn")``.

    Examples
    --------
    >>> from helpers.ecg import signals
    >>> signals.from_neurokit(0, seconds=4).signal_CT.shape
    (2, 1440)

    Taught in: ecg-denoising
    """
    import neurokit2 as nk

    rng = np.random.default_rng(seed)
    heart_rate = int(rng.integers(55, 100))
    heights = HEIGHTS * np.exp(0.25 * rng.standard_normal(5))
    views = [np.ones(5), rng.uniform([0.3, 0.2, -0.6, 0.3, -0.5], [1.2, 1.5, 0.9, 1.6, 1.2])]
    common = {
        "duration": seconds, "sampling_rate": rate, "heart_rate": heart_rate, "noise": 0,
        "method": "ecgsyn", "random_state": seed,
    }  # fmt: skip
    signal_CT = np.stack([nk.ecg_simulate(**common, ai=tuple(heights * view)) for view in views])
    _, found = nk.ecg_peaks(signal_CT[0], sampling_rate=rate)
    peaks_N = np.asarray(found["ECG_R_Peaks"], dtype=int)
    return standardise(Record(f"neurokit2 {seed}", rate, signal_CT, peaks_N, np.full(len(peaks_N), "N")))


def real_sample() -> Record:
    """Return the small real recording that PyWavelets carries: 1,024 samples of MIT-BIH record 100, one lead.

    Returns
    -------
    Record
        About 2.8 seconds at 360 samples a second, standardised, given twice as two leads.

    References
    ----------
    ``pywt.data.ecg()``; Moody and Mark (2001).

    Examples
    --------
    >>> from helpers.ecg import signals
    >>> signals.real_sample().signal_CT.shape
    (2, 1024)

    Taught in: ecg-denoising
    """
    import pywt

    lead_T = np.asarray(pywt.data.ecg(), dtype=float)
    tall_T = lead_T > 0.6 * lead_T.max() + 0.4 * np.median(lead_T)
    starts = np.flatnonzero(np.diff(tall_T.astype(int)) == 1) + 1
    peaks_N = np.array([at + int(lead_T[at : at + 40].argmax()) for at in starts], dtype=int)
    both_CT = np.stack([lead_T, lead_T])
    return standardise(Record("pywt ecg", float(RATE), both_CT, peaks_N, np.full(len(peaks_N), "N")))


def cut(signal_CT: Float[Array, "lead sample"], *, length: int = 256) -> Float[Array, "segment lead length"]:
    """Cut a signal into segments that follow each other; a rest is dropped.

    Parameters
    ----------
    signal_CT : Float[ndarray, "lead sample"]
        The signal.
    length : int
        Samples of a segment.

    Returns
    -------
    Float[ndarray, "segment lead length"]
        The segments, in order.

    Raises
    ------
    ValueError
        If the signal is shorter than one segment.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import signals
    >>> signals.cut(np.zeros((2, 600))).shape
    (2, 2, 256)

    Taught in: ecg-denoising
    """
    count = signal_CT.shape[1] // length
    if not count:
        raise ValueError(
            f"the signal has {signal_CT.shape[1]} samples, a segment {length}; give a longer one"
        )
    return signal_CT[:, : count * length].reshape(len(signal_CT), count, length).swapaxes(0, 1)
