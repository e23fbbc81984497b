"""Serve the built book on this machine and open its pages in one browser, with every other host cut off."""

import functools
import http.server
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
OUTSIDE = re.compile(r"^\w+://(?!127\.0\.0\.1[:/])")


class Case(NamedTuple):
    """One page as one reader sees it."""

    page: str
    mode: str
    width: int

    def __str__(self) -> str:
        return f"{self.page}-{self.mode}-{self.width}"


@dataclass
class View:
    """A page that is open in the browser, and what went wrong while it opened."""

    case: Case
    page: Page
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)

    def hear(self, message: ConsoleMessage) -> None:
        """Keep what the page complains about."""
        if message.type == "error":
            self.errors.append(f"{message.text} ({message.location.get('url')})")

    def close(self) -> None:
        """Close the page and its storage."""
        self.page.context.close()


def site() -> Path | None:
    """Return the folder of the built book, if there is one."""
    folder = os.environ.get("TML_SITE")
    return Path(folder) if folder and Path(folder).is_dir() else None


def cases(needs: str = "<h1") -> list[Case]:
    """List every page that holds a text, light and dark, narrow and wide."""
    folder = site()
    files = sorted(folder.rglob("*.html")) if folder else []
    pages = [
        file.relative_to(folder).as_posix()
        for file in files
        if "_static" not in file.parts
        and needs in (text := file.read_text("utf-8"))
        and 'http-equiv="Refresh"' not in text
    ]
    views = [Case(page, mode, width) for page in pages for mode in ("light", "dark") for width in (400, 1400)]
    return views or [Case(f"(no page with {needs!r})", "light", 400)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run all tests of one view together, so that each is opened once."""
    here = [i for i, item in enumerate(items) if "view" in getattr(item, "fixturenames", ())]
    ordered = sorted((items[i] for i in here), key=lambda item: item.callspec.params["view"])
    for place, item in zip(here, ordered, strict=True):
        items[place] = item


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """Serve the built book from this machine."""
    folder = site()
    if folder is None:
        pytest.fail("there is no built book to look at: run `make test`, which builds it and sets TML_SITE")
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serve files without a word."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Start one browser for all tests."""
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is missing: install Debian's package `chromium`")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def open_views() -> Iterator[dict[Case, View]]:
    """Keep the view that was opened last."""
    kept: dict[Case, View] = {}
    yield kept
    for view in kept.values():
        view.close()


@pytest.fixture
def view(
    request: pytest.FixtureRequest, address: str, browser: Browser, open_views: dict[Case, View]
) -> View:
    """Open a page, or take the one that is open."""
    case = request.param
    if case.page.startswith("("):
        pytest.fail(f"the built book has {case.page[1:-1]}")
    if case not in open_views:
        for last in list(open_views):
            open_views.pop(last).close()
        open_views[case] = _open(case, address, browser)
    return open_views[case]


def _open(case: Case, address: str, browser: Browser) -> View:
    """Open a page with every other host cut off, and wait until its formulas are set."""
    context = browser.new_context(
        viewport={"width": case.width, "height": 900}, color_scheme=case.mode, reduced_motion="reduce"
    )
    context.set_default_timeout(10_000)
    context.add_init_script(
        f"if (!localStorage.mode) {{ localStorage.mode = localStorage.theme = '{case.mode}' }}"
    )
    view = View(case, context.new_page())
    view.page.on("console", view.hear)
    view.page.on("pageerror", lambda error: view.errors.append(str(error)))
    view.page.on("request", lambda sent: OUTSIDE.match(sent.url) and view.outside.append(sent.url))
    context.route(OUTSIDE, lambda route: route.abort())
    view.page.goto(f"{address}/{case.page}", wait_until="load")
    view.page.evaluate("window.MathJax?.startup?.promise")
    return view
