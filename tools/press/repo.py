"""The address of the repository: it stands in pyproject.toml, and from there everywhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

from tools.press.project import PressError, Project, write_atomic

ADDRESS = re.compile(r"https://github\.com/([\w.-]+/[\w.-]+?)/?(?:\.git)?")
PAGES = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "_config.yml", "pyproject.toml", "book/**/*.md")
NOTEBOOKS = "book/**/*.ipynb"
USES = re.compile(
    r"(?:colab\.research\.google\.com/github/|git\+https://github\.com/|raw\.githubusercontent\.com/)"
    r"([\w.-]+/[\w-]+(?:\.(?!git\b)[\w-]+)*)"
)


def address(project: Project) -> str:
    """Return the address that pyproject.toml gives."""
    content = tomllib.loads((project.root / "pyproject.toml").read_text(encoding="utf-8"))
    return str(content["project"]["urls"]["Repository"])


def slug(url: str) -> str:
    """Return the ``owner/name`` of an address.

    Examples
    --------
    >>> slug("https://github.com/someone/a-book")
    'someone/a-book'
    """
    found = ADDRESS.fullmatch(url.strip())
    if not found:
        raise PressError(
            f"{url!r} is no address of a GitHub repository, which Colab needs; give https://github.com/OWNER/NAME"
        )
    return found[1].removesuffix(".git")


def files(project: Project) -> Iterator[Path]:
    """Yield the files that may hold the address."""
    for pattern in (*PAGES, NOTEBOOKS):
        yield from sorted(path for path in project.root.glob(pattern) if path.is_file())


def set_address(project: Project, url: str) -> list[Path]:
    """Write a new address everywhere; return the files that changed."""
    old, new = slug(address(project)), slug(url)
    pattern = re.compile(rf"(github(?:usercontent)?(?:\.com|\.io)?/){re.escape(old)}(?![\w-])")
    changed = []
    for path in files(project):
        text = path.read_text(encoding="utf-8")
        written = pattern.sub(rf"\g<1>{new}", text)
        if written != text:
            changed.append(write_atomic(path, written))
    return changed


def faults(project: Project) -> list[str]:
    """Return the places that hold another address than pyproject.toml."""
    url = address(project)
    found = [f"{name}: says {other}" for name, other in _declared(project) if other != url]
    for path in files(project):
        for used in USES.findall(path.read_text(encoding="utf-8")):
            if used != slug(url):
                found.append(f"{path.relative_to(project.root)}: uses {used}, not {slug(url)}")
    return found


def _declared(project: Project) -> Iterator[tuple[str, str]]:
    config = yaml.safe_load(project.config.read_text(encoding="utf-8"))
    yield project.config.name, config["repository"]["url"]
    citation = project.root / "CITATION.cff"
    if citation.is_file():
        yield citation.name, yaml.safe_load(citation.read_text(encoding="utf-8"))["repository-code"]
