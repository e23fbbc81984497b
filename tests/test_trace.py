"""Everything that trace does, against bare PyTorch hooks, exactly, for every family."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from helpers import data, models, trace
from helpers.trace import Edit, Site
from tests import families

SITES = (Site(2), Site(0, "attn"), Site(1, "mlp"), Site(1), Site(2, "attn"))
TOKENS = torch.randint(0, 256, (5, 7), generator=torch.Generator().manual_seed(1))
VECTOR = torch.linspace(-2, 3, families.D_MODEL)
OTHER = torch.randn(5, 7, families.D_MODEL, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module", params=families.FAMILY_NAMES)
def lm(request: Any, tmp_path_factory: Any) -> models.LanguageModel:
    folder = families.write(request.param, tmp_path_factory.mktemp(request.param))
    return models.load_model(folder, device="cpu")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: Any) -> models.LanguageModel:
    return models.load_model(families.write("llama", tmp_path_factory.mktemp("llama")), device="cpu")


@pytest.fixture(scope="module")
def smollm() -> models.LanguageModel:
    return models.load_model(models.EMBEDDED, device="cpu")


def bare_module(lm: models.LanguageModel, site: Site) -> Any:
    """Find the module by hand, not through helpers."""
    layer = (lm.model.transformer.h if lm.family == "gpt2" else lm.model.model.layers)[site.layer]
    attn = layer.attn if lm.family == "gpt2" else layer.self_attn
    return {"resid": layer, "attn": attn, "mlp": layer.mlp}[site.part]


@contextlib.contextmanager
def hooks(lm: models.LanguageModel, site: Site, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Change a module's output with a bare PyTorch hook."""

    def hook(module: Any, args: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    handle = bare_module(lm, site).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def bare_collect(lm: models.LanguageModel, tokens: Tensor, site: Site, batch: int) -> Tensor:
    seen: list[Tensor] = []

    def keep(acts: Tensor) -> Tensor:
        seen.append(acts.clone())
        return acts

    with hooks(lm, site, keep), torch.no_grad():
        for start in range(0, len(tokens), batch):
            lm.model(tokens[start : start + batch])
    return torch.cat(seen)


def bare_logits(lm: models.LanguageModel, site: Site, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Change all positions but the first."""

    def skipping(acts: Tensor) -> Tensor:
        return torch.cat([acts[:, :1], change(acts[:, 1:])], dim=1)

    with hooks(lm, site, skipping), torch.no_grad():
        return lm.model(TOKENS).logits


UNIT = VECTOR / VECTOR.norm()
CHANGES: dict[str, tuple[Callable[[Site], Edit], Callable[[Tensor], Tensor]]] = {
    "splice": (lambda site: trace.splice(site, torch.tanh), torch.tanh),
    "add": (lambda site: trace.add(site, VECTOR, scale=-1.5), lambda acts: acts + -1.5 * VECTOR),
    "zero": (lambda site: trace.ablate(site), torch.zeros_like),
    "mean": (lambda site: trace.ablate(site, value=VECTOR), lambda acts: VECTOR.expand_as(acts)),
    "project": (
        lambda site: trace.ablate(site, direction=VECTOR),
        lambda acts: acts + (0.0 - acts @ UNIT)[..., None] * UNIT,
    ),
    "clamp": (
        lambda site: trace.clamp(site, VECTOR, value=4.0),
        lambda acts: acts + (4.0 - acts @ UNIT)[..., None] * UNIT,
    ),
    "patch": (lambda site: trace.patch(site, OTHER), lambda acts: OTHER[:, 1:]),
}


@pytest.mark.parametrize("remote", [False, "local"])
def test_collect_equals_bare_hooks(lm: models.LanguageModel, remote: Any) -> None:
    found = trace.collect(lm, TOKENS, sites=SITES, batch_size=2, progress=False, remote=remote)
    assert set(found) == set(SITES)
    for site in SITES:
        expected = bare_collect(lm, TOKENS, site, 2)[:, 1:].reshape(-1, families.D_MODEL)
        assert torch.equal(found[site], expected), site


@pytest.mark.parametrize("remote", [False, "local"])
@pytest.mark.parametrize("part", ["resid", "attn", "mlp"])
@pytest.mark.parametrize("change", CHANGES)
def test_edits_equal_bare_hooks(lm: models.LanguageModel, change: str, part: Any, remote: Any) -> None:
    make, bare = CHANGES[change]
    site = Site(1, part)
    found = trace.logits(lm, TOKENS, edits=[make(site)], remote=remote)
    assert torch.equal(found, bare_logits(lm, site, bare))
    assert not torch.equal(found, trace.logits(lm, TOKENS))


def test_logits_without_edits_are_the_models_own(lm: models.LanguageModel) -> None:
    assert torch.equal(trace.logits(lm, TOKENS), lm.model(TOKENS).logits)


def test_edits_on_one_site_apply_in_the_order_given(llama: models.LanguageModel) -> None:
    site = Site(1)
    double, shift = trace.splice(site, lambda acts: 2 * acts), trace.add(site, VECTOR)
    first = trace.logits(llama, TOKENS, edits=[double, shift])
    assert torch.equal(first, bare_logits(llama, site, lambda acts: 2 * acts + VECTOR))
    assert torch.equal(
        trace.logits(llama, TOKENS, edits=[shift, double]),
        bare_logits(llama, site, lambda acts: 2 * (acts + VECTOR)),
    )


def test_edits_at_several_layers_given_in_any_order(lm: models.LanguageModel) -> None:
    edits = [trace.add(Site(2), VECTOR), trace.ablate(Site(0, "mlp")), trace.add(Site(0, "attn"), VECTOR)]
    with contextlib.ExitStack() as stack:
        for site, change in (
            (Site(2), lambda acts: acts + VECTOR),
            (Site(0, "mlp"), torch.zeros_like),
            (Site(0, "attn"), lambda acts: acts + VECTOR),
        ):
            whole = lambda acts, change=change: torch.cat([acts[:, :1], change(acts[:, 1:])], dim=1)  # noqa: E731
            stack.enter_context(hooks(lm, site, whole))
        with torch.no_grad():
            expected = lm.model(TOKENS).logits
    assert torch.equal(trace.logits(lm, TOKENS, edits=edits), expected)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 99])
def test_a_patch_follows_its_rows_through_batches(llama: models.LanguageModel, batch_size: int) -> None:
    found = trace.logits(llama, TOKENS, edits=[trace.patch(Site(1), OTHER)], batch_size=batch_size)
    expected = bare_logits(llama, Site(1), lambda acts: OTHER[:, 1:])
    torch.testing.assert_close(found, expected)


def test_patching_a_run_with_itself_changes_nothing(llama: models.LanguageModel) -> None:
    acts = trace.collect(llama, TOKENS, sites=[Site(1)], skip_first=0, progress=False)[Site(1)]
    edit = trace.patch(Site(1), acts.view(*TOKENS.shape, -1), skip_first=0)
    assert torch.equal(trace.logits(llama, TOKENS, edits=[edit]), llama.model(TOKENS).logits)


@pytest.mark.parametrize("remote", [False, "local"])
def test_loss_is_the_mean_next_token_cross_entropy(llama: models.LanguageModel, remote: Any) -> None:
    edits = [trace.add(Site(1), VECTOR)]
    log_p = trace.logits(llama, TOKENS, edits=edits)[:, :-1].log_softmax(-1)
    expected = -log_p.gather(-1, TOKENS[:, 1:, None]).mean().item()
    assert trace.loss(llama, TOKENS, edits=edits, batch_size=2, remote=remote) == pytest.approx(expected)


def test_the_first_position_stays_unless_asked(llama: models.LanguageModel) -> None:
    plain = llama.model(TOKENS).logits[:, 0]
    kept = trace.logits(llama, TOKENS, edits=[trace.ablate(Site(1))])[:, 0]
    torch.testing.assert_close(kept, plain)
    changed = trace.logits(llama, TOKENS, edits=[trace.ablate(Site(1), skip_first=0)])[:, 0]
    assert not torch.allclose(changed, plain)


@pytest.mark.parametrize("skip", [0, 1, 3])
def test_collect_keeps_the_tokens_after_the_skipped(llama: models.LanguageModel, skip: int) -> None:
    found = trace.collect(llama, TOKENS, sites=[Site(0)], skip_first=skip, progress=False)[Site(0)]
    assert torch.equal(found, bare_collect(llama, TOKENS, Site(0), 8)[:, skip:].reshape(-1, families.D_MODEL))


def test_collect_stops_at_the_deepest_site(llama: models.LanguageModel) -> None:
    def explode(acts: Tensor) -> Tensor:
        raise AssertionError("a layer behind the deepest site was run")

    with hooks(llama, Site(2, "attn"), explode):
        found = trace.collect(llama, TOKENS, sites=[Site(1), Site(0, "mlp")], progress=False)
    assert found[Site(1)].shape == (30, families.D_MODEL)


def test_half_precision_comes_out_as_float32(tmp_path: Path) -> None:
    half = models.load_model(families.write("llama", tmp_path), dtype=torch.bfloat16, device="cpu")
    seen: list[torch.dtype] = []

    def note(acts: Tensor) -> Tensor:
        seen.append(acts.dtype)
        return acts

    assert trace.collect(half, TOKENS, sites=[Site(1)], progress=False)[Site(1)].dtype == torch.float32
    plain = trace.logits(half, TOKENS)
    assert torch.equal(trace.logits(half, TOKENS, edits=[trace.splice(Site(1), note)]), plain)
    assert seen == [torch.float32]
    assert plain.dtype == torch.float32


def test_the_tokenizer_and_the_model_stay_as_they_were(llama: models.LanguageModel) -> None:
    llama.tokenizer.padding_side = "right"
    before = llama.model(TOKENS).logits
    trace.logits(llama, TOKENS, edits=[trace.ablate(Site(1))])
    assert llama.tokenizer.padding_side == "right"
    assert torch.equal(llama.model(TOKENS).logits, before)


def test_the_end_token_inside_a_text_is_not_taken_for_padding(lm: models.LanguageModel) -> None:
    tokens = TOKENS.clone()
    tokens[:, 3] = lm.tokenizer.eos_token_id
    assert torch.equal(trace.logits(lm, tokens), lm.model(tokens).logits)


def test_a_bar_is_shown_and_can_be_hidden(llama: models.LanguageModel, capsys: Any, monkeypatch: Any) -> None:
    trace.collect(llama, TOKENS, sites=[Site(0)])
    assert "35.0/35.0" in capsys.readouterr().err
    trace.collect(llama, TOKENS, sites=[Site(0)], progress=False)
    monkeypatch.setenv("TML_PRESS", "1")
    trace.collect(llama, TOKENS, sites=[Site(0)])
    assert capsys.readouterr().err == ""


def test_real_model_equals_bare_hooks(smollm: models.LanguageModel) -> None:
    tokens = models.tokenize_blocks(smollm, data.load_text("pydoc-topics")[:2000], length=16)[:3]
    site = Site(2, "attn")
    found = trace.collect(smollm, tokens, sites=[site, Site(4)], progress=False)
    for where in found:
        assert torch.equal(
            found[where], bare_collect(smollm, tokens, where, 8)[:, 1:].reshape(-1, smollm.d_model)
        )
    local = trace.collect(smollm, tokens, sites=[site, Site(4)], progress=False, remote="local")
    assert torch.equal(local[Site(4)], found[Site(4)])


def test_real_model_knows_paris_and_has_a_sink(smollm: models.LanguageModel) -> None:
    tokens = smollm.tokenizer("The Eiffel Tower is in the city of", return_tensors="pt").input_ids
    best = trace.logits(smollm, tokens)[0, -1].argmax()
    assert smollm.tokenizer.decode(best) == " Paris"
    acts = trace.collect(smollm, tokens, sites=[Site(15)], skip_first=0, progress=False)[Site(15)]
    assert trace.massive(acts).tolist() == [True] + [False] * (tokens.shape[1] - 1)


# What is refused


def test_not_finite_activations_are_refused_by_site(tmp_path: Path) -> None:
    broken = models.load_model(families.write("llama", tmp_path), device="cpu")
    with torch.no_grad():
        broken.model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"activations at mlp\.1 are not finite"):
        trace.collect(broken, TOKENS, sites=[Site(0), Site(1, "mlp")], progress=False)
    assert torch.isfinite(trace.collect(broken, TOKENS, sites=[Site(0)], progress=False)[Site(0)]).all()


@pytest.mark.parametrize("layer", [3, 30])
def test_a_layer_that_does_not_exist(llama: models.LanguageModel, layer: int) -> None:
    with pytest.raises(ValueError, match=rf"resid\.{layer} does not exist: .* has layers 0 to 2"):
        trace.collect(llama, TOKENS, sites=[Site(layer)])
    with pytest.raises(ValueError, match="layers 0 to 2"):
        trace.logits(llama, TOKENS, edits=[trace.ablate(Site(layer))])


def test_sites_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="layer is -1"):
        Site(-1)
    with pytest.raises(ValueError, match="part is 'neuron'; expected one of attn, mlp, resid"):
        Site.__post_init__(SimpleNamespace(layer=0, part="neuron"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (TOKENS[:0], "so none"),
        (TOKENS[:, :0], "so none"),
        (TOKENS + 10_000, "knows 0 to 257"),
        (TOKENS - 300, "token ids run from"),
    ],
)
def test_tokens_that_cannot_be_run(llama: models.LanguageModel, tokens: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace.collect(llama, tokens, sites=[Site(0)])
    with pytest.raises(ValueError, match=message):
        trace.logits(llama, tokens)
    with pytest.raises(ValueError, match=message):
        trace.loss(llama, tokens)


def test_other_arguments_out_of_range(llama: models.LanguageModel) -> None:
    with pytest.raises(ValueError, match="no sites"):
        trace.collect(llama, TOKENS, sites=[])
    with pytest.raises(ValueError, match="batch_size is 0"):
        trace.logits(llama, TOKENS, batch_size=0)
    with pytest.raises(ValueError, match="skip_first is 7"):
        trace.collect(llama, TOKENS, sites=[Site(0)], skip_first=7)
    with pytest.raises(ValueError, match="skip_first is -1"):
        trace.add(Site(0), VECTOR, skip_first=-1)
    with pytest.raises(ValueError, match="one token"):
        trace.loss(llama, TOKENS[:, :1])
    with pytest.raises(ValueError, match="a direction and a value"):
        trace.ablate(Site(0), direction=VECTOR, value=VECTOR)
    with pytest.raises(ValueError, match=r"norm 0\.0"):
        trace.clamp(Site(0), torch.zeros(4), value=1.0)
    with pytest.raises(ValueError, match="no rows"):
        trace.massive(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="ratio is 1"):
        trace.massive(torch.ones(2, 3), ratio=1.0)


def test_an_edit_that_changes_the_shape(llama: models.LanguageModel) -> None:
    shrink = Edit(Site(1), lambda acts: acts[:, :2])
    with pytest.raises(ValueError, match=r"resid\.1 turned shape \(5, 7, 16\) into \(5, 2, 16\)"):
        trace.logits(llama, TOKENS, edits=[shrink])


def test_a_patch_of_other_sequences(llama: models.LanguageModel) -> None:
    with pytest.raises(ValueError, match=r"edit at resid\.1 has values of shape \(4, 7, 16\)"):
        trace.logits(llama, TOKENS, edits=[trace.patch(Site(1), OTHER[:4])])


def test_remote_needs_a_hub_model(llama: models.LanguageModel) -> None:
    with pytest.raises(ValueError, match="is no hub id"):
        trace.logits(llama, TOKENS, remote=True)


def test_remote_without_a_network_says_so(llama: models.LanguageModel, monkeypatch: Any) -> None:
    import nnsight

    def unreachable(name: str) -> None:
        raise OSError("name resolution failed")

    monkeypatch.setattr(nnsight, "TransformersModel", unreachable)
    hub = models.LanguageModel("someone/model", llama.model, llama.tokenizer, "hub")
    with pytest.raises(ConnectionError, match=r"NDIF did not run the request \(name resolution failed\)"):
        trace.collect(hub, TOKENS, sites=[Site(0)], remote=True, progress=False)


# Properties


@given(st.floats(-50, 50), st.integers(0, 2**31 - 1))
def test_clamp_sets_the_coordinate_and_nothing_else(value: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    acts = torch.randn(2, 3, 8, generator=generator, dtype=torch.float64)
    direction = torch.randn(8, generator=generator, dtype=torch.float64)
    new = trace.clamp(Site(0), direction, value=value, skip_first=0).fn(acts)
    unit = direction / direction.norm()
    torch.testing.assert_close(new @ unit, torch.full((2, 3), value, dtype=torch.float64))
    rest = torch.eye(8, dtype=torch.float64) - torch.outer(unit, unit)
    torch.testing.assert_close(new @ rest, acts @ rest)


@given(st.integers(1, 40), st.floats(0.01, 100))
def test_massive_does_not_depend_on_the_unit(rows: int, scale: float) -> None:
    acts = torch.randn(rows, 4, generator=torch.Generator().manual_seed(rows)) + 0.1
    acts[0] *= 1000
    marked = trace.massive(acts, ratio=50.0)
    assert torch.equal(marked, trace.massive(acts * scale, ratio=50.0))
    assert marked.sum() <= rows // 2


def test_texts_of_different_lengths_give_what_each_gives_alone(lm: models.LanguageModel) -> None:
    texts = ["one two three four", "five six", "seven eight nine"]
    together = trace.collect_texts(lm, texts, site=Site(1), batch_size=2)
    predicted = trace.next_token(lm, texts, batch_size=2)
    for text, acts_ND, next_V in zip(texts, together, predicted, strict=True):
        ids = torch.tensor([lm.tokenizer(text)["input_ids"]])
        alone = trace.collect(lm, ids, sites=[Site(1)], progress=False)[Site(1)]
        torch.testing.assert_close(acts_ND, alone)
        torch.testing.assert_close(next_V, trace.logits(lm, ids)[0, -1].log_softmax(-1))


def test_one_vector_a_sequence_is_added_to_that_sequence(lm: models.LanguageModel) -> None:
    texts = ["one two three", "one two three", "four five six seven"]
    vectors_BD = torch.randn(3, lm.d_model)
    together = trace.next_token(lm, texts, edits=[trace.add(Site(0), vectors_BD, scale=2.0)], batch_size=2)
    for text, vector_D, found_V in zip(texts, vectors_BD, together, strict=True):
        alone = trace.next_token(lm, [text], edits=[trace.add(Site(0), vector_D, scale=2.0)])
        torch.testing.assert_close(found_V, alone[0])
    with pytest.raises(ValueError, match="values of shape"):
        trace.next_token(lm, texts[:2], edits=[trace.add(Site(0), vectors_BD)])


@pytest.mark.parametrize("texts", [[], ["one", ""]])
def test_texts_without_tokens_are_refused(llama: models.LanguageModel, texts: list[str]) -> None:
    with pytest.raises(ValueError, match="have no token"):
        trace.pad_texts(llama, texts)
