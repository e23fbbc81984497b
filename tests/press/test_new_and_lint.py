"""A new chapter has the shape that lint asks for; lint finds each fault that is planted into it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import nbformat
import pytest
import yaml
from nbformat import NotebookNode

from tests.press.conftest import Book, notebook
from tools.press.chapters import load_chapters
from tools.press.lint import bare_prose, lint, lint_all
from tools.press.new import new_chapter
from tools.press.project import PressError

LEDGER = {"records": {"ours": {"ci": [0, 1]}}, "claims": {"1/one": {}}, "figures": {}}


@pytest.fixture
def made(book: Book) -> Book:
    """A book with a new chapter, filled in."""
    path = new_chapter(book.project, "second", title="Second", part="New part", paper="2510.00404")
    text = path.read_text(encoding="utf-8").replace("TODO", "done")
    path.write_text(text, encoding="utf-8")
    return book


def faults(book: Book, ledgers: list[dict[str, Any]] | None = None) -> list[str]:
    return [str(fault) for fault in lint(load_chapters(book.project)[-1], ledgers or [])]


def change(book: Book, edit: Callable[[NotebookNode], None]) -> None:
    chapter = load_chapters(book.project)[-1]
    source = chapter.notebook()
    edit(source)
    nbformat.write(source, chapter.path)


def cell(source: NotebookNode, name: str) -> NotebookNode:
    return next(one for one in source.cells if one.id == name)


def test_a_filled_chapter_has_no_fault(made: Book) -> None:
    assert faults(made, [LEDGER]) == []


def test_nothing_is_left_to_replace_in_a_new_chapter(made: Book) -> None:
    path = load_chapters(made.project)[-1].path
    assert not re.search(r"@[A-Z]+@", path.read_text(encoding="utf-8"))
    assert nbformat.read(path, as_version=4).metadata["tml"]["paper"] == "2510.00404"


def test_a_new_chapter_has_no_fault_but_what_is_to_fill(book: Book) -> None:
    new_chapter(book.project, "second", title="Second", part="Part", paper="2510.00404")
    found = faults(book, [LEDGER])
    assert found
    assert all("still says TODO: fill" in fault for fault in found)


def test_a_new_chapter_is_numbered_and_listed_in_its_part(book: Book) -> None:
    path = new_chapter(book.project, "second", title="Second", part="Part", paper="x")
    assert path.name == "02-second.ipynb"
    toc = yaml.safe_load(book.project.toc.read_text(encoding="utf-8"))
    assert toc["parts"] == [
        {"caption": "Part", "chapters": [{"file": "part/01-one"}, {"file": "part/02-second"}]}
    ]


def test_a_new_part_follows_the_parts_with_chapters(book: Book) -> None:
    book.write("book/end.md", "# End\n")
    toc = yaml.safe_load(book.project.toc.read_text(encoding="utf-8"))
    toc["parts"].append({"caption": "End", "chapters": [{"file": "end"}]})
    book.project.toc.write_text("# Pages.\n" + yaml.safe_dump(toc), encoding="utf-8")
    new_chapter(book.project, "second", title="Second", part="Deciding fairly", paper="x")
    text = book.project.toc.read_text(encoding="utf-8")
    assert text.startswith("# Pages.\n")
    captions = [part["caption"] for part in yaml.safe_load(text)["parts"]]
    assert captions == ["Part", "Deciding fairly", "End"]


@pytest.mark.parametrize(("name", "why"), [("one", "already"), ("Two", "lower-case"), ("01-x", "lower-case")])
def test_a_bad_slug_is_refused_and_nothing_written(book: Book, name: str, why: str) -> None:
    before = book.project.toc.read_text(encoding="utf-8")
    with pytest.raises(PressError, match=why):
        new_chapter(book.project, name, title="T", part="Part", paper="x")
    assert book.project.toc.read_text(encoding="utf-8") == before


def test_a_title_is_needed(book: Book) -> None:
    code, out = book.press("chapter", "--slug", "two", "--title", "", "--part", "Part", "--paper", "x")
    assert code == 2
    assert "make chapter SLUG=" in out


PLANTED = {
    "is stored with outputs": lambda nb: cell(nb, "start").update(execution_count=1),
    "installs something": lambda nb: cell(nb, "start").update(source="!pip install x"),
    "must hold the title": lambda nb: cell(nb, "title").update(source="no title"),
    "has no Colab badge": lambda nb: cell(nb, "title").update(source="# Second"),
    "its Colab badge opens": lambda nb: cell(nb, "title").update(
        source=cell(nb, "title").source.replace("01-second", "other")
    ),
    "needs exactly one code cell tagged": lambda nb: cell(nb, "parameters").metadata.update(tags=[]),
    "must set exactly PROFILE": lambda nb: cell(nb, "parameters").update(source="X: int = 1  # x"),
    "write `NAME: type = value": lambda nb: cell(nb, "parameters").update(
        source='PROFILE = "book"\nMODEL: str = "m"  # m\nSEED: int = 0  # s'
    ),
    "MODEL names a language model, and none is loaded": lambda nb: cell(nb, "parameters").update(
        source=cell(nb, "parameters").source.replace('MODEL: str = ""', 'MODEL: str = "smollm2-135m"')
    ),
    "must be the bootstrap cell": lambda nb: cell(nb, "bootstrap").update(source="1"),
    'chapter="second"': lambda nb: cell(nb, "start").update(
        source='run = start(PROFILE, chapter="other", seed=SEED)'
    ),
    "holds= is typed": lambda nb: plant_claim(nb, "holds=True, control={'a': run['ours'] > 0}"),
    "control= is typed": lambda nb: plant_claim(nb, "holds=run['ours'] > 0, control={'a': True}"),
    "has no control=": lambda nb: plant_claim(nb, "holds=run['ours'] > 0"),
    "run.figure has no alt=": lambda nb: cell(nb, "result-code").update(source="run.figure(f, caption='c')"),
    "run.explore has no caption=": lambda nb: cell(nb, "explore-code").update(
        source="run.explore(f, over={}, alt='a')"
    ),
    "the number '0.42' is typed": lambda nb: cell(nb, "summary").update(source="## Summary\n\nIt is 0.42."),
    "the number '12 %' is typed": lambda nb: cell(nb, "summary").update(source="## Summary\n\n12 % fired."),
    "`## A baseline` is missing": lambda nb: cell(nb, "baseline").update(source="A baseline"),
    "are out of order": lambda nb: nb.cells.append(nb.cells.pop(nb.cells.index(cell(nb, "problem")))),
    "there are 3 with a label": lambda nb: nb.cells.remove(cell(nb, "exercise-1")),
    "ex-second-1 has no solution": lambda nb: cell(nb, "exercise-1").update(
        source=cell(nb, "exercise-1").source.split("```{solution}")[0]
    ),
    "quotes 'theirs:.2f', which no run": lambda nb: cell(nb, "result").update(
        source="## The result\n\n{glue:text}`theirs:.2f`"
    ),
    "quotes 'claim:1/one': behind a name with a colon put a format": lambda nb: cell(nb, "result").update(
        source="## The result\n\n{glue:text}`claim:1/one`"
    ),
    "each cell needs an id of its own": lambda nb: nb.cells[-1].update(id=nb.cells[0].id),
}


def plant_claim(source: NotebookNode, words: str) -> None:
    cell(source, "claims-code").update(source=f"TYPED = True\nrun.claim('1/x', 'y', paper='p', {words})")


@pytest.mark.parametrize("message", PLANTED)
def test_each_planted_fault_is_found(made: Book, message: str) -> None:
    chapter = load_chapters(made.project)[-1]
    source = chapter.notebook()
    PLANTED[message](source)
    chapter.path.write_text(json.dumps(source), encoding="utf-8")
    assert any(message in fault for fault in faults(made, [LEDGER]))


def test_a_verdict_from_a_constant_is_typed(made: Book) -> None:
    change(made, lambda nb: plant_claim(nb, "holds=TYPED, control={'a': run['ours'] > 0}"))
    assert any("holds= is typed" in fault for fault in faults(made))


@pytest.mark.parametrize(
    "text",
    [
        "At $x = 0.5$ and `0.5`.",
        "$$\n0.5\n$$",
        "The paper reports 0.5 {cite:p}`key`.",
        "| a |\n|---|\n| 0.5 {cite:p}`key` |",
        "{glue:text}`name:.2f` of it",
        "See Section 4.2 and [a page](https://example.org/1.5).",
        "Python 3.11, arXiv:2510.00404, 30 layers.",
        "```python\nx = 0.5\n```",
        "```{math}\n0.5\n```",
    ],
)
def test_numbers_that_are_no_results_may_stand(text: str) -> None:
    from tools.press.lint import NUMBER

    assert NUMBER.findall(bare_prose(text)) == []


@pytest.mark.parametrize("text", ["```{admonition} A note\n0.5\n```", "| a |\n|---|\n| 0.5 |", "It was 0.5."])
def test_numbers_in_admonitions_and_tables_are_prose(text: str) -> None:
    from tools.press.lint import NUMBER

    assert NUMBER.findall(bare_prose(text)) == ["0.5"]


def test_lint_all_is_the_exit_code(book: Book) -> None:
    assert lint_all(book.project)
    code, out = book.press("lint")
    assert code == 1
    assert "one: the sections: `## The problem` is missing" in out


def test_a_figure_label_may_stand_in_one_chapter_only(made: Book) -> None:
    change(made, lambda nb: plant_figure(nb, "fig-two"))
    assert not any("fig-" in str(fault) for fault in lint_all(made.project))
    first = notebook("md:# One", "run.figure(f, caption='c', alt='a', name='fig-two')")
    nbformat.write(first, load_chapters(made.project)[0].path)
    assert any("'fig-two' stands in one too" in str(fault) for fault in lint_all(made.project))


def plant_figure(source: NotebookNode, label: str) -> None:
    cell(source, "result-code").update(source=f"run.figure(f, caption='c', alt='a', name='{label}')")
