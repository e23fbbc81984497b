"""Start the process of a chapter, wait for it, and keep what it made only if all went well."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil

from tools.press.cache import Cache, key
from tools.press.chapters import load_chapters, read_notebook
from tools.press.project import PROFILES, ROOT, Project, commit


@dataclass(frozen=True)
class Job:
    """One chapter to run; it can be sent to another process as it is."""

    run: str
    root: str
    slug: str
    profile: str
    key: str
    parameters: dict[str, Any]
    notebook: dict[str, Any]
    threads: int
    expected: float | None


class Running:
    """The chapter processes of this process, so that those of one run can be ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: dict[subprocess.Popen[bytes], str] = {}
        self._stopped: set[str] = set()

    def start(self, run: str, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process, unless its run has been stopped."""
        with self._lock:
            if run in self._stopped:
                raise RuntimeError("interrupted")
            # A session of its own: Ctrl-C reaches the press alone, which then ends the chapters.
            process = subprocess.Popen(command, start_new_session=True, **options)
            self._processes[process] = run
        return process

    def done(self, process: subprocess.Popen[bytes]) -> None:
        """Forget a process that has ended."""
        with self._lock:
            del self._processes[process]

    def stopped(self, run: str) -> bool:
        """Say whether a run has been stopped."""
        with self._lock:
            return run in self._stopped

    def stop(self, run: str) -> None:
        """End every process of a run with its kernel, and start no other."""
        with self._lock:
            self._stopped.add(run)
            for process, owner in self._processes.items():
                if owner == run:
                    end_tree(process.pid)


RUNNING = Running()


def stop_run(run: str) -> None:
    """End the chapters of a run that this process has started."""
    RUNNING.stop(run)


def end_tree(pid: int) -> None:
    """End a process and all that it started: what it writes is temporary until it is done."""
    try:
        tree = [*psutil.Process(pid).children(recursive=True), psutil.Process(pid)]
    except psutil.NoSuchProcess:
        return
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def environment(job: Job) -> dict[str, str]:
    """Return the environment of a chapter's process."""
    paths = [job.root, str(ROOT), os.environ.get("PYTHONPATH", "")]
    threads = {f"{name}_NUM_THREADS": str(job.threads) for name in ("OMP", "MKL", "OPENBLAS")}
    quiet = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    own = {"TML_PRESS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return {**os.environ, **threads, **quiet, **own}


def run_job(job: Job) -> dict[str, Any]:
    """Run one chapter; never raise: a failure is part of the answer."""
    project = Project(Path(job.root))
    scratch = project.build / "tmp" / job.run
    scratch.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=scratch, prefix=f"{job.slug}-"))
    try:
        outcome = run_process(job, folder)
        outcome["error"] = outcome["error"] or keep(project, job, folder, outcome)
        if outcome["error"] and not RUNNING.stopped(job.run):
            outcome["failed"] = keep_failed(project, job, folder)
    except Exception as failure:  # a chapter that fails stops nothing else
        outcome = {"error": f"{type(failure).__name__}: {failure}", "seconds": None, "peak_bytes": None}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {"slug": job.slug, **outcome}


def run_process(job: Job, folder: Path) -> dict[str, Any]:
    """Run the job in a fresh process and return what it says."""
    order = {**asdict(job), "cell_timeout": PROFILES[job.profile].cell_timeout}
    (folder / "job.json").write_text(json.dumps(order), encoding="utf-8")
    command = [sys.executable, "-m", "tools.press.execute", str(folder / "job.json")]
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = RUNNING.start(job.run, command, cwd=folder, env=environment(job), stderr=log)
        try:
            process.wait()
        finally:
            RUNNING.done(process)
    outcome = folder / "outcome.json"
    if outcome.is_file():
        return dict(json.loads(outcome.read_text(encoding="utf-8")))
    tail = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-6:]
    error = "\n".join([f"its process ended with exit code {process.returncode}", *tail])
    return {"error": error, "seconds": None, "peak_bytes": None}


def keep(project: Project, job: Job, folder: Path, outcome: dict[str, Any]) -> str | None:
    """Put the executed notebook into the cache; refuse if its inputs changed while it ran."""
    chapter = load_chapters(project, (job.slug,))[0]
    if key(project, chapter, job.parameters) != job.key:
        return "its code, its helpers or its data changed while it ran: run it again"
    notebook = read_notebook(folder / "executed.ipynb")
    notebook.metadata["tml"] = {
        **notebook.metadata.get("tml", {}),
        "run": run_metadata(project, job, outcome),
    }
    Cache(project, job.slug).store(job.profile, job.key, notebook)
    return None


def run_metadata(project: Project, job: Job, outcome: dict[str, Any]) -> dict[str, Any]:
    """Return what the card and the ledger say about a run."""
    return {
        "key": job.key,
        "profile": job.profile,
        "parameters": job.parameters,
        "seconds": outcome["seconds"],
        "peak_bytes": outcome["peak_bytes"],
        "versions": outcome["versions"],
        "threads": job.threads,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(project),
    }


def keep_failed(project: Project, job: Job, folder: Path) -> str | None:
    """Leave a failed notebook where it can be looked at."""
    executed = folder / "executed.ipynb"
    if not executed.is_file():
        return None
    target = project.build / "failed" / f"{job.slug}.ipynb"
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(executed, target)
    return str(target.relative_to(project.root))


def as_plain(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """Return a notebook as plain dictionaries."""
    return dict(json.loads(nbformat.writes(notebook)))
