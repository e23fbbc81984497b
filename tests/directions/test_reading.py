"""Activations at the last positions, and their difference of means, against brute force."""

import pytest
import torch

from helpers import directions, models, trace


def test_last_positions_are_those_of_each_text_run_alone(lm):
    texts = ["good day", "how do locks work", "abcdef"]
    found = directions.last_positions(lm, texts, positions=3, batch_size=2)
    assert found.shape == (3, 3, lm.n_layers, lm.d_model)
    for row, text in enumerate(texts):
        ids = torch.tensor([lm.tokenizer(text).input_ids])
        alone = trace.collect(lm, ids, sites=[trace.Site(1)], skip_first=0, progress=False)[trace.Site(1)]
        torch.testing.assert_close(found[row, :, 1], alone[-3:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", [0, 6])
def test_too_many_or_no_positions_are_refused(positions):
    with pytest.raises(ValueError, match=r"shortest text has \d+ tokens"):
        directions.last_positions(models.random_model(), ["abcdef", "long enough"], positions=positions)


def test_difference_of_means_is_exact_far_from_zero(dice):
    one = 1e4 + torch.randn(500, 4, generator=dice)
    other = 1e4 + torch.randn(300, 4, generator=dice)
    exact = one.double().mean(0) - other.double().mean(0)
    torch.testing.assert_close(directions.difference_of_means(one, other).double(), exact, atol=1e-7, rtol=0)


def test_difference_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 and 2 prompts"):
        directions.difference_of_means(torch.ones(0, 2), torch.ones(2, 2))
