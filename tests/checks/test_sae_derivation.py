"""The checkers of the chapter sae-derivation name typical mistakes."""

import pytest
import torch

from helpers import checks


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
