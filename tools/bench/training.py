"""Train a TopK SAE with one library or another: the same start, batches, learning rate and steps.

Every contender takes a `Task` and returns tokens/s and the trained map from activations to reconstructions.
The peers are imported where they are used: they exist in their own environment only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from helpers.sae import Schedule, SparseAutoencoder, fit, reconstruction

Trained = tuple[float, Callable[[Tensor], Tensor] | None]


@dataclass(frozen=True)
class Task:
    """What everybody trains on, from where, and for how long."""

    train_ND: Tensor
    test_ND: Tensor
    schedule: Schedule
    n_latents: int
    k: int

    def start(self) -> SparseAutoencoder:
        """Return the common start: tied, unit norm, centred on the data."""
        width, seed = self.train_ND.shape[1], self.schedule.seed
        sae = SparseAutoencoder(width, self.n_latents, operator="topk", k=self.k, seed=seed)
        sae.start_from(self.train_ND)
        return sae

    def batches(self) -> Iterator[Tensor]:
        """Yield the batches in the order in which `helpers.sae.fit` takes them."""
        tokens, size, seed = len(self.train_ND), self.schedule.batch_size, self.schedule.seed
        for step in range(self.schedule.steps):
            epoch, place = divmod(step, tokens // size)
            if place == 0:
                dice = torch.Generator().manual_seed(seed * 100_003 + epoch)
                order_N = torch.randperm(tokens, generator=dice)
            yield self.train_ND[order_N[place * size : (place + 1) * size]]

    @property
    def warmup(self) -> int:
        """Steps with a rising learning rate."""
        return round(self.schedule.warmup * self.schedule.steps)

    @property
    def decay(self) -> int:
        """Steps with a falling one."""
        return round(self.schedule.decay * self.schedule.steps)


def timed(step: Callable[[int, Tensor], object], batches: Iterator[Tensor]) -> float:
    """Return tokens/s over all steps but the first, in which a library may still set itself up."""
    tokens, began = 0, 0.0
    for number, x_BD in enumerate(batches):
        step(number, x_BD)
        if number == 0:
            began = time.perf_counter()
        else:
            tokens += len(x_BD)
    return tokens / max(time.perf_counter() - began, 1e-9)


def ours(task: Task) -> Trained:
    """Train with `helpers.sae.fit`, the call that the chapters make."""
    sae = task.start()
    log = fit(sae, task.train_ND, schedule=task.schedule, progress=False)
    return log.tokens_per_second, sae


def dictionary_learning(task: Task) -> Trained:
    """Train with the TopK trainer of dictionary_learning."""
    from dictionary_learning.trainers.top_k import TopKTrainer

    start = task.start()
    trainer = TopKTrainer(
        steps=task.schedule.steps,
        activation_dim=start.d_model,
        dict_size=start.n_latents,
        k=task.k,
        layer=0,
        lm_name="",
        lr=task.schedule.lr,
        warmup_steps=task.warmup,
        decay_start=task.schedule.steps - task.decay,
        device="cpu",
    )
    trainer.ae.encoder.weight.data.copy_(start.encoder_PD.data)
    trainer.ae.decoder.weight.data.copy_(start.decoder_PD.data.T)
    return timed(trainer.update, task.batches()), trainer.ae


def saelens(task: Task, *, sparse: bool = False) -> Trained:
    """Train with the trainer of SAELens."""
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    schedule = task.schedule
    settings = SAETrainerConfig(
        total_training_samples=schedule.steps * schedule.batch_size,
        train_batch_size_samples=schedule.batch_size,
        lr=schedule.lr,
        lr_end=schedule.lr,  # of its main part, which is constant; the decay goes to zero
        lr_warm_up_steps=task.warmup,
        lr_decay_steps=task.decay,
    )
    sae = _saelens_start(task, sparse=sparse)
    trainer: Any = SAETrainer(settings, sae, data_provider=iter(()))

    def step(_: int, x_BD: Tensor) -> None:
        trainer.step(x_BD)
        trainer.n_training_steps += 1

    return timed(step, task.batches()), sae


def _saelens_start(task: Task, *, sparse: bool) -> Any:
    """Put the common start into SAELens's module.

    Its default is dense and treats the decoder's rows as of unit norm. Its sparse codes are an option, which
    on a CPU has no gradient together with that default; so with it the norms are left free.
    """
    from sae_lens import TopKTrainingSAE, TopKTrainingSAEConfig

    start = task.start()
    config = TopKTrainingSAEConfig(
        d_in=start.d_model,
        d_sae=start.n_latents,
        k=task.k,
        use_sparse_activations=sparse,
        rescale_acts_by_decoder_norm=not sparse,
    )
    sae: Any = TopKTrainingSAE(config)
    sae.W_enc.data.copy_(start.encoder_PD.data.T)
    sae.W_dec.data.copy_(start.decoder_PD.data)
    sae.b_dec.data.copy_(start.decoder_bias_D.data)
    return sae


def saelens_sparse(task: Task) -> Trained:
    """Train with SAELens and its sparse codes."""
    return saelens(task, sparse=True)


def bound(task: Task) -> Trained:
    """Do the two products with the encoder alone: forward, and the gradient of its weights."""
    x_BD, encoder_PD = next(task.batches()), task.start().encoder_PD.detach()
    u_BP, grad_PD = x_BD @ encoder_PD.T, torch.empty_like(encoder_PD)

    def step(_: int, x_BD: Tensor) -> None:
        torch.mm(x_BD, encoder_PD.T, out=u_BP)
        torch.mm(u_BP.T, x_BD, out=grad_PD)

    return timed(step, (x_BD for _ in range(task.schedule.steps))), None


CONTENDERS: dict[str, Callable[[Task], Trained]] = {
    "ours": ours,
    "dictionary_learning": dictionary_learning,
    "saelens": saelens,
    "saelens_sparse": saelens_sparse,
    "bound": bound,
}


def measure(name: str, task: Task, *, warm: int = 3) -> dict[str, float]:
    """Train briefly to warm up, then from a fresh start for the record."""
    CONTENDERS[name](replace(task, schedule=replace(task.schedule, steps=warm)))
    speed, rebuild = CONTENDERS[name](task)
    if rebuild is None:
        return {"tokens_per_second": speed}
    with torch.no_grad():  # a plain function, so that everybody is measured by the same formula
        unexplained = reconstruction(lambda x_BD: rebuild(x_BD), task.test_ND).unexplained
    return {"tokens_per_second": speed, "unexplained": unexplained}
