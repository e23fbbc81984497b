"""NUTS against a conjugate posterior, and diagnostics that notice bad chains."""

import pyro
import pyro.distributions as dist
import pytest
import torch

from helpers.fairness.posterior import Posterior, nuts


def model(x):
    mean = pyro.sample("mean", dist.Normal(0.0, 2.0))
    pyro.sample("pair", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    with pyro.plate("people", len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


X = torch.tensor([1.0, 2.0, 4.0, 3.0])


def test_nuts_agrees_with_the_conjugate_posterior():
    post = nuts(model, X, draws=400, warmup=100, seed=0)
    precision = 1 / 4 + len(X)
    spread = precision**-0.5
    error = spread / float(post.effective("mean")) ** 0.5
    assert abs(float(post.mean("mean")) - float(X.sum()) / precision) < 4 * error
    assert float(post.flat("mean").std()) == pytest.approx(spread, rel=0.15)
    assert post.worst_r_hat < 1.05
    assert post.least_effective > 100
    assert post.divergences == 0
    assert list(post.table().index) == ["mean"]
    assert post.draws["pair"].shape == (2, 400, 2)


def test_the_same_seed_gives_the_same_draws_and_leaves_the_global_generator():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (nuts(model, X, draws=5, warmup=5, seed=3).draws["mean"] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(first[0], first[1])


def test_threads_are_given_back_even_after_a_failure():
    def broken(x):
        assert torch.get_num_threads() == 1
        raise RuntimeError("no model")

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    with pytest.raises(RuntimeError, match="no model"):
        nuts(broken, X, draws=5, warmup=5, seed=0)
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert after == 2


def test_chains_that_disagree_are_noticed():
    dice = torch.Generator().manual_seed(0)
    apart = torch.randn(2, 200, generator=dice) + torch.tensor([[0.0], [3.0]])
    assert Posterior({"w": apart}, divergences=0).worst_r_hat > 1.5
    stuck = torch.randn(2, 200, generator=dice).cumsum(1)
    assert Posterior({"w": stuck}, divergences=0).least_effective < 40


@pytest.mark.parametrize(
    ("change", "given"),
    [({"chains": 1}, X), ({"draws": 3}, X), ({}, torch.tensor([1.0, float("nan")]))],
)
def test_what_cannot_be_sampled_or_compared_is_refused(change, given):
    with pytest.raises(ValueError, match="expected 2 chains or more"):
        nuts(model, given, **{"draws": 10, "warmup": 5, "seed": 0, **change})
