"""In every chapter each solution passes its checker, and each stub is "not written yet"."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import helpers
from helpers import checks

NAME = re.compile(r"def (\w+)")
NOTEBOOKS = sorted(Path(__file__).parents[1].glob("book/*/*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [
        (cell["metadata"].get("tags", []), "".join(cell["source"]))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def names():
    """What a chapter has imported before its exercises."""
    return {"np": np, "torch": torch, **{room: getattr(helpers, room) for room in helpers.ROOMS}}


def exercises(solved):
    return [
        pytest.param(source, id=NAME.search(source)[1])
        for path in NOTEBOOKS
        for tags, source in code_cells(path)
        if "checks." in source and "def " in source and ("solution" in tags) == solved
    ]


@pytest.mark.parametrize("source", exercises(solved=True))
def test_solution_passes(source, capsys):
    exec(source, names())
    assert "right." in capsys.readouterr().out


@pytest.mark.parametrize("source", exercises(solved=False))
def test_stub_is_not_written_yet(source, capsys):
    exec(source, names())
    assert "it returns nothing" in capsys.readouterr().out


def test_every_chapter_has_four_checked_exercises():
    for path in NOTEBOOKS:
        solved = [source for tags, source in code_cells(path) if "checks." in source and "solution" in tags]
        assert len(solved) >= 4, path


def test_unknown_chapter_lists_the_known_ones():
    with pytest.raises(AttributeError, match="sae_derivation"):
        _ = checks.other_chapter
