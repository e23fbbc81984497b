"""Prune a sparse autoencoder, set its true L0, and ask whether its latents are still the same.

Shapes: N tokens, D d_model, P latents, K top tokens of a latent.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity, linear, normalize

from helpers.sae.autoencoder import SparseAutoencoder

RULES = ("wanda", "magnitude", "random")
Acts = Float[Tensor, "token d_model"]


@torch.no_grad()
def output_norms(
    sae: SparseAutoencoder, acts_ND: Acts, *, batch_size: int = 1024
) -> tuple[Float[Tensor, "latent"], Float[Tensor, "d_model"]]:
    """Measure how large each pre-activation and each coordinate of the reconstruction is.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder.
    acts_ND : Acts
        Calibration activations, of the compressed model.
    batch_size : int
        Tokens in one calibration batch.

    Returns
    -------
    Float[Tensor, "latent"], Float[Tensor, "d_model"]
        Means over the batches of the norms within a batch, in units of the SAE's scale.

    Notes
    -----
    As in the public code of arXiv 2507.15977. Wanda itself takes the norms of the *inputs*.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 8, operator="topk", k=2)
    >>> encoder_P, decoder_D = output_norms(sae, torch.randn(100, 4))
    >>> encoder_P.shape, decoder_D.shape
    (torch.Size([8]), torch.Size([4]))

    Taught in: compressed-models
    """
    batches = acts_ND.split(batch_size)
    encoder_P, decoder_D = torch.zeros(sae.n_latents), torch.zeros(sae.d_model)
    for x_BD in batches:
        encoder_P += linear(x_BD / sae.scale, sae.encoder_PD, sae.encoder_bias_P).norm(dim=0)
        decoder_D += (sae(x_BD) / sae.scale).norm(dim=0)
    return encoder_P / len(batches), decoder_D / len(batches)


@torch.no_grad()
def prune(
    sae: SparseAutoencoder,
    acts_ND: Acts,
    *,
    sparsity: float,
    rule: str = "wanda",
    recentre: bool = False,
    batch_size: int = 1024,
    seed: int = 0,
) -> SparseAutoencoder:
    """Zero a share of an SAE's encoder and decoder weights, without training.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder; it is not changed.
    acts_ND : Acts
        Calibration activations, of the compressed model. The rules "magnitude" and "random" ignore them.
    sparsity : float
        Share of the weights to zero, [0, 1).
    rule : str
        "wanda": the size of a weight times its output's norm (`output_norms`); "magnitude": the size alone;
        "random": a number drawn.
    recentre : bool
        Move the encoder's bias, so that the mean activation keeps the pre-activations that it had. Without
        it the biases stay, as in the authors' code.
    batch_size : int
        Tokens in one calibration batch.
    seed : int
        Of the rule "random".

    Returns
    -------
    SparseAutoencoder
        A pruned copy. Scores are compared over all latents for each input coordinate of the encoder, and
        over all coordinates for each latent of the decoder.

    Raises
    ------
    ValueError
        A sparsity outside [0, 1), or an unknown rule.

    Notes
    -----
    The rule in the public code of arXiv 2507.15977: biases and levels stay, atoms are not normalised again.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 8, operator="topk", k=2)
    >>> small = prune(sae, torch.randn(100, 4), sparsity=0.5)
    >>> (small.encoder_PD == 0).float().mean().item(), (small.decoder_PD == 0).float().mean().item()
    (0.5, 0.5)

    Taught in: compressed-models
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is {sparsity}; expected at least 0 and below 1, the share to zero")
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; give one of {', '.join(RULES)}")
    small, scores = copy.deepcopy(sae), _scores(sae, acts_ND, rule, batch_size, seed)
    _zero_lowest(small.encoder_PD.T, scores[0].T, sparsity)  # within each input coordinate, over the latents
    _zero_lowest(small.decoder_PD, scores[1], sparsity)  # within each latent, over the coordinates
    if recentre:
        mean_D = acts_ND.mean(0) / sae.scale
        small.encoder_bias_P.add_((sae.encoder_PD - small.encoder_PD) @ mean_D)
    return small


@torch.no_grad()
def move_mean(
    sae: SparseAutoencoder, *, old_D: Float[Tensor, "d_model"], new_D: Float[Tensor, "d_model"]
) -> SparseAutoencoder:
    """Carry an SAE from activations with one mean to activations with another: biases only.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder; it is not changed.
    old_D, new_D : Float[Tensor, "d_model"]
        The mean of the activations that it was trained on, and of those that it shall read.

    Returns
    -------
    SparseAutoencoder
        A copy that does to x what the SAE does to x - new + old, and adds the difference back.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 8, operator="topk", k=2)
    >>> moved = move_mean(sae, old_D=torch.zeros(4), new_D=torch.ones(4))
    >>> x_BD = torch.randn(5, 4)
    >>> torch.allclose(moved(x_BD + 1), sae(x_BD) + 1, atol=1e-5)
    True

    Taught in: compressed-models
    """
    moved, shift_D = copy.deepcopy(sae), (new_D - old_D) / sae.scale
    moved.encoder_bias_P.sub_(moved.encoder_PD @ shift_D)
    moved.decoder_bias_D.add_(shift_D)
    return moved


def _scores(
    sae: SparseAutoencoder, acts_ND: Tensor, rule: str, batch_size: int, seed: int
) -> tuple[Tensor, Tensor]:
    """Give the scores of the encoder's and of the decoder's weights."""
    if rule == "random":
        dice = torch.Generator().manual_seed(seed)
        return torch.rand(sae.encoder_PD.shape, generator=dice), torch.rand(
            sae.decoder_PD.shape, generator=dice
        )
    encoder_PD, decoder_PD = sae.encoder_PD.abs(), sae.decoder_PD.abs()
    if rule == "magnitude":
        return encoder_PD, decoder_PD
    norm_P, norm_D = output_norms(sae, acts_ND, batch_size=batch_size)
    return encoder_PD * norm_P[:, None], decoder_PD * norm_D


def _zero_lowest(weights_RG: Tensor, scores_RG: Tensor, share: float) -> None:
    """Zero the share with the lowest scores in each row, in place."""
    lowest = scores_RG.topk(math.floor(share * scores_RG.shape[1]), dim=1, largest=False, sorted=False)
    weights_RG.scatter_(1, lowest.indices, 0.0)


@torch.no_grad()
def with_l0(
    sae: SparseAutoencoder, acts_ND: Acts, *, target: float, batch_size: int = 1024
) -> SparseAutoencoder:
    """Set an SAE's level so that its true L0 on some activations is the one asked for.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder; it is not changed.
    acts_ND : Acts
        Activations to count on.
    target : float
        Mean number of active latents a token, above 0.
    batch_size : int
        Tokens at once.

    Returns
    -------
    SparseAutoencoder
        A copy with another level: k for TopK and AbsTopK, lambda for ReLU and JumpReLU. A k is a whole
        number, so its L0 is the nearest that can be had.

    Raises
    ------
    ValueError
        A target that is not above 0, or that no level reaches (latents below zero never fire).

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 64, operator="jumprelu", k=4)
    >>> acts_ND = torch.randn(500, 8)
    >>> round(true_l0(with_l0(sae, acts_ND, target=10), acts_ND), 1)
    10.0

    Taught in: compressed-models
    """
    again = copy.deepcopy(sae)

    def at(level: float) -> float:
        again.level.fill_(level)
        return true_l0(again, acts_ND, batch_size=batch_size)

    low, high = (1.0, float(sae.n_latents)) if sae.operator.counts else (0.0, _highest(sae, acts_ND))
    most = at(high if sae.operator.counts else low)
    if not 0 < target <= most:
        raise ValueError(f"target is {target}; expected above 0 and at most {most:.1f}, all that can fire")
    for _ in range(40):
        middle = math.floor((low + high) / 2) if sae.operator.counts else (low + high) / 2
        too_many = at(middle) > target
        low, high = (low, middle) if too_many == sae.operator.counts else (middle, high)
        if high - low <= (1 if sae.operator.counts else 1e-4 * high):
            break
    again.level.fill_(min((low, high), key=lambda level: abs(at(level) - target)))
    return again


@torch.no_grad()
def true_l0(sae: SparseAutoencoder, acts_ND: Acts, *, batch_size: int = 1024) -> float:
    """Count the mean number of non-zero latents a token.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder.
    acts_ND : Acts
        Activations.
    batch_size : int
        Tokens at once.

    Returns
    -------
    float
        The true L0.

    Examples
    --------
    >>> true_l0(SparseAutoencoder(4, 8, operator="abstopk", k=3), torch.randn(10, 4))
    3.0

    Taught in: compressed-models
    """
    return sum(float((sae.encode(x_BD) != 0).sum()) for x_BD in acts_ND.split(batch_size)) / len(acts_ND)


@torch.no_grad()
def _highest(sae: SparseAutoencoder, acts_ND: Tensor) -> float:
    """Give a level of a priced operator at which nothing fires."""
    top = float(linear(acts_ND / sae.scale, sae.encoder_PD, sae.encoder_bias_P).max().clamp(min=1e-6))
    return 1.01 * (top if sae.operator_name == "relu" else top**2 / 2)


@torch.no_grad()
def mean_cosine(sae: Callable[[Tensor], Tensor], acts_ND: Acts, *, batch_size: int = 1024) -> float:
    """Measure the mean cosine between activations and their reconstructions.

    Parameters
    ----------
    sae : Callable[[Tensor], Tensor]
        The autoencoder, or any function acts -> acts.
    acts_ND : Acts
        Held-out activations.
    batch_size : int
        Tokens at once.

    Returns
    -------
    float
        1 where every reconstruction points the right way; lengths do not count.

    Examples
    --------
    >>> round(mean_cosine(lambda x_BD: 3 * x_BD, torch.randn(10, 4)), 4)
    1.0

    Taught in: compressed-models
    """
    batches = acts_ND.split(batch_size)
    return sum(float(cosine_similarity(x_BD, sae(x_BD), dim=1).sum()) for x_BD in batches) / len(acts_ND)


@torch.no_grad()
def top_tokens(sae: SparseAutoencoder, acts_ND: Acts, *, n: int = 10) -> Int[Tensor, "latent top"]:
    """Find the tokens at which each latent is largest.

    Parameters
    ----------
    sae : SparseAutoencoder
        The autoencoder.
    acts_ND : Acts
        Activations, one row a token; at least n rows.
    n : int
        How many tokens a latent.

    Returns
    -------
    Int[Tensor, "latent top"]
        Rows of acts_ND, largest first; -1 where the latent fires at fewer than n tokens.

    Raises
    ------
    ValueError
        Fewer tokens than n.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 8, operator="topk", k=2)
    >>> top_tokens(sae, torch.randn(100, 4), n=3).shape
    torch.Size([8, 3])

    Taught in: compressed-models
    """
    if len(acts_ND) < n:
        raise ValueError(f"{len(acts_ND)} tokens were given and n is {n}; give as many tokens or more")
    best_KP, where_KP = torch.zeros(0, sae.n_latents), torch.zeros(0, sae.n_latents, dtype=torch.long)
    for start in range(0, len(acts_ND), 1024):
        z_BP = sae.encode(acts_ND[start : start + 1024])
        row_BP = torch.arange(start, start + len(z_BP))[:, None].expand_as(z_BP)
        best_KP, order_KP = torch.cat([best_KP, z_BP]).topk(min(n, len(best_KP) + len(z_BP)), dim=0)
        where_KP = torch.cat([where_KP, row_BP]).gather(0, order_KP)
    return torch.where(best_KP > 0, where_KP, -1).T


@dataclass(frozen=True)
class Identity:
    """How many latents are still themselves.

    Attributes
    ----------
    survive : float
        Share of the judged latents whose top tokens survive, [0, 1].
    overlap : float
        Mean share of top tokens in common, over the judged latents.
    judged : int
        Latents that had a full list of top tokens before.
    """

    survive: float
    overlap: float
    judged: int


def identity(
    before_PK: Int[Tensor, "latent top"],
    after_PK: Int[Tensor, "latent top"],
    *,
    at_least: float = 0.5,
    partner_P: Int[Tensor, "latent"] | None = None,
) -> Identity:
    """Ask whether latents still have the same top tokens.

    Parameters
    ----------
    before_PK, after_PK : Int[Tensor, "latent top"]
        From `top_tokens`, on the same tokens. Before is the original SAE on the original model.
    at_least : float
        Share of the top tokens that must stay for a latent to survive.
    partner_P : Int[Tensor, "latent"], optional
        For each latent before, the one after that is compared with it; the same index if not given. See
        `partners`.

    Returns
    -------
    Identity
        Latents without a full list before are not judged: NaN if none can be.

    Examples
    --------
    >>> before = torch.tensor([[0, 1], [2, 3], [4, -1]])
    >>> after = torch.tensor([[1, 7], [8, 9], [4, 5]])
    >>> identity(before, after)
    Identity(survive=0.5, overlap=0.25, judged=2)

    Taught in: compressed-models
    """
    full_P = (before_PK >= 0).all(1)
    matched_PK = after_PK if partner_P is None else after_PK[partner_P]
    shared_P = (before_PK[:, :, None] == matched_PK[:, None, :]).any(2).float().mean(1)[full_P]
    return Identity(
        survive=float((shared_P >= at_least).float().mean()),
        overlap=float(shared_P.mean()),
        judged=int(full_P.sum()),
    )


@torch.no_grad()
def partners(sae: SparseAutoencoder, other: SparseAutoencoder) -> Int[Tensor, "latent"]:
    """Find, for each latent of one SAE, the latent of another whose atom is most alike.

    Parameters
    ----------
    sae, other : SparseAutoencoder
        Of the same width. Two latents may have the same partner.

    Returns
    -------
    Int[Tensor, "latent"]
        Index into the other's latents, by the highest cosine of the decoder's rows.

    Examples
    --------
    >>> sae = SparseAutoencoder(4, 3, operator="topk", k=2)
    >>> partners(sae, sae)
    tensor([0, 1, 2])

    Taught in: compressed-models
    """
    cosine_PP = normalize(sae.decoder_PD, dim=1) @ normalize(other.decoder_PD, dim=1).T
    return cosine_PP.argmax(dim=1)
