"""Find one direction in the residual stream, judge it, and write it into weights.

A direction is a difference of means: the average activation under one kind of prompt, minus that under the
other, at one position and after one layer. `candidates` makes one for each position and layer, `judge` says
what removing and adding it does, `select` chooses. `agreement` compares directions of two models with the
null that sampling noise alone would give. The last functions write a direction into the weights.

Shapes: N prompts, T positions counted from the end, L layers, D d_model, I the inputs of a matrix.

Examples
--------
>>> import torch
>>> from helpers.directions import difference_of_means
>>> difference_of_means(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
tensor([2., 0.])
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from helpers import trace
from helpers.models import FAMILIES, LanguageModel

__all__ = [
    "Agreement",
    "Candidate",
    "Rate",
    "ablation",
    "agreement",
    "amplify",
    "candidates",
    "difference_of_means",
    "divergence",
    "judge",
    "last_positions",
    "log_odds",
    "openings",
    "orthogonalise",
    "project_out",
    "rate",
    "reselect",
    "restore",
    "rotate",
    "select",
    "swap",
    "writers",
]

Matrix = Float[Tensor, "d_model in"]
Direction = Float[Tensor, "d_model"]
_FAINT = 0.05  # a direction whose own halves agree less than this cannot be corrected for noise
_OUT = {"gpt2": ("c_proj", "c_proj")}  # what writes to the stream: attention's and the MLP's last matrix


@dataclass(frozen=True, eq=False)
class Candidate:
    """Hold a candidate direction's source and its three scores, one value a prompt.

    Parameters
    ----------
    position : int
        Counted from the end of the prompt: -1 is its last token.
    layer : int
        The direction is read after this layer.
    bypass_N : Float[Tensor, "prompt"]
        Score on harmful prompts with the direction ablated: low is good.
    induce_N : Float[Tensor, "prompt2"]
        Score on harmless prompts with the direction added: high is good.
    kl_N : Float[Tensor, "prompt2"]
        What the ablation changes on harmless prompts, in nats: low is good.

    Examples
    --------
    >>> one = Candidate(-1, 12, torch.tensor([-4.0, -2.0]), torch.tensor([3.0]), torch.tensor([0.02]))
    >>> one.bypass, one.source
    (-3.0, (-1, 12))

    Taught in: refusal
    """

    position: int
    layer: int
    bypass_N: Float[Tensor, "prompt"]
    induce_N: Float[Tensor, "prompt2"]
    kl_N: Float[Tensor, "prompt2"]

    @property
    def source(self) -> tuple[int, int]:
        """Position and layer."""
        return self.position, self.layer

    @property
    def bypass(self) -> float:
        """Mean score on harmful prompts with the direction ablated."""
        return float(self.bypass_N.mean())

    @property
    def induce(self) -> float:
        """Mean score on harmless prompts with the direction added."""
        return float(self.induce_N.mean())

    @property
    def kl(self) -> float:
        """Mean divergence of the ablated model on harmless prompts, in nats."""
        return float(self.kl_N.mean())


@dataclass(frozen=True)
class Rate:
    """Hold a share of prompts with its 95 % interval.

    Parameters
    ----------
    share, low, high : float
        Between 0 and 1.
    n : int
        Prompts.

    Examples
    --------
    >>> Rate(0.5, 0.2, 0.8, 10).interval
    (0.2, 0.8)

    Taught in: refusal
    """

    share: float
    low: float
    high: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return both ends, as `run.record` takes them."""
        return self.low, self.high


@dataclass(frozen=True)
class Agreement:
    """Compare the directions of two models, with what noise alone would give.

    Parameters
    ----------
    same : float
        Cosine of the two directions, both from all prompts. Their noise is partly shared.
    null : Float[Tensor, "split"]
        Cosine of two directions of the *first* model, from two disjoint halves of the prompts.
    across : Float[Tensor, "split"]
        Cosine of the first model's direction from one half with the second model's from the other.
    corrected : Float[Tensor, "split"]
        ``across`` divided by the geometric mean of both models' mean nulls: what two noiseless directions
        would have. It can exceed 1 by chance. Means below 0.05 count as 0.05.

    Examples
    --------
    >>> one = Agreement(0.9, torch.tensor([0.8]), torch.tensor([0.7]), torch.tensor([0.875]))
    >>> one.interval("corrected")
    (0.875, 0.875)

    Taught in: refusal
    """

    same: float
    null: Float[Tensor, "split"]
    across: Float[Tensor, "split"]
    corrected: Float[Tensor, "split"]

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Return the interval in which a share `level` of the splits lies."""
        ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        low, high = torch.quantile(getattr(self, name).double(), ends).tolist()
        return low, high


# Reading


def last_positions(
    lm: LanguageModel, texts: Sequence[str], *, positions: int = 5, batch_size: int = 24
) -> Float[Tensor, "text position layer d_model"]:
    """Collect the residual stream after every layer, at the last positions of each text.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    texts : sequence of str
        Prompts of any lengths, each longer than `positions`.
    positions : int
        How many; index -1 is the last token.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    Float[Tensor, "text position layer d_model"]
        float32, on the CPU.

    Raises
    ------
    ValueError
        If a text is too short.

    Examples
    --------
    >>> from helpers import directions, models
    >>> directions.last_positions(models.random_model(), ["good", "evening"], positions=2).shape
    torch.Size([2, 2, 2, 16])

    Taught in: refusal
    """
    tokens_NT, lengths_N = trace.pad_texts(lm, texts)
    if positions < 1 or int(lengths_N.min()) <= positions:
        raise ValueError(
            f"positions is {positions} and the shortest text has {int(lengths_N.min())} tokens; "
            "expected 1 or more, and fewer than that"
        )
    sites = [trace.Site(layer) for layer in range(lm.n_layers)]
    flat = trace.collect(lm, tokens_NT, sites=sites, batch_size=batch_size, skip_first=0, progress=False)
    where_NT = lengths_N[:, None] - positions + torch.arange(positions)
    rows_N1 = torch.arange(len(texts))[:, None]
    shape = (*tokens_NT.shape, lm.d_model)
    return torch.stack([flat[site].view(shape)[rows_N1, where_NT] for site in sites], dim=2)


def difference_of_means(
    one: Float[Tensor, "prompt *rest"], other: Float[Tensor, "prompt2 *rest"]
) -> Float[Tensor, "*rest"]:
    """Subtract the mean of one set of activations from the mean of another, in double precision.

    Parameters
    ----------
    one, other : Float[Tensor, "prompt *rest"]
        Activations, one row a prompt; the numbers of prompts may differ.

    Returns
    -------
    Float[Tensor, "*rest"]
        Points from `other` to `one`, in the activations' own units.

    Raises
    ------
    ValueError
        If a set is empty.

    References
    ----------
    Arditi et al. (2024), *Refusal in Language Models Is Mediated by a Single Direction*, arXiv 2406.11717,
    section 2.3.

    Examples
    --------
    >>> difference_of_means(torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0]]))
    tensor([2.])

    Taught in: refusal
    """
    if not (len(one) and len(other)):
        raise ValueError(f"{len(one)} and {len(other)} prompts were given; expected at least one of each")
    return (one.double().mean(0) - other.double().mean(0)).to(one.dtype)


def openings(lm: LanguageModel, words: Sequence[str]) -> Int[Tensor, "word"]:
    """Look up the first tokens of refusals.

    Parameters
    ----------
    lm : LanguageModel
        Gives the tokenizer.
    words : sequence of str
        How a refusal begins, such as ``"Sorry"`` or ``"I"``. Only the first token of each counts.

    Returns
    -------
    Int[Tensor, "word"]
        Token ids, each once, in ascending order.

    Raises
    ------
    ValueError
        If there is no word, or one has no token.

    Examples
    --------
    >>> from helpers.models import random_model
    >>> openings(random_model(), ["Sorry", "So"])  # one token a byte
    tensor([50])

    Taught in: refusal
    """
    ids = [lm.tokenizer(word, add_special_tokens=False).input_ids for word in words]
    if not ids or not all(ids):
        raise ValueError(f"the words are {list(words)}; expected at least one, each with a token")
    return torch.tensor(sorted({row[0] for row in ids}))


def log_odds(
    logprobs_NV: Float[Tensor, "prompt vocab"], tokens: Int[Tensor, "word"]
) -> Float[Tensor, "prompt"]:
    """Return the log-odds that the next token is one of some.

    Parameters
    ----------
    logprobs_NV : Float[Tensor, "prompt vocab"]
        Log-probabilities of the next token, from `helpers.trace.next_token`.
    tokens : Int[Tensor, "word"]
        Which tokens count, from `openings`.

    Returns
    -------
    Float[Tensor, "prompt"]
        ``log P - log (1 - P)`` in nats; above 0 if they are likelier than all others together.

    References
    ----------
    Arditi et al. (2024), appendix B: the *refusal metric*.

    Examples
    --------
    >>> log_odds(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([0]))
    tensor([1.0986])

    Taught in: refusal
    """
    others_V = torch.ones(logprobs_NV.shape[1], dtype=torch.bool)
    others_V[tokens] = False
    yes_N = logprobs_NV[:, tokens].double().logsumexp(1)
    return (yes_N - logprobs_NV[:, others_V].double().logsumexp(1)).to(logprobs_NV.dtype)


def divergence(
    logprobs_NV: Float[Tensor, "prompt vocab"], changed_NV: Float[Tensor, "prompt vocab"]
) -> Float[Tensor, "prompt"]:
    """Return how far predictions are from others: the Kullback-Leibler divergence of each prompt.

    Parameters
    ----------
    logprobs_NV, changed_NV : Float[Tensor, "prompt vocab"]
        Log-probabilities before and after a change.

    Returns
    -------
    Float[Tensor, "prompt"]
        In nats, 0 or more.

    Examples
    --------
    >>> divergence(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.75, 0.25]]).log())
    tensor([0.1438])

    Taught in: refusal
    """
    return (logprobs_NV.exp() * (logprobs_NV - changed_NV)).sum(1).clamp(min=0)


def rate(scores_N: Float[Tensor, "prompt"], *, above: float = 0.0) -> Rate:
    """Count how many scores are above a threshold, with Wilson's interval.

    Parameters
    ----------
    scores_N : Float[Tensor, "prompt"]
        One a prompt.
    above : float
        The threshold.

    Returns
    -------
    Rate
        The share and its 95 % interval, which has a width even when all prompts agree.

    Raises
    ------
    ValueError
        If there is no score, or one is not a number.

    Examples
    --------
    >>> rate(torch.tensor([-1.0, -2.0, -3.0, 4.0])).share
    0.25

    Taught in: refusal
    """
    from scipy.stats import binomtest

    if len(scores_N) == 0 or bool(scores_N.isnan().any()):
        raise ValueError(f"{len(scores_N)} scores, some perhaps NaN, were given; expected numbers")
    hits, n = int((scores_N > above).sum()), len(scores_N)
    ends = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    return Rate(hits / n, float(ends.low), float(ends.high), n)


# Changing what flows


def ablation(lm: LanguageModel, direction_D: Direction, *, skip_first: int = 1) -> list[trace.Edit]:
    """Remove a direction wherever it could be written to the residual stream.

    That is after every layer and after both halves of it, so that neither the MLP nor the next layer reads
    it. What the token embedding holds of it reaches the first attention and is removed after.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    direction_D : Float[Tensor, "d_model"]
        The direction; its length does not matter.
    skip_first : int
        Positions at the start that stay as they are: the attention sink.

    Returns
    -------
    list of Edit
        For `helpers.trace`.

    References
    ----------
    Arditi et al. (2024), section 2.4: *directional ablation*.

    Examples
    --------
    >>> from helpers import directions, models
    >>> len(directions.ablation(models.random_model(n_layers=2), torch.ones(16)))
    6

    Taught in: refusal
    """
    return [
        trace.ablate(trace.Site(layer, part), direction=direction_D, skip_first=skip_first)
        for layer in range(lm.n_layers)
        for part in ("attn", "mlp", "resid")
    ]


def candidates(
    positive_NTLD: Float[Tensor, "prompt position layer d_model"],
    negative_NTLD: Float[Tensor, "prompt2 position layer d_model"],
    *,
    layers: Iterable[int],
    positions: Iterable[int],
) -> dict[tuple[int, int], Direction]:
    """Make a direction for each position and layer.

    Parameters
    ----------
    positive_NTLD, negative_NTLD : Float[Tensor, "prompt position layer d_model"]
        From `last_positions`, for both kinds of prompts.
    layers : iterable of int
        After which layers.
    positions : iterable of int
        Negative: -1 is the last token.

    Returns
    -------
    dict of (int, int) to Float[Tensor, "d_model"]
        By (position, layer).

    Examples
    --------
    >>> made = candidates(torch.ones(3, 2, 4, 8), torch.zeros(3, 2, 4, 8), layers=(1, 2), positions=(-1,))
    >>> list(made)
    [(-1, 1), (-1, 2)]

    Taught in: refusal
    """
    means_TLD = difference_of_means(positive_NTLD, negative_NTLD)
    depths = list(layers)
    return {(at, layer): means_TLD[at, layer] for at in positions for layer in depths}


def judge(
    lm: LanguageModel,
    direction_D: Direction,
    *,
    at: tuple[int, int],
    harmful: Sequence[str],
    harmless: Sequence[str],
    tokens: Int[Tensor, "word"],
    unedited_NV: Float[Tensor, "prompt vocab"],
    batch_size: int = 24,
) -> Candidate:
    """Score a candidate: what is left of refusal without it, what comes with it, and what else changes.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    direction_D : Float[Tensor, "d_model"]
        The candidate, with its length: that much of it is added.
    at : (int, int)
        Its position and layer. It is added after that layer, at all positions.
    harmful, harmless : sequence of str
        Validation prompts, as the model takes them.
    tokens : Int[Tensor, "word"]
        First tokens of refusals, from `openings`.
    unedited_NV : Float[Tensor, "prompt vocab"]
        What the model predicts after the harmless prompts when nothing is edited.
    batch_size : int
        Prompts in one forward pass.

    Returns
    -------
    Candidate
        With bypass, induce and KL.

    References
    ----------
    Arditi et al. (2024), appendix C: *direction selection*.

    Examples
    --------
    >>> from helpers import directions, models, trace
    >>> lm = models.random_model()
    >>> said = trace.next_token(lm, ["good day"])
    >>> found = directions.judge(lm, torch.ones(16), at=(-1, 0), harmful=["bad day"], harmless=["good day"],
    ...     tokens=torch.tensor([50]), unedited_NV=said)
    >>> found.source, found.kl >= 0
    ((-1, 0), True)

    Taught in: refusal
    """
    without = ablation(lm, direction_D)
    both = trace.next_token(lm, [*harmful, *harmless], edits=without, batch_size=batch_size)
    added = [trace.add(trace.Site(at[1]), direction_D)]
    pushed = trace.next_token(lm, harmless, edits=added, batch_size=batch_size)
    return Candidate(
        *at,
        bypass_N=log_odds(both[: len(harmful)], tokens),
        induce_N=log_odds(pushed, tokens),
        kl_N=divergence(unedited_NV, both[len(harmful) :]),
    )


def select(
    judged: Iterable[Candidate], *, layers: int, kl_ceiling: float = 0.1, deepest: float = 0.8
) -> Candidate:
    """Choose the candidate that takes away refusal best, among those that pass three filters.

    Parameters
    ----------
    judged : iterable of Candidate
        Keep them all: the ones that were not chosen say how close the choice was.
    layers : int
        How many the model has.
    kl_ceiling : float
        The most that the ablation may change on harmless prompts, in nats.
    deepest : float
        Only layers before this share of the depth: a late direction may only name the refusing words.

    Returns
    -------
    Candidate
        The one with the lowest bypass score whose induce score is at least 0.

    Raises
    ------
    ValueError
        If none passes; the message says how many fell to which filter.

    References
    ----------
    Arditi et al. (2024), appendix C.

    Examples
    --------
    >>> one = torch.ones(1)
    >>> few = [Candidate(-1, 1, -3 * one, one, 0.5 * one), Candidate(-1, 2, -2 * one, one, 0.05 * one)]
    >>> select(few, layers=4).source
    (-1, 2)

    Taught in: refusal
    """
    pool = list(judged)
    fit = [c for c in pool if c.kl <= kl_ceiling and c.induce >= 0 and c.layer < deepest * layers]
    if not fit:
        raise ValueError(
            f"none of {len(pool)} candidates passes: {sum(c.kl > kl_ceiling for c in pool)} change harmless "
            f"answers by more than {kl_ceiling} nats, {sum(c.induce < 0 for c in pool)} induce no refusal, "
            f"{sum(c.layer >= deepest * layers for c in pool)} are too deep. Judge more, or raise kl_ceiling"
        )
    return min(fit, key=lambda c: c.bypass)


def reselect(
    judged: Sequence[Candidate],
    *,
    layers: int,
    draws: int = 200,
    seed: int = 0,
    kl_ceiling: float = 0.1,
    deepest: float = 0.8,
) -> Counter[tuple[int, int] | None]:
    """Choose again with other draws of the validation prompts, to see how sure the source is.

    A source that would have been another one with other prompts cannot be said to have moved.

    Parameters
    ----------
    judged : sequence of Candidate
        All of one model, judged on the same prompts.
    layers : int
        How many the model has.
    draws : int
        How often the prompts are drawn, with replacement.
    seed : int
        Of the draws.
    kl_ceiling, deepest : float
        As for `select`.

    Returns
    -------
    Counter of (int, int) or None
        How often each source was chosen; None counts the draws in which no candidate passed.

    Raises
    ------
    ValueError
        If there is no candidate.

    Examples
    --------
    >>> one = torch.ones(2)
    >>> reselect([Candidate(-1, 2, -2 * one, one, 0.05 * one)], layers=4, draws=5)
    Counter({(-1, 2): 5})

    Taught in: refusal
    """
    if not judged:
        raise ValueError("reselect got no candidates; judge some first")
    dice = torch.Generator().manual_seed(seed)
    bypass_CN, induce_CN, kl_CN = (
        torch.stack([getattr(c, name) for c in judged]) for name in ("bypass_N", "induce_N", "kl_N")
    )
    shallow_C = torch.tensor([c.layer < deepest * layers for c in judged])
    found: Counter[tuple[int, int] | None] = Counter()
    for _ in range(draws):
        harmful, harmless = (
            torch.randint(n, (n,), generator=dice) for n in (bypass_CN.shape[1], kl_CN.shape[1])
        )
        fit_C = (kl_CN[:, harmless].mean(1) <= kl_ceiling) & (induce_CN[:, harmless].mean(1) >= 0) & shallow_C
        best = torch.where(fit_C, bypass_CN[:, harmful].mean(1), torch.inf).argmin()
        found[judged[int(best)].source if bool(fit_C.any()) else None] += 1
    return found


# Comparing


def agreement(
    one: tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt2 d_model"]],
    other: tuple[Float[Tensor, "prompt3 d_model"], Float[Tensor, "prompt4 d_model"]],
    *,
    splits: int = 200,
    seed: int = 0,
) -> Agreement:
    """Compare the directions of two models on the same prompts, beside what sampling noise gives.

    In each split the prompts are cut into two disjoint halves, and each half is drawn again with
    replacement. A direction from one half and a direction from the other then share no noise.

    Parameters
    ----------
    one, other : pair of Float[Tensor, "prompt d_model"]
        Activations of each model under both kinds of prompts, row by row the same prompts.
    splits : int
        How many.
    seed : int
        Of the splits.

    Returns
    -------
    Agreement
        The cosine on all prompts, and for each split the null, the cosine across models, and the latter
        corrected for noise.

    Raises
    ------
    ValueError
        If there are fewer than four prompts of a kind, or the models saw different numbers.

    References
    ----------
    Spearman (1904), *The Proof and Measurement of Association between Two Things*: the correction.

    Examples
    --------
    >>> dice = torch.Generator().manual_seed(0)
    >>> noise = torch.randn(2, 40, 8, generator=dice)
    >>> pair = (noise[0] + 3.0, noise[1])
    >>> found = agreement(pair, pair, splits=20)
    >>> round(found.same, 3), bool(found.null.mean() < 1)
    (1.0, True)

    Taught in: refusal
    """
    sizes, others = [len(half) for half in one], [len(half) for half in other]
    if sizes != others or min(sizes) < 4:
        raise ValueError(
            f"the models have {sizes} and {others} prompts of the two kinds; expected equal numbers, "
            "each 4 or more"
        )
    dice = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(splits):
        halves = list(zip(*(_two_halves(size, dice) for size in sizes), strict=True))
        a, b = ([_mean_gap(pair, half) for half in halves] for pair in (one, other))
        across = (_cosine(a[0], b[1]) + _cosine(a[1], b[0])) / 2
        rows.append([_cosine(a[0], a[1]), _cosine(b[0], b[1]), across])
    null_S, other_null_S, across_S = torch.tensor(rows).T
    likeness = [max(float(null.mean()), _FAINT) for null in (null_S, other_null_S)]
    same = _cosine(difference_of_means(*one), difference_of_means(*other))
    return Agreement(same, null_S, across_S, across_S / (likeness[0] * likeness[1]) ** 0.5)


def _two_halves(size: int, dice: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut row numbers into two disjoint halves, and draw each again with replacement."""
    order = torch.randperm(size, generator=dice)
    halves = order[: size // 2], order[size // 2 : 2 * (size // 2)]
    first, second = (half[torch.randint(len(half), (len(half),), generator=dice)] for half in halves)
    return first, second


def _mean_gap(pair: tuple[Tensor, Tensor], rows: tuple[Tensor, Tensor]) -> Tensor:
    """Return the difference of means over some rows of each kind."""
    return difference_of_means(pair[0][rows[0]], pair[1][rows[1]])


def _cosine(one_D: Tensor, other_D: Tensor) -> float:
    """Return the cosine of two vectors, in double precision."""
    return float(torch.cosine_similarity(one_D.double(), other_D.double(), dim=0))


# Writing into weights


def writers(lm: LanguageModel, layer: int) -> dict[str, Matrix]:
    """Find the two matrices of a layer that write to the residual stream.

    In gemma2 a normalisation stands between them and the stream, so that an edit of them acts on the stream
    only roughly.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int
        Which decoder layer.

    Returns
    -------
    dict of str to Float[Tensor, "d_model in"]
        ``"attn"`` and ``"mlp"``: views, one row for each coordinate of the stream. Writing into them changes
        the model.

    Raises
    ------
    ValueError
        If the layer does not exist.

    Examples
    --------
    >>> from helpers import directions, models
    >>> {part: tuple(weight.shape) for part, weight in directions.writers(models.random_model(), 0).items()}
    {'attn': (16, 16), 'mlp': (16, 64)}

    Taught in: refusal
    """
    if not 0 <= layer < lm.n_layers:
        raise ValueError(f"layer {layer} does not exist: {lm.name} has layers 0 to {lm.n_layers - 1}")
    family = FAMILIES[lm.family]
    block = lm.model.get_submodule(f"{family.layers}.{layer}")
    last = _OUT.get(lm.family, ("o_proj", "down_proj"))
    found = {}
    for part, module, name in zip(("attn", "mlp"), (family.attn, family.mlp), last, strict=True):
        matrix = block.get_submodule(f"{module}.{name}")
        weight = matrix.get_parameter("weight").data
        found[part] = weight if isinstance(matrix, nn.Linear) else weight.T  # gpt2's Conv1D lies on its side
    return found


def project_out(weight_DI: Matrix, direction_D: Direction) -> Matrix:
    """Take a direction out of everything that a matrix can write.

    Parameters
    ----------
    weight_DI : Float[Tensor, "d_model in"]
        A matrix that writes to the stream.
    direction_D : Float[Tensor, "d_model"]
        The direction; its length does not matter.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``W - r r^T W`` with r of length 1.

    Examples
    --------
    >>> project_out(torch.eye(2), torch.tensor([3.0, 0.0]))
    tensor([[0., 0.],
            [0., 1.]])

    Taught in: refusal
    """
    return weight_DI - _along(weight_DI, direction_D)


def orthogonalise(lm: LanguageModel, direction_D: Direction) -> LanguageModel:
    """Copy a model without the ability to write a direction.

    The embedding, and in every layer attention's and the MLP's last matrix and bias, are projected. A head
    that shares the embedding's weights gets its own copy, unchanged.

    Parameters
    ----------
    lm : LanguageModel
        The model; it stays as it is.
    direction_D : Float[Tensor, "d_model"]
        The direction; its length does not matter.

    Returns
    -------
    LanguageModel
        The copy.

    References
    ----------
    Arditi et al. (2024), section 4.1: *weight orthogonalisation*.

    Examples
    --------
    >>> from helpers import directions, models
    >>> less = directions.orthogonalise(models.random_model(), torch.ones(16))
    >>> float(directions.writers(less, 1)["mlp"].sum(0).abs().max()) < 1e-5
    True

    Taught in: refusal
    """
    model = copy.deepcopy(lm.model)
    changed = replace(lm, name=f"{lm.name}, orthogonalised", model=model)
    written, head = model.get_input_embeddings().get_parameter("weight"), model.get_output_embeddings()
    head.weight = nn.Parameter(head.get_parameter("weight").detach().clone(), requires_grad=False)
    written.data = project_out(written.data.T, direction_D).T.contiguous()
    for layer in range(lm.n_layers):
        for weight_DI in writers(changed, layer).values():
            weight_DI.copy_(project_out(weight_DI, direction_D))
    return changed


def restore(pruned_DI: Matrix, direction_D: Direction, *, dense_DI: Matrix) -> Matrix:
    """Give a pruned matrix back what the dense one writes along a direction: candidate H1.

    Parameters
    ----------
    pruned_DI, dense_DI : Float[Tensor, "d_model in"]
        The same matrix after and before pruning.
    direction_D : Float[Tensor, "d_model"]
        The original model's direction.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``W_c + r r^T (W - W_c)``: a change of rank one, which has no zeros.

    Examples
    --------
    >>> restore(torch.zeros(2, 2), torch.tensor([1.0, 0.0]), dense_DI=torch.ones(2, 2))
    tensor([[1., 1.],
            [0., 0.]])

    Taught in: refusal
    """
    return pruned_DI + _along(dense_DI - pruned_DI, direction_D)


def swap(pruned_DI: Matrix, direction_D: Direction, *, dense_DI: Matrix, drifted_D: Direction) -> Matrix:
    """Take the drifted direction out, then put in what the dense matrix writes along the original: H2.

    Parameters
    ----------
    pruned_DI, dense_DI : Float[Tensor, "d_model in"]
        The same matrix after and before pruning.
    direction_D, drifted_D : Float[Tensor, "d_model"]
        The original's direction and the pruned model's own.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``(I - c c^T) W_c + r r^T W``.

    Examples
    --------
    >>> r, c = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> swap(torch.ones(2, 1), r, dense_DI=2 * torch.ones(2, 1), drifted_D=c)
    tensor([[3.],
            [0.]])

    Taught in: refusal
    """
    return project_out(pruned_DI, drifted_D) + _along(dense_DI, direction_D)


def amplify(pruned_DI: Matrix, direction_D: Direction, *, beta: float) -> Matrix:
    """Strengthen what a matrix writes along a direction: H3. It needs no dense weights.

    Parameters
    ----------
    pruned_DI : Float[Tensor, "d_model in"]
        A matrix.
    direction_D : Float[Tensor, "d_model"]
        The original's direction.
    beta : float
        How much is added: with 1 the matrix writes twice as much along the direction.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``W_c + beta r r^T W_c``.

    Examples
    --------
    >>> amplify(torch.ones(2, 1), torch.tensor([1.0, 0.0]), beta=1.0)
    tensor([[2.],
            [1.]])

    Taught in: refusal
    """
    return pruned_DI + beta * _along(pruned_DI, direction_D)


def rotate(pruned_DI: Matrix, direction_D: Direction, *, drifted_D: Direction) -> Matrix:
    """Turn what a matrix writes, so that the drifted direction comes to lie on the original one: H4.

    Parameters
    ----------
    pruned_DI : Float[Tensor, "d_model in"]
        A matrix.
    direction_D, drifted_D : Float[Tensor, "d_model"]
        Where the drifted one goes, and where it is now. They must not point in opposite ways.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``R W_c``, with R the rotation in the plane of the two; what is orthogonal to both stays.

    Raises
    ------
    ValueError
        If the two directions are opposite: then no one plane is meant.

    Examples
    --------
    >>> rotate(torch.tensor([[0.0], [5.0]]), torch.tensor([1.0, 0.0]), drifted_D=torch.tensor([0.0, 1.0]))
    tensor([[5.],
            [0.]])

    Taught in: refusal
    """
    r_D, c_D = normalize(direction_D, dim=0), normalize(drifted_D, dim=0)
    cosine = float(c_D @ r_D)
    if cosine < -1 + 1e-6:
        raise ValueError(f"the directions have cosine {cosine:.3f}; expected two that are not opposite")
    middle_D = c_D + r_D
    lost_DI = _outer(middle_D, middle_D @ pruned_DI) / (1 + cosine)
    return pruned_DI - lost_DI + 2 * _outer(r_D, c_D @ pruned_DI)


def _along(weight_DI: Tensor, direction_D: Tensor) -> Tensor:
    """Return the part of a matrix that writes along a direction, r r^T W."""
    unit_D = normalize(direction_D.to(weight_DI), dim=0)
    return _outer(unit_D, unit_D @ weight_DI)


def _outer(one_D: Tensor, other_I: Tensor) -> Tensor:
    """Return the outer product."""
    return one_D[:, None] * other_I
