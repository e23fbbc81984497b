"""The module that every chapter of *Trustworthy Machine Learning, Executed* imports.

A chapter begins with ``from helpers import start``. The rooms are imported where they are used
(``from helpers import trace``), so that ``import helpers`` stays quick: torch, transformers and
nnsight load with the first room that needs them.

Examples
--------
>>> import helpers
>>> "trace" in dir(helpers)
True
"""

from __future__ import annotations

import importlib
from typing import Any

from helpers.session import Session, start

ROOMS = (
    "blocksparse",
    "checks",
    "circuits",
    "compress",
    "data",
    "directions",
    "ecg",
    "fairness",
    "models",
    "privacy",
    "reflection",
    "report",
    "sae",
    "session",
    "trace",
    "weights",
    "widgets",
)

__all__ = ["ROOMS", "Session", "start"]


def __getattr__(name: str) -> Any:
    """Import a room at its first use."""
    if name in ROOMS:
        return importlib.import_module(f"helpers.{name}")
    raise AttributeError(f"helpers has no room {name!r}; the rooms are: {', '.join(ROOMS)}")


def __dir__() -> list[str]:
    """List the rooms beside the public names."""
    return sorted({*__all__, *ROOMS})
