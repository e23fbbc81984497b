"""What a measurement ran on, and whether it had the machine to itself."""

from __future__ import annotations

import datetime
import os
import platform
import time
from pathlib import Path
from typing import Any

from tools.press.project import Project, git

STAT = Path("/proc/stat")


def busy(seconds: float = 2.0) -> float | None:
    """Return the share of the processors' time that others take just now; ``None`` where it is not told."""
    if not STAT.exists():
        return None
    before = _ticks()
    time.sleep(seconds)
    spent = [after - first for after, first in zip(_ticks(), before, strict=True)]
    idle = spent[3] + spent[4]  # idle, and waiting for a disk
    return round(1 - idle / max(sum(spent), 1), 3)


def _ticks() -> list[int]:
    """Read how long the processors have spent on what: user, nice, system, idle, wait, interrupts, steal."""
    return [int(word) for word in STAT.read_text().splitlines()[0].split()[1:9]]


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor."""
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def describe(project: Project, *, threads: int) -> dict[str, Any]:
    """Say when, on what and with which code."""
    measured = ("helpers", "tools/bench", "requirements.lock", "requirements-bench.lock")
    changed = git(project, "status", "--porcelain", "--untracked-files=no", "--", *measured)
    name = git(project, "rev-parse", "--short=10", "HEAD") or "unknown"
    return {
        "date": datetime.date.today().isoformat(),
        "commit": f"{name}-dirty" if changed else name,
        "command": "make bench",
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "python": platform.python_version(),
    }
