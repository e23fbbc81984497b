"""Sparse autoencoders: the proximal operators, the module, its training and its evaluation.

Read the four files in this order: `operators` (what an encoder minimises), `autoencoder` (one module
for all operators), `training` (a sparse training step), `evaluation` (what a trained one is worth).
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
from helpers.sae.training import Schedule, TrainingLog, fit

__all__ = [
    "OPERATORS",
    "AblationLosses",
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
    "loss_recovered",
    "objective",
    "reconstruction",
    "sign_audit",
    "top_contexts",
    "unroll",
]
