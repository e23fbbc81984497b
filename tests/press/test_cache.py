"""What a number depends on is in the key, and nothing else."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.press.conftest import CODE, PARAMETERS, Book
from tools.press.cache import KEEP, Cache, key
from tools.press.chapters import load_chapters
from tools.press.closure import Closure


def now(book: Book, **parameters: object) -> str:
    return key(book.project, load_chapters(book.project)[0], {"PROFILE": "smoke", **parameters})


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("helpers/numbers.py", "def answer():\n    return 41\n"),
        ("helpers/session.py", "pass\n"),
        ("helpers/static/style.css", "p {}\n"),
        ("requirements.lock", "torch==2.14.0\n"),
        ("data/registry.json", '{"a": 1}'),
        ("data/text/sample.txt", "words\n"),
    ],
)
def test_a_change_that_may_move_a_number_changes_the_key(book: Book, path: str, text: str) -> None:
    before = now(book)
    book.write(path, text)
    assert now(book) != before


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("helpers/unused.py", "UNUSED = 2\n"),
        ("data/results/smoke/one.json", "{}"),
        ("data/README.md", "cards\n"),
        ("book/index.md", "# Other words\n"),
    ],
)
def test_a_change_that_cannot_move_a_number_keeps_the_key(book: Book, path: str, text: str) -> None:
    before = now(book)
    book.write(path, text)
    assert now(book) == before


def test_cells_and_parameters_are_in_the_key_and_prose_is_not(book: Book) -> None:
    before = now(book)
    assert now(book, SEED=1) != before
    book.chapter("one", "md:# One\n\nOther words.", PARAMETERS, CODE)
    assert now(book) == before
    book.chapter("one", "md:# One", PARAMETERS, CODE + "\nprint(1)")
    assert now(book) != before


FILES = {
    "__init__.py": "def __getattr__(name): ...",
    "session.py": "def start():\n    from helpers import report",
    "report.py": "",
    "trace.py": "from .models import load",
    "models.py": "import helpers.data",
    "data.py": "",
    "sae/__init__.py": "from helpers.sae.operators import topk",
    "sae/operators.py": "",
    "sae/training.py": "from . import operators\nfrom ..trace import collect",
    "lazy/__init__.py": "def __getattr__(name): ...",
    "lazy/inside.py": "",
}
BASE = {"__init__", "session", "report"}
TRACE = {"trace", "models", "data"}
SAE = {"sae/__init__", "sae/operators"}


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("import torch", set()),
        ("from helpers import trace", TRACE),
        ("from helpers import trace as t, start", TRACE),
        ("import helpers.trace", TRACE),
        ("import helpers\nhelpers.trace.collect()", TRACE),
        ("import helpers as h\nh.sae.training.train()", SAE | TRACE | {"sae/training"}),
        ("from helpers.sae import topk", SAE),
        ("from helpers.sae import training", SAE | TRACE | {"sae/training"}),
        ("from helpers import sae\nsae.training", SAE | TRACE | {"sae/training"}),
        ("def f():\n    from helpers import data", {"data"}),
        ("import importlib\nimportlib.import_module('helpers.data')", {"data"}),
        ("from helpers import lazy", {"lazy/__init__", "lazy/inside"}),
        ("%matplotlib inline\n!ls\nfrom helpers import data", {"data"}),
    ],
)
def test_the_closure_follows_every_kind_of_import(tmp_path: Path, source: str, reached: set[str]) -> None:
    write_package(tmp_path)
    found = Closure(tmp_path).files([source])
    names = {str(path.relative_to(tmp_path).with_suffix("")) for path in found}
    assert names == BASE | reached


@pytest.mark.parametrize(
    "source",
    [
        "from helpers import *",
        "import helpers\nprint(getattr(helpers, 'sae'))",
        "%%time\nfrom helpers import data",
    ],
)
def test_when_anything_may_be_meant_all_is_taken(tmp_path: Path, source: str) -> None:
    write_package(tmp_path)
    assert len(Closure(tmp_path).files([source])) == len(FILES)


def write_package(folder: Path) -> None:
    for name, text in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def test_only_the_newest_few_are_kept(book: Book) -> None:
    cache = Cache(book.project, "one")
    for index in range(KEEP + 2):
        executed = nbformat.v4.new_notebook(metadata={"tml": {"run": {"key": f"{index:064d}"}}})
        cache.store("smoke", f"{index:064d}"[::-1], executed)
    assert len(list(cache.folder.glob("*.ipynb"))) == KEEP
    assert len(list(cache.folder.glob("*.sha256"))) == KEEP


def test_a_notebook_without_its_seal_is_not_used(book: Book) -> None:
    cache = Cache(book.project, "one")
    executed = nbformat.v4.new_notebook(metadata={"tml": {"run": {"key": "a" * 64}}})
    path = cache.store("smoke", "a" * 64, executed)
    assert cache.find("smoke", "a" * 64) is not None
    path.with_suffix(".ipynb.sha256").unlink()
    assert cache.find("smoke", "a" * 64) is None


def test_a_notebook_under_the_name_of_another_key_is_not_used(book: Book) -> None:
    cache = Cache(book.project, "one")
    executed = nbformat.v4.new_notebook(metadata={"tml": {"run": {"key": "b" * 64}}})
    cache.store("smoke", "a" * 64, executed)
    assert cache.find("smoke", "a" * 64) is None
