"""Write the tables of a page: numbers as readers expect them, headers that screen readers find."""

from __future__ import annotations

import html
import math
import numbers
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

    import helpers.report

__all__ = ["badge", "claims_html", "format_interval", "format_number", "static", "table_html"]

MARKS = {"holds": "✓", "partly": "◐", "does not hold here": "✗"}
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def format_number(value: float) -> str:
    """Write a number with three significant digits, as a reader expects it.

    Examples
    --------
    >>> [format_number(x) for x in (0.25, 12, 104_123.4, 2.5e-9, -3.14159)]
    ['0.250', '12', '104,123', '2.50 × 10⁻⁹', '−3.14']
    """
    value = float(value)
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        text = f"{mantissa} × 10{str(int(exponent)).translate(SUPERSCRIPT)}"
    elif value.is_integer() or size >= 1000:
        text = f"{value:,.0f}"
    else:
        text = f"{value:#.3g}".rstrip(".")
    return text.replace("-", "−")


def format_interval(low: float, high: float) -> str:
    """Write an interval.

    Examples
    --------
    >>> format_interval(0.2471, 0.25)
    '[0.247, 0.250]'
    """
    return f"[{format_number(low)}, {format_number(high)}]"


def table_html(frame: pandas.DataFrame, *, caption: str) -> str:
    """Write a frame as an accessible HTML table that scrolls by itself when the page is narrow.

    Parameters
    ----------
    frame : pandas.DataFrame
        The table. A named or non-default index becomes the row headers.
    caption : str
        What the table shows.

    Returns
    -------
    str
        HTML with its style.

    Raises
    ------
    ValueError
        If the caption is empty or the frame has no rows.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"error": [0.25]}, index=pd.Index(["TopK"], name="encoder"))
    >>> '<th scope="row">TopK</th><td class="tml-number">0.250</td>' in table_html(frame, caption="Error")
    True
    """
    if not caption.strip() or frame.empty:
        raise ValueError("a table needs a caption and at least one row")
    plain = frame.index.names == [None] and list(frame.index) == list(range(len(frame)))
    shown = frame if plain else frame.reset_index(names=_index_names(frame))
    heads = len(shown.columns) - len(frame.columns)
    numeric = [_is_numeric(shown.iloc[:, column]) for column in range(len(shown.columns))]
    head = "".join(
        f'<th scope="col"{_align(right)}>{html.escape(_flat(name))}</th>'
        for name, right in zip(shown.columns, numeric, strict=True)
    )
    rows = (_row(values, heads, numeric) for values in shown.itertuples(index=False, name=None))
    return _table(f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>", caption)


def claims_html(ledger: helpers.report.Ledger) -> str:
    """Write the claims table: what the paper says, what was measured, and the verdict.

    Parameters
    ----------
    ledger : helpers.report.Ledger
        A ledger with at least one claim.

    Returns
    -------
    str
        HTML with its style. Each claim is a group of rows; on a narrow page its cells stand under each other.

    Raises
    ------
    ValueError
        If there is no claim yet.

    Examples
    --------
    >>> from helpers.report import Ledger
    >>> ledger = Ledger("smoke", "sae-derivation")
    >>> gap = ledger.record("gap", 2e-9)
    >>> claim = ledger.claim("2510.00404/prox", "TopK minimises its objective", paper="Sec. 3",
    ...     holds=gap < 1e-6, ours="gap", baseline=(), control={"a shifted one is worse": True})
    >>> "TopK minimises its objective" in claims_html(ledger)
    True
    """
    if not ledger.claims:
        raise ValueError("no claim was made in this run: call run.claim(...) first")
    heads = ("The paper says", "We measured", "Baseline", "Negative control")
    head = "".join(f'<th scope="col" role="columnheader">{name}</th>' for name in heads)
    groups = "".join(_claim_rows(claim, ledger, heads) for claim in ledger.claims.values())
    where = ", ".join(part for part in (f"{ledger.profile} profile", ledger.model) if part)
    caption = f"The claims of this chapter ({where}; intervals are 95 %)"
    body = f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>{groups}'
    return _table(body, caption, kind=" tml-claims")


def badge(verdict: str) -> str:
    """Write a verdict as a label: a sign and words, not colour alone.

    Examples
    --------
    >>> badge("partly")
    '<span class="tml-verdict tml-partly"><span aria-hidden="true">◐</span> partly</span>'
    """
    sign = f'<span aria-hidden="true">{MARKS[verdict]}</span>'
    return f'<span class="tml-verdict tml-{verdict.split()[0]}">{sign} {verdict}</span>'


def static(name: str) -> str:
    """Read a style sheet or script of this package; a style sheet comes as an element.

    Examples
    --------
    >>> static("report.css")[:7]
    '<style>'
    """
    text = resources.files("helpers").joinpath("static", name).read_text("utf-8").strip()
    kind = "style" if name.endswith(".css") else "script"
    return f"<{kind}>{text}</{kind}>"


def _table(body: str, caption: str, *, kind: str = "") -> str:
    """Wrap rows into a captioned table in a region that scrolls by itself."""
    words = html.escape(caption)
    region = f'class="tml-scroll{kind}" role="region" aria-label="{words}" tabindex="0"'
    table = f'<table class="tml-table" role="table"><caption>{words}</caption>{body}</table>'
    return f"{static('report.css')}<div {region}>{table}</div>"


def _row(values: Sequence[Any], heads: int, numeric: Sequence[bool]) -> str:
    """Write one row; the first `heads` cells are its headers."""
    cells = []
    for position, (value, right) in enumerate(zip(values, numeric, strict=True)):
        if position < heads:
            cells.append(f'<th scope="row">{_cell(value)}</th>')
        else:
            cells.append(f"<td{_align(right)}>{_cell(value)}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _cell(value: Any) -> str:
    """Write one value of a table; a recorded number brings its interval."""
    if hasattr(value, "samples"):
        return html.escape(value.text())
    if _counts(value):
        return "–" if math.isnan(value) else format_number(float(value))
    return html.escape(str(value))


def _align(right: bool) -> str:
    """Mark a cell of numbers."""
    return ' class="tml-number"' if right else ""


def _counts(value: Any) -> bool:
    """Tell a number from a truth value and from words."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_numeric(column: Any) -> bool:
    """Tell whether every value of a column is a number."""
    return all(map(_counts, column))


def _index_names(frame: pandas.DataFrame) -> list[str]:
    """Name the levels of an index; a level without a name gets blanks."""
    return [" " * level if name is None else str(name) for level, name in enumerate(frame.index.names)]


def _flat(name: Any) -> str:
    """Write a column name, also one of several levels."""
    return " / ".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else str(name)


def _claim_rows(claim: helpers.report.Claim, ledger: helpers.report.Ledger, heads: Sequence[str]) -> str:
    """Write one claim: a row with its verdict, and a row with what stands behind it."""
    note = f'<span class="tml-note">{html.escape(claim.note)}</span>' if claim.note else ""
    title = (
        f'<span class="tml-statement">{html.escape(claim.statement)} '
        f'<span class="tml-id">{html.escape(claim.id)}</span></span>'
        f'<span class="tml-outcome">{badge(claim.verdict)}{note}</span>'
    )
    cells = (
        html.escape(claim.paper),
        _measured(claim.ours, ledger),
        _measured(claim.baseline, ledger),
        _controls(claim.control),
    )
    row = "".join(
        f'<td role="cell" data-head="{head}">{cell}</td>' for head, cell in zip(heads, cells, strict=True)
    )
    first = f'<th scope="rowgroup" role="rowheader" colspan="{len(heads)}"><div>{title}</div></th>'
    return f'<tbody role="rowgroup"><tr role="row">{first}</tr><tr role="row">{row}</tr></tbody>'


def _measured(names: Sequence[str], ledger: helpers.report.Ledger) -> str:
    """Write recorded values, each under its name."""
    if not names:
        return "–"
    items = "".join(
        f"<div><dt>{_breakable(name)}</dt><dd>{html.escape(ledger[name].text())}</dd></div>" for name in names
    )
    return f"<dl>{items}</dl>"


def _breakable(name: str) -> str:
    """Let a long name break after its separators."""
    words = html.escape(name)
    for mark in "/._-":
        words = words.replace(mark, f"{mark}<wbr>")
    return words


def _controls(control: Mapping[str, bool]) -> str:
    """Write the negative controls, each with what came of it."""
    items = "".join(
        f"<li>{html.escape(label)}: <strong>{'passed' if ok else 'failed'}</strong></li>"
        for label, ok in control.items()
    )
    return f"<ul>{items}</ul>"
