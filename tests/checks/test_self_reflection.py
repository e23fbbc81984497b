"""The checkers of the chapter self-reflection name typical mistakes."""

import pytest
import torch

from helpers.checks import self_reflection as chapter


def project(h, v, alpha, m):
    unit = v / v.norm()
    return h + alpha * ((h - m) @ unit)[..., None] * unit


@pytest.mark.parametrize(
    ("checker", "answer", "why"),
    [
        ("cut_before_wait", lambda ts, w: [t[: t.index(w) + 1] for t in ts if w in t], "still holds"),
        ("cut_before_wait", lambda ts, w: [t[: len(t) - 1 - t[::-1].index(w)] for t in ts if w in t], "last"),
        (
            "cut_before_wait",
            lambda ts, w: [t[: t.index(w)] if w in t else t for t in ts],
            "leave the other out",
        ),
        ("cut_before_wait", lambda ts, w: [[t[0]] for t in ts if w in t], "should give"),
        (
            "vector_at_stop",
            lambda h, now, after, *, stop, wait: h[after == wait].mean(0) - h[after != wait].mean(0),
            "other tokens",
        ),
        (
            "vector_at_stop",
            lambda h, now, after, *, stop, wait: (
                h[(now == stop) & (after != wait)].mean(0) - h[after == wait].mean(0)
            ),
            "other way",
        ),
        ("vector_at_stop", lambda h, now, after, *, stop, wait: h[after == wait] - h[2:4], "its shape"),
        ("vector_at_stop", lambda h, now, after, *, stop, wait: torch.tensor([1.0, 0.0]), "should give"),
        ("steer_from", lambda h, v, alpha, m: project(h, v, alpha, 0 * m), "from zero"),
        ("steer_from", lambda h, v, alpha, m: h + alpha * ((h - m) @ v)[..., None] * v, "twice as long"),
        ("steer_from", lambda h, v, alpha, m: project(h, v, alpha, 2 * m), "a state at the centre moves"),
        ("steer_from", lambda h, v, alpha, m: project(h, v, 3 * alpha, m), "not alpha times"),
        ("steer_from", lambda h, v, alpha, m: project(h, v, alpha, m)[0], "its shape"),
        ("coin_ceiling", lambda w, p_w, p_r: (p_w + 1 - p_r) / 2, "condition on looking back"),
        ("selectivity", lambda looks, right: float(looks.float().mean()), "always looks back"),
        (
            "selectivity",
            lambda looks, right: float(looks[right].float().mean() - looks[~right].float().mean()),
            "turned round",
        ),
        (
            "selectivity",
            lambda looks, right: float(
                (looks & ~right).float().mean() / 2 - (looks & right).float().mean() / 6
            ),
            "its own traces",
        ),
    ],
)
def test_typical_mistakes_are_named(checker, answer, why, capsys):
    getattr(chapter, checker)(answer)
    said = capsys.readouterr().out
    assert "not yet" in said
    assert why in said
