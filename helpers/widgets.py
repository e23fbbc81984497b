"""Let a reader move a slider and see the result change, with or without a kernel.

:func:`explore` calls a function once for every setting and keeps what it returned. In a live notebook the
frames sit under ipywidgets sliders; on the page they sit in one block of HTML with ordinary range inputs,
which arrow keys move and screen readers read, and a few lines of script inside the block. Nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.util
import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from helpers import report
from helpers._html import static

__all__ = ["MAX_BYTES", "MAX_FRAMES", "Explorer", "explore"]

MAX_FRAMES = 24
MAX_BYTES = 600_000


@dataclass(frozen=True)
class Explorer:
    """Hold rendered frames and the sliders that choose among them.

    Made by :func:`explore`.

    Parameters
    ----------
    labels : dict of str to tuple of str
        Each slider's name and the words for its positions.
    frames : tuple of str
        HTML of every setting, the last slider moving fastest.
    caption : str
        What the explorer shows.
    """

    labels: dict[str, tuple[str, ...]]
    frames: tuple[str, ...]
    caption: str

    def html(self) -> str:
        """Write the explorer as one block of HTML that needs no kernel and no network."""
        mark = hashlib.sha256("".join((self.caption, *self.frames)).encode()).hexdigest()[:10]
        sliders = "".join(_slider(name, values, f"tml-{mark}-{i}") for i, (name, values) in self._numbered())
        frames = "".join(
            f'<div class="tml-frame" data-frame{" hidden" if i else ""}>{frame}</div>'
            for i, frame in enumerate(self.frames)
        )
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>"
        return (
            f'<figure class="tml-explorer">{static("explorer.css")}'
            f'<div class="tml-controls">{sliders}</div><div class="tml-stage">{frames}</div>{caption}'
            f"{static('explorer.js')}</figure>"
        )

    def live(self) -> Any:
        """Build the same explorer out of ipywidgets, for a notebook with a kernel.

        Returns
        -------
        ipywidgets.VBox
            The sliders above the frame.
        """
        import ipywidgets

        sliders = [
            ipywidgets.SelectionSlider(
                options=[(word, i) for i, word in enumerate(values)], description=name,
                style={"description_width": "initial"},
            )
            for name, values in self.labels.items()
        ]  # fmt: skip
        stage = ipywidgets.HTML(self.frames[0])

        def show(_: Any) -> None:
            stage.value = self.frames[self.index(*(slider.value for slider in sliders))]

        for slider in sliders:
            slider.observe(show, names="value")
        return ipywidgets.VBox([*sliders, stage, ipywidgets.HTML(html.escape(self.caption))])

    def index(self, *positions: int) -> int:
        """Return which frame belongs to these slider positions.

        Examples
        --------
        >>> Explorer({"a": ("1", "2"), "b": ("x", "y", "z")}, ("",) * 6, "A caption").index(1, 2)
        5
        """
        found = 0
        for position, values in zip(positions, self.labels.values(), strict=True):
            found = found * len(values) + position
        return found

    def show(self) -> None:
        """Show the explorer in a notebook; do nothing elsewhere."""
        if not report.in_notebook():
            return
        if os.environ.get("TML_PRESS") == "1" or importlib.util.find_spec("ipywidgets") is None:
            report.show_html(self.html(), text=self.caption)
        else:
            from IPython.display import display

            display(self.live())

    def _numbered(self) -> list[tuple[int, tuple[str, tuple[str, ...]]]]:
        return list(enumerate(self.labels.items()))


def explore(
    fn: Callable[..., Any],
    over: Mapping[str, Sequence[Any]],
    *,
    caption: str,
    alt: str | Callable[..., str],
) -> Explorer:
    """Render every setting of a function once and put the results under sliders.

    Parameters
    ----------
    fn : callable
        Takes the names in `over` as keyword arguments; returns a matplotlib figure, HTML as a string, or a
        pandas frame.
    over : dict of str to sequence
        Each slider's name and its values; at most 24 settings in all.
    caption : str
        What the explorer shows.
    alt : str or callable
        Alt text of the figures, 20 characters or more; the setting is added to a string, and a callable is
        given the setting, so that it can be computed from the data.

    Returns
    -------
    Explorer
        The frames; shows itself with ``.show()``.

    Raises
    ------
    ValueError
        If there is nothing to move, there are more than 24 settings, the frames exceed 600 kB, or the
        caption or the alt text is too short.
    TypeError
        If `fn` returns something that cannot be shown.

    Examples
    --------
    >>> explorer = explore(
    ...     lambda layer: f"<p>Layer {layer}</p>", {"layer": [8, 15]},
    ...     caption="One line for each layer", alt="A line that names its layer",
    ... )
    >>> explorer.frames
    ('<p>Layer 8</p>', '<p>Layer 15</p>')
    """
    settings = _settings(over)
    if not caption.strip():
        raise ValueError("an explorer needs a caption: say what the reader sees change")
    frames = tuple(_frame(fn(**setting), _alt(alt, setting), caption) for setting in settings)
    size = sum(map(len, frames))
    if size > MAX_BYTES:
        raise ValueError(
            f"{len(frames)} frames take {size / 1000:,.0f} kB, more than {MAX_BYTES // 1000}: "
            "draw less in each, make the figure smaller, or offer fewer settings"
        )
    labels = {name: tuple(_label(value) for value in values) for name, values in over.items()}
    return Explorer(labels, frames, caption)


def _settings(over: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """List every combination of values, the last name moving fastest."""
    settings = [dict(zip(over, values, strict=True)) for values in itertools.product(*over.values())]
    if not over or not settings:
        raise ValueError(f"nothing to explore in {dict(over)!r}: give each name at least one value")
    if len(settings) > MAX_FRAMES:
        raise ValueError(f"{len(settings)} settings, more than {MAX_FRAMES}: offer fewer values")
    return settings


def _label(value: Any) -> str:
    """Write a value for a slider."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _alt(alt: str | Callable[..., str], setting: Mapping[str, Any]) -> str:
    """Return the alt text of one frame."""
    if callable(alt):
        words = alt(**setting)
    else:
        words = f"{alt} ({', '.join(f'{name}: {_label(value)}' for name, value in setting.items())})"
    if len(words.strip()) < 20 or (isinstance(alt, str) and len(alt.strip()) < 20):
        raise ValueError(
            f"the alt text {words!r} is too short: tell what the frame shows, 20 characters or more"
        )
    return words


def _frame(result: Any, alt: str, caption: str) -> str:
    """Turn what a function returned into HTML."""
    if isinstance(result, str):
        return result
    if hasattr(result, "savefig"):
        image = report.render(result, kind="webp", pil_kwargs={"lossless": True, "quality": 100})
        source = base64.b64encode(image).decode()
        return f'<img src="data:image/webp;base64,{source}" alt="{html.escape(alt)}">'
    if hasattr(result, "to_frame"):  # a pandas Series
        result = result.to_frame()
    if hasattr(result, "itertuples"):
        return report.table_html(result, caption=caption)
    raise TypeError(f"the function returned {type(result).__name__}: return a figure, HTML text or a frame")


def _slider(name: str, values: Sequence[str], key: str) -> str:
    """Write one labelled range input and the output that shows its value."""
    label, words = html.escape(name), html.escape(json.dumps(list(values)))
    first, room = html.escape(values[0]), min(max(map(len, values)), 24)
    return (
        f'<div class="tml-control"><label for="{key}">{label}</label>'
        f'<input type="range" id="{key}" min="0" max="{len(values) - 1}" step="1" value="0" '
        f'autocomplete="off" aria-valuetext="{first}" data-labels="{words}">'
        f'<output for="{key}" style="min-width:{room}ch">{first}</output></div>'
    )
