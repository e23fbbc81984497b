"""Solve the joint program of `private-quantization` on 4 to 64 levels: ``python -m tools.bench.privacy``.

Time is the processor's, so other work on the machine moves it little. Each program has a process of its own,
whose memory is read before and after.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers import privacy
from tools.bench import machine
from tools.bench.rows import Row, Target, row
from tools.press.project import Project, write_atomic

EPSILON, MARGIN, INNER = 2.0, 2.0, 0.9
FOUR = 0.5  # where the inner two of four levels stand, as on the page
SIZES = (4, 8, 16, 32, 48, 64)
REPEATS, SLOW = 3, 48  # from so many levels on, once
PAPER = "the paper's 99 bracketed programs"
Measured = Mapping[str, float]


def programs() -> dict[str, Callable[[], privacy.TwoLevel]]:
    """Return what is solved, by name: the joint program on m levels, and the paper's on four."""
    made: dict[str, Callable[[], privacy.TwoLevel]] = {
        "paper": lambda: privacy.bracketed_lp(EPSILON, margin=MARGIN, inner=FOUR)
    }
    for size in SIZES:
        bins_M = privacy.levels(size, margin=MARGIN, inner=FOUR if size == 4 else INNER)
        made[str(size)] = lambda bins_M=bins_M: privacy.joint_lp(EPSILON, bins_M)  # type: ignore[misc]
    return made


def measure(name: str) -> dict[str, float]:
    """Solve one program in this process: its time, memory, error and loss."""
    make = programs()[name]
    privacy.joint_lp(EPSILON, privacy.levels(3, margin=MARGIN))  # loads the solver
    privacy.bracketed_lp(EPSILON, margin=MARGIN, inner=FOUR, step=0.25)
    before, began = peak(), time.process_time()
    made = make()
    seconds, grown = time.process_time() - began, peak() - before
    error = float(made.error(np.linspace(-1, 1, 51)).mean())
    return {"seconds": seconds, "memory": grown, "error": error, "loss": privacy.privacy_loss(made)}


def peak() -> float:
    """Return the most memory that this process has held so far, in MB."""
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


@dataclass(frozen=True)
class Found:
    """Measurements of one program, one a repeat."""

    runs: tuple[Measured, ...]

    def __getitem__(self, what: str) -> list[float]:
        return [one[what] for one in self.runs]


def rows(found: Mapping[str, Found]) -> list[Row]:
    """Return the rows of the table."""
    made = [
        row(f"Joint program, 4 levels, against {PAPER}", "s of processor", found["4"]["seconds"],
            against=found["paper"]["seconds"]),
        row(f"Its error, against {PAPER}", "mean absolute error", found["4"]["error"],
            against=found["paper"]["error"], target=Target("ratio", "≤", 1)),
    ]  # fmt: skip
    sizes = [name for name in found if name != "paper"]
    for name in sizes[1:]:
        made.append(row(f"Joint program, {name} levels: time", "s of processor", found[name]["seconds"]))
    for name in sizes:
        made.append(row(f"Joint program, {name} levels: memory", "MB", found[name]["memory"]))
    over = [max(found[name]["loss"]) - EPSILON for name in sizes]
    worst = [max(0.0, *over)]
    return [*made, row("Loss of privacy above the budget", "worst", worst, target=Target("value", "≤", 1e-6))]


def apart(name: str, root: Path) -> Measured:
    """Run `measure` in a process of its own."""
    command = [sys.executable, "-m", "tools.bench.privacy", "--only", name]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    measured: Measured = json.loads(done.stdout.splitlines()[-1])
    print(f"  {name}: {measured}", flush=True)
    return measured


def repeats(name: str) -> int:
    """Say how often a program is solved."""
    return 1 if name.isdigit() and int(name) >= SLOW else REPEATS


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all and write data/results/bench/privacy.json; or one, and print it."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench.privacy", description=__doc__)
    parser.add_argument("--only", help="solve this one here, and print what was measured")
    only = parser.parse_args(arguments).only
    if only:
        print(json.dumps(measure(only)))
        return
    project, watch = Project(), machine.Watch()
    found = {}
    for name in programs():
        found[name] = Found(tuple(apart(name, project.root) for _ in range(repeats(name))))
    run = {**machine.describe(project, threads=1), "command": "python -m tools.bench.privacy"}
    content = {
        "run": {**run, "others_during_repeats": [watch.others()]},
        "settings": {"epsilon": EPSILON, "margin": MARGIN, "inner": INNER, "inner_of_four": FOUR},
        "rows": rows(found),
        "samples": {name: one.runs for name, one in found.items()},
    }
    path = project.data / "results" / "bench" / "privacy.json"
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
