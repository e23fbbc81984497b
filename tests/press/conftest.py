"""A tiny book in a temporary folder: one or more chapters without a language model, and small helpers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.press.project import ROOT, Project

SESSION = '''
"""A small stand-in that writes the same outputs as the real one."""
import json
from IPython.display import display

MIME = "application/papermill.record/"


def emit(kind, name, fields, text):
    data = {MIME + "text/plain": text, MIME + f"application/vnd.tml.{kind}+json": fields}
    display(data, metadata={"scrapbook": {"name": name, "mime_prefix": MIME}}, raw=True)


def record(name, value, ci=None):
    fields = {"name": name, "value": value, "ci": ci, "n": 1, "unit": "", "samples": None}
    emit("record", name, fields, repr(value))


def claim(id, holds):
    verdict = "holds" if holds else "does not hold here"
    fields = {"id": id, "statement": "One | two",
              "paper": "Figure 1",
              "ours": ["answer"], "baseline": [],
              "control": {}, "conditions": {},
              "verdict": verdict, "note": "", "profile": "smoke", "model": "none"}
    emit("claim", f"claim:{id}", fields, verdict)


def figure(name):
    emit("figure", name, {"name": name, "caption": "A line.", "alt": "A line that rises"}, name)
'''
PARAMETERS = (
    'PROFILE: str = "book"  # size\nMODEL: str = "none"  # model\nSEED: int = 0  # seed',
    ["parameters"],
)
CODE = """
from helpers import session
from helpers.numbers import answer
session.record("answer", answer(), ci=[answer() - 1, answer() + 1])
session.claim("1/one", answer() == 42)
print("profile", PROFILE)
"""
CONFIG = """
title: A tiny book
author: The authors
copyright: The authors
only_build_toc_files: true
execute: {execute_notebooks: "off"}
repository: {url: "https://github.com/OWNER/trustworthy-ml-book", path_to_book: book, branch: main}
sphinx:
  extra_extensions: [sphinx_exercise]
  config: {nb_ipywidgets_js: {}}
"""


def notebook(*cells: Any) -> nbformat.NotebookNode:
    """Make a notebook: a string that begins with `md:` is prose, others are code; a pair has tags."""
    made = nbformat.v4.new_notebook()
    for index, cell in enumerate(cells):
        source, tags = cell if isinstance(cell, tuple) else (cell, [])
        if source.startswith("md:"):
            made.cells.append(nbformat.v4.new_markdown_cell(source[3:], id=f"cell-{index}"))
        else:
            made.cells.append(nbformat.v4.new_code_cell(source, id=f"cell-{index}", metadata={"tags": tags}))
    made.metadata["kernelspec"] = {"name": "no-such-kernel", "display_name": "x", "language": "python"}
    return made


class Book:
    """A project on disk, and the press on it as a reader calls it."""

    def __init__(self, root: Path) -> None:
        self.project = Project(root)
        self.write("helpers/__init__.py", "")
        self.write("helpers/session.py", SESSION)
        self.write("helpers/numbers.py", "def answer():\n    return 42\n")
        self.write("helpers/unused.py", "UNUSED = 1\n")
        self.write("data/registry.json", "{}")
        self.write("requirements.lock", "torch==2.13.0\n")
        self.write("_config.yml", CONFIG)
        self.write("book/index.md", "# A tiny book\n\n<!-- press: results -->\n\n<!-- press: timings -->\n")
        address = "https://github.com/OWNER/trustworthy-ml-book"
        self.write("pyproject.toml", f'[project.urls]\nRepository = "{address}"\n')
        self.chapters: list[str] = []
        self.chapter("one", "md:# One\n\nThe answer is {glue:text}`answer:.1f`.", PARAMETERS, CODE)

    def write(self, path: str, text: str) -> Path:
        target = self.project.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def chapter(self, slug: str, *cells: Any) -> Path:
        if slug not in self.chapters:
            self.chapters.append(slug)
        listed = "".join(f"  - file: part/{i:02d}-{name}\n" for i, name in enumerate(self.chapters, 1))
        self.write(
            "_toc.yml", f"format: jb-book\nroot: index\nparts:\n- caption: Part\n  chapters:\n{listed}"
        )
        path = self.write(f"book/part/{self.chapters.index(slug) + 1:02d}-{slug}.ipynb", "")
        nbformat.write(notebook(*cells), path)
        return path

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tools.press", "--root", str(self.project.root), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(command, cwd=ROOT, text=True, env=environment, **pipes)

    def press(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        out, _ = process.communicate(timeout=300)
        return process.returncode, out

    def page(self, slug: str) -> str:
        return next(self.project.html("smoke").glob(f"part/*-{slug}.html")).read_text(encoding="utf-8")


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A tiny book with one chapter."""
    return Book(tmp_path)
