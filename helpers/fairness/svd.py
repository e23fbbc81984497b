"""Post-process a trained network until its groups look alike: fair regression by singular values.

The method of arXiv 2504.03093. One linear layer W of a trained network gives z = W x. Two matrices S turn the
differences between two groups into singular values of W S: of the means (one direction), and of the
covariances. Both are shrunk as little as the outputs allow. The group is asked for while the layer is
changed, and never again.

All of it happens in float64. Changing the singular values of W S and nothing else is the same as rescaling
the layer's *output* directions, W' = U diag(sigma' / sigma) U^T W, so no matrix is inverted here.

Shapes: N people, D inputs and O outputs of the layer, R singular directions.

Examples
--------
>>> import torch
>>> from helpers.fairness import svd
>>> dice = torch.Generator().manual_seed(0)
>>> acts_ND, groups_N = torch.randn(200, 4, generator=dice), torch.arange(200) % 2
>>> acts_ND[groups_N == 1] += 1.0
>>> seen, weight_OD = svd.moments(acts_ND, groups_N), torch.randn(3, 4, generator=dice)
>>> after_OD = svd.process(weight_OD, seen, mean=15.0, covariance=150.0)
>>> gaps = [float((weight @ seen.delta_D).square().sum()) for weight in (weight_OD.double(), after_OD)]
>>> gaps[0] / gaps[1] > 15
True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from helpers.fairness.metrics import two_groups

__all__ = [
    "Directions", "Moments", "Regressor", "Shrunk", "covariance_root", "directions", "erase", "fit",
    "mean_root", "moments", "postprocess", "process", "refit", "rescale", "shrink_covariance", "shrink_mean",
]  # fmt: skip

Weight = Float[Tensor, "output input"]
Sigma = Float[Tensor, "direction"]
FLOAT32 = float(np.finfo(np.float32).eps)  # what a network's numbers are good for
NOTHING = 1e-10  # singular values below this share of the largest are taken for zero


@dataclass(frozen=True)
class Moments:
    """How two groups differ in what enters a layer, and how much of everything there is.

    Attributes
    ----------
    delta_D : Tensor
        Difference of the groups' means, first group minus second.
    spread_DD : Tensor
        Difference of their covariances (unbiased), symmetric, with eigenvalues of either sign.
    gram_DD : Tensor
        X^T X over all people of both groups.

    Taught in: fair-regression
    """

    delta_D: Tensor
    spread_DD: Tensor
    gram_DD: Tensor


@dataclass(frozen=True)
class Directions:
    """The output directions of a layer along which the groups differ: the SVD of W S, and its prices.

    Attributes
    ----------
    u_OR : Tensor
        Left singular vectors: orthonormal directions in the layer's output.
    sigma_R : Tensor
        Singular values, falling, all above zero. Their sum of squares is the difference of the means, their
        sum of fourth powers bounds that of the covariances.
    k_R : Tensor
        Price of each: k (sigma' - sigma)^2 is the squared change of the layer's outputs over all people.

    Taught in: fair-regression
    """

    u_OR: Tensor
    sigma_R: Tensor
    k_R: Tensor


@dataclass(frozen=True)
class Shrunk:
    """Shrunken singular values, and the multiplier of the limit that asked for them.

    Attributes
    ----------
    sigma_R : Tensor
        The new singular values, each between zero and the old one.
    multiplier : float
        Lambda of the Karush-Kuhn-Tucker conditions; 0 where the limit asks for nothing.

    Taught in: fair-regression
    """

    sigma_R: Tensor
    multiplier: float


def moments(acts_ND: Float[Tensor, "person input"], groups_N: Any) -> Moments:
    """Compute how two groups differ in their means and covariances.

    Parameters
    ----------
    acts_ND : Tensor
        What enters the layer, one row a person; finite.
    groups_N : array-like
        The group of each person: two different ones, two people or more in each.

    Returns
    -------
    Moments
        In float64. The first group is the one whose name comes first in sorted order.

    Raises
    ------
    ValueError
        If there are not two groups, one has fewer than two people, the lengths differ, or a value is not
        finite.

    Notes
    -----
    arXiv 2504.03093; unbiased covariances as in the released code.

    Examples
    --------
    >>> moments(torch.tensor([[0.0], [2.0], [5.0], [5.0]]), [0, 0, 1, 1]).delta_D
    tensor([-4.], dtype=torch.float64)

    Taught in: fair-regression
    """
    groups_N = np.asarray(groups_N)
    if len(groups_N) != len(acts_ND):
        raise ValueError(f"{len(acts_ND)} rows and {len(groups_N)} groups: give the group of each row")
    acts_ND = acts_ND.detach().double()
    if not acts_ND.isfinite().all():
        rows = int((~acts_ND.isfinite()).any(1).sum())
        raise ValueError(f"{rows} of {len(acts_ND)} rows hold NaN or infinity: drop them, then post-process")
    parts = [acts_ND[torch.from_numpy(groups_N == name)] for name in two_groups(groups_N)]
    if min(map(len, parts)) < 2:
        raise ValueError(
            f"the groups have {len(parts[0])} and {len(parts[1])} people: a covariance needs two or more"
        )
    covariances = [torch.cov(part_ND.T).reshape(part_ND.shape[1], -1) for part_ND in parts]
    delta_D = parts[0].mean(0) - parts[1].mean(0)
    return Moments(delta_D, covariances[0] - covariances[1], acts_ND.T @ acts_ND)


def mean_root(seen: Moments, *, ridge: float = 0.0) -> Float[Tensor, "input root"]:
    """Return S with S S^T = delta delta^T, the matrix for the difference of the means.

    Parameters
    ----------
    seen : Moments
        Of the layer's inputs.
    ridge : float
        Added to the diagonal of S S^T. The released code adds 1e-5 to make it invertible; nothing here
        needs that, and with 0 the identity of the method is exact.

    Returns
    -------
    Tensor
        One column, delta itself, or a square triangle with a ridge.

    Raises
    ------
    ValueError
        If the ridge is negative.

    Examples
    --------
    >>> seen = Moments(torch.tensor([3.0, 4.0]), torch.zeros(2, 2), torch.eye(2))
    >>> mean_root(seen).T
    tensor([[3., 4.]])

    Taught in: fair-regression
    """
    if ridge < 0:
        raise ValueError(f"ridge is {ridge:g}: give 0, or the little that the diagonal should gain")
    delta_D1 = seen.delta_D[:, None]
    if ridge == 0:
        return delta_D1
    return torch.linalg.cholesky(delta_D1 @ delta_D1.T + ridge * torch.eye(len(delta_D1)).to(delta_D1))


def covariance_root(seen: Moments) -> Float[Tensor, "input root"]:
    """Return S = V |Lambda|^(1/2), the matrix for the difference of the covariances V Lambda V^T.

    Directions in which the covariances agree to rounding are left out: with inputs that are always zero (a
    ReLU that never fires) the difference is singular, and S has fewer columns.

    Parameters
    ----------
    seen : Moments
        Of the layer's inputs.

    Returns
    -------
    Tensor
        One column an eigenvalue that is not zero; no column if the covariances are equal.

    Examples
    --------
    >>> seen = Moments(torch.zeros(3), torch.diag(torch.tensor([4.0, -9.0, 0.0])), torch.eye(3))
    >>> covariance_root(seen).abs().sum(0)
    tensor([3., 2.])

    Taught in: fair-regression
    """
    values_R, vectors_DR = torch.linalg.eigh(seen.spread_DD)
    kept_R = values_R.abs() > NOTHING * values_R.abs().max()
    return vectors_DR[:, kept_R] * values_R[kept_R].abs().sqrt()


def directions(weight_OD: Weight, root_DR: Float[Tensor, "rows root"], *, gram_DD: Tensor) -> Directions:
    """Decompose W S, and price each singular value by what a change of it does to the layer's outputs.

    Parameters
    ----------
    weight_OD : Tensor
        The layer.
    root_DR : Tensor
        S, from `mean_root` or `covariance_root`.
    gram_DD : Tensor
        X^T X of the layer's inputs.

    Returns
    -------
    Directions
        Without those whose singular value is zero to rounding: along them the groups do not differ.

    Raises
    ------
    ValueError
        If the layer, S and X^T X do not fit together.

    Notes
    -----
    The price k_i = v_i^T S^-1 G S^-T v_i of the paper equals u_i^T W G W^T u_i / sigma_i^2, because
    v_i^T S^-1 = u_i^T W / sigma_i. The second form needs no inverse.

    Examples
    --------
    >>> found = directions(torch.eye(2), torch.tensor([[0.0], [2.0]]), gram_DD=5 * torch.eye(2))
    >>> found.sigma_R, found.k_R
    (tensor([2.], dtype=torch.float64), tensor([1.2500], dtype=torch.float64))

    Taught in: fair-regression
    """
    weight_OD, root_DR, gram_DD = weight_OD.detach().double(), root_DR.double(), gram_DD.double()
    width = weight_OD.shape[1]
    if root_DR.shape[0] != width or gram_DD.shape != (width, width):
        raise ValueError(
            f"a layer with {width} inputs, S of shape {tuple(root_DR.shape)} and X^T X of shape "
            f"{tuple(gram_DD.shape)} do not fit: take all three from the same layer"
        )
    if root_DR.shape[1] == 0:
        return Directions(weight_OD[:, :0], weight_OD.new_zeros(0), weight_OD.new_zeros(0))
    u_OR, sigma_R, _ = torch.linalg.svd(weight_OD @ root_DR, full_matrices=False)
    kept_R = sigma_R > NOTHING * sigma_R[0]
    u_OR, sigma_R = u_OR[:, kept_R], sigma_R[kept_R]
    heard_RD = u_OR.T @ weight_OD
    energy_R = ((heard_RD @ gram_DD) * heard_RD).sum(1).clamp(min=0)
    return Directions(u_OR, sigma_R, energy_R / sigma_R.square())


def shrink_mean(found: Directions, *, limit: float) -> Shrunk:
    """Minimise sum k (sigma' - sigma)^2 subject to sum sigma'^2 <= limit.

    The stationary point is sigma' = k sigma / (k + lambda). Its sum of squares falls as lambda grows, so
    lambda is the only root of a falling function.

    Parameters
    ----------
    found : Directions
        Singular values and prices.
    limit : float
        Largest sum of squares, above 0.

    Returns
    -------
    Shrunk
        The singular values as they are, with multiplier 0, if they meet the limit already.

    Raises
    ------
    ValueError
        If the limit is not above 0.

    Notes
    -----
    arXiv 2504.03093, first moment.

    Examples
    --------
    >>> found = Directions(torch.eye(2), torch.tensor([3.0, 3.0]), torch.tensor([1.0, 1e9]))
    >>> shrink_mean(found, limit=10.0).sigma_R  # the cheap one gives way
    tensor([1.0000, 3.0000], dtype=torch.float64)

    Taught in: fair-regression
    """
    sigma_R, k_R = found.sigma_R.double(), found.k_R.double()
    return _limited(sigma_R, lambda level: k_R * sigma_R / (k_R + level), k_R=k_R, power=2, limit=limit)


def shrink_covariance(found: Directions, *, limit: float) -> Shrunk:
    """Minimise sum k (sigma' - sigma)^2 subject to sum sigma'^4 <= limit.

    The stationary point solves the cubic 2 lambda sigma'^3 + k sigma' - k sigma = 0, which has one real root.
    For x^3 + p x = q with p > 0 it is x = 2 sqrt(p/3) sinh(asinh(3 q / (2 p) sqrt(3/p)) / 3): the same number
    as Cardano's formula, without the difference of two nearly equal terms.

    Parameters
    ----------
    found : Directions
        Singular values and prices.
    limit : float
        Largest sum of fourth powers, above 0.

    Returns
    -------
    Shrunk
        The singular values as they are, with multiplier 0, if they meet the limit already.

    Raises
    ------
    ValueError
        If the limit is not above 0.

    Notes
    -----
    arXiv 2504.03093, second moment.

    Examples
    --------
    >>> found = Directions(torch.eye(1), torch.tensor([2.0]), torch.tensor([3.0]))
    >>> shrink_covariance(found, limit=1.0)
    Shrunk(sigma_R=tensor([1.0000], dtype=torch.float64), multiplier=1.5...)

    Taught in: fair-regression
    """
    sigma_R, k_R = found.sigma_R.double(), found.k_R.double()

    def root(level: float) -> Tensor:
        third_R = (k_R / (6 * level)).sqrt()  # sqrt(p / 3), with p = k / (2 lambda) and q = p sigma
        return 2 * third_R * (torch.asinh(1.5 * sigma_R / third_R.clamp(min=1e-300)) / 3).sinh()

    return _limited(sigma_R, root, k_R=k_R, power=4, limit=limit)


def _limited(
    sigma_R: Tensor, at: Callable[[float], Tensor], *, k_R: Tensor, power: int, limit: float
) -> Shrunk:
    """Find the multiplier at which the singular values just meet the limit, between two sure ends."""
    from scipy.optimize import brentq

    if not limit > 0:
        raise ValueError(f"the limit is {limit:g}: give a number above 0; smaller is fairer and dearer")
    if sigma_R.pow(power).sum() <= limit:
        return Shrunk(sigma_R, 0.0)

    def excess(log_level: float) -> float:
        return math.log(float(at(math.exp(log_level)).pow(power).sum()) / limit)

    low = high = math.log(float(k_R.max()) / float(sigma_R[0]) ** (power - 2))
    while excess(low) < 0:
        low -= 2
    while excess(high) > 0:
        high += 2
    level = math.exp(brentq(excess, low, high, xtol=1e-14, rtol=1e-15))
    return Shrunk(at(level), level)


def rescale(weight_OD: Weight, found: Directions, *, sigma_R: Sigma) -> Weight:
    """Put new singular values into a layer: W' = W + U diag(sigma' / sigma - 1) U^T W.

    Parameters
    ----------
    weight_OD : Tensor
        The layer that was decomposed.
    found : Directions
        Its decomposition.
    sigma_R : Tensor
        The new singular values.

    Returns
    -------
    Tensor
        The new layer, float64. What is orthogonal to all directions stays.

    Examples
    --------
    >>> found = directions(torch.eye(2), torch.tensor([[0.0], [2.0]]), gram_DD=torch.eye(2))
    >>> rescale(torch.eye(2), found, sigma_R=torch.tensor([0.5]))
    tensor([[1.0000, 0.0000],
            [0.0000, 0.2500]], dtype=torch.float64)

    Taught in: fair-regression
    """
    weight_OD = weight_OD.detach().double()
    change_R = sigma_R.double() / found.sigma_R - 1
    return weight_OD + (found.u_OR * change_R) @ (found.u_OR.T @ weight_OD)


def process(weight_OD: Weight, seen: Moments, *, mean: float = 15.0, covariance: float = 150.0) -> Weight:
    """Shrink a layer's difference of covariances, then its difference of means.

    Parameters
    ----------
    weight_OD : Tensor
        The layer.
    seen : Moments
        Of its inputs.
    mean, covariance : float
        By which factor the sums of squared and of fourth-power singular values are to fall, 1 or more; 1
        leaves that moment alone.

    Returns
    -------
    Tensor
        The new layer, float64.

    Raises
    ------
    ValueError
        If a factor is below 1.

    Notes
    -----
    The order, and 15 and 150, are those of the code released with arXiv 2504.03093.

    Examples
    --------
    >>> seen = Moments(torch.tensor([0.0, 2.0]), torch.zeros(2, 2), torch.eye(2))
    >>> process(torch.eye(2), seen, mean=16.0)
    tensor([[1.0000, 0.0000],
            [0.0000, 0.2500]], dtype=torch.float64)

    Taught in: fair-regression
    """
    if min(mean, covariance) < 1:
        raise ValueError(f"factors {mean:g} and {covariance:g}: give 1 (leave it alone) or more")
    steps: list[tuple[Tensor, Any, int, float]] = [
        (covariance_root(seen), shrink_covariance, 4, covariance),
        (mean_root(seen), shrink_mean, 2, mean),
    ]
    weight_OD = weight_OD.detach().double()
    for root_DR, shrink, power, factor in steps:
        found = directions(weight_OD, root_DR, gram_DD=seen.gram_DD)
        total = float(found.sigma_R.pow(power).sum())
        if total > 0 and factor > 1:
            weight_OD = rescale(weight_OD, found, sigma_R=shrink(found, limit=total / factor).sigma_R)
    return weight_OD


def erase(weight_OD: Weight, seen: Moments, *, mean: float = 15.0) -> Weight:
    """Shrink the difference of means at the least change of the outputs, with the singular vectors free.

    Of all W' with ||W' delta||^2 = ||W delta||^2 / mean it is the one with the least ||X W'^T - X W^T||:
    W' = W - (1 - 1/sqrt(mean)) (W delta) (G^-1 delta)^T / (delta^T G^-1 delta). It changes what the layer
    *reads*. With ``mean=inf`` no linear function of the outputs separates the means of the groups any more.

    Parameters
    ----------
    weight_OD : Tensor
        The layer.
    seen : Moments
        Of its inputs. Where X^T X is singular its pseudo-inverse is taken: nobody has an input there.
    mean : float
        By which factor the squared difference of the means is to fall, 1 or more.

    Returns
    -------
    Tensor
        The new layer, float64; the old one if the means agree.

    Raises
    ------
    ValueError
        If the factor is below 1.

    Notes
    -----
    Our derivation. With an infinite factor, and covariances in place of X^T X, it is the least-squares
    concept erasure of Belrose et al. (2023), arXiv 2306.03819.

    Examples
    --------
    >>> seen = Moments(torch.tensor([0.0, 2.0]), torch.zeros(2, 2), torch.tensor([[2.0, 1.0], [1.0, 2.0]]))
    >>> erase(torch.eye(2), seen, mean=4.0) @ seen.delta_D.double()
    tensor([0., 1.], dtype=torch.float64)

    Taught in: fair-regression
    """
    if mean < 1:
        raise ValueError(f"the factor is {mean:g}: give 1 (leave it alone) or more")
    weight_OD, delta_D = weight_OD.detach().double(), seen.delta_D.double()
    reads_D = torch.linalg.pinv(seen.gram_DD.double(), hermitian=True) @ delta_D
    share = float(delta_D @ reads_D)
    if share <= 0:
        return weight_OD
    return weight_OD - (1 - mean**-0.5) * torch.outer(weight_OD @ delta_D, reads_D / share)


class Regressor(torch.nn.Module):
    """A network of four hidden layers; the fourth is the one that is post-processed.

    Parameters
    ----------
    n_features : int
        Inputs.
    width : int
        Units of each hidden layer; 256 in the paper's code.
    seed : int
        Seed of the initial weights; the global generator is left as it was.
    linear : bool
        Leave the ReLUs out: for experiments.

    Examples
    --------
    >>> Regressor(3, width=8)(torch.zeros(5, 3)).shape
    torch.Size([5])

    Taught in: fair-regression
    """

    def __init__(self, n_features: int, *, width: int = 256, seed: int = 0, linear: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            sizes = [n_features, width, width, width]
            bends = [torch.nn.Identity() if linear else torch.nn.ReLU() for _ in range(4)]
            front = [part for i in range(3) for part in (torch.nn.Linear(sizes[i], sizes[i + 1]), bends[i])]
            self.front = torch.nn.Sequential(*front)
            self.layer = torch.nn.Linear(width, width)
            self.bend = bends[3]
            self.last = torch.nn.Linear(width, 1)

    def acts(self, features_NF: Float[Tensor, "person feature"]) -> Float[Tensor, "person input"]:
        """Return what enters the layer that is post-processed."""
        return self.front(features_NF)

    def hidden(self, features_NF: Float[Tensor, "person feature"]) -> Float[Tensor, "person output"]:
        """Return what enters the last layer."""
        return self.bend(self.layer(self.front(features_NF)))

    def forward(self, features_NF: Float[Tensor, "person feature"]) -> Float[Tensor, "person"]:
        """Predict one number a person."""
        return self.last(self.hidden(features_NF)).squeeze(1)

    @torch.no_grad()
    def predict(self, features_NF: Any) -> np.ndarray:
        """Predict as an array, from an array or a tensor."""
        return self(torch.as_tensor(np.asarray(features_NF), dtype=torch.float32)).numpy()


def fit(
    net: Regressor,
    features_NF: Any,
    *,
    target_N: Any,
    weights_N: Any = None,
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> Regressor:
    """Train a network on the squared error, with the settings of the paper's code.

    Adam; the learning rate falls by a fifth each epoch; the last, smaller batch of an epoch is left out.

    Parameters
    ----------
    net : Regressor
        Is changed in place.
    features_NF : array-like
        One row a person.
    target_N : array-like
        What to predict.
    weights_N : array-like, optional
        How much each person's error counts; equally by default.
    epochs, batch_size : int
        Length of the training.
    lr : float
        Learning rate of the first epoch.
    seed : int
        Seed of the order of people.

    Returns
    -------
    Regressor
        The same network.

    Raises
    ------
    ValueError
        If there are fewer people than a batch, the lengths differ, or a number is not finite.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = fit(Regressor(1, width=16), x, target_N=x[:, 0], epochs=30, batch_size=16, lr=1e-2)
    >>> float(((net.predict(x) - x[:, 0]) ** 2).mean()) < 0.05
    True

    Taught in: fair-regression
    """
    features_NF, target_N = _data(features_NF, target_N)
    weights_N = torch.ones(len(target_N)) if weights_N is None else _data(features_NF, weights_N)[1]
    plan = (epochs, batch_size, lr, seed)
    return _descend(net, list(net.parameters()), net, (features_NF, target_N, weights_N), plan=plan)


def refit(
    net: Regressor,
    features_NF: Any,
    *,
    target_N: Any,
    how: str = "adam",
    epochs: int = 20,
    batch_size: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> Regressor:
    """Train the last layer again, with all before it as it is.

    Parameters
    ----------
    net : Regressor
        Is changed in place.
    features_NF, target_N : array-like
        What to train on. No group is asked for.
    how : {"adam", "least-squares"}
        A few epochs, as in the released code (whose 50 epochs hardly move after the twentieth, since the rate
        falls by a fifth each time), or the exact optimum (of least norm, where there are many).
    epochs, batch_size, lr, seed
        As for `fit`; for ``"adam"`` only.

    Returns
    -------
    Regressor
        The same network.

    Raises
    ------
    ValueError
        If `how` is unknown, or the data are as `fit` refuses them.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = refit(Regressor(1, width=16), x, target_N=3 * x[:, 0], how="least-squares")
    >>> float(((net.predict(x) - 3 * x[:, 0]) ** 2).mean()) < 0.01
    True

    Taught in: fair-regression
    """
    features_NF, target_N = _data(features_NF, target_N)
    with torch.no_grad():
        hidden_NO = net.hidden(features_NF)
    if how == "adam":
        data = (hidden_NO, target_N, torch.ones(len(target_N)))
        plan = (epochs, batch_size, lr, seed)

        def head(hidden_BO: Tensor) -> Tensor:
            return net.last(hidden_BO).squeeze(1)

        return _descend(net, list(net.last.parameters()), head, data, plan=plan)
    if how != "least-squares":
        raise ValueError(f"how is {how!r}: give 'adam' or 'least-squares'")
    ones_N1 = torch.ones(len(hidden_NO), 1)
    inputs_NO = torch.cat([hidden_NO, ones_N1], 1).double().numpy()
    best = np.linalg.lstsq(inputs_NO, target_N.double().numpy(), rcond=FLOAT32 * len(inputs_NO))[0]
    with torch.no_grad():
        net.last.weight.copy_(torch.from_numpy(best[None, :-1]))
        net.last.bias.copy_(torch.from_numpy(best[-1:]))
    return net


def postprocess(
    net: Regressor, features_NF: Any, groups_N: Any, *, change: Callable[[Weight, Moments], Weight] = process
) -> Regressor:
    """Return a copy of a network whose fourth layer was changed; its last layer is not yet refitted.

    Parameters
    ----------
    net : Regressor
        A trained network; stays as it is.
    features_NF, groups_N : array-like
        The people on whom the groups' moments are measured, usually those of the training.
    change : callable
        From the layer and the moments of its inputs to the new layer: `process` or `erase`, with factors of
        your choice.

    Returns
    -------
    Regressor
        The changed copy. It takes features only: nobody's group is asked for when it predicts.

    Raises
    ------
    ValueError
        As `moments`.

    Examples
    --------
    >>> x = np.linspace(-1, 1, 64)[:, None]
    >>> net = Regressor(1, width=16)
    >>> fairer = postprocess(net, x, x[:, 0] > 0)
    >>> torch.equal(fairer.layer.weight, net.layer.weight), torch.equal(fairer.last.weight, net.last.weight)
    (False, True)

    Taught in: fair-regression
    """
    import copy

    features_NF, _ = _data(features_NF, np.zeros(len(features_NF)))
    with torch.no_grad():
        seen = moments(net.acts(features_NF), groups_N)
        made = copy.deepcopy(net)
        made.layer.weight.copy_(change(net.layer.weight, seen))
    return made


def _descend(
    net: Regressor,
    parameters: list[Tensor],
    predict: Callable[[Tensor], Tensor],
    data: tuple[Tensor, Tensor, Tensor],
    *,
    plan: tuple[int, int, float, int],
) -> Regressor:
    """Minimise the weighted squared error over some of a network's parameters."""
    people, (epochs, batch_size, lr, seed) = len(data[1]), plan
    if people < batch_size:
        raise ValueError(f"{people} people are less than a batch of {batch_size}: give more, or lower it")
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.8)
    dice = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        order_N = torch.randperm(people, generator=dice)[: people // batch_size * batch_size]
        batches = zip(*(part[order_N].split(batch_size) for part in data), strict=True)
        for inputs_BF, target_B, weights_B in batches:
            optimizer.zero_grad()
            (weights_B * (predict(inputs_BF) - target_B).square()).mean().backward()
            optimizer.step()
        schedule.step()
    return net


def _data(features_NF: Any, target_N: Any) -> tuple[Tensor, Tensor]:
    """Turn arrays into float32 tensors that fit together and hold numbers."""
    features_NF = torch.as_tensor(np.asarray(features_NF), dtype=torch.float32)
    target_N = torch.as_tensor(np.asarray(target_N), dtype=torch.float32)
    if features_NF.ndim != 2 or target_N.shape != features_NF.shape[:1]:
        raise ValueError(
            f"features of shape {tuple(features_NF.shape)} and targets of shape {tuple(target_N.shape)}: "
            "give one row of features and one number a person"
        )
    if not (features_NF.isfinite().all() and target_N.isfinite().all()):
        raise ValueError("a feature or a target is NaN or infinite: drop the people concerned, or fill it in")
    return features_NF, target_N
