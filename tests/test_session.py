"""The session: profiles, seeds, determinism, and methods that reach the ledger."""

import random
import subprocess
import sys
from collections.abc import Iterator

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import Session, start
from helpers.report import VARIABLES


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(strict)


@pytest.fixture
def run() -> Session:
    return start("smoke", chapter="sae-derivation", seed=3, model="tiny", device="cpu", threads=1)


def test_importing_helpers_leaves_the_heavy_libraries_alone() -> None:
    heavy = "{'torch', 'numpy', 'pandas', 'matplotlib', 'scipy', 'transformers'}"
    code = f"import sys, helpers; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_settings_stand_in_the_session(run: Session) -> None:
    assert (run.profile, run.chapter, run.seed, run.model) == ("smoke", "sae-derivation", 3, "tiny")
    assert (run.device, run.dtype, run.threads) == (torch.device("cpu"), torch.float32, 1)
    assert torch.get_num_threads() == 1


def test_defaults_take_every_processor_and_the_best_device() -> None:
    run = start("book", chapter="sae-derivation", dtype=torch.bfloat16)
    assert run.threads >= 1
    assert run.dtype is torch.bfloat16
    assert run.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("profile", ["Smoke", "", "fast"])
def test_an_unknown_profile_is_refused(profile: str) -> None:
    with pytest.raises(ValueError, match=r"choose one of smoke, book, full"):
        start(profile, chapter="sae-derivation")


def test_a_chapter_is_asked_for() -> None:
    with pytest.raises(ValueError, match="slug"):
        start("smoke", chapter="")


@pytest.mark.parametrize(("profile", "size"), [("smoke", 1), ("book", 5), ("full", 9)])
def test_pick_follows_the_profile(profile: str, size: int) -> None:
    assert start(profile, chapter="x").pick(smoke=1, book=5, full=9) == size


def test_full_is_the_books_value_unless_given() -> None:
    run = start("full", chapter="x")
    assert run.pick(smoke=1, book=5) == 5
    assert run.pick(smoke=1, book=5, full=None) is None


def test_the_same_seed_gives_the_same_draws() -> None:
    def draws(seed: int) -> list[float]:
        start("smoke", chapter="x", seed=seed)
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]  # noqa: NPY002

    assert draws(1) == draws(1)
    assert all(a != b for a, b in zip(draws(1), draws(2), strict=True))


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_seeds_are_distinct_and_more_keep_the_first(seed: int, count: int) -> None:
    from helpers.report import Ledger

    run = Session("smoke", "x", seed, "", torch.device("cpu"), torch.float32, 1, Ledger("smoke", "x"))
    seeds = run.seeds(count)
    assert len(set(seeds)) == count
    assert run.seeds(count + 3)[:count] == seeds


def test_records_and_claims_reach_the_ledger(run: Session) -> None:
    error = run.record("error", [0.2, 0.3], unit="nats")
    claim = run.claim(
        "0/x", "It is small", paper="Sec. 1", holds=error < 1, ours="error", baseline=[], control={"c": True}
    )
    assert run["error"] is error
    assert run.ledger.claims == {"0/x": claim}
    assert (claim.verdict, claim.model) == ("holds", "tiny")


def test_colours_come_from_the_book(run: Session) -> None:
    assert run.colour("TopK") == VARIABLES["TopK"]


def test_what_is_shown_is_checked_outside_a_notebook_too(run: Session) -> None:
    with pytest.raises(ValueError, match="caption"):
        run.table(pd.DataFrame({"a": [1]}), caption=" ")
    with pytest.raises(ValueError, match="no claim"):
        run.claims()
    with pytest.raises(ValueError, match="nothing to explore"):
        run.explore(str, {}, caption="c", alt="a text that is long enough")


def test_a_figure_is_closed_and_kept_in_the_ledger(run: Session) -> None:
    fig, _ = plt.subplots()
    run.figure(fig, caption="An empty axis.", alt="Two axes and nothing between them", name="empty")
    assert not plt.fignum_exists(fig.number)
    assert run.ledger.figures["empty"]["caption"] == "An empty axis."
