"""The model has the layers of the card, its mask is where it should be, and training repeats itself."""

import numpy as np
import pytest
import torch

from helpers.ecg import model, noise
from tools.make import ecg_denoiser as command

# Stage: tokens, width, heads, bias by distance; the decoder's from the bottom up.
DOWN = [(256, 8, 2, False), (128, 16, 4, False), (64, 32, 8, True), (32, 64, 16, True)]
BOTTOM = (16, 128, 32, False)
UP = [(16, 128, 32, False), (32, 64, 16, True), (64, 32, 8, True), (128, 16, 4, False)]


@pytest.fixture(scope="module")
def paper():
    torch.manual_seed(0)
    return model.PatchTransformer().eval()


@pytest.fixture
def small():
    torch.manual_seed(0)
    return model.PatchTransformer(per_scale=1, length=32)


def test_the_stages_are_those_of_the_table(paper):
    seen = []
    for stage in (*paper.encoders, paper.bottom, *paper.decoders):
        for block in stage:
            block.attention.register_forward_hook(
                lambda part, given, _: seen.append(
                    (given[0].shape[1], given[0].shape[2], part.heads, given[1] is not None)
                )
            )
    with torch.no_grad():
        paper(torch.randn(1, 2, 256))
    for stage in (*paper.encoders, paper.bottom, *paper.decoders):
        for block in stage:
            block.attention._forward_hooks.clear()
    assert seen == [row for row in (*DOWN, BOTTOM, *UP) for _ in range(2)]


def test_parameters_are_counted_by_hand(paper):
    def block(c):
        return (3 * c * c + 3 * c) + (c * c + c) + (8 * c * c + 5 * c) + 4 * c

    blocks = 2 * sum(block(row[1]) for row in (*DOWN, BOTTOM, *UP))
    merges = sum(4 * row[1] ** 2 + 4 * row[1] for row in DOWN)
    separates = sum(row[1] ** 2 // 4 + row[1] for row in UP)
    biases = 127 * 8 + 63 * 16
    windows = sum(2 * 2 * k + 2 for k in (1, 3, 5, 7)) + sum(8 * 2 * k + 2 for k in (1, 3, 5, 7))
    total = blocks + merges + separates + biases + windows
    assert sum(p.numel() for p in paper.parameters()) == total == 1_088_984


def test_one_scale_has_exactly_as_many_parameters():
    many, one = (model.PatchTransformer(k) for k in ((1, 3, 5, 7), (4, 4, 4, 4)))
    assert sum(p.numel() for p in many.parameters()) == sum(p.numel() for p in one.parameters())


def test_the_embedding_is_four_convolutions(paper):
    x = torch.randn(2, 2, 50)
    made = model.embed(x, paper.into)
    for place, (width, conv) in enumerate(zip((1, 3, 5, 7), paper.into, strict=True)):
        same = torch.nn.functional.conv1d(x, conv.weight, conv.bias, padding=(width - 1) // 2)
        assert torch.allclose(made[:, 2 * place : 2 * place + 2], same, atol=1e-6)


def test_the_way_out_is_four_transposed_convolutions(paper):
    x = torch.randn(2, 8, 50)
    wanted = sum(
        torch.nn.functional.conv_transpose1d(x, conv.weight, conv.bias, padding=(width - 1) // 2)
        for width, conv in zip((1, 3, 5, 7), paper.out, strict=True)
    )
    assert torch.allclose(model.unembed(x, paper.out), wanted, atol=1e-6)


def test_bias_depends_on_distance_alone(paper):
    distance = model._Distance(6, 2)
    torch.nn.init.normal_(distance.table)
    bias = distance()[0]
    for shift in range(-5, 6):
        for head in bias:
            assert len(head.diagonal(shift).unique()) == 1
    assert bias[0, 0, 1] != bias[0, 1, 0]


def test_the_mask_is_on_in_training_only(small):
    x = torch.randn(1, 2, 32)
    with torch.no_grad():
        assert not torch.equal(small(x), small(x))
        small.eval()
        assert torch.equal(small(x), small(x))
        small.always_mask = True
        assert not torch.equal(small(x), small(x))


@pytest.mark.parametrize(
    "make", [lambda: model.PatchTransformer(per_scale=1, length=32), lambda: model.UNet(4)]
)
def test_units_do_not_matter(make):
    net, x = make().eval(), torch.randn(3, 2, 32)
    with torch.no_grad():
        assert torch.allclose(net(1000 * x) / 1000, net(x), atol=1e-4)
        assert torch.isfinite(net(torch.zeros(1, 2, 32))).all()


@pytest.mark.parametrize("wrong", [{"length": 100}, {"kernels": (3, 5)}, {"keep": 0.0}])
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(ValueError, match="expected a multiple of 16"):
        model.PatchTransformer(**wrong)


def test_the_losses_by_hand():
    found, clean = torch.tensor([[[0.0, 2.0, 0.0]]]), torch.tensor([[[0.0, -1.0, 0.0]]])
    # squares 0, 9, 0; steepness 2 and 2 against 1 and 1
    assert model.loss(found, clean).item() == pytest.approx(3 + 0.01 * 1)
    net = torch.nn.Conv1d(1, 1, 1)
    got = model.consistency_loss(net, clean, found)
    assert got.item() == pytest.approx((9 * net.weight**2 / 3).item(), rel=1e-5)
    got.backward()
    assert net.weight.grad.abs() > 0


def test_batches_go_on_where_they_stopped():
    rng = np.random.default_rng(0)
    records, noises = rng.standard_normal((3, 2, 200)), {"a": rng.standard_normal((2, 2, 200))}
    recipe = model.Recipe(steps=5, batch=4, seed=3)
    whole = list(model.batches(records, noises, recipe=recipe, length=32))
    rest = list(model.batches(records, noises, recipe=recipe, length=32, start=3))
    assert len(whole) == 5
    assert all(
        torch.equal(a, b)
        for one, two in zip(whole[3:], rest, strict=True)
        for a, b in zip(one, two, strict=True)
    )


def test_sometimes_a_lead_is_off_but_never_both():
    rng = np.random.default_rng(0)
    records = rng.standard_normal((3, 2, 200))
    recipe = model.Recipe(steps=8, batch=16)
    off = [
        (clean == 0).all(2)
        for clean, _ in model.batches(records, {"a": records}, recipe=recipe, length=32, flat=0.5)
    ]
    off = torch.cat(off)
    assert 0.15 < off.float().mean() < 0.35
    assert not off.all(1).any()


def test_the_learning_rate_rises_and_falls():
    recipe = model.Recipe(steps=100, rate=1.0)
    rates = [recipe.learning_rate(step) for step in range(100)]
    assert np.argmax(rates) in (4, 5)
    assert rates[0] == pytest.approx(0.2)
    assert rates[-1] < 0.02


def test_training_lowers_the_loss_and_takes_the_second_step():
    rng = np.random.default_rng(0)
    records = np.sin(np.arange(400) / 5)[None, None] * np.ones((2, 2, 1))
    noises = {"a": rng.standard_normal((2, 2, 400))}
    torch.manual_seed(0)
    net = model.UNet(4)
    recipe = model.Recipe(steps=60, batch=8, rate=1e-2)
    losses = model.fit(net, model.batches(records, noises, recipe=recipe, length=32), recipe=recipe)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])
    assert not net.training


def test_what_is_saved_comes_back(tmp_path, small):
    nets = {"a": small.eval(), "b": model.UNet(4).eval()}
    back, notes = model.load(model.save(nets, tmp_path / "x.safetensors", notes={"rate": 7}))
    assert notes == {"rate": 7}
    x = torch.randn(1, 2, 32)
    with torch.no_grad():
        for name, net in nets.items():
            assert torch.allclose(back[name](x), net(x), atol=2e-2)
    assert back["a"].kernels == (1, 3, 5, 7)


def test_the_trained_ones_beat_doing_nothing_on_strangers():
    from helpers.ecg import signals

    nets, notes = model.load()
    assert set(nets) == {f"{k} {s}" for k in command.SMALL for s in range(notes["seeds"])}
    wide, _ = model.load(name="ecg-denoiser-wide")
    assert [(name, net.per_scale) for name, net in wide.items()] == [("wide 0", 2)]
    people = np.stack(
        [signals.simulate(7000 + i, seconds=10, rate=notes["rate"]).signal_CT for i in range(4)]
    )
    dirt = np.stack([noise.make("muscle", 7000, seconds=10, rate=notes["rate"])])
    clean, noisy = noise.draw(people, dirt, count=24, levels=(-4.0,), length=notes["length"])
    for net in [*nets.values(), *wide.values()]:
        assert noise.snr(clean, model.apply(net, noisy)).mean() > 2


def test_the_command_goes_on_where_it_was_broken_off(tmp_path, monkeypatch):
    for name, value in (("STEPS", 7), ("BATCH", 4), ("LEVELS", (0.0,)), ("SAVE_EVERY", 2), ("LENGTH", 32)):
        monkeypatch.setattr(command, name, value)
    rng = np.random.default_rng(0)
    data = rng.standard_normal((3, 2, 200)), {"a": rng.standard_normal((2, 2, 200))}
    monkeypatch.setattr(command, "records", lambda: data)
    monkeypatch.setattr(command, "WORK", tmp_path / "whole")
    whole = command.train("multi-scale", 0, until=float("inf"))
    monkeypatch.setattr(command, "WORK", tmp_path / "broken")
    breaks = 0
    while True:
        try:
            broken = command.train("multi-scale", 0, until=0.0)
            break
        except command.OutOfTime:
            breaks += 1
    assert breaks == 3
    for one, other in zip(whole.parameters(), broken.parameters(), strict=True):
        assert torch.equal(one, other)
