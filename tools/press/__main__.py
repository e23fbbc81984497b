"""The press on the command line: ``python -m tools.press --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tools.press.project import PROFILES, ROOT, PressError, Project

INTERRUPTED = 130


def parameter(text: str) -> tuple[str, Any]:
    """Read ``NAME=value`` from the command line.

    Examples
    --------
    >>> parameter("SEED=3")
    ('SEED', 3)
    """
    name, equals, value = text.partition("=")
    if not equals or name == "PROFILE":
        raise argparse.ArgumentTypeError(f"{text!r}: give NAME=value (the profile has --profile)")
    return name, yaml.safe_load(value)


def do_run(project: Project, given: argparse.Namespace) -> int:
    """Run the chapters."""
    from tools.press.run import Plan, run

    plan = Plan(given.profile, dict(given.parameter), given.backend, given.scheduler, given.processes)
    outcomes = run(project, plan, tuple(given.chapters))
    return int(any(outcome.error for outcome in outcomes))


def do_build(project: Project, given: argparse.Namespace) -> int:
    """Build the pages out of the runs."""
    from tools.press.build import build

    return build(project, given.profile)


def do_book(project: Project, given: argparse.Namespace) -> int:
    """Run the chapters, then build the pages, of those that ran also after a failure."""
    ran = do_run(project, given)
    return do_build(project, given) or ran


def do_test(project: Project, given: argparse.Namespace) -> int:
    """Check everything."""
    from tools.press.stages import run_stages

    return run_stages(project)


def do_accept(project: Project, given: argparse.Namespace) -> int:
    """Take the ledgers of the last run as the accepted ones."""
    from tools.press.accept import accept
    from tools.press.readme import write_readme

    slugs = accept(project, given.profile, tuple(given.chapters))
    if given.profile == "book":
        write_readme(project)
    print(f"Accepted in {project.accepted(given.profile)}: {', '.join(slugs)}")
    return 0


def do_compare(project: Project, given: argparse.Namespace) -> int:
    """Compare the last run with the accepted ledgers."""
    from tools.press.accept import compare_all, report

    differences = compare_all(project, given.profile)
    print(report(differences, given.profile))
    return int(bool(differences))


def do_lint(project: Project, given: argparse.Namespace) -> int:
    """Look over the notebooks."""
    from tools.press.lint import lint_all
    from tools.press.repo import faults

    found = [*map(str, lint_all(project)), *faults(project)]
    print("\n".join(found) or "The notebooks are as they should be.")
    return int(bool(found))


def do_student(project: Project, given: argparse.Namespace) -> int:
    """Make the student edition."""
    from tools.press.student import student

    return student(project, given.profile)


def do_slides(project: Project, given: argparse.Namespace) -> int:
    """Make the slides."""
    from tools.press.slides import slides

    return slides(project, given.profile)


def do_chapter(project: Project, given: argparse.Namespace) -> int:
    """Lay down a new chapter."""
    from tools.press.new import new_chapter

    path = new_chapter(project, given.slug, title=given.title, part=given.part, paper=given.paper)
    print(f"Fill in {path}; what is left to fill: python -m tools.press lint")
    return 0


def do_repo(project: Project, given: argparse.Namespace) -> int:
    """Write the repository's address everywhere."""
    from tools.press.repo import set_address

    for path in set_address(project, given.url):
        print(f"wrote {path.relative_to(project.root)}")
    return 0


Command = Callable[[Project, argparse.Namespace], int]
PROFILED: dict[str, tuple[Command, str]] = {
    "build": (do_build, "book"),
    "accept": (do_accept, "book"),
    "compare": (do_compare, "smoke"),
    "student": (do_student, "book"),
    "slides": (do_slides, "book"),
}
PLAIN: dict[str, Command] = {"test": do_test, "lint": do_lint}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    main = argparse.ArgumentParser(prog="python -m tools.press", description=__doc__)
    main.add_argument("--root", type=Path, default=ROOT, help="folder of the book (default: this one)")
    commands = main.add_subparsers(required=True, metavar="COMMAND")
    for name, command in (("run", do_run), ("book", do_book)):
        _add_run(_add(commands, name, command))
    for name, (profiled, profile) in PROFILED.items():
        added = _add(commands, name, profiled)
        added.add_argument("--profile", choices=PROFILES, default=profile)
        if profiled is do_accept:
            added.add_argument("chapters", nargs="*", metavar="SLUG", help="accept only these chapters")
    for name, plain in PLAIN.items():
        _add(commands, name, plain)
    chapter = _add(commands, "chapter", do_chapter)
    for name in ("slug", "title", "part", "paper"):
        chapter.add_argument(f"--{name}", required=True)
    _add(commands, "repo", do_repo).add_argument("--url", required=True)
    return main


def _add(commands: Any, name: str, command: Command) -> argparse.ArgumentParser:
    added: argparse.ArgumentParser = commands.add_parser(name, help=command.__doc__)
    added.set_defaults(command=command)
    return added


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("chapters", nargs="*", metavar="SLUG", help="run only these chapters")
    command.add_argument("--profile", choices=PROFILES, default="book")
    more: dict[str, Any] = {"action": "append", "default": [], "metavar": "NAME=VALUE"}
    command.add_argument("-p", "--parameter", type=parameter, **more)
    command.add_argument("--backend", choices=("local", "dask", "ray"), default="local")
    command.add_argument("--scheduler", help="address of the Dask scheduler or of the Ray cluster")
    command.add_argument("--processes", type=int, default=2, help="chapters at a time (default: 2)")


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    given = parser().parse_args(arguments)
    try:
        return int(given.command(Project(given.root.resolve()), given))
    except PressError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. What had ended before is kept.", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
