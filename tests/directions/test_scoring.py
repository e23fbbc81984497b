"""Scores of predictions and shares of prompts, against closed forms."""

import pytest
import torch

from helpers import directions, models


def test_openings_without_a_token_are_refused():
    with pytest.raises(ValueError, match="expected at least one, each with a token"):
        directions.openings(models.random_model(), ["Sorry", ""])


def test_log_odds_are_the_logit_of_the_summed_probability(dice):
    logprobs = torch.randn(7, 30, generator=dice).log_softmax(1)
    share = logprobs.exp()[:, [3, 8]].sum(1)
    torch.testing.assert_close(directions.log_odds(logprobs, torch.tensor([3, 8])), share.logit())


def test_log_odds_stay_finite_where_the_probability_rounds_to_one():
    logprobs = torch.tensor([[40.0, 0.0, 0.0]]).log_softmax(1)
    assert directions.log_odds(logprobs, torch.tensor([0])).item() == pytest.approx(
        40 - torch.tensor(2.0).log().item()
    )


def test_divergence_agrees_with_torch_and_is_zero_for_equals(dice):
    one, other = torch.randn(2, 6, 9, generator=dice).log_softmax(-1)
    theirs = torch.nn.functional.kl_div(other, one, log_target=True, reduction="batchmean")
    assert directions.divergence(one, other).mean() == pytest.approx(theirs.item(), rel=1e-5)
    assert directions.divergence(one, one).max() == 0


def test_a_rate_of_zero_has_a_width_and_wilson_s_closed_form_holds():
    z, n = 1.959964, 64
    found = directions.rate(-torch.ones(n))
    assert (found.share, found.low, found.n) == (0, 0, n)
    assert found.high == pytest.approx(z**2 / (n + z**2), rel=1e-4)


def test_a_rate_counts_what_is_above_its_threshold():
    assert directions.rate(torch.tensor([0.0, 0.5, 2.0, 3.0]), above=0.5).share == 0.5


@pytest.mark.parametrize("scores", [torch.tensor([]), torch.tensor([1.0, float("nan")])])
def test_a_rate_of_nothing_is_refused(scores):
    with pytest.raises(ValueError, match="expected numbers"):
        directions.rate(scores)
