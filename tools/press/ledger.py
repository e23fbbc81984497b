"""Read what a run recorded out of the outputs of its notebook."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nbformat import NotebookNode

from tools.press.chapters import Chapter, code_cells
from tools.press.project import PressError, Project, write_atomic

VERDICTS = ("holds", "partly", "does not hold here")
PREFIX = "application/papermill.record/application/vnd.tml."


def entries(cell: NotebookNode) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (kind, fields) for everything that a cell has recorded."""
    for output in cell.get("outputs", []):
        for mime, value in output.get("data", {}).items():
            if mime.startswith(PREFIX) and mime.endswith("+json"):
                fields = json.loads(value) if isinstance(value, str) else dict(value)
                yield mime.removeprefix(PREFIX).removesuffix("+json"), fields


def read_ledger(chapter: Chapter, executed: NotebookNode) -> dict[str, Any]:
    """Return records, claims, figures, session and run of an executed chapter."""
    ledger: dict[str, Any] = {"chapter": chapter.slug, "title": chapter.title(), "session": {}}
    records: dict[str, Any] = {}
    claims: dict[str, Any] = {}
    figures: dict[str, Any] = {}
    for cell in code_cells(executed):
        for kind, fields in entries(cell):
            if kind == "record":
                _put(records, fields["name"], fields, chapter)
            elif kind == "claim":
                _put(claims, fields["id"], fields, chapter)
            elif kind == "figure":
                _put(figures, fields["name"], fields, chapter)
            elif kind == "session":
                ledger["session"] = fields
    run = dict(executed.metadata["tml"]["run"])
    return {**ledger, "run": run, "records": records, "claims": claims, "figures": figures}


def _put(kept: dict[str, Any], name: str, fields: dict[str, Any], chapter: Chapter) -> None:
    if name in kept:
        raise PressError(f"{chapter.slug} records {name!r} twice: give the second one another name")
    kept[name] = fields


def write_ledger(project: Project, profile: str, ledger: dict[str, Any]) -> Path:
    """Write the ledger of a chapter."""
    return write_atomic(project.ledger(profile) / f"{ledger['chapter']}.json", dumps(ledger))


def dumps(content: Any) -> str:
    """Return JSON as it is stored: readable, stable, without NaN."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"


def load_ledgers(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the ledgers of a folder by chapter."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def verdicts(ledger: dict[str, Any]) -> tuple[int, ...]:
    """Count the claims that hold, hold partly, and do not hold."""
    found = [claim["verdict"] for claim in ledger["claims"].values()]
    return tuple(found.count(verdict) for verdict in VERDICTS)


def verdicts_in_words(ledger: dict[str, Any]) -> str:
    """Say how often each verdict was given: "2 holds, 1 partly"."""
    counts = zip(verdicts(ledger), VERDICTS, strict=True)
    return ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
