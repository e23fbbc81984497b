"""Time layers in Kronecker factors, and block-sparse ones, against dense: ``python -m tools.bench.blocks``.

Time is the processor's, on one thread, so other work on the machine moves it little. Each repeat times both
sides, one after the other.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from helpers import blocksparse
from tools.bench import machine
from tools.bench.rows import Row, Target, row
from tools.press.project import Project, write_atomic

Samples = Mapping[str, Mapping[str, Sequence[float]]]
THREE, EIGHTH = Target("ratio", "≥", 3), Target("ratio", "≤", 1 / 8)


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    batch: int = 256
    width: int = 2048
    others: tuple[int, ...] = (512, 1024, 4096)
    side: int = 8
    zeros: float = 0.75
    repeats: int = 5


def timed(work: Callable[[], object]) -> float:
    """Return the processor's seconds that something takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def turns(ours: Callable[[], object], theirs: Callable[[], object], *, n: int) -> dict[str, list[float]]:
    """Time both in turns, after a warm-up; how often a second each of them runs."""
    ours(), theirs()
    pairs = [(timed(ours), timed(theirs)) for _ in range(n)]
    return {"ours": [1 / one for one, _ in pairs], "other": [1 / other for _, other in pairs]}


def training(layer: nn.Module, x: Tensor) -> tuple[Callable[[], object], float]:
    """Return a whole step (forward, backward, fused Adam), and the MB of weights, gradients and Adam."""
    adam = torch.optim.Adam(layer.parameters(), lr=1e-6, fused=True)
    x = x.clone().requires_grad_()
    pull = torch.randn_like(layer(x))

    def step() -> None:
        adam.zero_grad()
        x.grad = None
        layer(x).backward(pull)
        adam.step()

    step()
    held = [p for p in layer.parameters()]
    held += [p.grad for p in layer.parameters() if p.grad is not None]  # type: ignore[misc]
    held += [m for state in adam.state.values() for m in state.values() if m.dim()]
    return step, sum(t.numel() * t.element_size() for t in held) / 1e6


def steps(width: int, settings: Settings) -> dict[str, list[float]]:
    """Compare a training step in factors with a dense one."""
    x, block = torch.randn(settings.batch, width), (settings.side, settings.side)
    dense = nn.Linear(width, width)
    ours = blocksparse.KroneckerLinear.from_linear(dense, block=block, rank=1)
    (one, small), (other, large) = training(ours, x), training(dense, x)
    return {**turns(one, other, n=settings.repeats), "memory": [small], "memory_other": [large]}


@torch.no_grad()
def inference(settings: Settings) -> dict[str, dict[str, list[float]]]:
    """Compare the factors with a dense layer, and the block-sparse export with torch's and with dense."""
    x = torch.randn(settings.batch, settings.width)
    layer = blocksparse.KroneckerLinear(
        settings.width, settings.width, block=(settings.side, settings.side), rank=1
    )
    layer.scale_PQ.mul_(torch.rand_like(layer.scale_PQ) >= settings.zeros)
    dense, export = layer.to_linear(), layer.to_block_sparse()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = dense.weight.detach().to_sparse_bsr(layer.block)
    contest = {
        "factors": (lambda: layer(x), lambda: dense(x)),
        "export_bsr": (lambda: export(x), lambda: F.linear(x, theirs)),
        "export_dense": (lambda: export(x), lambda: dense(x)),
    }
    gap = max((export(x) - dense(x)).abs().max(), (layer(x) - dense(x)).abs().max())
    found = {name: turns(*pair, n=settings.repeats) for name, pair in contest.items()}
    return {**found, "gap": {"ours": [float(gap)]}}


def rows(found: Samples, settings: Settings) -> list[Row]:
    """Return the rows of the table."""
    shape = f"{settings.side} x {settings.side} blocks of rank 1"
    main, unit = found[f"train_{settings.width}"], "steps a second of processor"
    made = [
        row(f"Training step, width {settings.width}, {shape}, against dense", unit, main["ours"],
            against=main["other"], target=THREE),
        row("Its weights, gradients and Adam's memory, against dense", "MB", main["memory"],
            against=main["memory_other"], target=EIGHTH),
    ]  # fmt: skip
    for width in settings.others:
        one = found[f"train_{width}"]
        made.append(row(f"The same at width {width}", unit, one["ours"], against=one["other"]))
    sparse = f"Block-sparse export at {settings.zeros:.0%} zero blocks"
    unit = "batches a second of processor"
    for name, what, target in (
        ("factors", "Inference through the factors, against dense", THREE),
        ("export_bsr", f"{sparse}, against torch's linear on BSR", Target("ratio", "≥", 1)),
        ("export_dense", f"{sparse}, against dense", None),
    ):
        made.append(row(what, unit, found[name]["ours"], against=found[name]["other"], target=target))
    close = Target("value", "≤", 1e-4)
    return [*made, row("Both, and the dense layer", "largest difference", found["gap"]["ours"], target=close)]


def measure(settings: Settings, *, seed: int = 0) -> dict[str, dict[str, list[float]]]:
    """Measure everything on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    widths = (settings.width, *settings.others)
    return {**{f"train_{width}": steps(width, settings) for width in widths}, **inference(settings)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all and write data/results/bench/blocks.json."""
    argparse.ArgumentParser(prog="python -m tools.bench.blocks", description=__doc__).parse_args(arguments)
    project, watch, settings = Project(), machine.Watch(), Settings()
    found = measure(settings)
    made = rows(found, settings)
    run = {**machine.describe(project, threads=1), "command": "python -m tools.bench.blocks"}
    content = {
        "run": {**run, "others_during_repeats": [watch.others()]},
        "settings": asdict(settings),
        "rows": made,
        "samples": found,
    }
    path = project.data / "results" / "bench" / "blocks.json"
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    for one in made:
        print(f"{one['name']}: {one['ours']:.4g} {one['unit']}, ratio {one['ratio']}, {one['holds']}")


if __name__ == "__main__":
    main()
