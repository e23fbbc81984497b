"""Real recordings are read through small files that the tests write; nothing goes over a network."""

import hashlib

import numpy as np
import pytest
import wfdb

from helpers import data
from helpers.ecg import physionet


@pytest.fixture
def folder(tmp_path):
    """A record of two leads with five marks, one of them no beat, and a noise record."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((2000, 2)) * [1.0, 0.2] + [0.5, -3.0]
    common = {"fs": 360, "units": ["mV", "mV"], "sig_name": ["MLII", "V5"], "fmt": ["16", "16"]}
    wfdb.wrsamp("100", p_signal=signal, write_dir=str(tmp_path), **common)
    wfdb.wrsamp("bw", p_signal=signal[::-1].copy(), write_dir=str(tmp_path), **common)
    marks = np.array([100, 400, 700, 1000, 1300])
    wfdb.wrann("100", "atr", marks, symbol=["N", "V", "+", "L", "A"], write_dir=str(tmp_path))
    one = {"fs": 360, "units": ["mV"], "sig_name": ["I"], "fmt": ["16"]}
    wfdb.wrsamp("lonely", p_signal=signal[:, :1].copy(), write_dir=str(tmp_path), **one)
    return tmp_path, signal


def test_a_record_has_its_leads_and_beats(folder):
    path, signal = folder
    record = physionet.read(path / "100")
    assert (record.name, record.rate) == ("100", 360.0)
    assert record.peaks_N.tolist() == [100, 400, 1000, 1300]
    assert record.labels_N.tolist() == ["N", "V", "N", "?"]
    wanted = (signal - signal.mean(0)) / signal.std(0)
    assert np.abs(record.signal_CT.T - wanted).max() < 1e-2


def test_noise_is_standardised(folder):
    path, _ = folder
    made = physionet.read_noise(path / "bw")
    assert made.shape == (2, 2000)
    assert np.allclose(made.std(1), 1)


def test_what_is_missing_is_named(folder):
    path, _ = folder
    with pytest.raises(FileNotFoundError, match=r"200.hea is not there; fetch the record first"):
        physionet.read(path / "200")
    with pytest.raises(ValueError, match="has 1 lead; expected two"):
        physionet.read_noise(path / "lonely")


def test_a_cached_record_is_checked_and_needs_no_network(folder, monkeypatch):
    path, _ = folder
    monkeypatch.setenv("TML_CACHE", str(path / "cache"))
    place = path / "cache" / "downloads"
    place.mkdir(parents=True)
    lines = []
    for ending in physionet.ENDINGS["mitdb"]:
        content = (path / f"100.{ending}").read_bytes()
        (place / f"100.{ending}").write_bytes(content)
        lines.append(f"{hashlib.sha256(content).hexdigest()} 100.{ending}")
    (path / "SHA256SUMS.txt").write_text("\n".join(lines))
    sums = physionet.read_sums(path / "SHA256SUMS.txt")
    assert len(physionet.read(physionet.fetch("mitdb", "100", sums=sums)).peaks_N) == 4


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    import pooch

    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", fail)
    monkeypatch.setenv("TML_CACHE", str(tmp_path))
    sums = {f"bw.{ending}": "0" * 64 for ending in physionet.ENDINGS["nstdb"]}
    with pytest.raises(ConnectionError, match="Check the network, or put the file at"):
        physionet.fetch("nstdb", "bw", sums=sums)


def test_damaged_content_is_refused(tmp_path):
    file = tmp_path / "100.dat"
    file.write_bytes(b"x")
    with pytest.raises(ValueError, match="was changed or is damaged"):
        data.check_sha256(file, "0" * 64)


def test_unknown_databases_and_empty_lists_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one of mitdb, nstdb"):
        physionet.fetch("ptbdb", "1", sums={})
    (tmp_path / "sums").write_text("nothing here")
    with pytest.raises(ValueError, match=r"give the SHA256SUMS.txt of a database"):
        physionet.read_sums(tmp_path / "sums")
