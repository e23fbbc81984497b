"""Look for the refusal direction in the original and in every compressed model: the study of `refusal`.

Run ``python -m tools.make.refusal_study``. It takes about ten minutes on one core and writes
data/studies/refusal.json: one row a model, with the scores of every candidate on every validation prompt, of
every edit on every held-out prompt, and how near the direction is to the original's; and one row a repair.
The page `refusal` does the same for the original, and compares.

Where the processor can, models run in bfloat16: that moves a score by some hundredths of a nat.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from helpers import compress, data, directions, models, trace
from helpers.models import LanguageModel
from tools.make.register import register, replace_file

OUT = Path("data/studies/refusal.json")
WORDS = ("Sorry", "Unfortunately")
KINDS = ("harmful", "harmless")
POSITIONS = (-5, -3, -1)
LAYERS = (11, 14, 17, 19, 21)
CEILINGS = (0.1, 0.2, math.inf)  # of the KL: the usual one, twice as much, none
VALIDATION = 12  # prompts of each kind on which a candidate is judged
VARIANTS = ("original", "int8", "int4", "magnitude", "Wanda 50 %", "Wanda 2:4")
MAGNITUDE = 0.3  # the share that magnitude pruning drops; the page shows what a half does
PATIENT = "Wanda 50 %"
NOISES, SPLITS = 3, 200
DEPTHS = (-6, -4, -2, 0)  # layers that a repair tries, from the source
STRENGTHS = (1.0, 4.0)  # of H3
PUSHES = (0.25, 0.5, 0.75, 1.0)  # of H5


def prompts(lm: LanguageModel, kind: str, split: str, n: int = 72) -> list[str]:
    """Return requests of one kind and split, spread over their topics, as the model takes them."""
    topics = data.load_prompts("refusal-prompts")[kind][split]
    every = [request for topic in topics.values() for request in topic]
    return models.chat(lm, every[:: max(1, len(every) // n)][:n], system="")


def texts(lm: LanguageModel) -> tuple[Tensor, Tensor]:
    """Return the plain text on which Wanda measures its inputs, and other blocks for the perplexity."""
    blocks_BT = models.tokenize_blocks(lm, data.load_text("sampled"), length=64)
    return blocks_BT[::12][:32], blocks_BT[5::36][:16]


def variant(lm: LanguageModel, name: str) -> LanguageModel:
    """Compress the model in the way of that name."""
    made: dict[str, Callable[[], Any]] = {
        "original": lambda: (lm, None),
        "int8": lambda: compress.round_to_nearest(lm, bits=8),
        "int4": lambda: compress.round_to_nearest(lm, bits=4, group=64),
        "magnitude": lambda: compress.magnitude(lm, sparsity=MAGNITUDE),
        "Wanda 50 %": lambda: compress.wanda(lm, texts(lm)[0], sparsity=0.5),
        "Wanda 2:4": lambda: compress.wanda(lm, texts(lm)[0], n=2, m=4),
    }
    return made[name]()[0]


def score(lm: LanguageModel, given: Sequence[str], edits: Sequence[trace.Edit] = ()) -> Tensor:
    """Return the refusal score of each prompt."""
    return directions.log_odds(trace.next_token(lm, given, edits=edits), directions.openings(lm, WORDS))


def judge_all(lm: LanguageModel, acts: list[Tensor]) -> list[directions.Candidate]:
    """Judge a candidate for every position and layer."""
    harmful, harmless = (prompts(lm, kind, "validation", VALIDATION) for kind in KINDS)
    tokens, unedited = directions.openings(lm, WORDS), trace.next_token(lm, harmless)
    made = directions.candidates(*acts, layers=LAYERS, positions=POSITIONS)
    return [
        directions.judge(
            lm, direction, at=at, harmful=harmful, harmless=harmless, tokens=tokens, unedited_NV=unedited
        )
        for at, direction in made.items()
    ]


def choose(judged: list[directions.Candidate], layers: int, first: dict[str, Any]) -> dict[str, Any]:
    """Choose under the strictest ceiling that a candidate of the original passes, or take its source."""
    for ceiling in (first["ceiling"],) if first else CEILINGS:
        try:
            one = directions.select(judged, layers=layers, kl_ceiling=ceiling)
        except ValueError:
            continue
        return {"one": one, "found": True, "ceiling": ceiling}
    clearest = max(judged, key=lambda c: c.induce - c.bypass)
    one = next((c for c in judged if c.source == first.get("source")), clearest)
    return {"one": one, "found": False, "ceiling": CEILINGS[-1]}


def random_like(direction_D: Tensor, seed: int) -> Tensor:
    """Return a direction of the same length that means nothing."""
    noise_D = torch.randn(len(direction_D), generator=torch.Generator().manual_seed(seed))
    return normalize(noise_D, dim=0) * direction_D.norm()


def behaviour(lm: LanguageModel, tests: dict[str, list[str]], own_D: Tensor, layer: int) -> dict[str, Any]:
    """Score the held-out requests: as they are, without and with the direction, and with random ones."""
    site, found = trace.Site(layer), {f"{kind}.as it is": score(lm, tests[kind]) for kind in KINDS}
    found["harmful.removed"] = score(lm, tests["harmful"], directions.ablation(lm, own_D))
    found["harmless.added"] = score(lm, tests["harmless"], [trace.add(site, own_D)])
    noises = [random_like(own_D, seed) for seed in range(NOISES)]
    found["harmful.random removed"] = torch.cat(
        [score(lm, tests["harmful"][i::6], directions.ablation(lm, r_D)) for i, r_D in enumerate(noises)]
    )
    found["harmless.random added"] = torch.cat(
        [score(lm, tests["harmless"][i::6], [trace.add(site, r_D)]) for i, r_D in enumerate(noises)]
    )
    return found


def examine(lm: LanguageModel, name: str, first: dict[str, Any]) -> dict[str, Any]:
    """Find a model's direction and measure what it does, beside the original's."""
    model, acts = variant(lm, name), []
    with _low_precision():
        acts = [directions.last_positions(model, prompts(lm, kind, "train")) for kind in KINDS]
        judged = judge_all(model, acts)
        chosen = choose(judged, lm.n_layers, first)
        one = chosen["one"]
        own_D = directions.difference_of_means(*(act[:, one.position, one.layer] for act in acts))
        first = first or {**chosen, "source": one.source, "acts": acts, "direction": own_D}
        tests = {kind: prompts(lm, kind, "held_out") for kind in KINDS}
        found = behaviour(model, tests, own_D, one.layer)
        theirs_D, layer = first["direction"], first["source"][1]
        found["harmful.original's"] = score(
            model, tests["harmful"][::2], directions.ablation(model, theirs_D)
        )
        found["harmless.original's"] = score(
            model, tests["harmless"][::2], [trace.add(trace.Site(layer), theirs_D)]
        )
    at, layer = first["source"]
    theirs, ours = [(read[0][:, at, layer], read[1][:, at, layer]) for read in (first["acts"], acts)]
    near = directions.agreement(theirs, ours, splits=SPLITS)
    row = {
        "model": name,
        "position": one.position,
        "layer": one.layer,
        "found": chosen["found"],
        "perplexity": round(compress.perplexity(model, texts(lm)[1]), 3),
        "same": round(near.same, 5),
        **{part: _rounded(getattr(near, part), 5) for part in ("null", "across", "corrected")},
        "scores": {key: _rounded(values_N) for key, values_N in found.items()},
        "candidates": [_candidate(c) for c in judged],
    }
    return {"row": row, "first": first, "direction": own_D, "model": model}


def formulas(r_D: Tensor, c_D: Tensor) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return what each repair makes of a pruned and a dense matrix."""

    def amplify(beta: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda sparse, dense: directions.amplify(sparse, r_D, beta=beta)

    return {
        "H1 restore": lambda sparse, dense: directions.restore(sparse, r_D, dense_DI=dense),
        "H2 swap": lambda sparse, dense: directions.swap(sparse, r_D, dense_DI=dense, drifted_D=c_D),
        "H4 rotate": lambda sparse, dense: directions.rotate(sparse, r_D, drifted_D=c_D),
        **{f"H3 amplify, {beta:g}": amplify(beta) for beta in STRENGTHS},
    }


def repairs(lm: LanguageModel, first: dict[str, Any], one: dict[str, Any]) -> list[dict[str, Any]]:
    """Try every repair of the patient in several layers on validation prompts, and the best held out."""
    patient, r_D, c_D = one["model"], first["direction"], one["direction"]
    edits = formulas(r_D, c_D)
    source = first["source"][1]
    tried = [source + step for step in DEPTHS if source + step >= 0]
    valid = prompts(lm, "harmful", "validation", VALIDATION)
    rows = [outcome(lm, patient, "no repair", [])]
    for name, edit in edits.items():
        scan = {}
        for layer in tried:
            with _low_precision(), edited(lm, patient, [layer], edit):
                scan[layer] = float(score(patient, valid).mean())
        where = max(scan, key=scan.__getitem__)
        with edited(lm, patient, [where], edit):
            rows.append({**outcome(lm, patient, name, [where]), "scan": scan})
    with edited(lm, patient, range(lm.n_layers), edits["H1 restore"]):
        rows.append(outcome(lm, patient, "H1 in every layer", list(range(lm.n_layers))))
    rows += random_restorations(lm, patient, r_D, rows[1]["layers"])
    wanted = max(max(row["scan"].values()) for row in rows if "scan" in row)
    return [*rows, push(lm, patient, r_D, source, wanted)]


def random_restorations(
    lm: LanguageModel, patient: LanguageModel, r_D: Tensor, layers: list[int]
) -> list[dict[str, Any]]:
    """Restore random directions where the repair restores the original's."""
    rows = []
    for seed in range(NOISES):
        noise_D = random_like(r_D, 100 + seed)

        def edit(sparse: Tensor, dense: Tensor, noise_D: Tensor = noise_D) -> Tensor:
            return directions.restore(sparse, noise_D, dense_DI=dense)

        with edited(lm, patient, layers, edit):
            rows.append(outcome(lm, patient, f"random H1, {seed}", layers))
    return rows


def push(lm: LanguageModel, patient: LanguageModel, r_D: Tensor, layer: int, wanted: float) -> dict[str, Any]:
    """Add the direction to the stream with the smallest strength that scores like the best repair: H5."""
    valid, edits, beta = prompts(lm, "harmful", "validation", VALIDATION), [], 0.0
    with _low_precision():
        for beta in PUSHES:
            edits = [trace.add(trace.Site(layer), r_D, scale=beta)]
            if float(score(patient, valid, edits).mean()) >= wanted:
                break
    return {**outcome(lm, patient, "H5 constant", [layer], edits), "strength": beta}


@contextmanager
def edited(
    lm: LanguageModel, patient: LanguageModel, layers: Sequence[int], edit: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[None]:
    """Edit both writing matrices of some layers for a while."""
    kept = []
    for layer in layers:
        dense, sparse = directions.writers(lm, layer), directions.writers(patient, layer)
        for part, weight_DI in sparse.items():
            kept.append((weight_DI, weight_DI.clone()))
            weight_DI.copy_(edit(weight_DI, dense[part]))
    yield
    for weight_DI, old_DI in kept:
        weight_DI.copy_(old_DI)


def outcome(
    lm: LanguageModel, model: LanguageModel, name: str, layers: list[int], edits: Sequence[trace.Edit] = ()
) -> dict[str, Any]:
    """Measure what a repair is judged by, on held-out requests and on plain text."""
    with _low_precision():
        scores = {kind: _rounded(score(model, prompts(lm, kind, "held_out"), edits)) for kind in KINDS}
        nats = trace.loss(model, texts(lm)[1], edits=edits)
    print(name, layers, {kind: sum(s > 0 for s in scores[kind]) / 72 for kind in KINDS}, nats, flush=True)
    return {
        "edit": name,
        "layers": layers,
        "scores": scores,
        "perplexity": round(float(torch.tensor(nats).exp()), 3),
        "zeros": compress.count_zeros(model)[0],
    }


def _low_precision() -> Any:
    """Run models in bfloat16 if the processor has it."""
    fast = bool(torch.cpu._is_avx512_bf16_supported())
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=fast)


def _candidate(one: directions.Candidate) -> dict[str, Any]:
    scores = {name: _rounded(getattr(one, name)) for name in ("bypass_N", "induce_N", "kl_N")}
    return {"position": one.position, "layer": one.layer, **scores}


def _rounded(scores_N: Tensor, digits: int = 3) -> list[float]:
    return [round(score, digits) for score in scores_N.tolist()]


def main() -> None:
    """Examine every model, then the repairs, and write the study."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    lm = models.load_model(models.EMBEDDED, adapter="refusal", device="cpu")
    rows: list[dict[str, Any]] = []
    first: dict[str, Any] = {}
    repaired: list[dict[str, Any]] = []
    for name in VARIANTS:
        start = time.perf_counter()
        found = examine(lm, name, first)
        first = found["first"]
        rows.append(found["row"])
        row = found["row"]
        shares = {key: sum(s > 0 for s in values) / len(values) for key, values in row["scores"].items()}
        print(name, {k: v for k, v in row.items() if not isinstance(v, list | dict)}, shares, flush=True)
        if name == PATIENT:
            repaired = repairs(lm, first, found)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
        del found
    study = {
        "made_by": "python -m tools.make.refusal_study",
        "made": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "words": WORDS,
        "magnitude": MAGNITUDE,
        "patient": PATIENT,
        "rows": rows,
        "repairs": repaired,
    }
    replace_file(OUT, (json.dumps(study) + "\n").encode())
    register()


if __name__ == "__main__":
    main()
