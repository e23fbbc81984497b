"""Keep the ledger of a run, and bring it to the page.

Every number in the prose, every verdict and every figure passes through :class:`Ledger`. Inside a notebook
each entry is also written as an output of its cell, in the format of myst-nb's glue, so that prose can
quote it (with the role ``{glue:text}``) and the press can read the whole ledger out of the executed notebook.
Outside a notebook nothing is shown and the ledger is kept all the same.
"""

from __future__ import annotations

import base64
import difflib
import html
import io
import math
import numbers
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from helpers._html import badge, claims_html, format_interval, format_number, static, table_html

if TYPE_CHECKING:
    import matplotlib.figure

__all__ = [
    "PALETTE",
    "VARIABLES",
    "Claim",
    "Ledger",
    "Record",
    "bootstrap_interval",
    "claims_html",
    "colour",
    "format_interval",
    "format_number",
    "style",
    "t_interval",
    "table_html",
]

# Each keeps a contrast of 3 against white and stays apart from the others for colour-blind readers: the
# tests compute both. The first four are Okabe and Ito's.
PALETTE = {
    "blue": "#0072B2",
    "vermilion": "#D55E00",
    "green": "#009E73",
    "pink": "#CC79A7",
    "indigo": "#332288",
    "brown": "#6B4C12",
    "grey": "#5F5F5F",
    "black": "#1A1A1A",
}

# One colour per named variable through the whole book. Variables that never meet in a chapter may share one.
VARIABLES = {
    "ReLU": PALETTE["pink"],
    "JumpReLU": PALETTE["green"],
    "TopK": PALETTE["blue"],
    "AbsTopK": PALETTE["vermilion"],
    "difference in means": PALETTE["indigo"],
    "PCA": PALETTE["brown"],
    "random": PALETTE["grey"],
    "original": PALETTE["blue"],
    "retrained": PALETTE["vermilion"],
    "pruned": PALETTE["green"],
    "magnitude": PALETTE["indigo"],
    "continued": PALETTE["pink"],
    "as it is": PALETTE["vermilion"],
    "refusal direction": PALETTE["blue"],
    "harmful": PALETTE["vermilion"],
    "harmless": PALETTE["blue"],
    "paper": PALETTE["black"],
    "naive lender": PALETTE["grey"],
    "strategic lender": PALETTE["blue"],
    "adjusted lender": PALETTE["vermilion"],
    "Asian": PALETTE["green"],
    "Black": PALETTE["vermilion"],
    "Hispanic": PALETTE["pink"],
    "White": PALETTE["blue"],
    "joint program": PALETTE["vermilion"],
    "paper's programs": PALETTE["blue"],
    "RQM": PALETTE["green"],
    "exponential": PALETTE["pink"],
    "one bit": PALETTE["indigo"],
    "Laplace": PALETTE["brown"],
    "staircase": PALETTE["grey"],
    "no processing": PALETTE["black"],
    "ESVD": PALETTE["blue"],
    "free vectors": PALETTE["vermilion"],
    "barycentre": PALETTE["green"],
    "parity reduction": PALETTE["pink"],
    "noise": PALETTE["grey"],
    "not white": PALETTE["vermilion"],
    "white": PALETTE["blue"],
    "pooled": PALETTE["grey"],
    "learned groups": PALETTE["blue"],
    "known groups": PALETTE["green"],
    "true minority": PALETTE["vermilion"],
    "larger pooled model": PALETTE["indigo"],
    "rank 1": PALETTE["vermilion"],
    "rank 4": PALETTE["blue"],
    "dense": PALETTE["black"],
    "Kronecker factors": PALETTE["vermilion"],
    "group lasso": PALETTE["blue"],
    "elastic group lasso": PALETTE["pink"],
    "block RigL": PALETTE["green"],
    "iterative pruning": PALETTE["indigo"],
    "random blocks": PALETTE["grey"],
    "multi-scale": PALETTE["vermilion"],
    "single-scale": PALETTE["blue"],
    "U-Net": PALETTE["green"],
    "neurokit2": PALETTE["pink"],
    "wavelet": PALETTE["indigo"],
    "Savitzky-Golay": PALETTE["brown"],
    "noisy": PALETTE["grey"],
    "clean": PALETTE["black"],
}

HOLDS, PARTLY, FAILS = "holds", "partly", "does not hold here"
MIME = "application/papermill.record/"
DPI = 144


class Record(float):
    """Be a recorded number: a float that knows its interval, its samples and its unit.

    Parameters
    ----------
    value : float
        The number.
    name : str
        Its name in the ledger.
    ci : tuple of float, optional
        Low and high end of the 95 % interval.
    n : int, optional
        How many samples stand behind it.
    unit : str
        Unit, empty for a pure number.
    samples : tuple of float, optional
        One value per seed.

    Examples
    --------
    >>> error = Record(0.25, name="error", ci=(0.24, 0.26), n=3)
    >>> error
    error: 0.250 [0.240, 0.260] (n = 3)
    >>> error.high < 0.3, error * 2
    (True, 0.5)
    """

    name: str
    ci: tuple[float, float] | None
    n: int | None
    unit: str
    samples: tuple[float, ...] | None

    def __new__(
        cls,
        value: float,
        *,
        name: str = "",
        ci: tuple[float, float] | None = None,
        n: int | None = None,
        unit: str = "",
        samples: tuple[float, ...] | None = None,
    ) -> Record:
        """Attach the fields to the float; floats are made here, not in ``__init__``."""
        self = super().__new__(cls, value)
        self.name, self.ci, self.n, self.unit, self.samples = name, ci, n, unit, samples
        return self

    @property
    def low(self) -> float:
        """Low end of the interval; the number itself when there is none."""
        return self.ci[0] if self.ci else float(self)

    @property
    def high(self) -> float:
        """High end of the interval; the number itself when there is none."""
        return self.ci[1] if self.ci else float(self)

    def text(self) -> str:
        """Write the number, its interval and its unit."""
        interval = f" {format_interval(*self.ci)}" if self.ci else ""
        return f"{format_number(self)}{interval}{f' {self.unit}' if self.unit else ''}"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that the ledger stores."""
        return {
            "name": self.name,
            "value": float(self),
            "ci": list(self.ci) if self.ci else None,
            "n": self.n,
            "unit": self.unit,
            "samples": list(self.samples) if self.samples else None,
        }

    def __repr__(self) -> str:
        return f"{self.name}: {self.text()}" + (f" (n = {self.n})" if self.n else "")

    __str__ = __repr__


@dataclass(frozen=True)
class Claim:
    """State what a paper says, what was measured, and the verdict computed from it.

    Made by :meth:`Ledger.claim`.

    Parameters
    ----------
    id : str
        Paper and short name, such as ``"2510.00404/prox"``.
    statement : str
        The claim in one sentence.
    paper : str
        The paper's own words or figure, with the section.
    ours, baseline : tuple of str
        Names of the records shown in the row.
    conditions, control : dict
        Label to truth value: what must hold, and the negative controls.
    profile, model : str
        What the verdict was computed on.
    """

    id: str
    statement: str
    paper: str
    ours: tuple[str, ...]
    baseline: tuple[str, ...]
    conditions: dict[str, bool]
    control: dict[str, bool]
    profile: str
    model: str

    @property
    def verdict(self) -> str:
        """One of "holds", "partly", "does not hold here"."""
        met = list(self.conditions.values())
        if not all(self.control.values()) or not any(met):
            return FAILS
        return HOLDS if all(met) else PARTLY

    @property
    def note(self) -> str:
        """What kept the claim from holding; empty when it holds."""
        broken = [label for label, ok in self.control.items() if not ok]
        if broken:
            return f"negative control failed: {', '.join(broken)}"
        unmet = [label for label, ok in self.conditions.items() if not ok and label]
        return f"not met: {', '.join(unmet)}" if unmet else ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that the ledger stores."""
        fields = {**vars(self), "ours": list(self.ours), "baseline": list(self.baseline)}
        return {**fields, "verdict": self.verdict, "note": self.note}

    def _repr_html_(self) -> str:
        note = f" <span>{html.escape(self.note)}</span>" if self.note else ""
        body = f"{badge(self.verdict)} {html.escape(self.statement)}{note}"
        return f'{static("report.css")}<p class="tml-claim">{body}</p>'


@dataclass
class Ledger:
    """Collect the records, claims and figures of one run.

    Parameters
    ----------
    profile, chapter, model : str
        What the run is; they stand in each verdict.

    Examples
    --------
    >>> ledger = Ledger("smoke", "sae-derivation")
    >>> ours = ledger.record("error/AbsTopK", [0.20, 0.21, 0.22])
    >>> theirs = ledger.record("error/TopK", [0.30, 0.31, 0.32])
    >>> claim = ledger.claim(
    ...     "2510.00404/reconstruction", "AbsTopK reconstructs better at equal L0",
    ...     paper="'consistently lower' (Sec. 5)", holds={"k = 16": ours.high < theirs.low},
    ...     ours="error/AbsTopK", baseline="error/TopK", control={"untrained is worse": True},
    ... )
    >>> claim.verdict
    'holds'
    """

    profile: str
    chapter: str
    model: str = ""
    records: dict[str, Record] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)
    figures: dict[str, dict[str, str]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Record:
        """Return the record of that name; a KeyError lists the near ones."""
        if name not in self.records:
            raise KeyError(f"no record {name!r}; {_near(name, self.records)}")
        return self.records[name]

    def open(self, *, seed: int, threads: int, device: str) -> None:
        """Write the head of the ledger: the profile, the seed and the versions."""
        head = {"profile": self.profile, "chapter": self.chapter, "model": self.model, "seed": seed}
        _emit("session", "session", {**head, "threads": threads, "device": device, "versions": _versions()})

    def record(
        self,
        name: str,
        value: Any,
        *,
        ci: tuple[float, float] | None = None,
        n: int | None = None,
        unit: str = "",
    ) -> Record:
        """Record a number, or one number per seed.

        Parameters
        ----------
        name : str
            Name in the ledger, used once.
        value : number or sequence of numbers
            One value, or one per seed: then the record is their mean, with a 95 % t interval.
        ci : tuple of float, optional
            Low and high end of an interval computed elsewhere; replaces the t interval.
        n : int, optional
            How many samples stand behind a single value; counted when `value` is a sequence.
        unit : str
            Unit, such as ``"nats"``. The t interval of a ``"share"`` ends at 0 and 1.

        Returns
        -------
        Record
            A float with the interval and the samples.

        Raises
        ------
        ValueError
            If the name is taken, or a number is not finite, or there are no numbers.
        TypeError
            If the value is neither a number nor a flat sequence of numbers.

        Examples
        --------
        >>> Ledger("smoke", "sae-derivation").record("error", [0.20, 0.22, 0.24])
        error: 0.220 [0.170, 0.270] (n = 3)
        """
        if name in self.records or not name:
            raise ValueError(f"the record name {name!r} is taken or empty: give each number its own name")
        entry = _record(name, value, ci=ci, n=n, unit=unit)
        self.records[name] = entry
        _emit(name, "record", entry.as_dict(), text=float.__repr__(entry))
        if entry.ci:
            _emit(f"{name}.ci", "interval", {"ci": list(entry.ci)}, text=format_interval(*entry.ci))
        return entry

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
    ) -> Claim:
        """Compute the verdict on one claim of a paper.

        Parameters
        ----------
        id : str
            Paper and short name, such as ``"2510.00404/prox"``, used once.
        statement : str
            The claim in one sentence.
        paper : str
            The paper's own words or figure, with the section.
        holds : bool or dict of str to bool
            What must be true. All true: "holds"; some: "partly"; none: "does not hold here".
        ours, baseline : str or sequence of str
            Names of the records shown in the row.
        control : dict of str to bool
            Negative controls, at least one. True means that the control failed as it should. One that is
            False makes the verdict "does not hold here".

        Returns
        -------
        Claim
            The row, with its computed verdict.

        Raises
        ------
        KeyError
            If a name is not in the ledger.
        TypeError
            If a condition or control is not a truth value.
        ValueError
            If the id is taken, or there is no condition, no record or no control.

        Examples
        --------
        >>> ledger = Ledger("smoke", "sae-derivation")
        >>> gap = ledger.record("gap", 2e-9)
        >>> ledger.claim(
        ...     "2510.00404/prox", "TopK minimises its objective", paper="Sec. 3", holds=gap < 1e-6,
        ...     ours="gap", baseline=(), control={"a shifted minimiser is worse": False},
        ... ).verdict
        'does not hold here'
        """
        conditions = _truths(holds if isinstance(holds, Mapping) else {"": holds}, "holds")
        controls = _truths(control, "control")
        shown, beside = _names(ours), _names(baseline)
        if id in self.claims or not (conditions and controls and shown):
            raise ValueError(
                f"claim {id!r} needs an id of its own, a condition, a record of ours and a negative control"
            )
        for name in (*shown, *beside):
            _ = self[name]  # raises with the near names
        row = Claim(id, statement, paper, shown, beside, conditions, controls, self.profile, self.model)
        self.claims[id] = row
        _emit(f"claim:{id}", "claim", row.as_dict(), text=row.verdict)
        return row

    def figure(self, fig: matplotlib.figure.Figure, *, caption: str, alt: str, name: str) -> None:
        """Show a figure, 144 dpi, with its caption and alt text; one figure a cell.

        Parameters
        ----------
        fig : matplotlib.figure.Figure
            The figure; it is closed.
        caption : str
            What the figure shows, with the number of seeds.
        alt : str
            What a reader who cannot see it needs to know, 20 characters or more.
        name : str
            Label for cross-references, used once.

        Raises
        ------
        ValueError
            If the caption is empty, the alt text too short, or the name taken.
        """
        if not caption.strip() or len(alt.strip()) < 20:
            raise ValueError(f"figure {name!r} needs a caption and an alt text of 20 characters or more")
        if name in self.figures or not name:
            raise ValueError(f"the figure name {name!r} is taken or empty: give each figure its own")
        self.figures[name] = {"name": name, "caption": caption, "alt": alt}
        image = render(fig)
        _emit(name, "figure", self.figures[name], text=alt)
        _display({"image/png": base64.b64encode(image).decode(), "text/plain": alt})


def style() -> None:
    """Set the one plot style of the book: colour-blind safe, legible in a column of 700 px.

    Examples
    --------
    >>> import matplotlib
    >>> style()
    >>> matplotlib.rcParams["figure.facecolor"]
    'white'
    """
    import matplotlib
    from cycler import cycler

    cycle = cycler(color=[PALETTE[name] for name in PALETTE if name != "black"])
    matplotlib.rcParams.update(_STYLE)
    matplotlib.rcParams["axes.prop_cycle"] = cycle


_STYLE: Any = {
    "figure.figsize": (7.0, 3.6),
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "figure.constrained_layout.use": True,
    "savefig.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 11,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "axes.facecolor": "white",
    "axes.edgecolor": "#4D4D4D",
    "axes.labelcolor": "#262626",
    "text.color": "#1A1A1A",
    "xtick.color": "#4D4D4D",
    "ytick.color": "#4D4D4D",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
    "errorbar.capsize": 3,
}


def colour(name: str) -> str:
    """Return the colour that a named variable has all through the book.

    Parameters
    ----------
    name : str
        A key of ``VARIABLES``.

    Returns
    -------
    str
        A hex colour.

    Raises
    ------
    KeyError
        If the variable has no colour yet.

    Examples
    --------
    >>> colour("AbsTopK")
    '#D55E00'
    """
    if name not in VARIABLES:
        raise KeyError(f"no colour for {name!r}; {_near(name, VARIABLES)}; new ones go into report.VARIABLES")
    return VARIABLES[name]


def t_interval(samples: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Compute Student's t interval of a mean.

    Parameters
    ----------
    samples : iterable of float
        Two or more independent values, such as one per seed.
    level : float
        Coverage, between 0 and 1.

    Returns
    -------
    tuple of float
        Low and high end.

    Raises
    ------
    ValueError
        If there are fewer than two samples.

    Examples
    --------
    >>> low, high = t_interval([1.0, 2.0, 3.0])
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    from scipy import stats

    values = _samples(samples)
    half = stats.sem(values) * stats.t.ppf((1 + level) / 2, len(values) - 1)
    return float(values.mean() - half), float(values.mean() + half)


def bootstrap_interval(
    samples: Iterable[float],
    statistic: Callable[..., Any] = np.mean,
    *,
    level: float = 0.95,
    seed: int = 0,
    n: int = 2000,
) -> tuple[float, float]:
    """Compute a bootstrap interval (bias-corrected and accelerated) of any statistic.

    Parameters
    ----------
    samples : iterable of float
        Two or more independent values.
    statistic : callable
        Function of an array that takes ``axis``, such as ``np.median``.
    level : float
        Coverage, between 0 and 1.
    seed : int
        Seed of the resampling.
    n : int
        How many resamples.

    Returns
    -------
    tuple of float
        Low and high end; both the statistic itself when all samples are equal.

    Raises
    ------
    ValueError
        If there are fewer than two samples.

    Examples
    --------
    >>> low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0], np.median)
    >>> low <= 2.5 <= high
    True
    """
    from scipy import stats

    values = _samples(samples)
    if np.ptp(values) == 0:
        return float(values[0]), float(values[0])
    result = stats.bootstrap(
        (values,), statistic, n_resamples=n, confidence_level=level, rng=np.random.default_rng(seed)
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def render(fig: matplotlib.figure.Figure, *, kind: str = "png", **options: Any) -> bytes:
    """Draw a figure into bytes at 144 dpi and close it."""
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    fig.savefig(buffer, format=kind, dpi=DPI, bbox_inches="tight", pad_inches=0.08, **options)
    plt.close(fig)
    return buffer.getvalue()


def show_html(body: str, *, text: str) -> None:
    """Show HTML in a notebook, with a plain text for readers of another kind."""
    _display({"text/html": body, "text/plain": text})


# What follows serves the functions above.


def _record(name: str, value: Any, *, ci: Any, n: int | None, unit: str) -> Record:
    """Check a value or its samples and make a record of it."""
    samples = None if _is_number(value) else _flat_samples(name, value)
    if samples and n not in (None, len(samples)):
        raise ValueError(f"record {name!r}: n = {n} was given with {len(samples)} samples; leave n out")
    centre = math.fsum(samples) / len(samples) if samples else float(value)
    if samples and len(samples) > 1 and ci is None:
        low, high = t_interval(samples)
        ci = (max(low, 0.0), min(high, 1.0)) if unit == "share" else (low, high)
    ends = (float(ci[0]), float(ci[1])) if ci is not None else None
    if not all(map(math.isfinite, (centre, *(samples or ()), *(ends or ())))):
        raise ValueError(f"record {name!r} is not finite ({value!r}): nothing recorded; look at the run")
    if ends and ends[0] > ends[1]:
        raise ValueError(f"record {name!r}: the interval {ends} is upside down; give (low, high)")
    return Record(centre, name=name, ci=ends, n=len(samples) if samples else n, unit=unit, samples=samples)


def _is_number(value: Any) -> bool:
    """Tell a single number (also a NumPy scalar or a tensor of no dimension) from a sequence."""
    if value is None or isinstance(value, bool | np.bool_ | str):
        raise TypeError(f"{value!r} is not a number: truth values belong in run.claim(..., holds=)")
    return isinstance(value, numbers.Real) or getattr(value, "ndim", None) == 0


def _flat_samples(name: str, value: Any) -> tuple[float, ...]:
    """Turn a sequence, array or tensor of one dimension into a tuple of floats."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError) as error:
        raise TypeError(f"record {name!r}: {value!r} is neither a number nor a list of numbers") from error
    if array.ndim != 1 or not array.size:
        raise ValueError(f"record {name!r}: shape {array.shape} was given; give one number per seed")
    return tuple(array.tolist())


def _samples(samples: Iterable[float]) -> np.ndarray:
    """Collect two or more samples."""
    values = np.asarray(list(samples), dtype=float)
    if len(values) < 2:
        raise ValueError(f"{len(values)} sample was given: an interval needs two or more")
    return values


def _truths(values: Mapping[str, Any], what: str) -> dict[str, bool]:
    """Check that every value is a truth value."""
    for label, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{what} {label!r} is {value!r}: compare recorded values so that it is a bool")
    return {label: bool(value) for label, value in values.items()}


def _names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Accept one name or several."""
    return (names,) if isinstance(names, str) else tuple(names)


def _near(name: str, known: Iterable[str]) -> str:
    """Say which known names look like the one asked for."""
    names = list(known)
    near = difflib.get_close_matches(name, names, n=5, cutoff=0.4) or names[:5]
    return f"near names: {', '.join(near)}" if near else "there is none yet"


def _versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    found = {"python": platform.python_version()}
    for label, package in (("torch", "torch"), ("numpy", "numpy"), ("helpers", "trustworthy-ml-book")):
        try:
            found[label] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[label] = "not installed"
    return found


def _emit(name: str, kind: str, payload: dict[str, Any], *, text: str = "") -> None:
    """Write one entry of the ledger as an output of the cell, in the format of myst-nb's glue."""
    plain = text or f"{payload.get('profile')} profile, seed {payload.get('seed')}"
    data = {f"{MIME}text/plain": plain, f"{MIME}application/vnd.tml.{kind}+json": payload}
    _display(data, metadata={"scrapbook": {"name": name, "mime_prefix": MIME}})


def _display(data: dict[str, Any], *, metadata: dict[str, Any] | None = None) -> None:
    """Show a bundle when a notebook is listening."""
    if in_notebook():
        from IPython.display import display

        display(data, metadata=metadata or {}, raw=True)


def in_notebook() -> bool:
    """Tell whether an IPython shell is listening."""
    shell = sys.modules.get("IPython")
    return shell is not None and shell.get_ipython() is not None
