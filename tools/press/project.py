"""Where things stand, and what a profile may cost."""

from __future__ import annotations

import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class PressError(Exception):
    """Something that the person at the keyboard can put right; the message says how."""


@dataclass(frozen=True)
class Budget:
    """What a chapter may cost in one profile; ``None`` means that the page states it."""

    seconds: float | None
    gigabytes: float | None

    @property
    def cell_timeout(self) -> int | None:
        """Seconds after which a single cell counts as stuck: five times the chapter's budget."""
        return None if self.seconds is None else int(5 * self.seconds)


PROFILES = {"smoke": Budget(60, 4), "book": Budget(300, 6), "full": Budget(None, None)}


@dataclass(frozen=True)
class Project:
    """The folders and files of a book that stands at ``root``."""

    root: Path = ROOT

    @property
    def book(self) -> Path:
        """Pages and notebooks."""
        return self.root / "book"

    @property
    def toc(self) -> Path:
        """The table of contents, with paths relative to ``book``."""
        return self.root / "_toc.yml"

    @property
    def config(self) -> Path:
        """Settings of the book."""
        return self.root / "_config.yml"

    @property
    def helpers(self) -> Path:
        """The module that the chapters import."""
        return self.root / "helpers"

    @property
    def data(self) -> Path:
        """Bundled data, and the accepted results."""
        return self.root / "data"

    @property
    def lock(self) -> Path:
        """Every version of the environment."""
        return self.root / "requirements.lock"

    @property
    def build(self) -> Path:
        """Everything that can be made again."""
        return self.root / "build"

    def ledger(self, profile: str) -> Path:
        """Where the ledgers of the last run lie."""
        return self.build / profile / "ledger"

    def accepted(self, profile: str) -> Path:
        """Where the accepted ledgers lie."""
        return self.data / "results" / profile

    def html(self, profile: str) -> Path:
        """Where the built pages lie."""
        return self.build / profile / "html"


def check_profile(profile: str) -> str:
    """Return ``profile`` if there is such a one."""
    if profile not in PROFILES:
        raise PressError(f"there is no profile {profile!r}; choose one of: {', '.join(PROFILES)}")
    return profile


def write_atomic(path: Path, content: str | bytes) -> Path:
    """Write a file under a temporary name, then rename it: nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def git(project: Project, *arguments: str) -> str | None:
    """Answer of a git command at the project's root, or ``None`` where there is no repository."""
    done: Any = subprocess.run(
        ["git", *arguments], cwd=project.root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def commit(project: Project) -> str:
    """Name the commit that stands in the working tree, with ``-dirty`` if files differ from it."""
    name = git(project, "rev-parse", "--short=10", "HEAD")
    if name is None:
        return "unknown"
    changed = git(project, "status", "--porcelain", "--untracked-files=no", "--", ".", ":!data/results")
    return f"{name}-dirty" if changed else name
