"""Training a sparse autoencoder with a step that is sparse wherever the codes are.

Of the four matrix products of a dense step only one, the pre-activations, needs every latent. The other three
(reconstruction, and the gradients of both dictionaries) touch k latents a token, so they are products with
a sparse matrix. Shapes: B batch, D d_model, P latents, A active (all active latents of the batch, in a row).
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from helpers.sae.autoencoder import SparseAutoencoder
from helpers.weights import read_safetensors, write_safetensors

ROWS = 256  # rows of pre-activations held at once: they stay in the processor's cache


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    Attributes
    ----------
    steps : int
        Optimiser steps, >= 1.
    batch_size : int
        Tokens a step.
    lr : float
        Peak learning rate of Adam, betas (0.9, 0.99) as in arXiv 2510.00404, Appendix B.
    warmup, decay : float
        Share of the steps with a rising rate, and with one that falls to zero, each in [0, 1].
    revive_every : int
        Steps after which latents that were silent for that long are started again on the tokens
        that are reconstructed worst; 0 leaves them dead. None are while the rate falls: they
        could not settle.
    seed : int
        Seed of the order of the tokens.

    Examples
    --------
    >>> Schedule(steps=100, lr=1.0).rate(50)
    1.0
    """

    steps: int
    batch_size: int = 2048
    lr: float = 1e-3
    warmup: float = 0.05
    decay: float = 0.3
    revive_every: int = 0
    seed: int = 0

    def rate(self, step: int) -> float:
        """Give the learning rate at a step, 0 <= step < steps."""
        rise = (step + 1) / max(1, round(self.warmup * self.steps))
        fall = (self.steps - step) / max(1, round(self.decay * self.steps))
        return self.lr * min(1.0, rise, fall)

    def revives_at(self, step: int) -> bool:
        """Say whether dead latents start again after a step: never while the rate falls to zero."""
        every, last = self.revive_every, (1 - self.decay) * self.steps
        return every > 0 and (step + 1) % every == 0 and step < last

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch_size < 1 or self.lr <= 0:
            raise ValueError(
                f"steps {self.steps}, batch_size {self.batch_size} and lr {self.lr} must be above zero"
            )


@dataclass
class TrainingLog:
    """What training saw: loss and true L0 every step, dead latents, speed.

    Attributes
    ----------
    loss : list[float]
        Mean 1/2 ||x - x_hat||^2 of each step's batch, in units of the SAE's scale.
    l0 : list[float]
        Mean number of active latents a token in each step's batch.
    dead : float
        Share of latents that did not fire in the last quarter of the steps, [0, 1].
    revived : int
        Latents started again, in all.
    tokens_per_second : float
        Speed of this run, without loading.
    """

    loss: list[float] = field(default_factory=list)
    l0: list[float] = field(default_factory=list)
    dead: float = 0.0
    revived: int = 0
    tokens_per_second: float = 0.0


@dataclass(frozen=True)
class Support:
    """Which latents fire for which token: row pointers, latents and values, as in a CSR matrix."""

    start_B1: Int[Tensor, "rows"]
    latent_A: Int[Tensor, "active"]
    shape: tuple[int, int]

    def matrix(self, values_A: Float[Tensor, "active"]) -> Tensor:
        """Lay values out as a sparse (batch, latents) matrix."""
        return _csr(self.start_B1, self.latent_A, values_A, self.shape)

    def transposed(self, values_A: Float[Tensor, "active"]) -> Tensor:
        """Lay values out as a sparse (latents, batch) matrix."""
        batch, latents = self.shape
        token_A = torch.repeat_interleave(torch.arange(batch), self.start_B1.diff())
        order_A = self.latent_A.argsort(stable=True)
        start = torch.zeros(latents + 1, dtype=torch.long)
        start[1:] = torch.bincount(self.latent_A, minlength=latents).cumsum(0)
        return _csr(start, token_A[order_A], values_A[order_A], (latents, batch))


def _csr(start: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Make a CSR matrix without torch's notice that the format is young."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(start, column, values, shape, check_invariants=False)


class _Encode(torch.autograd.Function):
    """Pre-activations at the active latents: dense to find them, sparse to send gradients back."""

    @staticmethod
    def forward(ctx: Any, x_BD: Tensor, encoder_PD: Tensor, bias_P: Tensor, pick: Any) -> Tensor:
        support, values_A = pick(x_BD, encoder_PD, bias_P)
        ctx.support = support
        ctx.save_for_backward(x_BD)
        return values_A

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[None, Tensor, Tensor, None]:
        (grad_A,), (x_BD,), support = grad, ctx.saved_tensors, ctx.support
        grad_bias_P = x_BD.new_zeros(support.shape[1]).index_add_(0, support.latent_A, grad_A)
        return None, support.transposed(grad_A) @ x_BD, grad_bias_P, None


class _Decode(torch.autograd.Function):
    """The sum of the active atoms."""

    @staticmethod
    def forward(ctx: Any, values_A: Tensor, decoder_PD: Tensor, support: Support) -> Tensor:
        ctx.support = support
        ctx.save_for_backward(values_A, decoder_PD)
        return support.matrix(values_A) @ decoder_PD

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad_BD,), (values_A, decoder_PD), support = grad, ctx.saved_tensors, ctx.support
        at_support = torch.sparse.sampled_addmm(
            support.matrix(torch.zeros_like(values_A)), grad_BD, decoder_PD.T, beta=0.0
        )
        return at_support.values(), support.transposed(values_A) @ grad_BD, None


class _Picker:
    """Find the active latents of a batch, a few rows at a time, and remember where they are."""

    def __init__(self, sae: SparseAutoencoder) -> None:
        self.sae = sae

    def __call__(self, x_BD: Tensor, encoder_PD: Tensor, bias_P: Tensor) -> tuple[Support, Tensor]:
        counts, latents, values = zip(
            *(self.rows(torch.addmm(bias_P, x_RD, encoder_PD.T)) for x_RD in x_BD.split(ROWS)), strict=True
        )
        start_B1 = torch.cat([torch.zeros(1, dtype=torch.long), torch.cat(counts)]).cumsum(0)
        self.support = Support(start_B1, torch.cat(latents), (len(x_BD), len(encoder_PD)))
        return self.support, torch.cat(values)

    def rows(self, u_RP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give, for a few rows, active latents a row, which, and their pre-activations."""
        operator, level = self.sae.operator, self.sae.level.item()
        if operator.counts:
            ranked_RP = u_RP.abs() if operator.signed else u_RP
            latent_RK = ranked_RP.topk(int(level), dim=1, sorted=False).indices
            counts_R = torch.full((len(u_RP),), int(level))
            return counts_R, latent_RK.flatten(), u_RP.gather(1, latent_RK).flatten()
        active_RP = u_RP >= self.threshold
        row_A, latent_A = active_RP.nonzero(as_tuple=True)
        return active_RP.sum(1), latent_A, u_RP[row_A, latent_A]

    @property
    def threshold(self) -> float:
        """The pre-activation from which a latent fires: lambda for ReLU, sqrt(2 lambda) for JumpReLU."""
        level = self.sae.level.item()
        return level if self.sae.operator_name == "relu" else math.sqrt(2 * level)


def step_loss(
    sae: SparseAutoencoder, x_BD: Float[Tensor, "batch d_model"]
) -> tuple[Float[Tensor, ""], Support, Float[Tensor, "active"], Float[Tensor, "batch d_model"]]:
    """Evaluate 1/2 ||x - x_hat||^2 + lambda R(z), averaged over a batch, through the sparse path.

    Parameters
    ----------
    sae : SparseAutoencoder
        The module; x_BD must already be divided by its scale.
    x_BD : Float[Tensor, "batch d_model"]
        A batch.

    Returns
    -------
    tuple[Float[Tensor, ""], Support, Float[Tensor, "active"], Float[Tensor, "batch d_model"]]
        The loss, the support, the codes on it, and the residual x - x_hat.

    Notes
    -----
    The joint objective of arXiv 2510.00404, Section 3. R = ||z||_0 has no gradient where it has one at all,
    so JumpReLU, like the two TopKs, trains on reconstruction alone.

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 32, operator="topk", k=4)
    >>> x_BD = torch.randn(16, 8)
    >>> loss, support, z_A, residual_BD = step_loss(sae, x_BD)
    >>> dense = (x_BD - sae(x_BD)).square().sum(1).mean() / 2
    >>> torch.allclose(loss, dense)
    True

    Taught in: sae-derivation
    """
    picker = _Picker(sae)
    u_A = _Encode.apply(x_BD, sae.encoder_PD, sae.encoder_bias_P, picker)
    shrink = sae.level.item() if sae.operator_name == "relu" else 0.0
    z_A = u_A if sae.operator.signed else (u_A - shrink).clamp(min=0)
    residual_BD = x_BD - _Decode.apply(z_A, sae.decoder_PD, picker.support) - sae.decoder_bias_D
    loss = residual_BD.square().sum(1).mean() / 2 + shrink * z_A.sum() / len(x_BD)
    return loss, picker.support, z_A, residual_BD


@torch.no_grad()
def follow_k(sae: SparseAutoencoder, x_BD: Float[Tensor, "batch d_model"], *, speed: float = 0.1) -> None:
    """Move the level of a priced operator (ReLU, JumpReLU) towards a mean of k active latents.

    The threshold that would give exactly k on a part of this batch is averaged into the present one. So
    the four operators are compared at the same true L0, with no search over lambda.

    Parameters
    ----------
    sae : SparseAutoencoder
        Its level is changed in place; operators that count are left alone.
    x_BD : Float[Tensor, "batch d_model"]
        A batch in units of the scale.
    speed : float
        Weight of this batch in the running average, (0, 1].

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 64, operator="jumprelu", k=4)
    >>> x_BD = torch.randn(256, 8)
    >>> follow_k(sae, x_BD, speed=1.0)
    >>> (sae.encode(x_BD) != 0).float().sum(1).mean().round()
    tensor(4.)
    """
    if sae.operator.counts:
        return
    u_RP = torch.addmm(sae.encoder_bias_P, x_BD[:ROWS], sae.encoder_PD.T)
    threshold = max(0.0, float(u_RP.flatten().topk(len(u_RP) * sae.k, sorted=False).values.min()))
    target = threshold if sae.operator_name == "relu" else threshold**2 / 2
    now = sae.level.item()
    sae.level.fill_(target if now == 0 else (1 - speed) * now + speed * target)


def fit(
    sae: SparseAutoencoder,
    acts_ND: Float[Tensor, "token d_model"],
    *,
    schedule: Schedule,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 200,
    progress: bool = True,
) -> TrainingLog:
    """Train a sparse autoencoder on activations, in place.

    Parameters
    ----------
    sae : SparseAutoencoder
        A fresh module (or one at any state: it is centred and scaled on the data first).
    acts_ND : Float[Tensor, "token d_model"]
        Activations, float32 on the CPU, at least one batch of them.
    schedule : Schedule
        Steps, batch size, learning rate and the rest.
    checkpoint : str | Path | None
        A safetensors file; written every `checkpoint_every` steps, and read if it is there. A
        run that was broken off goes on from it to the same weights as one that was not.
    progress : bool
        Show a bar.

    Returns
    -------
    TrainingLog
        The log. Its losses are those of this call: a resumed run holds all steps.

    Raises
    ------
    ValueError
        No tokens, fewer than a batch, NaN or infinity, another width, or a checkpoint of another
        run.
    FloatingPointError
        The loss stops being finite; the checkpoint of before is kept.

    Notes
    -----
    arXiv 2510.00404, Section 3 and Appendix B (Adam; the schedule is this book's).

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 16, operator="topk", k=2)
    >>> acts_ND = torch.randn(512, 2) @ torch.randn(2, 8)
    >>> log = fit(sae, acts_ND, schedule=Schedule(steps=100, batch_size=256, lr=1e-2), progress=False)
    >>> log.loss[-1] < log.loss[0]
    True

    Taught in: sae-derivation
    """
    _refuse_bad(acts_ND, sae.d_model, schedule.batch_size)
    run = _Run(sae, acts_ND, schedule)
    if checkpoint is not None and Path(checkpoint).exists():
        run.resume(checkpoint)
    began, first = time.perf_counter(), run.step
    for step in tqdm(range(first, schedule.steps), disable=not progress, desc=sae.operator.name, unit="step"):
        run.advance(step)
        if checkpoint is not None and (step + 1) % checkpoint_every == 0:
            run.save(checkpoint)
    seconds = time.perf_counter() - began
    run.log.tokens_per_second = (schedule.steps - first) * schedule.batch_size / max(seconds, 1e-9)
    run.log.dead = float((run.silent_P >= max(1, schedule.steps // 4)).float().mean())
    return run.log


def _refuse_bad(acts_ND: Tensor, d_model: int, batch_size: int) -> None:
    """Stop before the first step if the data cannot be trained on."""
    if acts_ND.shape[-1] != d_model:
        raise ValueError(f"activations are {acts_ND.shape[-1]} wide, the SAE expects {d_model}")
    if len(acts_ND) < batch_size:
        raise ValueError(
            f"{len(acts_ND)} tokens are less than a batch of {batch_size}: collect more, or lower it"
        )
    bad = int((~acts_ND.isfinite()).any(1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(acts_ND)} tokens hold NaN or infinity: drop them, then train")


class _Run:
    """A training run between two steps: everything that a checkpoint must hold."""

    def __init__(self, sae: SparseAutoencoder, acts_ND: Tensor, schedule: Schedule) -> None:
        self.sae, self.acts_ND, self.schedule = sae, acts_ND, schedule
        self.step, self.log = 0, TrainingLog()
        self.silent_P = torch.zeros(sae.n_latents, dtype=torch.long)
        sae.start_from(acts_ND)
        self.adam = torch.optim.Adam(sae.parameters(), lr=schedule.lr, betas=(0.9, 0.99), fused=True)

    def batch(self, step: int) -> Tensor:
        """Take the batch of a step: a new order each epoch, known from the seed alone."""
        per_epoch = len(self.acts_ND) // self.schedule.batch_size
        epoch, place = divmod(step, per_epoch)
        if getattr(self, "_epoch", None) != epoch:
            dice = torch.Generator().manual_seed(self.schedule.seed * 100_003 + epoch)
            self._epoch, self._order_N = epoch, torch.randperm(len(self.acts_ND), generator=dice)
        rows = self._order_N[place * self.schedule.batch_size : (place + 1) * self.schedule.batch_size]
        return self.acts_ND[rows] / self.sae.scale

    def advance(self, step: int) -> None:
        """Take one optimiser step."""
        for group in self.adam.param_groups:
            group["lr"] = self.schedule.rate(step)
        x_BD = self.batch(step)
        follow_k(self.sae, x_BD)
        loss, support, z_A, residual_BD = step_loss(self.sae, x_BD)
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {step}: lower lr ({self.schedule.lr})"
            )
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        self.sae.unit_norm()
        self.note(loss, support, z_A.detach() != 0)
        if self.schedule.revives_at(step):
            self.revive(x_BD, residual_BD.detach())
        self.step = step + 1

    def note(self, loss: Tensor, support: Support, fired_A: Bool[Tensor, "active"]) -> None:
        """Write down loss and L0, and how long each latent has been silent."""
        self.silent_P += 1
        self.silent_P[support.latent_A[fired_A]] = 0
        self.log.loss.append(loss.item())
        self.log.l0.append(float(fired_A.sum()) / support.shape[0])

    @torch.no_grad()
    def revive(self, x_BD: Tensor, residual_BD: Tensor) -> None:
        """Point silent latents at the tokens that are reconstructed worst; forget their momentum."""
        worst_B = residual_BD.square().sum(1).argsort(descending=True)
        dead = (self.silent_P >= self.schedule.revive_every).nonzero().flatten()[: len(worst_B)]
        rows_RD = torch.nn.functional.normalize(residual_BD[worst_B[: len(dead)]], dim=1)
        self.sae.decoder_PD[dead] = rows_RD
        self.sae.encoder_PD[dead] = rows_RD
        self.sae.encoder_bias_P[dead] = -rows_RD @ self.sae.decoder_bias_D
        for parameter in (self.sae.decoder_PD, self.sae.encoder_PD, self.sae.encoder_bias_P):
            for moment in ("exp_avg", "exp_avg_sq"):
                self.adam.state[parameter][moment][dead] = 0
        self.silent_P[dead] = 0
        self.log.revived += len(dead)

    def identity(self) -> dict:
        """Say which run this is, so that a checkpoint of another one is refused."""
        return {
            **self.sae.settings(),
            **asdict(self.schedule),
            "tokens": len(self.acts_ND),
            "scale": self.sae.scale.item(),
        }

    def save(self, path: str | Path) -> None:
        """Write weights, Adam's moments, counters and log."""
        tensors = {f"sae.{name}": tensor for name, tensor in self.sae.state_dict().items()}
        for place, moments in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{place}.{name}": tensor for name, tensor in moments.items()}
        tensors["silent"] = self.silent_P
        write_safetensors(
            path, tensors, settings={"step": self.step, "run": self.identity(), "log": asdict(self.log)}
        )

    def resume(self, path: str | Path) -> None:
        """Go on from a checkpoint of this very run."""
        tensors, settings = read_safetensors(path)
        if settings.get("run") != self.identity():
            raise ValueError(f"{path} is a checkpoint of another run: delete it, or give another name")
        self.sae.load_state_dict({n[4:]: t for n, t in tensors.items() if n.startswith("sae.")})
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("adam."):
                _, place, moment = name.split(".")
                moments.setdefault(int(place), {})[moment] = tensor
        self.adam.load_state_dict({**self.adam.state_dict(), "state": moments})
        self.silent_P, self.step = tensors["silent"], settings["step"]
        self.log = TrainingLog(**settings["log"])
