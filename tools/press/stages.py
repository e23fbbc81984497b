"""Everything that ``make test`` checks, one stage after the other, and a table at the end."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

from tools.press.project import Project
from tools.press.table import render, seconds

CHROMIUM = "chromium"
PYTHON = sys.executable


@dataclass(frozen=True)
class Stage:
    """One check: a name and a command of this environment's Python."""

    name: str
    command: tuple[str, ...]


PRESS = ("-m", "tools.press")
STAGES = (
    Stage("lint", ("-m", "ruff", "check", ".")),
    Stage("format", ("-m", "ruff", "format", "--check", ".")),
    Stage("types", ("-m", "mypy")),
    Stage("spelling", ("-m", "codespell_lib")),
    Stage("unit tests", ("-m", "pytest", "-q", "--cov", "--ignore=tests/book", "tests", "helpers", "tools")),
    Stage("chapters (smoke)", (*PRESS, "run", "--profile", "smoke")),
    Stage("accepted numbers", (*PRESS, "compare", "--profile", "smoke")),
    Stage("notebooks", (*PRESS, "lint")),
    Stage("pages", (*PRESS, "build", "--profile", "smoke")),
    Stage("browser", ("-m", "pytest", "-q", "tests/book")),
)


def run_stages(project: Project, stages: tuple[Stage, ...] = STAGES) -> int:
    """Run every stage, also after one has failed; return 0 only if all passed."""
    rows = []
    for stage in stages:
        print(f"\n== {stage.name} ==", flush=True)
        start = time.monotonic()
        passed = run_stage(project, stage)
        rows.append((stage.name, seconds(time.monotonic() - start), "ok" if passed else "FAILED"))
    print("\n" + render(("stage", "time", "status"), rows), flush=True)
    return 0 if all(row[-1] == "ok" for row in rows) else 1


def run_stage(project: Project, stage: Stage) -> bool:
    """Run one stage; a browser that is missing fails it with a word on what to install."""
    if stage.name == "browser" and not shutil.which(CHROMIUM):
        print(f"The pages are checked in Chromium, and there is none: apt-get install {CHROMIUM}")
        return False
    environment = {**os.environ, "TML_SITE": str(project.html("smoke"))}
    command = [PYTHON, *stage.command]
    return subprocess.run(command, cwd=project.root, env=environment, check=False).returncode == 0
