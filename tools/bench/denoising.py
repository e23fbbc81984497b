"""Denoise some minutes of two leads as one recording, with the book's models and at the authors' size."""

from __future__ import annotations

import time

import numpy as np

from helpers.ecg import model, signals, streaming

Numbers = dict[str, float]
BEGIN = 30.0  # seconds of ECG to warm up with


def contenders() -> dict[str, tuple[streaming.Denoiser, int]]:
    """Return the denoisers, and the rate at which each gets the recording: its own."""
    nets, notes = model.load()
    book = streaming.Denoiser(nets["multi-scale 0"], rate=notes["rate"], length=notes["length"])
    net, wide_notes = model.load(name="ecg-denoiser-wide")
    wide = streaming.Denoiser(net["wide 0"], rate=wide_notes["rate"], length=wide_notes["length"])
    paper = streaming.Denoiser(model.PatchTransformer().eval(), rate=360, length=256)
    return {"book": (book, notes["rate"]), "wide": (wide, wide_notes["rate"]), "paper": (paper, 360)}


def measure(seconds: int, *, seed: int) -> Numbers:
    """Return how many seconds of ECG each denoises in a second; untrained weights are as fast as others."""
    found = {}
    for name, (denoise, rate) in contenders().items():
        minute_CT = signals.simulate(seed, seconds=60.0, rate=rate).signal_CT
        recording_CT = np.tile(minute_CT, -(-seconds // 60))[:, : seconds * rate]
        denoise(recording_CT[:, : int(BEGIN * rate)], rate=rate)
        began = time.perf_counter()
        denoise(recording_CT, rate=rate)
        found[name] = recording_CT.shape[1] / rate / (time.perf_counter() - began)
    return found
