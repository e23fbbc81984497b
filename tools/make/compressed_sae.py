"""Train and prune the sparse autoencoders that the page `compressed-models` quotes.

Run ``python -m tools.make.compressed_sae``. It can be broken off and goes on where it stopped, and writes
data/studies/compressed-sae.json: one row a variant of an autoencoder, with its settings, seed and held-out
numbers. The page itself does one slice of this and shows both.
"""

from __future__ import annotations

import datetime
import itertools
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers import compress, data, models, trace
from helpers.models import LanguageModel
from helpers.sae import (
    AblationLosses,
    Schedule,
    SparseAutoencoder,
    ablation_losses,
    fit,
    identity,
    loss_recovered,
    mean_cosine,
    move_mean,
    partners,
    prune,
    reconstruction,
    top_tokens,
    with_l0,
)
from helpers.trace import Part, Site

OUT = Path("data/studies/compressed-sae.json")
FOLDER = Path("build/studies/compressed-sae")
LAYERS, SEEDS = (10, 20), (0, 1, 2)
PARTS: tuple[Part, ...] = ("resid", "mlp", "attn")
K, DENSE_K, EXPANSION = 32, 256, 4
STEPS, MORE_STEPS, BATCH = 80, 16, 1024
SHARES = (0.25, 0.5, 0.75)
SPLICED = ("original", "retrained", "wanda-0.25", "wanda-0.5", "random-0.5", "other layer")
Compress = Callable[[LanguageModel, Tensor], tuple[LanguageModel, compress.Report]]
COMPRESSIONS: dict[str, Compress] = {
    "wanda": lambda lm, text_BT: compress.wanda(lm, text_BT, sparsity=0.5),
    "int4": lambda lm, _: compress.round_to_nearest(lm, bits=4, group=64),
    "2:4": lambda lm, text_BT: compress.wanda(lm, text_BT, n=2, m=4),
    "magnitude": lambda lm, _: compress.magnitude(lm, sparsity=0.5),
    "int8": lambda lm, _: compress.round_to_nearest(lm, bits=8),
}


@dataclass(frozen=True)
class Unit:
    """The smallest piece of work that is done as a whole: one original SAE on one compressed model."""

    compression: str
    layer: int
    part: Part
    operator: str
    seed: int

    @property
    def site(self) -> Site:
        """Where the SAE reads."""
        return Site(self.layer, self.part)


def plan() -> Iterator[Unit]:
    """List the units. The page asks for these; any other part or operator can be added."""
    for layer, seed in itertools.product(LAYERS, SEEDS):
        yield Unit("wanda", layer, "resid", "topk", seed)
    for compression, seed in itertools.product(COMPRESSIONS, SEEDS):
        if compression != "wanda":
            yield Unit(compression, LAYERS[-1], "resid", "topk", seed)
    yield Unit("wanda", LAYERS[0], "mlp", "topk", SEEDS[0])


@dataclass(frozen=True)
class Reader:
    """One language model with its activations: what SAEs are trained and measured on."""

    lm: LanguageModel
    train: dict[Site, Tensor]
    test: dict[Site, Tensor]
    text_BT: Tensor
    frames: dict[Site, AblationLosses]

    def frame(self, site: Site) -> AblationLosses:
        """Give the losses between which loss recovered is read, measured once."""
        if site not in self.frames:
            self.frames[site] = ablation_losses(self.lm, self.text_BT, site=site, acts_ND=self.train[site])
        return self.frames[site]


def read(lm: LanguageModel, tokens_BT: Tensor, *, training: bool = True) -> Reader:
    """Collect activations at all sites. Massive ones leave the training set; test rows stay in step."""
    test = torch.arange(len(tokens_BT)) % 8 == 0
    sites = [Site(layer, part) for layer in LAYERS for part in PARTS]
    train = trace.collect(lm, tokens_BT[~test], sites=sites) if training else {}
    train = {site: acts_ND[~trace.massive(acts_ND)] for site, acts_ND in train.items()}
    held_out = trace.collect(lm, tokens_BT[test], sites=sites)
    return Reader(lm, train, held_out, tokens_BT[test][::7][:3], {})


def train(
    unit: Unit, acts_ND: Tensor, *, k: int = K, steps: int = STEPS, start: SparseAutoencoder | None = None
) -> tuple[SparseAutoencoder, float]:
    """Train an SAE, afresh or from another one's weights; give it with the seconds that it took."""
    sae = SparseAutoencoder(576, EXPANSION * 576, operator=unit.operator, k=k, seed=unit.seed)
    if start is not None:
        sae.load_state_dict(start.state_dict())
    began = time.perf_counter()
    fit(sae, acts_ND, schedule=Schedule(steps=steps, batch_size=BATCH, seed=unit.seed), progress=False)
    return sae, time.perf_counter() - began


def place(unit: Unit, site: Site) -> Path:
    """Say where the SAE of the original model is kept."""
    return FOLDER / f"{unit.operator}-{site}-{unit.seed}.safetensors"


def original(unit: Unit, base: Reader, site: Site | None = None) -> SparseAutoencoder:
    """Give the SAE of the original model, from disk if it was trained before."""
    site = site or unit.site
    path = place(unit, site)
    if not path.exists():
        train(unit, base.train[site])[0].save(path)
    return SparseAutoencoder.load(path)


def measure(
    sae: SparseAutoencoder,
    reader: Reader,
    site: Site,
    *,
    before: Tensor,
    partner: Tensor | None,
    splice: bool,
) -> dict[str, float]:
    """Give the held-out numbers of one SAE on one model."""
    held_out_ND = reader.test[site]
    massive_N = trace.massive(held_out_ND)
    rebuilt = reconstruction(sae, held_out_ND[~massive_N])
    same = identity(before, top_tokens(sae, zeroed(held_out_ND, massive_N)), partner_P=partner)
    found = {
        "l0": rebuilt.l0,
        "unexplained": rebuilt.unexplained,
        "cosine": mean_cosine(sae, held_out_ND[~massive_N]),
        "alive": rebuilt.alive,
        "survive": same.survive,
        "overlap": same.overlap,
    }
    if splice:
        losses = reader.frame(site)
        recovered = loss_recovered(sae, reader.lm, reader.text_BT, site=site, losses=losses)
        loss = losses.zero - recovered * (losses.zero - losses.original)
        found |= {"loss": loss, "cost": loss - losses.original, "recovered": recovered}
        found |= {"recovered_mean": losses.recovered(loss, against="mean")}
    return found


def zeroed(acts_ND: Tensor, massive_N: Tensor) -> Tensor:
    """Put the mean in place of massive rows: rows stay in step with the text, and no latent peaks there."""
    return torch.where(massive_N[:, None], acts_ND[~massive_N].mean(0), acts_ND)


def variants(unit: Unit, base: Reader, small: Reader) -> Iterator[tuple[str, SparseAutoencoder, float]]:
    """Yield every variant of one unit: its name, the SAE, and the seconds that it took to make."""
    first, acts_ND, site = original(unit, base), small.train[unit.site], unit.site
    calibration_ND = acts_ND[: 4 * BATCH]
    again, seconds = train(unit, acts_ND)
    yield "original", first, 0.0
    yield "retrained", again, seconds
    full = unit.compression == "wanda"
    for share in SHARES if full else (0.5,):
        for rule in ("wanda", "random", "magnitude") if full else ("wanda", "random"):
            began = time.perf_counter()
            pruned = prune(first, calibration_ND, sparsity=share, rule=rule, seed=unit.seed)
            yield f"{rule}-{share}", pruned, time.perf_counter() - began
    if unit.operator == "jumprelu":
        yield from matched(first, again, calibration_ND)
    elif full:
        other = Site(LAYERS[0] if unit.layer == LAYERS[-1] else LAYERS[-1], unit.part)
        yield "other layer", original(unit, base, other), 0.0
        yield "moved", moved(first, base.train[site], acts_ND), 0.0
        yield "recentred-0.5", prune(first, calibration_ND, sparsity=0.5, recentre=True), 0.0
        yield "continued", *train(unit, acts_ND, steps=MORE_STEPS, start=first)
        if unit.layer == LAYERS[-1] and unit.part != "attn":
            yield "dense", *train(unit, acts_ND, k=DENSE_K)


def moved(sae: SparseAutoencoder, old_ND: Tensor, new_ND: Tensor) -> SparseAutoencoder:
    """Move an SAE to the mean of the compressed model's activations."""
    return move_mean(sae, old_D=old_ND.mean(0), new_D=new_ND.mean(0))


def matched(
    first: SparseAutoencoder, again: SparseAutoencoder, acts_ND: Tensor
) -> Iterator[tuple[str, SparseAutoencoder, float]]:
    """Yield the variants whose L0 was not K, with a threshold that makes it K."""
    yield "original, matched", with_l0(first, acts_ND, target=K), 0.0
    yield "retrained, matched", with_l0(again, acts_ND, target=K), 0.0
    for share in SHARES:
        pruned = prune(first, acts_ND, sparsity=share)
        yield f"wanda-{share}, matched", with_l0(pruned, acts_ND, target=K), 0.0


def run(unit: Unit, base: Reader, small: Reader) -> Iterator[dict[str, Any]]:
    """Measure all variants of one unit; first the original SAE on the original model."""
    site, first = unit.site, original(unit, base)
    massive_N = trace.massive(base.test[site])
    before = top_tokens(first, zeroed(base.test[site], massive_N))
    settings = asdict(unit)
    if unit.compression == "wanda":
        at_home = measure(first, base, site, before=before, partner=None, splice=False)
        yield {**settings, "compression": "none", "variant": "original", "seconds": 0.0, **at_home}
        neighbour = original(Unit(**{**settings, "seed": (unit.seed + 1) % len(SEEDS)}), base)
        same = identity(before, top_tokens(neighbour, zeroed(base.test[site], massive_N)),
                        partner_P=partners(first, neighbour))  # fmt: skip
        yield {**settings, "compression": "none", "variant": "another seed", "survive": same.survive,
               "overlap": same.overlap}  # fmt: skip
    for name, sae, seconds in variants(unit, base, small):
        splice = unit.operator == "topk" and name in SPLICED
        own = name in ("other layer",) or name.startswith(("retrained", "dense"))
        partner = partners(first, sae) if own else None
        found = measure(sae, small, site, before=before, partner=partner, splice=splice)
        yield {**settings, "variant": name, "seconds": seconds, **found}


def write(rows: list[dict[str, Any]], reports: dict[str, Any]) -> None:
    """Write the table, with where it comes from, whole or not at all."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    )
    table = {
        "command": "python -m tools.make.compressed_sae",
        "commit": commit.stdout.strip(),
        "date": datetime.date.today().isoformat(),
        "model": models.EMBEDDED,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
        "compressions": reports,
        "rows": [{k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()} for row in rows],
    }
    partial = OUT.with_suffix(".partial")
    partial.write_text(json.dumps(table, indent=0) + "\n")
    os.replace(partial, OUT)
    print(f"{len(rows)} rows -> {OUT}")


def main() -> None:
    """Do what is not done yet, compression by compression, then write the table."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    done = FOLDER / "rows.jsonl"
    lines = [json.loads(line) for line in done.read_text().splitlines()] if done.exists() else []
    finished = {json.dumps(line["unit"]) for line in lines}
    todo = [unit for unit in plan() if json.dumps(asdict(unit)) not in finished]
    lm = models.load_model(models.EMBEDDED)
    blocks = models.tokenize_blocks(lm, data.load_text("pydoc-topics"))
    tokens_BT, calibration_BT, held_out_BT = blocks[::4], blocks[1::28], blocks[2::108]
    afresh = any(unit.compression == "wanda" or not place(unit, unit.site).exists() for unit in todo)
    base = read(lm, tokens_BT, training=afresh) if todo else None
    for name, shrink in COMPRESSIONS.items():
        units = [unit for unit in todo if unit.compression == name]
        if not units or base is None:
            continue
        small_lm, report = shrink(lm, calibration_BT)
        facts = {**asdict(report), "layers": len(report.layers)}
        facts["perplexity"] = compress.perplexity(small_lm, held_out_BT)
        small = read(small_lm, tokens_BT)
        for unit in units:
            began = time.perf_counter()
            rows = list(run(unit, base, small))
            with done.open("a") as file:
                file.write(json.dumps({"unit": asdict(unit), "report": facts, "rows": rows}) + "\n")
            print(f"{unit}: {time.perf_counter() - began:.0f} s", flush=True)
    lines = [json.loads(line) for line in done.read_text().splitlines()]
    write(
        [row for line in lines for row in line["rows"]],
        {line["unit"]["compression"]: line["report"] for line in lines},
    )


if __name__ == "__main__":
    main()
