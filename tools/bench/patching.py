"""Patch all attention heads one by one, and estimate all from gradients: what each costs, and who agrees."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from helpers import circuits, models
from helpers.circuits.wires import Wires

METHODS = ("gradient", "relp", "checked")


def measure(n: int, *, seed: int) -> dict[str, float]:
    """Time a forward pass, exact patching of all heads and their estimates, on as many prompts.

    Each estimate is correlated with exact patching over all heads of the model, not over chosen ones.
    """
    lm = models.load_model(models.EMBEDDED)
    prompts = circuits.ioi(lm, n=n, seed=seed)
    other = circuits.activations(lm, prompts, corrupted=True)
    circuits.attribute(lm, prompts.take(slice(0, 2)), other.take(slice(0, 2)))  # warm up
    nodes = [(layer, head) for layer in range(lm.n_layers) for head in range(Wires(lm).n_heads)]
    forward, _ = timed(lambda: circuits.logit_difference(lm, prompts))
    exact, truth = timed(lambda: circuits.exact(lm, prompts, other, nodes=nodes))
    found = {"exact": len(nodes) / exact, "passes": exact / len(nodes) / forward}
    for method in METHODS:
        seconds, effects = timed(partial(estimate, lm, prompts, other, method))
        found[method] = len(nodes) / seconds
        pair = torch.stack([effects.heads_LH.flatten(), truth.heads_LH.flatten()])
        found[f"r_{method}"] = float(torch.corrcoef(pair)[0, 1])
    return found


def estimate(lm: Any, prompts: Any, other: Any, method: str) -> circuits.Effects:
    """Estimate the effect of every head by one method."""
    if method == "checked":
        return circuits.checked(lm, prompts, other)
    return circuits.attribute(lm, prompts, other, method=method)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long something took, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
