"""Sample a small varied English corpus once from the embedded model: ``python -m tools.make.sample_text``.

The prompts are put together from the lists below, so that the text has many forms, moods and times: formal
and informal, glad and disappointed, past, present and future. Same seed, same machine, same text.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from helpers.models import EMBEDDED, LanguageModel, load_model
from tools.make.register import DATA, register, replace_file

FORMS = (
    "a short story", "a letter to a friend", "a letter to an office", "a product review",
    "a dialogue between two neighbours", "step-by-step instructions", "a local news report",
    "a paragraph for a science magazine", "a recipe with a short introduction", "a diary entry",
    "a short speech", "a note of thanks", "a complaint", "a page of a travel guide",
    "a lesson for school children", "a message to a colleague",
)  # fmt: skip
TOPICS = (
    "a bicycle", "the sea in winter", "a lost umbrella", "bread", "a vegetable garden", "an old clock",
    "a train journey", "a school concert", "the phases of the moon", "bees", "a new kitchen table",
    "a mountain path", "a village library", "rain", "a pot of soup", "how glass is made", "a football match",
    "a broken washing machine", "the first snow", "a market on Saturday", "a violin lesson", "volcanoes",
    "a cup of tea", "a museum visit", "whales", "a painted door", "learning to swim", "a power cut",
    "a river and its bridges", "apples", "a birthday cake", "a delayed parcel", "the stars", "a shy dog",
    "moving house", "a hotel room", "recycling", "a chess club", "how plants drink", "a lighthouse",
)  # fmt: skip
MANNERS = (
    "in formal English", "in casual English, as among friends", "full of praise", "full of disappointment",
    "in a cheerful mood", "in a sad mood", "in plain, exact words", "with some humour",
)  # fmt: skip
TIMES = (
    "about something that happened long ago", "about last week", "about what is happening now",
    "about what usually happens", "about what will happen next year", "about what did not happen",
)  # fmt: skip
UNWANTED = re.compile(
    r"@|https?:|www\.|[\[\]{}]|\d{3}[-. ]\d{3,4}|\b(?:an ai|your (?:name|email|phone|address))\b|"
    r"\b(?:kill|murder|suicid|rape|sex|nude|naked|drug|cocaine|poison|weapon|gun|bomb|terror|blood|die|dead|"
    r"death|corpse|virus|abus|bitch|slave|racis|nazi|hitler|trump|biden|obama|putin|musk|president|minister|"
    r"suarez|davis|yaffe|daily mail|hunger games|chatbot)\w*",
    re.IGNORECASE,
)


def prompts(seed: int) -> list[str]:
    """Put all combinations of the lists together and shuffle them.

    Parameters
    ----------
    seed : int
        Of the shuffle.

    Returns
    -------
    list of str
        Every form, topic, manner and time once.
    """
    combined = list(itertools.product(FORMS, TOPICS, MANNERS, TIMES))
    random.Random(seed).shuffle(combined)
    return [
        f"Write {form} on the subject of {topic}, {manner}, {time}." for form, topic, manner, time in combined
    ]


def clean(text: str, seen: set[str]) -> str:
    """Keep whole new lines that are fit to print.

    Parameters
    ----------
    text : str
        One sampled reply.
    seen : set of str
        Lines of six words or more that were kept before; new ones are added.

    Returns
    -------
    str
        The text up to its last whole sentence, or "" when less than 30 words remain.
    """
    kept = []
    for line in text[: max(text.rfind(end) for end in ".!?") + 1].splitlines():
        key = " ".join(line.lower().split())
        if UNWANTED.search(line) or key in seen:
            continue
        if len(key.split()) >= 6:
            seen.add(key)
        kept.append(line.strip())
    result = re.sub(r"\n{2,}", "\n", "\n".join(kept)).strip()
    return result if len(result.split()) >= 30 else ""


def sample(lm: LanguageModel, requests: list[str], *, new_tokens: int = 160) -> list[str]:
    """Sample one reply to each request, all in one batch.

    Parameters
    ----------
    lm : LanguageModel
        A chat model.
    requests : list of str
        What the user says.
    new_tokens : int
        Longest reply.

    Returns
    -------
    list of str
        The replies.
    """
    chats = [
        lm.tokenizer.apply_chat_template(
            [{"role": "user", "content": request}], tokenize=False, add_generation_prompt=True
        )
        for request in requests
    ]
    batch = lm.tokenizer(
        chats, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    mask, ids = batch["attention_mask"], batch["input_ids"]
    positions, cache, done, drawn = (mask.cumsum(-1) - 1).clamp(min=0), None, torch.zeros(len(ids), 1) > 0, []
    with torch.inference_mode():
        for _ in range(new_tokens):
            out = lm.model(
                ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1
            )
            cache = out.past_key_values
            ids = draw(out.logits[:, -1]).masked_fill(done, lm.tokenizer.eos_token_id)
            drawn.append(ids)
            done |= ids == lm.tokenizer.eos_token_id
            mask, positions = torch.cat([mask, torch.ones_like(ids)], dim=1), positions[:, -1:] + 1
    return lm.tokenizer.batch_decode(torch.cat(drawn, dim=1), skip_special_tokens=True)


def draw(logits_BV: Tensor, *, temperature: float = 0.85, top_p: float = 0.95, top: int = 200) -> Tensor:
    """Draw one token for each row: nucleus sampling among the likeliest tokens.

    Parameters
    ----------
    logits_BV : Tensor
        One row a sequence.
    temperature : float
        Below 1 sharpens the distribution.
    top_p : float
        Smallest set of tokens with this much probability is kept.
    top : int
        Only so many tokens are considered at all; sorting the whole vocabulary would cost more than the
        model.

    Returns
    -------
    Tensor
        Token ids, (batch, 1).
    """
    values_BK, ids_BK = (logits_BV.float() / temperature).topk(min(top, logits_BV.shape[-1]))
    probs_BK = values_BK.softmax(dim=-1)
    nucleus_BK = probs_BK.cumsum(dim=-1) - probs_BK < top_p
    return ids_BK.gather(-1, torch.multinomial(probs_BK * nucleus_BK, 1))


def documents(lm: LanguageModel, *, tokens: int, seed: int, batch: int = 64) -> Iterator[str]:
    """Sample cleaned documents until there are enough tokens.

    Parameters
    ----------
    lm : LanguageModel
        A chat model.
    tokens : int
        How many at least.
    seed : int
        Of the prompts and of the sampling.
    batch : int
        Replies sampled at once.

    Yields
    ------
    str
        One document.
    """
    torch.manual_seed(seed)
    requests, seen = prompts(seed), set[str]()
    with tqdm(total=tokens, unit="token", desc="sampled") as bar:
        for start in range(0, len(requests), batch):
            for reply in sample(lm, requests[start : start + batch]):
                if document := clean(reply, seen):
                    bar.update(len(lm.tokenizer(document).input_ids))
                    yield document
            if bar.n >= tokens:
                return


def main() -> None:
    """Write ``data/text/sampled.txt.gz`` and its hash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=50_000, help="tokens at least (default 50000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; the text can depend on them")
    parser.add_argument("--out", type=Path, default=DATA / "text" / "sampled.txt.gz")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    lm = load_model(EMBEDDED, device="cpu")
    text = "\n\n".join(documents(lm, tokens=options.tokens, seed=options.seed))
    replace_file(options.out, gzip.compress(text.encode("utf-8"), 9, mtime=0))
    print(f"{options.out}: {len(text):,} characters")
    print(register())


if __name__ == "__main__":
    main()
