"""Simulated records agree with the differential equation, with neurokit2, and with their own labels."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from helpers.ecg import signals


def mcsharry(waves, interval, seconds, rate):
    """Integrate ECGSYN's three equations as they stand, at one heart rate."""
    turn = 2 * np.pi / interval

    def slope(_, state):
        x, y, z = state
        pull = 1 - np.hypot(x, y)
        off = np.arctan2(y, x) - waves[:, 0]
        off -= 2 * np.pi * np.round(off / (2 * np.pi))
        drive = -(waves[:, 1] * off * np.exp(-0.5 * (off / waves[:, 2]) ** 2)).sum()
        return [pull * x - turn * y, pull * y + turn * x, drive - z]

    time = np.arange(int(seconds * rate)) / rate
    return solve_ivp(slope, (0, seconds), [1, 0, 0], t_eval=time, max_step=2e-3).y[2]


def alike(a, b):
    return np.corrcoef(a, b)[0, 1]


def test_the_filter_solves_the_differential_equation():
    waves = np.stack([signals.ANGLES, signals.HEIGHTS, signals.WIDTHS], axis=1)
    both = np.stack([waves, waves])
    times = np.arange(0, 9.0)  # R peaks on the seconds: there the point starts
    mine = signals._voltage(times, np.zeros(9, dtype=int), both, 8.0, 360)
    theirs = mcsharry(waves, 1.0, 8, 360)
    assert alike(mine[1980:], theirs[1980:]) > 0.997  # it lags by half a sample
    assert np.ptp(mine[1980:]) == pytest.approx(np.ptp(theirs[1980:]), rel=0.02)


def test_a_beat_is_that_of_neurokit2():
    import neurokit2 as nk

    theirs = nk.ecg_simulate(
        duration=8, sampling_rate=360, heart_rate=60, heart_rate_std=0, noise=0, random_state=1
    )
    waves = np.stack([signals.ANGLES, signals.HEIGHTS, signals.WIDTHS], axis=1)
    mine = signals._voltage(np.arange(0, 9.0), np.zeros(9, dtype=int), np.stack([waves] * 2), 8.0, 360)
    one, other = mine[1260:1620], theirs[np.argmax(theirs[1000:1400]) + 1000 - 180 :][:360]
    assert alike(one, other) > 0.98


def test_people_differ_and_a_seed_repeats():
    one, again, other = (signals.simulate(seed, seconds=8) for seed in (1, 1, 2))
    assert np.array_equal(one.signal_CT, again.signal_CT)
    assert not np.allclose(one.signal_CT, other.signal_CT)
    assert np.allclose(one.signal_CT.mean(1), 0)
    assert np.allclose(one.signal_CT.std(1), 1)


@pytest.mark.parametrize("seed", range(5))
def test_premature_beats_come_early_alone_and_before_a_pause(seed):
    record = signals.simulate(seed, seconds=60, premature=0.3, early=0.6)
    gaps, labels = np.diff(record.peaks_N), record.labels_N
    early = np.flatnonzero(labels[1:-1] == "V")  # the gap before beat i + 1
    usual = np.median(gaps)
    assert len(early) > 2
    assert not ((labels[1:] == "V") & (labels[:-1] == "V")).any()
    assert (gaps[early] < 0.8 * usual).all()
    assert (gaps[early + 1] > 1.2 * usual).all()


def test_the_peaks_of_normal_beats_are_peaks():
    record = signals.simulate(3, seconds=20, premature=0.0)
    lead = record.signal_CT[0]
    for peak in record.peaks_N[1:-1]:
        near = lead[peak - 60 : peak + 60]
        assert abs(near.argmax() - 60) <= 4


def test_heart_rate_is_the_one_asked_for():
    record = signals.simulate(0, seconds=60, heart_rate=80.0, premature=0.0)
    assert len(record.peaks_N) == pytest.approx(80, abs=2)


@pytest.mark.parametrize(
    "wrong", [{"seconds": 1.0}, {"rate": 10.0}, {"heart_rate": 400.0}, {"premature": 0.9}]
)
def test_what_no_heart_does_is_refused(wrong):
    with pytest.raises(ValueError, match="expected at least 2 seconds"):
        signals.simulate(0, **wrong)


def test_a_flat_lead_stays_flat():
    flat = signals.Record(
        "x", 360.0, np.stack([np.arange(4.0), np.full(4, 7.0)]), np.zeros(0, int), np.zeros(0, "<U1")
    )
    made = signals.standardise(flat).signal_CT
    assert np.array_equal(made[1], np.zeros(4))
    assert made[0].std() == pytest.approx(1)


def test_segments_follow_each_other():
    signal = np.arange(20.0).reshape(2, 10)
    cut = signals.cut(signal, length=4)
    assert np.array_equal(np.concatenate(list(cut), axis=1), signal[:, :8])
    with pytest.raises(ValueError, match="give a longer one"):
        signals.cut(signal, length=11)


def test_the_real_sample_has_three_beats():
    record = signals.real_sample()
    assert len(record.peaks_N) in (3, 4)
    assert (np.abs(np.diff(record.peaks_N) / record.rate - 0.8) < 0.2).all()
