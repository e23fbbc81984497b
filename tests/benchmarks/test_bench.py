"""The benchmark without the peers: rows, table, files, and what it says when something is missing."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from helpers.circuits import word_model
from helpers.sae import Schedule, fit
from helpers.sae.training import step_loss
from tools.bench import __main__ as bench
from tools.bench import collection, denoising, fairness, machine, patching, peers, training, worker
from tools.bench.rows import Target, row, rows
from tools.press.pages import Contents, fill
from tools.press.project import PressError, Project

VERSIONS = {"torch": "1", "sae-lens": "2", "dictionary-learning": "3"}


def samples(**changes):
    speeds = {
        "ours": [30.0, 28.0, 32.0],
        "dictionary_learning": [10.0] * 3,
        "saelens": [11.0] * 3,
        "saelens_sparse": [14.0] * 3,
        "bound": [36.0] * 3,
    }
    made = {name: {"tokens_per_second": speed} for name, speed in speeds.items()}
    for name in ("ours", *peers_names()):
        made[name]["unexplained"] = [0.2 if name == "ours" else 0.25] * 3
    rest = {
        "collect": {"ours": [9.9, 9.8, 10.0], "hook": [10.0] * 3, "full": [5.0] * 3},
        "import": {"seconds": [0.02] * 3},
        "fair": {"ours": [0.9, 1.0, 1.1], "reduction": [40.0] * 3},
        "patch": {
            "exact": [3.0] * 3,
            "gradient": [200.0] * 3,
            "relp": [180.0, 200.0, 190.0],
            "checked": [60.0] * 3,
            "passes": [0.5] * 3,
            "r_gradient": [0.9] * 3,
            "r_relp": [0.96, 0.95, 0.98],
            "r_checked": [0.99, 0.96, 0.98],
        },
        "denoise": {"book": [300.0, 280.0, 320.0], "wide": [270.0] * 3, "paper": [90.0] * 3},
        "collect_difference": {"difference": [0.0]},
        "check": {"SAELens, TopK": [1e-6], "dictionary_learning, ReLU": [2e-5]},
    }
    return {**made, **rest, **changes}


def peers_names():
    return [name for name in bench.TRAINING if name in bench.ABROAD]


def by_name(made):
    return {found["name"]: found for found in made}


def test_row_takes_ratios_repeat_by_repeat():
    found = row("a", "tokens/s", [10.0, 40.0, 90.0], against=[5.0, 10.0, 30.0])
    assert (found["ours"], found["low"], found["high"]) == (40.0, 10.0, 90.0)
    assert found["peer"] == 10.0
    assert found["ratio"] == 3.0  # the median of 2, 4 and 3; not 40 / 10
    assert found["holds"] is None


def test_thousands_have_no_decimals():
    found = row("a", "tokens/s", [11657.4], against=[4354.6])
    assert (found["ours"], found["peer"]) == (11657, 4355)
    assert found["ratio"] == pytest.approx(11657.4 / 4354.6)


def test_row_needs_as_many_on_both_sides():
    with pytest.raises(ValueError, match="shorter"):
        row("a", "s", [1.0, 2.0], against=[1.0])


def test_single_value_has_no_range():
    found = row("a", "s", [1.0])
    assert (found["low"], found["high"], found["peer"], found["ratio"]) == (None, None, None, None)


@pytest.mark.parametrize(
    ("target", "holds"),
    [
        (Target("ratio", "≥", 2.0), True),
        (Target("ratio", "≥", 2.1), False),
        (Target("ratio", "≤", 2.0), True),
        (Target("value", "≤", 3.0), False),
        (Target("value", "≥", 4.0), True),
    ],
)
def test_target_is_computed(target, holds):
    found = row("a", "s", [4.0], against=[2.0], target=target)
    assert found["holds"] is holds
    assert found["target"] == f"{target.of} {target.sign} {target.limit:g}"


def test_rows_hold_every_comparison_with_its_verdict():
    found = by_name(rows(samples(), VERSIONS))
    assert found["SAE training, against dictionary_learning 3"]["ratio"] == 3.0
    assert found["SAE training, against dictionary_learning 3"]["holds"] is True
    assert found["SAE training, against SAELens 2 with sparse codes, norms left free"]["holds"] is False
    assert found["SAE training, against the two encoder products alone"]["holds"] is True
    assert found["Held-out error at equal steps, against SAELens 2"]["ratio"] == pytest.approx(0.8)
    assert found["Activation collection, against a bare hook"]["holds"] is True
    assert found["Activation collection, against a full forward pass"]["holds"] is None
    fair = found["Fair regression by post-processing, against training anew with a reduction of fairlearn"]
    assert (fair["ratio"], fair["target"], fair["holds"]) == (1 / 40, "ratio ≤ 0.05", True)
    assert found["`import helpers`"]["target"] == "value ≤ 0.3"
    assert found["Codes and reconstructions of a file of SAELens, TopK"]["holds"] is True
    assert found["Codes and reconstructions of a file of dictionary_learning, ReLU"]["holds"] is False


def test_estimates_are_judged_by_speed_and_by_agreement():
    made = [found for found in rows(samples(), VERSIONS) if found["name"].startswith("Attention heads")]
    verdicts = {(found["name"], found["unit"]): found["holds"] for found in made}
    agree = "correlation with exact patching"
    assert verdicts == {
        ("Attention heads by the plain gradient", "heads/s"): True,
        ("Attention heads by the plain gradient", agree): False,
        ("Attention heads by RelP", "heads/s"): True,
        ("Attention heads by RelP", agree): False,
        ("Attention heads by both, the most disputed measured", "heads/s"): False,
        ("Attention heads by both, the most disputed measured", agree): True,
    }
    assert made[2]["ratio"] == pytest.approx(190 / 3)
    assert by_name(rows(samples(), VERSIONS))["Exact patching of one attention head"]["holds"] is True


def test_patching_is_measured_on_every_head(monkeypatch):
    made = word_model(n_layers=3)
    monkeypatch.setattr(patching.models, "load_model", lambda _: made)
    found = patching.measure(4, seed=1)
    assert {"exact", "passes"} | {*patching.METHODS} | {f"r_{way}" for way in patching.METHODS} == set(found)
    assert min(found["exact"], found["passes"], *(found[way] for way in patching.METHODS)) > 0
    assert found["r_checked"] == pytest.approx(1.0)  # with twelve heads in all, every one is measured
    assert found["r_gradient"] < 1.0


def test_denoising_is_judged_by_its_speed():
    found = by_name(rows(samples(), VERSIONS))
    assert found["Denoising a recording of two leads, the book's model"]["holds"] is True
    assert found["Denoising a recording of two leads, the authors' size"]["holds"] is False


def test_denoising_is_timed_on_the_whole_recording_and_after_warming_up(monkeypatch):
    clock, lengths = iter([10.0, 12.0]), []

    def pretend(signal, rate):
        lengths.append(signal.shape)

    monkeypatch.setattr(denoising, "contenders", lambda: {"book": (pretend, 180)})
    monkeypatch.setattr(denoising.time, "perf_counter", lambda: next(clock))
    assert denoising.measure(90, seed=1) == {"book": 45.0}
    assert lengths == [(2, 5400), (2, 16200)]


def test_worse_error_is_not_reached():
    worse = {"tokens_per_second": [30.0] * 3, "unexplained": [0.3] * 3}
    found = by_name(rows(samples(ours=worse), VERSIONS))
    assert found["Held-out error at equal steps, against SAELens 2"]["holds"] is False


def test_table_says_what_is_reached():
    said = bench.table(rows(samples(), VERSIONS))
    lines = {line[:60].strip(): line for line in said.splitlines()}
    sparse = next(line for name, line in lines.items() if "sparse codes" in name and "training" in name)
    assert sparse.endswith("NOT reached")
    assert "ratio ≥ 2.5" in sparse


def project(tmp_path):
    (tmp_path / "requirements-bench.lock").write_text(
        "# a lock\ntorch==1\nsae-lens==2\ndictionary-learning==3\n"
    )
    return Project(tmp_path)


def test_results_are_written_whole_and_the_page_shows_them(tmp_path):
    place = project(tmp_path)
    run = bench.Bench(place, bench.QUICK, Path("python"))
    path = place.data / "results" / "bench" / "sae.json"
    bench.write(run, samples(), [0.01, None], path=path)
    content = json.loads(path.read_text())
    assert content["run"]["threads"] == bench.QUICK.threads
    assert content["run"]["others_during_repeats"] == [0.01, None]
    assert content["run"]["versions"] == VERSIONS
    assert {"date", "commit", "command", "processor", "cores", "python"} <= set(content["run"])
    assert content["samples"]["ours"]["tokens_per_second"] == [30.0, 28.0, 32.0]
    assert [p.name for p in path.parent.iterdir()] == ["sae.json"]
    page = fill("<!-- press: benchmarks -->", Contents(place, [], {}, {}), "benchmarks")
    assert (
        "| SAE training, against dictionary_learning 3 | tokens/s | 30 [28, 32] | 10 | 3 | ratio ≥ 2.5 |"
        in page
    )


def test_a_failed_write_keeps_the_last_result(tmp_path):
    place = project(tmp_path)
    run = bench.Bench(place, bench.QUICK, Path("python"))
    path = tmp_path / "sae.json"
    path.write_text("old")
    with pytest.raises(TypeError):
        bench.write(run, samples(extra=object()), [], path=path)
    assert path.read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["requirements-bench.lock", "sae.json"]


def test_missing_peer_says_what_to_do(tmp_path):
    run = bench.Bench(Project(), replace(bench.QUICK, threads=1), Path(sys.executable))
    script = "import dictionary_learning_that_is_not_there"
    with pytest.raises(
        PressError, match=r"not_there'\nthe environment is not whole: remove build/bench-venv"
    ):
        run.run(sys.executable, "-c", script)


def test_a_worker_that_dies_is_named_with_its_last_words():
    said = bench.failure(("python", "-m", "tools.bench.worker", "saelens"), "Traceback\nValueError: no\n")
    assert said.startswith("saelens failed: ValueError: no")
    assert "python -m tools.bench.worker saelens" in said


def test_busy_machine_is_waited_for_then_refused(monkeypatch, capsys):
    shares, slept = iter([0.5, 0.4, 0.1]), []
    monkeypatch.setattr(machine, "busy", lambda: next(shares))
    monkeypatch.setattr(bench.time, "sleep", slept.append)
    bench.alone(allow=False)
    assert len(slept) == 2
    assert capsys.readouterr().out == "others take 50% of the processors: waiting\n"
    monkeypatch.setattr(machine, "busy", lambda: 0.5)
    with pytest.raises(PressError, match="others keep the processors busy"):
        bench.alone(allow=False)
    bench.alone(allow=True)
    assert len(slept) == 62


def repeats(monkeypatch, place, shares):
    shares = iter(shares)
    monkeypatch.setattr(bench, "alone", lambda **_: None)
    monkeypatch.setattr(machine.Watch, "others", lambda _: next(shares))
    seeds = []

    def work(_, contender, seed=0):
        seeds.append(seed) if contender == "ours" else None
        return {"tokens_per_second": float(len(seeds))}

    monkeypatch.setattr(bench.Bench, "work", work)
    monkeypatch.setattr(bench.Bench, "run", lambda *_: "0.01")
    run = bench.Bench(Project(place), replace(bench.QUICK, repeats=2), Path("python"))
    return seeds, lambda allow: bench.measure(run, allow=allow)


def test_a_disturbed_repeat_is_measured_again(monkeypatch, tmp_path):
    seeds, go = repeats(monkeypatch, tmp_path, [0.0, 0.5, 0.01])
    samples, taken = go(False)
    assert taken == [0.0, 0.01]
    assert seeds == [0, 1, 1]
    assert samples["ours"]["tokens_per_second"] == [1.0, 3.0]
    assert samples["import"]["seconds"] == [0.01, 0.01]
    raw = json.loads((tmp_path / "build" / "bench" / "samples.json").read_text())
    assert raw == {"samples": samples, "others_during_repeats": taken}


def test_beside_others_takes_what_comes(monkeypatch, tmp_path):
    _, go = repeats(monkeypatch, tmp_path, [0.5, None])
    assert go(True)[1] == [0.5, None]


def test_too_much_disturbance_ends_it(monkeypatch, tmp_path):
    seeds, go = repeats(monkeypatch, tmp_path, [0.5] * 9)
    with pytest.raises(PressError, match="disturbed too many repeats"):
        go(False)
    assert len(seeds) == 6


def test_what_others_take_is_a_share_or_not_known(monkeypatch, tmp_path):
    stat, own = tmp_path / "stat", iter([0.0, 10.0, 0.0, 99.0])
    monkeypatch.setattr(machine, "STAT", stat)
    assert machine.busy(0) is None
    monkeypatch.setattr(machine, "_own", lambda: next(own))
    for expected in (0.15, 0.0):  # 25 of 100 are neither idle nor waiting; 10 of them, then all, are ours
        stat.write_text("cpu 0 0 0 0 0 0 0 0 0 0\n")
        watch = machine.Watch()
        stat.write_text("cpu 10 5 5 70 5 0 0 5 0 0\n")
        assert watch.others() == expected


def test_processor_has_a_name(tmp_path):
    info = tmp_path / "cpuinfo"
    info.write_text("processor : 0\nmodel name\t: Fast One\nmodel name\t: Fast One\n")
    assert machine.processor(info) == "Fast One"
    assert machine.processor(tmp_path / "none")


def test_environment_is_kept_until_its_lock_changes(tmp_path, monkeypatch):
    place, ran = project(tmp_path), []

    def pretend(*command):
        ran.append(command)
        python = tmp_path / "build" / "bench-venv" / "bin" / "python"
        python.parent.mkdir(parents=True, exist_ok=True)
        python.touch()

    monkeypatch.setattr(peers, "_run", pretend)
    peers.environment(place.root)
    assert "--no-deps" in ran[1]
    peers.environment(place.root)
    assert len(ran) == 2
    (tmp_path / "requirements-bench.lock").write_text("torch==2\n")
    peers.environment(place.root)
    assert len(ran) == 4


def test_failed_installation_is_not_taken_for_whole(tmp_path, monkeypatch):
    place = project(tmp_path)
    gone = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(peers.subprocess, "run", lambda *_, **__: gone)
    with pytest.raises(PressError, match="could not be built"):
        peers.environment(place.root)
    assert not (tmp_path / "build" / "bench-venv" / "installed").exists()


def test_lock_pins_the_torch_that_the_book_pins():
    root = Project().root
    assert f"torch=={peers.versions(root)['torch']}" in (root / "requirements.lock").read_text().splitlines()


@pytest.fixture
def task():
    dice = torch.Generator().manual_seed(0)
    acts = torch.randn(64, 8, generator=dice)
    return training.Task(acts, acts[:16], Schedule(steps=7, batch_size=16, lr=1e-9), n_latents=16, k=2)


def test_peers_get_the_batches_that_fit_takes(task):
    sae = task.start()
    log = fit(sae, task.train_ND, schedule=task.schedule, progress=False)
    start = task.start()  # with so small a rate, fit's losses are those of the start
    expected = [step_loss(start, x / start.scale)[0].item() for x in task.batches()]
    assert log.loss == pytest.approx(expected, rel=1e-4)
    assert len(set(log.loss)) == 7


def test_contenders_without_peers_measure(task):
    found = training.measure("ours", task)
    assert 0 < found["unexplained"] < 1.5
    assert found["tokens_per_second"] > 0
    assert set(training.measure("bound", task)) == {"tokens_per_second"}


def test_timing_leaves_the_first_step_out(monkeypatch):
    clock = iter([100.0, 104.0])
    monkeypatch.setattr(training.time, "perf_counter", lambda: next(clock))
    steps = []
    speed = training.timed(lambda number, x: steps.append(number), iter([torch.zeros(10, 1)] * 3))
    assert speed == 5.0  # 20 tokens of two steps in 4 s
    assert steps == [0, 1, 2]


def test_bare_hook_collects_what_the_helper_collects(monkeypatch):
    from helpers.models import random_model

    monkeypatch.setattr(collection, "LAYER", 1)
    lm = random_model()
    tokens = torch.randint(0, 250, (10, 6))
    ours, hook, full = (make(lm, tokens) for make in collection.COLLECTORS.values())
    assert torch.equal(ours, hook)
    assert torch.equal(ours, full)
    assert not lm.model.get_submodule("transformer.h.1")._forward_hooks


def test_collectors_take_turns(monkeypatch):
    """The blocks of a turn go through all three, and the order is turned round."""
    calls = []
    monkeypatch.setattr(collection.models, "load_model", lambda name: None)
    for name in collection.COLLECTORS:
        monkeypatch.setitem(collection.COLLECTORS, name, lambda lm, batch, name=name: calls.append(name))
    clock = iter(range(100))
    monkeypatch.setattr(collection.time, "perf_counter", lambda: next(clock))
    found = collection.measure(torch.zeros(2 * collection.TURN, 5))
    assert calls[3:] == ["ours", "hook", "full", "full", "hook", "ours"]
    assert found == dict.fromkeys(collection.COLLECTORS, 2 * collection.TURN * 5 / 2)


def test_fair_contenders_start_from_one_network_and_are_timed_apart(monkeypatch):
    clock, fits = iter([10.0, 10.5, 20.0, 50.0]), []
    plain = fairness.svd.fit
    monkeypatch.setattr(fairness.svd, "fit", lambda *a, **b: fits.append(b) or plain(*a, epochs=1, **b))
    monkeypatch.setattr(fairness.time, "perf_counter", lambda: next(clock))
    assert fairness.measure(400, seed=1) == {"ours": 0.5, "reduction": 30.0}
    weights = [given["weights_N"] for given in fits]
    assert weights[0] is None  # the one that is post-processed
    assert len(weights) > 3  # and one a round
    assert all(given is not None for given in weights[1:])


def test_students_are_those_of_the_chapter():
    features, target, groups = fairness.students(20_000, seed=0)
    assert features.shape == (19_567, 3)
    assert set(groups) == {"Black", "White"}
    assert 3 < target.mean() < 3.5


@pytest.mark.parametrize(
    "name", [*bench.TRAINING, "collect", "collect_difference", "check", "prepare", "fair", "patch", "denoise"]
)
def test_every_contender_is_known_to_the_worker(name):
    assert name in training.CONTENDERS or worker.job(name) is not worker.train


def test_main_reports_an_error_and_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "Project", lambda: project(tmp_path))
    monkeypatch.setattr(peers, "environment", lambda root: Path(sys.executable))
    monkeypatch.setattr(bench.Bench, "work", lambda *_, **__: {})
    monkeypatch.setattr(machine, "busy", lambda: 0.9)
    monkeypatch.setattr(bench.time, "sleep", lambda _: None)
    assert bench.main([]) == 1
    assert "bench: others keep the processors busy" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
