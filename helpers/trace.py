"""Read and change what flows through a language model.

This is the only room that touches nnsight. A `Site` names a place; `collect` reads there; an `Edit` changes
what passes, and `logits` and `loss` run the model with edits in place.

Two facts to know before using activations:

**Position 0 is special.** The first token of every sequence sees only itself, and attention heads that find
nothing to look at put their weight on it: the *attention sink*. Its residual stream is huge, hardly depends
on which token it is, and says nothing about the text. One such row outweighs hundreds of others in a mean
or a squared error. So everything here leaves position 0 out (``skip_first=1``) unless told otherwise:
`collect` does not return it, and the edits do not change it.

**Massive activations.** A few other rows (delimiters, line breaks and other tokens that also serve as
sinks) can have norms hundreds or thousands of times the typical one, concentrated in a handful of
coordinates that stay the same for all texts: Sun et al., *Massive Activations in Large Language Models*
(arXiv 2402.17762). They act as constant biases. `massive` marks such rows, so that they can be counted and
kept out of a training set.

Examples
--------
>>> from helpers.trace import Site
>>> str(Site(15)), str(Site(3, "attn"))
('resid.15', 'attn.3')
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm import tqdm

from helpers.models import FAMILIES, LanguageModel

__all__ = [
    "Edit", "Site", "ablate", "add", "clamp", "collect", "logits", "loss", "massive", "patch", "splice"
]  # fmt: skip

Part = Literal["resid", "attn", "mlp"]
Remote = bool | Literal["local"]
_ORDER = {"attn": 0, "mlp": 1, "resid": 2}  # the order in which a layer computes them


@dataclass(frozen=True)
class Site:
    """Name a place in the model: the output of a layer, or of one of its halves.

    Parameters
    ----------
    layer : int
        Decoder layer, from 0.
    part : {"resid", "attn", "mlp"}
        ``"resid"`` is the residual stream after the layer. ``"attn"`` and ``"mlp"`` are the outputs of those
        modules. In gpt2, llama and qwen2 exactly this is added to the residual stream; in gemma2 it first
        passes a normalisation, so there it is the module's output *before* that.

    Examples
    --------
    >>> from helpers.trace import Site
    >>> Site(2, "mlp")
    Site(layer=2, part='mlp')

    Taught in: sae-derivation
    """

    layer: int
    part: Part = "resid"

    def __post_init__(self) -> None:
        if self.part not in _ORDER:
            raise ValueError(f"part is {self.part!r}; expected one of {', '.join(_ORDER)}")
        if self.layer < 0:
            raise ValueError(f"layer is {self.layer}; expected 0 or more (count from the first layer)")

    def __str__(self) -> str:
        return f"{self.part}.{self.layer}"


@dataclass(frozen=True, eq=False)
class Edit:
    """Change what passes a site during a forward pass.

    Edits on one site are applied in the order given. The function gets float32, whatever the model's
    format, and its result is cast back.

    Parameters
    ----------
    site : Site
        Where.
    fn : callable
        From activations (batch, position, d_model) to new ones of the same shape.
    source : Float[Tensor, "batch position d_model"], optional
        Values that belong to the sequences, row by row; ``fn`` then gets those of the current batch as a
        second argument. `patch` uses it.

    Examples
    --------
    >>> from helpers.trace import Edit, Site
    >>> double = Edit(Site(3), lambda acts_BTD: 2 * acts_BTD)
    >>> str(double.site)
    'resid.3'

    Taught in: sae-derivation
    """

    site: Site
    fn: Callable[..., Tensor]
    source: Tensor | None = None


def splice(site: Site, fn: Callable[[Tensor], Tensor], *, skip_first: int = 1) -> Edit:
    """Put a function in the path: what passes the site is replaced by what the function makes of it.

    Parameters
    ----------
    site : Site
        Where.
    fn : callable
        From (batch, position, d_model) to the same shape; for instance an SAE's reconstruction.
    skip_first : int
        Positions at the start that stay as they are: the attention sink.

    Returns
    -------
    Edit
        For `logits` and `loss`.

    Examples
    --------
    >>> import torch
    >>> from helpers.trace import Site, splice
    >>> splice(Site(0), torch.zeros_like).fn(torch.ones(1, 3, 2))[0, :, 0]
    tensor([1., 0., 0.])

    Taught in: sae-derivation
    """
    _check_skip(skip_first)

    def edited(acts_BTD: Tensor) -> Tensor:
        return torch.cat([acts_BTD[:, :skip_first], fn(acts_BTD[:, skip_first:])], dim=1)

    return Edit(site, edited)


def add(
    site: Site, vector_D: Float[Tensor, "*batch d_model"], *, scale: float = 1.0, skip_first: int = 1
) -> Edit:
    """Add a vector at every position: steering.

    Parameters
    ----------
    site : Site
        Where.
    vector_D : Float[Tensor, "*batch d_model"]
        What to add: one vector, or one for each sequence of the tokens that will be run.
    scale : float
        Times how much; negative steers the other way.
    skip_first : int
        Positions at the start that stay as they are.

    Returns
    -------
    Edit
        For `logits` and `loss`.

    Examples
    --------
    >>> import torch
    >>> from helpers.trace import Site, add
    >>> add(Site(0), torch.tensor([1.0, 0.0]), scale=3.0).fn(torch.ones(1, 2, 2))
    tensor([[[1., 1.],
             [4., 1.]]])

    Taught in: sae-derivation
    """
    if vector_D.ndim == 1:
        return splice(site, lambda acts_BTD: acts_BTD + scale * vector_D.to(acts_BTD), skip_first=skip_first)
    _check_skip(skip_first)

    def added(old_BTD: Tensor, rows_BTD: Tensor) -> Tensor:
        new_BTD = old_BTD + scale * rows_BTD.to(old_BTD)
        return torch.cat([old_BTD[:, :skip_first], new_BTD[:, skip_first:]], dim=1)

    return Edit(site, added, vector_D[:, None])


def ablate(
    site: Site,
    *,
    direction: Float[Tensor, "d_model"] | None = None,
    value: Float[Tensor, "d_model"] | None = None,
    skip_first: int = 1,
) -> Edit:
    """Remove what passes a site, or one direction of it.

    Parameters
    ----------
    site : Site
        Where.
    direction : Float[Tensor, "d_model"], optional
        Remove only the component along this direction (of any length but zero).
    value : Float[Tensor, "d_model"], optional
        Put this in place of the whole; for a mean ablation, the mean activation. Zero if not given.
    skip_first : int
        Positions at the start that stay as they are.

    Returns
    -------
    Edit
        For `logits` and `loss`.

    Raises
    ------
    ValueError
        If both are given, or the direction is zero.

    Examples
    --------
    >>> import torch
    >>> from helpers.trace import Site, ablate
    >>> acts = torch.tensor([[[3.0, 4.0]]])
    >>> ablate(Site(0), skip_first=0).fn(acts)
    tensor([[[0., 0.]]])
    >>> ablate(Site(0), direction=torch.tensor([2.0, 0.0]), skip_first=0).fn(acts)
    tensor([[[0., 4.]]])

    Taught in: sae-derivation
    """
    if direction is not None and value is not None:
        raise ValueError("ablate got a direction and a value; give one, or neither for zero ablation")
    if direction is not None:
        return clamp(site, direction, value=0.0, skip_first=skip_first)
    if value is None:
        return splice(site, torch.zeros_like, skip_first=skip_first)
    return splice(site, lambda acts_BTD: value.to(acts_BTD).expand_as(acts_BTD), skip_first=skip_first)


def clamp(site: Site, direction_D: Float[Tensor, "d_model"], *, value: float, skip_first: int = 1) -> Edit:
    """Set the coordinate along a direction to one value at every position.

    Parameters
    ----------
    site : Site
        Where.
    direction_D : Float[Tensor, "d_model"]
        The direction; only its orientation counts, since it is scaled to length 1.
    value : float
        The new coordinate, in the activations' own units.
    skip_first : int
        Positions at the start that stay as they are.

    Returns
    -------
    Edit
        For `logits` and `loss`.

    Raises
    ------
    ValueError
        If the direction is zero or not finite.

    Examples
    --------
    >>> import torch
    >>> from helpers.trace import Site, clamp
    >>> clamp(Site(0), torch.tensor([2.0, 0.0]), value=5.0, skip_first=0).fn(torch.ones(1, 1, 2))
    tensor([[[5., 1.]]])

    Taught in: sae-derivation
    """
    norm = direction_D.norm()
    if not (torch.isfinite(norm) and norm > 0):
        raise ValueError(f"the direction at {site} has norm {norm.item()}; expected a finite one above zero")
    unit_D = direction_D / norm

    def clamped(acts_BTD: Tensor) -> Tensor:
        unit = unit_D.to(acts_BTD)
        return acts_BTD + (value - acts_BTD @ unit)[..., None] * unit

    return splice(site, clamped, skip_first=skip_first)


def patch(site: Site, acts_BTD: Float[Tensor, "batch position d_model"], *, skip_first: int = 1) -> Edit:
    """Put in activations from another run: activation patching.

    Parameters
    ----------
    site : Site
        Where.
    acts_BTD : Float[Tensor, "batch position d_model"]
        As many sequences and positions as the tokens that will be run.
    skip_first : int
        Positions at the start that stay as they are.

    Returns
    -------
    Edit
        For `logits` and `loss`.

    Examples
    --------
    >>> import torch
    >>> from helpers.trace import Site, patch
    >>> edit = patch(Site(0), torch.zeros(1, 2, 1))
    >>> edit.fn(torch.ones(1, 2, 1), edit.source).flatten()
    tensor([1., 0.])

    Taught in: sae-derivation
    """
    _check_skip(skip_first)

    def patched(old_BTD: Tensor, new_BTD: Tensor) -> Tensor:
        return torch.cat([old_BTD[:, :skip_first], new_BTD[:, skip_first:].to(old_BTD)], dim=1)

    return Edit(site, patched, acts_BTD)


def massive(acts_ND: Float[Tensor, "token d_model"], *, ratio: float = 10.0) -> Bool[Tensor, "token"]:
    """Mark rows whose norm is far above the typical one.

    Parameters
    ----------
    acts_ND : Float[Tensor, "token d_model"]
        Activations, one row a token.
    ratio : float
        How many times the median norm counts as far above; above 1.

    Returns
    -------
    Bool[Tensor, "token"]
        True where the row is massive.

    Raises
    ------
    ValueError
        If there is no row, or the ratio is not above 1.

    References
    ----------
    Sun et al. (2024), *Massive Activations in Large Language Models*, arXiv 2402.17762, section 2.

    Examples
    --------
    >>> import torch
    >>> from helpers.trace import massive
    >>> massive(torch.tensor([[1.0], [2.0], [500.0]]))
    tensor([False, False,  True])

    Taught in: sae-derivation
    """
    if len(acts_ND) == 0:
        raise ValueError("massive got no rows; expected at least one activation")
    if not ratio > 1:
        raise ValueError(f"ratio is {ratio}; expected more than 1")
    norms_N = acts_ND.norm(dim=-1)
    return norms_N > ratio * norms_N.median()


def collect(
    lm: LanguageModel,
    tokens_BT: Int[Tensor, "batch position"],
    *,
    sites: Iterable[Site],
    batch_size: int = 8,
    skip_first: int = 1,
    progress: bool = True,
    remote: Remote = False,
) -> dict[Site, Float[Tensor, "token d_model"]]:
    """Collect activations at some sites, one row a token.

    The forward pass stops at the deepest site asked for, so shallow sites are cheap. Row ``i`` belongs to
    token ``tokens_BT[:, skip_first:].reshape(-1)[i]``.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    tokens_BT : Int[Tensor, "batch position"]
        Token ids, without padding.
    sites : iterable of Site
        Where to read.
    batch_size : int
        Sequences in one forward pass.
    skip_first : int
        Positions dropped at the start of every sequence: position 0 is the attention sink, a huge and
        nearly constant vector that would rule every average (see the head of this module).
    progress : bool
        Show a bar; never while the book is built.
    remote : bool or "local"
        ``True`` runs on NDIF; ``"local"`` sends the same request through the same packing, and runs it here.

    Returns
    -------
    dict of Site to Float[Tensor, "token d_model"]
        float32, on the CPU. Massive activations are kept: mark them with `massive`.

    Raises
    ------
    ValueError
        If there are no tokens or no sites, a layer does not exist, or an activation is not finite.
    ConnectionError
        If ``remote=True`` and NDIF cannot be reached.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> from helpers.trace import Site, collect
    >>> lm = random_model(d_model=16)
    >>> blocks = tokenize_blocks(lm, "eight by", length=4)
    >>> collect(lm, blocks, sites=[Site(1)], progress=False)[Site(1)].shape
    torch.Size([6, 16])

    Taught in: sae-derivation
    """
    order = _in_order(lm, sites)
    _check_tokens(lm, tokens_BT, batch_size)
    if not order:
        raise ValueError("collect got no sites; give at least one, such as [Site(15)]")
    _check_skip(skip_first, tokens_BT.shape[1] - 1)
    rows = tokens_BT.shape[1] - skip_first
    out = {site: torch.empty(len(tokens_BT) * rows, lm.d_model) for site in order}
    wrapped = _wrap(lm, remote)
    with _bar(tokens_BT, progress) as bar:
        for start in range(0, len(tokens_BT), batch_size):
            batch_BT = tokens_BT[start : start + batch_size]
            for site, acts_BTD in zip(order, _read(lm, wrapped, batch_BT, order, remote), strict=True):
                acts_ND = acts_BTD[:, skip_first:].reshape(-1, lm.d_model)
                out[site][start * rows : start * rows + len(acts_ND)] = _finite(site, acts_ND)
            bar.update(batch_BT.numel())
    return out


def logits(
    lm: LanguageModel,
    tokens_BT: Int[Tensor, "batch position"],
    *,
    edits: Sequence[Edit] = (),
    batch_size: int = 8,
    remote: Remote = False,
) -> Float[Tensor, "batch position vocab"]:
    """Run the model, with edits in place, and return its logits.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    tokens_BT : Int[Tensor, "batch position"]
        Token ids, without padding.
    edits : sequence of Edit
        What to change on the way; several on one site are applied in the order given.
    batch_size : int
        Sequences in one forward pass.
    remote : bool or "local"
        As for `collect`.

    Returns
    -------
    Float[Tensor, "batch position vocab"]
        float32, on the CPU. All of them are held: 4 bytes x batch x position x vocabulary.

    Raises
    ------
    ValueError
        If there are no tokens, a layer does not exist, or an edit changes the shape.
    ConnectionError
        If ``remote=True`` and NDIF cannot be reached.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> from helpers.trace import Site, ablate, logits
    >>> lm = random_model()
    >>> blocks = tokenize_blocks(lm, "eight by", length=4)
    >>> logits(lm, blocks, edits=[ablate(Site(1, "mlp"))]).shape
    torch.Size([2, 4, 257])

    Taught in: sae-derivation
    """
    _check_tokens(lm, tokens_BT, batch_size)
    batches = _run(lm, tokens_BT, edits, batch_size, remote)
    return torch.cat([logits_BTV.float().cpu() for _, logits_BTV in batches])


def loss(
    lm: LanguageModel,
    tokens_BT: Int[Tensor, "batch position"],
    *,
    edits: Sequence[Edit] = (),
    batch_size: int = 8,
    remote: Remote = False,
) -> float:
    """Return the mean next-token cross-entropy, with edits in place.

    Batches stream through: the logits of one batch are held at a time.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    tokens_BT : Int[Tensor, "batch position"]
        Token ids, without padding; at least two positions.
    edits : sequence of Edit
        What to change on the way.
    batch_size : int
        Sequences in one forward pass.
    remote : bool or "local"
        As for `collect`.

    Returns
    -------
    float
        In nats a token, averaged over all positions that have a next token.

    Raises
    ------
    ValueError
        If there are no tokens or only one position, a layer does not exist, or an edit changes the shape.
    ConnectionError
        If ``remote=True`` and NDIF cannot be reached.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> import torch
    >>> from helpers.trace import loss
    >>> lm = random_model()
    >>> nats = loss(lm, tokenize_blocks(lm, "eight by", length=4))
    >>> abs(nats - torch.tensor(257.0).log().item()) < 0.1  # an untrained model guesses among 257 bytes
    True

    Taught in: sae-derivation
    """
    _check_tokens(lm, tokens_BT, batch_size)
    if tokens_BT.shape[1] < 2:
        raise ValueError("loss got sequences of one token; the next-token loss needs two or more")
    total = 0.0
    for batch_BT, logits_BTV in _run(lm, tokens_BT, edits, batch_size, remote):
        flat_NV = logits_BTV[:, :-1].flatten(0, 1).float()
        targets_N = batch_BT[:, 1:].flatten().to(flat_NV.device)
        total += float(F.cross_entropy(flat_NV, targets_N, reduction="sum"))
    return total / tokens_BT[:, 1:].numel()


def pad_texts(
    lm: LanguageModel, texts: Sequence[str]
) -> tuple[Int[Tensor, "text position"], Int[Tensor, "text"]]:
    """Tokenise texts of any length into one block, filled up on the right.

    The filling is token 0. A causal model never looks to the right, so what stands before it is exact.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    texts : sequence of str
        At least one, none empty.

    Returns
    -------
    tokens : Int[Tensor, "text position"]
        Token ids.
    lengths : Int[Tensor, "text"]
        How many of each row are text.

    Raises
    ------
    ValueError
        If there is no text, or one has no token.

    Examples
    --------
    >>> from helpers import models, trace
    >>> tokens, lengths = trace.pad_texts(models.random_model(), ["a b", "a b c d"])
    >>> tokens.shape[1] == lengths.max()
    tensor(True)

    Taught in: sae-derivation
    """
    ids = [lm.tokenizer(text)["input_ids"] for text in texts]
    if not ids or not all(ids):
        raise ValueError(
            f"{len(ids)} texts, of which {ids.count([])} have no token; give texts with words in them"
        )
    lengths = torch.tensor([len(row) for row in ids])
    tokens = torch.zeros(len(ids), int(lengths.max()), dtype=torch.long)
    for row, length, text in zip(tokens, lengths.tolist(), ids, strict=True):
        row[:length] = torch.tensor(text)
    return tokens, lengths


def collect_texts(
    lm: LanguageModel, texts: Sequence[str], *, site: Site, batch_size: int = 32
) -> list[Float[Tensor, "token d_model"]]:
    """Collect the activations of short texts, each on its own, without position 0.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    texts : sequence of str
        Each with at least two tokens.
    site : Site
        Where to read.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    list of Float[Tensor, "token d_model"]
        One tensor a text.

    Raises
    ------
    ValueError
        If there is no text, or one has no token.

    Examples
    --------
    >>> from helpers import models, trace
    >>> acts = trace.collect_texts(models.random_model(), ["a b", "a b c"], site=trace.Site(0))
    >>> len(acts), acts[0].shape[1]
    (2, 16)

    Taught in: sae-derivation
    """
    tokens_BT, lengths_B = pad_texts(lm, texts)
    flat_ND = collect(lm, tokens_BT, sites=[site], batch_size=batch_size, progress=False)[site]
    rows_BTD = flat_ND.view(len(tokens_BT), -1, lm.d_model)
    return [row[: length - 1] for row, length in zip(rows_BTD, lengths_B.tolist(), strict=True)]


def next_token(
    lm: LanguageModel,
    texts: Sequence[str],
    *,
    edits: Sequence[Edit] = (),
    batch_size: int = 32,
) -> Float[Tensor, "text vocab"]:
    """Return the log-probabilities of the token after each text, with edits in place.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    texts : sequence of str
        Prompts of any lengths.
    edits : sequence of Edit
        What to change on the way.
    batch_size : int
        Texts in one forward pass.

    Returns
    -------
    Float[Tensor, "text vocab"]
        Natural logarithms; each row's exponentials sum to one.

    Raises
    ------
    ValueError
        If there is no text, or one has no token.

    Examples
    --------
    >>> from helpers import models, trace
    >>> trace.next_token(models.random_model(), ["a b", "a"]).exp().sum(1)
    tensor([1.0000, 1.0000])

    Taught in: sae-derivation
    """
    tokens_BT, lengths_B = pad_texts(lm, texts)
    _check_tokens(lm, tokens_BT, batch_size)
    ends = [ends_B.unique(return_inverse=True) for ends_B in (lengths_B - 1).split(batch_size)]
    batches = _run(lm, tokens_BT, edits, batch_size, False, keep=[positions for positions, _ in ends])
    last = [
        logits_BTV[torch.arange(len(which_B)), which_B].cpu()
        for (_, logits_BTV), (_, which_B) in zip(batches, ends, strict=True)
    ]
    return torch.cat(last).float().log_softmax(dim=-1)


def _read(
    lm: LanguageModel, wrapped: Any, batch_BT: Tensor, sites: list[Site], remote: Remote
) -> list[Tensor]:
    """Run one batch up to the deepest site and return what passed each."""
    import nnsight

    # A remote run sends what the traced block names, so it names as little as it can.
    places = [_module(wrapped, lm, site) for site in sites]
    batch_BT = batch_BT.to(lm.device)
    read: list[Any] = []
    with (
        torch.no_grad(),
        _clear_remote(remote),
        wrapped.trace(batch_BT, remote=remote, use_cache=False) as tracer,
    ):
        read = nnsight.save([place.output for place in places])
        tracer.stop()
    return [_first(out) for out in read]


def _run(
    lm: LanguageModel,
    tokens_BT: Tensor,
    edits: Sequence[Edit],
    batch_size: int,
    remote: Remote,
    keep: Sequence[Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield every batch with its logits under the edits: at all positions, or at the ones to keep.

    Small models have large vocabularies: logits that nobody reads would be a good part of the work.
    """
    order = _in_order(lm, [edit.site for edit in edits])
    planned = [edit for site in order for edit in edits if edit.site == site]
    for edit in planned:
        _check_source(edit, lm, tokens_BT)
    wrapped = _wrap(lm, remote)
    for number, start in enumerate(range(0, len(tokens_BT), batch_size)):
        batch_BT = tokens_BT[start : start + batch_size].to(lm.device)
        rows = slice(start, start + batch_size)
        options: dict[str, Any] = {"use_cache": False}
        if keep is not None:
            options["logits_to_keep"] = keep[number].to(lm.device)
        steps = [(_module(wrapped, lm, edit.site), _function(edit, rows)) for edit in planned]
        with torch.no_grad(), _clear_remote(remote), wrapped.trace(batch_BT, remote=remote, **options):
            for place, change in steps:
                place.output = change(place.output)
            logits_BTV = wrapped.output.logits.save()
        yield batch_BT, logits_BTV


def _function(edit: Edit, rows: slice) -> Callable[[Any], Any]:
    """Make of an edit a function on what the module returns: a tensor, or a tuple that begins with one."""
    fn, where = edit.fn, str(edit.site)
    extra = () if edit.source is None else (edit.source[rows],)

    def change(out: Any) -> Any:
        old = out[0] if isinstance(out, tuple) else out
        new = fn(old.float(), *extra)
        if new.shape != old.shape:
            raise ValueError(f"the edit at {where} turned shape {tuple(old.shape)} into {tuple(new.shape)}")
        new = new.to(old)
        return (new, *out[1:]) if isinstance(out, tuple) else new

    return change


def _first(out: Any) -> Tensor:
    """Return a module's activations; attention gives them first, and its weights second."""
    return out[0] if isinstance(out, tuple) else out


def _module(root: Any, lm: LanguageModel, site: Site) -> Any:
    """Find the module whose output a site names."""
    family = FAMILIES[lm.family]
    layer = attrgetter(family.layers)(root)[site.layer]
    return layer if site.part == "resid" else getattr(layer, getattr(family, site.part))


def _wrap(lm: LanguageModel, remote: Remote) -> Any:
    """Wrap the model for nnsight; its weights are shared, its tokenizer is a copy: nnsight changes it."""
    from nnsight import TransformersModel

    if remote is True and lm.source != "hub":
        raise ValueError(
            f"remote=True asks NDIF to run {lm.name!r}, which is no hub id. Load the model by its hub id, "
            'or use remote="local" for a dry run here'
        )
    if remote is True:
        with _clear_remote(remote):
            return TransformersModel(lm.name)
    return TransformersModel(lm.model, tokenizer=copy.copy(lm.tokenizer))


@contextmanager
def _clear_remote(remote: Remote) -> Iterator[None]:
    """Say what to do when NDIF cannot be reached."""
    try:
        yield
    except Exception as error:
        if remote is not True or isinstance(error, ValueError):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConnectionError(
            f"NDIF did not run the request ({reason}). Check the network, the key "
            "(nnsight.CONFIG.set_default_api_key) and that NDIF serves the model; or use remote=False"
        ) from error


def _in_order(lm: LanguageModel, sites: Iterable[Site]) -> list[Site]:
    """Return the distinct sites in the order in which a forward pass meets them."""
    order = sorted(set(sites), key=lambda site: (site.layer, _ORDER[site.part]))
    for site in order:
        if site.layer >= lm.n_layers:
            raise ValueError(f"{site} does not exist: {lm.name} has layers 0 to {lm.n_layers - 1}")
    return order


def _check_tokens(lm: LanguageModel, tokens_BT: Tensor, batch_size: int) -> None:
    """Refuse tokens or a batch size that cannot be run."""
    if tokens_BT.numel() == 0:
        raise ValueError(f"the tokens have shape {tuple(tokens_BT.shape)}, so none; give at least one block")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected 1 or more")
    vocab = int(lm.model.config.vocab_size)
    low, high = int(tokens_BT.min()), int(tokens_BT.max())
    if low < 0 or high >= vocab:
        raise ValueError(f"token ids run from {low} to {high}; {lm.name} knows 0 to {vocab - 1}")


def _check_skip(skip_first: int, longest: int | None = None) -> None:
    """Refuse to skip a negative number of positions, or all of them."""
    if skip_first < 0 or (longest is not None and skip_first > longest):
        raise ValueError(f"skip_first is {skip_first}; expected 0 to one less than the sequence length")


def _check_source(edit: Edit, lm: LanguageModel, tokens_BT: Tensor) -> None:
    """Refuse values that do not fit the tokens: one vector a token, or one a sequence."""
    if edit.source is None:
        return
    batch, positions = tokens_BT.shape
    found, expected = tuple(edit.source.shape), (batch, positions, lm.d_model)
    if found not in (expected, (batch, 1, lm.d_model)):
        raise ValueError(
            f"the edit at {edit.site} has values of shape {found}; expected {expected}, as the tokens"
        )


def _finite(site: Site, acts_ND: Tensor) -> Tensor:
    """Pass finite activations on; refuse others."""
    if not torch.isfinite(acts_ND).all():
        raise ValueError(
            f"activations at {site} are not finite. Check the weights, or load the model with "
            "dtype=torch.float32: half precision overflows at massive activations"
        )
    return acts_ND


def _bar(tokens_BT: Tensor, progress: bool) -> Any:
    """Make a progress bar in tokens; none while the book is built."""
    hidden = not progress or os.environ.get("TML_PRESS") == "1"
    return tqdm(total=tokens_BT.numel(), unit="token", unit_scale=True, desc="collect", disable=hidden)
