"""Start a run: one profile, one seed, one ledger.

A :class:`Session` is what a chapter holds on to. It knows how large the run is (its profile), hands out
seeds, and passes every number, verdict and picture to the ledger, so that all of them reach the page the
same way.

Examples
--------
>>> from helpers import start
>>> run = start("smoke", chapter="sae-derivation", seed=0)
>>> run.pick(smoke=100, book=5_000)
100
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import matplotlib.figure
    import pandas
    import torch

    import helpers.report

__all__ = ["PROFILES", "Profile", "Session", "start"]

Profile = Literal["smoke", "book", "full"]
PROFILES: tuple[str, ...] = get_args(Profile)
T = TypeVar("T")
_UNSET: Any = object()


@dataclass(frozen=True)
class Session:
    """Hold the settings of one run and its ledger.

    Made by :func:`start`; the methods that reach the page are documented in :mod:`helpers.report` and
    :mod:`helpers.widgets`.

    Parameters
    ----------
    profile : {"smoke", "book", "full"}
        Size of the run: every commit, the rendered page, or a GPU and the paper's own sizes.
    chapter : str
        Slug of the chapter.
    seed : int
        The one seed that all others come from.
    model : str
        Name of the model that verdicts are computed on; empty when a chapter has none.
    device, dtype : torch.device, torch.dtype
        Where tensors live, and their type.
    threads : int
        Threads that torch uses.
    ledger : helpers.report.Ledger
        What was recorded so far.

    Examples
    --------
    >>> run = start("smoke", chapter="sae-derivation", seed=0)
    >>> run.record("error", [0.20, 0.22, 0.24]).n
    3
    >>> round(run["error"], 2)
    0.22
    """

    profile: str
    chapter: str
    seed: int
    model: str
    device: torch.device
    dtype: torch.dtype
    threads: int
    ledger: helpers.report.Ledger = field(repr=False)

    def __getitem__(self, name: str) -> helpers.report.Record:
        """Return a recorded number by its name."""
        return self.ledger[name]

    def pick(self, *, smoke: T, book: T, full: T = _UNSET) -> T:
        """Choose a setting by profile; `full` is the book's value unless given.

        Examples
        --------
        >>> start("full", chapter="sae-derivation").pick(smoke=1, book=5)
        5
        """
        sizes = {"smoke": smoke, "book": book, "full": book if full is _UNSET else full}
        return sizes[self.profile]

    def seeds(self, count: int) -> list[int]:
        """Derive `count` distinct seeds; asking for more keeps the first ones.

        Examples
        --------
        >>> run = start("smoke", chapter="sae-derivation", seed=0)
        >>> run.seeds(2) == run.seeds(3)[:2]
        True
        """
        return random.Random(self.seed).sample(range(2**31), count)

    def record(
        self,
        name: str,
        value: Any,
        *,
        ci: tuple[float, float] | None = None,
        n: int | None = None,
        unit: str = "",
    ) -> helpers.report.Record:
        """Record a number, or one number per seed. See :meth:`helpers.report.Ledger.record`."""
        return self.ledger.record(name, value, ci=ci, n=n, unit=unit)

    def claim(
        self,
        id: str,
        statement: str,
        *,
        paper: str,
        holds: Any,
        ours: str | Sequence[str],
        baseline: str | Sequence[str],
        control: Mapping[str, Any],
    ) -> helpers.report.Claim:
        """Compute the verdict on one claim. See :meth:`helpers.report.Ledger.claim`."""
        return self.ledger.claim(
            id, statement, paper=paper, holds=holds, ours=ours, baseline=baseline, control=control
        )

    def colour(self, name: str) -> str:
        """Return the colour that a named variable has all through the book."""
        from helpers import report

        return report.colour(name)

    def figure(self, fig: matplotlib.figure.Figure, *, caption: str, alt: str, name: str) -> None:
        """Show a figure with its caption and alt text. See :meth:`helpers.report.Ledger.figure`."""
        self.ledger.figure(fig, caption=caption, alt=alt, name=name)

    def table(self, frame: pandas.DataFrame, *, caption: str) -> None:
        """Show a frame as an accessible table. See :func:`helpers.report.table_html`."""
        from helpers import report

        report.show_html(report.table_html(frame, caption=caption), text=caption)

    def claims(self) -> None:
        """Show the claims table of the chapter. See :func:`helpers.report.claims_html`."""
        from helpers import report

        report.show_html(report.claims_html(self.ledger), text="The claims of this chapter")

    def explore(
        self,
        fn: Callable[..., Any],
        over: Mapping[str, Sequence[Any]],
        *,
        caption: str,
        alt: str | Callable[..., str],
    ) -> None:
        """Show a result under sliders. See :func:`helpers.widgets.explore`."""
        from helpers import widgets

        widgets.explore(fn, over, caption=caption, alt=alt).show()


def start(
    profile: str,
    *,
    chapter: str,
    seed: int = 0,
    model: str = "",
    device: str | None = None,
    dtype: torch.dtype | None = None,
    threads: int | None = None,
) -> Session:
    """Start a run: set every seed, the device, the threads and the plot style.

    Parameters
    ----------
    profile : {"smoke", "book", "full"}
        Size of the run.
    chapter : str
        Slug of the chapter, such as ``"sae-derivation"``.
    seed : int
        Seed of Python's, NumPy's and torch's generators, 0 or more.
    model : str
        Name of the model that the chapter measures; stands in the verdicts.
    device : str, optional
        ``"cpu"``, ``"cuda"``, ...; by default a CUDA device when there is one.
    dtype : torch.dtype, optional
        By default ``torch.float32``.
    threads : int, optional
        Threads for torch; by default what OMP_NUM_THREADS says, else as many as there are processors.

    Returns
    -------
    Session
        The run, with an empty ledger.

    Raises
    ------
    ValueError
        If the profile is not one of the three, or the chapter is empty.

    Examples
    --------
    >>> start("smoke", chapter="sae-derivation", device="cpu", threads=1).device
    device(type='cpu')
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    if not chapter:
        raise ValueError("the chapter is empty: give its slug, such as 'sae-derivation'")
    import torch

    from helpers import report

    threads = threads or int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    _make_deterministic(seed, threads)
    report.style()
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    ledger = report.Ledger(profile=profile, chapter=chapter, model=model)
    ledger.open(seed=seed, threads=threads, device=str(place))
    return Session(profile, chapter, seed, model, place, dtype or torch.float32, threads, ledger)


def _make_deterministic(seed: int, threads: int) -> None:
    """Seed the three generators and ask torch for repeatable kernels."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - libraries that a chapter calls still draw from it
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats itself only with this
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
