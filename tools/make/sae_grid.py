"""Train the grid of sparse autoencoders that the page `sae-derivation` quotes.

Run ``python -m tools.make.sae_grid``. It takes over an hour on two cores, can be broken off and goes on
where it stopped, and writes data/studies/sae-grid.json: one row an autoencoder, with its settings, seed and
held-out numbers. The page itself trains a smaller part of this and shows both.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers import data, models, trace
from helpers.sae import (
    AblationLosses,
    Schedule,
    SparseAutoencoder,
    ablation_losses,
    fit,
    loss_recovered,
    reconstruction,
    sign_audit,
)

OUT = Path("data/studies/sae-grid.json")
DONE = Path("build/studies/sae-grid.jsonl")
LAYERS = (10, 20)
SPARSITIES = (16, 32, 57)  # the last is d / 10
SEEDS, VARIATION_SEEDS = 3, 2
OPERATORS = ("relu", "jumprelu", "topk", "abstopk")
DEFAULT = {
    "layer": 10,
    "k": 32,
    "expansion": 4,
    "lr": 1e-3,
    "steps": 200,
    "start": "tied",
    "bias": True,
    "revive": 0,
}
# One change at a time, for the two operators that the paper compares.
VARIATIONS: tuple[dict[str, Any], ...] = (
    {"lr": 3e-4},
    {"lr": 3e-3},
    {"start": "untied"},
    {"bias": False},
    {"k": 8},
    {"revive": 100},
    {"expansion": 2},
)


def plan() -> Iterator[dict[str, Any]]:
    """List every autoencoder: the grid over seeds, layers, k and operators, then the variations."""
    for seed, layer, k, operator in itertools.product(range(SEEDS), LAYERS, SPARSITIES, OPERATORS):
        yield {**DEFAULT, "layer": layer, "k": k, "operator": operator, "seed": seed, "part": "grid"}
    for seed, change, operator in itertools.product(range(VARIATION_SEEDS), VARIATIONS, ("topk", "abstopk")):
        part = "+".join(f"{name}={value}" for name, value in change.items())
        yield {**DEFAULT, **change, "operator": operator, "seed": seed, "part": part}


def train(row: dict[str, Any], acts_ND: Tensor) -> tuple[SparseAutoencoder, float, float]:
    """Train the autoencoder of one row; give it with its share of dead latents and its speed."""
    d_model = acts_ND.shape[1]
    sae = SparseAutoencoder(
        d_model, row["expansion"] * d_model, operator=row["operator"], k=row["k"], seed=row["seed"]
    )
    if row["start"] == "untied":
        dice = torch.Generator().manual_seed(row["seed"] + 1_000)
        noise_PD = torch.randn(sae.encoder_PD.shape, generator=dice)
        sae.encoder_PD.data.copy_(normalize(noise_PD, dim=1))
    sae.encoder_bias_P.requires_grad_(row["bias"])
    schedule = Schedule(
        steps=row["steps"], lr=row["lr"], revive_every=row["revive"], seed=row["seed"], batch_size=2048
    )
    log = fit(sae, acts_ND, schedule=schedule, progress=False)
    return sae, log.dead, log.tokens_per_second


def measure(
    sae: SparseAutoencoder,
    held_out_ND: Tensor,
    *,
    lm: models.LanguageModel,
    tokens_BT: Tensor,
    site: trace.Site,
    losses: AblationLosses,
) -> dict[str, float]:
    """Give the held-out numbers of one autoencoder."""
    rebuilt = reconstruction(sae, held_out_ND)
    spliced = loss_recovered(sae, lm, tokens_BT, site=site, losses=losses)
    ablated, original = losses.zero, losses.original
    loss = ablated - spliced * (ablated - original)
    return {
        "nmse": rebuilt.nmse,
        "unexplained": rebuilt.unexplained,
        "l0": rebuilt.l0,
        "alive": rebuilt.alive,
        "recovered": spliced,
        "recovered_mean": losses.recovered(loss, against="mean"),
        "two_sided": sign_audit(sae, held_out_ND).share,
    }


def main() -> None:
    """Train what is not done yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only-write", action="store_true", help="write the table from the rows that are done"
    )
    options = parser.parse_args()
    DONE.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in DONE.read_text().splitlines()] if DONE.exists() else []
    known = [line["settings"] for line in done]
    if not options.only_write:
        run([row for row in plan() if row not in known])
        done = [json.loads(line) for line in DONE.read_text().splitlines()]
    planned = list(plan())
    write([line for line in done if line["settings"] in planned])


def run(todo: list[dict[str, Any]]) -> None:
    """Train and measure, one line of DONE an autoencoder."""
    lm = models.load_model("smollm2-135m")
    names = ("pydoc-topics", "sampled")
    tokens_BT = torch.cat([models.tokenize_blocks(lm, data.load_text(name)) for name in names])
    test = torch.arange(len(tokens_BT)) % 10 == 0
    sites = [trace.Site(layer) for layer in LAYERS]
    acts, held = (ordinary(lm, part_BT, sites) for part_BT in (tokens_BT[~test], tokens_BT[test]))
    scored_BT = tokens_BT[test][::6][:20]  # every sixth held-out block: both texts are in it
    losses = {site: ablation_losses(lm, scored_BT, site=site, acts_ND=acts[site]) for site in sites}
    for row in todo:
        site = trace.Site(row["layer"])
        sae, dead, speed = train(row, acts[site])
        result = measure(sae, held[site], lm=lm, tokens_BT=scored_BT, site=site, losses=losses[site])
        line = {
            "settings": row,
            "tokens": len(acts[site]),
            "dead": dead,
            "tokens_per_second": speed,
            **result,
        }
        with DONE.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def ordinary(
    lm: models.LanguageModel, tokens_BT: Tensor, sites: list[trace.Site]
) -> dict[trace.Site, Tensor]:
    """Collect activations without the massive ones."""
    acts = trace.collect(lm, tokens_BT, sites=sites)
    return {site: acts_ND[~trace.massive(acts_ND)] for site, acts_ND in acts.items()}


def write(done: list[dict[str, Any]]) -> None:
    """Write the table, with where it comes from, whole or not at all."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    rows = [{**line.pop("settings"), **line} for line in done]
    table = {
        "command": "python -m tools.make.sae_grid",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "model": "smollm2-135m",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "rows": [{k: round(v, 6) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
    }
    partial = OUT.with_suffix(".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    partial.write_text(json.dumps(table, indent=0) + "\n")
    os.replace(partial, OUT)
    print(f"{len(rows)} autoencoders -> {OUT}")


if __name__ == "__main__":
    main()
