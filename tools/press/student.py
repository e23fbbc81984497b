"""The student edition: the same source without the solutions. The checkers stay."""

from __future__ import annotations

import copy
import re

import nbformat
from nbformat import NotebookNode

from tools.press.build import Edition, build
from tools.press.chapters import load_chapters, tags
from tools.press.project import Project

OPEN = re.compile(r"^(?P<fence>`{3,}|~{3,}|:{3,})\{(?P<name>[\w:-]+)\}")


def student_version(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without solutions: admonitions, gated parts, and cells tagged ``solution``."""
    kept = []
    inside = False
    for cell in copy.deepcopy(notebook.cells):
        starts, ends = _gate(cell, "solution-start"), _gate(cell, "solution-end")
        inside = inside or starts
        if not inside and "solution" not in tags(cell):
            if cell.cell_type != "markdown":
                kept.append(cell)
            elif (text := without_solutions(cell.source)) or not cell.source.strip():
                kept.append(NotebookNode({**cell, "source": text}))
        inside = inside and not ends
    return NotebookNode({**copy.deepcopy(notebook), "cells": kept})


def _gate(cell: NotebookNode, name: str) -> bool:
    lines = cell.source.splitlines() if cell.cell_type == "markdown" else []
    return any((found := OPEN.match(line)) and found["name"] == name for line in lines)


def without_solutions(text: str) -> str:
    r"""Return Markdown without its solution admonitions.

    Examples
    --------
    >>> without_solutions("Ask.\n\n```{solution} one\n42\n```\n\nGo on.")
    'Ask.\n\n\nGo on.'
    """
    kept: list[str] = []
    fence = ""
    for line in text.splitlines():
        found = OPEN.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif found and found["name"] == "solution":
            fence = found["fence"]
        else:
            kept.append(line)
    return "\n".join(kept).strip()


def student(project: Project, profile: str) -> int:
    """Write the notebooks to hand out, and build their pages."""
    for chapter in load_chapters(project):
        target = project.build / "student" / "notebooks" / f"{chapter.docname}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(student_version(chapter.notebook()), target)
        print(f"The notebook to hand out is at {target}")
    return build(project, profile, Edition("student", student_version))
