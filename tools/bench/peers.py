"""The environment of the peers: they need other versions than the book, so they live apart."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tools.press.project import PressError, write_atomic


def environment(root: Path) -> Path:
    """Return the Python of the peers' environment; build it if it is missing or its lock has changed."""
    lock, folder = root / "requirements-bench.lock", root / "build" / "bench-venv"
    python, marker = folder / "bin" / "python", folder / "installed"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not (python.exists() and marker.exists() and marker.read_text() == wanted):
        print(f"building {folder.relative_to(root)} from {lock.name}: some minutes", flush=True)
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--requirement", str(lock))
        write_atomic(marker, wanted)
    return python


def _run(*command: str) -> None:
    """Run a step of the installation, or say which one failed."""
    if subprocess.run(command, check=False).returncode:
        raise PressError(
            f"the peers' environment could not be built, this failed: {' '.join(command)}\n"
            "see above for the reason; it needs the package registry"
        )


def versions(root: Path) -> dict[str, str]:
    """Read from the lock which versions of torch and the peers are measured."""
    lines = (root / "requirements-bench.lock").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name: pinned[name] for name in ("torch", "sae-lens", "dictionary-learning")}
