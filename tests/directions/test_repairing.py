"""The four repairs, against their formulas."""

import pytest
import torch
from torch.nn.functional import normalize

from helpers import directions


@pytest.fixture
def matrices(dice):
    dense = torch.randn(12, 20, generator=dice, dtype=torch.float64)
    pruned = dense * (dense.abs() > 0.7)
    r, c = torch.randn(2, 12, generator=dice, dtype=torch.float64)
    return dense, pruned, r, c


def test_restore_changes_only_what_is_written_along_the_direction(matrices):
    dense, pruned, r, _ = matrices
    made = directions.restore(pruned, r, dense_DI=dense)
    torch.testing.assert_close(r @ made, r @ dense)
    torch.testing.assert_close(directions.project_out(made, r), directions.project_out(pruned, r))
    assert torch.linalg.matrix_rank(made - pruned) == 1
    unit = normalize(r, dim=0)
    brute = pruned + unit[:, None] @ unit[None] @ (dense - pruned)
    torch.testing.assert_close(made, brute)


def test_swap_equals_restore_where_nothing_drifted(matrices):
    dense, pruned, r, _ = matrices
    torch.testing.assert_close(
        directions.swap(pruned, r, dense_DI=dense, drifted_D=3 * r),
        directions.restore(pruned, r, dense_DI=dense),
    )


def test_swap_against_its_formula(matrices):
    dense, pruned, r, c = matrices
    r1, c1 = normalize(r, dim=0), normalize(c, dim=0)
    brute = (torch.eye(12) - c1[:, None] * c1).to(dense) @ pruned + (r1[:, None] * r1) @ dense
    torch.testing.assert_close(directions.swap(pruned, r, dense_DI=dense, drifted_D=c), brute)


def test_amplify_scales_one_coordinate(matrices):
    _, pruned, r, _ = matrices
    made = directions.amplify(pruned, r, beta=2.0)
    torch.testing.assert_close(r @ made, 3 * (r @ pruned))
    torch.testing.assert_close(directions.amplify(pruned, r, beta=-1.0), directions.project_out(pruned, r))


def test_rotate_is_a_rotation_that_takes_one_direction_to_the_other(matrices):
    _, _, r, c = matrices
    turn = directions.rotate(torch.eye(12, dtype=torch.float64), r, drifted_D=c)
    torch.testing.assert_close(turn @ turn.T, torch.eye(12, dtype=torch.float64))
    assert torch.linalg.det(turn) == pytest.approx(1.0)
    torch.testing.assert_close(turn @ normalize(c, dim=0), normalize(r, dim=0))
    aside = torch.linalg.svd(torch.stack([r, c])).Vh[2:]
    torch.testing.assert_close(turn @ aside.T, aside.T)


def test_rotating_between_opposites_is_refused(matrices):
    _, pruned, r, _ = matrices
    with pytest.raises(ValueError, match=r"cosine -1\.000"):
        directions.rotate(pruned, r, drifted_D=-r)
