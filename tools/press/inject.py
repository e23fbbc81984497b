"""Put the outputs of a run onto the page: card, figures with captions, the prose as it stands now."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import nbformat
from nbformat import NotebookNode

from helpers._html import format_interval, format_number
from tools.press.chapters import Chapter, code_cells
from tools.press.ledger import entries
from tools.press.project import PressError
from tools.press.table import memory, seconds

WORDS_A_MINUTE = 200
CARD = """```{{admonition}} This chapter
:class: tml-card

{lines}
```"""


def page(chapter: Chapter, executed: NotebookNode) -> NotebookNode:
    """Return the notebook of the page: today's prose, the outputs of the run, the card."""
    notebook = join(chapter.notebook(), executed)
    for cell in code_cells(notebook):
        lift_figure(cell, chapter)
    notebook.cells.insert(title_index(notebook) + 1, card(notebook, executed))
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return notebook


def join(source: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return the source with the outputs that the cells of the same id have in the executed notebook."""
    notebook = copy.deepcopy(source)
    ran = {cell["id"]: cell for cell in code_cells(executed)}
    for cell in code_cells(notebook):
        if cell["id"] not in ran or ran[cell["id"]].source != cell.source:
            raise PressError(f"cell {cell['id']} was not run as it stands now: run the chapter again")
        cell.outputs = copy.deepcopy(ran[cell["id"]].outputs)
        cell.execution_count = ran[cell["id"]].execution_count
    notebook.metadata["language_info"] = executed.metadata.get("language_info", {"name": "python"})
    return notebook


def lift_figure(cell: NotebookNode, chapter: Chapter) -> None:
    """Give a cell the caption, name and alt text of the figure that it recorded."""
    figures = [fields for kind, fields in entries(cell) if kind == "figure"]
    if len(figures) > 1:
        names = ", ".join(figure["name"] for figure in figures)
        raise PressError(
            f"{chapter.slug}: cell {cell['id']} shows several figures ({names}): one a cell, "
            "so that each has its caption"
        )
    for figure in figures:
        shown = cell.metadata.setdefault("mystnb", {})
        shown["figure"] = {"caption": figure["caption"], "name": figure["name"]}
        shown["image"] = {**shown.get("image", {}), "alt": figure["alt"]}


def title_index(notebook: NotebookNode) -> int:
    """Return the index of the cell with the title."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and re.search(r"^# ", cell.source, re.M):
            return index
    raise PressError("the notebook has no title: begin it with a markdown cell `# Title`")


def card(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """Return the cell that says what this chapter costs and asks for; measured, not typed."""
    run = executed.metadata["tml"]["run"]
    session = next((f for c in code_cells(executed) for kind, f in entries(c) if kind == "session"), {})
    wanted = notebook.metadata.get("tml", {}).get("prerequisites", [])
    fields = {
        "Run time": f"{seconds(run['seconds'])} on {cores(run['threads'])}",
        "Peak memory": memory(run["peak_bytes"]),
        "To read": f"about {reading_minutes(notebook)} min",
        "Prerequisites": wanted if isinstance(wanted, str) else "; ".join(wanted),
        "Profile": f"`{run['profile']}`",
        "Model": f"`{session['model']}`" if session.get("model") else "",
        "Run on": f"{run['date']}, commit `{run['commit']}`",
    }
    lines = "\n".join(f"- **{name}:** {value}" for name, value in fields.items() if value)
    return nbformat.v4.new_markdown_cell(CARD.format(lines=lines), id="press-card")


def cores(count: int) -> str:
    """Return a number of cores in words."""
    return "1 core" if count == 1 else f"{count} cores"


def reading_minutes(notebook: NotebookNode) -> int:
    """Return the minutes that the prose takes at 200 words a minute."""
    prose = " ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return max(1, math.ceil(len(re.findall(r"\b[^\W\d_]{2,}\b", prose)) / WORDS_A_MINUTE))


def stub(chapter: Chapter, reason: str) -> NotebookNode:
    """Return the page of a chapter that has no valid run: its title, and why there is nothing."""
    quoted = f"~~~\n{last_line(reason)}\n~~~"  # as code: Markdown must not read it
    notice = f"```{{error}}\nThis chapter has no valid run, so there is nothing to show.\n{quoted}\n```"
    cells = [f"# {chapter.title()}", notice]
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_markdown_cell(text, id=f"stub-{i}") for i, text in enumerate(cells)],
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
    )


def last_line(text: str) -> str:
    """Return the last line of a message: where Python puts what went wrong."""
    return text.strip().splitlines()[-1].strip() if text.strip() else ""


def measured(record: dict[str, Any]) -> str:
    """Return value, interval and unit of a record.

    Examples
    --------
    >>> measured({"value": 0.5, "ci": [0.4, 0.6], "unit": "nats"})
    '0.500 [0.400, 0.600] nats'
    """
    interval = f" {format_interval(*record['ci'])}" if record.get("ci") else ""
    return f"{format_number(record['value'])}{interval} {record.get('unit') or ''}".strip()
