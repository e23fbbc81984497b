"""The hooks: what they read is what the model computes, what they change is only that, and they come off."""

import contextlib

import torch
from torch import nn

from helpers.circuits.wires import (
    Wires,
    eager,
    end_logits,
    fed,
    frozen_norm,
    linearised,
    patching,
    recording,
    starting_at,
)
from tests.circuits.conftest import make


def run(lm, prompts):
    return end_logits(lm, prompts.tokens_BT, prompts.ends_B)


def hooks_left(lm):
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + ("forward" in vars(m)) for m in lm.model.modules()
    )


def test_end_logits_are_the_models_own(lm, prompts):
    whole = lm.model(prompts.tokens_BT).logits[torch.arange(8), prompts.ends_B]
    assert torch.allclose(run(lm, prompts), whole, atol=1e-6)
    some = torch.tensor([5, 2])
    assert torch.allclose(
        end_logits(lm, prompts.tokens_BT, prompts.ends_B, answers_A=some), whole[:, some], atol=1e-6
    )
    embeds = lm.model.get_input_embeddings()(prompts.tokens_BT)
    given = end_logits(lm, prompts.tokens_BT, prompts.ends_B, embeds_BTD=embeds)
    assert torch.allclose(given, whole, atol=1e-6)


def test_what_is_written_sums_to_the_residual_stream(lm, prompts):
    wires = Wires(lm)
    with torch.no_grad(), recording(lm) as tape:
        run(lm, prompts)
        stream = tape.resid[0]
        for layer in range(lm.n_layers):
            bias = getattr(wires.out(layer), "bias", None)
            stream = (
                stream + wires.head_writes(layer, tape.heads[layer]).sum(2) + (0 if bias is None else bias)
            )
            assert torch.allclose(stream, tape.middle[layer], atol=1e-5), layer
            stream = stream + wires.mlp_write(layer, tape.mlps[layer])
            assert torch.allclose(stream, tape.resid[layer + 1], atol=1e-5), layer


def test_queries_keys_and_values_are_what_the_weights_give(lm, prompts):
    wires = Wires(lm)
    with torch.no_grad(), recording(lm) as tape:
        run(lm, prompts)
    for layer in range(lm.n_layers):
        normed = wires.norm(layer, 0)(tape.resid[layer])
        made = torch.einsum("btd,icd->btic", normed, wires.input_weights(layer))
        biases = [getattr(module, "bias", None) for module in wires.qkv(layer)]
        given = wires.split(torch.cat(tape.qkv[layer], dim=-1))
        shift = 0 if biases[0] is None else torch.cat(biases).unflatten(0, (-1, wires.width))
        assert torch.allclose(made + shift, given, atol=1e-5)
        assert made.shape[2] == wires.n_heads + 2 * wires.n_groups


def test_starting_later_gives_the_same(lm, prompts):
    with torch.no_grad(), recording(lm) as tape:
        whole = run(lm, prompts)
    for layer in range(lm.n_layers):
        with torch.no_grad(), starting_at(lm, layer, tape.resid[layer]):
            assert torch.allclose(run(lm, prompts), whole, atol=1e-9)
    with torch.no_grad(), starting_at(lm, 2, tape.resid[2].flip(0)):
        assert not torch.allclose(run(lm, prompts), whole)


def test_changes_reach_what_they_name(lm, prompts):
    with torch.no_grad():
        whole = run(lm, prompts)
        for what in ("heads", "mlps", "qkv"):
            seen = []

            def double(x, seen=seen):
                seen.append(x.shape)
                return 2 * x

            with patching(lm, **{what: {1: double}}):
                assert not torch.allclose(run(lm, prompts), whole), what
            assert seen
        with patching(lm, heads={0: lambda x: x}, mlps={2: lambda x: x}, qkv={1: lambda x: x}):
            assert torch.equal(run(lm, prompts), whole)


def test_every_hook_comes_off_even_after_an_error(lm, prompts):
    inputs, before = [torch.zeros(1)] * lm.n_layers, lm.model.config._attn_implementation
    blocks = [
        lambda: recording(lm),
        lambda: patching(lm, heads={0: lambda x: x}, mlps={0: lambda x: x}, qkv={0: lambda x: x}),
        lambda: starting_at(lm, 1, torch.zeros(1, 1, 1)),
        lambda: linearised(lm),
        lambda: fed(lm, inputs),
        lambda: eager(lm),
    ]
    for block in blocks:
        with contextlib.suppress(RuntimeError), block():
            assert hooks_left(lm)
            raise RuntimeError
        assert hooks_left(lm) == 0
    assert lm.model.config._attn_implementation == before


def test_relp_leaves_values_alone_and_changes_gradients(lm, prompts):
    def gradient():
        embeds = lm.model.get_input_embeddings()(prompts.tokens_BT).requires_grad_()
        logits = end_logits(lm, prompts.tokens_BT, prompts.ends_B, embeds_BTD=embeds)
        return logits.detach(), torch.autograd.grad(logits[:, 3].sum(), embeds)[0]

    value, plain = gradient()
    with linearised(lm):
        again, ruled = gradient()
    assert torch.allclose(value, again, atol=1e-5)
    assert float((plain - ruled).norm() / plain.norm()) > 0.01
    assert torch.isfinite(ruled).all()


def test_rules_of_relp_are_the_closed_forms(lm):
    wires = Wires(lm)
    x = torch.randn(4, lm.d_model, dtype=torch.float64, requires_grad=True)
    back = torch.randn(4, lm.d_model, dtype=torch.float64)
    norm = wires.norm(1, 1)
    (ruled,) = torch.autograd.grad(frozen_norm(norm, x), x, back)
    gamma = norm.weight + 1 if lm.family == "gemma2" else norm.weight
    if isinstance(norm, nn.LayerNorm):
        scaled = back * gamma / (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
        expected = scaled - scaled.mean(-1, keepdim=True)
    else:
        eps = getattr(norm, "variance_epsilon", None) or norm.eps
        expected = back * gamma / (x.square().mean(-1, keepdim=True) + eps).sqrt()
    assert torch.allclose(ruled, expected)
    assert torch.allclose(frozen_norm(norm, x), norm(x), atol=1e-6)
    act = getattr(wires.mlp(0), wires.wiring.act)
    z = torch.tensor([-2.0, -0.3, 0.0, 0.7, 3.0], dtype=torch.float64, requires_grad=True)
    plain = act(z).detach()
    with linearised(lm):
        out = act(z)
        (slope,) = torch.autograd.grad(out.sum(), z)
    assert torch.allclose(out, plain)
    assert torch.allclose(slope[[0, 1, 3, 4]], (plain / z.detach())[[0, 1, 3, 4]])
    assert slope[2] == 0.5


def test_a_gated_product_sends_half_to_each_side():
    lm = make("llama")
    mlp = lm.model.model.layers[0].mlp
    x = torch.randn(3, lm.d_model, dtype=torch.float64)
    gate, up = (linear(x).detach().requires_grad_() for linear in (mlp.gate_proj, mlp.up_proj))
    with linearised(lm):
        out = mlp.down_proj(mlp.act_fn(gate) * up)
        to_gate, to_up = torch.autograd.grad(out.sum(), (gate, up))
    down = mlp.down_proj.weight.sum(0)
    silu = torch.nn.functional.silu(gate.detach())
    assert torch.allclose(to_up, down * silu / 2)
    assert torch.allclose(to_gate, down * up.detach() * silu / gate.detach() / 2)
    assert torch.allclose(out, mlp.down_proj(mlp.act_fn(gate) * up))


def test_grouped_queries_share_keys_and_values():
    wires = Wires(make("llama"))
    assert (wires.n_heads, wires.n_groups) == (4, 2)
    assert wires.input_weights(0).shape == (8, 4, 16)
    assert Wires(make("gpt2")).input_weights(0).shape == (12, 4, 16)
