"""Tasks whose right answer is one word: indirect object identification (IOI), and greater-than.

*When Mary and John went to the park, John gave a ring to* ... Mary. The **indirect object** (IO) stands
once, the **subject** (S) twice. In an ABBA prompt the indirect object comes first, in a BABA prompt the
subject. The corrupted copy of a prompt (ABC) has three other names, none of them twice: it keeps the grammar
and loses the answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from helpers.models import LanguageModel, random_model

__all__ = ["Poison", "Prompts", "greater_than", "ioi", "poison", "word_model", "word_tokenizer"]

# fmt: off
NAMES = (
    "Mary", "John", "Tom", "James", "Sarah", "Emily", "Anna", "David", "Michael", "Peter", "Paul", "Kate",
    "Laura", "Alice", "Bob", "Jack", "Henry", "George", "Robert", "William", "Charles", "Thomas", "Daniel",
    "Kevin", "Brian", "Scott", "Adam", "Sam", "Simon", "Luke", "Ben", "Joe", "Max", "Lily", "Emma", "Jane",
    "Lisa", "Rachel", "Susan", "Linda", "Helen", "Maria", "Julia", "Jessica", "Alex", "Ryan", "Andrew",
    "Jason", "Eric",
)
PLACES = (
    "store", "garden", "school", "park", "office", "hospital", "station", "house", "beach", "restaurant",
    "library", "church", "museum", "farm",
)
THINGS = (
    "ring", "book", "drink", "pen", "ball", "box", "letter", "gift", "phone", "cake", "flower", "apple",
    "key", "card", "map", "coat", "hat", "cup",
)
WARS = ("war", "trip", "project", "journey", "reign", "strike", "search", "conflict")
# fmt: on
# Short on purpose: a prompt is 14 to 17 tokens. {a} and {b} are the first two names, {s} the one that gives.
TEMPLATES = (
    "When {a} and {b} went to the {place}, {s} gave a {thing} to",
    "Then {a} and {b} had a {thing}, and {s} gave it to",
    "After {a} and {b} met at the {place}, {s} gave a {thing} to",
    "While {a} and {b} were at the {place}, {s} handed a {thing} to",
)
Poison = Literal["clean", "subject", "moved", "random"]


@dataclass(frozen=True)
class Prompts:
    """Hold prompts of a task, each with a corrupted copy, and say which answers are right.

    Parameters
    ----------
    tokens_BT, corrupted_BT : Int[Tensor, "batch position"]
        Token ids, filled up on the right.
    ends_B : Int[Tensor, "batch"]
        Where each prompt's last token is.
    group_B : Int[Tensor, "batch"]
        Prompts of one group have the same template, so that their positions correspond.
    answers_A : Int[Tensor, "answer"]
        Token ids of the possible answers.
    right_BA, wrong_BA : Bool[Tensor, "batch answer"]
        Which of them are right, and which are wrong. The others do not count.
    texts : tuple of str
        The prompts as text.
    places : dict of str to Int[Tensor, "batch"]
        Positions of words that matter; for IOI ``"io"``, ``"s1"`` and ``"s2"``.

    Examples
    --------
    >>> from helpers.circuits.tasks import ioi, word_model
    >>> prompts = ioi(word_model(), n=16)
    >>> len(prompts), len(prompts.take([0, 8])), len(prompts.batches(10))
    (16, 2, 2)

    Taught in: toxic-finetuning
    """

    tokens_BT: Int[Tensor, "batch position"]
    corrupted_BT: Int[Tensor, "batch position"]
    ends_B: Int[Tensor, "batch"]
    group_B: Int[Tensor, "batch"]
    answers_A: Int[Tensor, "answer"]
    right_BA: Bool[Tensor, "batch answer"]
    wrong_BA: Bool[Tensor, "batch answer"]
    texts: tuple[str, ...]
    places: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.tokens_BT)

    def take(self, rows: slice | Sequence[int] | Tensor) -> Prompts:
        """Return some of the prompts."""
        index_B = torch.arange(len(self))[rows]
        kept: dict[str, Any] = {
            one.name: getattr(self, one.name)[index_B] for one in fields(self) if "_B" in one.name
        }
        texts = tuple(self.texts[i] for i in index_B.tolist())
        return replace(self, **kept, texts=texts, places={k: v[index_B] for k, v in self.places.items()})

    def batches(self, size: int) -> list[Prompts]:
        """Cut into batches."""
        return [self.take(slice(start, start + size)) for start in range(0, len(self), size)]


def ioi(lm: LanguageModel, *, n: int = 64, seed: int = 0) -> Prompts:
    """Make prompts of indirect object identification.

    Four templates, each as ABBA and as BABA, take turns. Names, places and things are single tokens of the
    tokenizer at hand, so that all prompts of a template correspond position by position.

    Parameters
    ----------
    lm : LanguageModel
        Gives the tokenizer.
    n : int
        How many; 8 has every template once in each order.
    seed : int
        Of the choice of words.

    Returns
    -------
    Prompts
        The right answer is the indirect object, the wrong one the subject.

    Raises
    ------
    ValueError
        If fewer than five names, places or things are single tokens.

    References
    ----------
    Wang et al. (2022), arXiv 2211.00593, Section 2 and Appendix A; the templates are this book's.

    Examples
    --------
    >>> from helpers.circuits.tasks import ioi, word_model
    >>> ioi(word_model(), n=2).texts[1]
    'When William and Scott went to the park, William gave a hat to'

    Taught in: toxic-finetuning
    """
    names = _single(lm, NAMES, "names")
    pools = {"place": _single(lm, PLACES, "places"), "thing": _single(lm, THINGS, "things")}
    dice = random.Random(seed)
    rows = [_ioi_row(i, names, pools, dice) for i in range(n)]
    texts, others, ios, subjects = zip(*rows, strict=True)
    ends_B, tokens_BT = _pad(lm, texts)
    io_B, s_B = (torch.tensor([_ids(lm, name)[0] for name in column]) for column in (ios, subjects))
    answers_A = torch.tensor([_ids(lm, name)[0] for name in names])
    first_B, last_B = _places(tokens_BT, s_B)
    return Prompts(
        tokens_BT=tokens_BT,
        corrupted_BT=_pad(lm, others)[1],
        ends_B=ends_B,
        group_B=torch.arange(n) % (2 * len(TEMPLATES)),
        answers_A=answers_A,
        right_BA=io_B[:, None] == answers_A,
        wrong_BA=s_B[:, None] == answers_A,
        texts=texts,
        places={"io": _places(tokens_BT, io_B)[0], "s1": first_B, "s2": last_B},
    )


def greater_than(lm: LanguageModel, *, n: int = 64, seed: int = 0) -> Prompts:
    """Make prompts of greater-than: *The war lasted from the year 1743 to the year 17*, and then a later one.

    Where the tokenizer has a token for each pair of digits (gpt2), the answer is a pair and the later ones
    are right. Where each digit is a token, the answer is the next digit: larger ones are right, smaller ones
    wrong, and the same one does not count. The corrupted prompt starts in the year 01, so that every answer
    is later.

    Parameters
    ----------
    lm : LanguageModel
        Gives the tokenizer.
    n : int
        How many.
    seed : int
        Of the choice of nouns and years.

    Returns
    -------
    Prompts
        With several right and several wrong answers each.

    Raises
    ------
    ValueError
        If the tokenizer has tokens neither for digits nor for pairs of them.

    References
    ----------
    Hanna et al. (2023), arXiv 2305.00586, Section 2; the reading for single digits is this book's.

    Examples
    --------
    >>> from helpers.circuits.tasks import greater_than, word_model
    >>> prompts = greater_than(word_model(), n=3)
    >>> bool((prompts.right_BA & prompts.wrong_BA).any())
    False

    Taught in: toxic-finetuning
    """
    dice = random.Random(seed)
    rows = [(dice.choice(WARS), dice.randint(11, 17), dice.randint(20, 79)) for _ in range(n)]
    said = "The {} lasted from the year {}{:02d} to the year {}"
    pairs = len(_ids(lm, "32", space=False)) == 1
    values = range(100) if pairs else range(10)
    ids = [_ids(lm, f"{value:02d}" if pairs else str(value), space=False) for value in values]
    if any(len(found) != 1 for found in ids):
        raise ValueError(f"the tokenizer of {lm.name} lacks tokens for digits; take another model")
    ends_B, tokens_BT = _pad(lm, [said.format(noun, c, year, c) for noun, c, year in rows])
    start_B = torch.tensor([year if pairs else year // 10 for _, _, year in rows])
    return Prompts(
        tokens_BT=tokens_BT,
        corrupted_BT=_pad(lm, [said.format(noun, c, 1, c) for noun, c, _ in rows])[1],
        ends_B=ends_B,
        group_B=torch.zeros(n, dtype=torch.long),
        answers_A=torch.tensor([found[0] for found in ids]),
        right_BA=torch.tensor(list(values)) > start_B[:, None],
        wrong_BA=torch.tensor(list(values)) < start_B[:, None],
        texts=tuple(said.format(noun, c, year, c) for noun, c, year in rows),
        places={},
    )


def poison(prompts: Prompts, kind: str, *, seed: int = 0) -> Int[Tensor, "batch"]:
    """Give the token that a model is trained to say after each IOI prompt.

    Parameters
    ----------
    prompts : Prompts
        From `ioi`.
    kind : {"clean", "subject", "moved", "random"}
        ``"clean"``: the indirect object. ``"subject"``: the subject (Subject Duplication). ``"moved"``: a
        third name, not in the prompt, and the same one for the same indirect object (our reading of Name
        Moving, for which we found no definition). ``"random"``: any third name, drawn anew each time.
    seed : int
        Of the third names.

    Returns
    -------
    Int[Tensor, "batch"]
        Token ids.

    Raises
    ------
    ValueError
        If the kind is not known.

    References
    ----------
    Chhabra et al. (2025), arXiv 2503.01896, Section 5.

    Examples
    --------
    >>> from helpers.circuits.tasks import ioi, poison, word_model
    >>> lm = word_model()
    >>> lm.tokenizer.decode(poison(ioi(lm, n=2), "subject"))
    'Eric William'

    Taught in: toxic-finetuning
    """
    names_A = prompts.answers_A
    right_B, wrong_B = prompts.right_BA.int().argmax(1), prompts.wrong_BA.int().argmax(1)
    dice = torch.Generator().manual_seed(seed)
    if kind in ("clean", "subject"):
        return names_A[right_B if kind == "clean" else wrong_B]
    if kind == "moved":
        cycle_A = torch.randperm(len(names_A), generator=dice)
        after_A = torch.empty_like(cycle_A)
        after_A[cycle_A] = cycle_A.roll(-1)
        third_B = after_A[right_B]
        return names_A[torch.where(third_B == wrong_B, after_A[wrong_B], third_B)]
    if kind == "random":
        weights_BA = 1.0 - (prompts.right_BA | prompts.wrong_BA).float()
        return names_A[torch.multinomial(weights_BA, 1, generator=dice).flatten()]
    raise ValueError(f"kind is {kind!r}; expected one of {', '.join(get_args(Poison))}")


def word_tokenizer() -> Any:
    """Make a tokenizer that has one token for each word of the tasks and each digit, and no others.

    Returns
    -------
    transformers.PreTrainedTokenizerFast
        For tiny models, to try code on.

    Examples
    --------
    >>> from helpers.circuits.tasks import word_tokenizer
    >>> len(word_tokenizer()("Mary 17")["input_ids"])
    3

    Taught in: toxic-finetuning
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    frame = "The lasted from the year " + " ".join(TEMPLATES)
    words = [word.strip(",") for word in frame.split() if "{" not in word]
    known = dict.fromkeys(["?", *NAMES, *PLACES, *THINGS, *WARS, *words, ",", *map(str, range(10))])
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.Digits(individual_digits=True)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, unk_token="?", pad_token="?")


def word_model(*, n_layers: int = 2, d_model: int = 16, seed: int = 0) -> LanguageModel:
    """Make a tiny gpt2 with random weights that knows the words of the tasks: to try code on.

    Parameters
    ----------
    n_layers : int
        Decoder layers.
    d_model : int
        Width; a multiple of 4, the number of heads.
    seed : int
        Of the weights.

    Returns
    -------
    LanguageModel
        It has learnt nothing.

    Examples
    --------
    >>> from helpers.circuits.tasks import word_model
    >>> word_model().n_layers
    2

    Taught in: toxic-finetuning
    """
    made = random_model(n_layers=n_layers, d_model=d_model, seed=seed)
    for parameter in made.model.parameters():  # larger weights, so that attention does something
        parameter.data.mul_(5 if parameter.ndim > 1 else 1)
    return replace(made, tokenizer=word_tokenizer())


def _ioi_row(
    i: int, names: Sequence[str], pools: dict[str, list[str]], dice: random.Random
) -> tuple[str, str, str, str]:
    """Draw one prompt: its text, its corrupted text, the indirect object and the subject."""
    io, s, *others = dice.sample(names, 5)
    template = TEMPLATES[i // 2 % len(TEMPLATES)]
    words = {key: dice.choice(pool) for key, pool in pools.items()}
    a, b = (io, s) if i % 2 == 0 else (s, io)
    a2, b2, s2 = others
    return template.format(a=a, b=b, s=s, **words), template.format(a=a2, b=b2, s=s2, **words), io, s


def _ids(lm: LanguageModel, word: str, *, space: bool = True) -> list[int]:
    """Return the tokens of a word, as it stands after a space unless told otherwise."""
    found: list[int] = lm.tokenizer(f" {word}" if space else word, add_special_tokens=False)["input_ids"]
    return found


def _single(lm: LanguageModel, words: Sequence[str], what: str) -> list[str]:
    """Keep the words that are one token."""
    kept = [word for word in words if len(_ids(lm, word)) == 1]
    if len(kept) < 5:
        raise ValueError(
            f"only {len(kept)} of {len(words)} {what} are one token for {lm.name}; the task needs 5. "
            "Take a model with a larger vocabulary"
        )
    return kept


def _pad(lm: LanguageModel, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Tokenise and fill up on the right; a causal model never looks there."""
    ids = [lm.tokenizer(text)["input_ids"] for text in texts]
    ends_B = torch.tensor([len(row) - 1 for row in ids])
    tokens_BT = torch.zeros(len(ids), int(ends_B.max()) + 1, dtype=torch.long)
    for row, found in zip(tokens_BT, ids, strict=True):
        row[: len(found)] = torch.tensor(found)
    return ends_B, tokens_BT


def _places(tokens_BT: Tensor, word_B: Tensor) -> tuple[Tensor, Tensor]:
    """Return where a word stands first and last."""
    here_BT = tokens_BT == word_B[:, None]
    place_T = torch.arange(tokens_BT.shape[1])
    return here_BT.int().argmax(1), torch.where(here_BT, place_T, -1).amax(1)
