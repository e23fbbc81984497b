"""The built pages, as readers see them: light and dark, narrow and wide, without a network."""

import re

import pytest
from playwright.sync_api import Locator, expect

from tests.book.conftest import Case, View, cases

# Elements with text of their own whose contrast against what lies behind them is under 4.5 (WCAG 2, AA).
PALE = """selector => {
  const parse = text => {
    if (!text.startsWith("rgb")) throw new Error(`cannot read the colour ${text}`);
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const over = (top, under) => top.slice(0, 3).map((c, i) => c * top[3] + under[i] * (1 - top[3]));
  const behind = node => {
    const layers = [];
    for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
  };
  const luminance = rgb => {
    const [r, g, b] = rgb.map(c => c / 255).map(c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const ratio = node => {
    const back = behind(node);
    const a = luminance(over(parse(getComputedStyle(node).color), back)), b = luminance(back);
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  };
  const speaks = node => [...node.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  return [...document.querySelectorAll(selector)]
    .flatMap(root => [root, ...root.querySelectorAll("*")])
    .filter(node => !["STYLE", "SCRIPT"].includes(node.tagName) && speaks(node) && node.checkVisibility())
    .map(node => [node.textContent.trim().slice(0, 40), ratio(node)])
    .filter(([, r]) => !(r >= 4.5));
}"""

RAW_MATHS = r"""() => {
  const main = document.querySelector("main").cloneNode(true);
  main.querySelectorAll("pre, code, script, style, mjx-container").forEach(node => node.remove());
  return main.textContent.match(/\\\(|\\\[|\$\$/g) ?? [];
}"""

# A file name, or the hash that a notebook gives its plots.
FILE_NAME = re.compile(r"\.(png|svg|jpe?g|gif|webp)$|^[0-9a-f_./]{20,}$", re.IGNORECASE)

everywhere = pytest.mark.parametrize("view", cases(), indirect=True, ids=str)


def where(needs: str) -> pytest.MarkDecorator:
    """Run a test on the pages that hold a text; the book has at least one."""
    return pytest.mark.parametrize("view", cases(needs), indirect=True, ids=str)


@everywhere
def test_the_page_opens_without_an_error(view: View) -> None:
    assert view.errors == []


@everywhere
def test_the_page_asks_no_other_host(view: View) -> None:
    assert view.outside == []


@everywhere
def test_the_page_has_one_title_in_the_asked_mode(view: View) -> None:
    titles = view.page.locator("main h1:visible")
    assert titles.count() == 1
    assert len(titles.inner_text().strip()) > 1
    assert view.page.locator("html").get_attribute("data-theme") == view.case.mode


@everywhere
def test_the_page_does_not_scroll_sideways(view: View) -> None:
    wide = view.page.evaluate(
        """() => document.documentElement.scrollWidth <= innerWidth ? [] :
        [...document.querySelectorAll("main *")].filter(n => n.getBoundingClientRect().right > innerWidth)
        .map(n => `${n.tagName}.${n.className}`).slice(0, 5).concat(document.documentElement.scrollWidth)"""
    )
    assert wide == []


@everywhere
def test_no_formula_is_left_raw(view: View) -> None:
    assert view.page.evaluate(RAW_MATHS) == []


@everywhere
def test_pictures_are_there_and_described(view: View) -> None:
    pictures = view.page.locator("article img").evaluate_all(
        "all => all.map(i => ({alt: i.alt.trim(), width: i.naturalWidth, src: i.src.slice(0, 80)}))"
    )
    poor = [p for p in pictures if len(p["alt"]) < 20 or FILE_NAME.search(p["alt"]) or not p["width"]]
    assert poor == []


@where('class="math')
def test_every_formula_is_set(view: View) -> None:
    formulas = view.page.locator("main .math")
    bare = formulas.evaluate_all("all => all.filter(f => !f.querySelector('mjx-container')).map(f => f.id)")
    assert formulas.count() > 0
    assert bare == []
    assert view.page.locator("mjx-merror, [data-mjx-error]").count() == 0


@where('class="tml-explorer"')
def test_explorers_move_by_arrow_keys(view: View) -> None:
    for explorer in view.page.locator(".tml-explorer").all():
        for slider in sliders(explorer):
            before = state(explorer, slider)
            slider.press("ArrowRight")
            after = state(explorer, slider)
            assert after[0] != before[0], "the frame stayed"
            assert after[1] != before[1], "the words for the value stayed"
            slider.press("ArrowLeft")
            assert state(explorer, slider) == before


@where('class="tml-explorer"')
def test_explorers_move_by_mouse(view: View) -> None:
    for explorer in view.page.locator(".tml-explorer").all():
        for slider in sliders(explorer):
            before = state(explorer, slider)
            box = slider.bounding_box()
            right, left = ({"x": x, "y": box["height"] / 2} for x in (box["width"] - 3, 10))
            slider.click(position=right)
            after = state(explorer, slider)
            assert slider.input_value() == slider.get_attribute("max")
            assert after[0] != before[0], "the frame stayed"
            assert after[1] != before[1], "the words for the value stayed"
            slider.drag_to(slider, source_position=right, target_position=left)
            assert state(explorer, slider) == before


@where('class="tml-table"')
def test_tables_and_explorers_can_be_read(view: View) -> None:
    assert view.page.evaluate(PALE, ".tml-scroll, .tml-claim, .tml-explorer") == []


@where("pasted-text")
def test_numbers_in_the_prose_have_a_true_minus_sign_and_nought_has_none(view: View) -> None:
    texts = view.page.locator(".pasted-text").all_inner_texts()
    assert texts
    assert [text for text in texts if re.search(r"(?<![\w.])-[\d.]|−0(\.0*)?$", text)] == []


@where("tml-claims")
def test_the_claims_table_tells_its_verdicts_in_words(view: View) -> None:
    verdicts = view.page.locator(".tml-claims .tml-verdict").all_inner_texts()
    assert verdicts
    assert {text.split(maxsplit=1)[1] for text in verdicts} <= {"holds", "partly", "does not hold here"}


@where("tml-claims")
def test_the_theme_switch_keeps_the_claims_readable(view: View) -> None:
    html, other = view.page.locator("html"), {"light": "dark", "dark": "light"}[view.case.mode]
    switch = view.page.locator(".theme-switch-button:visible").first
    for wanted in (other, view.case.mode):
        for _ in range(3):  # it goes round light, dark and the system's choice
            if html.get_attribute("data-theme") != wanted:
                switch.click()
        expect(html).to_have_attribute("data-theme", wanted)
        assert view.page.evaluate(PALE, ".tml-scroll, .tml-claim, .tml-explorer") == []


@where('class="solution')
def test_solutions_are_folded_and_open_on_a_click(view: View) -> None:
    for solution in view.page.locator("main div.solution").all():
        words = solution.locator(".admonition-title ~ *").first
        expect(words).not_to_be_visible()
        solution.locator(".admonition-title").first.click(position={"x": 10, "y": 10})
        expect(words).to_be_visible()
        assert words.bounding_box()["height"] > 0
        solution.locator(".admonition-title").first.click(position={"x": 10, "y": 10})
        expect(words).not_to_be_visible()


def sliders(explorer: Locator) -> list[Locator]:
    """Return the sliders of an explorer that have somewhere to go."""
    found = [s for s in explorer.locator("input[type=range]").all() if s.get_attribute("max") != "0"]
    assert found, "an explorer with nothing to move"
    return found


def state(explorer: Locator, slider: Locator) -> tuple[list[int], str]:
    """Return which frames are visible and what the slider says; the words beside it agree."""
    visible = explorer.locator("[data-frame]").evaluate_all(
        "all => all.flatMap((frame, i) => frame.checkVisibility() ? [i] : [])"
    )
    words = slider.get_attribute("aria-valuetext")
    beside = explorer.locator(f"output[for={slider.get_attribute('id')}]").inner_text()
    assert len(visible) == 1
    assert beside == words
    return visible, words or ""


def test_every_page_is_seen_four_ways() -> None:
    views = cases()
    assert {(case.mode, case.width) for case in views} >= {("light", 400), ("dark", 1400)}
    assert all(isinstance(case, Case) for case in views)
