"""Look over the notebooks: what a reader must be able to rely on, in every chapter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from nbformat import NotebookNode

from tools.press.chapters import Chapter, code_cells, declared_parameters, load_chapters, tags
from tools.press.closure import plain_python
from tools.press.ledger import load_ledgers
from tools.press.project import PROFILES, PressError, Project

# The order of a chapter; a heading may go on after the words (`## The method: one proximal step`).
SECTIONS = (
    "A first look",
    "The problem",
    "The method",
    "The result",
    "A baseline",
    "A negative control",
    "Explore",
    "Predict, then run",
    "The claims",
    "What did not reproduce",
    "Exercises",
    "Summary",
    "References",
)
EXERCISES = 4
UNFILLED = "TODO"
FENCE = re.compile(r"^(?P<fence>`{3,}|~{3,})(?P<rest>[^\n]*)\n(?P<body>.*?)^(?P=fence)\s*$", re.M | re.S)
NOT_PROSE = (
    re.compile(r"<!--.*?-->", re.S),
    re.compile(r"\$\$.*?\$\$", re.S),
    re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S),
    re.compile(r"\$[^$\n]+\$"),
    re.compile(r"`[^`\n]*`"),
    re.compile(r"(?<=\])\([^)\n]*\)"),
    re.compile(r"<https?://[^>]*>|https?://\S+"),
    re.compile(r"\b(?:Section|Sections|Figure|Table|Appendix|Equation|Eq\.|Theorem|version|Python)\s+[\d.]+"),
    re.compile(r"\barXiv:\s*\d+\.\d+(?:v\d+)?"),
)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+|(?:\.\d+)?\s*(?:%|per cent|percent\b))")
EXERCISE = re.compile(r"\{exercise(?:-start)?\}[^\n]*\n(?:[ \t]*:[^\n]*\n)*?[ \t]*:label:[ \t]*(\S+)")
SOLUTION = re.compile(r"\{solution(?:-start)?\}[ \t]*(\S+)")
GLUED = re.compile(r"\{glue:[\w:]*\}`([^`]+)`")
COLAB = re.compile(r"colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/[\w.-]+/([^\s)\"]+)")


@dataclass(frozen=True)
class Fault:
    """One thing to put right."""

    chapter: str
    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.chapter}: {self.where}: {self.what}"


def lint(chapter: Chapter, ledgers: list[dict[str, Any]]) -> list[Fault]:
    """Return the faults of a chapter; the ledgers say which names its prose may quote."""
    try:
        notebook = chapter.notebook()
    except PressError as problem:
        return [Fault(chapter.slug, "the file", str(problem))]
    checks = (cells, parameters, opening, language_model, calls, prose, sections, exercises, badge)
    found = [(where, what) for check in checks for where, what in check(chapter, notebook)]
    found += glued(notebook, ledgers)
    return [Fault(chapter.slug, where, what) for where, what in found]


Found = Iterator[tuple[str, str]]


def cells(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find outputs, installs, and what is still to fill in."""
    if UNFILLED in str(notebook.metadata):
        yield "the notebook's metadata", f"still says {UNFILLED}: fill in the claim and the prerequisites"
    for cell in notebook.cells:
        if UNFILLED in cell.source:
            yield _at(cell), f"still says {UNFILLED}: fill it in"
    for number, cell in enumerate(code_cells(notebook)):
        if cell.outputs or cell.execution_count is not None:
            yield _at(cell), "is stored with outputs: strip them (nbstripout)"
        if number and re.search(r"^\s*[!%]\s*(?:pip|conda)\b|pip install", cell.source, re.M):
            yield _at(cell), "installs something: only the bootstrap cell may"


def parameters(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find a parameters cell without the three names, each with its type and a comment."""
    try:
        declared_parameters(chapter)
    except PressError as problem:
        yield "parameters", str(problem).removeprefix(f"{chapter.slug}: ")
        return
    cell = next(cell for cell in code_cells(notebook) if "parameters" in tags(cell))
    for line in filter(str.strip, cell.source.splitlines()):
        if not re.match(r"\w+: \w+ = .+  # .+", line) and not line.startswith("#"):
            yield _at(cell), f"write `NAME: type = value  # what it is`, not `{line}`"


def opening(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find a beginning that is not bootstrap, parameters, start."""
    first = code_cells(notebook)[:3]
    if len(first) < 3:
        yield "the beginning", "needs three code cells: bootstrap, parameters, start"
        return
    if "google.colab" not in first[0].source:
        yield _at(first[0]), "must be the bootstrap cell, which installs in Colab and else does nothing"
    if "parameters" not in tags(first[1]):
        yield _at(first[1]), "must be the parameters cell"
    starts = [call for call in _calls(first[2]) if _called(call) == "start"]
    words = {word.arg: ast.unparse(word.value) for call in starts for word in call.keywords}
    if words.get("chapter") != repr(chapter.slug) or words.get("seed") != "SEED":
        yield _at(first[2]), f'must be `run = start(PROFILE, chapter="{chapter.slug}", seed=SEED)`'


def language_model(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find verdicts that would be signed with a language model which the chapter never loads."""
    named = re.search(r"^MODEL: str = \"smollm2", _code(notebook), re.M)
    if named and "load_model(" not in _code(notebook):
        yield "parameters", 'MODEL names a language model, and none is loaded: write MODEL: str = ""  # why'


def calls(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find verdicts that are typed, figures and explorers without a description."""
    literals = _literal_names(notebook)
    for cell in code_cells(notebook):
        for call in _calls(cell):
            words = {word.arg: word.value for word in call.keywords}
            if _called(call) == "run.claim":
                yield from _claim(cell, words, literals)
            elif _called(call) in ("run.figure", "run.explore"):
                for name in {"caption", "alt"} - {*words}:
                    yield _at(cell), f"{_called(call)} has no {name}="


def _claim(cell: NotebookNode, words: dict[str | None, ast.expr], literals: set[str]) -> Found:
    for name in ("holds", "control"):
        if name not in words:
            yield _at(cell), f"run.claim has no {name}="
        elif _typed(words[name], literals):
            yield _at(cell), f"run.claim: {name}= is typed, not computed from recorded values"


def _typed(value: ast.expr, literals: set[str]) -> bool:
    """Say whether an expression, or one value of a dict, has nothing in it that was computed."""
    if isinstance(value, ast.Dict):
        return not value.values or any(_typed(each, literals) for each in value.values)
    names = [node.id for node in ast.walk(value) if isinstance(node, ast.Name)]
    return all(name in literals for name in names)


def _literal_names(notebook: NotebookNode) -> set[str]:
    found = {"bool", "dict", "float", "int", "all", "any", "not"}
    for cell in code_cells(notebook):
        for node in ast.walk(_tree(cell)):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found - {"PROFILE", "MODEL", "SEED"}


def prose(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find results that are typed into the prose."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for match in NUMBER.finditer(bare_prose(cell.source)):
                yield _at(cell), f"the number {match[0]!r} is typed: glue a recorded one, or cite its source"


def bare_prose(text: str) -> str:
    """Return the prose of a Markdown cell: no code, maths, links, nor anything beside a citation."""
    text = FENCE.sub(_fenced, text)
    blocks = re.split(r"\n\s*\n", text)
    lines = [line for block in blocks for line in _uncited(block)]
    text = "\n".join(lines)
    for pattern in NOT_PROSE:
        text = pattern.sub(" ", text)
    return text


def _fenced(match: re.Match[str]) -> str:
    directive = re.match(r"\{([\w:-]+)\}(.*)", match["rest"])
    if not directive or directive[1].startswith(("math", "code", "bibliography", "raw", "tableofcontents")):
        return ""
    body = re.sub(r"^\s*:[\w-]+:.*$", "", match["body"], flags=re.M)
    return f"\n\n{directive[2]}\n\n{FENCE.sub(_fenced, body)}\n"


def _uncited(block: str) -> list[str]:
    lines = block.splitlines()
    if any(line.lstrip().startswith("|") for line in lines):
        return [line for line in lines if "{cite" not in line]
    return [] if "{cite" in block else lines


def sections(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find sections that are missing or out of order."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.+)$", text, re.M)
    places = [next((i for i, h in enumerate(headings) if h.startswith(name)), None) for name in SECTIONS]
    for name, place in zip(SECTIONS, places, strict=True):
        if place is None:
            yield "the sections", f"`## {name}` is missing"
    present = [place for place in places if place is not None]
    if present != sorted(present):
        yield "the sections", f"are out of order; the order is: {', '.join(SECTIONS)}"
    if not re.search(r"^# ", notebook.cells[0].source if notebook.cells else "", re.M):
        yield "the first cell", "must hold the title"


def exercises(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find too few exercises, or one without a solution."""
    text = "\n".join(cell.source + "\n" for cell in notebook.cells if cell.cell_type == "markdown")
    asked, solved = EXERCISE.findall(text), set(SOLUTION.findall(text))
    if len(asked) < EXERCISES:
        yield "the exercises", f"there are {len(asked)} with a label; a chapter has {EXERCISES} or more"
    for label in asked:
        if label not in solved:
            yield "the exercises", f"{label} has no solution"


def badge(chapter: Chapter, notebook: NotebookNode) -> Found:
    """Find a Colab badge that does not open this very notebook."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    places = COLAB.findall(text)
    if not places:
        yield "the first cell", "has no Colab badge"
    for place in places:
        if place != f"book/{chapter.docname}.ipynb":
            yield "the first cell", f"its Colab badge opens {place}, not book/{chapter.docname}.ipynb"


def glued(notebook: NotebookNode, ledgers: list[dict[str, Any]]) -> Found:
    """Find names that the prose quotes and no run has recorded."""
    if not ledgers:
        return
    known = set.union(*(glue_names(ledger) for ledger in ledgers))
    for cell in notebook.cells:
        for quoted in GLUED.findall(cell.source) if cell.cell_type == "markdown" else []:
            name = re.sub(r"^.*<|>$", "", quoted)
            if name in known and ":" in name:
                yield _at(cell), f"quotes {name!r}: behind a name with a colon put a format, such as ':s'"
            elif name not in known and name.rpartition(":")[0] not in known:
                yield _at(cell), f"quotes {name!r}, which no run has recorded"


def glue_names(ledger: dict[str, Any]) -> set[str]:
    """Return the names that prose may quote from a ledger."""
    records = ledger["records"]
    intervals = {f"{name}.ci" for name, record in records.items() if record.get("ci")}
    return {
        *records,
        *intervals,
        *(f"claim:{name}" for name in ledger["claims"]),
        *ledger["figures"],
        "session",
    }


def lint_all(project: Project) -> list[Fault]:
    """Return the faults of all chapters."""
    known = [load_ledgers(project.ledger(profile)) for profile in PROFILES]
    faults: list[Fault] = []
    for chapter in load_chapters(project):
        faults += lint(chapter, [one[chapter.slug] for one in known if chapter.slug in one])
    return [*faults, *labels(load_chapters(project))]


def labels(chapters: list[Chapter]) -> list[Fault]:
    """Find figures of two chapters with one label: Sphinx would refer to either."""
    first: dict[str, str] = {}
    faults: list[Fault] = []
    for chapter in chapters:
        for label, where in _figures(chapter):
            owner = first.setdefault(label, chapter.slug)
            if owner != chapter.slug:
                faults.append(Fault(chapter.slug, where, f"the figure label {label!r} stands in {owner} too"))
    return faults


def _figures(chapter: Chapter) -> Found:
    try:
        notebook = chapter.notebook()
    except PressError:
        return  # a fault that `lint` has named
    for cell in code_cells(notebook):
        for call in _calls(cell):
            for word in call.keywords:
                if _called(call) in ("run.figure", "run.explore") and word.arg == "name":
                    yield ast.literal_eval(word.value), _at(cell)


def _at(cell: NotebookNode) -> str:
    return f"cell {cell.get('id')}"


def _code(notebook: NotebookNode) -> str:
    return "\n".join(cell.source for cell in code_cells(notebook))


def _tree(cell: NotebookNode) -> ast.Module:
    return ast.parse(plain_python(cell.source))


def _calls(cell: NotebookNode) -> list[ast.Call]:
    return [node for node in ast.walk(_tree(cell)) if isinstance(node, ast.Call)]


def _called(call: ast.Call) -> str:
    return ast.unparse(call.func)
