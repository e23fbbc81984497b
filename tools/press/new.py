"""Lay down a new chapter in the shape that every chapter has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

from tools.press.chapters import load_chapters
from tools.press.project import PressError, Project, write_atomic
from tools.press.repo import address, slug

TEMPLATE = Path(__file__).with_name("template.ipynb")  # @NAME@ is replaced in it


def new_chapter(project: Project, name: str, *, title: str, part: str, paper: str) -> Path:
    """Write the notebook of a new chapter and add it to the table of contents."""
    _check(project, name, title, part)
    folder = project.book / re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-")
    number = 1 + max([int(path.name[:2]) for path in folder.glob("[0-9][0-9]-*.ipynb")], default=0)
    path = folder / f"{number:02d}-{name}.ipynb"
    docname = str(path.relative_to(project.book).with_suffix(""))
    repository = slug(address(project))
    colab = f"https://colab.research.google.com/github/{repository}/blob/main/book/{docname}.ipynb"
    key = re.sub(r"\W", "", paper) or "TODO"
    words = {"TITLE": title, "SLUG": name, "PAPER": paper, "KEY": key, "COLAB": colab}
    notebook = template({**words, "REPO": repository})
    write_atomic(path, nbformat.writes(notebook) + "\n")
    add_to_toc(project, docname, part)
    return path


def _check(project: Project, name: str, title: str, part: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise PressError(f"SLUG={name!r}: give lower-case words joined by hyphens, such as sae-derivation")
    if not title or not part:
        raise PressError(
            'give a title and a part: make chapter SLUG=... TITLE="..." PART="..." PAPER=2510.00404'
        )
    if name in [chapter.slug for chapter in load_chapters(project)]:
        raise PressError(f"there is a chapter {name!r} already: choose another slug")


def template(words: dict[str, str]) -> NotebookNode:
    """Return the notebook of a new chapter."""
    text = TEMPLATE.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace(f"@{word}@", json.dumps(value)[1:-1])
    return nbformat.reads(text, as_version=4)


def add_to_toc(project: Project, docname: str, part: str) -> None:
    """Add a page at the end of its part; a new part comes after the others that hold chapters."""
    text = project.toc.read_text(encoding="utf-8")
    toc = yaml.safe_load(text)
    parts = toc.setdefault("parts", [])
    found = next((one for one in parts if one.get("caption") == part), None)
    if found is None:
        found = {"caption": part, "chapters": []}
        parts.insert(_after_chapters(project, parts), found)
    found["chapters"].append({"file": docname})
    comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    write_atomic(project.toc, comments + yaml.safe_dump(toc, sort_keys=False, allow_unicode=True))


def _after_chapters(project: Project, parts: list[dict[str, list[dict[str, str]]]]) -> int:
    places = [
        index + 1
        for index, part in enumerate(parts)
        if any((project.book / f"{page['file']}.ipynb").is_file() for page in part.get("chapters", []))
    ]
    return max(places, default=0)
