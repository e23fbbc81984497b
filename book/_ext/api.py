"""Link every function of the API page to its source in the repository, and to the chapter that teaches it."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

LITERAL = re.compile(r"(``.*?``)")
TAUGHT = re.compile(r"^Taught in: ([a-z0-9-]+)$")
ROOT = Path(importlib.import_module("helpers").__file__ or "").resolve().parents[1]


class SourceLinks:
    """Find the address of a documented object; the repository's own address comes from the settings."""

    def __init__(self, blob: str) -> None:
        self.blob = blob

    def __call__(self, domain: str, info: dict[str, str]) -> str | None:
        """Return the address, or ``None`` for what has no lines of its own, such as a constant."""
        if domain != "py" or not info["module"]:
            return None
        found: Any = importlib.import_module(info["module"])
        for name in info["fullname"].split("."):
            found = getattr(found, name, None)
        found = found.fget if isinstance(found, property) else found
        return self.of(inspect.unwrap(found)) if callable(found) else None

    def of(self, found: Any) -> str | None:
        """Return the address of a function or class, if it is one of the book's."""
        try:
            file = Path(inspect.getsourcefile(found) or "").resolve().relative_to(ROOT)
            lines, first = inspect.getsourcelines(found)
        except (OSError, TypeError, ValueError):
            return None
        return f"{self.blob}/{file.as_posix()}#L{first}-L{first + len(lines) - 1}"


def keep_bars(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Let |u| in a docstring be a magnitude, not a substitution; code stays as it is."""
    for place, line in enumerate(lines):
        if "Examples" in line:
            break
        parts = LITERAL.split(line)
        lines[place] = "".join(
            part if part[:2] == "``" else part.replace("|", r"\|") for part in parts
        )


def link_chapter(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Make of `Taught in: slug` a link, where the chapter is part of the book."""
    for place, line in enumerate(lines):
        found = TAUGHT.match(line.strip())
        pages = [page for page in app.env.found_docs if found and page.endswith(f"-{found[1]}")]
        if pages:
            lines[place] = f"Taught in: :doc:`/{pages[0]}`"


def connect(app: Any, config: Any) -> None:
    """Take the repository's address and branch from the theme's options."""
    theme = config.html_theme_options
    config.linkcode_resolve = SourceLinks(
        f"{theme['repository_url']}/blob/{theme['repository_branch']}"
    )


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.linkcode")
    app.connect("config-inited", connect)
    app.connect("autodoc-process-docstring", keep_bars)
    app.connect("autodoc-process-docstring", link_chapter)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
