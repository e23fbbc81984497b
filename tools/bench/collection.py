"""Collect activations with the book's helper, with a bare hook, and in a full forward pass."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import data, models, trace
from helpers.models import FAMILIES, LanguageModel
from helpers.weights import write_safetensors

LAYER = 15
BATCH = 8
TURN = 16  # blocks that a collector gets at a time


def prepare(path: Path, *, blocks: int | None = None) -> None:
    """Collect the activations that all contenders train on; every tenth block is held out."""
    lm = models.load_model("smollm2-135m")
    tokens_BT = models.tokenize_blocks(lm, data.load_text("pydoc-topics"))[:blocks]
    held = torch.arange(len(tokens_BT)) % 10 == 0
    train_ND, test_ND = (_ordinary(lm, part_BT) for part_BT in (tokens_BT[~held], tokens_BT[held]))
    scale = (train_ND - train_ND.mean(0)).square().mean().sqrt()
    tensors = {"train": train_ND / scale, "test": test_ND / scale, "tokens": tokens_BT}
    write_safetensors(path, tensors, settings={"layer": LAYER, "blocks": blocks})


def _ordinary(lm: LanguageModel, tokens_BT: Tensor) -> Tensor:
    """Collect without the massive activations."""
    site = trace.Site(LAYER)
    acts_ND = trace.collect(lm, tokens_BT, sites=[site], batch_size=BATCH)[site]
    return acts_ND[~trace.massive(acts_ND)]


def ours(lm: LanguageModel, tokens_BT: Tensor) -> Tensor:
    """Collect with `helpers.trace.collect`."""
    site = trace.Site(LAYER)
    return trace.collect(lm, tokens_BT, sites=[site], batch_size=BATCH, progress=False)[site]


class _Stop(Exception):  # noqa: N818  (it is not an error)
    """The layer has been passed."""


def hook(lm: LanguageModel, tokens_BT: Tensor, *, stop: bool = True) -> Tensor:
    """Collect with a PyTorch hook that ends the pass at the layer: the least code that does it."""
    kept: list[Tensor] = []

    def keep(module: Any, arguments: Any, output: Any) -> None:
        acts_BTD = output[0] if isinstance(output, tuple) else output
        kept.append(acts_BTD[:, 1:].reshape(-1, lm.d_model))
        if stop:
            raise _Stop

    layer = lm.model.get_submodule(f"{FAMILIES[lm.family].layers}.{LAYER}")
    handle = layer.register_forward_hook(keep)
    try:
        for batch_BT in tokens_BT.split(BATCH):
            _forward(lm, batch_BT)
    finally:
        handle.remove()
    return torch.cat(kept)


@torch.no_grad()
def _forward(lm: LanguageModel, batch_BT: Tensor) -> None:
    with contextlib.suppress(_Stop):
        lm.model(batch_BT, use_cache=False)


def full(lm: LanguageModel, tokens_BT: Tensor) -> Tensor:
    """Collect in a pass that goes on to the logits."""
    return hook(lm, tokens_BT, stop=False)


COLLECTORS: dict[str, Callable[[LanguageModel, Tensor], Tensor]] = {"ours": ours, "hook": hook, "full": full}


def measure(tokens_BT: Tensor) -> dict[str, float]:
    """Time all collectors in tokens a second, some blocks each in turns: a slow second hits all of them."""
    lm = models.load_model("smollm2-135m")
    seconds, order = dict.fromkeys(COLLECTORS, 0.0), list(COLLECTORS)
    for collector in COLLECTORS.values():
        collector(lm, tokens_BT[:BATCH])  # to warm up
    for some_BT in tokens_BT.split(TURN):
        for name in order:
            began = time.perf_counter()
            COLLECTORS[name](lm, some_BT)
            seconds[name] += time.perf_counter() - began
        order.reverse()
    return {name: tokens_BT.numel() / total for name, total in seconds.items()}


def difference(tokens_BT: Tensor) -> dict[str, float]:
    """Give the largest difference between what the helper and what the hook collects."""
    lm = models.load_model("smollm2-135m")
    return {"difference": float((ours(lm, tokens_BT) - hook(lm, tokens_BT)).abs().max())}
