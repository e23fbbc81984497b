"""The denoiser of arXiv 2407.11065 and its rival, as modules, with their losses and one training loop.

`PatchTransformer` embeds two leads by parallel convolutions of several widths, runs a U-shaped transformer
over the samples, and goes back by transposed convolutions. `UNet` is a plain convolutional one of comparable
size. Both scale their input to a mean square of 1 and their output back, so that volts and millivolts give
the same answer.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from helpers import data
from helpers.ecg import noise
from helpers.weights import read_safetensors, write_safetensors

__all__ = [
    "PatchTransformer", "Recipe", "Scaled", "UNet", "apply", "batches", "consistency_loss", "embed", "fit",
    "load", "loss", "positions", "save", "unembed",
]  # fmt: skip

HEAD = 4  # width of an attention head, in every stage
DEPTH = 2  # blocks of a stage
SETTINGS = ("kernels", "per_scale", "length", "keep")


class Scaled(nn.Module):
    """Scale a batch to a mean square of 1 a segment, denoise, and scale back; a subclass denoises.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> net = model.UNet(width=4).eval()
    >>> x = torch.randn(1, 2, 64)
    >>> torch.allclose(net(1000 * x), 1000 * net(x), rtol=1e-3, atol=1e-2)
    True

    Taught in: ecg-denoising
    """

    def forward(self, x_BCT: Float[Tensor, "batch 2 sample"]) -> Float[Tensor, "batch 2 sample"]:
        """Denoise a batch of segments, in any unit."""
        size_B11 = x_BCT.square().mean((1, 2), keepdim=True).sqrt().clamp_min(1e-9)
        return self.inner(x_BCT / size_B11) * size_B11

    def inner(self, x_BCT: Float[Tensor, "batch 2 sample"]) -> Float[Tensor, "batch 2 sample"]:
        """Denoise segments whose mean square is 1."""
        raise NotImplementedError


class _Attention(nn.Module):
    """Multi-head self-attention over the tokens, with an optional bias by distance."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // HEAD
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, bias: Tensor | None) -> Tensor:
        """Mix the tokens: softmax(Q K' / sqrt(4) + bias) V."""
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.heads, HEAD).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.out(mixed.transpose(1, 2).reshape(B, T, D))


class _Block(nn.Module):
    """h = x + attention(norm(x sqrt(C) + positions)), y = h + mlp(norm(h))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = _Attention(width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x_BTD: Tensor, bias: Tensor | None) -> Tensor:
        """Apply the block; the positions enter the attention's branch only, as in the released code."""
        T, D = x_BTD.shape[1:]
        placed = x_BTD * math.sqrt(D) + positions(T, D).to(x_BTD)
        h_BTD = x_BTD + self.attention(self.norm1(placed), bias)
        return h_BTD + self.mlp(self.norm2(h_BTD))


class _Stage(nn.ModuleList):
    """Two blocks of one width."""

    def __init__(self, width: int) -> None:
        super().__init__(_Block(width) for _ in range(DEPTH))

    def forward(self, x_BTD: Tensor, bias: Tensor | None = None) -> Tensor:
        """Apply both."""
        for block in self:
            x_BTD = block(x_BTD, bias)
        return x_BTD


class _Merge(nn.Module):
    """Half the tokens, twice the width: put neighbours side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(2 * width), nn.Linear(2 * width, 2 * width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Merge even and odd tokens."""
        return self.linear(self.norm(torch.cat([x_BTD[:, 0::2], x_BTD[:, 1::2]], dim=-1)))


class _Separate(nn.Module):
    """Twice the tokens, half the width: put the halves of the width behind each other."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(width // 2), nn.Linear(width // 2, width // 2, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Separate: the second half of the width follows as later tokens, as in the released code."""
        return self.linear(self.norm(torch.cat(x_BTD.chunk(2, dim=-1), dim=1)))


class _Distance(nn.Module):
    """A learned attention bias for every distance between two tokens, for every head."""

    index: Tensor

    def __init__(self, length: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(2 * length - 1, heads))
        place_T = torch.arange(length)
        self.register_buffer("index", place_T[:, None] - place_T + length - 1, persistent=False)

    def forward(self) -> Tensor:
        """Return the bias, (1, head, token, token)."""
        return self.table[self.index].permute(2, 0, 1)[None]


class PatchTransformer(Scaled):
    """Denoise with a multi-scale patch embedding and a U-shaped transformer.

    Parameters
    ----------
    kernels : tuple of int
        Widths of the parallel convolutions, in samples. (1, 3, 5, 7) is multi-scale; (4, 4, 4, 4) has one
        scale and exactly as many parameters.
    per_scale : int
        Channels of each convolution. 2 is the paper's code; the width of stage i is ``4 per_scale 2**i``.
    length : int
        Samples of a segment, a multiple of 16.
    keep : float
        In training, each input sample is kept with this chance and set to 0 otherwise. Off in ``eval()``;
        the released code leaves it on.
    always_mask : bool
        Mask in ``eval()`` as well, as the released code does.

    Raises
    ------
    ValueError
        If the length is no multiple of 16, there are not four kernels, or the chance is not in (0, 1].

    References
    ----------
    arXiv 2407.11065; layer by layer the released class ``mpmtransformer``.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> net = model.PatchTransformer()
    >>> sum(p.numel() for p in net.parameters())
    1088984
    >>> net.eval()(torch.randn(1, 2, 256)).shape
    torch.Size([1, 2, 256])

    Taught in: ecg-denoising
    """

    def __init__(
        self, kernels: tuple[int, ...] = (1, 3, 5, 7), *, per_scale: int = 2, length: int = 256,
        keep: float = 0.9, always_mask: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        if length % 16 or len(kernels) != 4 or not 0 < keep <= 1:
            raise ValueError(
                f"length={length}, kernels={kernels}, keep={keep}; expected a multiple of 16, four widths "
                "and a chance in (0, 1]"
            )
        self.kernels, self.per_scale, self.length = tuple(kernels), per_scale, length
        self.keep, self.always_mask = keep, always_mask
        widths = [4 * per_scale * 2**i for i in range(5)]
        self.encoders = nn.ModuleList(_Stage(width) for width in widths[:4])
        self.merges = nn.ModuleList(_Merge(width) for width in widths[:4])
        self.bottom = _Stage(widths[4])
        self.decoders = nn.ModuleList(_Stage(width) for width in reversed(widths[1:]))
        self.separates = nn.ModuleList(_Separate(width) for width in reversed(widths[1:]))
        self.distances = nn.ModuleList(_Distance(length // 2**i, widths[i] // HEAD) for i in (2, 3))
        self.into = nn.ModuleList(nn.Conv1d(2, per_scale, kernel) for kernel in self.kernels)
        self.out = nn.ModuleList(nn.ConvTranspose1d(widths[0], 2, kernel) for kernel in self.kernels)

    def inner(self, x_BCT: Float[Tensor, "batch 2 sample"]) -> Float[Tensor, "batch 2 sample"]:
        """Denoise segments whose mean square is 1."""
        if self.training or self.always_mask:
            x_BCT = x_BCT * (torch.rand_like(x_BCT) < self.keep)
        patches_BCT = embed(x_BCT, self.into)
        biases = [None, None, *(distance() for distance in self.distances), None]
        x = patches_BCT.transpose(1, 2)
        skips = []
        for stage, merge, bias in zip(self.encoders, self.merges, biases, strict=False):
            x = merge(stage(x, bias))
            skips.append(x)
        x = self.bottom(x)
        for stage, separate, bias in zip(self.decoders, self.separates, reversed(biases), strict=False):
            x = separate(stage(x + skips.pop(), bias))
        return unembed(x.transpose(1, 2) + patches_BCT, self.out)

    def settings(self) -> dict[str, Any]:
        """Give the arguments of the constructor that shape the module."""
        return {"kind": "transformer", **{name: getattr(self, name) for name in SETTINGS}}


def embed(x_BCT: Float[Tensor, "batch lead sample"], convolutions: nn.ModuleList) -> Tensor:
    """Look at a signal through windows of several widths at once: E(x) = [conv_1(x); conv_3(x); ...].

    Parameters
    ----------
    x_BCT : Float[Tensor, "batch lead sample"]
        The signal.
    convolutions : ModuleList of Conv1d
        One for each width; stride 1. An even width looks one sample further ahead than back.

    Returns
    -------
    Float[Tensor, "batch channel sample"]
        The channels of all, stacked; as many samples as came in.

    References
    ----------
    arXiv 2407.11065, multi-scale patch embedding.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> two = torch.nn.ModuleList(torch.nn.Conv1d(2, 3, width) for width in (1, 4))
    >>> model.embed(torch.zeros(1, 2, 10), two).shape
    torch.Size([1, 6, 10])

    Taught in: ecg-denoising
    """
    widths = [_width(convolution) for convolution in convolutions]
    padded = [F.pad(x_BCT, ((width - 1) // 2, width // 2)) for width in widths]
    return torch.cat([conv(x) for conv, x in zip(convolutions, padded, strict=True)], dim=1)


def unembed(x_BCT: Float[Tensor, "batch channel sample"], convolutions: nn.ModuleList) -> Tensor:
    """Go back to leads: the sum of transposed convolutions, cut to the samples that came in.

    Parameters
    ----------
    x_BCT : Float[Tensor, "batch channel sample"]
        The channels.
    convolutions : ModuleList of ConvTranspose1d
        One for each width; stride 1.

    Returns
    -------
    Float[Tensor, "batch lead sample"]
        The leads.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> two = torch.nn.ModuleList(torch.nn.ConvTranspose1d(6, 2, width) for width in (1, 4))
    >>> model.unembed(torch.zeros(1, 6, 10), two).shape
    torch.Size([1, 2, 10])

    Taught in: ecg-denoising
    """
    T = x_BCT.shape[2]
    made = [(conv(x_BCT), (_width(conv) - 1) // 2) for conv in convolutions]
    return torch.stack([whole[..., skip : skip + T] for whole, skip in made]).sum(0)


def _width(convolution: Any) -> int:
    """Return how many samples a convolution sees."""
    return convolution.kernel_size[0]


def positions(length: int, width: int) -> Float[Tensor, "token channel"]:
    """Return the sinusoidal code of places: even channels sines, odd ones cosines.

    Parameters
    ----------
    length : int
        Number of tokens.
    width : int
        Number of channels, even.

    Returns
    -------
    Float[Tensor, "token channel"]
        The code, between -1 and 1.

    References
    ----------
    Vaswani et al. (2017), section 3.5.

    Examples
    --------
    >>> from helpers.ecg import model
    >>> model.positions(2, 4)[0]
    tensor([0., 1., 0., 1.])

    Taught in: ecg-denoising
    """
    slow = 10_000 ** (torch.arange(0, width, 2) / width)
    turn_TD = torch.arange(length)[:, None] / slow
    return torch.stack([turn_TD.sin(), turn_TD.cos()], dim=-1).reshape(length, width)


class UNet(Scaled):
    """Denoise with a plain U-Net of one-dimensional convolutions.

    Parameters
    ----------
    width : int
        Channels of the first stage; each of the three stages below has twice as many. 44 gives about as many
        parameters as the paper's transformer.

    References
    ----------
    After Ronneberger et al. (2015), in one dimension.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> model.UNet(width=8)(torch.randn(1, 2, 256)).shape
    torch.Size([1, 2, 256])

    Taught in: ecg-denoising
    """

    def __init__(self, width: int = 44) -> None:
        super().__init__()
        self.width = width
        widths = [width * 2**i for i in range(4)]
        self.downs = nn.ModuleList(map(_convs, [2, *widths[:3]], widths))
        self.ups = nn.ModuleList(map(_convs, [w + v for w, v in itertools.pairwise(widths)], widths[:3]))
        self.last = nn.Conv1d(width, 2, 1)

    def inner(self, x_BCT: Float[Tensor, "batch 2 sample"]) -> Float[Tensor, "batch 2 sample"]:
        """Denoise segments whose mean square is 1."""
        skips: list[Tensor] = []
        for down in self.downs:
            x_BCT = down(x_BCT if not skips else F.avg_pool1d(x_BCT, 2))
            skips.append(x_BCT)
        skips.pop()
        for up in reversed(self.ups):
            wider = F.interpolate(x_BCT, scale_factor=2.0, mode="nearest")
            x_BCT = up(torch.cat([skips.pop(), wider], dim=1))
        return self.last(x_BCT)

    def settings(self) -> dict[str, Any]:
        """Give the arguments of the constructor."""
        return {"kind": "unet", "width": self.width}


def _convs(before: int, after: int) -> nn.Sequential:
    """Two convolutions with normalisation by groups."""
    return nn.Sequential(
        nn.Conv1d(before, after, 5, padding=2), nn.GroupNorm(1, after), nn.GELU(),
        nn.Conv1d(after, after, 5, padding=2), nn.GroupNorm(1, after), nn.GELU(),
    )  # fmt: skip


def loss(
    found_BCT: Float[Tensor, "batch lead sample"], clean_BCT: Float[Tensor, "batch lead sample"]
) -> Float[Tensor, ""]:
    """Return the first loss: mean squared error, and how differently steep the two signals are.

    Parameters
    ----------
    found_BCT, clean_BCT : Float[Tensor, "batch lead sample"]
        What it is, and what it should be.

    Returns
    -------
    Float[Tensor, ""]
        ``MSE + 0.01 mean | |d found| - |d clean| |``, with d the difference of neighbouring samples.

    References
    ----------
    arXiv 2407.11065; ``RateDiffLoss`` of the released code.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> model.loss(torch.zeros(1, 2, 8), torch.ones(1, 2, 8))
    tensor(1.)

    Taught in: ecg-denoising
    """
    steep = (found_BCT.diff(dim=-1).abs() - clean_BCT.diff(dim=-1).abs()).abs().mean()
    return F.mse_loss(found_BCT, clean_BCT) + 0.01 * steep


def consistency_loss(net: nn.Module, clean_BCT: Tensor, noisy_BCT: Tensor) -> Float[Tensor, ""]:
    """Return the second loss: a clean and a noisy input should give the same output.

    Parameters
    ----------
    net : Module
        The denoiser; gradients flow through both passes.
    clean_BCT, noisy_BCT : Float[Tensor, "batch lead sample"]
        The same segments without and with noise.

    Returns
    -------
    Float[Tensor, ""]
        ``MSE(net(clean), net(noisy))``.

    References
    ----------
    arXiv 2407.11065; the second optimiser step of the released code.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> model.consistency_loss(torch.nn.Identity(), torch.zeros(1, 2, 8), torch.ones(1, 2, 8))
    tensor(1.)

    Taught in: ecg-denoising
    """
    clean_out, noisy_out = net(torch.cat([clean_BCT, noisy_BCT])).chunk(2)
    return F.mse_loss(clean_out, noisy_out)


@dataclass(frozen=True)
class Recipe:
    """Say how to train.

    Parameters
    ----------
    steps : int
        Batches.
    batch : int
        Segments of a batch.
    rate : float
        Highest learning rate of Adam; it rises over the first twentieth and falls by a cosine to a hundredth.
    every : int
        The consistency step follows every so many batches: 1 is the paper's code, 0 is never.
    seed : int
        Of the start, the batches and the mask.

    Examples
    --------
    >>> from helpers.ecg import model
    >>> model.Recipe(steps=10).batch
    32

    Taught in: ecg-denoising
    """

    steps: int = 1000
    batch: int = 32
    rate: float = 1e-3
    every: int = 1
    seed: int = 0

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        warm = max(1, self.steps // 20)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (
            0.01 + 0.495 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))
        )


def batches(
    clean_RCT: np.ndarray, noises: dict[str, np.ndarray], *, recipe: Recipe, start: int = 0,
    levels: tuple[float, ...] = noise.LEVELS, length: int = 256, flat: float = 0.05,
    part: tuple[float, float] = (0.0, 1.0),
) -> Iterator[tuple[Tensor, Tensor]]:  # fmt: skip
    """Yield the batches of a training, each the same whether or not it was broken off before.

    Parameters
    ----------
    clean_RCT : ndarray
        Clean records.
    noises : dict of str to ndarray
        Noise records by kind; each batch holds as much of every kind.
    recipe : Recipe
        How many, how large, and the seed.
    start : int
        The first batch to yield.
    levels : tuple of float
        Signal-to-noise ratios, dB.
    flat : float
        The chance that a lead is switched off, in signal and noise.
    part : tuple of float
        Which part of each record to draw from.

    Yields
    ------
    tuple of Tensor
        Clean and noisy segments.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import model
    >>> records = np.random.default_rng(0).standard_normal((3, 2, 600))
    >>> made = model.batches(records, {"a": records, "b": records}, recipe=model.Recipe(steps=1, batch=4))
    >>> [clean.shape for clean, noisy in made]
    [torch.Size([4, 2, 256])]

    Taught in: ecg-denoising
    """
    share = recipe.batch // len(noises)
    for step in range(start, recipe.steps):
        drawn = [
            noise.draw(
                clean_RCT,
                noise_RCT,
                count=share,
                levels=levels,
                part=part,
                length=length,
                seed=[recipe.seed, step, i],
            )
            for i, noise_RCT in enumerate(noises.values())
        ]
        clean, noisy = (torch.from_numpy(np.concatenate(parts)).float() for parts in zip(*drawn, strict=True))
        dice = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        on = (torch.rand(len(clean), 2, 1, generator=dice) >= flat) | (torch.arange(2)[:, None] == step % 2)
        yield clean * on, noisy * on


def fit(
    net: nn.Module, made: Iterator[tuple[Tensor, Tensor]], *, recipe: Recipe, start: int = 0,
    optimiser: torch.optim.Optimizer | None = None, after: Callable[[int], None] | None = None,
) -> list[float]:  # fmt: skip
    """Train a denoiser: a step on the first loss, then one on the second.

    Parameters
    ----------
    net : Module
        Trained in place, and left in ``eval()``.
    made : iterator of (Tensor, Tensor)
        Clean and noisy segments, such as from `batches`.
    recipe : Recipe
        Learning rate and how often the second step comes.
    start : int
        Number of the first batch.
    optimiser : Optimizer, optional
        A new Adam by default.
    after : callable, optional
        Called with the number of batches done, after each.

    Returns
    -------
    list of float
        The first loss of each batch.

    References
    ----------
    arXiv 2407.11065; the released training loop: two optimiser steps a batch. Its learning rate is constant.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import model
    >>> x = torch.randn(8, 2, 64)
    >>> net = model.UNet(width=4)
    >>> losses = model.fit(net, iter([(x, x)] * 20), recipe=model.Recipe(steps=20, rate=1e-2))
    >>> losses[-1] < losses[0]
    True

    Taught in: ecg-denoising
    """
    optimiser = optimiser or torch.optim.Adam(net.parameters(), lr=recipe.rate)
    losses = []
    net.train()
    for step, (clean_BCT, noisy_BCT) in enumerate(made, start):
        torch.manual_seed(recipe.seed * 1_000_003 + step)  # of the mask
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate(step)
        first = loss(net(noisy_BCT), clean_BCT)
        _step(optimiser, first)
        if recipe.every and step % recipe.every == 0:
            _step(optimiser, consistency_loss(net, clean_BCT, noisy_BCT))
        losses.append(first.item())
        if after is not None:
            after(step + 1)
    net.eval()
    return losses


def _step(optimiser: torch.optim.Optimizer, value: Tensor) -> None:
    """Go one step down."""
    optimiser.zero_grad(set_to_none=True)
    value.backward()
    optimiser.step()


@torch.no_grad()
def apply(net: nn.Module, noisy_BCT: np.ndarray, *, batch: int = 256) -> np.ndarray:
    """Denoise an array of segments, some at a time.

    Parameters
    ----------
    net : Module
        A trained denoiser, in ``eval()``.
    noisy_BCT : ndarray
        Segments.
    batch : int
        How many go together.

    Returns
    -------
    ndarray
        What the denoiser makes of them.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import model
    >>> model.apply(model.UNet(width=4).eval(), np.zeros((3, 2, 64))).shape
    (3, 2, 64)

    Taught in: ecg-denoising
    """
    parts = torch.from_numpy(np.asarray(noisy_BCT)).float().split(batch)
    return torch.cat([net(part) for part in parts]).numpy().astype(float)


def save(nets: dict[str, Any], path: str | Path, *, notes: dict[str, Any]) -> Path:
    """Write several denoisers into one safetensors file in half precision, whole or not at all.

    Parameters
    ----------
    nets : dict of str to PatchTransformer or UNet
        The denoisers by name.
    path : str or Path
        Where.
    notes : dict
        How they were made; anything that JSON can hold.

    Returns
    -------
    Path
        Where it is.

    Examples
    --------
    >>> import tempfile
    >>> from helpers.ecg import model
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = model.save({"a": model.UNet(width=4)}, f"{folder}/a", notes={"steps": 0})
    ...     nets, notes = model.load(path)
    >>> nets["a"].width, notes
    (4, {'steps': 0})

    Taught in: ecg-denoising
    """
    tensors = {f"{name}/{key}": t.half() for name, net in nets.items() for key, t in net.state_dict().items()}
    return write_safetensors(
        path, tensors, settings={"nets": {k: v.settings() for k, v in nets.items()}, **notes}
    )


def load(
    path: str | Path | None = None, *, name: str = "ecg-denoiser"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read denoisers that `save` wrote; by default the trained ones that come with the book.

    Parameters
    ----------
    path : str or Path, optional
        The file; by default the one that comes with the book under the next name, checked against its hash.
    name : {"ecg-denoiser", "ecg-denoiser-wide"}
        Nine small denoisers, or one of the paper's width.

    Returns
    -------
    tuple of dict
        The denoisers by name, in ``eval()`` and single precision; and the notes on how they were made.

    Raises
    ------
    ValueError
        If the file is damaged, or does not match its hash.
    FileNotFoundError
        If it is not there.

    Examples
    --------
    >>> from helpers.ecg import model
    >>> nets, notes = model.load()
    >>> nets["multi-scale 0"].kernels, notes["rate"]
    ((1, 3, 5, 7), 180)

    Taught in: ecg-denoising
    """
    tensors, notes = read_safetensors(path) if path else data.load_weights(name)
    nets: dict[str, Any] = {}
    for called, settings in notes.pop("nets").items():
        kind = {"transformer": PatchTransformer, "unet": UNet}[settings.pop("kind")]
        given = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
        net = nets[called] = kind(**given)
        own = {k.removeprefix(f"{called}/"): t for k, t in tensors.items() if k.startswith(f"{called}/")}
        net.load_state_dict(own)
        net.eval()
    return nets, notes
