"""A direction taken out of what flows, and out of the weights."""

import pytest
import torch
from torch.nn.functional import normalize

from helpers import directions, models, trace
from tests import families


def tokens(lm, rows=3, length=6):
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(1))


def test_after_ablation_no_layer_holds_the_direction(lm, dice):
    direction = torch.randn(lm.d_model, generator=dice)
    sites = [trace.Site(layer) for layer in range(lm.n_layers)]
    edits = directions.ablation(lm, direction, skip_first=0)
    seen = []
    spies = [
        trace.Edit(site, lambda acts: seen.append(acts @ normalize(direction, dim=0)) or acts)
        for site in sites
    ]
    trace.logits(lm, tokens(lm), edits=[*edits, *spies])
    assert len(seen) == lm.n_layers
    assert max(float(part.abs().max()) for part in seen) < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_orthogonal_weights_do_what_ablation_does(family, tmp_path, dice):
    lm = models.load_model(families.write(family, tmp_path / family), device="cpu")
    direction = torch.randn(lm.d_model, generator=dice)
    for name, parameter in lm.model.named_parameters():
        if name.endswith("bias"):  # a fresh model has zeros there
            parameter.data.normal_(generator=dice)
    less = directions.orthogonalise(lm, direction)
    lm.model.get_output_embeddings().weight = less.model.get_output_embeddings().weight
    for name, module in less.model.named_modules():
        if isinstance(module, torch.nn.Embedding):  # ablation begins behind them
            lm.model.get_submodule(name).weight.data = module.weight.data.clone()
    edits = directions.ablation(lm, direction, skip_first=0)
    torch.testing.assert_close(
        trace.logits(less, tokens(lm)), trace.logits(lm, tokens(lm), edits=edits), atol=1e-4, rtol=1e-3
    )


def test_orthogonalising_leaves_the_model_and_its_head_alone(dice):
    lm = models.random_model()
    before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    less = directions.orthogonalise(lm, torch.randn(16, generator=dice))
    assert all(torch.equal(weight, before[name]) for name, weight in lm.model.state_dict().items())
    assert torch.equal(less.model.lm_head.weight, before["lm_head.weight"])
    assert not torch.equal(less.model.transformer.wte.weight, before["transformer.wte.weight"])


def test_writers_are_views_of_what_is_added_to_the_stream(lm):
    matrices = directions.writers(lm, 1)
    for part, weight in matrices.items():
        before = trace.collect(lm, tokens(lm), sites=[trace.Site(1, part)], progress=False)
        weight[2] = 0.0
        after = trace.collect(lm, tokens(lm), sites=[trace.Site(1, part)], progress=False)
        old, new = before[trace.Site(1, part)], after[trace.Site(1, part)]
        moved = (old - new).abs().amax(0)
        assert moved[2] > 0 or float(old[:, 2].std()) == 0
        assert moved[[0, 1, *range(3, lm.d_model)]].max() < 1e-5
        assert float(new[:, 2].std()) < 1e-6  # only a bias is left


def test_a_layer_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="layer 2 does not exist: random has layers 0 to 1"):
        directions.writers(models.random_model(), 2)
