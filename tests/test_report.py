"""The ledger, verdicts, intervals, tables and colours."""

import base64
import itertools
import json
import math
from typing import Any

import IPython.display
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from bs4 import BeautifulSoup
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from scipy import stats

from helpers import report
from helpers.report import Claim, Ledger, Record, bootstrap_interval, format_number, t_interval, table_html

finite = st.floats(-1e6, 1e6)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("smoke", "sae-derivation", model="tiny")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pretend that a notebook is listening, and collect what it is given."""
    outputs: list[tuple[dict[str, Any], dict[str, Any]]] = []
    monkeypatch.setattr(report, "in_notebook", lambda: True)
    monkeypatch.setattr(
        IPython.display, "display", lambda data, *, metadata, raw: outputs.append((data, metadata))
    )
    return outputs


def claim(ledger: Ledger, **change: Any) -> Claim:
    """Make a claim about a record named ``error``."""
    if "error" not in ledger.records:
        ledger.record("error", 0.5)
    given_ = {"paper": "Sec. 1", "holds": True, "ours": "error", "baseline": (), "control": {"null": True}}
    return ledger.claim(change.pop("id", "0/x"), "A statement", **(given_ | change))


# Records


@given(st.lists(finite, min_size=2, max_size=8))
def test_a_record_of_samples_is_their_mean_with_a_t_interval(samples: list[float]) -> None:
    entry = Ledger("smoke", "x").record("a", samples)
    assert entry == pytest.approx(np.mean(samples), abs=1e-6)
    assert entry.ci == t_interval(samples)
    assert entry.low <= entry + 1e-9
    assert entry.high >= entry - 1e-9
    assert (entry.n, entry.samples) == (len(samples), tuple(samples))


def test_a_record_is_a_float(ledger: Ledger) -> None:
    entry = ledger.record("a", 0.25, ci=(0.2, 0.3), n=7, unit="nats")
    assert isinstance(entry, float)
    assert (entry < 0.3, entry * 2, f"{entry:.3f}", json.dumps(entry)) == (True, 0.5, "0.250", "0.25")
    assert (entry.low, entry.high, entry.n, entry.unit) == (0.2, 0.3, 7, "nats")
    assert repr(entry) == "a: 0.250 [0.200, 0.300] nats (n = 7)"


def test_without_an_interval_both_ends_are_the_number(ledger: Ledger) -> None:
    entry = ledger.record("a", 2)
    assert (entry.low, entry.high, entry.ci, entry.samples) == (2.0, 2.0, None, None)


@pytest.mark.parametrize(
    "value", [0.5, np.float32(0.5), torch.tensor(0.5), np.array(0.5)], ids=["float", "numpy", "torch", "0-d"]
)
def test_numbers_of_every_library_are_taken(ledger: Ledger, value: Any) -> None:
    assert ledger.record("a", value) == 0.5


@pytest.mark.parametrize("values", [[1, 2], (1.0, 2.0), np.array([1, 2]), torch.tensor([1.0, 2.0])])
def test_samples_of_every_library_are_taken(ledger: Ledger, values: Any) -> None:
    assert ledger.record("a", values).samples == (1.0, 2.0)


def test_one_sample_has_no_interval(ledger: Ledger) -> None:
    entry = ledger.record("a", [0.5])
    assert (entry.ci, entry.n) == (None, 1)


def test_a_given_interval_replaces_the_t_interval(ledger: Ledger) -> None:
    assert ledger.record("a", [1.0, 2.0], ci=(1.1, 1.9)).ci == (1.1, 1.9)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (math.nan, {}),
        (math.inf, {}),
        ([1.0, math.nan], {}),
        (1.0, {"ci": (0.0, math.inf)}),
        (1.0, {"ci": (2.0, 0.0)}),
        ([1.0, 2.0], {"n": 3}),
        ([], {}),
        ([[1.0]], {}),
    ],
)
def test_a_bad_number_leaves_nothing_behind(
    ledger: Ledger, shown: list[Any], value: Any, options: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="'a'"):
        ledger.record("a", value, **options)
    assert (ledger.records, shown) == ({}, [])


@pytest.mark.parametrize("value", [True, "0.5", np.bool_(False), ["x"], None])
def test_what_is_no_number_is_refused(ledger: Ledger, value: Any) -> None:
    with pytest.raises(TypeError, match="number"):
        ledger.record("a", value)
    assert ledger.records == {}


def test_a_name_is_used_once(ledger: Ledger) -> None:
    ledger.record("a", 1)
    with pytest.raises(ValueError, match="taken"):
        ledger.record("a", 2)
    assert ledger["a"] == 1


def test_a_missing_name_lists_the_near_ones(ledger: Ledger) -> None:
    with pytest.raises(KeyError, match="there is none yet"):
        ledger["error"]
    ledger.record("error/TopK", 1)
    with pytest.raises(KeyError, match="near names: error/TopK"):
        ledger["errr/TopK"]


# What reaches the page


def test_a_record_is_written_as_glue(ledger: Ledger, shown: list[Any]) -> None:
    ledger.record("error/TopK", [0.2, 0.3], unit="nats")
    (data, meta), (interval, interval_meta) = shown
    assert meta["scrapbook"] == {"name": "error/TopK", "mime_prefix": report.MIME}
    assert data[f"{report.MIME}text/plain"] == "0.25"
    assert data[f"{report.MIME}application/vnd.tml.record+json"] == {
        "name": "error/TopK",
        "value": 0.25,
        "ci": pytest.approx([-0.385, 0.885], abs=1e-3),
        "n": 2,
        "unit": "nats",
        "samples": [0.2, 0.3],
    }
    assert interval_meta["scrapbook"]["name"] == "error/TopK.ci"
    assert interval[f"{report.MIME}text/plain"] == "[−0.385, 0.885]"


def test_a_record_without_interval_writes_no_interval(ledger: Ledger, shown: list[Any]) -> None:
    ledger.record("a", 1)
    assert len(shown) == 1


def test_a_claim_is_written_with_its_verdict(ledger: Ledger, shown: list[Any]) -> None:
    claim(ledger, holds={"k = 16": True, "k = 32": np.bool_(False)})
    data, meta = shown[-1]
    entry = data[f"{report.MIME}application/vnd.tml.claim+json"]
    assert meta["scrapbook"]["name"] == "claim:0/x"
    assert data[f"{report.MIME}text/plain"] == "partly"
    assert entry["conditions"] == {"k = 16": True, "k = 32": False}
    assert (entry["verdict"], entry["note"]) == ("partly", "not met: k = 32")
    assert (entry["profile"], entry["model"], entry["ours"]) == ("smoke", "tiny", ["error"])
    assert json.loads(json.dumps(entry)) == entry


def test_the_head_of_the_ledger_tells_the_versions(ledger: Ledger, shown: list[Any]) -> None:
    ledger.open(seed=3, threads=2, device="cpu")
    data, meta = shown[0]
    head = data[f"{report.MIME}application/vnd.tml.session+json"]
    assert meta["scrapbook"]["name"] == "session"
    assert (head["profile"], head["seed"], head["threads"]) == ("smoke", 3, 2)
    assert head["versions"]["torch"] == torch.__version__.split("+")[0] or torch.__version__
    assert set(head["versions"]) == {"python", "torch", "numpy", "helpers"}


def test_a_package_that_is_not_installed_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> str:
        raise report.metadata.PackageNotFoundError

    monkeypatch.setattr(report.metadata, "version", missing)
    assert report._versions()["helpers"] == "not installed"


def test_a_figure_is_written_with_its_words_and_a_picture(ledger: Ledger, shown: list[Any]) -> None:
    report.style()
    fig, _ = plt.subplots()
    ledger.figure(fig, caption="Nothing.", alt="Two axes and nothing between them", name="empty")
    (words, meta), (picture, _) = shown
    assert meta["scrapbook"]["name"] == "empty"
    assert words[f"{report.MIME}application/vnd.tml.figure+json"]["alt"] == picture["text/plain"]
    png = base64.b64decode(picture["image/png"])
    assert png.startswith(b"\x89PNG")
    assert 700 <= int.from_bytes(png[16:20], "big") <= 2 * 700


@pytest.mark.parametrize(
    "words", [{"caption": " "}, {"alt": "too short"}, {"name": ""}, {"name": "taken"}], ids=str
)
def test_a_figure_needs_words_of_its_own(ledger: Ledger, words: dict[str, str]) -> None:
    good = {"caption": "Nothing.", "alt": "Two axes and nothing between them", "name": "empty"}
    ledger.figures["taken"] = good
    fig, _ = plt.subplots()
    with pytest.raises(ValueError, match="figure"):
        ledger.figure(fig, **(good | words))
    plt.close(fig)
    assert list(ledger.figures) == ["taken"]


def test_nothing_is_shown_where_no_notebook_listens(capsys: pytest.CaptureFixture[str]) -> None:
    report.show_html("<p>words</p>", text="words")
    assert capsys.readouterr().out == ""


def test_html_is_shown_in_a_notebook(shown: list[Any]) -> None:
    report.show_html("<p>words</p>", text="words")
    assert shown == [({"text/html": "<p>words</p>", "text/plain": "words"}, {})]


# Claims


@pytest.mark.parametrize(
    ("holds", "control", "verdict", "note"),
    [
        (True, {"null": True}, "holds", ""),
        (False, {"null": True}, "does not hold here", ""),
        ({"a": True, "b": True}, {"null": True}, "holds", ""),
        ({"a": True, "b": False}, {"null": True}, "partly", "not met: b"),
        ({"a": False, "b": False}, {"null": True}, "does not hold here", "not met: a, b"),
        (True, {"null": False}, "does not hold here", "negative control failed: null"),
        ({"a": False}, {"x": True, "y": False}, "does not hold here", "negative control failed: y"),
    ],
)
def test_a_verdict_is_computed(
    ledger: Ledger, holds: Any, control: dict[str, bool], verdict: str, note: str
) -> None:
    row = claim(ledger, holds=holds, control=control)
    assert (row.verdict, row.note) == (verdict, note)


@pytest.mark.parametrize("change", [{"holds": 1}, {"holds": {"a": 0.5}}, {"control": {"null": "yes"}}])
def test_a_condition_is_a_truth_value(ledger: Ledger, change: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="bool"):
        claim(ledger, **change)
    assert ledger.claims == {}


@pytest.mark.parametrize("change", [{"holds": {}}, {"control": {}}, {"ours": ()}], ids=str)
def test_a_claim_needs_a_condition_a_record_and_a_control(ledger: Ledger, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="negative control"):
        claim(ledger, **change)


def test_a_claim_is_made_once(ledger: Ledger) -> None:
    claim(ledger)
    with pytest.raises(ValueError, match="id of its own"):
        claim(ledger)


@pytest.mark.parametrize("where", ["ours", "baseline"])
def test_a_claim_shows_recorded_numbers_only(ledger: Ledger, where: str) -> None:
    with pytest.raises(KeyError, match="near names: error"):
        claim(ledger, **{where: ["errr"]})


def test_a_claim_shows_its_verdict_in_words(ledger: Ledger) -> None:
    page = BeautifulSoup(claim(ledger, control={"null": False})._repr_html_(), "html.parser")
    assert "does not hold here" in page.get_text()
    assert "negative control failed: null" in page.get_text()


def test_the_claims_table_has_a_row_of_headers_and_a_group_for_each_claim(ledger: Ledger) -> None:
    ledger.record("theirs", [0.6, 0.7])
    claim(ledger, paper="'a < b' (Sec. 5)", baseline="theirs", holds={"k = 16": False, "k = 32": True})
    claim(ledger, id="0/y")
    page = BeautifulSoup(report.claims_html(ledger), "html.parser")
    heads = [head.text for head in page.select("thead th[scope=col]")]
    first, second = page.select("tbody")
    assert heads == [cell["data-head"] for cell in first.select("td")]
    assert [th["scope"] for th in page.select("tbody th")] == ["rowgroup"] * 2
    assert "◐ partly" in first.text
    assert "not met: k = 16" in first.text
    assert "'a < b' (Sec. 5)" in first.text
    assert ledger["theirs"].text() in first.text
    assert "✓ holds" in second.text
    assert "smoke profile, tiny" in page.caption.text


# Tables


def test_a_table_keeps_headers_and_aligns_numbers() -> None:
    frame = pd.DataFrame(
        {"error": [0.25, math.nan], "on": [True, False], "word": ["<b>", "c"]},
        index=pd.Index(["TopK", "ReLU"], name="encoder"),
    )
    page = BeautifulSoup(table_html(frame, caption="Errors & words"), "html.parser")
    assert [th.text for th in page.select("th[scope=col]")] == ["encoder", "error", "on", "word"]
    assert [th.text for th in page.select("th[scope=row]")] == ["TopK", "ReLU"]
    assert [td.text for td in page.select("td")] == ["0.250", "True", "<b>", "–", "False", "c"]
    assert [td.text for td in page.select("td.tml-number")] == ["0.250", "–"]
    assert page.select_one("[role=region]")["aria-label"] == page.caption.text == "Errors & words"


def test_a_plain_index_is_not_shown() -> None:
    page = BeautifulSoup(table_html(pd.DataFrame({"a": [1, 2]}), caption="c"), "html.parser")
    assert [th.text for th in page.select("th")] == ["a"]


def test_levels_of_columns_and_index_are_flattened() -> None:
    columns = pd.MultiIndex.from_tuples([("error", "mean"), ("n", "")])
    index = pd.MultiIndex.from_tuples([("TopK", 16)], names=["encoder", None])
    page = BeautifulSoup(
        table_html(pd.DataFrame([[0.5, 3]], index=index, columns=columns), caption="c"), "html.parser"
    )
    assert [th.text.strip() for th in page.select("th[scope=col]")] == ["encoder", "", "error / mean", "n"]
    assert [th.text for th in page.select("th[scope=row]")] == ["TopK", "16"]


def test_a_record_in_a_table_brings_its_interval(ledger: Ledger) -> None:
    frame = pd.DataFrame({"error": pd.Series([ledger.record("a", 0.5, ci=(0.4, 0.6))], dtype=object)})
    assert "0.500 [0.400, 0.600]" in table_html(frame, caption="c")


@pytest.mark.parametrize(("frame", "caption"), [(pd.DataFrame({"a": [1]}), ""), (pd.DataFrame(), "c")])
def test_a_table_needs_a_caption_and_rows(frame: pd.DataFrame, caption: str) -> None:
    with pytest.raises(ValueError, match="caption and at least one row"):
        table_html(frame, caption=caption)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e15, max_value=1e15))
def test_a_written_number_is_the_number_to_three_digits(value: float) -> None:
    plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-", ",")
    text = format_number(value).replace(" × 10", "e").translate(plain)
    assert float(text) == pytest.approx(value, rel=5.1e-3, abs=0)


# Intervals


def test_the_t_interval_is_scipys() -> None:
    samples = [1.0, 2.0, 4.0]
    expected = stats.ttest_1samp(samples, 0).confidence_interval(0.9)
    assert t_interval(samples, 0.9) == pytest.approx(tuple(expected))


def test_equal_samples_leave_no_width() -> None:
    assert t_interval([0.5, 0.5]) == (0.5, 0.5)
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)


def test_the_bootstrap_repeats_itself_and_covers_the_statistic() -> None:
    samples = np.random.default_rng(0).normal(3, 1, 40)
    low, high = bootstrap_interval(samples, np.median, seed=1, n=500)
    assert (low, high) == bootstrap_interval(samples, np.median, seed=1, n=500)
    assert low < np.median(samples) < high
    wide = bootstrap_interval(samples, np.median, level=0.999, seed=1, n=500)
    assert wide[0] <= low < high <= wide[1]


@pytest.mark.parametrize("interval", [t_interval, bootstrap_interval])
def test_an_interval_needs_two_samples(interval: Any) -> None:
    with pytest.raises(ValueError, match="two or more"):
        interval([1.0])


# Colours


def linear(colour: str) -> np.ndarray:
    """Undo the gamma of an sRGB colour."""
    channels = np.array(to_rgb(colour))
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Convert linear RGB to CIELAB (D65)."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ rgb
    f = np.cbrt(np.clip(xyz / np.array([0.9505, 1.0, 1.089]), 0, None))
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


SIGHTS = {  # Machado, Oliveira and Fernandes (2009), severity 1
    "full": np.eye(3),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
}


@pytest.mark.parametrize("name", report.PALETTE)
def test_a_line_stands_out_from_white(name: str) -> None:
    luminance = np.array([0.2126, 0.7152, 0.0722]) @ linear(report.PALETTE[name])
    assert 1.05 / (luminance + 0.05) >= 3


@pytest.mark.parametrize("sight", SIGHTS)
def test_colours_stay_apart_for_every_reader(sight: str) -> None:
    seen = {name: lab(np.clip(SIGHTS[sight] @ linear(hue), 0, 1)) for name, hue in report.PALETTE.items()}
    apart = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)}
    assert min(apart.values()) >= 15, min(apart, key=apart.__getitem__)


def test_variables_take_their_colours_from_the_palette() -> None:
    assert set(report.VARIABLES.values()) <= set(report.PALETTE.values())


def test_a_variable_without_a_colour_is_named() -> None:
    with pytest.raises(KeyError, match=r"AbsTopK.*report.VARIABLES"):
        report.colour("AbsTopKK")


def test_record_can_be_made_by_hand() -> None:
    assert Record(0.5, unit="nats").as_dict() == {
        "name": "", "value": 0.5, "ci": None, "n": None, "unit": "nats", "samples": None,
    }  # fmt: skip
