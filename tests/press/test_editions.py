"""Student edition, slides, repository address, stages."""

from __future__ import annotations

import re
import sys

import nbformat
import pytest

from tests.press.conftest import CODE, PARAMETERS, Book, notebook
from tools.press import stages
from tools.press.__main__ import main
from tools.press.inject import title_index
from tools.press.new import new_chapter
from tools.press.project import ROOT, PressError, Project
from tools.press.repo import faults, set_address, slug
from tools.press.slides import deck, headings_to_rubrics, resolve_glue
from tools.press.stages import STAGES, Stage, run_stages
from tools.press.student import student_version

EXERCISE = (
    "md:```{exercise}\n:label: ex\nAsk.\n```\n\n```{solution} ex\n:class: dropdown\nSECRET\n```\n\nGo on."
)


def text_of(made: nbformat.NotebookNode) -> str:
    return "\n".join(cell.source for cell in made.cells)


def test_the_student_edition_has_exercises_and_checkers_but_no_solution() -> None:
    source = notebook(
        "md:# T",
        EXERCISE,
        "check(answer)",
        ("SECRET = 1", ["solution"]),
        "md:````{solution} ex\n```python\nSECRET\n```\n````",
        "md:```{solution-start} ex\n```",
        "SECRET",
        "md:```{solution-end}\n```",
        "md:The end.",
    )
    text = text_of(student_version(source))
    assert "SECRET" not in text
    assert "solution" not in text
    for kept in ("Ask.", "Go on.", "check(answer)", "The end."):
        assert kept in text
    assert "SECRET" in text_of(source)


def test_the_student_pages_are_built_from_the_same_run(book: Book) -> None:
    book.chapter("one", "md:# One", PARAMETERS, CODE, EXERCISE)
    book.press("run", "--profile", "smoke")
    code, out = book.press("student", "--profile", "smoke")
    assert code == 0, out
    page = (book.project.build / "student" / "html" / "part" / "01-one.html").read_text(encoding="utf-8")
    assert "Go on." in page
    assert "SECRET" not in page
    given = book.project.build / "student" / "notebooks" / "part" / "01-one.ipynb"
    assert "SECRET" not in given.read_text(encoding="utf-8")


LEDGER = {
    "title": "T",
    "records": {"a": {"value": 0.12345, "ci": [0.1, 0.2]}},
    "claims": {"1/x": {"verdict": "holds"}},
}


def test_glue_is_written_out_on_slides() -> None:
    text = "{glue:text}`a:.2f` {glue:text}`a` {glue:text}`a.ci` {glue:text}`claim:1/x`"
    assert resolve_glue(text, LEDGER) == "0.12 0.123 [0.100, 0.200] holds"
    with pytest.raises(PressError, match=r"quotes 'b:\.1f'"):
        resolve_glue("{glue:text}`b:.1f`", LEDGER)


def test_a_deck_has_the_marked_cells_with_a_break_before_each_slide() -> None:
    source = notebook("md:# T", "md:## First", "print(1)", "md:hidden", "md:second")
    for index, kind in ((1, "slide"), (2, "fragment"), (3, "skip"), (4, "subslide")):
        source.cells[index].metadata["slideshow"] = {"slide_type": kind}
    text = text_of(deck(source, LEDGER))
    assert "hidden" not in text
    assert text.count("deck-break") == 2
    assert "```{rubric} First" in text
    assert title_index(deck(source, LEDGER)) == 0


def test_headings_of_every_level_become_rubrics() -> None:
    assert headings_to_rubrics("(label)=\n### A\ntext").split("\n") == ["", "```{rubric} A", "```", "text"]


def test_slides_are_built_without_a_network_address(book: Book) -> None:
    path = book.chapter("one", "md:# One", PARAMETERS, CODE, "md:## Words\n\n{glue:text}`answer:.1f`")
    source = nbformat.read(path, as_version=4)
    source.cells[-1].metadata["slideshow"] = {"slide_type": "slide"}
    nbformat.write(source, path)
    book.press("run", "--profile", "smoke")
    code, out = book.press("slides", "--profile", "smoke")
    assert code == 0, out
    page = (book.project.build / "slides" / "html" / "one.html").read_text(encoding="utf-8")
    assert "deck-break" in page
    assert "42.0" in page
    assert "deck.js" in page
    scripts = re.findall(r'<script[^>]* src="([^"]+)"', page)
    assert [script for script in scripts if script.startswith(("http", "//"))] == []


def test_slides_without_marked_cells_are_an_error(book: Book) -> None:
    book.press("run", "--profile", "smoke")
    code, out = book.press("slides", "--profile", "smoke")
    assert code == 2
    assert "no cell of a chapter carries slideshow metadata" in out


def test_the_address_is_written_everywhere_and_only_ours(book: Book) -> None:
    other = "https://github.com/OWNER/trustworthy-ml-book-peer"
    readme = book.write("README.md", f"https://github.com/OWNER/trustworthy-ml-book and {other}\n")
    book.write("CITATION.cff", "repository-code: https://github.com/OWNER/trustworthy-ml-book\n")
    path = new_chapter(book.project, "two", title="Two", part="Part", paper="x")
    assert faults(book.project) == []
    changed = set_address(book.project, "https://github.com/someone/a.book")
    assert {file.name for file in changed} == {
        "README.md",
        "CITATION.cff",
        "_config.yml",
        "pyproject.toml",
        path.name,
    }
    assert faults(book.project) == []
    assert other in readme.read_text(encoding="utf-8")
    text = path.read_text(encoding="utf-8")
    assert "OWNER" not in text
    assert text.count("someone/a.book") == 3  # the badge, the package, its constraints


@pytest.mark.parametrize("place", ["_config.yml", "pyproject.toml", "CITATION.cff", "book/part/02-two.ipynb"])
def test_a_place_with_another_address_is_found(book: Book, place: str) -> None:
    book.write("CITATION.cff", "repository-code: https://github.com/OWNER/trustworthy-ml-book\n")
    new_chapter(book.project, "two", title="Two", part="Part", paper="x")
    path = book.project.root / place
    path.write_text(path.read_text(encoding="utf-8").replace("OWNER", "other"), encoding="utf-8")
    assert faults(book.project)


def test_one_address_holds_through_this_repository() -> None:
    assert faults(Project(ROOT)) == []


@pytest.mark.parametrize(
    "url", ["http://github.com/a/b", "https://example.org/a/b", "a/b", "https://github.com/a"]
)
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(PressError, match="give https://github"):
        slug(url)


def test_all_stages_run_and_one_failure_is_the_exit_code(
    book: Book, capfd: pytest.CaptureFixture[str]
) -> None:
    checks = (Stage("first", ("-c", "raise SystemExit(3)")), Stage("second", ("-c", "print('went on')")))
    assert run_stages(book.project, checks) == 1
    out = capfd.readouterr().out
    assert "went on" in out
    assert [line.split()[-1] for line in out.splitlines()[-2:]] == ["FAILED", "ok"]
    assert run_stages(book.project, checks[1:]) == 0


def test_a_missing_browser_is_a_failure_that_says_what_to_install(
    book: Book, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stages.shutil, "which", lambda name: None)
    browser = next(stage for stage in STAGES if stage.name == "browser")
    assert run_stages(book.project, (browser,)) == 1
    assert "apt-get install chromium" in capsys.readouterr().out


def test_the_command_line_refuses_what_it_does_not_know() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["run", "--profile", "tiny"])
    assert stop.value.code == 2
    with pytest.raises(SystemExit):
        main(["run", "-p", "PROFILE=full"])
    assert sys.exc_info()[0] is None
