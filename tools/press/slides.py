"""Slides from the cells that carry ``slideshow`` metadata: the book's own pages, one slide at a time.

Formulas, figures, explorers and citations come out as in the book, and nothing comes from a network.
"""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode

from helpers._html import format_interval, format_number
from tools.press.build import jupyter_book, run_report, swap
from tools.press.cache import Cache, key
from tools.press.chapters import Chapter, load_chapters
from tools.press.inject import join, lift_figure
from tools.press.ledger import read_ledger
from tools.press.project import PressError, Project

NEW = ("slide", "subslide")
SHOWN = (*NEW, "fragment")
BREAK = '<hr class="deck-break">'
HERE = Path(__file__).parent
GLUE = re.compile(r"\{glue:text\}`([^`]+)`")


def slide_type(cell: NotebookNode) -> str:
    """Return the kind of slide that a cell begins or goes on with; empty if it is on none."""
    kind = str(cell.metadata.get("slideshow", {}).get("slide_type", ""))
    return kind if kind in SHOWN else ""


def deck(notebook: NotebookNode, ledger: dict[str, Any]) -> NotebookNode:
    """Return the notebook of the slides: marked cells only, a break before every slide."""
    cells = [_markdown(f"# {ledger['title']}", "deck-title")]
    for cell in copy.deepcopy(notebook.cells):
        if not slide_type(cell):
            continue
        if slide_type(cell) in NEW:
            cells.append(_markdown(BREAK, f"break-{len(cells)}"))
        if cell.cell_type == "markdown":
            cell.source = headings_to_rubrics(resolve_glue(cell.source, ledger))
        cells.append(cell)
    return NotebookNode({**copy.deepcopy(notebook), "cells": cells})


def _markdown(text: str, name: str) -> NotebookNode:
    return nbformat.v4.new_markdown_cell(text, id=name)


def headings_to_rubrics(text: str) -> str:
    """Turn headings into rubrics: a slide may begin anywhere, a section may not.

    Examples
    --------
    >>> print(headings_to_rubrics("## The problem"))
    ```{rubric} The problem
    ```
    """
    text = re.sub(r"^\([\w-]+\)=\s*$", "", text, flags=re.M)
    return re.sub(r"^#{1,6} (.+)$", r"```{rubric} \1\n```", text, flags=re.M)


def resolve_glue(text: str, ledger: dict[str, Any]) -> str:
    """Write quoted numbers out: the cell that recorded them may not be on a slide."""

    def value(match: re.Match[str]) -> str:
        name, _, form = match[1].rpartition(":") if match[1] not in ledger["records"] else (match[1], "", "")
        name, form = (name, form) if name in ledger["records"] else (match[1], "")
        if match[1].removeprefix("claim:") in ledger["claims"]:
            return str(ledger["claims"][match[1].removeprefix("claim:")]["verdict"])
        record = ledger["records"].get(name.removesuffix(".ci"))
        if record is None:
            raise PressError(f"a slide quotes {match[1]!r}, which the run has not recorded")
        if name.endswith(".ci") and name not in ledger["records"]:
            return format_interval(*record["ci"])
        return format(record["value"], form) if form else format_number(record["value"])

    return GLUE.sub(value, text)


def slides(project: Project, profile: str) -> int:
    """Build the slides of all chapters that mark cells; say where they are; return the exit code."""
    target = project.build / "slides" / "src"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(project.book, target, ignore=shutil.ignore_patterns("*.ipynb", "*.md", ".*"))
    parameters = {"PROFILE": profile, **run_report(project, profile).get("parameters", {})}
    decks = [_write_deck(project, chapter, profile, parameters, target) for chapter in load_chapters(project)]
    names = [name for name in decks if name]
    if not names:
        raise PressError("no cell of a chapter carries slideshow metadata, so there are no slides to make")
    _write_frame(project, names, target)
    out = project.build / "slides" / "out"
    code = jupyter_book(target, out, ("-W", "--keep-going", "--all"))
    swap(out / "_build" / "html", project.build / "slides" / "html")
    print(f"Slides: {', '.join(f'{name}.html' for name in names)}")
    return code


def _write_deck(
    project: Project, chapter: Chapter, profile: str, parameters: dict[str, Any], target: Path
) -> str | None:
    if not any(slide_type(cell) for cell in chapter.notebook().cells):
        return None
    executed = Cache(project, chapter.slug).find(profile, key(project, chapter, parameters))
    if executed is None:
        raise PressError(f"{chapter.slug} has no valid {profile} run: make book, then make slides")
    notebook = join(chapter.notebook(), executed)
    for cell in notebook.cells:
        lift_figure(cell, chapter)
    nbformat.write(deck(notebook, read_ledger(chapter, executed)), target / f"{chapter.slug}.ipynb")
    return chapter.slug


def _write_frame(project: Project, names: list[str], target: Path) -> None:
    """Write the index, the settings and the script that shows one slide at a time."""
    links = "\n".join(f"- {{doc}}`{name}`" for name in names)
    files = yaml.safe_load(project.config.read_text(encoding="utf-8")).get("bibtex_bibfiles", [])
    references = "\n\n```{bibliography}\n```" if files else ""
    (target / "index.md").write_text(f"# Slides\n\n{links}{references}\n", encoding="utf-8")
    toc = {"format": "jb-book", "root": "index", "chapters": [{"file": name} for name in names]}
    (target / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    shutil.copy(project.config, target / "_config.yml")
    (target / "_static").mkdir(exist_ok=True)
    for name in ("deck.css", "deck.js"):
        shutil.copy(HERE / name, target / "_static" / name)
