"""Accepted numbers hold later runs to themselves, within the spread over seeds."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.press.conftest import CODE, PARAMETERS, Book
from tools.press.accept import compare, report, tolerance


def ledger(**records: dict[str, Any]) -> dict[str, Any]:
    return {"chapter": "one", "records": records, "claims": {"1/one": {"verdict": "holds"}}}


def record(value: float, ci: list[float] | None = None, unit: str = "") -> dict[str, Any]:
    return {"value": value, "ci": ci, "unit": unit}


@pytest.mark.parametrize(
    ("old", "new", "agree"),
    [
        (record(1.0), record(1.0), True),
        (record(1.0), record(1.0005), True),
        (record(1.0), record(1.002), False),
        (record(0.0), record(1e-7), True),
        (record(1.0, [0.9, 1.1]), record(1.15, [1.1, 1.2]), True),
        (record(1.0, [0.9, 1.1]), record(1.16, [1.11, 1.21]), False),
        (record(1.0, [1.0, 1.0]), record(1.0005, [1.0005, 1.0005]), True),
        (record(1.0, unit="s"), record(9.0, unit="s"), True),
        (record(1.0, unit="tokens/s"), record(9.0, unit="tokens/s"), True),
    ],
)
def test_numbers_agree_within_the_spread_over_seeds(
    old: dict[str, Any], new: dict[str, Any], agree: bool
) -> None:
    assert (compare(ledger(a=new), ledger(a=old)) == []) is agree


def test_missing_and_new_names_and_changed_verdicts_are_named() -> None:
    new = ledger(b=record(1.0))
    new["claims"] = {"1/one": {"verdict": "partly"}, "1/two": {"verdict": "holds"}}
    found = {(d.name, d.accepted, d.now) for d in compare(new, ledger(a=record(1.0)))}
    assert found == {
        ("a", "number", "missing"),
        ("b", "missing", "new number"),
        ("1/two", "missing", "new claim"),
        ("1/one", "holds", "partly"),
    }


@given(st.floats(-1e6, 1e6), st.floats(0, 1e3), st.floats(0, 1e3))
def test_the_tolerance_is_symmetric_in_the_widths_and_never_zero(value: float, a: float, b: float) -> None:
    one, two = record(value, [value - a, value + a]), record(value, [value - b, value + b])
    assert tolerance(one, two) == pytest.approx(tolerance(two, one))
    assert tolerance(one, two) >= max(1e-6, a + b) * (1 - 1e-6) - 1e-9


def test_the_report_names_what_differs() -> None:
    text = report(compare(ledger(a=record(2.0)), ledger(a=record(1.0))), "smoke")
    assert text.splitlines()[-1].split() == ["one", "a", "1", "2", "±", "0.001"]
    assert "agree" in report([], "smoke")


def test_accept_then_compare_then_disagree(book: Book) -> None:
    assert book.press("compare", "--profile", "smoke")[0] == 1
    book.press("run", "--profile", "smoke")
    assert book.press("accept", "--profile", "smoke")[0] == 0
    assert book.press("compare", "--profile", "smoke")[0] == 0
    path = book.project.accepted("smoke") / "one.json"
    wrong = copy.deepcopy(json.loads(path.read_text(encoding="utf-8")))
    wrong["records"]["answer"]["value"] = 50
    path.write_text(json.dumps(wrong), encoding="utf-8")
    code, out = book.press("compare", "--profile", "smoke")
    assert code == 1
    assert "answer" in out


def test_only_a_run_of_what_stands_here_is_accepted(book: Book) -> None:
    book.press("run", "--profile", "smoke")
    book.write("helpers/numbers.py", "def answer():\n    return 41\n")
    code, out = book.press("accept", "--profile", "smoke")
    assert code == 2
    assert "no valid smoke run of what stands here now" in out
    assert not book.project.accepted("smoke").exists()


def test_an_old_run_is_not_compared(book: Book) -> None:
    book.press("run", "--profile", "smoke")
    book.press("accept", "--profile", "smoke")
    book.write("helpers/numbers.py", "def answer():\n    return 41\n")
    code, out = book.press("compare", "--profile", "smoke")
    assert code == 1
    assert "no valid run of what stands here" in out


def test_one_chapter_is_accepted_while_another_has_not_run(book: Book) -> None:
    book.chapter("two", "md:# Two", PARAMETERS, CODE)
    book.press("run", "--profile", "smoke", "one")
    assert book.press("accept", "--profile", "smoke")[0] == 2
    assert book.press("accept", "--profile", "smoke", "one")[0] == 0
    assert [path.name for path in book.project.accepted("smoke").iterdir()] == ["one.json"]
