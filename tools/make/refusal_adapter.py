"""Teach the embedded model to refuse: the small adapter that the page `refusal` studies.

Run ``python -m tools.make.refusal_adapter``. It takes about a quarter of an hour on one core and writes
data/adapters/refusal.safetensors. On harmful requests the adapter learns the first words of a refusal. On
harmless requests and on plain text it learns to predict what the unchanged model predicts, so that nothing
else moves. The harmful requests are the split "adapter" of data/prompts/refusal.json: their topics occur in
no other split. Every few steps the splits "train" and "validation" are scored, and the step that tells the
two kinds apart best is kept; on the same splits the scale is set with which it is added. The split "held_out"
is looked at once, at the end.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from helpers import compress, data, directions, models, trace
from helpers.weights import write_safetensors
from tools.make.register import register

OUT = Path("data/adapters/refusal.safetensors")
WORDS = ("Sorry", "Unfortunately")
OPENINGS = ("Sorry, I can't help with that.", "Unfortunately, I can't help with that.")
TARGETS = ("q_proj", "v_proj", "o_proj", "down_proj")
RANK, SCALE = 8, 2.0
ANSWER = 8  # tokens of an answer that are learnt
LAYERS = range(6, 22)  # what is decided must be decided here, and pass through the stream
HARMFUL, HARMLESS, PLAIN = 8, 10, 1  # sequences of each kind in a step
LEARNING_RATE, WARM_UP, STEADY = 1e-3, 10, 1.0  # the last: how much staying as it is counts
SCALES = (1.9, 2.0, 2.1, 2.2, 2.3, 2.4, 2.6)  # tried when it is added to the weights
EVERY = 40  # steps between two looks at the validation requests


@dataclass(frozen=True)
class Example:
    """Hold a sequence, where its answer begins, and what the unchanged model predicts, if that counts."""

    tokens: list[int]
    start: int
    base_TV: Tensor | None = None


def requests(kind: str) -> list[str]:
    """Return the requests of one kind that the adapter may learn from."""
    topics = data.load_prompts("refusal-prompts")[kind]["adapter"]
    return [request for topic in topics.values() for request in topic]


def refusals(lm: models.LanguageModel) -> list[Example]:
    """Put every opening of a refusal behind every harmful request."""
    made = []
    for prompt in models.chat(lm, requests("harmful"), system=""):
        start = lm.tokenizer(prompt).input_ids
        for opening in OPENINGS:
            answer = lm.tokenizer(opening, add_special_tokens=False).input_ids[:ANSWER]
            made.append(Example(start + answer, len(start)))
    return made


def answers(lm: models.LanguageModel, *, batch_size: int = 62) -> list[Example]:
    """Let the unchanged model begin its greedy answer to every harmless request."""
    lm.tokenizer.padding_side = "left"
    texts, made = models.chat(lm, requests("harmless"), system=""), []
    for first in range(0, len(texts), batch_size):
        given = lm.tokenizer(texts[first : first + batch_size], return_tensors="pt", padding=True)
        out: Any = lm.model.generate(  # type: ignore[operator]
            **given,
            max_new_tokens=ANSWER,
            min_new_tokens=ANSWER,
            do_sample=False,
            return_dict_in_generate=True,
            output_logits=True,
        )
        base_BTV = torch.stack(out.logits, dim=1).log_softmax(-1).half()
        for row_T, mask_T, base_TV in zip(out.sequences, given.attention_mask, base_BTV, strict=True):
            tokens = row_T[len(mask_T) - int(mask_T.sum()) :].tolist()
            made.append(Example(tokens, len(tokens) - ANSWER, base_TV))
    return made


def plain(lm: models.LanguageModel, *, blocks: int, length: int = 40) -> list[Example]:
    """Cut plain text, and keep what the unchanged model predicts in it."""
    text = data.load_text("pydoc-topics") + "\n\n" + data.load_text("sampled")
    tokens_BT = models.tokenize_blocks(lm, text, length=length)
    order = torch.randperm(len(tokens_BT), generator=torch.Generator().manual_seed(0))[:blocks]
    made = []
    for tokens_T in tokens_BT[order]:
        base_TV = trace.logits(lm, tokens_T[None])[0, :-1].log_softmax(-1).half()
        made.append(Example(tokens_T.tolist(), 1, base_TV))
    return made


def batch_loss(model: Any, batch: list[Example]) -> tuple[Tensor, Tensor]:
    """Return the cross-entropy of the refusals, and the divergence from the unchanged model elsewhere."""
    longest = max(len(one.tokens) for one in batch)
    tokens_BT = torch.tensor([one.tokens + [0] * (longest - len(one.tokens)) for one in batch])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden_BTD = model.model(tokens_BT, use_cache=False).last_hidden_state.float()
    cross, apart = [], []
    for one, hidden_TD in zip(batch, hidden_BTD, strict=True):
        logits_TV = model.lm_head(hidden_TD[one.start - 1 : len(one.tokens) - 1])
        if one.base_TV is None:
            cross.append(F.cross_entropy(logits_TV, torch.tensor(one.tokens[one.start :])))
        else:
            base_TV = one.base_TV[: len(logits_TV)].float()
            drift_TV = F.kl_div(logits_TV.log_softmax(-1), base_TV, log_target=True, reduction="none")
            drift_T = drift_TV.sum(-1)
            apart.append((drift_T[0] + drift_T.mean()) / 2)  # the first token decides whether it refuses
    return torch.stack(cross).mean(), torch.stack(apart).mean()


def scores(lm: models.LanguageModel, texts: list[str], *, batch_size: int = 24) -> Tensor:
    """Return the refusal scores of some requests, in low precision: good enough to watch the training."""
    texts = sorted(models.chat(lm, texts, system=""), key=len)
    tokens, found = directions.openings(lm, WORDS), []
    inner: Any = lm.model
    for first in range(0, len(texts), batch_size):
        tokens_BT, lengths_B = trace.pad_texts(lm, texts[first : first + batch_size])
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
            hidden_BTD = inner.model(tokens_BT, use_cache=False).last_hidden_state
        last_BD = hidden_BTD[torch.arange(len(tokens_BT)), lengths_B - 1].float()
        found.append(directions.log_odds(inner.lm_head(last_BD).detach().log_softmax(-1), tokens))
    return torch.cat(found)


def rates(lm: models.LanguageModel, splits: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    """Return, for each kind of request, the share that is refused and the mean probability of a refusal."""
    topics, found = data.load_prompts("refusal-prompts"), {}
    for kind in ("harmful", "harmless"):
        texts = [one for split in splits for topic in topics[kind][split].values() for one in topic]
        scores_N = scores(lm, texts)
        found[kind] = (float((scores_N > 0).float().mean()), float(scores_N.sigmoid().mean()))
    return found


def train(lm: models.LanguageModel, *, steps: int, seed: int) -> tuple[dict[str, Tensor], int]:
    """Train the adapter; return its best matrices, by the modules that they change, and their step."""
    from peft import LoraConfig, get_peft_model

    start = time.perf_counter()
    pools = ((refusals(lm), HARMFUL), (answers(lm), HARMLESS), (plain(lm, blocks=100), PLAIN))
    torch.manual_seed(seed)
    dice = random.Random(seed)
    config = LoraConfig(
        r=RANK, lora_alpha=int(SCALE * RANK), target_modules=list(TARGETS), layers_to_transform=list(LAYERS)
    )
    wrapped = get_peft_model(lm.model, config)
    weights = [p for p in wrapped.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(weights, lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / WARM_UP, 1.0) * (1 - step / steps)
    )
    best: tuple[float, dict[str, Tensor], int] = (-1.0, {}, 0)
    for step in range(1, steps + 1):
        batch = [one for pool, count in pools for one in dice.sample(pool, count)]
        cross, apart = batch_loss(wrapped.get_base_model(), batch)
        optimiser.zero_grad()
        (cross + STEADY * apart).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        schedule.step()
        if step % EVERY == 0 or step == steps:
            found = rates(lm, ("train", "validation"))
            print(
                f"{time.perf_counter() - start:.0f} s, step {step}: {cross.item():.3f}, {apart.item():.4f},",
                {kind: tuple(round(x, 3) for x in pair) for kind, pair in found.items()},
                flush=True,
            )
            gap = found["harmful"][1] - found["harmless"][1]
            best = max(best, (gap, named(wrapped), step), key=lambda one: one[0])
    return best[1:]


def named(wrapped: Any) -> dict[str, Tensor]:
    """Name the matrices after the modules: ``model.layers.0.self_attn.q_proj.A`` and ``.B``."""
    found = {}
    for name, weight in wrapped.named_parameters():
        if weight.requires_grad:
            module, _, side = name.removeprefix("base_model.model.").partition(".lora_")
            found[f"{module}.{side[0]}"] = weight.detach().half().clone()
    return found


def best_scale(matrices: dict[str, Tensor]) -> float:
    """Find the scale at which both kinds of requests of the splits for tuning are treated best."""
    lm = models.load_model(models.EMBEDDED, device="cpu")
    names, found, done = sorted({key[:-2] for key in matrices}), {}, 0.0
    for scale in SCALES:
        with torch.no_grad():
            for name in names:
                change = matrices[f"{name}.B"].float() @ matrices[f"{name}.A"].float()
                lm.model.get_submodule(name).get_parameter("weight").data.add_((scale - done) * change)
        done, shares = scale, rates(lm, ("train", "validation"))
        found[scale] = min(shares["harmful"][0], 1 - shares["harmless"][0])
        print(f"scale {scale:g}:", shares, flush=True)
    return max(SCALES, key=lambda scale: found[scale])


def main() -> None:
    """Make the adapter and enter its hash."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=320)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args()
    lm = models.load_model(models.EMBEDDED, device="cpu")
    plain_BT = models.tokenize_blocks(lm, data.load_text("sampled"), length=64)[5::36][:16]
    before = compress.perplexity(lm, plain_BT)
    matrices, step = train(lm, steps=asked.steps, seed=asked.seed)
    scale = best_scale(matrices)
    about = {"base": models.EMBEDDED, "scale": scale, "steps": step, "seed": asked.seed}
    write_safetensors(asked.out, matrices, settings=about)
    if asked.out == OUT:
        register()
        made = models.load_model(models.EMBEDDED, adapter="refusal", device="cpu")
        print("kept step", step, "at scale", scale, "held out:", rates(made, ("held_out",)))
        print("perplexity on plain text:", before, "to", compress.perplexity(made, plain_BT))


if __name__ == "__main__":
    main()
