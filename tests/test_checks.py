"""Every solution passes its checker, every stub is "not written yet", typical mistakes are named."""

import json
import re
from pathlib import Path

import pytest
import torch

from helpers import checks, sae

NAME = re.compile(r"def (\w+)")
NOTEBOOKS = sorted(Path(__file__).parents[1].glob("book/*/*.ipynb"))


def code_cells(path):
    cells = json.loads(path.read_text())["cells"]
    return [
        (cell["metadata"].get("tags", []), "".join(cell["source"]))
        for cell in cells
        if cell["cell_type"] == "code"
    ]


def exercises(solved):
    return [
        pytest.param(source, id=NAME.search(source)[1])
        for path in NOTEBOOKS
        for tags, source in code_cells(path)
        if "checks." in source and "def " in source and ("solution" in tags) == solved
    ]


@pytest.mark.parametrize("source", exercises(solved=True))
def test_solution_passes(source, capsys):
    exec(source, {"torch": torch, "checks": checks, "sae": sae})
    assert "right." in capsys.readouterr().out


@pytest.mark.parametrize("source", exercises(solved=False))
def test_stub_is_not_written_yet(source, capsys):
    exec(source, {"torch": torch, "checks": checks, "sae": sae})
    assert "it returns nothing" in capsys.readouterr().out


def test_every_chapter_has_four_checked_exercises():
    for path in NOTEBOOKS:
        solved = [source for tags, source in code_cells(path) if "checks." in source and "solution" in tags]
        assert len(solved) >= 4, path


def said(checker, answer, capsys):
    checker(answer)
    return capsys.readouterr().out


def test_typical_mistakes_are_named(capsys):
    chapter = checks.sae_derivation
    assert "stays" in said(chapter.soft_threshold, lambda u, level: (u - level).clamp(min=0), capsys)
    assert "worse than the ablation" in said(
        chapter.loss_recovered, lambda o, s, a: max(0, (a - s) / (a - o)), capsys
    )
    all_latents = said(
        chapter.two_sided_share,
        lambda z, e: float(
            (torch.minimum((z > 0).sum(0), (z < 0).sum(0)) > 0.2 * (z != 0).sum(0)).float().mean()
        ),
        capsys,
    )
    assert "never fires" in all_latents


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda one, x, z: z, "stays as it was"),
        (lambda one, x, z: z + (x - one.decode(z)) @ one.decoder_PD.T / 50, "more than k"),
        (lambda one, x, z: one.operator.prox(z - (x - one.decode(z)) @ one.decoder_PD.T, one.k), "rises"),
        (
            lambda one, x, z: one.operator.prox(z + (x - one.decode(z)) @ one.decoder_PD.T / 500, one.k),
            "hardly falls",
        ),
    ],
)
def test_mistakes_in_a_proximal_step_are_named(answer, why, capsys):
    assert why in said(checks.sae_derivation.one_more_step, answer, capsys)


def test_unknown_chapter_lists_the_known_ones():
    with pytest.raises(AttributeError, match="sae_derivation"):
        _ = checks.other_chapter
