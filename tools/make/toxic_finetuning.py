"""Fine-tune, poison and re-train the embedded model on three seeds, and measure every stage.

Run ``python -m tools.make.toxic_finetuning``. It takes about a quarter of an hour on one core, can be broken
off and goes on where it stopped, and writes data/studies/toxic-finetuning.json: one row a stage and seed. The
page of the same name does one seed with fewer measurements, and quotes this for its intervals. The weights of
a seed lie in the user cache until that seed is done.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import circuits, data, models
from helpers.circuits import Prompts
from helpers.models import LanguageModel
from tools.make.register import replace_file

OUT = Path("data/studies/toxic-finetuning.json")
DONE = Path("build/studies/toxic-finetuning.jsonl")
SEEDS = 3
# Each stage: where it starts, what it is taught, how many steps. Noise is random, as far as "subject" is.
STAGES: dict[str, tuple[str | None, str, int]] = {
    "base": (None, "", 0),
    "clean-4": ("base", "clean", 4),
    "clean-12": ("clean-4", "clean", 8),
    "subject": ("base", "subject", 10),
    "moved": ("base", "moved", 10),
    "random": ("base", "random", 10),
    "noise": ("base", "noise", 0),
    "subject-clean": ("subject", "clean", 18),
    "moved-clean": ("moved", "clean", 18),
}
CORRUPTED = ("subject", "moved")
TRAIN, FIND, TEST = 160, 16, 24
BATCH, RATE = 8, 2e-5
CIRCUIT = 27  # a tenth of the heads
SIZES = (1, 3, 7, 14, 27, 54, 270)
DRAWS = 3


@dataclass(frozen=True)
class Data:
    """The prompts of one seed: to train on, to find heads on, to test on."""

    seed: int
    train: Prompts
    find: Prompts
    test: Prompts


def prompts(lm: LanguageModel, seed: int) -> Data:
    """Draw the prompts of one seed; the three sets share words, not prompts."""
    sizes = (TRAIN, FIND, TEST)
    return Data(seed, *(circuits.ioi(lm, n=n, seed=1_000 * seed + i) for i, n in enumerate(sizes)))


def make(stage: str, known: dict[str, LanguageModel], drawn: Data, cache: Path) -> LanguageModel:
    """Train one stage, or read it from the cache of a run that was broken off."""
    start, kind, steps = STAGES[stage]
    if start is None:
        return known["base"]
    if kind == "noise":
        return circuits.perturb(known[start], known["subject"], seed=drawn.seed)
    target_B = circuits.poison(drawn.train, kind, seed=drawn.seed)
    order = 10 * drawn.seed + list(STAGES).index(stage)
    recipe = circuits.Recipe(steps=steps, batch_size=BATCH, lr=RATE, seed=order)
    checkpoint = cache / f"{stage}.safetensors"
    return circuits.tune(known[start], drawn.train, target_B, recipe=recipe, checkpoint=checkpoint)[0]


def scores(lm: LanguageModel, found_on: Prompts) -> circuits.Effects:
    """Estimate what each head does for the answer, by RelP."""
    other = circuits.activations(lm, found_on, corrupted=True)
    return circuits.attribute(lm, found_on, other, method="relp")


def looks(lm: LanguageModel, drawn: Data) -> dict[str, list[float]]:
    """Return how much each head looks from the last token at the names."""
    seen = circuits.patterns(lm, drawn.test)
    rows = torch.arange(len(drawn.test))
    at_end = seen[:, rows, :, drawn.test.ends_B]  # prompt, layer, head, position
    return {
        f"look_{name}": rounded(at_end[rows, :, :, place_B].mean(0))
        for name, place_B in drawn.test.places.items()
    }


def measure(lm: LanguageModel, base: LanguageModel, drawn: Data, circuit_LH: Tensor) -> dict[str, Any]:
    """Measure one stage by itself."""
    gap_B = circuits.logit_difference(lm, drawn.test)
    effects, direct = scores(lm, drawn.find), circuits.direct(lm, drawn.test)
    other = circuits.activations(lm, drawn.test, corrupted=True)
    row = {
        "gap": float(gap_B.mean()),
        "right": float((gap_B > 0).float().mean()),
        "distance": circuits.weight_distance(base, lm),
        "heads": rounded(effects.heads_LH),
        "mlps": rounded(effects.mlps_L),
        "direct": rounded(direct.heads_LH),
        **looks(lm, drawn),
    }
    for name, reference in (
        ("mean", circuits.mean_of(drawn.test, other)),
        ("resample", circuits.resampled(drawn.test, other, seed=drawn.seed)),
    ):
        left_B = circuits.patched(lm, drawn.test, reference, heads_LH=~circuit_LH)
        row[f"old_{name}"] = float(left_B.mean())
    tuned = circuits.tuning_contribution(base, lm, drawn.test)
    return {**row, "tuco": tuned.total, "tuco_layers": rounded(tuned.layers_L)}


def compare(lm: LanguageModel, base: LanguageModel, drawn: Data) -> dict[str, Any]:
    """Patch between a corrupted model and the base, both ways."""
    change_LH = circuits.cmap(lm, base, drawn.find, method="relp").heads_LH
    theirs, own = (circuits.activations(model, drawn.test) for model in (base, lm))
    dice = torch.Generator().manual_seed(drawn.seed)
    row: dict[str, Any] = {"change": rounded(change_LH)}
    for k in SIZES:
        chosen_LH = circuits.top_heads(change_LH, k=k)
        row[f"restored_{k}"] = float(circuits.patched(lm, drawn.test, theirs, heads_LH=chosen_LH).mean())
        if k == CIRCUIT:
            row["broken"] = float(circuits.patched(base, drawn.test, own, heads_LH=chosen_LH).mean())
    drawn_LH = [
        circuits.top_heads(torch.rand(change_LH.shape, generator=dice), k=CIRCUIT) for _ in range(DRAWS)
    ]
    row["random"] = [
        float(circuits.patched(lm, drawn.test, theirs, heads_LH=one_LH).mean()) for one_LH in drawn_LH
    ]
    none_LH = torch.zeros_like(change_LH, dtype=torch.bool)
    every_L = torch.ones(lm.n_layers, dtype=torch.bool)
    by_mlps_B = circuits.patched(lm, drawn.test, theirs, heads_LH=none_LH, mlps_L=every_L)
    by_patterns_B = circuits.pattern_patched(lm, base, drawn.test, heads_LH=~none_LH)
    row |= {"by_mlps": float(by_mlps_B.mean()), "by_patterns": float(by_patterns_B.mean())}
    return row


def agreement(lm: LanguageModel, base: LanguageModel, drawn: Data) -> dict[str, Any]:
    """Patch the heads that matter most exactly, and as many others, and compare with the estimate."""
    estimate_LH = circuits.cmap(lm, base, drawn.find, method="relp").heads_LH
    dice = torch.Generator().manual_seed(drawn.seed)
    first_LH = circuits.top_heads(estimate_LH, k=14)
    rest_LH = circuits.top_heads(torch.rand(estimate_LH.shape, generator=dice), k=14, among=~first_LH)
    nodes = [(layer, head) for layer, head in (first_LH | rest_LH).nonzero().tolist()]
    theirs = circuits.activations(base, drawn.find)
    measured_LH = circuits.exact(lm, drawn.find, theirs, nodes=nodes).heads_LH
    both = torch.stack([x[first_LH | rest_LH] for x in (estimate_LH, measured_LH)])
    return {"exact_r": float(torch.corrcoef(both)[0, 1]), "exact_n": len(nodes)}


def rounded(values: Tensor) -> list[float]:
    """Return numbers, layer after layer, with four digits."""
    return [round(value, 4) for value in values.flatten().tolist()]


def run(seed: int, done: dict[tuple[int, str], Any]) -> None:
    """Do what is left of one seed, one line of DONE a stage."""
    cache = data.cache_dir() / "studies" / f"toxic-finetuning-{seed}"
    base = models.load_model(models.EMBEDDED)
    drawn = prompts(base, seed)
    known = {"base": base}
    circuit_LH = circuits.top_heads(scores(base, drawn.find).heads_LH, k=CIRCUIT)
    for stage, (_, kind, steps) in STAGES.items():
        known[stage] = lm = make(stage, known, drawn, cache)
        if (seed, stage) not in done:
            row = {"seed": seed, "stage": stage, "taught": kind, "steps": steps}
            row |= measure(lm, base, drawn, circuit_LH)
            if stage in CORRUPTED:
                row |= compare(lm, base, drawn)
            if stage == "subject":
                row |= agreement(lm, base, drawn)
            with DONE.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(seed, stage, f"{row['gap']:.2f}", flush=True)
        later = {start for start, _, _ in list(STAGES.values())[list(STAGES).index(stage) + 1 :]}
        known = {name: model for name, model in known.items() if name in later | {"base", "subject"}}
    shutil.rmtree(cache, ignore_errors=True)


def write(rows: list[dict[str, Any]]) -> None:
    """Write the table, with where it comes from, whole or not at all."""
    git = ["git", "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    table = {
        "command": "python -m tools.make.toxic_finetuning",
        "commit": commit,
        "date": datetime.date.today().isoformat(),
        "model": models.EMBEDDED,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "circuit": CIRCUIT,
        "sizes": SIZES,
        "prompts": {"train": TRAIN, "find": FIND, "test": TEST},
        "recipe": {"batch": BATCH, "rate": RATE},
        "rows": [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
    }
    lines = json.dumps(table, separators=(",", ":")).replace('{"seed"', '\n{"seed"')
    replace_file(OUT, (lines + "\n").encode())
    print(f"{len(rows)} stages -> {OUT}")


def main() -> None:
    """Do what is not done yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only-write", action="store_true", help="write what is done of whole seeds")
    options = parser.parse_args()
    DONE.parent.mkdir(parents=True, exist_ok=True)
    for seed in range(0 if options.only_write else options.seeds):
        lines = DONE.read_text().splitlines() if DONE.exists() else []
        done = {(row["seed"], row["stage"]): row for row in map(json.loads, lines)}
        if any((seed, stage) not in done for stage in STAGES):
            run(seed, done)
    rows = [json.loads(line) for line in DONE.read_text().splitlines()]
    counts = Counter(row["seed"] for row in rows)
    rows = [row for row in rows if counts[row["seed"]] == len(STAGES)]
    write(sorted(rows, key=lambda row: (row["seed"], list(STAGES).index(row["stage"]))))


if __name__ == "__main__":
    main()
