"""Take a direction away: out of what flows, or out of what the weights can write."""

from __future__ import annotations

import copy
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from helpers import trace
from helpers.models import FAMILIES, LanguageModel

__all__ = ["ablation", "orthogonalise", "project_out", "writers"]

Matrix = Float[Tensor, "d_model in"]
Direction = Float[Tensor, "d_model"]
OUT = {"gpt2": ("c_proj", "c_proj")}  # what writes to the stream: attention's and the MLP's last matrix


def ablation(lm: LanguageModel, direction_D: Direction, *, skip_first: int = 1) -> list[trace.Edit]:
    """Remove a direction wherever it could be written to the residual stream.

    That is after every layer and after both halves of it, so that neither the MLP nor the next layer reads
    it. What the token embedding holds of it reaches the first attention and is removed after.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    direction_D : Float[Tensor, "d_model"]
        The direction; its length does not matter.
    skip_first : int
        Positions at the start that stay as they are: the attention sink.

    Returns
    -------
    list of Edit
        For `helpers.trace`.

    References
    ----------
    Arditi et al. (2024), section 2.4: *directional ablation*.

    Examples
    --------
    >>> import torch
    >>> from helpers import directions, models
    >>> len(directions.ablation(models.random_model(n_layers=2), torch.ones(16)))
    6

    Taught in: refusal
    """
    return [
        trace.ablate(trace.Site(layer, part), direction=direction_D, skip_first=skip_first)
        for layer in range(lm.n_layers)
        for part in ("attn", "mlp", "resid")
    ]


def writers(lm: LanguageModel, layer: int) -> dict[str, Matrix]:
    """Find the two matrices of a layer that write to the residual stream.

    In gemma2 a normalisation stands between them and the stream, so that an edit of them acts on the stream
    only roughly.

    Parameters
    ----------
    lm : LanguageModel
        The model.
    layer : int
        Which decoder layer.

    Returns
    -------
    dict of str to Float[Tensor, "d_model in"]
        ``"attn"`` and ``"mlp"``: views, one row for each coordinate of the stream. Writing into them changes
        the model.

    Raises
    ------
    ValueError
        If the layer does not exist.

    Examples
    --------
    >>> from helpers import directions, models
    >>> {part: tuple(weight.shape) for part, weight in directions.writers(models.random_model(), 0).items()}
    {'attn': (16, 16), 'mlp': (16, 64)}

    Taught in: refusal
    """
    if not 0 <= layer < lm.n_layers:
        raise ValueError(f"layer {layer} does not exist: {lm.name} has layers 0 to {lm.n_layers - 1}")
    found = {}
    for part, matrix in _last(lm, layer).items():
        weight = matrix.get_parameter("weight").data
        found[part] = weight if isinstance(matrix, nn.Linear) else weight.T  # gpt2's Conv1D lies on its side
    return found


def _last(lm: LanguageModel, layer: int) -> dict[str, nn.Module]:
    """Return the modules of a layer that write to the stream: attention's and the MLP's last."""
    family = FAMILIES[lm.family]
    block = lm.model.get_submodule(f"{family.layers}.{layer}")
    last = OUT.get(lm.family, ("o_proj", "down_proj"))
    parts = zip(("attn", "mlp"), (family.attn, family.mlp), last, strict=True)
    return {part: block.get_submodule(f"{module}.{name}") for part, module, name in parts}


def project_out(weight_DI: Matrix, direction_D: Direction) -> Matrix:
    """Take a direction out of everything that a matrix can write.

    Parameters
    ----------
    weight_DI : Float[Tensor, "d_model in"]
        A matrix that writes to the stream.
    direction_D : Float[Tensor, "d_model"]
        The direction; its length does not matter.

    Returns
    -------
    Float[Tensor, "d_model in"]
        ``W - r r^T W`` with r of length 1.

    Examples
    --------
    >>> import torch
    >>> project_out(torch.eye(2), torch.tensor([3.0, 0.0]))
    tensor([[0., 0.],
            [0., 1.]])

    Taught in: refusal
    """
    return weight_DI - along(weight_DI, direction_D)


def orthogonalise(lm: LanguageModel, direction_D: Direction) -> LanguageModel:
    """Copy a model without the ability to write a direction.

    The embeddings, those of positions too, and in every layer attention's and the MLP's last matrix and bias
    are projected. A head that shares the embedding's weights gets its own copy, unchanged.

    Parameters
    ----------
    lm : LanguageModel
        The model; it stays as it is.
    direction_D : Float[Tensor, "d_model"]
        The direction; its length does not matter.

    Returns
    -------
    LanguageModel
        The copy.

    References
    ----------
    Arditi et al. (2024), section 4.1: *weight orthogonalisation*.

    Examples
    --------
    >>> import torch
    >>> from helpers import directions, models
    >>> less = directions.orthogonalise(models.random_model(), torch.ones(16))
    >>> float(directions.writers(less, 1)["mlp"].sum(0).abs().max()) < 1e-5
    True

    Taught in: refusal
    """
    model = copy.deepcopy(lm.model)
    changed = replace(lm, name=f"{lm.name}, orthogonalised", model=model)
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.get_parameter("weight").detach().clone(), requires_grad=False)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            module.weight.data = project_out(module.weight.data.T, direction_D).T.contiguous()
    for layer in range(lm.n_layers):
        for part, weight_DI in writers(changed, layer).items():
            weight_DI.copy_(project_out(weight_DI, direction_D))
            bias_D = getattr(_last(changed, layer)[part], "bias", None)
            if bias_D is not None:
                bias_D.data = project_out(bias_D.data[:, None], direction_D)[:, 0]
    return changed


def along(weight_DI: Tensor, direction_D: Tensor) -> Tensor:
    """Return the part of a matrix that writes along a direction, r r^T W."""
    unit_D = normalize(direction_D.to(weight_DI), dim=0)
    return outer(unit_D, unit_D @ weight_DI)


def outer(one_D: Tensor, other_I: Tensor) -> Tensor:
    """Return the outer product."""
    return one_D[:, None] * other_I
