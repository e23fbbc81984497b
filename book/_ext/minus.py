"""Set the numbers that a run puts into the prose as print does: a true minus sign, and no minus before nought."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes

NOUGHT = re.compile(r"(?<![\w.])-(?=0(?:\.0*)?(?![\d.e]))")
MINUS = re.compile(r"(?<![\w.])-(?=[\d.])")


def typeset(text: str) -> str:
    """Return the text of a number with its sign set.

    Examples
    --------
    >>> typeset("-0.31"), typeset("-0.00"), typeset("[-0.16, 0.03]"), typeset("2e-05"), typeset("int8-4")
    ('−0.31', '0.00', '[−0.16, 0.03]', '2e-05', 'int8-4')
    """
    return MINUS.sub("−", NOUGHT.sub("", text))


def set_numbers(app: Any, doctree: Any, docname: str) -> None:
    """Set every number of the prose that comes from a run."""
    for pasted in doctree.findall(nodes.inline):
        if "pasted-text" in pasted["classes"]:
            for text in list(pasted.findall(nodes.Text)):
                pasted.replace(text, nodes.Text(typeset(str(text))))


def setup(app: Any) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("doctree-resolved", set_numbers)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
