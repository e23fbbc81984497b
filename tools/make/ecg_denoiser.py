"""Train the denoisers of the chapter on ECGs: three seeds of each of three, into one file.

Run ``python -m tools.make.ecg_denoiser``. It takes about half an hour of one core, can be broken off (after
``--minutes`` by itself), goes on where it stopped, and writes data/adapters/ecg-denoiser.safetensors.
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

OUT = Path("data/adapters/ecg-denoiser.safetensors")
WORK = Path("build/ecg-denoiser")
SEEDS = 3
RATE, LENGTH, SECONDS = 180, 128, 60.0  # 128 samples are the 0.71 s of the paper's 256 at 360 a second
RECORDS, NOISES, PART = 48, 6, (0.0, 0.8)  # the last fifth of each record is for the split by segment
EVERY = 4  # the consistency step follows every so many batches
# (batches, segments of a batch, learning rate, levels in dB): first the levels of the paper, then more
PHASES = (
    (480, 32, 2e-3, noise.LEVELS),
    (1200, 8, 1e-3, (-8.0, -4.0, -2.0, 0.0, 2.0, 4.0, 8.0, 16.0)),
)
SAVE_EVERY = 40


def makers() -> dict[str, Callable[[], Any]]:
    """Say what is trained: the model, the same with one scale, and a U-Net of comparable size."""
    return {
        "multi-scale": lambda: model.PatchTransformer((1, 3, 5, 7), per_scale=1, length=LENGTH),
        "single-scale": lambda: model.PatchTransformer((4, 4, 4, 4), per_scale=1, length=LENGTH),
        "U-Net": lambda: model.UNet(16),
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


def train(name: str, seed: int, *, until: float, phases: int) -> Any:
    """Train one denoiser, or go on where it was broken off."""
    torch.manual_seed(seed)
    net = makers()[name]()
    data, before = records(), 0
    path = WORK / f"{name}-{seed}.safetensors"
    for steps, batch, rate, levels in PHASES[:phases]:
        optimiser = torch.optim.Adam(net.parameters(), lr=rate)
        done = resume(path, net, optimiser, before=before) if path.exists() else before
        recipe = model.Recipe(steps=steps, batch=batch, rate=rate, every=EVERY, seed=seed + 100 * before)
        start = min(done - before, steps)
        note = Note(path, net, optimiser, before=before, steps=steps, until=until)
        made = model.batches(*data, recipe=recipe, start=start, length=LENGTH, part=PART, levels=levels)
        model.fit(net, made, recipe=recipe, start=start, optimiser=optimiser, after=note)
        before += steps
    return net.eval()


@dataclass
class Note:
    """Write a checkpoint now and then, and stop when the time is over."""

    path: Path
    net: nn.Module
    optimiser: torch.optim.Optimizer
    before: int
    steps: int
    until: float

    def __call__(self, done: int) -> None:
        """Note that so many batches of this phase are done."""
        if done % SAVE_EVERY and done != self.steps:
            return
        checkpoint(self.path, self.net, self.optimiser, self.before + done)
        print(self.path.stem, self.before + done, flush=True)
        if time.monotonic() > self.until and done < self.steps:
            raise OutOfTime


def checkpoint(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, done: int) -> None:
    """Write weights and the optimiser's memory, whole or not at all."""
    tensors = {f"net/{k}": v for k, v in net.state_dict().items()}
    for key, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam/{key}/{name}": torch.as_tensor(v).clone() for name, v in state.items()}
    write_safetensors(path, tensors, settings={"done": done})


def resume(path: Path, net: nn.Module, optimiser: torch.optim.Optimizer, *, before: int) -> int:
    """Read what `checkpoint` wrote, and return how many batches were done; Adam's memory is of its phase."""
    tensors, settings = read_safetensors(path)
    net.load_state_dict({k.removeprefix("net/"): v for k, v in tensors.items() if k.startswith("net/")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("adam/"):
            _, key, field = name.split("/")
            state.setdefault(int(key), {})[field] = value
    done = int(settings["done"])
    if done > before:
        optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    return done


def main() -> None:
    """Train what is not trained yet, then write the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=90.0, help="break off after so long")
    parser.add_argument("--phases", type=int, default=len(PHASES), help="do the first so many only")
    options = parser.parse_args()
    until, nets = time.monotonic() + 60 * options.minutes, {}
    try:
        for seed in range(SEEDS):
            for name in makers():
                nets[f"{name} {seed}"] = train(name, seed, until=until, phases=options.phases)
    except OutOfTime:
        print(f"broken off with {len(nets)} of {SEEDS * len(makers())} trained; run it again to go on")
        return
    notes = {
        "command": "python -m tools.make.ecg_denoiser", "torch": torch.__version__, "rate": RATE,
        "length": LENGTH, "seconds": SECONDS, "records": RECORDS, "noises": NOISES, "part": PART,
        "phases": PHASES[: options.phases], "every": EVERY, "seeds": SEEDS,
    }  # fmt: skip
    print(model.save(nets, OUT, notes=notes), OUT.stat().st_size)


if __name__ == "__main__":
    main()
