"""Decide about people, and measure what a decision does to groups of them.

One module a method; each is imported at its first use: ``fairness.svd``, ``fairness.metrics``. A metric
names a disparity. None of them says that a system is fair.

Examples
--------
>>> from helpers import fairness
>>> fairness.PARTS == tuple(sorted(fairness.PARTS))
True
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["PARTS"]
PARTS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def __getattr__(name: str) -> Any:
    """Import a part of the room at its first use."""
    if name in PARTS:
        return importlib.import_module(f"helpers.fairness.{name}")
    raise AttributeError(f"helpers.fairness has no part {name!r}; there are: {', '.join(PARTS)}")
