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


class Watch:
    """Notes from now on how much of the processors others take: all that this process did not start."""

    def __init__(self) -> None:
        self.ticks, self.own = _ticks(), _own()

    def others(self) -> float | None:
        """Return their share of the processors' time so far; ``None`` where the system does not tell."""
        spent = [after - first for after, first in zip(_ticks(), self.ticks, strict=True)]
        if not sum(spent):
            return None
        idle = spent[3] + spent[4]  # idle, and waiting for a disk
        return round(max(0.0, sum(spent) - idle - (_own() - self.own)) / sum(spent), 3)


def busy(seconds: float = 2.0) -> float | None:
    """Return the share of the processors' time that others take just now."""
    watch = Watch()
    time.sleep(seconds)
    return watch.others()


def _ticks() -> list[int]:
    """Read how long the processors have spent on what: user, nice, system, idle, wait, interrupts, steal."""
    line = STAT.read_text().splitlines()[0] if STAT.exists() else "cpu 0 0 0 0 0 0 0 0"
    return [int(word) for word in line.split()[1:9]]


def _own() -> float:
    """Return the ticks that this process and its finished children have used."""
    used = os.times()
    seconds = used.user + used.system + used.children_user + used.children_system
    return seconds * os.sysconf("SC_CLK_TCK")


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
