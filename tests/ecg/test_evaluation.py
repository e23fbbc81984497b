"""Counts agree with brute force; each measure sees what it is meant to see."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.ecg import evaluation, noise, signals


def best_pairing(found, true, reach):
    """The most pairs that anybody can make."""
    for size in range(min(len(found), len(true)), 0, -1):
        for some in itertools.combinations(found, size):
            for others in itertools.combinations(true, size):
                if all(abs(a - b) <= reach for a, b in zip(some, others, strict=True)):
                    return size
    return 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 60), max_size=5, unique=True),
    st.lists(st.integers(0, 60), max_size=5, unique=True),
)
def test_matching_finds_the_most_pairs(found, true):
    found, true = sorted(found), sorted(true)
    got = evaluation.match(np.array(found, dtype=int), np.array(true, dtype=int), rate=100)
    assert got.hits == best_pairing(found, true, 7.5)
    assert (got.hits + got.invented, got.hits + got.missed) == (len(found), len(true))


def test_f1_agrees_with_scikit_learn():
    from sklearn.metrics import f1_score

    rng = np.random.default_rng(0)
    found, true = rng.integers(0, 2, (2, 50))
    got = evaluation.f1(torch.from_numpy(found), torch.from_numpy(true))
    assert got == pytest.approx(f1_score(true, found))
    assert evaluation.Agreement(0, 0, 0).f1 == 1


def test_beats_are_cut_around_their_peaks():
    record = signals.simulate(1, seconds=20, rate=180, premature=0.3)
    cut, is_v = evaluation.beats(record)
    assert len(cut) == len(is_v)
    assert int(is_v.sum()) in range((record.labels_N == "V").sum() - 2, (record.labels_N == "V").sum() + 1)
    assert torch.allclose(cut.square().mean((1, 2)), torch.ones(len(cut)), atol=1e-3)
    middle = record.peaks_N[5]
    first = record.signal_CT[:, middle - 45 : middle + 81]
    assert max(np.corrcoef(first.ravel(), one.numpy().ravel())[0, 1] for one in cut) > 0.9999


def test_a_beat_that_is_halved_or_gone_is_seen():
    record = signals.simulate(2, seconds=20, rate=180)
    gone = record.signal_CT.copy()
    peak = record.peaks_N[4]
    gone[:, peak - 30 : peak + 30] = 0.3
    shares, labels = evaluation.kept(record, gone)
    assert sorted(np.round(shares, 6))[0] == 0
    assert np.sum(np.isclose(shares, 1)) >= len(shares) - 2
    assert len(labels) == len(shares)
    lifted = evaluation.kept(record, 0.5 * record.signal_CT + 7)[0]
    assert np.allclose(lifted, 0.5)


def test_the_template_finds_beats_and_not_noise():
    people = [signals.simulate(i, seconds=20, rate=180, premature=0.0) for i in range(6)]
    shape = evaluation.template(people)
    hits = [len(evaluation.template_hits(p.signal_CT[0], shape, least=1.0, alike=0.8)) for p in people]
    assert sum(hits) > 0.8 * sum(len(p.peaks_N) for p in people)
    white = np.random.default_rng(0).standard_normal(3600)
    assert len(evaluation.template_hits(white, shape, least=1.0)) == 0
    assert len(evaluation.template_hits(people[0].signal_CT[0], shape, least=1e3)) == 0


def test_the_heart_rate_is_a_median():
    assert evaluation.heart_rate(np.array([0, 100, 200, 900]), rate=100) == 60
    assert evaluation.heart_rate(np.array([5]), rate=100) == 0


def test_a_detector_finds_clean_beats_and_nothing_in_nothing():
    record = signals.simulate(0, seconds=20, rate=180, premature=0.0)
    found = evaluation.find_peaks(record.signal_CT[0], rate=180)
    assert evaluation.match(found, record.peaks_N, rate=180).f1 > 0.9
    assert len(evaluation.find_peaks(np.zeros(1800), rate=180)) == 0


def test_rmse_and_decibels_say_the_same():
    rng = np.random.default_rng(0)
    clean = signals.standardise(signals.simulate(0, seconds=5)).signal_CT
    found = clean + 0.1 * rng.standard_normal(clean.shape)
    assert noise.snr(clean, found) == pytest.approx(-20 * np.log10(evaluation.rmse(clean, found)))


def test_the_classifier_learns_kinds_of_beats():
    people = [signals.simulate(i, seconds=60, rate=180, premature=0.3) for i in range(8)]
    cut = [evaluation.beats(person) for person in people]
    lessons = tuple(torch.cat(parts) for parts in zip(*cut, strict=True))
    net = evaluation.fit_beats(*lessons, steps=60)
    with torch.no_grad():
        found = net(lessons[0]).argmax(1)
    assert evaluation.f1(found, lessons[1]) > 0.9
