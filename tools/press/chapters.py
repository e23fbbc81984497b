"""The chapters of the table of contents, and their parameters."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from nbformat import NotebookNode

from tools.press.project import PressError, Project

PARAMETERS = ("PROFILE", "MODEL", "SEED")


@dataclass(frozen=True)
class Chapter:
    """A notebook of the table of contents."""

    slug: str
    path: Path
    docname: str
    part: str

    def notebook(self) -> NotebookNode:
        """Read the notebook."""
        return read_notebook(self.path)

    def title(self) -> str:
        """Return the first heading of the notebook."""
        for cell in self.notebook().cells:
            if cell.cell_type == "markdown" and (found := re.search(r"^# (.+)$", cell.source, re.M)):
                return found.group(1).strip()
        return self.slug


def read_notebook(path: Path) -> NotebookNode:
    """Read a notebook; a broken file, or one without stable cell ids, is an error that names it."""
    try:
        text = path.read_text(encoding="utf-8")
        ids = [cell.get("id") for cell in json.loads(text)["cells"]]
    except (OSError, ValueError, KeyError) as problem:
        raise PressError(f"{path} is not a readable notebook: {problem!r}") from problem
    # nbformat would make up new ids at every reading, and outputs are joined to prose by them.
    if doubtful := [name for name, count in Counter(ids).items() if count > 1 or not name]:
        raise PressError(f"{path.name}: each cell needs an id of its own (nbformat 4.5), see {doubtful}")
    return nbformat.reads(text, as_version=4)


def slug_of(path: str | Path) -> str:
    """Return the file name without number and ending: ``01-sae-derivation.ipynb`` is ``sae-derivation``."""
    return re.sub(r"^\d+-", "", Path(path).stem)


def toc_entries(project: Project) -> Iterator[tuple[str, str]]:
    """Yield (docname, caption of its part) for every page of the table of contents."""
    if not project.toc.is_file():
        raise PressError(f"{project.toc} is missing: it lists the pages of the book")
    toc = yaml.safe_load(project.toc.read_text(encoding="utf-8"))
    yield toc["root"], ""
    yield from _entries(toc, "")


def _entries(node: Mapping[str, Any], caption: str) -> Iterator[tuple[str, str]]:
    for part in node.get("parts", []):
        yield from _entries(part, part.get("caption", ""))
    for page in (*node.get("chapters", []), *node.get("sections", [])):
        yield page["file"], caption
        yield from _entries(page, caption)


def load_chapters(project: Project, only: tuple[str, ...] = ()) -> list[Chapter]:
    """Return the chapters in the order of the book, or those whose slugs are given."""
    chapters = []
    for name, part in toc_entries(project):
        docname = name.removesuffix(".ipynb")
        path = project.book / f"{docname}.ipynb"
        if path.is_file():
            chapters.append(Chapter(slug_of(path), path, docname, part))
        elif not (project.book / f"{name.removesuffix('.md')}.md").is_file():
            raise PressError(f"{project.toc.name} lists {name!r}, but book/ has no such page")
    return _selected(chapters, only)


def _selected(chapters: list[Chapter], only: tuple[str, ...]) -> list[Chapter]:
    known = [chapter.slug for chapter in chapters]
    if len(set(known)) < len(known):
        raise PressError(f"two chapters share a slug: {', '.join(known)}")
    if unknown := [slug for slug in only if slug not in known]:
        raise PressError(f"no chapter {', '.join(unknown)}; the chapters are: {', '.join(known) or 'none'}")
    return [chapter for chapter in chapters if not only or chapter.slug in only]


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.metadata.get("tags", []))


def declared_parameters(chapter: Chapter) -> dict[str, str]:
    """Return names and default values (as source) of the chapter's one parameters cell."""
    notebook = chapter.notebook()
    count = sum("parameters" in tags(cell) for cell in code_cells(notebook))
    if count != 1:
        raise PressError(f"{chapter.slug}: needs exactly one code cell tagged 'parameters', has {count}")
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    found = {name: about["default"] for name, about in papermill.inspect_notebook(notebook).items()}
    if set(found) != set(PARAMETERS):
        raise PressError(
            f"{chapter.slug}: the parameters cell sets {', '.join(found) or 'nothing'}; "
            f"it must set exactly {', '.join(PARAMETERS)}"
        )
    return found


def check_parameters(chapter: Chapter, given: Mapping[str, Any]) -> None:
    """Refuse a parameter that the chapter does not have, or whose type is another one."""
    known = declared_parameters(chapter)
    for name, value in given.items():
        if name not in known:
            raise PressError(f"{chapter.slug}: unknown parameter {name!r}; it knows {', '.join(known)}")
        default = ast.literal_eval(known[name])
        if type(value) is not type(default):
            raise PressError(
                f"{chapter.slug}: parameter {name}={value!r} is of type {type(value).__name__}; "
                f"expected {type(default).__name__}, as in the default {default!r}"
            )
