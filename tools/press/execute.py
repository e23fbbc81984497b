"""Run one chapter, in a process of its own: ``python -m tools.press.execute job.json``."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import nbformat
import papermill
from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
from papermill.exceptions import PapermillExecutionError

KERNEL = "press"
VERSIONS = ("torch", "transformers", "nnsight", "numpy", "scipy", "pandas", "matplotlib")
ANSI = re.compile(r"\x1b\[[0-9;]*m")
LAST_LINES = 6


class PressEngine(NBClientEngine):
    """papermill's own engine, which also says where it is."""

    report: Callable[[int, int], None] = staticmethod(lambda done, count: None)

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **options: Any
    ) -> None:
        """Run all cells, and report the start of every code cell."""
        order = [i for i, cell in enumerate(nb_man.nb.cells) if _is_own(cell)]
        start = nb_man.cell_start

        def reported(cell: Any, cell_index: int | None = None, **rest: Any) -> Any:
            if cell_index in order:
                cls.report(order.index(cell_index) + 1, len(order))
            return start(cell, cell_index, **rest)

        nb_man.cell_start = reported
        super().execute_managed_notebook(nb_man, kernel_name, **options)


def _is_own(cell: Any) -> bool:
    return cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", [])


papermill_engines.register(KERNEL, PressEngine)


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds.

    Examples
    --------
    >>> clock(75)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def reporter(slug: str, expected: float | None) -> Callable[[int, int], None]:
    """Return a function that prints chapter, cell, time so far and expected time."""
    start = time.monotonic()
    of = f" of about {clock(expected)}" if expected else ""

    def report(cell: int, count: int) -> None:
        print(f"  {slug}  cell {cell}/{count}  {clock(time.monotonic() - start)}{of}", flush=True)

    return report


def prepare_kernel(folder: Path) -> None:
    """Make this very Python the kernel, whatever the notebook and the user's settings name."""
    spec = folder / "jupyter" / "kernels" / KERNEL
    spec.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    about = {"argv": argv, "display_name": "Python 3", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(about), encoding="utf-8")
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    os.environ["JUPYTER_RUNTIME_DIR"] = str(folder / "runtime")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")


def versions() -> dict[str, str]:
    """Return the versions of Python and of what moves numbers."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def peak_bytes() -> int:
    """Return the peak memory of the kernel, which has ended and been waited for."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def explain(failure: Exception, executed: Path) -> str:
    """Return the cell and the end of the traceback, short and without colours."""
    if not isinstance(failure, PapermillExecutionError):
        return f"{type(failure).__name__}: {failure}"
    trace = ANSI.sub("", "\n".join(failure.traceback)).strip().splitlines()
    lines = [line.rstrip() for line in trace if line.strip()]
    cells = nbformat.read(executed, as_version=4).cells
    broken = (cell.id for cell in cells if any(o.output_type == "error" for o in cell.get("outputs", [])))
    return "\n".join([f"in cell {next(broken, '?')}:", *lines[-LAST_LINES:]])


def execute(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the notebook of a job into ``folder/executed.ipynb``; say how it went."""
    prepare_kernel(folder)
    notebook = nbformat.from_dict(job["notebook"])
    notebook.metadata["kernelspec"] = {"name": KERNEL, "language": "python", "display_name": "Python 3"}
    PressEngine.report = staticmethod(reporter(job["slug"], job["expected"]))
    work = folder / "work"
    work.mkdir()
    start = time.monotonic()
    error = None
    try:
        papermill.execute_notebook(
            notebook,
            str(folder / "executed.ipynb"),
            parameters=job["parameters"],
            engine_name=KERNEL,
            kernel_name=KERNEL,
            language="python",
            progress_bar=False,
            request_save_on_cell_execute=True,
            execution_timeout=job["cell_timeout"],
            cwd=work,
        )
    except Exception as failure:  # whatever it is, it belongs into the table
        error = explain(failure, folder / "executed.ipynb")
    return {
        "error": error,
        "seconds": round(time.monotonic() - start, 3),
        "peak_bytes": peak_bytes(),
        "versions": versions(),
    }


def main(arguments: list[str]) -> int:
    """Run the job of a file, and write the outcome beside it."""
    path = Path(arguments[0])
    outcome = execute(json.loads(path.read_text(encoding="utf-8")), path.parent)
    (path.parent / "outcome.json").write_text(json.dumps(outcome), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
