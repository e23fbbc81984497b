"""The tables that a command ends with."""

from __future__ import annotations

from collections.abc import Sequence


def render(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table in plain text.

    Examples
    --------
    >>> print(render(["chapter", "time"], [["a", "1 s"]]))
    chapter  time
    -------  ----
    a        1 s
    """
    cells = [[str(value) for value in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["  ".join(v.ljust(w) for v, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    r"""Return a table in Markdown; bars and line breaks in the cells cannot break it.

    Examples
    --------
    >>> print(markdown(["a"], [["1|2"]]))
    | a |
    | --- |
    | 1\|2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(_cell(value) for value in row) + " |" for row in lines)


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def seconds(value: float | None) -> str:
    """Return a duration for people.

    Examples
    --------
    >>> seconds(7.25), seconds(192)
    ('7.2 s', '3 min 12 s')
    """
    if value is None:
        return "-"
    return f"{value:.1f} s" if value < 60 else f"{int(value) // 60} min {int(value) % 60} s"


def memory(value: float | None) -> str:
    """Return a number of bytes for people, in GB of a thousand million.

    Examples
    --------
    >>> memory(2_345_000_000)
    '2.35 GB'
    """
    return "-" if value is None else f"{value / 1e9:.2f} GB"
