"""Pruning, level setting and identity, compared with loops and with cases whose answer is known."""

import math

import pytest
import torch

from helpers.sae import (
    SparseAutoencoder,
    identity,
    mean_cosine,
    move_mean,
    output_norms,
    partners,
    prune,
    top_tokens,
    true_l0,
    with_l0,
)


@pytest.fixture
def acts():
    return torch.randn(300, 6, generator=torch.Generator().manual_seed(1)) @ torch.randn(
        6, 6, generator=torch.Generator().manual_seed(2)
    )


@pytest.fixture
def made(acts):
    sae = SparseAutoencoder(6, 20, operator="topk", k=4, seed=3)
    sae.start_from(acts)
    sae.encoder_bias_P.data += 0.1 * torch.randn(20, generator=torch.Generator().manual_seed(4))
    return sae


def norms_by_hand(sae, acts, batch_size):
    """Follow the definition, one latent and one batch at a time."""
    batches = acts.split(batch_size)
    pre = [(x / sae.scale) @ sae.encoder_PD.T + sae.encoder_bias_P for x in batches]
    rebuilt = [sae(x) / sae.scale for x in batches]
    encoder = [
        sum(u[:, j].square().sum().sqrt().item() for u in pre) / len(pre) for j in range(sae.n_latents)
    ]
    decoder = [
        sum(r[:, k].square().sum().sqrt().item() for r in rebuilt) / len(pre) for k in range(sae.d_model)
    ]
    return encoder, decoder


def test_norms_are_of_outputs_and_averaged_over_batches(made, acts):
    with torch.no_grad():
        encoder, decoder = norms_by_hand(made, acts, 128)
    found = output_norms(made, acts, batch_size=128)
    torch.testing.assert_close(found[0], torch.tensor(encoder))
    torch.testing.assert_close(found[1], torch.tensor(decoder))


def zeros_by_hand(weights, norms, share):
    """Zero the lowest scores of one group of weights."""
    scores = [abs(w) * norm for w, norm in zip(weights, norms, strict=True)]
    gone = sorted(range(len(weights)), key=lambda i: scores[i])[: math.floor(share * len(weights))]
    return [0.0 if i in gone else w for i, w in enumerate(weights)]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.9])
def test_rule_compares_over_latents_in_the_encoder_and_over_coordinates_in_the_decoder(made, acts, share):
    small = prune(made, acts, sparsity=share)
    with torch.no_grad():
        encoder, decoder = norms_by_hand(made, acts, 1024)
    for i in range(6):
        assert small.encoder_PD[:, i].tolist() == zeros_by_hand(
            made.encoder_PD[:, i].tolist(), encoder, share
        )
    for j in range(20):
        assert small.decoder_PD[j].tolist() == zeros_by_hand(made.decoder_PD[j].tolist(), decoder, share)
    assert torch.equal(small.encoder_bias_P, made.encoder_bias_P)
    assert torch.equal(small.decoder_bias_D, made.decoder_bias_D)


def test_magnitude_drops_the_smallest_and_needs_no_text(made, acts):
    small = prune(made, acts, sparsity=0.5, rule="magnitude")
    again = prune(made, -7 * acts[:50], sparsity=0.5, rule="magnitude")
    assert torch.equal(small.encoder_PD, again.encoder_PD)
    for before, after in ((made.decoder_PD, small.decoder_PD), (made.encoder_PD.T, small.encoder_PD.T)):
        for old, new in zip(before, after, strict=True):
            assert old[new == 0].abs().max() <= old[new != 0].abs().min()


def test_random_rule_follows_its_seed_and_drops_as_much(made, acts):
    one, same, other = (prune(made, acts, sparsity=0.5, rule="random", seed=s) for s in (0, 0, 1))
    assert torch.equal(one.decoder_PD, same.decoder_PD)
    assert not torch.equal(one.decoder_PD, other.decoder_PD)
    assert set((one.encoder_PD == 0).sum(0).tolist()) == {10}
    assert set((one.decoder_PD == 0).sum(1).tolist()) == {3}


def test_recentred_encoder_sees_the_mean_as_before(made, acts):
    small = prune(made, acts, sparsity=0.7, recentre=True)
    mean = acts.mean(0) / made.scale
    before = made.encoder_PD @ mean + made.encoder_bias_P
    torch.testing.assert_close(small.encoder_PD @ mean + small.encoder_bias_P, before)
    plain = prune(made, acts, sparsity=0.7)
    assert torch.equal(plain.encoder_PD, small.encoder_PD)


def test_moved_sae_does_the_same_around_the_new_mean(made, acts):
    old, new = acts.mean(0), torch.arange(6.0)
    moved = move_mean(made, old_D=old, new_D=new)
    shifted = acts - old + new
    torch.testing.assert_close(moved.encode(shifted), made.encode(acts), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved(shifted), made(acts) - old + new, rtol=1e-3, atol=1e-3)
    assert torch.equal(moved.decoder_PD, made.decoder_PD)


def test_pruning_leaves_the_original(made, acts):
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    prune(made, acts, sparsity=0.9, recentre=True)
    with_l0(made, acts, target=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())


@pytest.mark.parametrize(("sparsity", "rule", "words"), [(1.0, "wanda", "below 1"), (0.5, "best", "one of")])
def test_bad_pruning_is_refused(made, acts, sparsity, rule, words):
    with pytest.raises(ValueError, match=words):
        prune(made, acts, sparsity=sparsity, rule=rule)


@pytest.mark.parametrize("operator", ["relu", "jumprelu"])
@pytest.mark.parametrize("target", [0.5, 3.0, 7.5])
def test_level_of_a_priced_operator_gives_the_l0_asked_for(acts, operator, target):
    sae = SparseAutoencoder(6, 40, operator=operator, k=4)
    sae.start_from(acts)
    assert true_l0(with_l0(sae, acts, target=target), acts) == pytest.approx(target, abs=0.05)


@pytest.mark.parametrize("operator", ["topk", "abstopk"])
def test_level_of_a_counting_operator_is_the_best_whole_k(acts, operator):
    sae = SparseAutoencoder(6, 20, operator=operator, k=9)
    sae.start_from(acts)
    found = with_l0(sae, acts, target=5.2)
    every = {}
    for k in range(1, 21):
        sae.level.fill_(k)
        every[k] = abs(true_l0(sae, acts) - 5.2)
    assert every[int(found.level)] == min(every.values())


@pytest.mark.parametrize("operator", ["topk", "jumprelu"])
@pytest.mark.parametrize("target", [0, -1, 21])
def test_an_l0_that_cannot_be_had_is_refused(acts, operator, target):
    sae = SparseAutoencoder(6, 20, operator=operator, k=4)
    with pytest.raises(ValueError, match="all that can fire"):
        with_l0(sae, acts, target=target)


def test_cosine_of_opposite_and_of_right_angles(acts):
    assert mean_cosine(lambda x: -2 * x, acts, batch_size=7) == pytest.approx(-1)
    turned = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    assert mean_cosine(lambda x: x @ turned, torch.randn(10, 2)) == pytest.approx(0, abs=1e-6)


def test_top_tokens_are_the_largest_in_any_chunking(made):
    x = torch.randn(2500, 6, generator=torch.Generator().manual_seed(5))
    found, z = top_tokens(made, x, n=4), made.encode(x)
    for j in range(made.n_latents):
        fires = int((z[:, j] > 0).sum())
        expected = z[:, j].argsort(descending=True, stable=True)[:4]
        assert (found[j] >= 0).sum() == min(fires, 4)
        torch.testing.assert_close(
            z[found[j][found[j] >= 0], j].detach(), z[expected[: min(fires, 4)], j].detach()
        )


def test_top_tokens_need_enough_tokens(made):
    with pytest.raises(ValueError, match="3 tokens were given and n is 4"):
        top_tokens(made, torch.randn(3, 6), n=4)


def test_identity_counts_overlap_in_any_order():
    before = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, -1]])
    after = torch.tensor([[3, 2, 9, 8], [40, 41, 42, 7], [8, 9, 10, 11]])
    same = identity(before, before)
    assert (same.survive, same.overlap, same.judged) == (1.0, 1.0, 2)
    found = identity(before, after)
    assert (found.survive, found.overlap) == (0.5, 0.375)
    assert identity(before, after, at_least=0.75).survive == 0.0
    swapped = identity(before, before, partner_P=torch.tensor([1, 0, 2]))
    assert swapped.overlap == 0.0


def test_identity_of_silent_latents_is_not_a_number():
    silent = torch.full((3, 4), -1)
    assert math.isnan(identity(silent, silent).survive)


def test_partners_undo_a_permutation():
    sae, other = (SparseAutoencoder(6, 10, operator="topk", k=2) for _ in range(2))
    order = torch.randperm(10, generator=torch.Generator().manual_seed(0))
    other.decoder_PD.data.copy_(3 * sae.decoder_PD[order])
    assert torch.equal(order[partners(sae, other)], torch.arange(10))
