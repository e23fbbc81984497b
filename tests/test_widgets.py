"""Explorers: frames, limits, the static block and the live sliders."""

import re
from typing import Any

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup, Tag
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from helpers import report, widgets
from helpers.widgets import Explorer, explore

WORDS: dict[str, Any] = {"caption": "What changes.", "alt": "A line that names its setting"}


def line(layer: int, sign: str = "+") -> str:
    return f"<p>{sign}{layer}</p>"


@pytest.fixture
def explorer() -> Explorer:
    return explore(line, {"layer": [8, 15, 20], "sign": ["+", "<"]}, **WORDS)


def page(explorer: Explorer) -> Tag:
    return BeautifulSoup(explorer.html(), "html.parser")


def test_every_setting_has_a_frame_and_the_last_slider_moves_fastest(explorer: Explorer) -> None:
    assert explorer.frames == tuple(f"<p>{s}{n}</p>" for n in (8, 15, 20) for s in "+<")
    assert explorer.labels == {"layer": ("8", "15", "20"), "sign": ("+", "<")}


@given(st.lists(st.integers(1, 4), min_size=1, max_size=2))
def test_slider_positions_find_their_frame(sizes: list[int]) -> None:
    names = "abc"[: len(sizes)]
    explorer = explore(
        lambda **setting: str([setting[name] for name in names]),
        {name: list(range(size)) for name, size in zip(names, sizes, strict=True)},
        **WORDS,
    )
    for position in np.ndindex(*sizes):
        assert explorer.frames[explorer.index(*position)] == str(list(position))


def test_the_block_shows_its_first_frame_without_script(explorer: Explorer) -> None:
    hidden = [frame.has_attr("hidden") for frame in page(explorer).select("[data-frame]")]
    assert hidden == [False] + [True] * 5


def test_every_slider_has_a_label_a_value_and_words(explorer: Explorer) -> None:
    block = page(explorer)
    for slider, name, last, first in zip(
        block.select("input[type=range]"), ("layer", "sign"), ("2", "1"), ("8", "+"), strict=True
    ):
        assert block.select_one(f"label[for={slider['id']}]").text == name
        assert block.select_one(f"output[for={slider['id']}]").text == first
        assert (slider["min"], slider["max"], slider["aria-valuetext"]) == ("0", last, first)


def test_the_block_fetches_nothing_and_leaves_no_global(explorer: Explorer) -> None:
    block = page(explorer)
    assert not re.search(r"https?:|@import|url\(|src=", explorer.html())
    assert block.script.text.startswith("(root =>")
    assert block.figcaption.text == WORDS["caption"]


def test_explorers_on_one_page_have_ids_of_their_own(explorer: Explorer) -> None:
    other = explore(line, {"layer": [8, 15, 20]}, caption="Another.", alt=WORDS["alt"])
    ids = [slider["id"] for block in (explorer, other) for slider in page(block).select("input")]
    assert len(set(ids)) == len(ids) == 3
    assert explorer.html() == explorer.html()


def test_a_figure_becomes_a_picture_with_alt_text() -> None:
    def draw(k: int) -> Figure:
        fig, axis = plt.subplots()
        axis.plot([0, k])
        return fig

    block = page(explore(draw, {"k": [1, 2]}, **WORDS))
    assert [img["alt"] for img in block.select("img")] == [f"{WORDS['alt']} (k: {k})" for k in (1, 2)]
    assert all(img["src"].startswith("data:image/webp;base64,") for img in block.select("img"))
    assert not plt.get_fignums()


def test_alt_text_can_be_computed_from_the_setting() -> None:
    assert widgets._alt(lambda k: f"A line that rises to {k}", {"k": 2}) == "A line that rises to 2"


def test_floats_are_written_short() -> None:
    explorer = explore(lambda x: str(x), {"x": [0.1 + 0.2, 2.0]}, **WORDS)
    assert explorer.labels == {"x": ("0.3", "2")}


@pytest.mark.parametrize(
    "data", [pd.DataFrame({"a": [1]}), pd.Series([1], name="a")], ids=["frame", "series"]
)
def test_pandas_becomes_a_table(data: Any) -> None:
    block = page(explore(lambda k: data, {"k": [1]}, **WORDS))
    assert block.select_one("th[scope=col]").text == "a"


@pytest.mark.parametrize(
    ("over", "change", "words"),
    [
        ({}, {}, "nothing to explore"),
        ({"layer": []}, {}, "nothing to explore"),
        ({"layer": list(range(25))}, {}, "25 settings, more than 24"),
        ({"layer": [1]}, {"caption": ""}, "caption"),
        ({"layer": [1]}, {"alt": "short"}, "too short"),
        ({"layer": [1]}, {"alt": lambda layer: "short"}, "too short"),
    ],
)
def test_what_cannot_be_explored_is_refused(over: Any, change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explore(line, over, **(WORDS | change))


def test_frames_stay_under_600_kB() -> None:
    with pytest.raises(ValueError, match=r"2 frames take 700 kB, more than 600"):
        explore(lambda k: "x" * 350_000, {"k": [1, 2]}, **WORDS)


def test_what_cannot_be_shown_is_named() -> None:
    with pytest.raises(TypeError, match="returned int"):
        explore(lambda k: k, {"k": [1]}, **WORDS)


def test_live_sliders_swap_the_same_frames(explorer: Explorer) -> None:
    box = explorer.live()
    layer, sign, stage, caption = box.children
    assert (layer.description, stage.value, caption.value) == ("layer", "<p>+8</p>", WORDS["caption"])
    layer.value, sign.value = 2, 1
    assert stage.value == "<p><20</p>"


@pytest.mark.parametrize("press", ["1", "0"])
def test_the_press_gets_the_block_and_a_live_kernel_the_sliders(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch, press: str
) -> None:
    given_: list[Any] = []
    monkeypatch.setattr(report, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda data, **_: given_.append(data))
    monkeypatch.setenv("TML_PRESS", press)
    explorer.show()
    kind = "dict" if press == "1" else "VBox"
    assert [type(data).__name__ for data in given_] == [kind]


def test_nothing_is_shown_where_no_notebook_listens(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_: list[Any] = []
    monkeypatch.setattr(IPython.display, "display", lambda data, **_: given_.append(data))
    explorer.show()
    assert given_ == []
