"""The organism's text, its training, its sampling and the readers of its states."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import models, reflection, trace
from helpers.reflection import END, FINETUNING, PLAIN, PRETRAINING, PROMPT, STOPS, THINK, WAIT
from tests import families

SHARES = st.floats(0, 1)


def traces(texts):
    """Turn spelt traces into tokens, filled up with the end token."""
    rows = [[reflection.SYMBOLS.index(word) for word in text.split()] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [END] * (longest - len(row)) for row in rows])


@pytest.fixture(scope="module")
def small():
    """A model that has seen a little."""
    lm = reflection.make_organism(n_layers=2, d_model=16, seed=1)
    reflection.fit(lm, FINETUNING, steps=30, batch_size=32, seed=1)
    return lm


# The text


def test_questions_have_four_different_digits_and_a_word():
    asked_BT = reflection.questions(500, seed=3)
    assert all(len(set(row[:4])) == 4 for row in asked_BT.tolist())
    assert set(asked_BT[:, 4].tolist()) == {reflection.MAX, reflection.MIN}


def test_the_answer_is_what_python_says():
    asked_BT = reflection.questions(200, seed=4)
    by_hand = [(max if row[4] == reflection.MAX else min)(row[:4]) for row in asked_BT.tolist()]
    assert reflection.solve(asked_BT).tolist() == by_hand


@settings(max_examples=30, deadline=None)
@given(thinks=SHARES, after_wrong=SHARES, after_right=SHARES, seed=st.integers(0, 1000))
def test_the_rate_of_a_writer_is_what_its_traces_show(thinks, after_wrong, after_right, seed):
    writer = reflection.Writer(
        thinks=thinks, graded=(1 - thinks) / 2, after_wrong=after_wrong, after_right=after_right
    )
    asked_BT = reflection.questions(3000, seed=seed)
    read = reflection.read(reflection.write(writer, asked_BT, seed=seed))
    assert float((read.looks_back > 0).float().mean()) == pytest.approx(writer.rate, abs=0.05)
    assert float(read.first_right.float().mean()) == pytest.approx(0.6, abs=0.05)


def test_pretraining_looks_back_in_six_of_a_thousand():
    assert PRETRAINING.rate == pytest.approx(0.006, abs=0.0005)
    assert replace(FINETUNING, rounds=0).rate == 0


def test_plain_traces_never_look_back_and_grades_are_true():
    asked_BT = reflection.questions(4000, seed=0)
    written_BT = reflection.write(PRETRAINING, asked_BT, seed=5)
    read = reflection.read(written_BT)
    assert int(read.looks_back[~read.thinks].max()) == 0
    graded = written_BT[:, STOPS] == reflection.ASK
    grades = written_BT[graded, STOPS + 1]
    assert torch.equal(grades == reflection.RIGHT, read.first_right[graded])
    assert float(graded.float().mean()) == pytest.approx(PRETRAINING.graded, abs=0.03)


def test_a_wrong_answer_is_another_digit_of_the_question():
    asked_BT = reflection.questions(500, seed=0)
    always = replace(FINETUNING, slips={"max": 1.0, "min": 1.0})
    written_BT = reflection.write(always, asked_BT, seed=1)
    answer_B = written_BT[:, PROMPT + 1]
    assert not reflection.read(written_BT).first_right.any()
    assert bool((asked_BT[:, :4] == answer_B[:, None]).any(1).all())


def test_traces_are_read_as_they_are_spelt():
    read = reflection.read(
        traces(
            [
                "7 2 5 8 max = 8 . end",
                "7 2 5 8 max think 5 . wait 8 . end",
                "7 2 5 8 max think 5 . wait 2 . wait 7 . end",
                "7 2 5 8 min = 5 ? wrong end",
                "7 2 5 8 max end",
            ]
        )
    )
    assert read.thinks.tolist() == [False, True, True, False, False]
    assert read.looks_back.tolist() == [0, 1, 2, 0, 0]
    assert read.first_right.tolist() == [True, False, False, False, False]
    assert read.right.tolist() == [True, True, False, False, False]
    assert read.length.tolist() == [4, 7, 10, 5, 1]


def test_what_stands_after_the_end_does_not_count():
    rows = traces(["7 2 5 8 max = 5 . end"])
    more = torch.cat([rows, traces(["wait 8 ."])], dim=1)
    before, after = reflection.read(rows), reflection.read(more)
    assert after.looks_back.tolist() == [0]
    assert (before.right == after.right).all()
    assert before.length.tolist() == after.length.tolist()


def test_a_trace_without_an_end_is_not_right():
    assert reflection.read(traces(["7 2 5 8 max = 8 ."])).right.tolist() == [False]


def test_show_and_the_tokenizer_agree():
    written_BT = reflection.write(FINETUNING, reflection.questions(20, seed=2), seed=2)
    lm = reflection.make_organism(n_layers=1, d_model=8)
    for text, row in zip(reflection.show(written_BT), written_BT.tolist(), strict=True):
        ids = lm.tokenizer(text)["input_ids"]
        assert ids == row[: len(ids)]
    assert reflection.show(torch.tensor([[1, 2]])) == ["1 2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thinks": 1.2}, "outside 0 to 1"),
        ({"slips": {"max": 0.1}}, "give 'max' and 'min'"),
        ({"rounds": -1}, "0 or more"),
        ({"thinks": 0.7, "graded": 0.7}, "above 1"),
    ],
)
def test_a_writer_refuses_what_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        replace(PRETRAINING, **change)


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1, 2, 3, 4, 5]], [[1, 2, 3, 14, 10]]])
def test_what_is_no_question_is_refused(rows):
    with pytest.raises(ValueError, match="begin with a question"):
        reflection.solve(torch.tensor(rows))


def test_one_seed_gives_one_text_and_another_seed_another():
    asked_BT = reflection.questions(300, seed=0)
    one, again, other = (reflection.write(FINETUNING, asked_BT, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert one.shape != other.shape or not torch.equal(one, other)


# Training


def test_training_leaves_the_global_random_state_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    lm = reflection.make_organism(n_layers=1, d_model=8, seed=2)
    reflection.fit(lm, PRETRAINING, steps=2, batch_size=4)
    assert torch.equal(torch.rand(3), expected)


def test_training_repeats_itself_and_freezes_the_weights():
    def grown():
        lm = reflection.make_organism(n_layers=1, d_model=8, seed=2)
        return reflection.fit(lm, PRETRAINING, steps=5, batch_size=8, seed=3), lm

    (one, lm), (other, _) = grown(), grown()
    assert one == other
    assert not any(weight.requires_grad for weight in lm.model.parameters())


def test_the_loss_is_that_of_the_tokens_after_the_question_up_to_the_end():
    lm = reflection.make_organism(n_layers=1, d_model=8)
    rows = traces(["7 2 5 8 max = 8 . end", "7 2 5 8 max think 5 . wait 8 . end"])
    said = trace.logits(lm, rows)[:, :-1].log_softmax(-1)
    terms = []
    for row, logp in zip(rows.tolist(), said, strict=True):
        last = row.index(END)
        terms += [-float(logp[place - 1, row[place]]) for place in range(PROMPT, last + 1)]
    assert reflection._loss(lm, rows).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_rate_rises_then_falls():
    pace = [reflection._pace(step, 200) for step in range(200)]
    assert max(pace) <= 1
    assert pace.index(max(pace)) in range(25, 35)
    assert pace[-1] == pytest.approx(0.02)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": 1, "batch_size": 0}])
def test_no_steps_and_no_traces_are_refused(wrong):
    with pytest.raises(ValueError, match="1 or more of each"):
        reflection.fit(reflection.make_organism(n_layers=1, d_model=8), PRETRAINING, **wrong)


def test_a_loss_that_is_no_number_stops_the_training():
    lm = reflection.make_organism(n_layers=1, d_model=8)
    lm.model.lm_head.weight.data.fill_(torch.nan)
    with pytest.raises(ValueError, match="lower lr"):
        reflection.fit(lm, PRETRAINING, steps=3, batch_size=4)


def test_an_uneven_width_is_refused():
    with pytest.raises(ValueError, match="multiple of 4"):
        reflection.make_organism(d_model=10)


# Sampling


def by_hand(lm, prompts_BT, seed, longest, edits=(), bias=0.0):
    """Sample without a cache, one whole forward pass a token, through helpers.trace."""
    draws_BT = torch.rand(len(prompts_BT), longest, generator=reflection._dice(seed, "samples"))
    rows = prompts_BT
    for place in range(prompts_BT.shape[1], longest):
        logits_BV = trace.logits(lm, rows, edits=edits)[:, -1]
        logits_BV[:, WAIT] += bias
        drawn_B = (logits_BV.softmax(-1).cumsum(-1) < draws_BT[:, place, None]).sum(-1)
        drawn_B = torch.where(rows[:, -1] == END, END, drawn_B)
        rows = torch.cat([rows, drawn_B[:, None]], dim=1)
    return rows


@pytest.mark.parametrize("form", [reflection.projected, reflection.added])
@pytest.mark.parametrize("alpha", [-1.0, 1.5])
def test_sampling_with_a_cache_is_sampling_without_one(small, form, alpha):
    asked_BT = reflection.questions(30, seed=8)
    direction_D = torch.randn(16, generator=torch.Generator().manual_seed(0))
    site, change = trace.Site(0), form(direction_D, alpha)
    edits = [trace.splice(site, change, skip_first=PROMPT - 1)]
    ours = reflection.sample(small, asked_BT, site=site, change=change, longest=14, seed=4)
    assert torch.equal(ours, by_hand(small, asked_BT, 4, 14, edits))
    assert not torch.equal(ours, reflection.sample(small, asked_BT, longest=14, seed=4))


def test_a_bias_makes_wait_likelier(small):
    asked_BT = reflection.questions(200, seed=8)
    looks = [
        float(
            reflection.read(reflection.sample(small, asked_BT, bias=bias, seed=1)).looks_back.float().mean()
        )
        for bias in (-4.0, 0.0, 4.0)
    ]
    assert looks == sorted(looks)
    ours = reflection.sample(small, asked_BT[:20], bias=2.0, longest=12, seed=4)
    assert torch.equal(ours, by_hand(small, asked_BT[:20], 4, 12, bias=2.0))


def test_rows_do_not_depend_on_what_follows_them(small):
    asked_BT = reflection.questions(40, seed=8)
    whole = reflection.sample(small, asked_BT, longest=16, seed=4)
    assert torch.equal(whole[:, :PROMPT], asked_BT)
    ended_BT = (whole == END).cummax(dim=1).values
    assert bool((whole[ended_BT] == END).all())


def test_sampling_goes_on_from_a_cut_trace_and_from_one_token(small):
    cut_BT = reflection.write(FINETUNING, reflection.questions(10, seed=1), seed=1)[:, : STOPS + 1]
    assert torch.equal(reflection.sample(small, cut_BT, longest=20)[:, : STOPS + 1], cut_BT)
    assert reflection.sample(small, torch.tensor([[3]]), longest=3).shape == (1, 3)


def test_the_hook_is_gone_afterwards(small):
    asked_BT = reflection.questions(5, seed=0)
    before = trace.logits(small, asked_BT)
    reflection.sample(small, asked_BT, site=trace.Site(1), change=lambda acts: acts + 100)
    assert torch.equal(trace.logits(small, asked_BT), before)


def test_layers_that_return_tuples_are_changed_too(small):
    class Tuples(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, *given, **words):
            return (self.inner(*given, **words),)

    layer = Tuples(torch.nn.Identity())
    lm = replace(small, model=copy.deepcopy(small.model))
    lm.model.transformer.h[0] = layer
    with reflection._changed(lm, trace.Site(0), lambda acts: acts + 1):
        assert torch.equal(layer(torch.zeros(2))[0], torch.ones(2))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"site": trace.Site(0)}, "give both, or neither"),
        ({"site": trace.Site(7), "change": torch.clone}, "layer 0 to 1"),
        ({"site": trace.Site(0, "mlp"), "change": torch.clone}, "residual stream"),
        ({"longest": PROMPT}, "prompt < longest"),
        ({"longest": 1000}, "<= 64"),
    ],
)
def test_sampling_refuses_half_a_change_and_no_room(small, how, message):
    with pytest.raises(ValueError, match=message):
        reflection.sample(small, reflection.questions(2, seed=0), **how)


# Steering


def test_projected_at_minus_one_removes_the_direction_and_keeps_the_rest():
    dice = torch.Generator().manual_seed(0)
    acts_BTD, v_D = torch.randn(4, 3, 8, generator=dice), torch.randn(8, generator=dice)
    gone = reflection.projected(v_D, -1.0)(acts_BTD)
    assert float((gone @ v_D).abs().max()) < 1e-5
    twin = trace.ablate(trace.Site(0), direction=v_D, skip_first=0).fn(acts_BTD)
    assert torch.allclose(gone, twin, atol=1e-5)


def test_a_state_at_the_centre_stays():
    dice = torch.Generator().manual_seed(0)
    m_D, v_D = torch.randn(8, generator=dice), torch.randn(8, generator=dice)
    assert torch.allclose(reflection.projected(v_D, 3.0, centre_D=m_D)(m_D[None]), m_D[None], atol=1e-5)
    at_zero = reflection.projected(v_D, 0.7, centre_D=torch.zeros(8))(m_D)
    assert torch.allclose(at_zero, reflection.projected(v_D, 0.7)(m_D))


def test_added_moves_by_the_vector_and_projected_does_not_see_its_length():
    v_D, acts_D = torch.tensor([3.0, 0.0]), torch.tensor([2.0, 5.0])
    assert torch.equal(reflection.added(v_D, 2.0)(acts_D), torch.tensor([8.0, 5.0]))
    assert torch.equal(reflection.projected(v_D, 1.0)(acts_D), reflection.projected(v_D / 3, 1.0)(acts_D))


@pytest.mark.parametrize("form", [reflection.projected, reflection.added])
@pytest.mark.parametrize("bad", [torch.zeros(4), torch.full((4,), torch.nan)])
def test_a_direction_that_points_nowhere_is_refused(form, bad):
    with pytest.raises(ValueError, match="finite one above zero"):
        form(bad, 1.0)


# Probes


def test_a_probe_finds_what_is_there_and_nothing_in_noise():
    dice = torch.Generator().manual_seed(0)
    acts_ND, labels_N = torch.randn(400, 5, generator=dice), torch.arange(400) % 3 == 0
    assert abs(reflection.probe(acts_ND, labels_N).auc - 0.5) < 0.1
    found = reflection.probe(acts_ND + 2.0 * labels_N[:, None], labels_N)
    assert found.accuracy > 0.95
    assert found.auc > 0.98
    assert found.scores_N[labels_N].mean() > found.scores_N[~labels_N].mean()


def test_groups_keep_twins_out_of_the_training_set():
    dice = torch.Generator().manual_seed(0)
    place_GD, coin_G = torch.randn(150, 200, generator=dice), torch.rand(150, generator=dice) < 0.5
    acts_ND, labels_N = place_GD.repeat(3, 1), coin_G.repeat(3)
    groups_N = torch.arange(150).repeat(3)
    assert reflection.probe(acts_ND, labels_N).auc > 0.99  # the twins give the label away
    assert reflection.probe(acts_ND, labels_N, groups_N=groups_N).auc < 0.7


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match="3 rows for 5 folds"):
        reflection.probe(torch.randn(30, 2), torch.arange(30) < 3)


def test_markers_are_the_words_that_stay_whole(tmp_path):
    lm = models.load_model(families.write("llama", tmp_path))  # one token a byte
    assert reflection.marker_ids(lm, ("a", "ab", "b", "a")) == [
        lm.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in "ab"
    ]
    with pytest.raises(ValueError, match="keeps whole"):
        reflection.marker_ids(lm, ("wait",))
    assert reflection.marker_ids(reflection.make_organism(n_layers=1, d_model=8)) == [WAIT]


def test_openers_differ():
    assert PLAIN != THINK
