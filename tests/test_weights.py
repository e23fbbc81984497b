"""Weights on disk: what is written is what is read; nothing half-written; damage is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.weights import read_safetensors, write_safetensors

TENSORS = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.ones(2, dtype=torch.float16)}


def test_what_is_written_is_what_is_read_by_us_and_by_the_library(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "deep" / "w", TENSORS, settings={"k": [1, None, "é"]})
    tensors, settings = read_safetensors(path)
    assert settings == {"k": [1, None, "é"]}
    for found in (tensors, load_file(path)):
        assert {name: t.dtype for name, t in found.items()} == {"a": torch.float32, "b": torch.float16}
        assert all(torch.equal(found[name], t) for name, t in TENSORS.items())


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = write_safetensors(tmp_path / "w", TENSORS, settings={"k": 1})
    with pytest.raises(TypeError):
        write_safetensors(path, {}, settings={"k": object()})
    assert read_safetensors(path)[1] == {"k": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("what", ["cut", "settings", "metadata"])
def test_what_is_not_ours_is_refused(tmp_path: Path, what: str) -> None:
    path = write_safetensors(tmp_path / "w", TENSORS, settings={})
    if what == "cut":
        path.write_bytes(path.read_bytes()[:-4])
    else:
        save_file({"a": torch.ones(1)}, path, metadata={"other": "1"} if what == "settings" else None)
    with pytest.raises(ValueError, match="w is damaged or was not written by this book"):
        read_safetensors(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_safetensors(tmp_path / "nowhere")
