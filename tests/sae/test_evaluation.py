"""Metrics on cases whose answer is known."""

import math
from itertools import pairwise

import pytest
import torch

from helpers.sae import (
    SparseAutoencoder,
    context,
    dictionary_match,
    reconstruction,
    sign_audit,
    top_contexts,
    unroll,
)
from helpers.sae.evaluation import AblationLosses, ablation_losses, loss_recovered


def identity_sae(d=4, operator="abstopk"):
    """An SAE that is the identity: orthonormal dictionary, all latents on."""
    sae = SparseAutoencoder(d, d, operator=operator, k=d)
    for weight in (sae.encoder_PD, sae.decoder_PD):
        weight.data.copy_(torch.eye(d))
    return sae


def test_perfect_and_empty_reconstructions():
    x = torch.randn(100, 4) + 3
    perfect = reconstruction(identity_sae(), x)
    assert perfect.nmse < 1e-10
    assert perfect.l0 == 4
    empty = reconstruction(lambda a: a.mean(0).expand_as(a), x, batch_size=100)
    assert empty.unexplained == pytest.approx(1.0, abs=1e-5)
    assert empty.nmse < 1  # the mean alone explains part of the norm
    assert math.isnan(empty.l0)


def test_true_l0_counts_what_fires_not_what_may():
    sae = identity_sae(operator="topk")
    x = torch.tensor([[1.0, -1.0, -1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    assert reconstruction(sae, x).l0 == 1.5
    assert reconstruction(sae, x).alive == 0.5


def test_dictionary_match_tells_one_axis_from_two_ends():
    axes = torch.eye(3)
    one = dictionary_match(axes[:2] * 5, axes)
    assert (one.recovered, one.both_ends, one.atoms_per_axis) == (pytest.approx(2 / 3), 0.0, 1.0)
    two = dictionary_match(torch.cat([axes, -axes]), axes)
    assert (two.recovered, two.both_ends, two.atoms_per_axis) == (1.0, 1.0, 2.0)
    none = dictionary_match(torch.ones(1, 3), axes)
    assert none.recovered == 0
    assert math.isnan(none.atoms_per_axis)


def test_sign_audit_counts_both_sides():
    sae = identity_sae(2)
    x = torch.tensor([[1.0, 1.0]] * 30 + [[-1.0, 1.0]] * 10)
    audit = sign_audit(sae, x)
    assert audit.positive_P.tolist() == [30, 40]
    assert audit.negative_P.tolist() == [10, 0]
    assert audit.two_sided_P.tolist() == [True, False]
    assert audit.share == 0.5
    assert math.isnan(sign_audit(sae, x, at_least=1000).share)


def test_unrolling_never_raises_the_error_and_one_step_is_the_encoder():
    sae = SparseAutoencoder(16, 64, operator="topk", k=4)
    x = torch.randn(50, 16)
    assert torch.equal(unroll(sae, x, steps=1), sae.encode(x))
    errors = [(x - sae.decode(unroll(sae, x, steps=n))).square().sum(1) for n in (1, 2, 4, 8)]
    for before, after in pairwise(errors):
        assert (after <= before + 1e-5).all()
    assert errors[-1].sum() < 0.95 * errors[0].sum()


@pytest.mark.parametrize(("operator", "steps"), [("relu", 2), ("topk", 0)])
def test_unrolling_says_what_it_needs(operator, steps):
    with pytest.raises(ValueError, match="steps >= 1"):
        unroll(SparseAutoencoder(4, 8, operator=operator, k=2), torch.zeros(1, 4), steps=steps)


def test_contexts():
    tokens = torch.tensor([[5, 6, 7, 8]])
    assert context(tokens, lambda ids: " ".join(map(str, ids)), row=0, position=2, width=2) == (
        "5 6",
        "7",
        "8",
    )
    up, down = top_contexts(torch.tensor([0.0, 3.0, -1.0, 2.0]), [(0, i) for i in range(4)], n=1)
    assert (up, down) == ([(0, 1)], [(0, 2)])


def test_recovered_is_one_for_lossless_and_zero_for_ablation():
    losses = AblationLosses(2.0, 10.0, 6.0, torch.zeros(2), 5.0)
    assert losses.recovered(2.0) == 1
    assert losses.recovered(10.0) == 0
    assert losses.recovered(6.0, against="mean") == 0
    assert losses.recovered(12.0) < 0


def test_splicing_the_identity_recovers_everything_and_the_mean_nothing():
    from helpers import models, trace

    lm = models.random_model()
    tokens = torch.randint(0, lm.model.config.vocab_size, (3, 10), generator=torch.Generator().manual_seed(0))
    site = trace.Site(0)
    acts = trace.collect(lm, tokens, sites=[site], progress=False)[site]
    losses = ablation_losses(lm, tokens, site=site, acts_ND=acts)
    assert losses.original != losses.zero
    assert loss_recovered(lambda x: x, lm, tokens, site=site, losses=losses) == pytest.approx(1, abs=1e-4)
    mean = loss_recovered(
        lambda x: acts.mean(0).expand_as(x), lm, tokens, site=site, losses=losses, against="mean"
    )
    assert mean == pytest.approx(0, abs=1e-4)


def test_massive_activations_are_left_alone():
    from helpers.sae.evaluation import replace
    from helpers.trace import Site

    edit = replace(Site(0), torch.zeros_like, limit=10.0)
    acts = torch.tensor([[[2.0, 2.0], [1.0, 1.0], [100.0, 0.0]]])
    assert edit.fn(acts).tolist() == [[[2.0, 2.0], [0.0, 0.0], [100.0, 0.0]]]  # position 0 stays as well
