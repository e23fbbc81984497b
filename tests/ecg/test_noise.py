"""Noise has the level that is asked for and the spectrum of its kind; draws come from where they should."""

import numpy as np
import pytest

from helpers.ecg import noise


def share(signal, low, high, rate=360.0):
    """The share of power between two frequencies."""
    power = (np.abs(np.fft.rfft(signal, axis=1)) ** 2).sum(0)
    frequency = np.fft.rfftfreq(signal.shape[1], 1 / rate)
    return power[(frequency >= low) & (frequency < high)].sum() / power.sum()


@pytest.mark.parametrize("seed", range(3))
def test_each_kind_has_its_band(seed):
    assert share(noise.make("wander", seed), 0, 1.1) > 0.98
    assert share(noise.make("muscle", seed), 10, 180) > 0.9
    assert share(noise.make("electrode", seed), 0.1, 20) > 0.9


def test_the_mixture_is_the_sum_of_equal_parts():
    parts = [noise.make(kind, 3, seconds=20) for kind in noise.KINDS[:3]]
    mixture = noise.make("mixture", 3, seconds=20)
    assert all(np.corrcoef(part[0], mixture[0])[0, 1] > 0.4 for part in parts)
    left = mixture - sum(parts) / np.std(sum(parts), axis=1, keepdims=True)
    assert np.abs(left - left.mean(1, keepdims=True)).max() < 1e-6


def test_leads_share_something_and_records_do_not():
    one, other = noise.make("muscle", 1), noise.make("muscle", 2)
    assert 0.1 < np.corrcoef(one)[0, 1] < 0.99
    assert abs(np.corrcoef(one[0], other[0])[0, 1]) < 0.1


@pytest.mark.parametrize("wrong", [("snow", 9.0, 360.0), ("muscle", 1.0, 360.0), ("muscle", 9.0, 50.0)])
def test_what_cannot_be_made_is_refused(wrong):
    kind, seconds, rate = wrong
    with pytest.raises(ValueError, match="expected one of wander"):
        noise.make(kind, 0, seconds=seconds, rate=rate)


@pytest.mark.parametrize("level", [-4.0, 0.0, 10.0])
def test_the_level_is_the_one_asked_for(level):
    rng = np.random.default_rng(0)
    clean, dirt = 3 * rng.standard_normal((2, 5, 2, 100))
    mixed = noise.mix(clean, dirt, level)
    for x, y in zip(clean, mixed, strict=True):
        power = sum(v * v for v in x.ravel())
        error = sum(v * v for v in (y - x).ravel())
        assert 10 * np.log10(power / error) == pytest.approx(level)
    assert noise.snr(clean, mixed) == pytest.approx(np.full(5, level))


def test_untouched_minus_four_has_the_known_error():
    rng = np.random.default_rng(0)
    clean = rng.standard_normal((1, 2, 1000))
    clean /= np.sqrt((clean**2).mean())
    mixed = noise.mix(clean, rng.standard_normal((1, 2, 1000)), -4.0)
    assert np.sqrt(((mixed - clean) ** 2).mean()) == pytest.approx(10**0.2)


def test_surroundings_do_not_count_for_the_level():
    rng = np.random.default_rng(0)
    clean, dirt = rng.standard_normal((2, 1, 2, 300))
    dirt[..., :100] *= 50
    mixed = noise.mix(clean, dirt, 0.0, around=100)
    assert noise.snr(clean[..., 100:200], mixed[..., 100:200]) == pytest.approx([0.0])


def test_flat_noise_is_refused():
    with pytest.raises(ValueError, match="no power"):
        noise.mix(np.ones((1, 2, 8)), np.zeros((1, 2, 8)), 0.0)


def test_perfect_is_a_hundred_and_nothing_is_zero():
    clean = np.random.default_rng(0).standard_normal((1, 2, 50))
    assert noise.snr(clean, clean) == pytest.approx([100.0])
    assert noise.snr(clean, np.zeros_like(clean)) == pytest.approx([0.0])


def test_a_part_of_a_record_is_only_that_part():
    ramp = np.tile(np.linspace(0.1, 1, 1000), (3, 2, 1))
    early, _ = noise.draw(ramp, ramp, count=50, length=64, part=(0.0, 0.8))
    late, _ = noise.draw(ramp, ramp, count=50, length=64, part=(0.8, 1.0))
    assert early.max() < ramp[0, 0, 800]
    assert late.min() >= ramp[0, 0, 800]
    with pytest.raises(ValueError, match="take a longer part"):
        noise.draw(ramp, ramp, count=1, length=64, part=(0.99, 1.0))


def test_a_draw_repeats_and_takes_leads_together():
    rng = np.random.default_rng(1)
    lead = rng.standard_normal((4, 1, 500))
    records = np.concatenate([lead, -lead], axis=1)
    one, noisy = noise.draw(records, records, count=9, length=32, seed=[1, 2])
    again, _ = noise.draw(records, records, count=9, length=32, seed=[1, 2])
    assert np.array_equal(one, again)
    assert np.array_equal(one[:, 0], -one[:, 1])
    assert set(np.round(noise.snr(one, noisy))) <= set(noise.LEVELS)
