"""The process that one contender runs in: pinned, with its own threads; ends with a line of JSON."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from helpers.sae import Schedule
from helpers.weights import read_safetensors
from tools.bench import checks, training

Numbers = dict[str, float]


def train(options: argparse.Namespace) -> Numbers:
    """Train one SAE."""
    tensors, _ = read_safetensors(options.file)
    schedule = Schedule(steps=options.steps, batch_size=options.batch, seed=options.seed)
    task = training.Task(tensors["train"], tensors["test"], schedule, n_latents=options.latents, k=options.k)
    return training.measure(options.contender, task)


def check(options: argparse.Namespace) -> Numbers:
    """Read files of the peers."""
    tensors, _ = read_safetensors(options.file)
    with tempfile.TemporaryDirectory() as folder:
        return checks.measure(tensors["train"], tensors["test"], Path(folder))


def prepare(options: argparse.Namespace) -> Numbers:
    """Collect the data."""
    from tools.bench import collection

    collection.prepare(options.file, blocks=options.blocks)
    return {}


def collect(options: argparse.Namespace) -> Numbers:
    """Collect activations in all ways; the differences are taken on one batch."""
    from tools.bench import collection

    tokens_BT = read_safetensors(options.file)[0]["tokens"]
    if options.contender == "collect_difference":
        return collection.difference(tokens_BT[: collection.BATCH])
    return collection.measure(tokens_BT[: options.collect_blocks])


def fair(options: argparse.Namespace) -> Numbers:
    """Post-process a network, and train it anew with a reduction."""
    from tools.bench import fairness

    return fairness.measure(options.fair_people, seed=options.seed)


def patch(options: argparse.Namespace) -> Numbers:
    """Patch attention heads exactly, and estimate all of them."""
    from tools.bench import patching

    return patching.measure(options.patch_prompts, seed=options.seed)


def denoise(options: argparse.Namespace) -> Numbers:
    """Denoise a long recording."""
    from tools.bench import denoising

    return denoising.measure(options.ecg_seconds, seed=options.seed)


def job(contender: str) -> Callable[[argparse.Namespace], Numbers]:
    """Return what a contender's name stands for."""
    if contender.startswith("collect"):
        return collect
    jobs = {"prepare": prepare, "check": check, "fair": fair, "patch": patch, "denoise": denoise}
    return jobs.get(contender, train)


def pin(threads: int) -> None:
    """Use so many threads, on the first so many processors where the system lets a process choose."""
    torch.set_num_threads(threads)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def parser() -> argparse.ArgumentParser:
    """Return the options that the main process hands on."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("contender")
    options.add_argument("--file", type=Path, required=True)
    sizes = (
        "steps",
        "batch",
        "latents",
        "k",
        "collect-blocks",
        "fair-people",
        "patch-prompts",
        "ecg-seconds",
    )
    for name in ("threads", "seed", *sizes):
        options.add_argument(f"--{name}", type=int, required=True)
    options.add_argument("--blocks", type=int)
    return options


if __name__ == "__main__":
    given = parser().parse_args()
    pin(given.threads)
    print(json.dumps(job(given.contender)(given)))
