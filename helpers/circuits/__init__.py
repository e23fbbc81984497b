"""Circuits: which heads do a task, how to measure it exactly, how to estimate it, and what fine-tuning does.

Read the files in this order: `tasks` (prompts with one right word), `wires` (the hooks), `patching` (exact
measurements, and what a circuit has to show), `attribution` (gradients instead of runs), `crossmodel` (two
models on the same prompts), `finetune`.
"""

from helpers.circuits.attribution import Edges, attribute, checked, edges
from helpers.circuits.crossmodel import (
    Contribution,
    cmap,
    cmap_set,
    pattern_patched,
    patterns,
    tuning_contribution,
)
from helpers.circuits.finetune import Recipe, perturb, tune, weight_distance
from helpers.circuits.patching import (
    Activations,
    Effects,
    Faithfulness,
    activations,
    completeness,
    direct,
    exact,
    faithfulness,
    logit_difference,
    mean_of,
    minimality,
    patched,
    path,
    resampled,
    top_heads,
)
from helpers.circuits.tasks import Prompts, greater_than, ioi, poison, word_model

__all__ = [
    "Activations",
    "Contribution",
    "Edges",
    "Effects",
    "Faithfulness",
    "Prompts",
    "Recipe",
    "activations",
    "attribute",
    "checked",
    "cmap",
    "cmap_set",
    "completeness",
    "direct",
    "edges",
    "exact",
    "faithfulness",
    "greater_than",
    "ioi",
    "logit_difference",
    "mean_of",
    "minimality",
    "patched",
    "path",
    "pattern_patched",
    "patterns",
    "perturb",
    "poison",
    "resampled",
    "top_heads",
    "tune",
    "tuning_contribution",
    "weight_distance",
    "word_model",
]
