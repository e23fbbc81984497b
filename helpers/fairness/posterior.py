"""Sample the unknowns of a causal model with NUTS, and keep the diagnostics beside the draws.

The sampler and its diagnostics are Pyro's. Shapes: M chains, S draws of a chain.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Posterior", "nuts"]


@dataclass(frozen=True)
class Posterior:
    """Hold draws from a posterior, chain by chain, and say how far to trust them.

    Made by :func:`nuts`.

    Parameters
    ----------
    draws : dict of str to Tensor
        For each unknown (chains, draws, ...).
    divergences : int
        How many draws, over all chains, left the region where the integrator is accurate. More than a few
        mean that a part of the posterior was not reached.

    Examples
    --------
    >>> dice = torch.Generator().manual_seed(0)
    >>> post = Posterior({"w": torch.randn(2, 500, generator=dice)}, divergences=0)
    >>> post.worst_r_hat < 1.02, abs(float(post.mean("w"))) < 0.1
    (True, True)

    Taught in: lookahead-fairness
    """

    draws: dict[str, Tensor]
    divergences: int

    def flat(self, name: str) -> Tensor:
        """Return the draws of one unknown, all chains in one row: (chains * draws, ...)."""
        return self.draws[name].flatten(0, 1)

    def mean(self, name: str) -> Tensor:
        """Return the posterior mean of one unknown."""
        return self.flat(name).mean(0)

    def r_hat(self, name: str) -> Tensor:
        """Compute the split R-hat of one unknown: near 1 if chains, and halves of chains, agree."""
        from pyro.ops.stats import split_gelman_rubin

        return split_gelman_rubin(self.draws[name], chain_dim=0, sample_dim=1)

    def effective(self, name: str) -> Tensor:
        """Compute how many independent draws the draws of one unknown are worth."""
        from pyro.ops.stats import effective_sample_size

        return effective_sample_size(self.draws[name], chain_dim=0, sample_dim=1)

    @property
    def worst_r_hat(self) -> float:
        """The largest split R-hat of all unknowns."""
        return max(float(self.r_hat(name).max()) for name in self.draws)

    @property
    def least_effective(self) -> float:
        """The smallest effective sample size of all unknowns."""
        return min(float(self.effective(name).min()) for name in self.draws)

    def table(self) -> pd.DataFrame:
        """Lay out mean, spread and diagnostics of every unknown that is a single number."""
        import pandas as pd

        single = [name for name, draws in self.draws.items() if draws.ndim == 2]
        rows = {
            name: {
                "mean": float(self.mean(name)),
                "sd": float(self.flat(name).std()),
                "R-hat": float(self.r_hat(name)),
                "effective draws": float(self.effective(name)),
            }
            for name in single
        }
        return pd.DataFrame.from_dict(rows, orient="index")


def nuts(
    model: Callable[..., Any],
    *data: Any,
    draws: int,
    warmup: int,
    seed: int,
    chains: int = 2,
    depth: int = 8,
) -> Posterior:
    """Sample a Pyro model with the No-U-Turn sampler, one chain after the other.

    The mass matrix is dense: for models with up to some dozens of unknowns.

    Parameters
    ----------
    model : callable
        A Pyro model.
    *data : Any
        Its arguments.
    draws, warmup : int
        Draws that are kept, and draws before them that tune the sampler; of each chain.
    seed : int
        Chain i starts from seed + i. The global generators are left as they were.
    chains : int
        2 or more, so that they can be compared.
    depth : int
        At most 2 ** depth steps a draw.

    Returns
    -------
    Posterior
        Draws and diagnostics.

    Raises
    ------
    ValueError
        If there are fewer than 2 chains or 4 draws, or a tensor among the data is not finite.

    Notes
    -----
    Hoffman & Gelman (2014). R-hat and the effective sample size: Gelman et al., *Bayesian Data Analysis*.

    Examples
    --------
    >>> import pyro
    >>> import pyro.distributions as dist
    >>> def model(x):
    ...     mean = pyro.sample("mean", dist.Normal(0.0, 10.0))
    ...     pyro.sample("x", dist.Normal(mean, 1.0).expand([len(x)]).to_event(1), obs=x)
    >>> post = nuts(model, torch.tensor([2.0, 4.0]), draws=100, warmup=50, seed=0)
    >>> 2.5 < float(post.mean("mean")) < 3.5
    True

    Taught in: lookahead-fairness
    """
    broken = [
        i for i, value in enumerate(data) if isinstance(value, Tensor) and not bool(value.isfinite().all())
    ]
    if chains < 2 or draws < 4 or broken:
        raise ValueError(
            f"chains={chains}, draws={draws}, not finite: {broken}; expected 2 chains or more to compare, "
            "4 draws or more of each, and data without NaN or infinity"
        )
    from pyro.infer import MCMC, NUTS

    samples, divergences = [], 0
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), _one_thread():
        warnings.simplefilter("ignore")  # Pyro compiles the model with a part of torch that is on its way out
        for chain in range(chains):
            torch.manual_seed(seed + chain)
            sampler = MCMC(
                NUTS(
                    model,
                    full_mass=True,
                    max_tree_depth=depth,
                    jit_compile=True,
                    ignore_jit_warnings=True,
                ),
                num_samples=draws,
                warmup_steps=warmup,
                disable_progbar=True,
            )
            sampler.run(*data)
            samples.append(sampler.get_samples())
            divergences += sum(len(steps) for steps in sampler.diagnostics()["divergences"].values())
    return Posterior({name: torch.stack([s[name] for s in samples]) for name in samples[0]}, divergences)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: in steps of a few numbers a second one would only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
