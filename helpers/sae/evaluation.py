"""What a trained sparse autoencoder is worth: error, loss recovered, signs, contexts, further steps.

Shapes: N tokens, D d_model, P latents, S supports.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from helpers.sae.autoencoder import SparseAutoencoder

if TYPE_CHECKING:
    from helpers.models import LanguageModel
    from helpers.trace import Site

Acts = Float[Tensor, "token d_model"]


@dataclass(frozen=True)
class Reconstruction:
    """How well activations are rebuilt, and at what price.

    Attributes
    ----------
    nmse : float
        Sum ||x - x_hat||^2 / sum ||x||^2, 0 is perfect.
    unexplained : float
        The same over sum ||x - mean||^2: the fraction of variance unexplained.
    l0 : float
        Mean number of non-zero latents a token, counted, not assumed.
    alive : float
        Share of latents that fire at least once on these tokens, [0, 1].
    """

    nmse: float
    unexplained: float
    l0: float
    alive: float


@torch.no_grad()
def reconstruction(
    sae: Callable[[Tensor], Tensor] | SparseAutoencoder, acts_ND: Acts, *, batch_size: int = 1024
) -> Reconstruction:
    """Measure reconstruction error and true sparsity on held-out activations.

    Parameters
    ----------
    sae : Callable[[Tensor], Tensor] | SparseAutoencoder
        The autoencoder. A plain function acts -> acts works too (PCA, say); its l0 and alive are
        NaN.
    acts_ND : Acts
        Activations that it was not trained on.
    batch_size : int
        Tokens at once.

    Returns
    -------
    Reconstruction
        The four numbers of `Reconstruction`.

    Notes
    -----
    nmse as in arXiv 2510.00404, Section 5.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 4, operator="abstopk", k=4)
    >>> measured = reconstruction(sae, torch.randn(64, 4))
    >>> measured.l0, measured.alive
    (4.0, 1.0)

    Taught in: sae-derivation
    """
    error, active, fired_P = 0.0, 0.0, None
    for x_BD in acts_ND.split(batch_size):
        if isinstance(sae, SparseAutoencoder):
            z_BP = sae.encode(x_BD)
            x_hat_BD, on_BP = sae.decode(z_BP), z_BP != 0
            active += float(on_BP.sum())
            fired_P = on_BP.any(0) if fired_P is None else fired_P | on_BP.any(0)
        else:
            x_hat_BD = sae(x_BD)
        error += float((x_BD - x_hat_BD).square().sum())
    return Reconstruction(
        nmse=error / float(acts_ND.square().sum()),
        unexplained=error / float((acts_ND - acts_ND.mean(0)).square().sum()),
        l0=float("nan") if fired_P is None else active / len(acts_ND),
        alive=float("nan") if fired_P is None else float(fired_P.float().mean()),
    )


@dataclass(frozen=True)
class AblationLosses:
    """The frame that loss recovered is read in: next-token losses in nats.

    Attributes
    ----------
    original : float
        Nothing changed.
    zero, mean : float
        The site's output replaced by zeros, by its mean.
    mean_D : Float[Tensor, "d_model"]
        That mean.
    limit : float
        Tokens with a norm above it stay as they are in every condition.
    """

    original: float
    zero: float
    mean: float
    mean_D: Float[Tensor, "d_model"]
    limit: float

    def recovered(self, spliced: float, *, against: str = "zero") -> float:
        """Give (H_ablated - H_spliced) / (H_ablated - H_original): 1 is lossless, 0 is as bad as ablation."""
        ablated = getattr(self, against)
        return (ablated - spliced) / (ablated - self.original)


def ablation_losses(
    lm: LanguageModel, tokens_BT: Int[Tensor, "batch position"], *, site: Site, acts_ND: Acts
) -> AblationLosses:
    """Measure the model's loss as it is, with a site at zero, and with it at its mean.

    Parameters
    ----------
    lm : LanguageModel
        The language model.
    tokens_BT : Int[Tensor, "batch position"]
        Held-out text.
    site : Site
        Where an SAE will be spliced in.
    acts_ND : Acts
        The activations that the SAE was trained on; they give the mean, and the largest norm
        that the SAE has seen. Position 0 and tokens above that norm (massive activations) are
        never replaced.

    Returns
    -------
    AblationLosses
        The losses, to be shared by all SAEs of the site.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> from helpers.trace import Site, collect
    >>> lm = random_model(d_model=8)
    >>> blocks_BT = tokenize_blocks(lm, "eight by four", length=4)
    >>> acts_ND = collect(lm, blocks_BT, sites=[Site(1)], progress=False)[Site(1)]
    >>> losses = ablation_losses(lm, blocks_BT, site=Site(1), acts_ND=acts_ND)
    >>> losses.recovered(losses.original)
    1.0

    Taught in: sae-derivation
    """
    from helpers import trace

    mean_D, limit = acts_ND.mean(0), float(acts_ND.norm(dim=1).max())
    zero, mean = (
        trace.loss(lm, tokens_BT, edits=[replace(site, constant_D.expand_as, limit=limit)])
        for constant_D in (torch.zeros_like(mean_D), mean_D)
    )
    return AblationLosses(trace.loss(lm, tokens_BT), zero, mean, mean_D, limit)


def loss_recovered(
    sae: Callable[[Tensor], Tensor],
    lm: LanguageModel,
    tokens_BT: Int[Tensor, "batch position"],
    *,
    site: Site,
    losses: AblationLosses,
    against: str = "zero",
) -> float:
    """Splice the reconstruction into the model and say how much of its loss comes back.

    Parameters
    ----------
    sae : Callable[[Tensor], Tensor]
        The autoencoder, or any function acts -> acts.
    lm, tokens_BT, site : LanguageModel
        As in `ablation_losses`.
    losses : AblationLosses
        What `ablation_losses` measured on the same text.
    against : str
        "zero" or "mean", the ablation that counts as 0.

    Returns
    -------
    float
        The share recovered: 1 is lossless, 0 is as bad as the ablation, below 0 is worse.

    Notes
    -----
    arXiv 2510.00404, Section 5, has zero-ablation. Mean-ablation is the stricter frame: a mean is free.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> from helpers.trace import Site, collect
    >>> lm = random_model(d_model=8)
    >>> blocks_BT = tokenize_blocks(lm, "eight by four", length=4)
    >>> acts_ND = collect(lm, blocks_BT, sites=[Site(1)], progress=False)[Site(1)]
    >>> losses = ablation_losses(lm, blocks_BT, site=Site(1), acts_ND=acts_ND)
    >>> loss_recovered(lambda acts: acts, lm, blocks_BT, site=Site(1), losses=losses)
    1.0

    Taught in: sae-derivation
    """
    from helpers import trace

    spliced = trace.loss(lm, tokens_BT, edits=[replace(site, sae, limit=losses.limit)])
    return losses.recovered(spliced, against=against)


def replace(site: Site, function: Callable[[Tensor], Tensor], *, limit: float) -> Any:
    """Make the edit that replaces ordinary activations at a site and leaves massive ones alone.

    Examples
    --------
    >>> from helpers.trace import Site
    >>> edit = replace(Site(0), torch.zeros_like, limit=10.0)
    >>> edit.fn(torch.tensor([[[9.0], [1.0], [99.0]]])).flatten()  # position 0 and the massive one stay
    tensor([ 9.,  0., 99.])
    """
    from helpers import trace

    def swap(acts_BTD: Tensor) -> Tensor:
        ordinary_BT1 = acts_BTD.norm(dim=-1, keepdim=True) <= limit
        return torch.where(ordinary_BT1, function(acts_BTD), acts_BTD)

    return trace.splice(site, swap)


@dataclass(frozen=True)
class DictionaryMatch:
    """How a learned dictionary covers a known one.

    Attributes
    ----------
    recovered : float
        Share of true axes with a latent at an absolute cosine above the threshold, [0, 1].
    both_ends : float
        Share of true axes with one latent near +axis and another near -axis, [0, 1].
    atoms_per_axis : float
        Mean number of learned latents near a recovered axis, either sign; NaN if none is.
    best_cosine : float
        Mean over axes of the largest absolute cosine.
    """

    recovered: float
    both_ends: float
    atoms_per_axis: float
    best_cosine: float


def dictionary_match(
    learned_PD: Float[Tensor, "latent d_model"],
    true_AD: Float[Tensor, "axis d_model"],
    *,
    threshold: float = 0.9,
) -> DictionaryMatch:
    """Compare a learned dictionary with the true axes of synthetic data.

    Parameters
    ----------
    learned_PD : Float[Tensor, "latent d_model"]
        Decoder rows, any norm.
    true_AD : Float[Tensor, "axis d_model"]
        True axes, any norm.
    threshold : float
        Absolute cosine from which a latent counts as near an axis, (0, 1).

    Returns
    -------
    DictionaryMatch
        Shares and counts, see `DictionaryMatch`.

    Examples
    --------
    >>> axes = torch.eye(2)
    >>> two_sided = dictionary_match(torch.cat([axes, -axes]), axes)
    >>> two_sided.recovered, two_sided.both_ends, two_sided.atoms_per_axis
    (1.0, 1.0, 2.0)

    Taught in: sae-derivation
    """
    cosine_PA = normalize(learned_PD.detach(), dim=1) @ normalize(true_AD, dim=1).T
    near_A = (cosine_PA.abs() > threshold).sum(0).float()
    ends_A = (cosine_PA > threshold).any(0) & (cosine_PA < -threshold).any(0)
    return DictionaryMatch(
        recovered=float((near_A > 0).float().mean()),
        both_ends=float(ends_A.float().mean()),
        atoms_per_axis=float(near_A[near_A > 0].mean()),
        best_cosine=float(cosine_PA.abs().max(0).values.mean()),
    )


@dataclass(frozen=True)
class SignAudit:
    """How often each latent fires on either side.

    Attributes
    ----------
    positive_P, negative_P : Int[Tensor, "latents"]
        Counts of firings.
    enough_P : Bool[Tensor, "latents"]
        Latents with enough firings to be judged.
    two_sided_P : Bool[Tensor, "latents"]
        Judged latents that fire on both sides often enough.
    """

    positive_P: Int[Tensor, "latents"]
    negative_P: Int[Tensor, "latents"]
    enough_P: Bool[Tensor, "latents"]
    two_sided_P: Bool[Tensor, "latents"]

    @property
    def share(self) -> float:
        """Share of the judged latents that are two-sided; NaN if none can be judged."""
        return (
            float(self.two_sided_P.sum()) / max(1, int(self.enough_P.sum()))
            if self.enough_P.any()
            else float("nan")
        )


@torch.no_grad()
def sign_audit(
    sae: SparseAutoencoder,
    acts_ND: Acts,
    *,
    each_side: float = 0.2,
    at_least: int = 20,
    batch_size: int = 1024,
) -> SignAudit:
    """Count the positive and negative firings of each latent.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder.
    acts_ND : Acts
        Held-out activations.
    each_side : float
        Share of a latent's firings that the rarer sign must reach to call it two-sided, [0,
        0.5].
    at_least : int
        Firings below which a latent is not judged.
    batch_size : int
        Tokens at once.

    Returns
    -------
    SignAudit
        Counts and judgements, see `SignAudit`.

    Notes
    -----
    A count of signs, not of meanings: arXiv 2510.00404, Table 2, has a judge read the contexts.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 8, operator="topk", k=2)
    >>> sign_audit(sae, torch.randn(200, 4)).share
    0.0

    Taught in: sae-derivation
    """
    positive_P = torch.zeros(sae.n_latents, dtype=torch.long)
    negative_P = torch.zeros_like(positive_P)
    for x_BD in acts_ND.split(batch_size):
        z_BP = sae.encode(x_BD)
        positive_P += (z_BP > 0).sum(0)
        negative_P += (z_BP < 0).sum(0)
    total_P = positive_P + negative_P
    enough_P = total_P >= at_least
    rarer_P = torch.minimum(positive_P, negative_P) / total_P.clamp(min=1)
    return SignAudit(positive_P, negative_P, enough_P, enough_P & (rarer_P >= each_side))


def unroll(
    sae: SparseAutoencoder, acts_BD: Float[Tensor, "batch d_model"], *, steps: int
) -> Float[Tensor, "batch latents"]:
    """Encode with more than one proximal step, on the same dictionary.

    Parameters
    ----------
    sae : SparseAutoencoder
        Its encoder takes the first step; the others follow the decoder alone.
    acts_BD : Float[Tensor, "batch d_model"]
        Activations.
    steps : int
        Proximal steps in all, >= 1; 1 is `sae.encode`.

    Returns
    -------
    Float[Tensor, "batch latents"]
        Codes, in units of the scale.

    Raises
    ------
    ValueError
        Steps below 1, or an operator that prices latents (its level was tuned for one step).

    Notes
    -----
    z <- prox(z - mu D (z D + b - x)), arXiv 2510.00404, Section 3, before it is cut to one step. Each token's
    mu is the exact line search on its present support (normalised iterative hard thresholding, Blumensath &
    Davies 2010, eq. 12), and a step that would raise a token's error is not taken.

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 32, operator="abstopk", k=4)
    >>> x_BD = torch.randn(64, 8)
    >>> errors = [(x_BD - sae.decode(unroll(sae, x_BD, steps=n))).square().sum().item() for n in (1, 4)]
    >>> errors[1] < errors[0]
    True

    Taught in: sae-derivation
    """
    if steps < 1 or not sae.operator.counts:
        raise ValueError(f"give steps >= 1 (not {steps}) and a TopK or AbsTopK SAE (not {sae.operator.name})")
    z_BP = sae.encode(acts_BD)
    for _ in range(steps - 1):
        residual_BD = (acts_BD - sae.decode(z_BP)) / sae.scale
        down_BP = residual_BD @ sae.decoder_PD.T
        on_support_BP = torch.where(z_BP != 0, down_BP, 0.0)
        length_B1 = on_support_BP.square().sum(1, keepdim=True)
        mu_B1 = length_B1 / (on_support_BP @ sae.decoder_PD).square().sum(1, keepdim=True).clamp(min=1e-12)
        next_BP = sae.operator.prox(z_BP + mu_B1 * down_BP, sae.level.item())
        better_B1 = _error(sae, acts_BD, next_BP) < _error(sae, acts_BD, z_BP)
        z_BP = torch.where(better_B1, next_BP, z_BP)
    return z_BP


def _error(sae: SparseAutoencoder, acts_BD: Tensor, z_BP: Tensor) -> Tensor:
    """Squared error of each token, as a column."""
    return (acts_BD - sae.decode(z_BP)).square().sum(1, keepdim=True)


def context(
    tokens_BT: Int[Tensor, "batch position"],
    decode: Callable[[list[int]], str],
    *,
    row: int,
    position: int,
    width: int = 8,
) -> tuple[str, str, str]:
    """Cut a token out of its text: what stands before it, the token, what stands after.

    Examples
    --------
    >>> context(torch.tensor([[1, 2, 3]]), str, row=0, position=1, width=1)
    ('[1]', '[2]', '[3]')
    """
    ids = tokens_BT[row].tolist()
    before, after = ids[max(0, position - width) : position], ids[position + 1 : position + 1 + width]
    return decode(before), decode([ids[position]]), decode(after)


def top_contexts(
    values_N: Float[Tensor, "token"], places: Sequence[tuple[int, int]], *, n: int = 5
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Find where one latent is largest, and where it is most negative.

    Parameters
    ----------
    values_N : Float[Tensor, "token"]
        The latent's value at each token.
    places : Sequence[tuple[int, int]]
        (row, position) of each token.
    n : int
        Contexts a side.

    Returns
    -------
    tuple[list[tuple[int, int]], list[tuple[int, int]]]
        The places of the n largest positive values, and of the n most negative; fewer if it
        fires less often.

    Examples
    --------
    >>> top_contexts(torch.tensor([0.0, 2.0, -1.0]), [(0, 1), (0, 2), (0, 3)])
    ([(0, 2)], [(0, 3)])
    """
    order = values_N.argsort(descending=True).tolist()
    up = [places[i] for i in order[:n] if values_N[i] > 0]
    down = [places[i] for i in order[::-1][:n] if values_N[i] < 0]
    return up, down
