"""Sparse autoencoders: the proximal operators, the module, its training and its evaluation.

Read the files in this order: `operators` (what an encoder minimises), `autoencoder` (one module for all
operators), `training` (a sparse training step), `evaluation` (what a trained one is worth), `pruning` (what
remains of one when its weights are taken away).
"""

from helpers.sae.autoencoder import SparseAutoencoder, from_dictionary_learning, from_saelens
from helpers.sae.evaluation import (
    AblationLosses,
    ablation_losses,
    context,
    dictionary_match,
    loss_recovered,
    reconstruction,
    sign_audit,
    top_contexts,
    unroll,
)
from helpers.sae.operators import OPERATORS, Operator, objective
from helpers.sae.pruning import (
    RULES,
    Identity,
    identity,
    mean_cosine,
    move_mean,
    output_norms,
    partners,
    prune,
    top_tokens,
    true_l0,
    with_l0,
)
from helpers.sae.training import Schedule, TrainingLog, fit

__all__ = [
    "OPERATORS",
    "RULES",
    "AblationLosses",
    "Identity",
    "Operator",
    "Schedule",
    "SparseAutoencoder",
    "TrainingLog",
    "ablation_losses",
    "context",
    "dictionary_match",
    "fit",
    "from_dictionary_learning",
    "from_saelens",
    "identity",
    "loss_recovered",
    "mean_cosine",
    "move_mean",
    "objective",
    "output_norms",
    "partners",
    "prune",
    "reconstruction",
    "sign_audit",
    "top_contexts",
    "top_tokens",
    "true_l0",
    "unroll",
    "with_l0",
]
