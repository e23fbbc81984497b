"""Candidates, a model with a direction that was put in, and the choice."""

import pytest
import torch

from helpers import directions, models, trace
from helpers.directions import Candidate
from tests import families


def test_candidates_stand_at_their_position_and_layer(dice):
    one, other = torch.randn(2, 5, 3, 4, 2, generator=dice)
    made = directions.candidates(one, other, layers=(0, 3), positions=(-1, -3))
    assert set(made) == {(-1, 0), (-1, 3), (-3, 0), (-3, 3)}
    torch.testing.assert_close(made[-3, 3], one[:, 0, 3].mean(0) - other[:, 0, 3].mean(0))


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
