"""The benchmark of block-sparse layers, in tiny."""

import json

import pytest
import torch
from torch import nn

from tools.bench import blocks
from tools.press.project import Project

TINY = blocks.Settings(batch=4, width=32, others=(16,), repeats=2)


@pytest.fixture
def found():
    threads = torch.get_num_threads()
    yield blocks.measure(TINY)
    torch.set_num_threads(threads)


def by_name(made):
    return {one["name"]: one for one in made}


def test_rows_compare_with_dense_and_with_torch(found):
    made = by_name(blocks.rows(found, TINY))
    memory = made["Its weights, gradients and Adam's memory, against dense"]
    trained = 2 * 16 + 64 + 32  # S and A of a 4 x 4 grid, B, the bias
    assert memory["ours"] == pytest.approx(4 * 4 * trained / 1e6)
    assert memory["peer"] == pytest.approx(4 * 4 * (32 * 32 + 32) / 1e6)
    assert made["Both, and the dense layer"]["holds"] is True
    assert made["Inference through the factors, against dense"]["target"] == "ratio ≥ 3"
    assert made["The same at width 16"]["target"] is None
    assert all(one["ours"] > 0 for one in made.values() if one["unit"].endswith("processor"))


def test_speeds_are_times_turned_round(monkeypatch):
    clock = iter([0.0, 0.5, 1.0, 5.0])
    monkeypatch.setattr(blocks.time, "process_time", lambda: next(clock))
    assert blocks.turns(lambda: 0, lambda: 0, n=1) == {"ours": [2.0], "other": [0.25]}


def test_a_step_moves_the_weights():
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().clone()
    step, _ = blocks.training(layer, torch.randn(3, 4))
    step()
    assert not torch.equal(before, layer.weight)


def test_results_are_written_where_the_page_looks(tmp_path, monkeypatch, found, capsys):
    monkeypatch.setattr(blocks, "Project", lambda: Project(tmp_path))
    monkeypatch.setattr(blocks, "Settings", lambda: TINY)
    monkeypatch.setattr(blocks, "measure", lambda settings: found)
    blocks.main([])
    content = json.loads((tmp_path / "data" / "results" / "bench" / "blocks.json").read_text())
    assert content["settings"]["width"] == 32
    assert content["run"]["command"] == "python -m tools.bench.blocks"
    assert len(content["rows"]) == 7
    assert "Training step" in capsys.readouterr().out
