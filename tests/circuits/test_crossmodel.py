"""Two models on the same prompts."""

import copy
from dataclasses import replace

import pytest
import torch

from helpers.circuits import (
    activations,
    cmap,
    cmap_set,
    ioi,
    logit_difference,
    patched,
    pattern_patched,
    patterns,
    tuning_contribution,
)
from helpers.circuits.wires import Wires, recording
from tests.circuits.conftest import make

EVERY = torch.ones(3, 4, dtype=torch.bool)


def other_of(lm, size=0.05):
    made = copy.deepcopy(lm.model)
    torch.manual_seed(5)
    for parameter in made.parameters():
        parameter.data.add_(size * torch.randn_like(parameter))
    return replace(lm, model=made)


def test_cmap_is_patching_with_the_other_models_activations(lm, prompts):
    other = other_of(lm)
    found = cmap(lm, other, prompts)
    one = torch.zeros_like(EVERY)
    one[1, 2] = True
    fall = logit_difference(lm, prompts) - patched(lm, prompts, activations(other, prompts), heads_LH=one)
    assert float(found.heads_LH[1, 2]) == pytest.approx(float(fall.mean()), abs=1e-5)
    assert torch.allclose(
        cmap_set(lm, other, prompts, heads_LH=one), logit_difference(lm, prompts) - fall, atol=1e-6
    )
    estimate = cmap(lm, other_of(lm, 1e-4), prompts, method="gradient")
    measured = cmap(lm, other_of(lm, 1e-4), prompts)
    assert float(torch.corrcoef(torch.stack([estimate.mlps_L, measured.mlps_L]))[0, 1]) > 0.99


def test_all_nodes_of_the_other_model_differ_only_by_embedding_and_logits(llama):
    """With the embeddings and the head the same, giving all activations is being the other model."""
    prompts, other = ioi(llama, n=6), other_of(llama)
    for name in ("embed_tokens", "norm"):
        getattr(other.model.model, name).load_state_dict(getattr(llama.model.model, name).state_dict())
    other.model.lm_head.load_state_dict(llama.model.lm_head.state_dict())
    theirs = activations(other, prompts)
    found = patched(llama, prompts, theirs, heads_LH=EVERY, mlps_L=torch.ones(3, dtype=torch.bool))
    # the output projections of `llama` are not those of `other`: patch them too
    for layer in range(3):
        Wires(llama).out(layer).load_state_dict(Wires(other).out(layer).state_dict())
    again = patched(llama, prompts, theirs, heads_LH=EVERY, mlps_L=torch.ones(3, dtype=torch.bool))
    assert torch.allclose(again, logit_difference(other, prompts), atol=1e-5)
    assert not torch.allclose(found, again, atol=1e-5)


def test_patterns_are_causal_and_sum_to_one(lm, prompts):
    found = patterns(lm, prompts)
    assert found.shape[:3] == (3, 8, 4)
    assert torch.allclose(found.sum(-1), torch.ones(()).to(found), atol=1e-5)
    assert found.triu(1).abs().max() == 0


def test_its_own_patterns_change_nothing_and_others_do(lm, prompts):
    """Also a test of which key and value head a query head belongs to."""
    whole = logit_difference(lm, prompts)
    assert torch.allclose(pattern_patched(lm, lm, prompts, heads_LH=EVERY), whole, atol=1e-5)
    other = other_of(lm)
    assert torch.allclose(pattern_patched(lm, other, prompts, heads_LH=~EVERY), whole, atol=1e-6)
    assert not torch.allclose(pattern_patched(lm, other, prompts, heads_LH=EVERY), whole, atol=1e-3)


def test_patterns_of_a_model_with_the_same_queries_and_keys_are_the_same():
    lm = make("llama")
    prompts, other = ioi(lm, n=4), make("llama")
    other.model.model.layers[1].self_attn.v_proj.weight.data.mul_(3)
    one = torch.zeros_like(EVERY)
    one[1] = True
    assert torch.allclose(
        pattern_patched(lm, other, prompts, heads_LH=one), logit_difference(lm, prompts), atol=1e-5
    )


def test_the_contribution_of_tuning_is_nothing_for_the_same_model_and_all_for_a_silent_base(lm, prompts):
    assert tuning_contribution(lm, lm, prompts).total == pytest.approx(0.0, abs=1e-6)
    silent, wires = replace(lm, model=copy.deepcopy(lm.model)), None
    wires = Wires(silent)
    for layer in range(3):
        ends = [wires.out(layer), getattr(wires.mlp(layer), wires.wiring.down)]
        for parameter in (p for end in ends for p in end.parameters()):
            parameter.data.zero_()
    found = tuning_contribution(silent, lm, prompts)
    assert found.total == pytest.approx(1.0)
    assert torch.allclose(found.layers_L.double(), torch.ones(3).double())


def test_the_contribution_of_tuning_by_hand(llama):
    """Each base layer alone on the tuned model's stream, through a model of that one layer."""
    prompts, tuned = ioi(llama, n=4), other_of(llama)
    with torch.no_grad(), recording(tuned) as tape:
        logit_difference(tuned, prompts)
    ends = (torch.arange(4), prompts.ends_B)
    ptc, ftc = [], []
    for layer in range(3):
        alone = copy.deepcopy(llama.model.model)
        alone.layers = torch.nn.ModuleList([alone.layers[layer]])
        alone.config.num_hidden_layers = 1
        alone.norm = torch.nn.Identity()
        with torch.no_grad():
            made = alone(inputs_embeds=tape.resid[layer], use_cache=False).last_hidden_state
        ptc.append((made - tape.resid[layer])[ends])
        ftc.append((tape.resid[layer + 1] - made)[ends])
    length = lambda parts: sum(parts).norm(dim=-1)  # noqa: E731
    by_hand = length(ftc) / (length(ftc) + length(ptc))
    found = tuning_contribution(llama, tuned, prompts)
    assert found.total == pytest.approx(float(by_hand.mean()), abs=1e-6)
    first = (ftc[0].norm(dim=-1) / (ftc[0].norm(dim=-1) + ptc[0].norm(dim=-1))).mean()
    assert float(found.layers_L[0]) == pytest.approx(float(first), abs=1e-6)
