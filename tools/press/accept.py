"""Accept the ledgers of a run, and compare later runs with them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tools.press.build import run_report
from tools.press.cache import key
from tools.press.chapters import Chapter, load_chapters
from tools.press.ledger import dumps, load_ledgers
from tools.press.project import PressError, Project, check_profile, write_atomic
from tools.press.table import render

RELATIVE = 1e-3  # other processors add up in another order
ABSOLUTE = 1e-6
CLOCK_UNITS = ("s", "ms", "min", "MB", "GB")  # these measure the machine, as does everything per second


@dataclass(frozen=True)
class Difference:
    """One thing in which a run disagrees with the accepted ledger."""

    chapter: str
    name: str
    accepted: str
    now: str
    allowed: str = ""

    def row(self) -> list[str]:
        """Return the row of the table."""
        return [self.chapter, self.name, self.accepted, self.now, self.allowed]


def accept(project: Project, profile: str, slugs: tuple[str, ...] = ()) -> list[str]:
    """Copy the ledgers of the last run to the accepted ones, of all chapters or of some; return the slugs."""
    chapters = load_chapters(project, slugs)
    ledgers = current_ledgers(project, profile, chapters)
    if missing := [chapter.slug for chapter in chapters if chapter.slug not in ledgers]:
        raise PressError(
            f"no valid {profile} run of what stands here now: {', '.join(missing)}; "
            f"python -m tools.press run --profile {profile}, then accept"
        )
    for chapter in chapters:
        ledger = ledgers[chapter.slug]
        write_atomic(project.accepted(profile) / f"{chapter.slug}.json", dumps(ledger))
        if str(ledger["run"]["commit"]).endswith("-dirty"):
            print(f"{chapter.slug}: accepted from a working tree with changes that no commit holds")
    return [chapter.slug for chapter in chapters]


def current_ledgers(project: Project, profile: str, chapters: list[Chapter]) -> dict[str, dict[str, Any]]:
    """Return the ledgers of the chapters whose last run is a run of what stands here now."""
    parameters = {"PROFILE": check_profile(profile), **run_report(project, profile).get("parameters", {})}
    ledgers = load_ledgers(project.ledger(profile))
    keys = {chapter.slug: key(project, chapter, parameters) for chapter in chapters}
    return {
        slug: ledgers[slug] for slug in keys if ledgers.get(slug, {}).get("run", {}).get("key") == keys[slug]
    }


def compare(new: Mapping[str, Any], accepted: Mapping[str, Any]) -> list[Difference]:
    """Return where a ledger disagrees with the accepted one; empty if nowhere."""
    return [*_records(new, accepted), *_verdicts(new, accepted)]


def _records(new: Mapping[str, Any], accepted: Mapping[str, Any]) -> Iterator[Difference]:
    chapter = new["chapter"]
    yield from _names(chapter, "number", new["records"], accepted["records"])
    for name, old in accepted["records"].items():
        now = new["records"].get(name)
        if now is None or measures_the_machine(old):
            continue
        allowed = tolerance(now, old)
        if not abs(now["value"] - old["value"]) <= allowed:
            yield Difference(chapter, name, f"{old['value']:.6g}", f"{now['value']:.6g}", f"± {allowed:.2g}")


def _verdicts(new: Mapping[str, Any], accepted: Mapping[str, Any]) -> Iterator[Difference]:
    chapter = new["chapter"]
    yield from _names(chapter, "claim", new["claims"], accepted["claims"])
    for name, old in accepted["claims"].items():
        now = new["claims"].get(name)
        if now is not None and now["verdict"] != old["verdict"]:
            yield Difference(chapter, name, old["verdict"], now["verdict"])


def _names(
    chapter: str, kind: str, new: Mapping[str, Any], accepted: Mapping[str, Any]
) -> Iterator[Difference]:
    for name in sorted({*new} ^ {*accepted}):
        there = (kind, "missing") if name in accepted else ("missing", f"new {kind}")
        yield Difference(chapter, name, *there)


def tolerance(new: Mapping[str, Any], accepted: Mapping[str, Any]) -> float:
    """Return how far two values of a number may lie apart: the spread over seeds, or float noise."""
    noise = max(ABSOLUTE, RELATIVE * abs(accepted["value"]))
    if not (new.get("ci") and accepted.get("ci")):
        return noise
    return max(noise, half_width(new["ci"]) + half_width(accepted["ci"]))


def half_width(interval: tuple[float, float]) -> float:
    """Return half the width of an interval.

    Examples
    --------
    >>> half_width((1.0, 2.0))
    0.5
    """
    width = (interval[1] - interval[0]) / 2
    return width if math.isfinite(width) else 0.0


def measures_the_machine(record: Mapping[str, Any]) -> bool:
    """Say whether a number is a time, a speed or a memory size: those differ between machines."""
    unit = record.get("unit") or ""
    return unit in CLOCK_UNITS or unit.endswith("/s")


def compare_all(project: Project, profile: str) -> list[Difference]:
    """Compare the last run of every chapter with its accepted ledger."""
    chapters = load_chapters(project)
    now, accepted = current_ledgers(project, profile, chapters), load_ledgers(project.accepted(profile))
    found: list[Difference] = []
    for slug in (chapter.slug for chapter in chapters):
        if slug not in accepted:
            found.append(Difference(slug, "the ledger", "nothing", f"make accept PROFILE={profile}"))
        elif slug not in now:
            found.append(Difference(slug, "the ledger", "accepted", "no valid run of what stands here"))
        else:
            found += compare(now[slug], accepted[slug])
    return found


def report(differences: list[Difference], profile: str) -> str:
    """Return the table of the differences, or one line that there are none."""
    if not differences:
        return f"All numbers and verdicts of the {profile} profile agree with the accepted ledger."
    header = ["chapter", "name", "accepted", "now", "allowed"]
    return render(header, [difference.row() for difference in differences])
