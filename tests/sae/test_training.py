"""The sparse step equals the dense one; runs resume to the same weights; bad data is refused early."""

import pytest
import torch
from safetensors import safe_open

from helpers.sae import Schedule, SparseAutoencoder, fit, reconstruction
from helpers.sae.training import follow_k, step_loss

OPERATORS = ["relu", "jumprelu", "topk", "abstopk"]


def data(n=600, d=8, seed=0):
    dice = torch.Generator().manual_seed(seed)
    axes = torch.randn(12, d, generator=dice)
    codes = torch.randn(n, 12, generator=dice) * (torch.rand(n, 12, generator=dice) < 0.2)
    return codes @ axes + 0.5


def dense_loss(sae, x):
    z = sae.operator.prox(x @ sae.encoder_PD.T + sae.encoder_bias_P, sae.level.item())
    penalty = sae.level.item() * z.sum(1).mean() if sae.operator_name == "relu" else 0
    return (x - z @ sae.decoder_PD - sae.decoder_bias_D).square().sum(1).mean() / 2 + penalty


@pytest.mark.parametrize("operator", OPERATORS)
def test_sparse_step_has_the_gradients_of_the_dense_one(operator):
    x = data(300)
    sae = SparseAutoencoder(8, 24, operator=operator, k=4)
    sae.start_from(x)
    x = x / sae.scale
    follow_k(sae, x, speed=1.0)
    sae.level.mul_(1 if sae.operator.counts else 1.01)  # away from the one entry that sits on the threshold
    grads = []
    for loss in (step_loss(sae, x)[0], dense_loss(sae, x)):
        grads.append([loss, *torch.autograd.grad(loss, list(sae.parameters()))])
    for sparse, dense in zip(*grads, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", OPERATORS)
def test_training_lowers_the_error_at_the_asked_l0(operator):
    x = data(4000)
    sae = SparseAutoencoder(8, 24, operator=operator, k=3)
    start = SparseAutoencoder(8, 24, operator=operator, k=3)
    start.start_from(x)
    follow_k(start, (x / start.scale)[:256], speed=1.0)
    log = fit(sae, x, schedule=Schedule(steps=400, batch_size=200, lr=5e-3), progress=False)
    after = reconstruction(sae, x)
    assert after.unexplained < 0.7 * reconstruction(start, x).unexplained
    assert after.l0 <= 3.6
    assert 2 < log.l0[-1] < 4
    torch.testing.assert_close(sae.decoder_PD.norm(dim=1), torch.ones(24))


def test_same_seed_same_weights_and_another_seed_others():
    runs = []
    for seed in (0, 0, 1):
        sae = SparseAutoencoder(8, 24, operator="abstopk", k=3)
        fit(sae, data(), schedule=Schedule(steps=15, batch_size=100, seed=seed), progress=False)
        runs.append(sae.decoder_PD.detach())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("operator", ["relu", "abstopk"])
def test_a_broken_off_run_resumes_to_identical_weights(tmp_path, operator, monkeypatch):
    schedule = Schedule(steps=20, batch_size=100, revive_every=6)
    whole = SparseAutoencoder(8, 24, operator=operator, k=3)
    log = fit(whole, data(), schedule=schedule, progress=False)
    path = tmp_path / "run.safetensors"
    from helpers.sae import training

    advance = training._Run.advance

    def stop_at_13(self, step):
        if step == 13:
            raise KeyboardInterrupt
        advance(self, step)

    broken = SparseAutoencoder(8, 24, operator=operator, k=3)
    monkeypatch.setattr(training._Run, "advance", stop_at_13)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, data(), schedule=schedule, checkpoint=path, checkpoint_every=5, progress=False)
    monkeypatch.setattr(training._Run, "advance", advance)
    with safe_open(path, framework="pt") as file:
        assert '"step": 10' in file.metadata()["settings"]
    resumed = SparseAutoencoder(8, 24, operator=operator, k=3)
    log_again = fit(resumed, data(), schedule=schedule, checkpoint=path, checkpoint_every=5, progress=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert log_again.loss == log.loss
    assert log_again.dead == log.dead


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    sae = SparseAutoencoder(8, 24, operator="topk", k=3)
    fit(
        sae,
        data(),
        schedule=Schedule(steps=4, batch_size=100),
        checkpoint=path,
        checkpoint_every=2,
        progress=False,
    )
    with pytest.raises(ValueError, match="checkpoint of another run"):
        fit(sae, data(), schedule=Schedule(steps=5, batch_size=100), checkpoint=path, progress=False)


def test_dead_latents_are_counted_and_revived():
    x = data(2000)
    shares = []
    for revive in (0, 20):
        sae = SparseAutoencoder(8, 200, operator="topk", k=1)
        schedule = Schedule(steps=120, batch_size=100, revive_every=revive)
        log = fit(sae, x, schedule=schedule, progress=False)
        shares.append((log.dead, log.revived))
    assert shares[0][0] > 0
    assert shares[0][1] == 0
    assert shares[1][1] > 0


def test_bad_data_is_refused_before_the_first_step():
    sae = SparseAutoencoder(8, 16, operator="topk", k=2)
    before = sae.decoder_PD.detach().clone()
    poisoned = data()
    poisoned[3, 1] = float("nan")
    poisoned[9, 1] = float("inf")
    schedule = Schedule(steps=3, batch_size=100)
    for bad, said in [
        (poisoned, "2 of 600 tokens hold NaN"),
        (data()[:50], "50 tokens are less than a batch of 100"),
        (torch.zeros(0, 8), "0 tokens"),
        (torch.zeros(600, 5), "5 wide, the SAE expects 8"),
    ]:
        with pytest.raises(ValueError, match=said):
            fit(sae, bad, schedule=schedule, progress=False)
    assert torch.equal(before, sae.decoder_PD)


def test_an_exploding_run_stops():
    sae = SparseAutoencoder(8, 16, operator="topk", k=2)
    with pytest.raises(FloatingPointError, match="lower lr"):
        fit(sae, data(), schedule=Schedule(steps=50, batch_size=100, lr=1e30, warmup=0), progress=False)


def test_schedule_rises_stays_and_falls():
    schedule = Schedule(steps=100, lr=1.0, warmup=0.1, decay=0.2)
    rates = [schedule.rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9:80] == [1.0] * 71
    assert rates[-1] == pytest.approx(0.05)
    with pytest.raises(ValueError, match="above zero"):
        Schedule(steps=0)
