"""Patch attention heads one by one, and estimate all from gradients: what each costs, and if they agree."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from helpers import circuits, models
from helpers.circuits import Prompts
from helpers.circuits.wires import Wires
from helpers.models import LanguageModel

STRONGEST = 24  # heads that are patched beside one of each layer, to see whether the estimate is right


def measure(n: int, *, seed: int) -> dict[str, float]:
    """Time a forward pass, exact patching of a head and the estimate of all heads, on as many prompts.

    Patching starts at the patched layer, so late heads are cheaper: one head of each layer is timed.
    """
    lm = models.load_model(models.EMBEDDED)
    prompts = circuits.ioi(lm, n=n, seed=seed)
    other = circuits.activations(lm, prompts, corrupted=True)
    circuits.attribute(lm, prompts.take(slice(0, 2)), other.take(slice(0, 2)))  # warm up
    heads = Wires(lm).n_heads
    sample = [(layer, (layer + seed) % heads) for layer in range(lm.n_layers)]
    forward, _ = timed(lambda: circuits.logit_difference(lm, prompts))
    exact, measured = timed(lambda: circuits.exact(lm, prompts, other, nodes=sample))
    exact -= forward  # the unpatched run that exact patching begins with
    gradient = circuits.attribute(lm, prompts, other).heads_LH
    estimating, effects = timed(lambda: circuits.attribute(lm, prompts, other, method="relp"))
    agreed = agreement(
        lm, prompts, other, {"gradient": gradient, "relp": effects.heads_LH}, measured.heads_LH
    )
    return {
        "exact": len(sample) / exact,
        "estimated": lm.n_layers * heads / estimating,
        "passes": exact / len(sample) / forward,
        **agreed,
    }


def agreement(
    lm: LanguageModel,
    prompts: Prompts,
    other: Any,
    estimates: dict[str, torch.Tensor],
    known_LH: torch.Tensor,
) -> dict[str, float]:
    """Correlate each estimate with exact patching, over one head of each layer and the strongest."""
    tried_LH = known_LH != 0
    rest_LH = circuits.top_heads(estimates["relp"], k=STRONGEST) & ~tried_LH
    nodes = [(layer, head) for layer, head in rest_LH.nonzero().tolist()]
    measured_LH = known_LH + circuits.exact(lm, prompts, other, nodes=nodes).heads_LH
    chosen_LH = tried_LH | rest_LH
    return {
        f"r_{name}": float(torch.corrcoef(torch.stack([found[chosen_LH], measured_LH[chosen_LH]]))[0, 1])
        for name, found in estimates.items()
    }


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long something took, and what came of it."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found
