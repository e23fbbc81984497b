"""Tiny random-weight model folders, one of each family, with a byte-level tokenizer. No download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

D_MODEL, N_LAYERS, VOCAB = 16, 3, 258
_SHARED = {
    "vocab_size": VOCAB,
    "hidden_size": D_MODEL,
    "intermediate_size": 24,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "pad_token_id": 257,
}
_GPT2 = {
    "vocab_size": VOCAB,
    "n_embd": D_MODEL,
    "n_layer": N_LAYERS,
    "n_head": 4,
    "n_positions": 64,
    "initializer_range": 0.3,
    "bos_token_id": 256,
    "eos_token_id": 257,
}
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", _GPT2),
    "llama": ("Llama", _SHARED),
    "qwen2": ("Qwen2", {key: value for key, value in _SHARED.items() if key != "head_dim"}),
    "gemma2": ("Gemma2", {**_SHARED, "query_pre_attn_scalar": 4, "sliding_window": 8}),
}
FAMILY_NAMES = tuple(CONFIGS)


def tokenizer() -> Any:
    """Return a tokenizer with one token a byte, and two special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


def model(family: str, seed: int = 0) -> Any:
    """Return a tiny model with random weights, also in its biases and norms."""
    name, settings = CONFIGS[family]
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**settings)
    made = getattr(transformers, f"{name}ForCausalLM" if name != "GPT2" else "GPT2LMHeadModel")(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def write(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a tiny model folder as a hub would hold it, and return it."""
    model(family, seed).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder
