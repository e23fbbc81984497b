"""Exact patching against bare hooks, closed forms and properties, in every family."""

import pytest
import torch

from helpers.circuits import (
    Effects,
    Faithfulness,
    activations,
    completeness,
    direct,
    exact,
    faithfulness,
    greater_than,
    ioi,
    logit_difference,
    mean_of,
    minimality,
    patched,
    path,
    resampled,
    top_heads,
)
from helpers.circuits.wires import Wires, recording
from tests.circuits.conftest import make

HEADS, LAYERS, WIDTH = 4, 3, 4


def bare(lm, prompts, hooks):
    """Run under bare hooks (module, in or out, function), and return logit differences."""
    handles = []
    for module, where, change in hooks:
        if where == "in":
            handles.append(module.register_forward_pre_hook(lambda m, a, f=change: (f(a[0]), *a[1:])))
        else:
            handles.append(module.register_forward_hook(lambda m, a, out, f=change: f(out)))
    try:
        logits = lm.model(prompts.tokens_BT).logits[torch.arange(len(prompts)), prompts.ends_B]
    finally:
        for handle in handles:
            handle.remove()
    chosen = logits[:, prompts.answers_A]
    return (chosen * prompts.right_BA).sum(1) - (chosen * prompts.wrong_BA).sum(1)


def slot(value_BTHC, head):
    """Return a function that puts one head's columns into flat activations."""
    columns = slice(head * WIDTH, (head + 1) * WIDTH)

    def change(flat):
        flat = flat.clone()
        flat[..., columns] = value_BTHC[:, :, head]
        return flat

    return change


def mask(*heads):
    found = torch.zeros(LAYERS, HEADS, dtype=torch.bool)
    for layer, head in heads:
        found[layer, head] = True
    return found


def capped(lm):
    return getattr(lm.model.config, "final_logit_softcapping", None)


def test_logit_difference_is_that_of_the_models_logits(lm, prompts):
    found = logit_difference(lm, prompts, batch_size=3)
    assert torch.allclose(found, bare(lm, prompts, []), atol=1e-5)


def test_several_right_answers_count_by_their_probability(llama):
    prompts = greater_than(llama, n=6)
    logits = (
        llama.model(prompts.tokens_BT)
        .logits[torch.arange(6), prompts.ends_B]
        .softmax(-1)[:, prompts.answers_A]
    )
    odds = (logits * prompts.right_BA).sum(1) / (logits * prompts.wrong_BA).sum(1)
    assert torch.allclose(logit_difference(llama, prompts), odds.log(), atol=1e-6)


def test_exact_patching_equals_bare_hooks(lm, prompts):
    wires, other = Wires(lm), activations(lm, prompts, corrupted=True)
    nodes = [(0, 1), (1, 3), (2, 0), (0, None), (2, None)]
    found = exact(lm, prompts, other, nodes=nodes, batch_size=3)
    whole = bare(lm, prompts, [])
    for layer, head in nodes:
        if head is None:
            hook = (wires.mlp(layer), "out", lambda out, layer=layer: other.mlps_LBTD[layer])
            ours = found.mlps_L[layer]
        else:
            hook = (wires.out(layer), "in", slot(other.heads_LBTHC[layer], head))
            ours = found.heads_LH[layer, head]
        assert float(ours) == pytest.approx(float((whole - bare(lm, prompts, [hook])).mean()), abs=1e-5)
    assert int((found.heads_LH != 0).sum()) == 3


def test_all_nodes_are_patched_if_none_is_named(llama):
    prompts = ioi(llama, n=4)
    found = exact(llama, prompts, activations(llama, prompts, corrupted=True))
    assert int((found.heads_LH != 0).sum()) == LAYERS * HEADS
    assert int((found.mlps_L != 0).sum()) == LAYERS


def test_several_heads_at_once_equal_bare_hooks(lm, prompts):
    wires, other = Wires(lm), activations(lm, prompts, corrupted=True)
    chosen = mask((0, 1), (0, 2), (2, 3))
    hooks = [
        (wires.out(at), "in", slot(other.heads_LBTHC[at], head)) for at, head in chosen.nonzero().tolist()
    ]
    hooks.append((wires.mlp(1), "out", lambda out: other.mlps_LBTD[1]))
    found = patched(
        lm, prompts, other, heads_LH=chosen, mlps_L=torch.tensor([False, True, False]), batch_size=5
    )
    assert torch.allclose(found, bare(lm, prompts, hooks), atol=1e-5)


def test_patching_everything_gives_the_corrupted_run_at_the_last_token(lm, prompts):
    """Heads and MLPs from the corrupted run: only the embedding is left, and the last token's is the same."""
    other, every = activations(lm, prompts, corrupted=True), torch.ones(LAYERS, HEADS, dtype=torch.bool)
    found = patched(lm, prompts, other, heads_LH=every, mlps_L=torch.ones(LAYERS, dtype=torch.bool))
    assert torch.allclose(found, logit_difference(lm, prompts, corrupted=True), atol=1e-5)


def test_a_path_to_the_logits_is_what_bare_hooks_find(lm, prompts):
    wires, own = Wires(lm), activations(lm, prompts)
    other = activations(lm, prompts, corrupted=True)
    hooks = []
    for layer in range(LAYERS):
        value = own.heads_LBTHC[layer].clone()
        if layer == 1:
            value[:, :, 2] = other.heads_LBTHC[layer][:, :, 2]
        hooks.append((wires.out(layer), "in", lambda flat, value=value: value.flatten(-2)))
    assert torch.allclose(path(lm, prompts, other, sender=(1, 2)), bare(lm, prompts, hooks), atol=1e-5)


def test_a_path_from_the_last_layer_is_the_whole_effect(lm, prompts):
    other = activations(lm, prompts, corrupted=True)
    whole = exact(lm, prompts, other, nodes=[(2, 1)]).heads_LH[2, 1]
    found = logit_difference(lm, prompts) - path(lm, prompts, other, sender=(2, 1))
    assert float(found.mean()) == pytest.approx(float(whole), abs=1e-5)


@pytest.mark.parametrize("what", ["q", "k", "v"])
def test_a_path_to_one_input_is_what_bare_hooks_find(lm, prompts, what):
    wires, own = Wires(lm), activations(lm, prompts)
    other = activations(lm, prompts, corrupted=True)
    hooks, read = [], {}
    for layer in range(LAYERS):
        value = own.heads_LBTHC[layer].clone()
        if layer == 0:
            value[:, :, 3] = other.heads_LBTHC[layer][:, :, 3]
        hooks.append((wires.out(layer), "in", lambda flat, value=value: value.flatten(-2)))
    modules = wires.qkv(2)
    module = modules["qkv".index(what)] if len(modules) == 3 else modules[0]
    hooks.append((module, "out", lambda out: read.setdefault("value", out)))
    bare(lm, prompts, hooks)
    first = (1 + (0 if len(modules) == 3 else HEADS * "qkv".index(what))) * WIDTH

    def put(out):
        out = out.clone()
        out[..., first : first + WIDTH] = read["value"][..., first : first + WIDTH]
        return out

    found = path(lm, prompts, other, sender=(0, 3), receivers=[(2, 1, what)])
    assert torch.allclose(found, bare(lm, prompts, [(module, "out", put)]), atol=1e-5)
    assert not torch.allclose(found, logit_difference(lm, prompts), atol=1e-9)


def test_a_path_to_what_comes_before_is_empty(llama):
    prompts = ioi(llama, n=4)
    other = activations(llama, prompts, corrupted=True)
    found = path(llama, prompts, other, sender=(2, 0), receivers=[(1, 0, "q"), (0, 1, "v")])
    assert torch.equal(found, logit_difference(llama, prompts))
    with pytest.raises(ValueError, match="a receiver reads 'z'; expected q, k or v"):
        path(llama, prompts, other, sender=(0, 0), receivers=[(1, 0, "z")])


def test_means_are_taken_by_template_and_position(llama):
    prompts = ioi(llama, n=24)
    acts = activations(llama, prompts, corrupted=True)
    means = mean_of(prompts, acts)
    for row in (0, 13):
        same = [i for i in range(24) if i % 8 == row % 8]
        by_hand = sum(acts.heads_LBTHC[:, i] for i in same) / len(same)
        assert torch.allclose(means.heads_LBTHC[:, row], by_hand)
    assert not torch.equal(means.mlps_LBTD, acts.mlps_LBTD)


def test_resampling_moves_every_row_within_its_template(llama):
    prompts = ioi(llama, n=24)
    acts = activations(llama, prompts, corrupted=True)
    moved = resampled(prompts, acts, seed=2)
    for row in range(24):
        source = [i for i in range(24) if torch.equal(acts.mlps_LBTD[:, i], moved.mlps_LBTD[:, row])]
        assert len(source) == 1
        assert source[0] % 8 == row % 8
        assert source[0] != row
    assert torch.equal(moved.heads_LBTHC, resampled(prompts, acts, seed=2).heads_LBTHC)


def test_direct_effects_and_the_embedding_sum_to_the_logit_difference(lm, prompts):
    found = direct(lm, prompts, batch_size=3)
    with torch.no_grad(), recording(lm) as tape:
        lm.model(prompts.tokens_BT)
    ends = (torch.arange(len(prompts)), prompts.ends_B)
    wires, head = Wires(lm), lm.model.get_output_embeddings().weight
    final = tape.resid[-1][ends]

    def gap(x):
        signs = prompts.right_BA.int() - prompts.wrong_BA.int()
        return ((x @ head.T)[:, prompts.answers_A] * signs).sum(1)

    norm = wires.final_norm
    gamma = norm.weight + 1 if lm.family == "gemma2" else norm.weight
    rest = tape.resid[0][ends]
    if lm.family == "gpt2":
        rest = rest + sum(wires.out(layer).bias for layer in range(LAYERS))
        scale = (final.var(-1, unbiased=False, keepdim=True) + norm.eps).rsqrt()
        others = gap((rest - rest.mean(-1, keepdim=True)) * scale * gamma + norm.bias)
    else:
        eps = getattr(norm, "variance_epsilon", None) or norm.eps
        others = gap(rest * (final.square().mean(-1, keepdim=True) + eps).rsqrt() * gamma)
    total = float(found.heads_LH.sum() + found.mlps_L.sum()) + float(others.mean())
    uncapped = float(gap(norm(final)).mean())
    assert total == pytest.approx(uncapped, abs=1e-4)
    if not capped(lm):
        assert uncapped == pytest.approx(float(logit_difference(lm, prompts).mean()), abs=1e-5)


def test_a_whole_circuit_is_faithful_and_an_empty_one_is_the_knockout(llama):
    prompts = ioi(llama, n=16)
    means = mean_of(prompts, activations(llama, prompts, corrupted=True))
    every = torch.ones(LAYERS, HEADS, dtype=torch.bool)
    whole = faithfulness(llama, prompts, every, reference=means)
    assert whole.circuit == pytest.approx(whole.model)
    assert whole.share == pytest.approx(1.0)
    nothing = faithfulness(llama, prompts, ~every, reference=means)
    assert nothing.circuit == pytest.approx(float(patched(llama, prompts, means, heads_LH=every).mean()))
    assert Faithfulness(4.0, -1.0).share == -0.25


def test_completeness_takes_k_out_of_both(llama):
    prompts = ioi(llama, n=8)
    other = activations(llama, prompts, corrupted=True)
    circuit, k = mask((0, 0), (1, 1), (2, 2)), mask((1, 1))
    none = torch.zeros_like(k)
    found = completeness(llama, prompts, circuit, reference=other, without=[none, k])
    assert found[0][1] == pytest.approx(float(logit_difference(llama, prompts).mean()))
    left = float(patched(llama, prompts, other, heads_LH=~mask((0, 0), (2, 2))).mean())
    assert found[1] == pytest.approx((left, float(patched(llama, prompts, other, heads_LH=k).mean())))
    with pytest.raises(ValueError, match="K has heads outside the circuit"):
        completeness(llama, prompts, circuit, reference=other, without=[mask((0, 1))])


def test_minimality_depends_on_its_k(llama):
    prompts = ioi(llama, n=8)
    other = activations(llama, prompts, corrupted=True)
    circuit, k = mask((0, 0), (1, 1), (2, 2)), mask((2, 2))
    found = minimality(llama, prompts, circuit, reference=other, without=k)
    left = lambda *gone: float(patched(llama, prompts, other, heads_LH=~circuit | mask(*gone)).mean())  # noqa: E731
    assert float(found[0, 0]) == pytest.approx(abs(left((2, 2), (0, 0)) - left((2, 2))), abs=1e-6)
    assert float(found[1, 1]) == pytest.approx(abs(left((2, 2), (1, 1)) - left((2, 2))), abs=1e-6)
    assert (found.nonzero().tolist()) == [[0, 0], [1, 1]]
    without = minimality(llama, prompts, circuit, reference=other, without=torch.zeros_like(k))
    assert not torch.allclose(found[0, 0], without[0, 0], atol=1e-9)


def test_top_heads_by_magnitude_among_some():
    scores = torch.tensor([[1.0, -5.0, 2.0], [0.0, 4.0, -3.0]])
    assert top_heads(scores, k=3).nonzero().tolist() == [[0, 1], [1, 1], [1, 2]]
    among = scores > 0
    assert top_heads(scores, k=1, among=among).nonzero().tolist() == [[1, 1]]
    assert top_heads(scores, k=0).sum() == 0
    with pytest.raises(ValueError, match="k is 4; expected 0 to 3"):
        top_heads(scores, k=4, among=among)


def test_what_does_not_fit_is_refused(llama):
    prompts = ioi(llama, n=4)
    acts = activations(llama, prompts)
    with pytest.raises(ValueError, match=r"the reference has heads of shape \(3, 2, 14, 4, 4\); expected"):
        exact(llama, prompts, acts.take(slice(0, 2)))
    with pytest.raises(ValueError, match=r"the mask has shape \(2, 4\); expected \(3, 4\)"):
        patched(llama, prompts, acts, heads_LH=torch.ones(2, 4, dtype=torch.bool))


def test_the_models_weights_are_left_alone(llama):
    before = [p.clone() for p in llama.model.parameters()]
    prompts = ioi(llama, n=4)
    exact(llama, prompts, activations(make("llama", seed=1), prompts), nodes=[(0, 0)])
    assert all(torch.equal(a, b) for a, b in zip(before, llama.model.parameters(), strict=True))
    assert isinstance(direct(llama, prompts), Effects)
    assert all(p.grad is None for p in llama.model.parameters())
