"""The tables that the press writes into the pages, where a page says ``<!-- press: NAME -->``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers._html import format_interval, format_number
from tools.press.chapters import Chapter
from tools.press.inject import last_line, measured, reading_minutes
from tools.press.ledger import verdicts_in_words
from tools.press.project import PressError, Project
from tools.press.table import markdown, memory, seconds

PLACEHOLDER = re.compile(r"<!-- press: ([\w-]+) -->")
# A dot inside a name that is a decimal point: one digit before it, and no further number on either side.
DECIMAL = re.compile(r"(?<!\d)(?<!\d\.)(\d)\.(\d+)(?!\d|\.\d)")


@dataclass(frozen=True)
class Contents:
    """What the tables are made of: ledgers of the chapters that ran, reasons of those that did not."""

    project: Project
    chapters: list[Chapter]
    ledgers: Mapping[str, dict[str, Any]]
    reasons: Mapping[str, str]

    def link(self, slug: str) -> str:
        """Return a link to the page of a chapter."""
        chapter = next(chapter for chapter in self.chapters if chapter.slug == slug)
        return f"{{doc}}`/{chapter.docname}`"


def fill(text: str, contents: Contents, where: str) -> str:
    """Return the page with its tables."""

    def table(match: re.Match[str]) -> str:
        if match[1] not in TABLES:
            known = ", ".join(TABLES)
            raise PressError(f"{where}: the press has no table {match[1]!r}; it has: {known}")
        return TABLES[match[1]](contents)

    return PLACEHOLDER.sub(table, text)


def overview(contents: Contents) -> str:
    """Return what every chapter claims, how that came out, and the time it takes."""
    rows = []
    for chapter in contents.chapters:
        notebook, ledger = chapter.notebook(), contents.ledgers.get(chapter.slug)
        came_out = (verdicts_in_words(ledger), seconds(ledger["run"]["seconds"])) if ledger else ("-", "-")
        claim = notebook.metadata.get("tml", {}).get("claim", "")
        rows.append([contents.link(chapter.slug), claim, *came_out, f"{reading_minutes(notebook)} min"])
    return markdown(["chapter", "what is claimed", "verdicts", "to run", "to read"], rows)


def results(contents: Contents) -> str:
    """Return every claim of all chapters: its verdict in a table, and below, folded, what it was made of."""
    blocks = []
    for chapter in contents.chapters:
        if reason := contents.reasons.get(chapter.slug):
            blocks.append(
                f"**{contents.link(chapter.slug)}**: no valid run (`{last_line(reason).replace('`', '')}`)"
            )
        elif contents.ledgers[chapter.slug]["claims"]:
            blocks.append(_claims(f"**{contents.link(chapter.slug)}**", contents.ledgers[chapter.slug]))
    return "\n\n".join(blocks) or "No chapter makes a claim yet."


def _claims(title: str, ledger: Mapping[str, Any]) -> str:
    """Return the claims of one chapter."""
    claims, run = ledger["claims"].values(), ledger["run"]
    models = sorted({claim["model"] for claim in claims} - {""})
    where = ", ".join([f"{run['profile']} profile", *models, run["date"], f"`{run['commit']}`"])
    table = markdown(["claim", "the paper", "verdict"], [_claim_row(claim) for claim in claims])
    parts = "\n\n".join(_claim_parts(claim, ledger["records"]) for claim in claims)
    folded = f"````{{admonition}} Conditions, controls and numbers\n:class: dropdown\n\n{parts}\n````"
    return f"{title} ({where})\n\n{table}\n\n{folded}"


def _claim_row(claim: Mapping[str, Any]) -> list[str]:
    return [claim["statement"], claim["paper"], f"**{claim['verdict']}**"]


def _claim_parts(claim: Mapping[str, Any], records: Mapping[str, Any]) -> str:
    """Say which conditions were met, which controls failed as they should, and the numbers."""
    told = {
        "Met": [words for words, met in claim["conditions"].items() if met],
        "Not met": [words for words, met in claim["conditions"].items() if not met],
        "Negative controls, as they should be": [words for words, well in claim["control"].items() if well],
        "Negative controls, not as they should be": [
            words for words, well in claim["control"].items() if not well
        ],
        "Numbers": [f"{in_words(name)}: {measured(records[name])}" for name in claim["ours"]],
    }
    lines = [f"- {head}: {'; '.join(words)}." for head, words in told.items() if words]
    title = f"**{claim['statement']}** {claim['verdict'].capitalize()} (`{claim['id']}`)."
    return "\n".join([title, "", *lines])


def in_words(name: str) -> str:
    """Return the name of a record as a list of words; decimal points stay.

    Examples
    --------
    >>> in_words("steer.all.AbsTopK"), in_words("Beta.1.25.gap"), in_words("bits.32.1")
    ('steer, all, AbsTopK', 'Beta, 1.25, gap', 'bits, 32, 1')
    """
    kept = DECIMAL.sub(r"\1\n\2", name)  # no name holds a line break
    return kept.replace(".", ", ").replace("\n", ".")


def timings(contents: Contents) -> str:
    """Return what every chapter cost."""
    rows = []
    for chapter in contents.chapters:
        run = contents.ledgers.get(chapter.slug, {}).get("run")
        if run:
            where = (run["profile"], seconds(run["seconds"]), memory(run["peak_bytes"]), run["threads"])
            rows.append([contents.link(chapter.slug), *where, run["date"], f"`{run['commit']}`"])
    header = ["chapter", "profile", "run time", "peak memory", "threads", "date", "commit"]
    return markdown(header, rows)


def benchmarks(contents: Contents) -> str:
    """Return the side-by-side measurements of ``data/results/bench``."""
    files = sorted((contents.project.data / "results" / "bench").glob("*.json"))
    if not files:
        return "No benchmark has been run yet: `make bench`."
    return "\n\n".join(_benchmark(path) for path in files)


def _benchmark(path: Path) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    rows = content["rows"] if isinstance(content, dict) else content
    header = ["measured", "unit", "ours", "against", "ratio", "to reach", "reached", "runs"]
    return markdown(header, [_bench_row(row) for row in rows])


def _bench_row(row: Mapping[str, Any]) -> list[str]:
    interval = row.get("low") is not None and row.get("high") is not None
    spread = f" {format_interval(row['low'], row['high'])}" if interval else ""
    holds = {True: "yes", False: "no", None: "-"}[row.get("holds")]
    compared = [_optional(row.get(name)) for name in ("peer", "ratio", "target")]
    ours = format_number(row["ours"]) + spread
    return [row["name"], row["unit"], ours, *compared, holds, _optional(row.get("n"))]


def _optional(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else format_number(value)


TABLES: dict[str, Callable[[Contents], str]] = {
    "chapters": overview,
    "results": results,
    "timings": timings,
    "benchmarks": benchmarks,
}
