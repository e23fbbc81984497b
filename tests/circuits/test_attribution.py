"""Attribution against exact patching: to first order equal, and on a real model highly correlated."""

import pytest
import torch

from helpers.circuits import (
    Activations,
    activations,
    attribute,
    checked,
    edges,
    exact,
    ioi,
    logit_difference,
    top_heads,
)
from helpers.circuits.attribution import _read_gradients
from helpers.circuits.wires import end_logits, recording
from helpers.models import load_model
from tests.circuits.conftest import make

METHODS = ("gradient", "integrated", "relp")


def nudged(acts, size):
    dice = torch.Generator().manual_seed(3)
    draw = lambda x: x + size * torch.randn(x.shape, generator=dice, dtype=x.dtype)  # noqa: E731
    return Activations(draw(acts.heads_LBTHC), draw(acts.mlps_LBTD))


def correlation(a, b):
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])


def test_for_small_changes_it_equals_exact_patching(lm, prompts):
    other = nudged(activations(lm, prompts), 3e-3)
    found, measured = attribute(lm, prompts, other, batch_size=3), exact(lm, prompts, other)
    assert correlation(found.heads_LH, measured.heads_LH) > 0.998
    assert correlation(found.mlps_L, measured.mlps_L) > 0.99
    assert torch.allclose(found.heads_LH, measured.heads_LH, atol=0.03 * float(measured.heads_LH.abs().max()))


def test_heads_of_the_last_layer_are_almost_linear(lm, prompts):
    other = nudged(activations(lm, prompts), 1e-3)
    found, measured = attribute(lm, prompts, other).heads_LH[2], exact(lm, prompts, other).heads_LH[2]
    assert torch.allclose(found, measured, atol=2e-2 * float(measured.abs().max()) + 1e-6)


def test_one_step_of_integration_is_the_gradient(lm, prompts):
    other = activations(lm, prompts, corrupted=True)
    one = attribute(lm, prompts, other, method="integrated", steps=1)
    plain = attribute(lm, prompts, other)
    assert torch.equal(one.heads_LH, plain.heads_LH)
    assert not torch.allclose(attribute(lm, prompts, other, method="integrated").heads_LH, plain.heads_LH)


def test_integrated_edges_of_the_embedding_sum_to_the_whole_gap(lm, prompts):
    """The completeness axiom of integrated gradients, which no single gradient satisfies."""
    prompts = prompts.take(slice(0, 2))
    found = edges(lm, prompts, method="integrated", steps=16)
    whole = logit_difference(lm, prompts) - logit_difference(lm, prompts, corrupted=True)
    assert float(found.scores_UI[0].sum()) == pytest.approx(
        float(whole.mean()), abs=0.1 * float(whole.abs().mean())
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("method", METHODS)
def test_edges_out_of_a_node_sum_to_the_node(family, method):
    lm = make(family)
    prompts = ioi(lm, n=6)
    found = edges(lm, prompts, method=method, batch_size=4)
    nodes = attribute(lm, prompts, activations(lm, prompts, corrupted=True), method=method)
    sums = dict(zip(found.writers, found.scores_UI.sum(1).tolist(), strict=True))
    for layer in range(lm.n_layers):
        assert sums[f"m{layer}"] == pytest.approx(float(nodes.mlps_L[layer]), abs=1e-5)
        for head in range(4):
            assert sums[f"a{layer}.{head}"] == pytest.approx(float(nodes.heads_LH[layer, head]), abs=1e-5)


def test_what_all_inputs_read_is_the_whole_gradient(lm, prompts):
    """Also where outputs are normalised (gemma2): every path leaves the stream through some input."""
    with recording(lm) as tape:
        embeds = lm.model.get_input_embeddings()(prompts.tokens_BT).detach().requires_grad_()
        logits = end_logits(lm, prompts.tokens_BT, prompts.ends_B, embeds_BTD=embeds)[:, prompts.answers_A]
    gap = (logits * prompts.right_BA).sum() - (logits * prompts.wrong_BA).sum()
    (whole,) = torch.autograd.grad(gap, tape.resid[0])
    read = _read_gradients(lm, prompts, "gradient", 1.0)
    assert torch.allclose(read.sum(0), whole, atol=1e-4 * float(whole.abs().max()))


def test_edges_go_forwards_only(llama):
    found = edges(llama, ioi(llama, n=2))
    at = {name: i for i, name in enumerate(found.inputs)}
    from_ = {name: i for i, name in enumerate(found.writers)}
    assert (len(found.writers), len(found.inputs)) == (1 + 3 * 5, 3 * 9 + 1)
    assert found.scores_UI[from_["a1.0"], at["a1.1.q"]] == 0
    assert found.scores_UI[from_["a1.0"], at["m1"]] != 0
    assert found.scores_UI[from_["m1"], at["m1"]] == 0
    assert found.scores_UI[from_["m2"], at["logits"]] != 0
    last = at["a2.0.q"]  # from here on only the last token is read, and that is never corrupted
    assert (found.scores_UI[0, :last] != 0).all()
    assert found.scores_UI[0, at["m2"]] == 0
    writer, reader, score = found.top(1)[0]
    assert abs(score) == found.scores_UI.abs().max()
    assert float(found.scores_UI[from_[writer], at[reader]]) == score


def test_heads_on_which_two_estimates_differ_are_measured_and_the_others_get_their_mean(lm, prompts):
    other = activations(lm, prompts, corrupted=True)
    one, two = (attribute(lm, prompts, other, method=method) for method in ("gradient", "relp"))
    measured = exact(lm, prompts, other)
    found = checked(lm, prompts, other, k=3)
    mean_LH = (one.heads_LH + two.heads_LH) / 2
    apart_LH = (one.heads_LH - two.heads_LH).abs()
    disputed_LH = top_heads(apart_LH, k=3)
    assert torch.equal(found.heads_LH[disputed_LH], measured.heads_LH[disputed_LH])
    assert torch.equal(found.heads_LH[~disputed_LH], mean_LH[~disputed_LH])
    assert float(apart_LH[disputed_LH].min()) >= float(apart_LH[~disputed_LH].max())
    assert torch.equal(found.mlps_L, (one.mlps_L + two.mlps_L) / 2)
    everything = checked(lm, prompts, other, k=disputed_LH.numel())
    assert torch.equal(everything.heads_LH, measured.heads_LH)
    assert torch.equal(checked(lm, prompts, other, k=0).heads_LH, mean_LH)


def test_bad_settings_are_refused(llama):
    prompts = ioi(llama, n=2)
    other = activations(llama, prompts)
    with pytest.raises(ValueError, match="method is 'magic'; expected one of gradient, integrated, relp"):
        attribute(llama, prompts, other, method="magic")
    with pytest.raises(ValueError, match="steps is 0"):
        edges(llama, prompts, method="integrated", steps=0)
    with pytest.raises(ValueError, match="the reference has heads of shape"):
        attribute(llama, prompts, other.take(slice(0, 1)))
    with pytest.raises(ValueError, match="k is 13; expected 0 to 12, the number of heads"):
        checked(llama, prompts, other, k=13)


def test_on_the_embedded_model_every_method_agrees_with_exact_patching():
    lm = load_model("smollm2-135m", device="cpu")
    prompts = ioi(lm, n=6)
    other = activations(lm, prompts, corrupted=True)
    found = {method: attribute(lm, prompts, other, method=method, steps=2) for method in ("gradient", "relp")}
    chosen = top_heads(found["gradient"].heads_LH, k=5) | top_heads(found["relp"].heads_LH, k=5)
    measured = exact(lm, prompts, other, nodes=[(at, head) for at, head in chosen.nonzero().tolist()])
    for method, effects in found.items():
        assert correlation(effects.heads_LH[chosen], measured.heads_LH[chosen]) > 0.9, method
    shuffled = measured.heads_LH[chosen].flip(0)
    assert abs(correlation(found["gradient"].heads_LH[chosen], shuffled)) < 0.8
