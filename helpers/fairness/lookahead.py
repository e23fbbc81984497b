"""Predict so that the next outcome, not only the present one, is the same in both worlds.

After Zuo, Xie, Tan, Zhang & Khalili, *Lookahead Counterfactual Fairness*, arXiv 2412.01065. People answer a
prediction by moving along its gradient; what they become depends on the slope of the predictor, so the slope
is what this room sets. Shapes: N people, C coefficients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from helpers.fairness.scm import SCM, Values

__all__ = [
    "Futures",
    "Predictor",
    "World",
    "counterfactually_fair",
    "fit",
    "flip",
    "futures",
    "lookahead_fair",
    "overlap",
    "respond",
    "slope_limit",
    "unaware",
]

People = Float[Tensor, "people"]
Predict = Callable[[Values], Tensor]


@dataclass(frozen=True)
class World:
    """Say whose outcome is compared with whose, and how people answer a prediction.

    Parameters
    ----------
    scm : SCM
        The causal model.
    acts_on : tuple of str
        The exogenous causes that people can change.
    eta : float
        How far they go along the gradient of the prediction, > 0.
    attribute : str
        The sensitive attribute, an exogenous variable with two values.
    values : tuple of float
        These two values.
    outcome : str
        The variable whose future counts.

    Raises
    ------
    ValueError
        If `eta` is not positive, or a name is not what it should be in the model.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + U})
    >>> world = World(scm, acts_on=("U",), eta=0.5)
    >>> me = {"A": torch.tensor([1.0]), "U": torch.tensor([2.0])}
    >>> float(world.here(me)["Y"]), float(world.there(me)["Y"])
    (3.0, 2.0)

    Taught in: lookahead-fairness
    """

    scm: SCM
    acts_on: tuple[str, ...]
    eta: float
    attribute: str = "A"
    values: tuple[float, float] = (0.0, 1.0)
    outcome: str = "Y"

    def __post_init__(self) -> None:
        """Refuse names that do not fit the model."""
        strangers = [name for name in (self.attribute, *self.acts_on) if name not in self.scm.exogenous]
        if strangers or not self.acts_on or self.attribute in self.acts_on:
            raise ValueError(
                f"acts_on is {self.acts_on} and the attribute {self.attribute!r}: expected different "
                f"exogenous variables, out of {', '.join(self.scm.exogenous)}"
            )
        if self.outcome not in self.scm.equations:
            raise ValueError(f"the outcome {self.outcome!r} has no equation in the model")
        if not self.eta > 0:
            raise ValueError(f"eta is {self.eta}: people must move, so give a number above 0")

    def here(self, u: Values) -> Values:
        """Compute all variables in the world as it is."""
        return self.scm.solve(u)

    def there(self, u: Values) -> Values:
        """Compute all variables in the world where everybody has the other value of the attribute."""
        return self.scm.solve(self.swapped(u))

    def swapped(self, u: Values) -> Values:
        """Give everybody the other value of the attribute, and leave all other causes as they are."""
        return {**u, self.attribute: flip(u[self.attribute], values=self.values)}


def flip(a_N: People, *, values: tuple[float, float] = (0.0, 1.0)) -> People:
    """Give everybody the other one of two values.

    Parameters
    ----------
    a_N : People
        The attribute of each person.
    values : tuple of float
        The two values that it may have.

    Returns
    -------
    People
        The other value of each.

    Raises
    ------
    ValueError
        If somebody has a third value.

    Examples
    --------
    >>> flip(torch.tensor([1.0, 2.0, 2.0]), values=(1.0, 2.0))
    tensor([2., 1., 1.])

    Taught in: lookahead-fairness
    """
    strangers = a_N[(a_N != values[0]) & (a_N != values[1])]
    if len(strangers):
        raise ValueError(
            f"the attribute holds {float(strangers[0]):g}; expected {values[0]:g} or {values[1]:g}"
        )
    return values[0] + values[1] - a_N


def respond(world: World, predict: Predict, u: Values) -> Values:
    """Let people move along the gradient of their prediction.

    Parameters
    ----------
    world : World
        The model, what people act on, and eta.
    predict : callable
        From all variables of a world to one prediction a person; must be differentiable.
    u : dict of str to Tensor
        The exogenous causes of each person.

    Returns
    -------
    dict of str to Tensor
        The causes after the response: U' = U + eta * gradient.

    Raises
    ------
    ValueError
        If the prediction does not depend on anything, or is not finite.

    Notes
    -----
    arXiv 2412.01065, the response model of the problem section. The derivative goes through the equations,
    so a predictor that reads X is answered by changing what causes X. A cause that the prediction does not
    depend on stays as it is.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + 3 * U})
    >>> world = World(scm, acts_on=("U",), eta=0.5)
    >>> respond(world, lambda v: 2 * v["Y"], {"A": torch.ones(1), "U": torch.zeros(1)})["U"]
    tensor([3.])

    Taught in: lookahead-fairness
    """
    start = {name: u[name].detach().clone().requires_grad_() for name in world.acts_on}
    yhat_N = predict(world.here({**u, **start}))
    if not bool(torch.isfinite(yhat_N).all()):
        raise ValueError("predictions hold NaN or infinity: look at the predictor and at its inputs")
    slopes = _gradient(yhat_N, start)
    return {**u, **{name: u[name] + world.eta * slopes[name] for name in world.acts_on}}


@dataclass(frozen=True)
class Futures:
    """Hold the outcome of each person, now and after the response, here and in the other world.

    Made by :func:`futures`. All have the shape (people,).

    Parameters
    ----------
    y_N, y_there_N : Tensor
        The outcome now, and what it would be with the other attribute.
    next_N, next_there_N : Tensor
        Both after the response to the prediction that is made in that world.

    Examples
    --------
    >>> now = torch.tensor([1.0, 2.0])
    >>> after = Futures(now, now - 1, now + 3, now + 2.5)
    >>> after.afce, after.improvement
    (0.5, 0.5)

    Taught in: lookahead-fairness
    """

    y_N: Tensor
    y_there_N: Tensor
    next_N: Tensor
    next_there_N: Tensor

    @property
    def gap(self) -> Tensor:
        """The difference between the two worlds now."""
        return self.y_N - self.y_there_N

    @property
    def next_gap(self) -> Tensor:
        """The difference between the two worlds after the response."""
        return self.next_N - self.next_there_N

    @property
    def now(self) -> float:
        """The mean size of the difference now."""
        return float(self.gap.abs().mean())

    @property
    def afce(self) -> float:
        """The average future causal effect: the mean size of the difference after the response."""
        return float(self.next_gap.abs().mean())

    @property
    def improvement(self) -> float:
        """The share of the difference that the response closed; below 0 if it grew.

        The paper's unfairness improvement ratio. Zero where there is no difference now and none after.
        """
        if self.now == 0:
            return 0.0 if self.afce == 0 else -float("inf")
        return 1 - self.afce / self.now


def futures(world: World, predict: Predict, u: Values) -> Futures:
    """Let the same people respond in both worlds, and compare what becomes of them.

    Parameters
    ----------
    world : World
        The true model: what people really are and do.
    predict : callable
        From all variables of a world to one prediction a person. Each world gets the prediction made there.
    u : dict of str to Tensor
        The exogenous causes of each person. It does not matter if only one group is among them: each person
        is compared with the same person in the other world.

    Returns
    -------
    Futures
        Four outcomes a person.

    Raises
    ------
    ValueError
        If somebody has a third value of the attribute, or something is not finite. An equation such as a
        root may have no value where a response leads.

    Notes
    -----
    arXiv 2412.01065: a predictor is lookahead counterfactually fair if the last two have the same
    distribution, and relaxed so if they are closer than the first two.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + U})
    >>> world = World(scm, acts_on=("U",), eta=0.5)
    >>> futures(world, lambda v: v["U"], scm.sample(100, seed=0)).afce
    1.0

    Taught in: lookahead-fairness
    """
    with torch.no_grad():
        now_N, there_N = (place(u)[world.outcome] for place in (world.here, world.there))
    next_N, next_there_N = (
        world.here(respond(world, predict, start))[world.outcome].detach() for start in (u, world.swapped(u))
    )
    if not bool(torch.isfinite(next_N).all() and torch.isfinite(next_there_N).all()):
        raise ValueError(
            f"the response takes somebody where the equations of {world.outcome!r} give NaN or infinity: "
            f"lower eta (it is {world.eta:g}) or the slope of the predictor"
        )
    return Futures(now_N, there_N, next_N, next_there_N)


def overlap(world: World, u: Values) -> People:
    """Compute how far a push along one world's outcome moves the other's: S in the theorems.

    Parameters
    ----------
    world : World
        The model, the attribute, and what people act on.
    u : dict of str to Tensor
        The exogenous causes of each person.

    Returns
    -------
    People
        The inner product of the gradients of the outcome here and there, one number a person. It is the same
        for everybody if, in each world, the outcome is affine in what people act on.

    Notes
    -----
    This book's reconstruction. For Y = w (alpha U + beta A) + gamma U_Y it is |w alpha|^2 + gamma^2, and for
    X = A (alpha U + beta) it is a1 a2 |w alpha|^2 + gamma^2, the constants of arXiv 2412.01065.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + 3 * U})
    >>> overlap(World(scm, acts_on=("U",), eta=0.5), scm.sample(2, seed=0))
    tensor([9., 9.], dtype=torch.float64)

    Taught in: lookahead-fairness
    """
    start = {name: u[name].detach().clone().requires_grad_() for name in world.acts_on}
    slopes = [_gradient(place({**u, **start})[world.outcome], start) for place in (world.here, world.there)]
    products = [(slopes[0][name] * slopes[1][name]).flatten(1) if u[name].ndim > 1 else
                (slopes[0][name] * slopes[1][name])[:, None] for name in world.acts_on]  # fmt: skip
    return torch.cat(products, dim=1).sum(dim=1)


def slope_limit(world: World, u: Values) -> float:
    """Compute T = 1 / (eta S), the scale on which p1 acts: at p1 = T / 2 the gap closes.

    Parameters
    ----------
    world : World
        The model, what people act on, and eta.
    u : dict of str to Tensor
        The exogenous causes of some people. Where S differs between them, the largest one counts: the gap
        then closes for nobody more than fully.

    Returns
    -------
    float
        T. The gap of a person with overlap S shrinks by the factor 1 - 2 p1 eta S, exactly where the outcome
        is affine in what people act on.

    Raises
    ------
    ValueError
        If S is not positive for somebody: then no slope p1 > 0 brings the worlds together.

    Notes
    -----
    arXiv 2412.01065, the theorem for linear models and its multiplicative variant.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + 2 * U})
    >>> slope_limit(World(scm, acts_on=("U",), eta=0.5), scm.sample(5, seed=0))
    0.5

    Taught in: lookahead-fairness
    """
    overlap_N = overlap(world, u)
    if float(overlap_N.min()) <= 0:
        raise ValueError(
            f"the overlap S is {float(overlap_N.min()):g} for somebody: what people can act on must move "
            f"{world.outcome} the same way in both worlds. Look at acts_on={world.acts_on}"
        )
    return float(1 / (world.eta * overlap_N.max()))


@dataclass(frozen=True)
class Predictor:
    """Predict by a weighted sum of columns, plus a part that was fixed before fitting.

    Made by :func:`fit`.

    Parameters
    ----------
    columns : callable
        From all variables of a world to (people, coefficients).
    weights_C : Tensor
        The fitted coefficients.
    fixed : callable, optional
        From all variables of a world to (people,): the part that was not fitted.

    Examples
    --------
    >>> double = Predictor(lambda v: v["X"][:, None], torch.tensor([2.0]))
    >>> double({"X": torch.tensor([1.0, 3.0])})
    tensor([2., 6.])

    Taught in: lookahead-fairness
    """

    columns: Callable[[Values], Tensor]
    weights_C: Tensor
    fixed: Predict | None = None

    def __call__(self, values: Values) -> Tensor:
        """Predict for each person, from all variables of the world that they live in."""
        fitted_N = self.columns(values) @ self.weights_C
        return fitted_N if self.fixed is None else fitted_N + self.fixed(values)


def fit(
    columns: Callable[[Values], Tensor], values: Values, *, y_N: People, fixed: Predict | None = None
) -> Predictor:
    """Fit the weights of a predictor by least squares.

    Parameters
    ----------
    columns : callable
        From all variables of a world to (people, coefficients), a column of ones among them.
    values : dict of str to Tensor
        What is known of the people to learn from.
    y_N : People
        Their outcomes.
    fixed : callable, optional
        A part of the predictor that stays as it is.

    Returns
    -------
    Predictor
        With the least squares weights; the shortest ones if columns depend on each other.

    Raises
    ------
    ValueError
        If there are fewer people than coefficients, or something is not finite.

    Examples
    --------
    >>> line = fit(lambda v: v["X"][:, None], {"X": torch.tensor([1.0, 2.0])}, y_N=torch.tensor([3.0, 6.0]))
    >>> round(float(line.weights_C), 3)
    3.0

    Taught in: lookahead-fairness
    """
    design_NC = columns(values)
    target_N = y_N if fixed is None else y_N - fixed(values)
    if len(design_NC) < design_NC.shape[1]:
        raise ValueError(
            f"{len(design_NC)} people for {design_NC.shape[1]} coefficients: give more people, or fewer "
            "columns"
        )
    if not bool(torch.isfinite(design_NC).all() and torch.isfinite(target_N).all()):
        raise ValueError("columns or outcomes hold NaN or infinity: drop those people, then fit")
    weights_C1 = torch.linalg.lstsq(design_NC, target_N[:, None], driver="gelsd").solution
    return Predictor(columns, weights_C1[:, 0], fixed)


def unaware(values: Values, *, inputs: Sequence[str], y_N: People) -> Predictor:
    """Fit the predictor that sees everything but the attribute: features and nothing else.

    Parameters
    ----------
    values : dict of str to Tensor
        What is known of the people to learn from.
    inputs : sequence of str
        The features.
    y_N : People
        Their outcomes.

    Returns
    -------
    Predictor
        Linear in the features.

    Raises
    ------
    ValueError
        As in :func:`fit`.

    Notes
    -----
    arXiv 2412.01065 calls it UF. It is not fair by leaving the attribute out: features carry it.

    Examples
    --------
    >>> people = {"X": torch.tensor([1.0, 2.0, 3.0])}
    >>> unaware(people, inputs=("X",), y_N=torch.tensor([3.0, 5.0, 7.0]))(people)
    tensor([3.0000, 5.0000, 7.0000])

    Taught in: lookahead-fairness
    """
    return fit(_columns(inputs), values, y_N=y_N)


def counterfactually_fair(world: World, values: Values, *, causes: Sequence[str], y_N: People) -> Predictor:
    """Fit the predictor that sees only what the attribute has no effect on.

    Parameters
    ----------
    world : World
        The model that says what descends from the attribute.
    values : dict of str to Tensor
        What is known of the people to learn from.
    causes : sequence of str
        The variables to use.
    y_N : People
        Their outcomes.

    Returns
    -------
    Predictor
        Linear in the causes, and so the same in both worlds.

    Raises
    ------
    ValueError
        If one of the variables is the attribute or descends from it; and as in :func:`fit`.

    Notes
    -----
    Kusner et al. (2017), and the baseline CF of arXiv 2412.01065.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"X": lambda A, U: A + U, "Y": lambda X: X})
    >>> world, people = World(scm, acts_on=("U",), eta=1.0), scm.solve(scm.sample(50, seed=0))
    >>> counterfactually_fair(world, people, causes=("X",), y_N=people["Y"])
    Traceback (most recent call last):
        ...
    ValueError: ['X'] descend from 'A': a counterfactually fair predictor must not read them

    Taught in: lookahead-fairness
    """
    tainted = [c for c in causes if c in (world.attribute, *world.scm.descendants(world.attribute))]
    if tainted:
        raise ValueError(
            f"{tainted} descend from {world.attribute!r}: a counterfactually fair predictor must not "
            "read them"
        )
    return fit(_columns(causes), values, y_N=y_N)


def lookahead_fair(
    world: World,
    values: Values,
    *,
    y_N: People,
    p1: float,
    power: float = 2.0,
    causes: Sequence[str] = (),
    abduct: Callable[[Values], Values] | None = None,
) -> Predictor:
    """Fit the lookahead predictor: p1 there^power + p2 there + p3 + h(causes), p1 given, the rest fitted.

    Parameters
    ----------
    world : World
        The model that the predictor believes in.
    values : dict of str to Tensor
        What is known of the people to learn from.
    y_N : People
        Their outcomes.
    p1 : float
        The slope that brings the worlds together: :func:`slope_limit` / 2 closes the gap, half of that halves
        it, 0 leaves it.
    power : float
        2, or another power above 1, for outcomes above 0.
    causes : sequence of str
        What h, a linear function, may read: exogenous causes. Leave it empty where the same cause moves
        the outcome differently in the two worlds.
    abduct : callable, optional
        From the variables of a world to the exogenous causes that the predictor infers from them. By default
        it knows them.

    Returns
    -------
    Predictor
        One that reads the outcome of the other world.

    Raises
    ------
    ValueError
        If only one value of the attribute is among the people, or an outcome is negative where the power is
        not whole; and as in :func:`fit`.

    Notes
    -----
    arXiv 2412.01065, the predictors of its theorems, and its Algorithm 1 with least squares in the place of
    Adam.

    Examples
    --------
    >>> from helpers.fairness.scm import SCM, coin, normal
    >>> scm = SCM({"A": coin(), "U": normal()}, {"Y": lambda A, U: A + U})
    >>> world, u = World(scm, acts_on=("U",), eta=0.5), scm.sample(100, seed=0)
    >>> people = scm.solve(u)
    >>> predict = lookahead_fair(world, people, y_N=people["Y"], p1=slope_limit(world, u) / 2, causes=("U",))
    >>> futures(world, predict, u).afce < 1e-12
    True

    Taught in: lookahead-fairness
    """
    if len(values[world.attribute].unique()) < 2:
        raise ValueError(
            f"everybody to learn from has the same {world.attribute!r}: p2 and h cannot be told apart. "
            "Give people of both groups"
        )

    def inferred(given: Values) -> Values:
        return given if abduct is None else abduct(given)

    def there(given: Values) -> Tensor:
        return world.there(inferred(given))[world.outcome]

    def curve(given: Values) -> Tensor:
        there_N = there(given)
        lowest = float(there_N.detach().min())
        if power != int(power) and lowest < 0:
            raise ValueError(f"the outcome is {lowest:.3g} for somebody: power={power} needs >= 0")
        return p1 * there_N**power

    def columns(given: Values) -> Tensor:
        return torch.cat([there(given)[:, None], _columns(causes)(inferred(given))], dim=1)

    return fit(columns, values, y_N=y_N, fixed=curve)


def _gradient(total_N: Tensor, start: Values) -> Values:
    """Differentiate one number a person with respect to that person's causes."""
    if not total_N.requires_grad:
        return {name: torch.zeros_like(value) for name, value in start.items()}
    slopes = torch.autograd.grad(total_N.sum(), list(start.values()), allow_unused=True)
    return {
        name: torch.zeros_like(value) if slope is None else slope
        for (name, value), slope in zip(start.items(), slopes, strict=True)
    }


def _columns(names: Sequence[str]) -> Callable[[Values], Tensor]:
    """Make a function that lays variables side by side, after a column of ones."""

    def columns(values: Values) -> Tensor:
        parts = [value[:, None] if value.ndim == 1 else value for value in (values[name] for name in names)]
        n = len(next(iter(values.values())))
        ones_N1 = torch.ones(n, 1, dtype=next(iter(values.values())).dtype)
        return torch.cat([ones_N1, *parts], dim=1)

    return columns
