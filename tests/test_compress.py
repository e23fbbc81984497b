"""Compression, compared with loops over single weights, on every family of models."""

import itertools
import math

import pytest
import torch
from transformers.pytorch_utils import Conv1D

from helpers import compress, trace
from helpers.models import LanguageModel
from tests import families

TEXT = "A short text, from which the inputs of every matrix get their norms. And some more of it."


@pytest.fixture(scope="module", params=families.FAMILY_NAMES)
def lm(request):
    return LanguageModel(request.param, families.model(request.param), families.tokenizer())


@pytest.fixture(scope="module")
def text_BT(lm):
    ids = lm.tokenizer(TEXT, add_special_tokens=False).input_ids
    return torch.tensor(ids[:80]).view(5, 16)


def seen_inputs(lm, tokens_BT):
    """Keep every input of every matrix: what streaming must agree with."""
    kept, layers = {}, compress.linear_layers(lm)

    def keep(name):
        def store(module, inputs):
            kept[name] = inputs[0].detach().flatten(0, 1)

        return store

    handles = [layer.register_forward_pre_hook(keep(name)) for name, layer in layers.items()]
    with torch.no_grad():
        lm.model(tokens_BT)
    for handle in handles:
        handle.remove()
    return kept


def lowest_by_hand(scores, count):
    """Return the places of the lowest scores of a list."""
    return set(sorted(range(len(scores)), key=lambda i: scores[i])[:count])


def test_embedding_head_norms_and_biases_stay(lm, text_BT):
    small, report = compress.random_mask(lm, sparsity=0.5)
    before, after = lm.model.state_dict(), small.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {f"{lm_prefix(lm)}{name.partition('.')[2]}.weight" for name in report.layers}
    assert small.model.get_input_embeddings().weight.count_nonzero() == before_embedding(lm).count_nonzero()


def lm_prefix(lm):
    return "transformer.h." if lm.family == "gpt2" else "model.layers."


def before_embedding(lm):
    return lm.model.get_input_embeddings().weight


def test_matrix_maps_inputs_to_outputs_in_either_storage():
    x = torch.randn(7, 3)
    for module in (torch.nn.Linear(3, 2), Conv1D(2, 3)):
        torch.testing.assert_close(module(x), x @ compress.matrix(module).T + module.bias)


def test_norms_stream(lm, text_BT):
    whole = {name: x.norm(dim=0) for name, x in seen_inputs(lm, text_BT).items()}
    for batch_size in (1, 2, 5):
        streamed = compress.input_norms(lm, text_BT, batch_size=batch_size)
        assert streamed.keys() == whole.keys()
        for name, norm in streamed.items():
            torch.testing.assert_close(norm, whole[name], rtol=1e-4, atol=1e-5)


def test_a_pass_stops_after_the_last_matrix_asked_for(lm, text_BT):
    first = next(iter(compress.linear_layers(lm)))
    reached = []
    last = list(compress.linear_layers(lm).values())[-1]
    handle = last.register_forward_hook(lambda *_: reached.append(True))
    alone = compress.input_norms(lm, text_BT, layers=[first])
    handle.remove()
    assert list(alone) == [first]
    assert not reached
    torch.testing.assert_close(alone[first], compress.input_norms(lm, text_BT)[first])


def test_wanda_is_size_times_input_norm_within_each_row(lm, text_BT):
    inputs = seen_inputs(lm, text_BT)
    small, report = compress.wanda(lm, text_BT, sparsity=0.3)
    old, new = compress.linear_layers(lm), compress.linear_layers(small)
    for name in report.layers:
        weight, pruned = compress.matrix(old[name]), compress.matrix(new[name])
        norm = inputs[name].double().square().sum(0).sqrt().float()
        for row in range(0, len(weight), 5):
            gone = lowest_by_hand((weight[row].abs() * norm).tolist(), int(0.3 * weight.shape[1]))
            expected = [0.0 if i in gone else w for i, w in enumerate(weight[row].tolist())]
            assert pruned[row].tolist() == expected


def test_wanda_layer_by_layer_sees_what_the_layers_before_left(lm, text_BT):
    small, report = compress.wanda(lm, text_BT, sparsity=0.5, layer_by_layer=True)
    once, _ = compress.wanda(lm, text_BT, sparsity=0.5)
    step, single = compress.linear_layers(small), compress.linear_layers(once)
    same = {n: torch.equal(compress.matrix(step[n]), compress.matrix(single[n])) for n in report.layers}
    blocks = {compress._block(name) for name in report.layers}
    first = compress._block(report.layers[0])
    assert all(same[name] for name in same if compress._block(name) == first)
    assert len(blocks) == lm.n_layers
    assert not all(same.values())
    # The first matrix of the last layer: its inputs come out of pruned layers, and of nothing else.
    name = next(name for name in report.layers if compress._block(name) == sorted(blocks)[-1])
    norm = seen_inputs(small, text_BT)[name].norm(dim=0)
    weight = compress.matrix(compress.linear_layers(lm)[name])
    kept = compress.keep_best(weight.abs() * norm, sparsity=0.5)
    assert torch.equal(compress.matrix(step[name]) != 0, kept)


@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (3, 8)])
def test_every_group_keeps_its_best(lm, text_BT, n, m):
    for small, report in (
        compress.magnitude(lm, n=n, m=m),
        compress.wanda(lm, text_BT, n=n, m=m),
        compress.random_mask(lm, n=n, m=m),
    ):
        for name in report.layers:
            groups = compress.matrix(compress.linear_layers(small)[name]).reshape(-1, m)
            assert set((groups != 0).sum(1).tolist()) == {n}
        assert report.sparsity == 1 - n / m


def test_magnitude_compares_within_the_matrix(lm):
    small, report = compress.magnitude(lm, sparsity=0.4)
    for name in report.layers:
        old = compress.matrix(compress.linear_layers(lm)[name])
        new = compress.matrix(compress.linear_layers(small)[name])
        gone = new == 0
        assert int(gone.sum()) == math.floor(0.4 * old.numel())
        assert old[gone].abs().max() <= old[~gone].abs().min()
        assert torch.equal(new[~gone], old[~gone])


def test_random_masks_follow_their_seed(lm):
    masks = [compress.random_mask(lm, sparsity=0.5, seed=seed)[0] for seed in (1, 1, 2)]
    first, again, other = (
        torch.cat([compress.matrix(x).flatten() for x in compress.linear_layers(m).values()]) for m in masks
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_model_that_was_given_stays(lm, text_BT):
    before = {name: tensor.clone() for name, tensor in lm.model.state_dict().items()}
    trace.loss(lm, text_BT)  # nnsight has wrapped the modules before they are copied
    small, _ = compress.wanda(lm, text_BT, sparsity=0.9)
    compress.round_to_nearest(lm, bits=2)
    assert all(torch.equal(before[name], tensor) for name, tensor in lm.model.state_dict().items())
    assert trace.loss(small, text_BT) != trace.loss(lm, text_BT)


def nearest_by_hand(weights, bits):
    """Try every point of the grid."""
    top = 2 ** (bits - 1) - 1
    scale = max(map(abs, weights)) / top
    grid = [scale * step for step in range(-top, top + 1)]
    return [min(grid, key=lambda point: abs(point - w)) for w in weights]


@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 4), (2, 2), (3, 6)])
def test_rounding_goes_to_the_nearest_point(bits, group):
    weight = torch.randn(5, 12, generator=torch.Generator().manual_seed(bits))
    found = compress.round_matrix(weight, bits=bits, group=group)
    expected = [nearest_by_hand(part.tolist(), bits) for part in weight.reshape(-1, group or 12)]
    torch.testing.assert_close(found, torch.tensor(expected).view(5, 12))
    torch.testing.assert_close(compress.round_matrix(found, bits=bits, group=group), found)  # once is enough


def test_a_group_of_zeros_rounds_to_zeros():
    assert compress.round_matrix(torch.zeros(2, 4), bits=4, group=2).tolist() == [[0.0] * 4] * 2


def test_bits_are_what_packing_would_take(lm):
    assert compress.magnitude(lm, sparsity=0)[1].bits == 32  # nothing to gain from a mask
    quarter = compress.random_mask(lm, sparsity=0.75)[1]
    assert quarter.bits == pytest.approx(1 + 32 * (1 - quarter.sparsity))
    assert compress.random_mask(lm, n=2, m=4)[1].bits == 17
    assert compress.round_to_nearest(lm, bits=4, group=8)[1].bits == 8
    _, per_row = compress.round_to_nearest(lm, bits=8)
    shapes = [compress.matrix(layer).shape for layer in compress.linear_layers(lm).values()]
    scales = sum(rows for rows, _ in shapes)
    assert per_row.bits == pytest.approx(8 + 32 * scales / per_row.weights)


def test_zeros_are_counted_by_absolute_value(lm):
    small, _ = compress.random_mask(lm, sparsity=0)
    first = compress.matrix(next(iter(compress.linear_layers(small).values())))
    first[0, :3] = torch.tensor([-0.0, 0.0, 1e-30])
    zeros, weights = compress.count_zeros(small)
    assert zeros == 2
    assert weights == sum(compress.matrix(x).numel() for x in compress.linear_layers(lm).values())


def test_perplexity_is_of_the_copy(lm, text_BT):
    small, report = compress.random_mask(lm, sparsity=0.9, held_out_BT=text_BT)
    assert report.perplexity == pytest.approx(math.exp(trace.loss(small, text_BT)))
    assert report.perplexity != pytest.approx(compress.perplexity(lm, text_BT))
    assert compress.random_mask(lm, sparsity=0.9)[1].perplexity is None


def test_a_copy_does_not_pass_for_the_model_of_the_hub(lm):
    small, report = compress.round_to_nearest(lm, bits=8)
    assert small.source == "folder"
    assert small.name == f"{lm.name}, {report.method}"


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 50, float("nan")])
def test_sparsity_is_a_share(lm, sparsity):
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        compress.magnitude(lm, sparsity=sparsity)


@pytest.mark.parametrize(
    "share", [{}, {"n": 2}, {"m": 4}, {"sparsity": 0.5, "n": 2, "m": 4}, {"sparsity": 0.5, "m": 4}]
)
def test_one_share_and_only_one(lm, share):
    with pytest.raises(ValueError, match="either a sparsity, or both n and m"):
        compress.random_mask(lm, **share)


@pytest.mark.parametrize(("n", "m"), list(itertools.product((0, 4, 5), (4,))))
def test_n_is_below_m(lm, n, m):
    with pytest.raises(ValueError, match="1 <= n < m"):
        compress.magnitude(lm, n=n, m=m)


def test_a_layer_that_does_not_divide_is_named(lm, text_BT):
    first = next(iter(compress.linear_layers(lm)))
    with pytest.raises(ValueError, match=rf"{first}: 16 inputs do not divide into groups of m = 5"):
        compress.wanda(lm, text_BT, n=2, m=5)
    with pytest.raises(ValueError, match="groups of group = 7"):
        compress.round_to_nearest(lm, bits=4, group=7)


def test_calibration_needs_tokens(lm):
    with pytest.raises(ValueError, match="no tokens"):
        compress.wanda(lm, torch.zeros(0, 8, dtype=torch.long), sparsity=0.5)


@pytest.mark.parametrize("bits", [1, 9])
def test_bits_out_of_range(lm, bits):
    with pytest.raises(ValueError, match="2 to 8"):
        compress.round_to_nearest(lm, bits=bits)
