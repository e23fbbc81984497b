"""Filters keep what they should keep and take what they should take."""

import numpy as np
import pytest

from helpers.ecg import baselines, noise, signals


def gain(method, kind, **options):
    """Decibels gained on three people at 0 dB."""
    found = []
    for seed in range(3):
        record = signals.simulate(seed, seconds=10, rate=180)
        dirty = noise.mix(record.signal_CT, noise.make(kind, seed, seconds=10, rate=180), 0.0)
        found.append(noise.snr(record.signal_CT, method(dirty, rate=180, **options)))
    return np.mean(found)


@pytest.mark.parametrize("method", [baselines.wavelet, baselines.savitzky_golay])
@pytest.mark.parametrize("kind", ["wander", "muscle"])
def test_each_gains_where_noise_and_heart_differ(method, kind):
    assert gain(method, kind) > 2


def test_neurokit_takes_the_wander():
    assert gain(baselines.neurokit, "wander") > 2


def test_the_released_rule_hardly_denoises():
    assert gain(baselines.wavelet, "wander", rule="share") < 0.5
    with pytest.raises(ValueError, match="expected 'universal' or 'share'"):
        baselines.wavelet(np.zeros((2, 100)), rate=180, rule="both")


def test_a_wavelet_without_threshold_is_the_high_pass():
    x = signals.simulate(0, seconds=5, rate=180).signal_CT
    plain = baselines.wavelet(x, rate=180, strength=0.0)
    assert np.abs(plain - baselines.without_wander(x, rate=180)).max() < 1e-8


def test_shrinking_is_soft():
    import pywt

    x = signals.simulate(0, seconds=5, rate=180).signal_CT
    high = baselines.without_wander(x, rate=180)
    levels = 5
    bands = pywt.wavedec(high, "sym8", level=levels, axis=1)
    for place in range(1, levels + 1):
        if 180 / 2 ** (levels - place + 2) > 10:
            limit = 0.8 * np.median(np.abs(bands[place]), axis=1, keepdims=True) / 0.6745
            limit = limit * np.sqrt(2 * np.log(x.shape[1]))
            bands[place] = np.stack(
                [pywt.threshold(b, t.item(), "soft") for b, t in zip(bands[place], limit, strict=True)]
            )
    wanted = pywt.waverec(bands, "sym8", axis=1)[:, : x.shape[1]]
    assert np.abs(baselines.wavelet(x, rate=180) - wanted).max() < 1e-8


def test_savitzky_golay_keeps_a_cubic_under_the_high_pass(monkeypatch):
    monkeypatch.setattr(baselines, "without_wander", lambda x, rate: x)
    time = np.linspace(-1, 1, 200)
    cubic = np.stack([time**3 - time, 2 * time**2])
    assert np.abs(baselines.savitzky_golay(cubic, rate=180) - cubic).max() < 1e-9
