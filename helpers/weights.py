"""Trained weights on disk: one safetensors file with its settings, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["read_safetensors", "write_safetensors"]


def write_safetensors(path: str | Path, tensors: dict[str, Tensor], *, settings: dict[str, Any]) -> Path:
    """Write tensors and their settings under a temporary name, then rename.

    Parameters
    ----------
    path : str or Path
        Where; its folder is made if missing.
    tensors : dict of str to Tensor
        What; any shapes, from any device.
    settings : dict
        How they were made: anything that JSON can hold.

    Returns
    -------
    Path
        Where it is.

    Raises
    ------
    TypeError
        If JSON cannot hold the settings; nothing is written then.

    Examples
    --------
    >>> import tempfile, torch
    >>> from helpers import weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = weights.write_safetensors(f"{folder}/a", {"w": torch.ones(2)}, settings={"k": 1})
    ...     weights.read_safetensors(path)
    ({'w': tensor([1., 1.])}, {'k': 1})

    Taught in: sae-derivation
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, partial, metadata={"settings": json.dumps(settings)})
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def read_safetensors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the settings that `write_safetensors` wrote.

    Parameters
    ----------
    path : str or Path
        The file.

    Returns
    -------
    tuple of dict
        The tensors by name, and the settings.

    Raises
    ------
    ValueError
        If the file is damaged, or this book did not write it.
    FileNotFoundError
        If it is not there.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from helpers import weights
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     damaged = pathlib.Path(folder) / "a"
    ...     _ = damaged.write_bytes(b"half a file")
    ...     weights.read_safetensors(damaged)
    Traceback (most recent call last):
    ...
    ValueError: ...a is damaged or was not written by this book: delete it, make it again

    Taught in: sae-derivation
    """
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["settings"])
        return load_file(path), settings
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or was not written by this book: delete it, make it again"
        ) from error
