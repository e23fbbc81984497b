"""Lay out pages and executed notebooks, and let jupyter-book build them without running anything."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from tools.press.cache import Cache, key
from tools.press.chapters import Chapter, load_chapters
from tools.press.inject import last_line, page, stub
from tools.press.ledger import read_ledger
from tools.press.pages import Contents, fill
from tools.press.project import PressError, Project, check_profile

JUPYTER_BOOK = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
STRICT = ("-W", "-n", "--keep-going", "--all")


@dataclass(frozen=True)
class Edition:
    """One way to show the book: a name for its folder, and what it does to a chapter's page."""

    name: str
    change: Callable[[NotebookNode], NotebookNode] = lambda notebook: notebook


def build(project: Project, profile: str, edition: Edition | None = None, strict: bool = True) -> int:
    """Build the pages; say where they are; return the exit code."""
    edition = edition or Edition(check_profile(profile))
    folder = project.build / edition.name
    reasons = stage(project, profile, folder / "src", edition)
    code = jupyter_book(folder / "src", folder / "out", STRICT if strict else ("--all",))
    made = folder / "out" / "_build" / "html"
    swap(made, folder / "html")
    for slug, reason in reasons.items():
        print(f"{slug} has no valid run, its page says so: {last_line(reason)}", flush=True)
    return code or int(bool(reasons))


def stage(project: Project, profile: str, target: Path, edition: Edition) -> dict[str, str]:
    """Lay out the sources of the pages; return the chapters without a valid run, with reasons."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(project.book, target, ignore=shutil.ignore_patterns("*.ipynb", ".*"))
    for file in (project.toc, project.config):
        shutil.copy(file, target / file.name)
    chapters = load_chapters(project)
    report = run_report(project, profile)
    ledgers: dict[str, dict[str, Any]] = {}
    reasons: dict[str, str] = {}
    for chapter in chapters:
        notebook, ledger, reason = chapter_page(project, chapter, profile, report)
        if reason is not None:
            reasons[chapter.slug] = reason
        elif ledger is not None:
            ledgers[chapter.slug] = ledger
            notebook = edition.change(notebook)
        place = target / f"{chapter.docname}.ipynb"
        place.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, place)
    fill_pages(target, Contents(project, chapters, ledgers, reasons))
    return reasons


def run_report(project: Project, profile: str) -> dict[str, Any]:
    """Return parameters and errors of the last run in this profile."""
    path = project.build / profile / "run.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def chapter_page(
    project: Project, chapter: Chapter, profile: str, report: Mapping[str, Any]
) -> tuple[NotebookNode, dict[str, Any] | None, str | None]:
    """Return page and ledger of a chapter, or a stub and the reason why there is no more."""
    parameters = {"PROFILE": profile, **report.get("parameters", {})}
    executed = Cache(project, chapter.slug).find(profile, key(project, chapter, parameters))
    missing = f"it has not been run as it stands now; make {'book' if profile == 'book' else 'test'}"
    reason = report.get("errors", {}).get(chapter.slug) or missing
    if executed is None:
        return stub(chapter, reason), None, reason
    try:
        return page(chapter, executed), read_ledger(chapter, executed), None
    except PressError as problem:
        return stub(chapter, str(problem)), None, str(problem)


def fill_pages(target: Path, contents: Contents) -> None:
    """Write the tables of the press into the pages."""
    for path in sorted(target.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(fill(text, contents, path.name), encoding="utf-8")


def jupyter_book(source: Path, out: Path, options: tuple[str, ...]) -> int:
    """Build the HTML; return the exit code."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", JUPYTER_BOOK, "build", "-q", str(source), "--path-output", str(out)]
    # Warnings and errors come on stderr; stdout only tells where the pages are before they move.
    done = subprocess.run([*command, *options], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode


def swap(made: Path, target: Path) -> None:
    """Put new pages in the place of the old ones; where none were made, none may stay."""
    shutil.rmtree(target, ignore_errors=True)
    if not (made / "index.html").is_file():
        raise PressError("jupyter-book made no pages; what it said stands above")
    made.rename(target)
    print(f"The pages are at {target / 'index.html'}", flush=True)
