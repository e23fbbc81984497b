"""Four ways to repair what a pruned matrix writes along a direction: the candidates H1 to H4."""

from __future__ import annotations

from torch.nn.functional import normalize

from helpers.directions.removing import Direction, Matrix, along, outer, project_out

__all__ = ["amplify", "restore", "rotate", "swap"]


def restore(pruned_DI: Matrix, direction_D: Direction, *, dense_DI: Matrix) -> Matrix:
    """Give a pruned matrix back what the dense one writes along a direction: candidate H1.

    Parameters
    ----------
    pruned_DI, dense_DI : Float[Tensor, "d_model in"]
        The same matrix after and before pruning.
    direction_D : Float[Tensor, "d_model"]
        The original model's direction.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``W_c + r r^T (W - W_c)``: a change of rank one, which has no zeros.

    Examples
    --------
    >>> import torch
    >>> restore(torch.zeros(2, 2), torch.tensor([1.0, 0.0]), dense_DI=torch.ones(2, 2))
    tensor([[1., 1.],
            [0., 0.]])

    Taught in: refusal
    """
    return pruned_DI + along(dense_DI - pruned_DI, direction_D)


def swap(pruned_DI: Matrix, direction_D: Direction, *, dense_DI: Matrix, drifted_D: Direction) -> Matrix:
    """Take the drifted direction out, then put in what the dense matrix writes along the original: H2.

    Parameters
    ----------
    pruned_DI, dense_DI : Float[Tensor, "d_model in"]
        The same matrix after and before pruning.
    direction_D, drifted_D : Float[Tensor, "d_model"]
        The original's direction and the pruned model's own.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``(I - c c^T) W_c + r r^T W``.

    Examples
    --------
    >>> import torch
    >>> r, c = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    >>> swap(torch.ones(2, 1), r, dense_DI=2 * torch.ones(2, 1), drifted_D=c)
    tensor([[3.],
            [0.]])

    Taught in: refusal
    """
    return project_out(pruned_DI, drifted_D) + along(dense_DI, direction_D)


def amplify(pruned_DI: Matrix, direction_D: Direction, *, beta: float) -> Matrix:
    """Strengthen what a matrix writes along a direction: H3. It needs no dense weights.

    Parameters
    ----------
    pruned_DI : Float[Tensor, "d_model in"]
        A matrix.
    direction_D : Float[Tensor, "d_model"]
        The original's direction.
    beta : float
        How much is added: with 1 the matrix writes twice as much along the direction.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``W_c + beta r r^T W_c``.

    Examples
    --------
    >>> import torch
    >>> amplify(torch.ones(2, 1), torch.tensor([1.0, 0.0]), beta=1.0)
    tensor([[2.],
            [1.]])

    Taught in: refusal
    """
    return pruned_DI + beta * along(pruned_DI, direction_D)


def rotate(pruned_DI: Matrix, direction_D: Direction, *, drifted_D: Direction) -> Matrix:
    """Turn what a matrix writes, so that the drifted direction comes to lie on the original one: H4.

    Parameters
    ----------
    pruned_DI : Float[Tensor, "d_model in"]
        A matrix.
    direction_D, drifted_D : Float[Tensor, "d_model"]
        Where the drifted one goes, and where it is now. They must not point in opposite ways.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``R W_c``, with R the rotation in the plane of the two; what is orthogonal to both stays.

    Raises
    ------
    ValueError
        If the two directions are opposite: then no one plane is meant.

    Examples
    --------
    >>> import torch
    >>> rotate(torch.tensor([[0.0], [5.0]]), torch.tensor([1.0, 0.0]), drifted_D=torch.tensor([0.0, 1.0]))
    tensor([[5.],
            [0.]])

    Taught in: refusal
    """
    r_D, c_D = normalize(direction_D, dim=0), normalize(drifted_D, dim=0)
    cosine = float(c_D @ r_D)
    if cosine < -1 + 1e-6:
        raise ValueError(f"the directions have cosine {cosine:.3f}; expected two that are not opposite")
    middle_D = c_D + r_D
    lost_DI = outer(middle_D, middle_D @ pruned_DI) / (1 + cosine)
    return pruned_DI - lost_DI + 2 * outer(r_D, c_D @ pruned_DI)
