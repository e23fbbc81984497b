"""Measure against the peers: ``make bench``. About twenty minutes on two cores, which must be free."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from helpers._html import format_number
from tools.bench import machine, peers
from tools.bench.rows import Row, rows
from tools.press.project import PressError, Project, write_atomic
from tools.press.table import render

BUSY = 0.15  # share of the processors that others may take
TRAINING = ("ours", "dictionary_learning", "saelens", "saelens_sparse", "bound")
ABROAD = {"dictionary_learning", "saelens", "saelens_sparse", "check"}  # run in the peers' environment
IMPORT = "import time; t = time.perf_counter(); import helpers; print(time.perf_counter() - t)"

Samples = dict[str, dict[str, list[float]]]


@dataclass(frozen=True)
class Settings:
    """What is measured, and how often."""

    repeats: int = 3
    threads: int = 2
    steps: int = 30
    batch: int = 2048
    latents: int = 4608
    k: int = 32
    collect_blocks: int = 64
    fair_people: int = 20_000
    patch_prompts: int = 32
    ecg_seconds: int = 600
    blocks: int | None = 240


QUICK = Settings(
    repeats=2, threads=1, steps=4, batch=512, latents=1024, collect_blocks=8, fair_people=400,
    patch_prompts=4, ecg_seconds=60, blocks=40,
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One run of everything."""

    project: Project
    settings: Settings
    peers: Path

    @property
    def folder(self) -> Path:
        """Where the data lies."""
        return self.project.build / "bench"

    @property
    def data(self) -> Path:
        """The activations that all train on; collected anew in every run."""
        return self.folder / "activations.safetensors"

    def work(self, contender: str, *, seed: int = 0) -> dict[str, float]:
        """Run one contender in its own process, and return what it measured."""
        given = {**asdict(self.settings), "seed": seed, "file": self.data}
        del given["repeats"]
        options = [
            f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None
        ]
        python = str(self.peers) if contender in ABROAD else sys.executable
        return json.loads(self.run(python, "-m", "tools.bench.worker", contender, *options))

    def run(self, *command: str) -> str:
        """Return the last line that a process prints, or say what it died of."""
        threads = str(self.settings.threads)
        quiet = {"HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled", "PYTHONWARNINGS": "ignore"}
        limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        done = subprocess.run(
            command,
            cwd=self.project.root,
            env={**os.environ, **quiet, **limits},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PressError(failure(command, done.stderr))
        return done.stdout.splitlines()[-1]


def failure(command: tuple[str, ...], said: str) -> str:
    """Say what a process died of, and what to do if it is a peer that is not there."""
    last = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
    what = command[3] if len(command) > 3 else command[-1]
    if "ModuleNotFoundError" in last:
        return f"{what}: {last}\nthe environment is not whole: remove build/bench-venv and run it again"
    return f"{what} failed: {last}\nrun it by hand to see all: {' '.join(command)}"


def disturbed(share: float | None, *, allow: bool) -> bool:
    """Say whether others take so much of the processors that the ratios would be noise."""
    return share is not None and share > BUSY and not allow


def alone(*, allow: bool, patience: int = 60) -> None:
    """Wait until the machine is free, or refuse to measure beside other work."""
    for turn in range(patience):
        share = machine.busy()
        if not disturbed(share, allow=allow):
            return
        if turn == 0:
            print(f"others take {share:.0%} of the processors: waiting", flush=True)
        time.sleep(10)
    raise PressError("others keep the processors busy: try again when they are done, or add --beside-others")


def measure(bench: Bench, *, allow: bool) -> tuple[Samples, list[float | None]]:
    """Measure all contenders as often as asked; what others have disturbed is measured again."""
    samples: Samples = {}
    taken: list[float | None] = []
    attempts = 0
    keep(samples, {name: say(name, bench.work(name)) for name in ("collect_difference", "check")})
    while len(taken) < bench.settings.repeats:
        attempts += 1
        if attempts > 3 * bench.settings.repeats:
            raise PressError("others disturbed too many repeats: try again, or add --beside-others")
        alone(allow=allow)
        print(f"repeat {len(taken) + 1} of {bench.settings.repeats}", flush=True)
        watch = machine.Watch()
        found = once(bench, len(taken))
        share = watch.others()
        if disturbed(share, allow=allow):
            print(f"others took {share:.0%} of the processors: once more", flush=True)
            continue
        taken.append(share)
        keep(samples, found)
        raw = {"samples": samples, "others_during_repeats": taken}
        write_atomic(bench.folder / "samples.json", json.dumps(raw))  # what a broken-off run leaves
    return samples, taken


def once(bench: Bench, repeat: int) -> dict[str, dict[str, float]]:
    """Measure all contenders in turn; each repeat starts with another one."""
    found = {}
    first = repeat % len(TRAINING)
    for contender in (*TRAINING[first:], *TRAINING[:first], "collect", "fair", "patch", "denoise"):
        found[contender] = say(contender, bench.work(contender, seed=repeat))
    seconds = float(bench.run(sys.executable, "-c", IMPORT))
    return {**found, "import": say("import", {"seconds": seconds})}


def say(contender: str, found: dict[str, float]) -> dict[str, float]:
    """Print what was measured, and hand it on."""
    shown = ", ".join(f"{name} {format_number(value)}" for name, value in found.items())
    print(f"  {contender}: {shown}", flush=True)
    return found


def keep(samples: Samples, found: dict[str, dict[str, float]]) -> None:
    """Put measurements behind those of the earlier repeats."""
    for contender, values in found.items():
        for name, value in values.items():
            samples.setdefault(contender, {}).setdefault(name, []).append(value)


def write(bench: Bench, samples: Samples, taken: list[float | None], *, path: Path) -> list[Row]:
    """Write what was measured, and on what, whole or not at all."""
    versions = peers.versions(bench.project.root)
    made = rows(samples, versions)
    run: dict[str, Any] = machine.describe(bench.project, threads=bench.settings.threads)
    content = {
        "run": {**run, "others_during_repeats": taken, "versions": versions},
        "settings": asdict(bench.settings),
        "rows": made,
        "samples": samples,
    }
    write_atomic(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return made


def table(made: list[Row]) -> str:
    """Return the table that the command ends with."""

    def cell(value: Any) -> str:
        if value is None:
            return "-"
        return format_number(value) if isinstance(value, (int, float)) else str(value)

    said = {True: "reached", False: "NOT reached", None: ""}
    names = ("name", "unit", "ours", "low", "high", "peer", "ratio", "target")
    body = [[*(cell(row[name]) for name in names), said[row["holds"]]] for row in made]
    return render(["measured", "unit", "ours", "low", "high", "against", "ratio", "to reach", ""], body)


def main(arguments: list[str] | None = None) -> int:
    """Build the peers' environment, collect, measure, write, print."""
    parser = argparse.ArgumentParser(prog="python -m tools.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="try it in tiny; writes into build/bench only")
    parser.add_argument("--beside-others", action="store_true", help="measure on a busy machine as well")
    options = parser.parse_args(arguments)
    project, settings = Project(), QUICK if options.quick else Settings()
    try:
        bench = Bench(project, settings, peers.environment(project.root))
        print("collecting activations", flush=True)
        bench.work("prepare")
        samples, taken = measure(bench, allow=options.beside_others or options.quick)
        place = bench.folder if options.quick else project.data / "results" / "bench"
        print("\n" + table(write(bench, samples, taken, path=place / "sae.json")))
    except PressError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
