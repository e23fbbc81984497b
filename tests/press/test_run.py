"""A deliberate failure of every kind: never a stale number, never exit 0."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from tests.press.conftest import CODE, PARAMETERS, Book
from tools.press.chapters import load_chapters
from tools.press.run import Plan, run

RUN = ("run", "--profile", "smoke")


def ledger(book: Book, slug: str = "one") -> dict[str, object]:
    return json.loads((book.project.ledger("smoke") / f"{slug}.json").read_text(encoding="utf-8"))


def test_a_run_writes_the_ledger_and_ends_with_the_table(book: Book) -> None:
    code, out = book.press(*RUN)
    assert code == 0
    assert out.splitlines()[-1].split()[:2] == ["one", "smoke"]
    assert out.splitlines()[-1].split()[-1] == "ok"
    assert "cell 2/2" in out
    found = ledger(book)
    assert found["records"]["answer"]["value"] == 42
    assert found["claims"]["1/one"]["verdict"] == "holds"
    assert found["run"]["profile"] == "smoke"
    assert found["run"]["peak_bytes"] > 10e6


def test_the_second_run_is_a_cache_hit(book: Book) -> None:
    book.press(*RUN)
    code, out = book.press(*RUN)
    assert code == 0
    assert "Running" not in out
    assert "hit" in out


def test_an_exception_fails_its_chapter_and_stops_no_other(book: Book) -> None:
    book.chapter("two", "md:# Two", PARAMETERS, "1 / 0")
    code, out = book.press("book", "--profile", "smoke")
    assert code == 1
    assert "ZeroDivisionError" in out
    assert (book.project.build / "failed" / "two.ipynb").is_file()
    assert ledger(book)["records"]["answer"]["value"] == 42
    assert not (book.project.ledger("smoke") / "two.json").exists()
    assert "answer is <span" in book.page("one")
    assert "no valid run" in book.page("two")


def test_a_chapter_that_fails_after_it_worked_shows_no_old_number(book: Book) -> None:
    book.press("book", "--profile", "smoke")
    assert "42.0" in book.page("one")
    book.write("helpers/numbers.py", "def answer():\n    raise RuntimeError('broken now')\n")
    code, out = book.press("book", "--profile", "smoke")
    assert code == 1
    assert "broken now" in out
    assert "42.0" not in book.page("one")
    assert not (book.project.ledger("smoke") / "one.json").exists()


def test_an_unknown_parameter_names_the_known_ones(book: Book) -> None:
    code, out = book.press(*RUN, "-p", "SEDE=3")
    assert code == 2
    assert "unknown parameter 'SEDE'" in out
    assert "PROFILE, MODEL, SEED" in out
    assert not book.project.build.exists()


def test_a_parameter_of_another_type_is_refused(book: Book) -> None:
    code, out = book.press(*RUN, "-p", "SEED=three")
    assert code == 2
    assert "expected int" in out


def test_a_parameter_reaches_the_notebook(book: Book) -> None:
    book.chapter("one", "md:# One", PARAMETERS, "from helpers import session\nsession.record('seed', SEED)")
    assert book.press(*RUN, "-p", "SEED=7")[0] == 0
    assert ledger(book)["records"]["seed"]["value"] == 7


@pytest.mark.parametrize("source", ["x = 1", "PROFILE = 'book'\nMODEL = 'none'\nSEED = 0\nSIZE = 3"])
def test_a_parameters_cell_must_have_exactly_the_three(book: Book, source: str) -> None:
    book.chapter("one", "md:# One", (source, ["parameters"]), "1")
    code, out = book.press(*RUN)
    assert code == 2
    assert "it must set exactly PROFILE, MODEL, SEED" in out


def test_an_edited_helper_is_run_again(book: Book) -> None:
    book.press("book", "--profile", "smoke")
    book.write("helpers/numbers.py", "def answer():\n    return 41\n")
    code, out = book.press("book", "--profile", "smoke")
    assert code == 0
    assert "cell 2/2" in out
    assert ledger(book)["claims"]["1/one"]["verdict"] == "does not hold here"
    assert "41.0" in book.page("one")


def test_pages_are_not_built_from_a_run_of_other_code(book: Book) -> None:
    book.press("book", "--profile", "smoke")
    book.write("helpers/numbers.py", "def answer():\n    return 41\n")
    code, out = book.press("build", "--profile", "smoke")
    assert code == 1
    assert "has not been run as it stands now" in out
    assert "42.0" not in book.page("one")


def test_edited_prose_is_a_cache_hit_and_reaches_the_page(book: Book) -> None:
    book.press("book", "--profile", "smoke")
    book.chapter("one", "md:# One\n\nNew words about {glue:text}`answer:.1f`.", PARAMETERS, CODE)
    code, out = book.press("book", "--profile", "smoke")
    assert code == 0
    assert "hit" in out
    assert "New words about" in book.page("one")
    assert "42.0" in book.page("one")


def test_a_damaged_cache_file_is_reported_and_run_again(book: Book) -> None:
    book.press(*RUN)
    (cached,) = (book.project.build / "cache" / "one").glob("*.ipynb")
    cached.write_text(cached.read_text(encoding="utf-8").replace("42", "43"), encoding="utf-8")
    code, out = book.press(*RUN)
    assert code == 0
    assert "is damaged: running the chapter again" in out
    assert ledger(book)["records"]["answer"]["value"] == 42


def test_a_change_while_it_runs_is_not_kept(book: Book) -> None:
    edit = f"open({str(book.project.helpers / 'numbers.py')!r}, 'a').write('# edited')"
    book.chapter("one", "md:# One", PARAMETERS, "from helpers.numbers import answer", edit)
    code, out = book.press(*RUN)
    assert code == 1
    assert "changed while it ran" in out
    assert not (book.project.build / "cache" / "one").exists()


def has_ended(pid: int) -> bool:
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE or process.wait(timeout=20) is None
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_everything_and_leaves_nothing_half_done(book: Book, number: int) -> None:
    interrupt(book, number)


def test_an_interrupt_ends_the_chapters_on_the_cluster_too(book: Book) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        interrupt(book, signal.SIGINT, "--backend", "dask", "--scheduler", cluster.scheduler_address)


def interrupt(book: Book, number: int, *options: str) -> None:
    """Send a signal in the middle of a cell; check that nothing runs on and nothing is left."""
    mark = book.project.root / "kernel.pid"
    wait = f"import os, time\nopen({str(mark)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    book.chapter("one", "md:# One", PARAMETERS, CODE, wait)
    process = book.start(*RUN, *options)
    deadline = time.monotonic() + 120
    while not (mark.is_file() and mark.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in out
    assert has_ended(int(mark.read_text()))
    left = [path for path in book.project.build.rglob("*") if path.is_file()]
    assert left == []


def test_a_chapter_whose_process_dies_is_a_failure(book: Book) -> None:
    book.chapter("one", "md:# One", PARAMETERS, "import os\nos.kill(os.getppid(), 9)")
    code, out = book.press(*RUN)
    assert code == 1
    assert "ended with exit code -9" in out


def test_the_same_name_twice_is_a_failure(book: Book) -> None:
    book.chapter("one", "md:# One", PARAMETERS, CODE, "session.record('answer', 1)")
    code, out = book.press(*RUN)
    assert code == 1
    assert "'answer' twice" in out


def test_a_budget_that_is_passed_is_a_warning(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.press import run as module
    from tools.press.project import Budget

    monkeypatch.setitem(module.PROFILES, "smoke", Budget(1e-3, 1e-3))
    (outcome,) = run(book.project, Plan("smoke", {}))
    assert outcome.error is None
    assert outcome.row()[-1] == "ok, but over 0.0 s and over 0.001 GB"


def test_dask_runs_the_chapters_on_its_workers(book: Book) -> None:
    from distributed import LocalCluster

    book.chapter("two", "md:# Two", PARAMETERS, CODE)
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        outcomes = run(book.project, Plan("smoke", {}, backend="dask", scheduler=address))
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert not any(outcome.cached for outcome in outcomes)
    assert ledger(book, "two")["records"]["answer"]["value"] == 42


@pytest.mark.parametrize("name", ["dask", "ray"])
def test_a_cluster_needs_an_address(book: Book, name: str) -> None:
    code, out = book.press(*RUN, "--backend", name)
    assert code == 2
    assert "--scheduler" in out


def test_chapters_are_run_by_name(book: Book) -> None:
    book.chapter("two", "md:# Two", PARAMETERS, "1 / 0")
    assert book.press(*RUN, "one")[0] == 0
    code, out = book.press(*RUN, "three")
    assert code == 2
    assert "the chapters are: one, two" in out


def test_a_page_that_is_not_there_is_an_error(book: Book) -> None:
    Path(load_chapters(book.project)[0].path).unlink()
    code, out = book.press(*RUN)
    assert code == 2
    assert "book/ has no such page" in out


def test_the_failed_notebook_shows_how_far_it_came(book: Book) -> None:
    book.chapter("one", "md:# One", PARAMETERS, "print('before')", "1 / 0")
    book.press(*RUN)
    failed = nbformat.read(book.project.build / "failed" / "one.ipynb", as_version=4)
    assert any("before" in str(cell.get("outputs")) for cell in failed.cells)
