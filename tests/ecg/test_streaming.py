"""A recording goes through whole: no seams, no shift, no surprise from gaps, flat leads, units or rates."""

import numpy as np
import pytest
import torch

from helpers.ecg import model, streaming
from helpers.ecg.streaming import Denoiser


class Copy(torch.nn.Module):
    def forward(self, x):
        return x


class Ones(torch.nn.Module):
    def forward(self, x):
        return torch.ones_like(x)


def smooth(count, rate, leads=2):
    time = np.arange(count) / rate
    return np.stack([np.sin(2 * np.pi * (3 + lead) * time + lead) for lead in range(leads)])


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 127, 128, 129, 1000, 4321])
def test_a_network_that_copies_leaves_no_seam_at_any_length(count):
    x = smooth(count, 180)
    assert np.abs(Denoiser(Copy())(x, rate=180) - x).max() < 1e-5


def test_windows_add_up_to_one_everywhere():
    made = Denoiser(Ones())._blended(np.zeros((2, 777)))
    assert np.abs(made - 1).max() < 1e-6


@pytest.mark.parametrize("rate", [90.0, 128.0, 250.0, 360.0, 500.0, 1000.0])
def test_other_rates_come_back_as_they_were(rate):
    x = smooth(int(10 * rate), rate)
    found = Denoiser(Copy())(x, rate=rate)
    assert found.shape == x.shape
    inside = slice(int(rate), -int(rate))
    assert np.abs(found - x)[:, inside].max() < 0.03


def test_batches_do_not_matter():
    torch.manual_seed(0)
    net = model.UNet(width=4).eval()
    x = smooth(3000, 180) + 0.1 * np.random.default_rng(0).standard_normal((2, 3000))
    few, many = (Denoiser(net, batch=size)(x, rate=180) for size in (3, 1000))
    assert np.abs(few - many).max() < 1e-5


def test_units_and_offsets_do_not_matter():
    torch.manual_seed(0)
    whole = Denoiser(model.UNet(width=4).eval())
    x = smooth(900, 180)
    plain, other = whole(x, rate=180), whole(1000 * x + 2048, rate=180)
    assert np.abs((other - 2048) / 1000 - plain).max() < 1e-3


def test_one_lead_is_enough():
    x = smooth(900, 180, leads=1)
    assert np.abs(Denoiser(Copy())(x, rate=180) - x).max() < 1e-5


def test_short_gaps_are_bridged_and_long_ones_stay():
    x = smooth(1800, 180)
    x[0, 500:510] = np.nan
    x[1, 800:900] = np.nan
    found = Denoiser(Copy())(x, rate=180)
    assert not np.isnan(found[0]).any()
    assert np.array_equal(np.isnan(found[1]), np.isnan(x[1]))


def test_flat_and_missing_leads_stay_what_they_are():
    x = smooth(900, 180)
    x[1] = 5.0
    found = Denoiser(Ones())(x, rate=180)
    assert (found[1] == 5).all()
    x[1] = np.nan
    found = Denoiser(Copy())(x, rate=180)
    assert np.isnan(found[1]).all()
    assert np.abs(found[0] - x[0]).max() < 1e-5


def test_the_high_pass_takes_the_wander_and_keeps_the_mean():
    time = np.arange(9000) / 180
    x = np.stack([np.sin(2 * np.pi * 5 * time), np.cos(2 * np.pi * 5 * time)])
    found = Denoiser(Copy(), highpass=0.5)(x + 4 * np.sin(2 * np.pi * 0.1 * time) + 10, rate=180)
    assert np.abs(found - x - 10)[:, 500:-500].max() < 0.3


@pytest.mark.parametrize("wrong", [np.zeros((3, 100)), np.zeros(100), np.zeros((2, 0))])
def test_shapes_that_are_not_leads_are_refused(wrong):
    with pytest.raises(Exception, match=r"expected \(1 or 2 leads|Type-check error|violates type"):
        Denoiser(Copy())(wrong, rate=180)


def test_infinite_samples_and_odd_windows_are_refused():
    with pytest.raises(ValueError, match="put NaN where"):
        Denoiser(Copy())(np.full((2, 9), np.inf), rate=180)
    with pytest.raises(ValueError, match="expected a rate above 0 and an even length"):
        Denoiser(Copy(), length=127)
    with pytest.raises(ValueError, match="give a longer one"):
        streaming.windows(np.zeros((2, 5)), length=8)
