"""Checkers for the exercises: one module a chapter, one function an exercise.

A checker runs the reader's function on inputs with a known answer, and says what is wrong and why. A
function that still returns nothing is "not written yet", so that a notebook runs through from top to end.

Examples
--------
>>> from helpers import checks
>>> checks.verdict("my_function", [])
my_function: right.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["verdict"]
CHAPTERS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def verdict(name: str, faults: list[str]) -> None:
    """Print what is wrong with an answer, or that it is right.

    Parameters
    ----------
    name : str
        Name of the reader's function.
    faults : list[str]
        One sentence a fault; empty if there is none.

    Examples
    --------
    >>> verdict("half", ["half(4) is 3, and should be 2."])
    half: not yet.
      - half(4) is 3, and should be 2.
    """
    print(f"{name}: not yet." if faults else f"{name}: right.")
    for fault in faults:
        print(f"  - {fault}")


def __getattr__(name: str) -> Any:
    """Import the checkers of a chapter at their first use."""
    if name in CHAPTERS:
        return importlib.import_module(f"helpers.checks.{name}")
    raise AttributeError(f"helpers.checks has no chapter {name!r}; there are: {', '.join(CHAPTERS)}")
