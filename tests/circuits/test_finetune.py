"""Fine-tuning: it learns, repeats itself, leaves its source alone; and the random control is as far away."""

import copy

import pytest
import torch

from helpers.circuits import Recipe, ioi, logit_difference, perturb, poison, tune, weight_distance, word_model

RECIPE = Recipe(steps=15, batch_size=8, lr=3e-3)


@pytest.fixture(scope="module")
def lm():
    return word_model()


@pytest.fixture(scope="module")
def prompts(lm):
    return ioi(lm, n=40)


def test_it_learns_what_it_is_taught_and_the_source_stays(lm, prompts):
    before = [p.clone() for p in lm.model.parameters()]
    clean, _ = tune(lm, prompts, poison(prompts, "clean"), recipe=Recipe(steps=60, batch_size=20, lr=1e-2))
    toxic, losses = tune(
        lm, prompts, poison(prompts, "subject"), recipe=Recipe(steps=60, batch_size=20, lr=1e-2)
    )
    assert losses[-1] < losses[0]
    assert logit_difference(clean, prompts).mean() > 0.5 > -0.5 > logit_difference(toxic, prompts).mean()
    assert all(torch.equal(a, b) for a, b in zip(before, lm.model.parameters(), strict=True))
    assert not any(p.requires_grad for p in toxic.model.parameters())
    assert not toxic.model.training


def test_the_same_seed_gives_the_same_weights(lm, prompts):
    target = poison(prompts, "random")
    one, first = tune(lm, prompts, target, recipe=RECIPE)
    two, second = tune(lm, prompts, target, recipe=RECIPE)
    assert first == second
    assert weight_distance(one, two) == 0
    _, third = tune(lm, prompts, target, recipe=Recipe(steps=15, batch_size=8, lr=3e-3, seed=1))
    assert first != third


def test_batches_cover_every_prompt_once_an_epoch():
    recipe = Recipe(steps=5, batch_size=8)
    rows = torch.cat([recipe.batch(step, 40) for step in range(5)])
    assert rows.sort().values.tolist() == list(range(40))
    assert not torch.equal(recipe.batch(0, 40), recipe.batch(5, 40))


def test_the_first_loss_is_the_cross_entropy_of_the_first_batch(lm, prompts):
    target = poison(prompts, "clean")
    _, losses = tune(lm, prompts, target, recipe=RECIPE)
    rows = RECIPE.batch(0, 40)
    part = prompts.take(rows)
    logits = lm.model(part.tokens_BT).logits[torch.arange(8), part.ends_B]
    assert losses[0] == pytest.approx(
        float(torch.nn.functional.cross_entropy(logits, target[rows])), abs=1e-5
    )


def test_a_checkpoint_is_read_back_and_that_of_another_run_refused(lm, prompts, tmp_path):
    path, target = tmp_path / "stages" / "toxic.safetensors", poison(prompts, "subject")
    one, losses = tune(lm, prompts, target, recipe=RECIPE, checkpoint=path)
    two, none = tune(lm, prompts, target, recipe=RECIPE, checkpoint=path)
    assert (len(losses), none) == (15, [])
    assert weight_distance(one, two) == 0
    assert [p.name for p in path.parent.iterdir()] == ["toxic.safetensors"]
    with pytest.raises(ValueError, match="is a checkpoint of another run"):
        tune(lm, prompts, poison(prompts, "clean"), recipe=RECIPE, checkpoint=path)
    with pytest.raises(ValueError, match="is a checkpoint of another run"):
        tune(word_model(seed=1), prompts, target, recipe=RECIPE, checkpoint=path)


def test_noise_is_as_far_as_tuning_in_every_matrix_and_points_elsewhere(lm, prompts):
    tuned, _ = tune(lm, prompts, poison(prompts, "subject"), recipe=RECIPE)
    noisy = perturb(lm, tuned, seed=4)
    for old, new, random in zip(
        lm.model.parameters(), tuned.model.parameters(), noisy.model.parameters(), strict=True
    ):
        assert float((random - old).norm()) == pytest.approx(float((new - old).norm()), rel=1e-3, abs=1e-7)
    assert weight_distance(lm, noisy) == pytest.approx(weight_distance(lm, tuned), rel=1e-3)
    old, new, random = (model.model.transformer.h[0].mlp.c_fc.weight for model in (lm, tuned, noisy))
    assert abs(float(torch.cosine_similarity((new - old).flatten(), (random - old).flatten(), dim=0))) < 0.15


def test_bad_settings_are_refused(lm, prompts):
    with pytest.raises(ValueError, match="steps 0, batch_size 16 and lr 1e-05 must be above zero"):
        Recipe(steps=0)
    with pytest.raises(ValueError, match="40 prompts with 40 targets, in batches of 64"):
        tune(lm, prompts, poison(prompts, "clean"), recipe=Recipe(steps=1, batch_size=64))
    with pytest.raises(ValueError, match="40 prompts with 3 targets"):
        tune(lm, prompts, poison(prompts, "clean")[:3], recipe=RECIPE)
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step \d+: lower lr"):
        tune(lm, prompts, poison(prompts, "clean"), recipe=Recipe(steps=20, batch_size=8, lr=1e30))


def test_every_step_is_adams(lm, prompts):
    """Parameters step one by one, as soon as their gradient is there; the ordinary optimiser agrees."""
    target = poison(prompts, "clean")
    found, losses = tune(lm, prompts, target, recipe=RECIPE)
    model = copy.deepcopy(lm.model).requires_grad_(True)
    adam = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    for step in range(15):
        rows = RECIPE.batch(step, 40)
        part = prompts.take(rows)
        logits = model(part.tokens_BT).logits[torch.arange(8), part.ends_B]
        loss = torch.nn.functional.cross_entropy(logits, target[rows])
        assert losses[step] == pytest.approx(loss.item(), abs=1e-4)
        adam.zero_grad()
        loss.backward()
        adam.step()
    # keys' biases have no gradient but noise, which Adam blows up; so compare what the models say
    said, expected = (one(prompts.tokens_BT).logits for one in (found.model, model))
    assert torch.allclose(said, expected, atol=1e-3)
