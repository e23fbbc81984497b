"""Write a structural causal model as what it is: causes that are drawn, and one equation a variable.

A variable is a tensor with one row a person. The argument names of an equation are its parents, so the graph
needs no second notation. Shapes: N people.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from graphlib import CycleError, TopologicalSorter

import torch
from torch import Tensor

__all__ = ["SCM", "Values", "coin", "normal", "uniform"]

Values = dict[str, Tensor]
Draw = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class SCM:
    """Hold a structural causal model: exogenous causes and equations.

    Parameters
    ----------
    exogenous : dict of str to callable
        Draws the causes that no equation explains: (n, generator) -> (n,) or (n, d). A sensitive attribute
        that nothing causes stands here too.
    equations : dict of str to callable
        One function a variable. Its argument names are its parents; it must keep one row a person.
    reads : dict of str to dict of str to str
        For an equation, which variable an argument reads if not the one of its own name. :meth:`split`
        fills it.

    Attributes
    ----------
    order : tuple of str
        All variables, each after its parents.

    Raises
    ------
    ValueError
        If an equation has an unknown parent, a variable has two origins, or the graph has a cycle.

    Examples
    --------
    >>> scm = SCM({"A": coin(), "U": normal()}, {"X": lambda A, U: 2 * A + U, "Y": lambda X: 3 * X})
    >>> scm.order, scm.descendants("A")
    (('A', 'U', 'X', 'Y'), ('X', 'Y'))
    >>> one = {"A": torch.tensor([1.0]), "U": torch.tensor([0.5])}
    >>> scm.solve(one)["Y"], scm.do(A=0.0).solve(one)["Y"]
    (tensor([7.5000]), tensor([1.5000], dtype=torch.float64))

    Taught in: lookahead-fairness
    """

    exogenous: Mapping[str, Draw]
    equations: Mapping[str, Callable[..., Tensor]]
    reads: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    order: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sort the variables, and refuse what is no graph."""
        known = {*self.exogenous, *self.equations}
        twice = sorted({*self.exogenous} & {*self.equations})
        lost = sorted({parent for name in self.equations for parent in self.parents(name)} - known)
        if twice or lost:
            raise ValueError(
                f"parents without an origin: {lost}; variables with two: {twice}. Every variable is either "
                "exogenous or has one equation, and an equation's argument names are its parents"
            )
        try:
            graph = TopologicalSorter(
                {name: self.parents(name) for name in (*self.exogenous, *self.equations)}
            )
            object.__setattr__(self, "order", tuple(graph.static_order()))
        except CycleError as error:
            raise ValueError(
                f"the graph has a cycle: {' -> '.join(error.args[1])}; causes must come first"
            ) from error

    def parents(self, name: str) -> tuple[str, ...]:
        """Return the parents of a variable; none for an exogenous one."""
        if name not in self.equations:
            return ()
        arguments = inspect.signature(self.equations[name]).parameters
        return tuple(self.reads.get(name, {}).get(argument, argument) for argument in arguments)

    def descendants(self, name: str) -> tuple[str, ...]:
        """Return all variables that a variable has an effect on, in order."""
        found = {self._known(name)}
        for each in self.order:
            found |= {each} if found & {*self.parents(each)} else set()
        return tuple(each for each in self.order if each in found and each != name)

    def sample(self, n: int, *, seed: int) -> Values:
        """Draw the exogenous causes of n people; pass them to :meth:`solve`."""
        if n < 1:
            raise ValueError(f"n is {n}: draw one person or more")
        dice = torch.Generator().manual_seed(seed)
        return {name: draw(n, dice) for name, draw in self.exogenous.items()}

    def solve(self, u: Values) -> Values:
        """Compute every variable from the exogenous ones.

        Parameters
        ----------
        u : dict of str to Tensor
            A value for each exogenous variable, one row a person. Entries for variables that have an
            equation are not read.

        Returns
        -------
        dict of str to Tensor
            All variables. Gradients flow through.

        Raises
        ------
        ValueError
            If a value is missing or not finite, or the numbers of people differ.
        """
        n = _people(u, self.exogenous)
        values: Values = {}
        for name in self.order:
            if name in self.exogenous:
                values[name] = u[name]
                continue
            arguments = inspect.signature(self.equations[name]).parameters
            given = dict(zip(arguments, (values[p] for p in self.parents(name)), strict=True))
            value = self.equations[name](**given)
            values[name] = value.expand(n) if value.ndim == 0 else value
            if len(values[name]) != n:
                raise ValueError(
                    f"{name} has {len(value)} rows for {n} people: an equation returns one row a person"
                )
        return values

    def do(self, **changes: Tensor | float | Callable[..., Tensor]) -> SCM:
        """Intervene: put a constant or another equation in the place of what made a variable.

        Parameters
        ----------
        **changes : Tensor, float or callable
            The new value of each variable named, one row a person or one number for all; or a new equation.

        Returns
        -------
        SCM
            A new model; the old one stays as it is.

        Raises
        ------
        ValueError
            If there is no such variable.
        """
        made = {self._known(name): _equation(change) for name, change in changes.items()}
        return SCM(
            {name: draw for name, draw in self.exogenous.items() if name not in made},
            {**self.equations, **made},
            {name: read for name, read in self.reads.items() if name not in made},
        )

    def split(self, name: str, *, keep: tuple[str, ...]) -> SCM:
        """Split a cause in two, so that some of its children can keep the old value.

        Parameters
        ----------
        name : str
            An exogenous variable, such as ``"A"``.
        keep : tuple of str
            The children that read the copy, ``"A_kept"``, in place of the original.

        Returns
        -------
        SCM
            A model with one more exogenous variable. Where both copies are equal it says the same as the
            old one.

        Raises
        ------
        ValueError
            If the variable is not exogenous, or a name in `keep` is no child of it.
        """
        strangers = [child for child in keep if name not in self.parents(child)]
        if name not in self.exogenous or strangers or not keep:
            raise ValueError(
                f"cannot split {name!r} for {keep}: it must be exogenous, and each of these its child"
            )
        reads = {child: {**self.reads.get(child, {}), name: f"{name}_kept"} for child in keep}
        return replace(
            self,
            exogenous={**self.exogenous, f"{name}_kept": self.exogenous[name]},
            reads={**self.reads, **reads},
        )

    def _known(self, name: str) -> str:
        """Return the name, or say which variables there are."""
        if name not in self.order:
            raise ValueError(f"no variable {name!r}; the model has {', '.join(self.order)}")
        return name


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Draw:
    """Make a draw from the uniform distribution.

    Parameters
    ----------
    *shape : int
        Numbers a person; none for one number.
    low, high : float
        Its ends.

    Returns
    -------
    callable
        (n, generator) -> Tensor of shape (n, ...), in double precision.

    Examples
    --------
    >>> uniform(3)(2, torch.Generator().manual_seed(0)).shape
    torch.Size([2, 3])

    Taught in: lookahead-fairness
    """
    return lambda n, dice: low + (high - low) * torch.rand(n, *shape, generator=dice, dtype=torch.float64)


def normal(*shape: int, mean: float = 0.0, sd: float = 1.0) -> Draw:
    """Make a draw from the normal distribution.

    Parameters
    ----------
    *shape : int
        Numbers a person; none for one number.
    mean, sd : float
        Its mean and standard deviation.

    Returns
    -------
    callable
        (n, generator) -> Tensor of shape (n, ...), in double precision.

    Examples
    --------
    >>> normal(mean=5.0, sd=0.0)(2, torch.Generator().manual_seed(0))
    tensor([5., 5.], dtype=torch.float64)

    Taught in: lookahead-fairness
    """
    return lambda n, dice: mean + sd * torch.randn(n, *shape, generator=dice, dtype=torch.float64)


def coin(share: float = 0.5, *, values: tuple[float, float] = (0.0, 1.0)) -> Draw:
    """Make a draw of one of two values.

    Parameters
    ----------
    share : float
        Share of people with the second value, 0 to 1.
    values : tuple of float
        The two values.

    Returns
    -------
    callable
        (n, generator) -> Tensor of shape (n,), in double precision.

    Raises
    ------
    ValueError
        If the share is not between 0 and 1.

    Examples
    --------
    >>> coin(1.0, values=(1.0, 2.0))(2, torch.Generator().manual_seed(0))
    tensor([2., 2.], dtype=torch.float64)

    Taught in: lookahead-fairness
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: give a share from 0 to 1")
    low, high = values
    return lambda n, dice: low + (high - low) * (torch.rand(n, generator=dice) < share).double()


def _equation(change: Tensor | float | Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Make an equation of a constant; leave an equation as it is."""
    if callable(change):
        return change
    constant = torch.as_tensor(change, dtype=torch.float64)
    return lambda: constant


def _people(u: Values, wanted: Mapping[str, Draw]) -> int:
    """Count the people, and refuse what is missing, ragged or not finite."""
    missing = [name for name in wanted if name not in u]
    if missing:
        raise ValueError(f"no values for {missing}: give one row a person for each of {list(wanted)}")
    sizes = {name: len(u[name]) for name in wanted}
    if len({*sizes.values()}) != 1 or 0 in sizes.values():
        raise ValueError(f"the numbers of people are {sizes}: give the same number, one or more, for each")
    broken = [name for name in wanted if not bool(torch.isfinite(u[name]).all())]
    if broken:
        raise ValueError(f"{broken} hold NaN or infinity: drop those people, and look where they come from")
    return next(iter(sizes.values()))
