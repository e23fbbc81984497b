"""Find one direction in the residual stream, judge it, and write it into weights.

A direction is a difference of means: the average activation under one kind of prompt, minus that under the
other, at one position and after one layer.

Read the files in this order: `reading` (activations, and the difference of their means), `scoring` (how near
a model is to refusing, and how far a change moves it), `removing` (a direction out of what flows, or out of
the weights), `choosing` (a candidate for each position and layer, and the best of them), `comparing` (the
directions of two models, with the null that sampling noise alone would give), `repairing` (what a pruned
matrix writes along a direction).

Shapes: N prompts, T positions counted from the end, L layers, D d_model, I the inputs of a matrix.

Examples
--------
>>> import torch
>>> from helpers.directions import difference_of_means
>>> difference_of_means(torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.0]]))
tensor([2., 0.])
"""

from helpers.directions.choosing import Candidate, candidates, judge, reselect, select
from helpers.directions.comparing import Agreement, agreement
from helpers.directions.reading import difference_of_means, last_positions
from helpers.directions.removing import ablation, orthogonalise, project_out, writers
from helpers.directions.repairing import amplify, restore, rotate, swap
from helpers.directions.scoring import Rate, divergence, log_odds, openings, rate

__all__ = [
    "Agreement", "Candidate", "Rate", "ablation", "agreement", "amplify", "candidates", "difference_of_means",
    "divergence", "judge", "last_positions", "log_odds", "openings", "orthogonalise", "project_out", "rate",
    "reselect", "restore", "rotate", "select", "swap", "writers",
]  # fmt: skip
