"""The paper's programs, against known errors and the joint one."""

from __future__ import annotations

import pytest

from helpers import privacy
from tests.privacy.mechanisms import GRID


@pytest.mark.parametrize(
    ("epsilon", "margin", "error"), [(1.0, 2.0, 1.882), (2.0, 2.0, 0.858), (3.0, 1.0, 0.574)]
)
def test_the_papers_programs_reach_the_known_errors(epsilon: float, margin: float, error: float) -> None:
    """Errors that another implementation of the same equations gave."""
    made = privacy.bracketed_lp(epsilon, margin=margin, inner=0.5)
    assert made.error(GRID).mean() == pytest.approx(error, abs=5e-4)
    assert privacy.privacy_loss(made) == pytest.approx(epsilon, abs=1e-6)


@pytest.mark.parametrize("epsilon", [1.0, 2.0, 3.0])
def test_a_joint_draw_is_never_worse_than_independent_ones(epsilon: float) -> None:
    bins_M = privacy.levels(4, margin=2.0, inner=0.5)
    joint = privacy.joint_lp(epsilon, bins_M, inputs_N=GRID)
    product = privacy.bracketed_lp(epsilon, margin=2.0, inner=0.5)
    assert joint.error(GRID).mean() <= product.error(GRID).mean() + 1e-9
