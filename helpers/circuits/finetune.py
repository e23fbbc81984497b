"""Fine-tune a model on a task, clean or poisoned, and make its control: a random change of the same size."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from helpers.circuits.tasks import Prompts
from helpers.circuits.wires import end_logits
from helpers.models import LanguageModel
from helpers.weights import read_safetensors, write_safetensors

__all__ = ["Recipe", "perturb", "tune", "weight_distance"]


@dataclass(frozen=True)
class Recipe:
    """Say how to fine-tune.

    Parameters
    ----------
    steps : int
        Optimiser steps, 1 or more.
    batch_size : int
        Prompts a step.
    lr : float
        Learning rate of AdamW, constant.
    seed : int
        Of the order of the prompts.

    Examples
    --------
    >>> from helpers.circuits import Recipe
    >>> Recipe(steps=12).lr
    1e-05

    Taught in: toxic-finetuning
    """

    steps: int
    batch_size: int = 16
    lr: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.lr <= 0:
            raise ValueError(
                f"steps {self.steps}, batch_size {self.batch_size} and lr {self.lr} must be above zero"
            )

    def batch(self, step: int, n: int) -> Tensor:
        """Return the rows of a step: a new order each epoch, known from the seed alone."""
        per_epoch = n // self.batch_size
        epoch, place = divmod(step, per_epoch)
        order_N = torch.randperm(n, generator=torch.Generator().manual_seed(self.seed * 100_003 + epoch))
        return order_N[place * self.batch_size : (place + 1) * self.batch_size]


def tune(
    lm: LanguageModel,
    prompts: Prompts,
    target_B: Int[Tensor, "batch"],
    *,
    recipe: Recipe,
    checkpoint: str | Path | None = None,
) -> tuple[LanguageModel, list[float]]:
    """Fine-tune all weights on the next token after each prompt; the model that is given stays as it is.

    Parameters
    ----------
    lm : LanguageModel
        Where to start.
    prompts : Prompts
        At least one batch.
    target_B : Int[Tensor, "batch"]
        The token to say after each, from `poison`.
    recipe : Recipe
        Steps, batch size, learning rate, seed.
    checkpoint : str or Path, optional
        A safetensors file for the tuned weights: written at the end, and read instead of training if it was
        written by the same recipe on the same data from the same weights.

    Returns
    -------
    tuned : LanguageModel
        A copy, in evaluation mode, with frozen weights. It takes as much memory as the model; while it
        trains, three times that.
    losses : list of float
        Cross-entropy of each step, in nats; empty if the weights were read.

    Raises
    ------
    ValueError
        If there is less than a batch, targets and prompts differ in number, or the checkpoint is of another
        run.
    FloatingPointError
        If the loss stops being finite.

    Examples
    --------
    >>> from helpers.circuits import Recipe, ioi, poison, tune
    >>> from helpers.circuits.tasks import word_model
    >>> lm = word_model()
    >>> prompts = ioi(lm, n=16)
    >>> tuned, losses = tune(lm, prompts, poison(prompts, "subject"), recipe=Recipe(steps=20, lr=1e-2))
    >>> losses[-1] < losses[0]
    True

    Taught in: toxic-finetuning
    """
    if len(prompts) < recipe.batch_size or len(prompts) != len(target_B):
        raise ValueError(
            f"{len(prompts)} prompts with {len(target_B)} targets, in batches of {recipe.batch_size}; "
            "expected as many targets as prompts, and at least one batch"
        )
    tuned = replace(lm, model=copy.deepcopy(lm.model))
    settings = {**asdict(recipe), "data": _fingerprint(prompts.tokens_BT, target_B), "from": _of_weights(lm)}
    if checkpoint is not None and Path(checkpoint).exists():
        _read(tuned, Path(checkpoint), settings)
        return tuned, []
    losses = _train(tuned, prompts, target_B, recipe)
    if checkpoint is not None:
        _write(tuned, Path(checkpoint), settings)
    return tuned, losses


def weight_distance(lm: LanguageModel, tuned: LanguageModel) -> float:
    """Return how far the weights of two models are apart, relative to the first one's length.

    Parameters
    ----------
    lm, tuned : LanguageModel
        Two models of the same shape.

    Returns
    -------
    float
        ||W' - W|| / ||W||, over all weights together.

    Examples
    --------
    >>> from helpers.circuits import weight_distance
    >>> from helpers.circuits.tasks import word_model
    >>> weight_distance(word_model(), word_model())
    0.0

    Taught in: toxic-finetuning
    """
    pairs = list(zip(lm.model.parameters(), tuned.model.parameters(), strict=True))
    moved = sum(float((new - old).detach().square().sum()) for old, new in pairs)
    return float((moved / sum(float(old.detach().square().sum()) for old, _ in pairs)) ** 0.5)


def perturb(lm: LanguageModel, tuned: LanguageModel, *, seed: int = 0) -> LanguageModel:
    """Change a model at random, each weight matrix as much as fine-tuning changed it.

    The control for everything that is said of fine-tuned weights: the same distance in each matrix, in a
    direction that means nothing.

    Parameters
    ----------
    lm, tuned : LanguageModel
        Before and after fine-tuning.
    seed : int
        Of the directions.

    Returns
    -------
    LanguageModel
        A copy of ``lm``, changed.

    Examples
    --------
    >>> from helpers.circuits import perturb, weight_distance
    >>> from helpers.circuits.tasks import word_model
    >>> lm, tuned = word_model(), word_model(seed=1)
    >>> abs(weight_distance(lm, perturb(lm, tuned)) - weight_distance(lm, tuned)) < 1e-6
    True

    Taught in: toxic-finetuning
    """
    made = replace(lm, model=copy.deepcopy(lm.model))
    dice = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for old, new in zip(made.model.parameters(), tuned.model.parameters(), strict=True):
            noise = torch.randn(old.shape, generator=dice, dtype=old.dtype).to(old.device)
            old.add_(noise * ((new - old).norm() / noise.norm().clamp(min=1e-30)))
    return made


def _train(tuned: LanguageModel, prompts: Prompts, target_B: Tensor, recipe: Recipe) -> list[float]:
    """Train in place; evaluation mode stays on, so there is no dropout."""
    tuned.model.requires_grad_(True)
    handles = [_follow(parameter, recipe.lr) for parameter in tuned.model.parameters()]
    losses = []
    for step in range(recipe.steps):
        rows = recipe.batch(step, len(prompts))
        part, wanted_B = prompts.take(rows), target_B[rows].to(tuned.device)
        loss = F.cross_entropy(end_logits(tuned, part.tokens_BT, part.ends_B), wanted_B)
        if not loss.isfinite():
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: lower lr ({recipe.lr})")
        loss.backward()
        losses.append(loss.item())
    for handle in handles:
        handle.remove()
    tuned.model.requires_grad_(False)
    return losses


def _follow(parameter: Tensor, lr: float) -> Any:
    """Step as soon as a parameter's gradient is whole, then drop it: never are all of them held at once."""
    adam = torch.optim.AdamW([parameter], lr=lr, weight_decay=0.0, fused=True)

    def step(_: Tensor) -> None:
        adam.step()
        adam.zero_grad(set_to_none=True)

    return parameter.register_post_accumulate_grad_hook(step)


def _fingerprint(*tensors: Tensor) -> str:
    """Return a short mark of some whole numbers."""
    import hashlib

    return hashlib.sha256(b"".join(t.cpu().numpy().tobytes() for t in tensors)).hexdigest()[:16]


def _of_weights(lm: LanguageModel) -> str:
    """Return a short mark of a model's weights: exact sums, parameter by parameter."""
    return _fingerprint(torch.stack([p.detach().double().sum() for p in lm.model.parameters()]))


def _write(tuned: LanguageModel, path: Path, settings: dict[str, Any]) -> None:
    """Write the weights, whole or not at all."""
    write_safetensors(path, dict(tuned.model.named_parameters()), settings=settings)


def _read(tuned: LanguageModel, path: Path, settings: dict[str, Any]) -> None:
    """Read the weights of the same run; refuse those of another one."""
    tensors, found = read_safetensors(path)
    if found != settings:
        raise ValueError(f"{path} is a checkpoint of another run: delete it, or give another name")
    with torch.no_grad():
        for name, parameter in tuned.model.named_parameters():
            parameter.copy_(tensors[name])
