"""Directions: against brute force, closed forms and a model with a direction that was put in."""

import pytest
import torch
from torch.nn.functional import normalize

from helpers import directions, models, trace
from helpers.directions import Candidate
from tests import families


@pytest.fixture
def dice():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=families.FAMILY_NAMES)
def lm(request, tmp_path):
    return models.load_model(families.write(request.param, tmp_path / request.param), device="cpu")


def tokens(lm, rows=3, length=6):
    return torch.randint(0, 256, (rows, length), generator=torch.Generator().manual_seed(1))


# Reading


def test_last_positions_are_those_of_each_text_run_alone(lm):
    texts = ["good day", "how do locks work", "abcdef"]
    found = directions.last_positions(lm, texts, positions=3, batch_size=2)
    assert found.shape == (3, 3, lm.n_layers, lm.d_model)
    for row, text in enumerate(texts):
        ids = torch.tensor([lm.tokenizer(text).input_ids])
        alone = trace.collect(lm, ids, sites=[trace.Site(1)], skip_first=0, progress=False)[trace.Site(1)]
        torch.testing.assert_close(found[row, :, 1], alone[-3:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("positions", [0, 6])
def test_too_many_or_no_positions_are_refused(positions):
    with pytest.raises(ValueError, match=r"shortest text has \d+ tokens"):
        directions.last_positions(models.random_model(), ["abcdef", "long enough"], positions=positions)


def test_difference_of_means_is_exact_far_from_zero(dice):
    one = 1e4 + torch.randn(500, 4, generator=dice)
    other = 1e4 + torch.randn(300, 4, generator=dice)
    exact = one.double().mean(0) - other.double().mean(0)
    torch.testing.assert_close(directions.difference_of_means(one, other).double(), exact, atol=1e-7, rtol=0)


def test_difference_of_nothing_is_refused():
    with pytest.raises(ValueError, match="0 and 2 prompts"):
        directions.difference_of_means(torch.ones(0, 2), torch.ones(2, 2))


def test_candidates_stand_at_their_position_and_layer(dice):
    one, other = torch.randn(2, 5, 3, 4, 2, generator=dice)
    made = directions.candidates(one, other, layers=(0, 3), positions=(-1, -3))
    assert set(made) == {(-1, 0), (-1, 3), (-3, 0), (-3, 3)}
    torch.testing.assert_close(made[-3, 3], one[:, 0, 3].mean(0) - other[:, 0, 3].mean(0))


# Scores


def test_openings_without_a_token_are_refused():
    with pytest.raises(ValueError, match="expected at least one, each with a token"):
        directions.openings(models.random_model(), ["Sorry", ""])


def test_log_odds_are_the_logit_of_the_summed_probability(dice):
    logprobs = torch.randn(7, 30, generator=dice).log_softmax(1)
    share = logprobs.exp()[:, [3, 8]].sum(1)
    torch.testing.assert_close(directions.log_odds(logprobs, torch.tensor([3, 8])), share.logit())


def test_log_odds_stay_finite_where_the_probability_rounds_to_one():
    logprobs = torch.tensor([[40.0, 0.0, 0.0]]).log_softmax(1)
    assert directions.log_odds(logprobs, torch.tensor([0])).item() == pytest.approx(
        40 - torch.tensor(2.0).log().item()
    )


def test_divergence_agrees_with_torch_and_is_zero_for_equals(dice):
    one, other = torch.randn(2, 6, 9, generator=dice).log_softmax(-1)
    theirs = torch.nn.functional.kl_div(other, one, log_target=True, reduction="batchmean")
    assert directions.divergence(one, other).mean() == pytest.approx(theirs.item(), rel=1e-5)
    assert directions.divergence(one, one).max() == 0


def test_a_rate_of_zero_has_a_width_and_wilson_s_closed_form_holds():
    z, n = 1.959964, 64
    found = directions.rate(-torch.ones(n))
    assert (found.share, found.low, found.n) == (0, 0, n)
    assert found.high == pytest.approx(z**2 / (n + z**2), rel=1e-4)


def test_a_rate_counts_what_is_above_its_threshold():
    assert directions.rate(torch.tensor([0.0, 0.5, 2.0, 3.0]), above=0.5).share == 0.5


@pytest.mark.parametrize("scores", [torch.tensor([]), torch.tensor([1.0, float("nan")])])
def test_a_rate_of_nothing_is_refused(scores):
    with pytest.raises(ValueError, match="expected numbers"):
        directions.rate(scores)


# Interventions


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
        if "wpe" in name or name.endswith("_proj.bias"):  # the two things that weights alone do not cover
            parameter.data.zero_()
    less = directions.orthogonalise(lm, direction)
    lm.model.get_input_embeddings().weight.data.copy_(less.model.get_input_embeddings().weight)
    lm.model.get_output_embeddings().weight = less.model.get_output_embeddings().weight
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


def planted(seed=0):
    """A random model, and a direction that makes one token likely when it is added."""
    lm = models.random_model(seed=seed)
    norm, head = lm.model.transformer.ln_f, lm.model.lm_head.weight
    direction = head[50] * norm.weight
    return lm, 400 * (direction - direction.mean()), torch.tensor([50])


def test_judging_finds_that_a_planted_direction_induces_its_token():
    lm, direction, token = planted()
    unedited = trace.next_token(lm, ["good day", "hello"])
    judged = {
        sign: directions.judge(
            lm, sign * direction, at=(-1, 1), harmful=["bad", "worse"], harmless=["good day", "hello"],
            tokens=token, unedited_NV=unedited,
        )
        for sign in (1, -1)
    }  # fmt: skip
    plain = float(directions.log_odds(unedited, token).mean())
    assert judged[-1].induce < plain < judged[1].induce
    assert judged[1].bypass == pytest.approx(judged[-1].bypass, abs=1e-4)  # ablation knows no sign
    assert judged[1].kl > 0
    without = trace.next_token(lm, ["bad", "worse"], edits=directions.ablation(lm, direction))
    assert judged[1].bypass == pytest.approx(float(directions.log_odds(without, token).mean()), abs=1e-4)


def candidate(position, layer, *, bypass, induce, kl):
    """A candidate with the given means, and some spread."""
    spread = torch.tensor([-0.1, 0.1])
    return Candidate(position, layer, bypass + spread, induce + spread, kl + 0.01 * spread)


POOL = [
    candidate(-1, 2, bypass=-1.0, induce=1.0, kl=0.01),
    candidate(-2, 5, bypass=-5.0, induce=1.0, kl=0.05),
    candidate(-2, 6, bypass=-6.0, induce=1.0, kl=0.11),
    candidate(-2, 7, bypass=-7.0, induce=-0.2, kl=0.01),
    candidate(-2, 8, bypass=-8.0, induce=1.0, kl=0.01),
]


def test_selection_takes_the_best_that_passes_all_filters():
    assert directions.select(POOL, layers=10) == POOL[1]
    assert directions.select(POOL, layers=10, kl_ceiling=0.2) == POOL[2]
    assert directions.select(POOL, layers=11) == POOL[4]


def test_selection_says_which_filter_took_whom():
    with pytest.raises(
        ValueError, match=r"none of 2 candidates passes: 1 change .* 1 induce no .* 0 are too"
    ):
        directions.select(POOL[2:4], layers=10)


def test_a_clear_choice_is_always_chosen_again():
    assert directions.reselect(POOL, layers=10, draws=30) == {(-2, 5): 30}
    assert directions.reselect(POOL, layers=10, draws=30, kl_ceiling=0.2) == {(-2, 6): 30}
    assert directions.reselect(POOL[2:3], layers=10, draws=7) == {None: 7}


def test_two_candidates_that_differ_by_noise_share_the_draws(dice):
    twins = [
        Candidate(-1, layer, torch.randn(40, generator=dice), torch.ones(40), torch.zeros(40))
        for layer in (3, 4)
    ]
    chosen = directions.reselect(twins, layers=10, draws=200)
    shift = float((twins[0].bypass_N - twins[1].bypass_N).mean())
    spread = float((twins[0].bypass_N - twins[1].bypass_N).std()) / 40**0.5
    expected = 200 * float(torch.special.ndtr(torch.tensor(-shift / spread)))
    assert chosen[-1, 3] == pytest.approx(expected, abs=25)


def test_reselecting_among_none_is_refused():
    with pytest.raises(ValueError, match="got no candidates"):
        directions.reselect([], layers=3)


# Agreement


def pair(dice, *, direction, n=120, noise=1.0):
    d = len(direction)
    return direction + noise * torch.randn(n, d, generator=dice), noise * torch.randn(n, d, generator=dice)


def test_one_direction_seen_twice_has_the_null_s_cosine_and_a_corrected_one_of_one(dice):
    direction = torch.ones(32) / 3
    found = directions.agreement(*(pair(dice, direction=direction, n=1200) for _ in range(2)), splits=100)
    assert found.null.mean() < 0.97
    assert abs(float((found.across - found.null).mean())) < 0.02
    low, high = found.interval("corrected")
    assert low < 1 < high < 1.1


def test_the_null_is_what_theory_says(dice):
    """Of two noisy means m + e, the expected cosine is about |m|^2 / (|m|^2 + E|e|^2)."""
    direction, n = torch.ones(400) / 4, 400
    one = pair(dice, direction=direction, n=n)
    found = directions.agreement(one, one, splits=60)
    # A half has n / 2 rows of each kind, and drawing them again doubles the variance of the mean.
    noise = 400 * 2 * 2 / (n / 2)
    signal = float(direction.square().sum())
    assert float(found.null.mean()) == pytest.approx(signal / (signal + noise), abs=0.05)
    assert found.same == pytest.approx(1)


def test_a_rotation_is_seen_through_the_noise(dice):
    first, second = torch.zeros(32), torch.zeros(32)
    first[0], second[:2] = 2.0, torch.tensor([1.6, 1.2])  # a cosine of 0.8
    found = directions.agreement(*(pair(dice, direction=d, n=1200) for d in (first, second)), splits=100)
    low, high = found.interval("corrected")
    assert low < 0.8 < high < 0.9
    assert (found.across < found.null).float().mean() > 0.95


def test_noise_without_a_direction_stays_finite(dice):
    nothing = pair(dice, direction=torch.zeros(64), n=8)
    found = directions.agreement(nothing, pair(dice, direction=torch.zeros(64), n=8), splits=40)
    assert found.corrected.abs().max() <= found.across.abs().max() / 0.05 + 1e-6


def test_the_same_seed_gives_the_same_splits(dice):
    one = pair(dice, direction=torch.ones(4), n=10)
    runs = [directions.agreement(one, one, splits=5, seed=seed) for seed in (3, 3, 4)]
    assert torch.equal(runs[0].null, runs[1].null)
    assert not torch.equal(runs[0].null, runs[2].null)


def test_halves_are_disjoint():
    for seed in range(20):
        one, other = directions._two_halves(9, torch.Generator().manual_seed(seed))
        assert len(one) == len(other) == 4
        assert not set(one.tolist()) & set(other.tolist())


@pytest.mark.parametrize("sizes", [((3, 9), (3, 9)), ((8, 8), (8, 9))])
def test_unequal_or_few_prompts_are_refused(sizes):
    pairs = [tuple(torch.ones(n, 2) for n in two) for two in sizes]
    with pytest.raises(ValueError, match="each 4 or more"):
        directions.agreement(*pairs)


# Weights


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


@pytest.fixture
def matrices(dice):
    dense = torch.randn(12, 20, generator=dice, dtype=torch.float64)
    pruned = dense * (dense.abs() > 0.7)
    r, c = torch.randn(2, 12, generator=dice, dtype=torch.float64)
    return dense, pruned, r, c


def test_restore_changes_only_what_is_written_along_the_direction(matrices):
    dense, pruned, r, _ = matrices
    made = directions.restore(pruned, r, dense_DI=dense)
    torch.testing.assert_close(r @ made, r @ dense)
    torch.testing.assert_close(directions.project_out(made, r), directions.project_out(pruned, r))
    assert torch.linalg.matrix_rank(made - pruned) == 1
    unit = normalize(r, dim=0)
    brute = pruned + unit[:, None] @ unit[None] @ (dense - pruned)
    torch.testing.assert_close(made, brute)


def test_swap_equals_restore_where_nothing_drifted(matrices):
    dense, pruned, r, _ = matrices
    torch.testing.assert_close(
        directions.swap(pruned, r, dense_DI=dense, drifted_D=3 * r),
        directions.restore(pruned, r, dense_DI=dense),
    )


def test_swap_against_its_formula(matrices):
    dense, pruned, r, c = matrices
    r1, c1 = normalize(r, dim=0), normalize(c, dim=0)
    brute = (torch.eye(12) - c1[:, None] * c1).to(dense) @ pruned + (r1[:, None] * r1) @ dense
    torch.testing.assert_close(directions.swap(pruned, r, dense_DI=dense, drifted_D=c), brute)


def test_amplify_scales_one_coordinate(matrices):
    _, pruned, r, _ = matrices
    made = directions.amplify(pruned, r, beta=2.0)
    torch.testing.assert_close(r @ made, 3 * (r @ pruned))
    torch.testing.assert_close(directions.amplify(pruned, r, beta=-1.0), directions.project_out(pruned, r))


def test_rotate_is_a_rotation_that_takes_one_direction_to_the_other(matrices):
    _, _, r, c = matrices
    turn = directions.rotate(torch.eye(12, dtype=torch.float64), r, drifted_D=c)
    torch.testing.assert_close(turn @ turn.T, torch.eye(12, dtype=torch.float64))
    assert torch.linalg.det(turn) == pytest.approx(1.0)
    torch.testing.assert_close(turn @ normalize(c, dim=0), normalize(r, dim=0))
    aside = torch.linalg.svd(torch.stack([r, c])).Vh[2:]
    torch.testing.assert_close(turn @ aside.T, aside.T)


def test_rotating_between_opposites_is_refused(matrices):
    _, pruned, r, _ = matrices
    with pytest.raises(ValueError, match=r"cosine -1\.000"):
        directions.rotate(pruned, r, drifted_D=-r)


# All together, as on the page


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
def test_the_pipeline_runs_on_a_chat_model_of_each_family(family, tmp_path):
    lm = models.load_model(families.write(family, tmp_path), device="cpu")
    lm.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<model>"
    harmful, harmless = (models.chat(lm, texts) for texts in (["steal a car", "rob"], ["wash a car", "sing"]))
    read = [directions.last_positions(lm, texts, positions=3) for texts in (harmful, harmless)]
    unedited = trace.next_token(lm, harmless)
    judged = [
        directions.judge(
            lm, direction, at=at, harmful=harmful, harmless=harmless,
            tokens=directions.openings(lm, ["I"]), unedited_NV=unedited,
        )
        for at, direction in directions.candidates(*read, layers=(0, 1), positions=(-3, -1)).items()
    ]  # fmt: skip
    assert [one.source for one in judged] == [(-3, 0), (-3, 1), (-1, 0), (-1, 1)]
    least = min(one.induce for one in judged)
    shifted = [
        directions.Candidate(*one.source, one.bypass_N, one.induce_N - least, one.kl_N) for one in judged
    ]
    assert directions.select(shifted, layers=lm.n_layers, kl_ceiling=99.0).bypass == min(
        one.bypass for one in judged
    )
