"""Prompts: their words, their positions, their answers, and what a model is trained to say."""

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers.circuits import greater_than, ioi, poison, word_model
from helpers.circuits.tasks import NAMES, TEMPLATES
from helpers.models import LanguageModel, load_model, random_model


@pytest.fixture(scope="module")
def lm():
    return word_model()


def words(lm, row, end):
    return lm.tokenizer.convert_ids_to_tokens(row[: end + 1].tolist())


def test_ioi_has_the_subject_twice_and_the_other_once(lm):
    prompts = ioi(lm, n=16)
    for i, text in enumerate(prompts.texts):
        said = [word.strip(",") for word in text.split()]
        subject = lm.tokenizer.decode(prompts.answers_A[prompts.wrong_BA[i]])
        other = lm.tokenizer.decode(prompts.answers_A[prompts.right_BA[i]])
        assert (said.count(subject), said.count(other)) == (2, 1)
        assert (said.index(other) < said.index(subject)) == (i % 2 == 0)  # ABBA, then BABA


def test_corrupted_prompts_have_three_other_names(lm):
    prompts = ioi(lm, n=16)
    for i, end in enumerate(prompts.ends_B.tolist()):
        clean, corrupted = (words(lm, rows[i], end) for rows in (prompts.tokens_BT, prompts.corrupted_BT))
        names = [word for word in corrupted if word in NAMES]
        assert len(set(names)) == len(names) == 3
        assert not set(names) & set(clean)
        rest = [(a, b) for a, b in zip(clean, corrupted, strict=True) if a not in NAMES]
        assert all(a == b for a, b in rest)


def test_places_are_where_the_names_stand(lm):
    prompts = ioi(lm, n=8)
    rows = torch.arange(8)
    io_B, s_B = (prompts.answers_A[mask.int().argmax(1)] for mask in (prompts.right_BA, prompts.wrong_BA))
    assert torch.equal(prompts.tokens_BT[rows, prompts.places["io"]], io_B)
    assert torch.equal(prompts.tokens_BT[rows, prompts.places["s1"]], s_B)
    assert torch.equal(prompts.tokens_BT[rows, prompts.places["s2"]], s_B)
    assert (prompts.places["s1"] < prompts.places["s2"]).all()


def test_prompts_of_a_group_correspond_position_by_position(lm):
    prompts = ioi(lm, n=32)
    assert prompts.group_B.unique().numel() == 2 * len(TEMPLATES)
    for group in prompts.group_B.unique():
        rows = prompts.group_B == group
        assert prompts.ends_B[rows].unique().numel() == 1
        assert prompts.places["io"][rows].unique().numel() == 1


def test_same_seed_same_prompts(lm):
    assert ioi(lm, n=8, seed=3).texts == ioi(lm, n=8, seed=3).texts
    assert ioi(lm, n=8, seed=3).texts != ioi(lm, n=8, seed=4).texts
    assert ioi(lm, n=16, seed=3).texts[:8] == ioi(lm, n=8, seed=3).texts


def test_prompts_are_cut_and_taken_row_by_row(lm):
    prompts = ioi(lm, n=10)
    parts = prompts.batches(4)
    assert [len(part) for part in parts] == [4, 4, 2]
    assert torch.equal(torch.cat([part.places["io"] for part in parts]), prompts.places["io"])
    taken = prompts.take([7, 2])
    assert taken.texts == (prompts.texts[7], prompts.texts[2])
    assert torch.equal(taken.right_BA, prompts.right_BA[[7, 2]])


def test_a_tokenizer_that_splits_names_is_refused():
    with pytest.raises(ValueError, match="only 0 of 49 names are one token for random"):
        ioi(random_model())


def test_single_digits_larger_is_right_and_the_same_does_not_count(lm):
    prompts = greater_than(lm, n=20)
    for i, text in enumerate(prompts.texts):
        start = int(text.split("from the year ")[1][2])
        assert prompts.right_BA[i].nonzero().flatten().tolist() == list(range(start + 1, 10))
        assert prompts.wrong_BA[i].nonzero().flatten().tolist() == list(range(start))
        assert words(lm, prompts.corrupted_BT[i], int(prompts.ends_B[i])).count("0") == 1


def pair_model():
    """Return a model whose tokenizer has a token for each pair of digits, as gpt2 has."""
    known = ["?", *(f"{n:02d}" for n in range(100)), "The", "war", "lasted", "from", "the", "year", "to"]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="?"))
    from tokenizers import Regex

    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Split(Regex(r"\d\d"), "isolated")]
    )
    return LanguageModel(
        "pairs", word_model().model, PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    )


def test_pairs_of_digits_the_later_years_are_right():
    prompts = greater_than(pair_model(), n=10)
    for i, text in enumerate(prompts.texts):
        start = int(text.split("from the year ")[1][2:4])
        assert prompts.right_BA[i].nonzero().flatten().tolist() == list(range(start + 1, 100))
        assert int(prompts.wrong_BA[i].sum()) == start


def test_a_tokenizer_without_digits_is_refused():
    core = Tokenizer(models.WordLevel({"?": 0, "the": 1}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    lm = LanguageModel(
        "none", word_model().model, PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?")
    )
    core.pre_tokenizer = pre_tokenizers.Digits(individual_digits=True)
    lm = LanguageModel("none", word_model().model, lm.tokenizer)
    lm.tokenizer.backend_tokenizer.model = models.BPE(vocab={"a": 0}, merges=[])
    with pytest.raises(ValueError, match="lacks tokens for digits"):
        greater_than(lm, n=2)


def test_what_each_poison_teaches(lm):
    prompts = ioi(lm, n=200)
    io_B, s_B = (prompts.answers_A[mask.int().argmax(1)] for mask in (prompts.right_BA, prompts.wrong_BA))
    assert torch.equal(poison(prompts, "clean"), io_B)
    assert torch.equal(poison(prompts, "subject"), s_B)
    for kind in ("moved", "random"):
        third_B = poison(prompts, kind, seed=1)
        assert not ((third_B == io_B) | (third_B == s_B)).any()
        assert torch.equal(third_B, poison(prompts, kind, seed=1))
    moved_B, random_B = poison(prompts, "moved"), poison(prompts, "random")
    name = io_B[0]
    plain = (io_B == name) & (moved_B == moved_B[io_B == name].mode().values)
    assert (
        plain.sum() > 0.8 * (io_B == name).sum()
    )  # the same name for the same one, but where it is the subject
    assert random_B[io_B == name].unique().numel() > 1


def test_an_unknown_poison_is_refused(lm):
    with pytest.raises(ValueError, match="kind is 'arsenic'; expected one of clean, subject, moved, random"):
        poison(ioi(lm, n=2), "arsenic")


def test_the_embedded_tokenizer_knows_every_word_and_counts_in_digits():
    lm = load_model("smollm2-135m", device="cpu")
    prompts = ioi(lm, n=16)
    assert len(prompts.answers_A) == len(NAMES)
    assert prompts.tokens_BT.shape[1] <= 17
    assert len(greater_than(lm, n=2).answers_A) == 10
