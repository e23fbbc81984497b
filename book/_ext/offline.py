"""Keep pages free of thebe, which jupyter-book adds to every page and this book does not offer.

Its inline script stands twice in each page, which is an error in the browser's console, and it names another
host. Static pages have their explorers instead.
"""

from __future__ import annotations

from typing import Any


def drop_thebe(
    app: Any, pagename: str, templatename: str, context: dict[str, Any], doctree: Any
) -> None:
    """Leave thebe's scripts out of a page."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script.filename} {script.attributes}".lower()
    ]


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("html-page-context", drop_thebe)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
