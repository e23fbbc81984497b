"""Write the SHA-256 of every bundled file into the registry and the cards.

Run ``python -m tools.make.register`` after a file in ``data`` has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"


def register(folder: Path = DATA) -> dict[str, str]:
    """Write the hashes of the files that are there, and return them by name.

    Entries without a file, or whose file is not made yet, stay as they are.

    Parameters
    ----------
    folder : Path
        The data folder, with ``registry.json`` and the cards in ``README.md``.

    Returns
    -------
    dict of str to str
        Name to SHA-256.
    """
    path = folder / "registry.json"
    entries = json.loads(path.read_text("utf-8"))
    found = {}
    for name, entry in entries.items():
        if entry["file"] and (folder / entry["file"]).is_file():
            found[name] = hashlib.sha256((folder / entry["file"]).read_bytes()).hexdigest()
            entry["sha256"] = found[name]
    replace_file(path, (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode())
    cards = (folder / "README.md").read_text("utf-8")
    for name, digest in found.items():
        line = re.compile(rf"(## `{re.escape(name)}`\n(?:(?!## ).*\n)*?- SHA-256: )`.*`")
        cards = line.sub(rf"\g<1>`{digest}`", cards)
    replace_file(folder / "README.md", cards.encode())
    return found


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Parameters
    ----------
    path : Path
        Where; its folder is made if missing.
    content : bytes
        What.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(content)
    os.replace(partial, path)


if __name__ == "__main__":
    for name, digest in register().items():
        print(f"{digest}  {name}")
