"""Injection and build: what a run recorded stands on the page, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import nbformat
import pytest

from tests.press.conftest import CODE, PARAMETERS, Book, notebook
from tools.press.cache import Cache, key
from tools.press.chapters import Chapter, load_chapters
from tools.press.inject import join, measured, page, reading_minutes, stub
from tools.press.ledger import read_ledger
from tools.press.pages import Contents, fill, in_words
from tools.press.project import PressError

RUN = {
    "key": "",
    "profile": "smoke",
    "parameters": {"PROFILE": "smoke"},
    "seconds": 75.0,
    "peak_bytes": 2.5e9,
    "versions": {"python": "3.11"},
    "threads": 2,
    "date": "2026-01-02",
    "commit": "0123456789",
}
PREFIX = "application/papermill.record/application/vnd.tml."


def executed(book: Book, *recorded: tuple[str, dict[str, Any]]) -> tuple[Chapter, nbformat.NotebookNode]:
    """Give the chapter's notebook as if it had run, with these entries in its last cell."""
    chapter = load_chapters(book.project)[0]
    ran = chapter.notebook()
    ran.cells[-1].outputs = [
        nbformat.v4.new_output("display_data", data={f"{PREFIX}{kind}+json": fields})
        for kind, fields in recorded
    ]
    ran.metadata["tml"] = {"run": dict(RUN)}
    return chapter, ran


def figure(name: str) -> tuple[str, dict[str, str]]:
    return "figure", {"name": name, "caption": "A caption.", "alt": "An alt text."}


def test_the_card_is_measured_and_follows_the_title(book: Book) -> None:
    chapter, ran = executed(book, ("session", {"model": "tiny"}))
    card = page(chapter, ran).cells[1].source
    for part in (
        "1 min 15 s on 2 cores",
        "2.50 GB",
        "about 1 min",
        "`smoke`",
        "`tiny`",
        "commit `0123456789`",
    ):
        assert part in card


def test_prerequisites_come_from_the_notebook(book: Book) -> None:
    chapter, ran = executed(book)
    source = chapter.notebook()
    source.metadata["tml"] = {"prerequisites": ["vectors", "autograd"]}
    nbformat.write(source, chapter.path)
    assert "**Prerequisites:** vectors; autograd" in page(chapter, ran).cells[1].source


def test_a_figure_gets_its_caption_name_and_alt(book: Book) -> None:
    chapter, ran = executed(book, figure("fig-a"))
    shown = page(chapter, ran).cells[-1].metadata["mystnb"]
    assert shown == {
        "figure": {"caption": "A caption.", "name": "fig-a"},
        "image": {"alt": "An alt text."},
    }


def test_two_figures_in_a_cell_are_refused(book: Book) -> None:
    chapter, ran = executed(book, figure("fig-a"), figure("fig-b"))
    with pytest.raises(PressError, match="several figures \\(fig-a, fig-b\\)"):
        page(chapter, ran)


def test_outputs_of_other_code_are_not_joined() -> None:
    with pytest.raises(PressError, match="cell-0 was not run as it stands now"):
        join(notebook("1 + 2"), notebook("1 + 1"))


def test_the_ledger_keeps_order_and_kind(book: Book) -> None:
    record = {"name": "a", "value": 1.5, "ci": None, "unit": ""}
    chapter, ran = executed(book, ("record", record), figure("fig-a"), ("session", {"seed": 0}))
    ledger = read_ledger(chapter, ran)
    assert ledger["records"] == {"a": record}
    assert list(ledger["figures"]) == ["fig-a"]
    assert ledger["session"] == {"seed": 0}
    assert ledger["run"]["seconds"] == 75.0


@pytest.mark.parametrize(("words", "minutes"), [(1, 1), (200, 1), (201, 2)])
def test_reading_time_counts_words_of_prose(words: int, minutes: int) -> None:
    assert (
        reading_minutes(notebook("md:" + "word " * words, "many = 'words in code do not count'")) == minutes
    )


def test_a_stub_gives_the_reason_but_no_markup_of_it(book: Book) -> None:
    chapter = load_chapters(book.project)[0]
    text = stub(chapter, "in code cell 3:\n  ValueError: {x}").cells[1].source
    assert "ValueError: {x}" in text
    assert text.startswith("```{error}")


def contents(book: Book, reasons: dict[str, str] | None = None) -> Contents:
    claim = {
        "id": "1/one",
        "statement": "A | B",
        "paper": "Figure 1",
        "ours": ["answer"],
        "conditions": {"less than one": True, "more than two": False},
        "control": {"another seed is worse": True},
        "verdict": "partly",
        "note": "",
        "profile": "smoke",
        "model": "tiny",
    }
    record = {"value": 0.5, "ci": [0.4, 0.6], "unit": ""}
    ledger = {"run": RUN, "claims": {"1/one": claim}, "records": {"answer": record}}
    return Contents(
        book.project, load_chapters(book.project), {} if reasons else {"one": ledger}, reasons or {}
    )


def test_the_results_have_every_claim_with_its_conditions_controls_and_intervals(book: Book) -> None:
    text = fill("<!-- press: results -->", contents(book), "results.md")
    assert "**{doc}`/part/01-one`** (smoke profile, tiny, " in text
    assert "| A \\| B | Figure 1 | **partly** |" in text
    folded = text.split(":class: dropdown")[1].split("````")[0].strip().splitlines()
    assert folded == [
        "**A | B** Partly (`1/one`).",
        "",
        "- Met: less than one.",
        "- Not met: more than two.",
        "- Negative controls, as they should be: another seed is worse.",
        "- Numbers: answer: 0.500 [0.400, 0.600].",
    ]


def test_a_control_that_did_not_fail_is_named_in_the_results(book: Book) -> None:
    shown = contents(book)
    shown.ledgers["one"]["claims"]["1/one"]["control"]["another seed is worse"] = False
    text = fill("<!-- press: results -->", shown, "results.md")
    assert "- Negative controls, not as they should be: another seed is worse." in text
    assert "- Negative controls, as they should be" not in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("answer", "answer"),
        ("pairs.all.difference in means", "pairs, all, difference in means"),
        ("snr.multi-scale.muscle.-4", "snr, multi-scale, muscle, -4"),
        ("random.1.1.k1.shrinks", "random, 1.1, k1, shrinks"),
        ("noise.0.05.change", "noise, 0.05, change"),
        ("linear.lookahead 0.25 T.afce", "linear, lookahead 0.25 T, afce"),
        ("parameters.4096.8.1", "parameters, 4096, 8, 1"),
        ("parameters.8.4.1", "parameters, 8, 4, 1"),
        ("bits.32.1", "bits, 32, 1"),
    ],
)
def test_the_name_of_a_record_is_written_as_words(name: str, words: str) -> None:
    assert in_words(name) == words


def test_the_results_table_names_its_numbers_in_words(book: Book) -> None:
    shown = contents(book)
    ledger = shown.ledgers["one"]
    ledger["claims"]["1/one"]["ours"] = ["error.AbsTopK"]
    ledger["records"]["error.AbsTopK"] = {"value": 0.5, "ci": None, "unit": "nats"}
    assert "- Numbers: error, AbsTopK: 0.500 nats." in fill("<!-- press: results -->", shown, "results.md")


def test_a_chapter_without_a_run_says_so_in_the_results(book: Book) -> None:
    text = fill("<!-- press: results -->", contents(book, {"one": "it failed"}), "results.md")
    assert "no valid run (`it failed`)" in text


def test_the_overview_has_the_verdicts_and_minutes_of_every_chapter(book: Book) -> None:
    text = fill("<!-- press: chapters -->", contents(book), "index.md")
    assert "| {doc}`/part/01-one` |  | 1 partly | 1 min 15 s | 1 min |" in text
    text = fill("<!-- press: chapters -->", contents(book, {"one": "it failed"}), "index.md")
    assert "| {doc}`/part/01-one` |  | - | - | 1 min |" in text


def test_timings_and_benchmarks(book: Book) -> None:
    row = {
        "name": "training",
        "unit": "tokens/s",
        "ours": 9000.0,
        "peer": 3000.0,
        "ratio": 3.0,
        "target": 2.5,
    }
    book.write(
        "data/results/bench/a.json", json.dumps([{**row, "holds": True, "n": 5, "low": 8e3, "high": 1e4}])
    )
    assert "1 min 15 s | 2.50 GB | 2" in fill("<!-- press: timings -->", contents(book), "x")
    text = fill("<!-- press: benchmarks -->", contents(book), "x")
    assert "| training | tokens/s | 9,000 [8,000, 10,000] | 3,000 | 3 | 2.50 | yes | 5 |" in text


def test_an_unknown_table_is_an_error(book: Book) -> None:
    with pytest.raises(PressError, match=r"x\.md: the press has no table 'outcome'"):
        fill("<!-- press: outcome -->", contents(book), "x.md")


def test_a_unit_stands_behind_the_number() -> None:
    assert measured({"value": 3, "ci": None, "unit": "nats"}) == "3 nats"


def test_the_built_page_has_prose_numbers_card_and_results(book: Book) -> None:
    code, out = book.press("book", "--profile", "smoke")
    assert code == 0, out
    text = book.page("one")
    assert "42.0" in text
    assert "Peak memory" in text
    index = (book.project.html("smoke") / "index.html").read_text(encoding="utf-8")
    assert "answer: 42 [41, 43]" in index


@pytest.mark.parametrize("prose", ["{glue:text}`missing:.1f`", "{doc}`/nowhere`"])
def test_a_broken_page_fails_the_build(book: Book, prose: str) -> None:
    book.chapter("one", f"md:# One\n\n{prose}", PARAMETERS, CODE)
    assert book.press("book", "--profile", "smoke")[0] == 1


def test_two_figures_in_a_cell_fail_the_book(book: Book) -> None:
    both = "from helpers import session\nsession.figure('fig-a')\nsession.figure('fig-b')"
    book.chapter("one", "md:# One", PARAMETERS, both)
    code, out = book.press("book", "--profile", "smoke")
    assert code == 1
    assert "several figures" in out


def test_a_corrupted_file_is_not_built_either(book: Book) -> None:
    book.press("run", "--profile", "smoke")
    parameters = {"PROFILE": "smoke"}
    name = key(book.project, load_chapters(book.project)[0], parameters)
    Cache(book.project, "one").path("smoke", name).write_text("{}", encoding="utf-8")
    code, _ = book.press("build", "--profile", "smoke")
    assert code == 1
    assert "42.0" not in book.page("one")
