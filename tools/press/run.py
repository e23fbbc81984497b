"""Run the chapters of the book: from the cache where it can be trusted, otherwise afresh."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Any

import joblib
from joblib import Parallel, delayed

from tools.press.cache import Cache, key
from tools.press.chapters import Chapter, check_parameters, load_chapters
from tools.press.launch import Job, as_plain, run_job, stop_run
from tools.press.ledger import read_ledger, verdicts, write_ledger
from tools.press.project import PROFILES, PressError, Project, check_profile, write_atomic
from tools.press.table import memory, render, seconds

HEADER = ("chapter", "profile", "time", "peak memory", "held", "partly", "not held", "cache", "status")
SCHEDULER = {
    "dask": "--backend dask --scheduler tcp://HOST:8786",
    "ray": "--backend ray --scheduler HOST:6379",
}


@dataclass(frozen=True)
class Plan:
    """What to run, and where."""

    profile: str
    parameters: Mapping[str, Any]
    backend: str = "local"
    scheduler: str | None = None
    processes: int = 2
    run: str = field(default_factory=lambda: uuid.uuid4().hex[:8])


@dataclass(frozen=True)
class Outcome:
    """How a chapter went."""

    slug: str
    profile: str
    cached: bool
    error: str | None
    ledger: dict[str, Any] | None
    failed: str | None = None

    def row(self) -> list[object]:
        """Return the row of the end table."""
        run = self.ledger["run"] if self.ledger else {}
        held = verdicts(self.ledger) if self.ledger else ("-", "-", "-")
        status = "failed" if self.error else self.warning(run) or "ok"
        times = (seconds(run.get("seconds")), memory(run.get("peak_bytes")))
        return [self.slug, self.profile, *times, *held, "hit" if self.cached else "-", status]

    def warning(self, run: Mapping[str, Any]) -> str:
        """Say where the run went over the budget of its profile."""
        budget = PROFILES[self.profile]
        over = []
        if budget.seconds and run["seconds"] > budget.seconds:
            over.append(f"over {seconds(budget.seconds)}")
        if budget.gigabytes and run["peak_bytes"] > budget.gigabytes * 1e9:
            over.append(f"over {budget.gigabytes:g} GB")
        return "ok, but " + " and ".join(over) if over else ""


def run(project: Project, plan: Plan, only: tuple[str, ...] = ()) -> list[Outcome]:
    """Run the chapters, write their ledgers, print the table."""
    chapters = load_chapters(project, only)
    parameters = {"PROFILE": check_profile(plan.profile), **plan.parameters}
    for chapter in chapters:
        check_parameters(chapter, parameters)
    check_backend(plan)
    keys = {chapter.slug: key(project, chapter, parameters) for chapter in chapters}
    todo = [chapter for chapter in chapters if not _usable(project, chapter, plan.profile, keys)]
    for chapter in todo:
        (project.ledger(plan.profile) / f"{chapter.slug}.json").unlink(missing_ok=True)
    plan = replace(plan, processes=max(1, min(plan.processes, len(todo))))
    jobs = [make_job(project, chapter, plan, parameters, keys[chapter.slug]) for chapter in todo]
    try:
        fresh = execute_all(jobs, plan)
    finally:
        shutil.rmtree(project.build / "tmp" / plan.run, ignore_errors=True)
    results = {answer["slug"]: answer for answer in fresh}
    outcomes = [settle(project, c, plan.profile, keys[c.slug], results.get(c.slug)) for c in chapters]
    write_report(project, plan, outcomes)
    print(summary(outcomes), flush=True)
    return outcomes


def _usable(project: Project, chapter: Chapter, profile: str, keys: Mapping[str, str]) -> bool:
    cache = Cache(project, chapter.slug)
    found = cache.find(profile, keys[chapter.slug]) is not None
    path = cache.path(profile, keys[chapter.slug])
    if path.is_file() and not found:
        print(f"  {chapter.slug}  {path.relative_to(project.root)} is damaged: running the chapter again")
    return found


def make_job(project: Project, chapter: Chapter, plan: Plan, parameters: Mapping[str, Any], key: str) -> Job:
    """Return what a chapter's process has to know."""
    return Job(
        run=plan.run,
        root=str(project.root),
        slug=chapter.slug,
        profile=plan.profile,
        key=key,
        parameters=dict(parameters),
        notebook=as_plain(chapter.notebook()),
        threads=max(1, (os.cpu_count() or 1) // plan.processes),
        expected=Cache(project, chapter.slug).expected(plan.profile).get("seconds"),
    )


def check_backend(plan: Plan) -> None:
    """Refuse a cluster without an address."""
    if plan.backend in SCHEDULER and not plan.scheduler:
        raise PressError(
            f"--backend {plan.backend} needs the address of a scheduler: {SCHEDULER[plan.backend]}; "
            "every worker must see this folder and have this environment"
        )


def execute_all(jobs: list[Job], plan: Plan) -> list[dict[str, Any]]:
    """Run the jobs through joblib; on Ctrl-C end all of them and raise ``KeyboardInterrupt``."""
    if not jobs:
        return []
    print(f"Running {len(jobs)} of the chapters in the {plan.profile} profile ({plan.backend})", flush=True)
    with backend(plan) as (options, stop), interruptible(stop):
        return list(Parallel(batch_size=1, **options)(delayed(run_job)(job) for job in jobs))


@contextlib.contextmanager
def backend(plan: Plan) -> Iterator[tuple[dict[str, Any], Any]]:
    """Set joblib's backend; give the options of ``Parallel`` and a function that ends all jobs."""
    if plan.backend == "local":
        # Each chapter has a process of its own; the threads only wait for them.
        yield {"n_jobs": plan.processes, "backend": "threading"}, lambda: stop_run(plan.run)
    elif plan.backend == "dask":
        with _dask(plan.scheduler) as client, joblib.parallel_config(backend="dask", client=client):
            yield {}, lambda: client.run(stop_run, plan.run)
    else:
        _register_ray(plan.scheduler)
        with joblib.parallel_config(backend="ray"):
            yield {}, lambda: None


def _dask(address: str | None) -> Any:
    try:
        from distributed import Client

        return Client(address, timeout="10s", set_as_default=False)
    except ImportError as missing:
        raise PressError(
            "--backend dask needs the package `distributed`: pip install distributed"
        ) from missing
    except OSError as problem:
        raise PressError(f"no Dask scheduler answers at {address}: {problem}") from problem


def _register_ray(address: str | None) -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as missing:
        raise PressError("--backend ray needs the package `ray`: pip install ray") from missing
    ray.init(address=address)
    register_ray()


@contextlib.contextmanager
def interruptible(stop: Any) -> Iterator[None]:
    """End the jobs on Ctrl-C or SIGTERM, then raise ``KeyboardInterrupt``."""

    def handle(number: int, frame: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        print("\nInterrupted: ending the running chapters", flush=True)
        stop()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def settle(
    project: Project, chapter: Chapter, profile: str, key: str, answer: Mapping[str, Any] | None
) -> Outcome:
    """Read the ledger of a chapter that ran, now or earlier, or take down its error."""
    error = answer["error"] if answer else None
    failed = answer.get("failed") if answer else None
    ledger = None
    if not error:
        try:
            executed = Cache(project, chapter.slug).find(profile, key)
            if executed is None:
                raise PressError("its executed notebook is gone from the cache: run it again")
            ledger = read_ledger(chapter, executed)
            write_ledger(project, profile, ledger)
        except (PressError, ValueError) as problem:
            error, ledger = str(problem), None
    return Outcome(chapter.slug, profile, answer is None, error, ledger, failed)


def write_report(project: Project, plan: Plan, outcomes: list[Outcome]) -> None:
    """Write which chapters failed, with which parameters, for the build of the pages."""
    errors = {outcome.slug: outcome.error for outcome in outcomes if outcome.error}
    report = {"parameters": dict(plan.parameters), "errors": errors}
    write_atomic(project.build / plan.profile / "run.json", json.dumps(report, indent=1))


def summary(outcomes: list[Outcome]) -> str:
    """Return the errors, then the end table."""
    blocks = []
    for outcome in outcomes:
        if outcome.error:
            where = f"\n(the notebook as far as it came: {outcome.failed})" if outcome.failed else ""
            blocks.append(f"{outcome.slug} failed: {outcome.error}{where}\n")
    return "\n".join(["", *blocks, render(HEADER, [outcome.row() for outcome in outcomes])])
