"""The bench of the joint program, without the large ones: what it measures, its rows, its file."""

import json

import pytest

from tools.bench import privacy as bench
from tools.press.project import Project


def found(**changes):
    one = {"seconds": 0.1, "memory": 2.0, "error": 0.8, "loss": bench.EPSILON}
    made = {name: bench.Found((one,) * 2) for name in ("paper", "4", "8")}
    return {**made, **{name: bench.Found((one | change,) * 2) for name, change in changes.items()}}


def by_name(rows):
    return {row["name"]: row for row in rows}


def test_every_program_is_named_and_the_large_ones_run_once():
    assert list(bench.programs()) == ["paper", "4", "8", "16", "32", "48", "64"]
    assert [bench.repeats(name) for name in bench.programs()] == [3, 3, 3, 3, 3, 1, 1]


def test_the_programs_differ_in_their_levels():
    """Each closes over its own size, not over the last one."""
    made = bench.programs()
    assert [len(made[name]().bins_M) for name in ("4", "8", "16")] == [4, 8, 16]


def test_the_joint_program_is_private_and_no_worse_than_the_brackets():
    paper, joint = bench.measure("paper"), bench.measure("4")
    assert joint["loss"] == pytest.approx(bench.EPSILON, abs=1e-9)
    assert joint["error"] < paper["error"]
    assert min(joint["seconds"], paper["seconds"]) > 0
    assert min(joint["memory"], paper["memory"]) >= 0


def test_rows_compare_with_the_paper_and_name_a_loss_over_the_budget():
    rows = by_name(bench.rows(found(paper={"seconds": 0.4, "error": 1.0})))
    first, error = list(rows.values())[:2]
    assert first["ratio"] == pytest.approx(0.25)
    assert error["holds"]
    assert rows["Loss of privacy above the budget"]["holds"]
    broken = by_name(bench.rows(found(**{"8": {"loss": bench.EPSILON + 1e-3}})))
    assert not broken["Loss of privacy above the budget"]["holds"]
    assert broken["Loss of privacy above the budget"]["ours"] == pytest.approx(1e-3)


def test_main_writes_a_file_that_the_page_reads(tmp_path, monkeypatch):
    place = Project()
    monkeypatch.setattr(bench, "Project", lambda: place)
    monkeypatch.setattr(type(place), "data", property(lambda _: tmp_path))
    monkeypatch.setattr(bench, "apart", lambda name, root: found()["4"].runs[0])
    bench.main([])
    written = json.loads((tmp_path / "results" / "bench" / "privacy.json").read_text())
    assert written["run"]["command"] == "python -m tools.bench.privacy"
    assert len(written["rows"]) == 2 + 5 + 6 + 1
    assert len(written["samples"]["64"]) == 1


def test_one_program_is_measured_in_a_process_of_its_own(capsys):
    measured = bench.apart("8", Project().root)
    assert measured["loss"] == pytest.approx(bench.EPSILON, abs=1e-9)
    assert measured["seconds"] > 0
    assert "8: " in capsys.readouterr().out
