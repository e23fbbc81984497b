"""Two classifiers of images to train: an MLP, and a transformer over patches."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = ["PatchTransformer", "mlp"]


def mlp(widths: Sequence[int], *, seed: int) -> nn.Sequential:
    """Make linear layers of these widths, with a ReLU between them.

    Parameters
    ----------
    widths : sequence of int
        Inputs, hidden layers, outputs.
    seed : int
        Decides the weights.

    Returns
    -------
    nn.Sequential
        The layers have the names "0", "2", "4", ...

    Examples
    --------
    >>> from helpers import blocksparse
    >>> len(blocksparse.mlp([64, 32, 10], seed=0))
    3

    Taught in: block-sparsity
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [part for n, m in itertools.pairwise(widths) for part in (nn.Linear(n, m), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


class _Mixer(nn.Module):
    """One layer of the transformer: attention, then an MLP, each added to what came before."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        b, t, d = x_BTD.shape
        parts = self.qkv(self.norm_1(x_BTD)).view(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts).transpose(1, 2).reshape(b, t, d)
        x_BTD = x_BTD + self.out(mixed)
        return x_BTD + self.down(F.gelu(self.up(self.norm_2(x_BTD))))


class PatchTransformer(nn.Module):
    """Classify square images by a transformer over square patches, averaged at the end.

    Parameters
    ----------
    side, patch : int
        Side of the image and of a patch, in pixels.
    channels : int
        Colours; a row of pixels holds one after the other.
    width, heads, layers, hidden, classes : int
        Sizes of the transformer; hidden is that of its MLPs, twice the width unless given.
    seed : int
        Decides the weights.

    Examples
    --------
    >>> import torch
    >>> from helpers import blocksparse
    >>> blocksparse.PatchTransformer(width=16, heads=2, seed=0)(torch.zeros(3, 64)).shape
    torch.Size([3, 10])

    Taught in: block-sparsity
    """

    def __init__(
        self, *, side: int = 8, patch: int = 4, channels: int = 1, width: int = 32, heads: int = 4,
        layers: int = 2, hidden: int | None = None, classes: int = 10, seed: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.side, self.patch, self.channels = side, patch, channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Linear(channels * patch**2, width)
            self.place = nn.Parameter(0.1 * torch.randn((side // patch) ** 2, width))
            self.layers = nn.Sequential(*(_Mixer(width, heads, hidden or 2 * width) for _ in range(layers)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x_BD: Float[Tensor, "batch pixel"]) -> Float[Tensor, "batch class"]:
        """Return one number a class."""
        along, patch = self.side // self.patch, self.patch
        cut = x_BD.reshape(-1, self.channels, along, patch, along, patch).permute(0, 2, 4, 1, 3, 5)
        patches = cut.reshape(-1, along**2, self.channels * patch**2)
        return self.head(self.norm(self.layers(self.embed(patches) + self.place)).mean(1))
