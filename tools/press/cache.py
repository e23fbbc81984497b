"""Executed notebooks, kept under a key of everything that their numbers depend on."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.press.chapters import Chapter, code_cells, tags
from tools.press.closure import Closure
from tools.press.project import Project, write_atomic

FORMAT = 1  # raise it when the press changes what an executed notebook holds
KEEP = 3


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def data_files(project: Project) -> Iterator[Path]:
    """Yield the bundled data, without the accepted results and the cards."""
    for path in sorted(project.data.rglob("*")):
        inside = path.relative_to(project.data)
        if path.is_file() and inside.parts[0] != "results" and path.suffix != ".md":
            yield path


def key(project: Project, chapter: Chapter, parameters: Mapping[str, Any]) -> str:
    """Return the hash over code cells, parameters, reachable helpers, lock and data."""
    cells = code_cells(chapter.notebook())
    helpers = Closure(project.helpers).files(cell.source for cell in cells)
    lock = [project.lock] if project.lock.is_file() else []
    files = [*helpers, *lock, *data_files(project)]
    parts = {
        "format": FORMAT,
        "python": sys.version_info[:2],
        "cells": [(cell.get("id"), tags(cell), cell.source) for cell in cells],
        "parameters": dict(parameters),
        "files": {str(path.relative_to(project.root)): digest(path.read_bytes()) for path in files},
    }
    return digest(json.dumps(parts, sort_keys=True).encode())


@dataclass(frozen=True)
class Cache:
    """The executed notebooks of one chapter."""

    project: Project
    slug: str

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.project.build / "cache" / self.slug

    def path(self, profile: str, key: str) -> Path:
        """Return the place of the notebook with this key."""
        return self.folder / f"{profile}-{key[:16]}.ipynb"

    def find(self, profile: str, key: str) -> NotebookNode | None:
        """Return the executed notebook, or ``None`` if there is none that can be trusted."""
        path = self.path(profile, key)
        return self._read(path, key) if path.is_file() else None

    def store(self, profile: str, key: str, notebook: NotebookNode) -> Path:
        """Keep an executed notebook, and drop the oldest beyond the newest three of the profile."""
        content = nbformat.writes(notebook).encode()
        path = self.path(profile, key)
        write_atomic(path, content)
        write_atomic(_seal(path), f"{digest(content)}  {path.name}\n")
        for old in self._newest(profile)[KEEP:]:
            _seal(old).unlink(missing_ok=True)
            old.unlink()
        return path

    def expected(self, profile: str) -> dict[str, Any]:
        """Return the run metadata of the newest notebook, or of the accepted ledger; maybe empty."""
        for path in self._newest(profile):
            if notebook := self._read(path):
                return dict(notebook.metadata["tml"]["run"])
        accepted = self.project.accepted(profile) / f"{self.slug}.json"
        if accepted.is_file():
            return dict(json.loads(accepted.read_text(encoding="utf-8")).get("run", {}))
        return {}

    def _newest(self, profile: str) -> list[Path]:
        found = self.folder.glob(f"{profile}-*.ipynb")
        return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)

    def _read(self, path: Path, key: str | None = None) -> NotebookNode | None:
        try:
            content = path.read_bytes()
            sealed = _seal(path).read_text(encoding="utf-8").split()[0]
            if digest(content) != sealed:
                return None
            notebook = nbformat.reads(content.decode(), as_version=4)
            stored = notebook.metadata["tml"]["run"]["key"]
        except (OSError, ValueError, KeyError, IndexError):
            return None
        return notebook if key in (None, stored) else None


def _seal(path: Path) -> Path:
    return path.with_suffix(".ipynb.sha256")
