"""Electrocardiograms: simulated records, noise, denoisers, and what a denoised record is worth.

One module a step; each is imported at its first use: ``ecg.signals``, ``ecg.noise``, ``ecg.model``,
``ecg.baselines``, ``ecg.streaming``, ``ecg.evaluation``, ``ecg.physionet``. Nothing in here is a medical
device, and nothing that it says is medical advice.

Examples
--------
>>> from helpers import ecg
>>> ecg.PARTS == tuple(sorted(ecg.PARTS))
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
        return importlib.import_module(f"helpers.ecg.{name}")
    raise AttributeError(f"helpers.ecg has no part {name!r}; there are: {', '.join(PARTS)}")
