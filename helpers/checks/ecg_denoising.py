"""Checkers for the exercises of the chapter `ecg-denoising`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from helpers.checks import verdict
from helpers.ecg import noise

UNWRITTEN = ["it returns nothing: write its body, then run the cell again."]


def add_noise(answer: Callable[[np.ndarray, np.ndarray, float], Any]) -> None:
    """Check the addition of noise at a signal-to-noise ratio in decibels.

    Parameters
    ----------
    answer : callable
        From clean, noise (lead, sample) and the ratio in dB to the noisy segment.

    Examples
    --------
    >>> add_noise(lambda clean, noise, decibel: clean + noise)
    answer: not yet.
      - asked for -4 dB, it gives -0.0844 dB: the factor of the noise must follow from both powers.

    Taught in: ecg-denoising
    """
    rng = np.random.default_rng(0)
    clean, dirt = rng.standard_normal((2, 2, 200))
    for loud, decibel in ((1.0, -4.0), (1.0, 4.0), (2.0, 0.0)):
        found = answer(loud * clean, dirt, decibel)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        got = float(noise.snr(loud * clean, np.asarray(found)))
        if abs(got - decibel) > 1e-3:
            why = "the factor of the noise must follow from both powers"
            if abs(got - 2 * decibel) < 1e-3 or abs(got - decibel / 2) < 1e-3:
                why = "decibels are ten times the logarithm of a ratio of powers, not of amplitudes"
            elif abs(got + decibel) < 1e-3:
                why = "it is upside down: a low ratio means much noise"
            fault = f"asked for {decibel:g} dB, it gives {got:.3g} dB: {why}."
            return verdict(_name(answer), [fault])
    return verdict(_name(answer), [])


def split_by_record(answer: Callable[[np.ndarray, float], Any]) -> None:
    """Check a split of segments by their record.

    Parameters
    ----------
    answer : callable
        From the record of each segment, and the share of records for testing, to a boolean array.

    Examples
    --------
    >>> split_by_record(lambda record_of_segment, share: np.arange(len(record_of_segment)) % 4 == 0)
    answer: not yet.
      - 8 of 10 records are on both sides: choose records, then take all of their segments.

    Taught in: ecg-denoising
    """
    rng = np.random.default_rng(0)
    for count, share in ((10, 0.2), (40, 0.25)):
        record_of_segment = rng.permutation(np.repeat(np.arange(count), rng.integers(5, 15, count)))
        found = answer(record_of_segment, share)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        mask = np.asarray(found)
        if mask.dtype != bool or mask.shape != record_of_segment.shape:
            fault = f"it gives {mask.dtype} of shape {mask.shape}, and should give a truth value a segment."
            return verdict(_name(answer), [fault])
        tested = set(record_of_segment[mask])
        both = tested & set(record_of_segment[~mask])
        if both:
            why = "choose records, then take all of their segments"
            return verdict(_name(answer), [f"{len(both)} of {count} records are on both sides: {why}."])
        if abs(len(tested) - share * count) > 0.51:
            fault = f"{len(tested)} of {count} records are for testing, and should be {share * count:g}."
            return verdict(_name(answer), [fault])
    return verdict(_name(answer), [])


def weights(answer: Callable[[int], Any]) -> None:
    """Check weights for windows that overlap by half.

    Parameters
    ----------
    answer : callable
        From the length of a window to its weights.

    Examples
    --------
    >>> weights(lambda length: np.full(length, 0.5))
    answer: not yet.
      - length 8: the first weight is 0.5, so a jump of a window's answer shows: start near zero.

    Taught in: ecg-denoising
    """
    for length in (8, 128):
        found = answer(length)
        if found is None:
            return verdict(_name(answer), UNWRITTEN)
        made = np.asarray(found, dtype=float)
        where = f"length {length}:"
        if made.shape != (length,):
            return verdict(
                _name(answer), [f"{where} it gives shape {made.shape}, and should give ({length},)."]
            )
        total = made[: length // 2] + made[length // 2 :]
        if np.abs(total - 1).max() > 1e-6:
            worst = total[np.abs(total - 1).argmax()]
            why = "compare the weight at a sample with the one half a window later"
            return verdict(_name(answer), [f"{where} two neighbours add up to {worst:.3g} somewhere: {why}."])
        if abs(made[0]) > 0.1:
            why = "so a jump of a window's answer shows: start near zero"
            return verdict(_name(answer), [f"{where} the first weight is {made[0]:.3g}, {why}."])
    return verdict(_name(answer), [])


def merged(answer: Callable[[np.ndarray, np.ndarray], Any]) -> None:
    """Check the one convolution that stands for the sum of two.

    Parameters
    ----------
    answer : callable
        From three weights and seven weights to seven.

    Examples
    --------
    >>> merged(lambda three, seven: np.concatenate([three, np.zeros(4)]) + seven)
    answer: not yet.
      - on a single spike it answers at the wrong place: both windows are centred on the same sample.

    Taught in: ecg-denoising
    """
    rng = np.random.default_rng(0)
    three, seven, signal = rng.standard_normal(3), rng.standard_normal(7), rng.standard_normal(50)
    found = answer(three, seven)
    if found is None:
        return verdict(_name(answer), UNWRITTEN)
    made = np.asarray(found, dtype=float)
    if made.shape != (7,):
        return verdict(_name(answer), [f"it gives shape {made.shape}, and should give (7,)."])
    wanted = sum(np.convolve(signal, w[::-1], "same") for w in (three, seven))
    if np.allclose(np.convolve(signal, made[::-1], "same"), wanted):
        return verdict(_name(answer), [])
    why = "the sum of the answers is the answer of the summed weights"
    if np.isclose(made.sum(), three.sum() + seven.sum()):
        why = "both windows are centred on the same sample"
        return verdict(_name(answer), [f"on a single spike it answers at the wrong place: {why}."])
    return verdict(_name(answer), [f"on random numbers it differs from the sum: {why}."])


def _name(answer: Callable[..., Any]) -> str:
    """Give the name under which the reader wrote it."""
    name = getattr(answer, "__name__", "answer")
    return "answer" if name == "<lambda>" else name
