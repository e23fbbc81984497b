"""Train the denoisers of the chapter on ECGs: three seeds of each of three, and one of the paper's width.

Run ``python -m tools.make.ecg_denoiser``. It takes a little more than an hour of one core, can be broken off
(after ``--minutes`` by itself), goes on where it stopped, and writes two files into data/adapters/:
ecg-denoiser.safetensors and, with the network of the paper's width, ecg-denoiser-wide.safetensors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from helpers.ecg import model, noise, signals
from helpers.weights import read_safetensors, write_safetensors

OUT, WORK = Path("data/adapters"), Path("build/ecg-denoiser")
SEEDS = 3
SMALL = ("multi-scale", "single-scale", "U-Net")  # these three times each; the wide one once
RATE, LENGTH, SECONDS = 180, 128, 60.0  # 128 samples are the 0.71 s of the paper's 256 at 360 a second
RECORDS, NOISES, PART = 48, 6, (0.0, 0.8)  # the last fifth of each record is for the split by segment
LEVELS = (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0, 16.0)  # those of the paper, and more on both sides
STEPS, BATCH, PEAK = 8000, 16, 2e-3  # sixteen times the paper's 8,000 segments; highest learning rate
EVERY = 4  # the consistency step follows every so many batches
SAVE_EVERY = 200


def makers() -> dict[str, Callable[[], Any]]:
    """Say what is trained: the model, the same with one scale, a U-Net of comparable size; the wide one."""
    return {
        "multi-scale": lambda: model.PatchTransformer((1, 3, 5, 7), per_scale=1, length=LENGTH),
        "single-scale": lambda: model.PatchTransformer((4, 4, 4, 4), per_scale=1, length=LENGTH),
        "U-Net": lambda: model.UNet(16),
        "wide": lambda: model.PatchTransformer((1, 3, 5, 7), per_scale=2, length=LENGTH),
    }


def records() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Simulate what they learn from."""
    clean = [signals.simulate(i, seconds=SECONDS, rate=RATE).signal_CT for i in range(RECORDS)]
    noises = {
        kind: np.stack([noise.make(kind, i, seconds=SECONDS, rate=RATE) for i in range(NOISES)])
        for kind in noise.KINDS
    }
    return np.stack(clean), noises


class OutOfTime(Exception):  # noqa: N818  (it is not an error)
    """The minutes are spent; what was done is kept."""


def train(name: str, seed: int, *, until: float) -> Any:
    """Train one denoiser, or go on where it was broken off."""
    torch.manual_seed(seed)
    net = makers()[name]()
    path = WORK / f"{name}-{seed}.safetensors"
    optimiser = torch.optim.Adam(net.parameters(), lr=PEAK, fused=True)
    start = resume(path, net, optimiser) if path.exists() else 0
    recipe = model.Recipe(steps=STEPS, batch=BATCH, rate=PEAK, every=EVERY, seed=seed)
    made = model.batches(*records(), recipe=recipe, start=start, length=LENGTH, part=PART, levels=LEVELS)
    losses = model.fit(
        net, made, recipe=recipe, start=start, optimiser=optimiser, after=Note(path, net, optimiser, until)
    )
    if losses:
        print(name, seed, f"loss of the last batches: {np.mean(losses[-SAVE_EVERY:]):.4f}", flush=True)
    return net.eval()


@dataclass
class Note:
    """Write a checkpoint now and then, and stop when the time is over."""

    path: Path
    net: nn.Module
    optimiser: torch.optim.Optimizer
    until: float

    def __call__(self, done: int) -> None:
        """Note that so many batches are done."""
        if done % SAVE_EVERY and done != STEPS:
            return
        checkpoint(self.path, self.net, self.optimiser, done)
        if time.monotonic() > self.until and done < STEPS:
            raise OutOfTime


def checkpoint(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, done: int) -> None:
    """Write weights and the optimiser's memory, whole or not at all."""
    tensors = {f"net/{k}": v for k, v in net.state_dict().items()}
    for key, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam/{key}/{name}": torch.as_tensor(v).clone() for name, v in state.items()}
    write_safetensors(path, tensors, settings={"done": done})


def resume(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer) -> int:
    """Read what `checkpoint` wrote, and return how many batches were done."""
    tensors, settings = read_safetensors(path)
    net.load_state_dict({k.removeprefix("net/"): v for k, v in tensors.items() if k.startswith("net/")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam/"):
            _, key, field = name.split("/")
            state.setdefault(int(key), {})[field] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return int(settings["done"])


def main() -> None:
    """Train what is not trained yet, then write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90.0, help="break off after so long")
    until = time.monotonic() + 60 * parser.parse_args().minutes
    nets = {}
    try:
        for seed in range(SEEDS):
            for name in SMALL:
                nets[f"{name} {seed}"] = train(name, seed, until=until)
        wide = {"wide 0": train("wide", 0, until=until)}
    except OutOfTime:
        print(f"broken off with {len(nets)} of {SEEDS * len(SMALL) + 1} trained; run it again to go on")
        return
    notes = {
        "command": "python -m tools.make.ecg_denoiser", "torch": torch.__version__, "rate": RATE,
        "length": LENGTH, "seconds": SECONDS, "records": RECORDS, "noises": NOISES, "part": PART,
        "steps": STEPS, "batch": BATCH, "peak": PEAK, "levels": LEVELS, "every": EVERY, "seeds": SEEDS,
    }  # fmt: skip
    for made, file in ((nets, "ecg-denoiser"), (wide, "ecg-denoiser-wide")):
        path = model.save(made, OUT / f"{file}.safetensors", notes=notes)
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
