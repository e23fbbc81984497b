"""Grow small models that can check their own answers, and read and change how often they do.

The model organism of this room writes short traces about the largest or the smallest of four digits::

    7 2 5 8 max think 5 . wait 8 . end

A question, an opener, a first answer that is sometimes wrong, and then either the end, or the token
``wait`` and another answer. Everything that a study of self-reflection wants to know is known here: whether
an answer is right, and how often the writers of the training text looked back after right and wrong ones.

`PRETRAINING` writes mostly plain traces (opener ``=``), which never look back. Many are graded (``?`` and
then ``right`` or ``wrong``), so that the model learns to tell a wrong answer. One in twenty thinks aloud, and
then looks back now and then. `FINETUNING` always thinks aloud, and looks back where it pays.

Examples
--------
>>> from helpers import reflection
>>> asked = reflection.questions(1, seed=1)
>>> reflection.show(reflection.write(reflection.FINETUNING, asked, seed=16))
['6 1 0 9 max think 1 . wait 9 . end']
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from helpers.models import FAMILIES, LanguageModel
from helpers.trace import Site

__all__ = [
    "FINETUNING", "PRETRAINING", "SYMBOLS", "Probe", "Traces", "Writer", "added", "fit", "make_organism",
    "marker_ids", "probe", "projected", "questions", "read", "sample", "show", "solve", "write",
]  # fmt: skip

SYMBOLS = (*"0123456789", "max", "min", "=", "think", ".", "wait", "?", "right", "wrong", "end")
MAX, MIN, PLAIN, THINK, STOP, WAIT, ASK, RIGHT, WRONG, END = range(10, len(SYMBOLS))
DIGITS = 4
PROMPT = DIGITS + 1  # tokens of a question; the opener comes after it
STOPS = PROMPT + 2  # where the stop (or the question mark) after the first answer stands

Change = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Writer:
    """Say how the author of training traces behaves.

    Parameters
    ----------
    thinks : float
        Share of traces that think aloud; only these look back.
    graded : float
        Share of traces that end in a grade, ``right`` or ``wrong``, instead of a stop.
    after_wrong, after_right : float
        Probability of looking back after a wrong and after a right answer.
    slips : dict of str to float
        Probability that the first answer is wrong, for each word of the question.
    later_slips : float
        The same for every later answer.
    rounds : int
        How often a trace looks back at most, 0 or more.

    Examples
    --------
    >>> round(PRETRAINING.rate, 4)
    0.0058

    Taught in: self-reflection
    """

    thinks: float
    graded: float
    after_wrong: float
    after_right: float
    slips: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({"max": 0.2, "min": 0.6}))
    later_slips: float = 0.1
    rounds: int = 3

    def __post_init__(self) -> None:
        shares = (self.thinks, self.graded, self.after_wrong, self.after_right, self.later_slips)
        if not all(0 <= share <= 1 for share in (*shares, *self.slips.values())):
            raise ValueError(f"{self} has a share outside 0 to 1")
        if set(self.slips) != {"max", "min"} or self.rounds < 0:
            raise ValueError(
                f"slips are {dict(self.slips)}, rounds {self.rounds}; give 'max' and 'min', and 0 or more"
            )
        if self.thinks + self.graded > 1:
            raise ValueError(f"thinks and graded are {self.thinks} and {self.graded}; their sum is above 1")

    @property
    def rate(self) -> float:
        """Share of traces that look back at least once."""
        wrong = sum(self.slips.values()) / 2
        looks = wrong * self.after_wrong + (1 - wrong) * self.after_right
        return self.thinks * looks if self.rounds else 0.0


PRETRAINING = Writer(thinks=0.05, graded=0.4, after_wrong=0.25, after_right=0.027)
FINETUNING = Writer(thinks=1.0, graded=0.0, after_wrong=0.7, after_right=0.05)


class Traces(NamedTuple):
    """Hold what can be read off a batch of traces; one entry a trace.

    Parameters
    ----------
    thinks : Bool[Tensor, "batch"]
        It opens with ``think``.
    looks_back : Int[Tensor, "batch"]
        How many times ``wait`` stands in it.
    first_right : Bool[Tensor, "batch"]
        Its first answer is right.
    right : Bool[Tensor, "batch"]
        It came to an end, and its last answer is right.
    length : Int[Tensor, "batch"]
        Tokens after the question, with the end token.

    Taught in: self-reflection
    """

    thinks: Bool[Tensor, "batch"]
    looks_back: Int[Tensor, "batch"]
    first_right: Bool[Tensor, "batch"]
    right: Bool[Tensor, "batch"]
    length: Int[Tensor, "batch"]


class Probe(NamedTuple):
    """Hold what a linear probe found on data that it was not fitted on.

    Parameters
    ----------
    accuracy : float
        Share of rows told apart, with equal weight on the two classes; 0.5 is chance.
    auc : float
        Probability that a row of the positive class scores above one of the other; 0.5 is chance.
    scores_N : Float[Tensor, "token"]
        Score of every row from the fold that did not see it.

    Taught in: self-reflection
    """

    accuracy: float
    auc: float
    scores_N: Float[Tensor, "token"]


def questions(n: int, *, seed: int) -> Int[Tensor, "batch position"]:
    """Draw questions: four different digits, and which of them is wanted.

    Parameters
    ----------
    n : int
        How many, 1 or more.
    seed : int
        Of the draw.

    Returns
    -------
    Int[Tensor, "batch position"]
        Token ids; a token's id is its place in `SYMBOLS`.

    Examples
    --------
    >>> from helpers import reflection
    >>> reflection.show(reflection.questions(2, seed=0))
    ['7 8 5 4 min', '9 7 3 0 max']

    Taught in: self-reflection
    """
    dice = _dice(seed, "questions")
    digits_BT = torch.rand(n, 10, generator=dice).argsort(1)[:, :DIGITS]
    return torch.cat([digits_BT, torch.randint(MAX, MIN + 1, (n, 1), generator=dice)], dim=1)


def solve(prompts_BT: Int[Tensor, "batch position"]) -> Int[Tensor, "batch"]:
    """Answer questions: the largest or the smallest of the digits.

    Parameters
    ----------
    prompts_BT : Int[Tensor, "batch position"]
        From `questions`, or traces that begin with them.

    Returns
    -------
    Int[Tensor, "batch"]
        The right answers.

    Raises
    ------
    ValueError
        If a row does not begin with a question.

    Examples
    --------
    >>> import torch
    >>> from helpers import reflection
    >>> reflection.solve(torch.tensor([[7, 2, 5, 8, reflection.SYMBOLS.index("max")]]))
    tensor([8])

    Taught in: self-reflection
    """
    _check_prompts(prompts_BT)
    digits_BT = prompts_BT[:, :DIGITS]
    return torch.where(prompts_BT[:, DIGITS] == MAX, digits_BT.amax(1), digits_BT.amin(1))


def write(
    writer: Writer, prompts_BT: Int[Tensor, "batch position"], *, seed: int
) -> Int[Tensor, "batch length"]:
    """Write one trace for every question, as a writer would.

    Parameters
    ----------
    writer : Writer
        How often it slips, thinks aloud and looks back.
    prompts_BT : Int[Tensor, "batch position"]
        From `questions`.
    seed : int
        Of the slips and of the decisions.

    Returns
    -------
    Int[Tensor, "batch length"]
        Traces, filled up with the end token on the right to the longest.

    Raises
    ------
    ValueError
        If a row is not a question.

    Examples
    --------
    >>> from helpers import reflection
    >>> asked = reflection.questions(1, seed=0)
    >>> always = reflection.Writer(thinks=1, graded=0, after_wrong=1, after_right=1, rounds=1)
    >>> reflection.show(reflection.write(always, asked, seed=0))
    ['7 8 5 4 max think 8 . wait 8 . end']

    Taught in: self-reflection
    """
    dice, right_B = _dice(seed, "traces"), solve(prompts_BT)
    rates_B = torch.where(prompts_BT[:, DIGITS] == MAX, writer.slips["max"], writer.slips["min"])
    answer_B = _attempt(prompts_BT, rates_B, dice)
    kind_B = torch.rand(len(prompts_BT), generator=dice)
    thinks_B, graded_B = kind_B < writer.thinks, kind_B >= 1 - writer.graded
    grade_B = torch.where(answer_B == right_B, RIGHT, WRONG)
    columns = [torch.where(thinks_B, THINK, PLAIN), answer_B, torch.where(graded_B, ASK, STOP)]
    looking_B = thinks_B
    for _ in range(writer.rounds):
        rates_B = torch.where(answer_B == right_B, writer.after_right, writer.after_wrong)
        looking_B = looking_B & (torch.rand(len(rates_B), generator=dice) < rates_B)
        answer_B = _attempt(prompts_BT, torch.full_like(rates_B, writer.later_slips), dice)
        columns += [
            torch.where(looking_B, token_B, END)
            for token_B in (_all(WAIT, right_B), answer_B, _all(STOP, right_B))
        ]
    tail_BT = torch.stack([*columns, _all(END, right_B), _all(END, right_B)], dim=1)
    tail_BT[:, 3] = torch.where(graded_B, grade_B, tail_BT[:, 3])
    trace_BT = torch.cat([prompts_BT[:, :PROMPT], tail_BT], dim=1)
    return trace_BT[:, : int((trace_BT != END).sum(1).max()) + 1]


def show(tokens_BT: Int[Tensor, "batch position"]) -> list[str]:
    """Spell traces out, up to the first end token.

    Parameters
    ----------
    tokens_BT : Int[Tensor, "batch position"]
        Token ids.

    Returns
    -------
    list of str
        One text a trace.

    Examples
    --------
    >>> import torch
    >>> from helpers import reflection
    >>> reflection.show(torch.tensor([[1, 2, 19, 19]]))
    ['1 2 end']

    Taught in: self-reflection
    """
    texts = [" ".join(SYMBOLS[token] for token in row) for row in tokens_BT.tolist()]
    return [text.partition(" end")[0] + (" end" if " end" in text else "") for text in texts]


def read(tokens_BT: Int[Tensor, "batch position"]) -> Traces:
    """Read off traces what matters: whether they looked back, and whether they were right.

    Parameters
    ----------
    tokens_BT : Int[Tensor, "batch position"]
        Traces from `write` or `sample`.

    Returns
    -------
    Traces
        One entry a trace.

    Raises
    ------
    ValueError
        If a row does not begin with a question.

    Examples
    --------
    >>> from helpers import reflection
    >>> traces = reflection.write(reflection.FINETUNING, reflection.questions(1000, seed=0), seed=1)
    >>> reflection.read(traces).looks_back.gt(0).float().mean() > 0.3
    tensor(True)

    Taught in: self-reflection
    """
    right_B = solve(tokens_BT)
    ended_BT = (tokens_BT == END).cummax(dim=1).values
    length_B = (~ended_BT).sum(1) + ended_BT[:, -1] - PROMPT
    looks_B = ((tokens_BT == WAIT) & ~ended_BT).sum(1)
    stops_BT = ((tokens_BT == STOP) | (tokens_BT == ASK)) & ~ended_BT
    last_B = (stops_BT * torch.arange(tokens_BT.shape[1])).amax(1)
    answer_B = tokens_BT.gather(1, (last_B - 1).clamp(min=0)[:, None])[:, 0]
    first_right_B = tokens_BT[:, PROMPT + 1] == right_B
    return Traces(
        tokens_BT[:, PROMPT] == THINK,
        looks_B,
        first_right_B,
        (answer_B == right_B) & ended_BT[:, -1],
        length_B,
    )


def make_organism(*, n_layers: int = 4, d_model: int = 64, seed: int = 0) -> LanguageModel:
    """Make an untrained gpt2 that knows the symbols of the traces.

    Parameters
    ----------
    n_layers : int
        Decoder layers.
    d_model : int
        Width, a multiple of 4, the number of heads.
    seed : int
        Of the weights. The global random state is left alone.

    Returns
    -------
    LanguageModel
        On the CPU, with trainable weights and no dropout.

    Raises
    ------
    ValueError
        If the width is not a multiple of four.

    Examples
    --------
    >>> from helpers import reflection
    >>> lm = reflection.make_organism(n_layers=2, d_model=8)
    >>> lm.tokenizer("7 2 5 8 max think")["input_ids"]
    [7, 2, 5, 8, 10, 13]

    Taught in: self-reflection
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    if d_model % 4:
        raise ValueError(f"d_model is {d_model}; expected a multiple of 4, the number of heads")
    config = GPT2Config(
        n_layer=n_layers, n_embd=d_model, n_head=4, n_positions=64, vocab_size=len(SYMBOLS),
        activation_function="gelu_pytorch_tanh",  # the same function as gpt2's, in one step
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=END, eos_token_id=END,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config)
    return LanguageModel("organism", model.eval(), _tokenizer())


def fit(
    lm: LanguageModel, writer: Writer, *, steps: int, batch_size: int = 128, lr: float = 3e-3, seed: int = 0
) -> list[float]:
    """Train a model on fresh traces of a writer, in place.

    The loss is the cross-entropy of all tokens after the question. AdamW; the rate rises over the first
    steps and falls along a cosine.

    Parameters
    ----------
    lm : LanguageModel
        From `make_organism`; trained further if it was trained before.
    writer : Writer
        Whose traces.
    steps : int
        Optimiser steps, 1 or more.
    batch_size : int
        Traces a step; every step draws new ones.
    lr : float
        Highest learning rate.
    seed : int
        Of the questions and the traces.

    Returns
    -------
    list of float
        The loss at every step, in nats a token.

    Raises
    ------
    ValueError
        If there is no step or no trace, or the loss is not finite.

    Examples
    --------
    >>> from helpers import reflection
    >>> lm = reflection.make_organism(n_layers=1, d_model=8)
    >>> losses = reflection.fit(lm, reflection.PRETRAINING, steps=20, batch_size=16)
    >>> losses[-1] < losses[0]
    True

    Taught in: self-reflection
    """
    if steps < 1 or batch_size < 1:
        raise ValueError(f"steps and batch_size are {steps} and {batch_size}; expected 1 or more of each")
    lm.model.train().requires_grad_(True)
    adam = torch.optim.AdamW(lm.model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    plan = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: _pace(step, steps))
    losses = []
    for step in range(steps):
        asked_BT = questions(batch_size, seed=_mix(seed, 2 * step))
        loss = _loss(lm, write(writer, asked_BT, seed=_mix(seed, 2 * step + 1)).to(lm.device))
        if not torch.isfinite(loss):
            raise ValueError(f"the loss is {loss.item()} at step {step}: lower lr ({lr})")
        adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(lm.model.parameters(), 1.0)
        adam.step()
        plan.step()
        losses.append(loss.item())
    lm.model.eval().requires_grad_(False)
    return losses


def projected(
    direction_D: Float[Tensor, "d_model"], alpha: float, *, centre_D: Float[Tensor, "d_model"] | None = None
) -> Change:
    """Steer in the projected form: scale the component along a direction by 1 + alpha.

    h + alpha v <h, v> with v of length one, Eq. 6 of the paper. At alpha = -1 the component is gone. With a
    centre m it is h + alpha v <h - m, v>: what is scaled is the distance from m, not from the origin.

    Parameters
    ----------
    direction_D : Float[Tensor, "d_model"]
        The direction, of any length but zero.
    alpha : float
        How much; negative weakens.
    centre_D : Float[Tensor, "d_model"], optional
        Point whose component stays as it is; the origin, as in the paper, if not given.

    Returns
    -------
    callable
        From activations (..., d_model) to new ones.

    Raises
    ------
    ValueError
        If the direction is zero or not finite.

    References
    ----------
    Zhu, Jiang, Khalili and Zhu (2025), *From Emergence to Control*, arXiv 2506.12217, Eq. 6.

    Examples
    --------
    >>> import torch
    >>> from helpers import reflection
    >>> reflection.projected(torch.tensor([2.0, 0.0]), -1.0)(torch.tensor([3.0, 4.0]))
    tensor([0., 4.])

    Taught in: self-reflection
    """
    unit_D = direction_D / _length(direction_D)

    def change(acts_BTD: Tensor) -> Tensor:
        unit = unit_D.to(acts_BTD)
        along_BT = acts_BTD @ unit - (0.0 if centre_D is None else centre_D.to(acts_BTD) @ unit)
        return acts_BTD + alpha * along_BT[..., None] * unit

    return change


def added(direction_D: Float[Tensor, "d_model"], alpha: float) -> Change:
    """Steer in the additive form: h + alpha v, with v as long as it is.

    Parameters
    ----------
    direction_D : Float[Tensor, "d_model"]
        What alpha = 1 adds; a difference of means, for instance.
    alpha : float
        How much; negative goes the other way.

    Returns
    -------
    callable
        From activations (..., d_model) to new ones.

    Raises
    ------
    ValueError
        If the direction is zero or not finite.

    Examples
    --------
    >>> import torch
    >>> from helpers import reflection
    >>> reflection.added(torch.tensor([2.0, 0.0]), -0.5)(torch.tensor([3.0, 4.0]))
    tensor([2., 4.])

    Taught in: self-reflection
    """
    _length(direction_D)
    return lambda acts_BTD: acts_BTD + alpha * direction_D.to(acts_BTD)


@torch.no_grad()
def sample(
    lm: LanguageModel,
    prompts_BT: Int[Tensor, "batch position"],
    *,
    site: Site | None = None,
    change: Change | None = None,
    bias: float = 0.0,
    longest: int = 32,
    seed: int = 0,
) -> Int[Tensor, "batch length"]:
    """Let the model write on, at temperature 1, with its activations changed on the way.

    The change acts from the last token of the prompt on: on everything that decides a new token, and on
    nothing else. Random numbers belong to rows and positions, so that two runs with the same seed differ
    only by what was changed.

    Parameters
    ----------
    lm : LanguageModel
        From `make_organism`.
    prompts_BT : Int[Tensor, "batch position"]
        Questions, or traces cut at one length.
    site : Site, optional
        A residual stream where to change.
    change : callable, optional
        What to do there, from `projected` or `added`.
    bias : float
        Nats added to the logit of ``wait``: the plainest way to make it likelier.
    longest : int
        Positions at most, the prompt with them.
    seed : int
        Of the draws.

    Returns
    -------
    Int[Tensor, "batch length"]
        The prompts and what was written, filled up with the end token.

    Raises
    ------
    ValueError
        If only one of site and change is given, the site is no residual stream of the model, or the prompt
        leaves no room.

    Examples
    --------
    >>> from helpers import reflection
    >>> lm = reflection.make_organism(n_layers=1, d_model=8)
    >>> reflection.sample(lm, reflection.questions(2, seed=0), longest=9).shape
    torch.Size([2, 9])

    Taught in: self-reflection
    """
    batch, start = prompts_BT.shape
    _check_sampling(lm, site, change, start, longest)
    draws_BT = torch.rand(batch, longest, generator=_dice(seed, "samples"))
    out_BT = torch.full((batch, longest), END)
    out_BT[:, :start] = prompts_BT
    rows_B = (out_BT[:, start - 1] != END).nonzero()[:, 0]  # the traces that go on
    cache = None
    if start > 1 and len(rows_B):
        cache = lm.model(out_BT[rows_B, : start - 1].to(lm.device), use_cache=True).past_key_values
    with _changed(lm, site, change):
        for place in range(start, longest):
            if not len(rows_B):
                break
            last_B1 = out_BT[rows_B, place - 1 : place].to(lm.device)
            said = lm.model(last_B1, past_key_values=cache, use_cache=True)
            drawn_B = _draw(said.logits[:, -1], bias, draws_BT[rows_B, place])
            out_BT[rows_B, place] = drawn_B
            on_B = (drawn_B != END).nonzero()[:, 0]
            cache, rows_B = said.past_key_values, rows_B[on_B]
            cache.batch_select_indices(on_B.to(lm.device))
    return out_BT


def probe(
    acts_ND: Float[Tensor, "token d_model"],
    labels_N: Bool[Tensor, "token"],
    *,
    groups_N: Int[Tensor, "token"] | None = None,
    seed: int = 0,
    folds: int = 5,
) -> Probe:
    """Fit a linear probe and score it on rows that it did not see.

    Logistic regression on standardised activations, with equal weight on both classes; every row is scored
    by the one fold that left it out.

    Parameters
    ----------
    acts_ND : Float[Tensor, "token d_model"]
        Activations.
    labels_N : Bool[Tensor, "token"]
        The class of each row.
    groups_N : Int[Tensor, "token"], optional
        Rows of one group stay in one fold: texts made from one template, for instance.
    seed : int
        Of the folds.
    folds : int
        How many, 2 or more.

    Returns
    -------
    Probe
        Accuracy and AUC on held-out rows, and every row's score.

    Raises
    ------
    ValueError
        If a class has fewer rows than there are folds.

    Examples
    --------
    >>> import torch
    >>> from helpers import reflection
    >>> labels = torch.arange(60) % 2 == 0
    >>> acts = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)) + 6 * labels[:, None]
    >>> reflection.probe(acts, labels).accuracy
    1.0

    Taught in: self-reflection
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    smaller = int(min(labels_N.sum(), (~labels_N).sum()))
    if smaller < folds:
        raise ValueError(
            f"the smaller class has {smaller} rows for {folds} folds; collect more, or use fewer"
        )
    line = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=2000, C=0.1))
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    groups_N = torch.arange(len(labels_N)) if groups_N is None else groups_N
    labels = labels_N.numpy()
    scores = cross_val_predict(
        line, acts_ND.double().numpy(), labels, groups=groups_N.numpy(), cv=split, method="decision_function"
    )
    accuracy = float(balanced_accuracy_score(labels, scores > 0))
    return Probe(accuracy, float(roc_auc_score(labels, scores)), torch.from_numpy(scores).float())


def marker_ids(lm: LanguageModel, words: tuple[str, ...] = ("wait", "Wait", " wait", " Wait")) -> list[int]:
    """Find the tokens that mark a reflection: those words that the tokenizer keeps whole.

    Parameters
    ----------
    lm : LanguageModel
        Gives the tokenizer.
    words : tuple of str
        Spellings to look for; a leading space counts.

    Returns
    -------
    list of int
        Token ids, without doubles.

    Raises
    ------
    ValueError
        If no spelling is one token.

    Examples
    --------
    >>> from helpers import reflection
    >>> reflection.marker_ids(reflection.make_organism(n_layers=1, d_model=8))
    [15]

    Taught in: self-reflection
    """
    known = lm.tokenizer.unk_token_id
    ids = [lm.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    whole = dict.fromkeys(row[0] for row in ids if len(row) == 1 and row[0] != known)
    if not whole:
        raise ValueError(f"none of {words} is one token of {lm.name}; give spellings that it keeps whole")
    return list(whole)


def _dice(seed: int, purpose: str) -> torch.Generator:
    """Make a generator; one seed gives independent numbers for different purposes."""
    return torch.Generator().manual_seed(_mix(seed, zlib.crc32(purpose.encode())))


def _mix(seed: int, step: int) -> int:
    """Make one seed of two numbers, so that neighbouring seeds share nothing."""
    return int(np.random.SeedSequence((seed, step)).generate_state(1)[0])


def _attempt(prompts_BT: Tensor, rates_B: Tensor, dice: torch.Generator) -> Tensor:
    """Answer; at the given rates with another digit of the question than the right one."""
    right_B, digits_BT = solve(prompts_BT), prompts_BT[:, :DIGITS]
    lots_BT = torch.rand(digits_BT.shape, generator=dice).masked_fill(digits_BT == right_B[:, None], -1.0)
    other_B = digits_BT.gather(1, lots_BT.argmax(1, keepdim=True))[:, 0]
    return torch.where(torch.rand(len(right_B), generator=dice) < rates_B, other_B, right_B)


def _all(token: int, like_B: Tensor) -> Tensor:
    """Return a column of one token."""
    return torch.full_like(like_B, token)


def _loss(lm: LanguageModel, trace_BT: Tensor) -> Tensor:
    """Return the cross-entropy of what stands after the questions, up to the first end token."""
    logits_BTV = lm.model(trace_BT[:, :-1], use_cache=False).logits[:, PROMPT - 1 :]
    target_BT = trace_BT[:, PROMPT:].clone()
    target_BT[:, 1:][target_BT[:, :-1] == END] = -100
    return torch.nn.functional.cross_entropy(logits_BTV.transpose(1, 2), target_BT)


def _pace(step: int, steps: int) -> float:
    """Return the learning rate of a step as a share of the highest."""
    return min(1.0, (step + 1) / 30) * max(0.02, (1 + math.cos(math.pi * step / steps)) / 2)


def _draw(logits_BV: Tensor, bias: float, draws_B: Tensor) -> Tensor:
    """Draw a token a row: the first whose cumulated share passes the row's random number."""
    logits_BV = logits_BV.float().cpu()
    logits_BV[:, WAIT] += bias
    share_BV = logits_BV.softmax(-1).cumsum(-1)
    return (share_BV < draws_B[:, None]).sum(-1).clamp(max=share_BV.shape[-1] - 1)


def _tokenizer() -> Any:
    """Return a tokenizer with one token a symbol, with spaces between."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({symbol: i for i, symbol in enumerate(SYMBOLS)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="end", pad_token="end", unk_token="?")


def _length(direction_D: Tensor) -> Tensor:
    """Return the length of a direction; refuse one that points nowhere."""
    norm = direction_D.norm()
    if not (torch.isfinite(norm) and norm > 0):
        raise ValueError(f"the direction has norm {norm.item()}; expected a finite one above zero")
    return norm


@contextmanager
def _changed(lm: LanguageModel, site: Site | None, change: Change | None) -> Iterator[None]:
    """Change what a layer hands on, for a while."""
    if site is None or change is None:
        yield
        return

    def hook(module: Any, given: Any, out: Any) -> Any:
        if isinstance(out, tuple):
            return (change(out[0]), *out[1:])
        return change(out)

    handle = attrgetter(FAMILIES[lm.family].layers)(lm.model)[site.layer].register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _check_prompts(prompts_BT: Tensor) -> None:
    """Refuse rows that do not begin with a question."""
    fits = prompts_BT.shape[1] >= PROMPT
    if fits:
        words_B = prompts_BT[:, DIGITS]
        fits = bool(((words_B == MAX) | (words_B == MIN)).all() and (prompts_BT[:, :DIGITS] < 10).all())
    if not fits:
        raise ValueError(
            f"tokens of shape {tuple(prompts_BT.shape)} do not all begin with a question of {PROMPT} tokens; "
            "make them with reflection.questions"
        )


def _check_sampling(
    lm: LanguageModel, site: Site | None, change: Change | None, start: int, longest: int
) -> None:
    """Refuse half a change, a place that is not there, and a prompt that fills the room."""
    if (site is None) != (change is None):
        raise ValueError(f"site is {site} and change is {change}; give both, or neither")
    if site is not None and (site.part != "resid" or site.layer >= lm.n_layers):
        raise ValueError(
            f"{site} cannot be changed here; give a residual stream of layer 0 to {lm.n_layers - 1}"
        )
    most = int(lm.model.config.max_position_embeddings)
    if not 1 <= start < longest <= most:
        raise ValueError(f"prompt {start}, longest {longest}; expected 1 <= prompt < longest <= {most}")
