"""Real recordings of PhysioNet, by the interface of the simulated ones; files are checked by hash.

The book runs without a network and therefore on simulated records. Where there is one:

1. Get ``SHA256SUMS.txt`` of the database once, look at it, keep it.
2. ``physionet.fetch("mitdb", "100", sums=physionet.read_sums("SHA256SUMS.txt"))`` gives the record's files.
3. ``physionet.read(path)`` and ``physionet.read_noise(path)`` turn them into what the chapter uses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from helpers import data
from helpers.ecg.signals import Record, standardise

__all__ = ["fetch", "read", "read_noise", "read_sums"]

VERSIONS = {"mitdb": "1.0.0", "nstdb": "1.0.0"}
ENDINGS = {"mitdb": ("hea", "dat", "atr"), "nstdb": ("hea", "dat")}
NORMAL, VENTRICULAR = frozenset("NLRej"), frozenset("VE")  # the classes N and V of ANSI/AAMI EC57
BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")


def fetch(database: str, name: str, *, sums: Mapping[str, str]) -> Path:
    """Download the files of one record into the user cache, each checked by its hash.

    Parameters
    ----------
    database : {"mitdb", "nstdb"}
        The MIT-BIH Arrhythmia or Noise Stress Test Database.
    name : str
        The record, such as ``"100"``, or ``"bw"``, ``"ma"``, ``"em"`` for noise.
    sums : mapping of str to str
        File name to SHA-256, from `read_sums`.

    Returns
    -------
    Path
        The record without an ending, as `read` takes it.

    Raises
    ------
    ValueError
        If the database is not one of the two, a file has no hash, or does not match it.
    ConnectionError
        If a file is not in the cache and cannot be downloaded.

    References
    ----------
    Moody and Mark (2001); Moody, Muldrow and Mark (1984); Goldberger et al. (2000).

    Examples
    --------
    >>> from helpers.ecg import physionet
    >>> physionet.fetch("mitdb", "100", sums={})
    Traceback (most recent call last):
        ...
    ValueError: SHA256SUMS.txt has no line for 100.hea; take the one that lies beside the files of mitdb

    Taught in: ecg-denoising
    """
    if database not in VERSIONS:
        raise ValueError(f"unknown database {database!r}; expected one of {', '.join(VERSIONS)}")
    files = [f"{name}.{ending}" for ending in ENDINGS[database]]
    for file in files:
        if file not in sums:
            raise ValueError(
                f"SHA256SUMS.txt has no line for {file}; take the one that lies beside the files of "
                f"{database}"
            )
    url = f"https://physionet.org/files/{database}/{VERSIONS[database]}"
    paths = [data.fetch(f"{url}/{file}", sums[file], file) for file in files]
    return paths[0].with_suffix("")


def read_sums(path: str | Path) -> dict[str, str]:
    """Read a ``SHA256SUMS.txt``.

    Parameters
    ----------
    path : str or Path
        The file: a hash and a name on each line.

    Returns
    -------
    dict of str to str
        File name to hash.

    Raises
    ------
    ValueError
        If no line is one.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from helpers.ecg import physionet
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "sums")
    ...     _ = file.write_text("ab" * 32 + "  100.dat")
    ...     list(physionet.read_sums(file))
    ['100.dat']

    Taught in: ecg-denoising
    """
    found = re.findall(r"^([0-9a-f]{64})[ *]+(\S+)\s*$", Path(path).read_text("utf-8"), re.M)
    if not found:
        raise ValueError(
            f"{path} has no line with a SHA-256 and a name; give the SHA256SUMS.txt of a database"
        )
    return {name: digest for digest, name in found}


def read(path: str | Path) -> Record:
    """Read a record of two leads with its annotated beats, standardised.

    Parameters
    ----------
    path : str or Path
        The record without an ending; ``.hea``, ``.dat`` and ``.atr`` lie there.

    Returns
    -------
    Record
        Beats of the class N, of the class V, and ``"?"`` for all others.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If there are fewer than two leads.

    References
    ----------
    Goldberger et al. (2000), wfdb.

    Examples
    --------
    >>> from helpers.ecg import physionet
    >>> physionet.read("nowhere/100")
    Traceback (most recent call last):
        ...
    FileNotFoundError: nowhere/100.hea is not there; fetch the record first

    Taught in: ecg-denoising
    """
    import wfdb

    signal_CT, rate = _signals(path)
    marks = wfdb.rdann(str(path), "atr")
    at = [i for i, symbol in enumerate(marks.symbol) if symbol in BEATS]
    kinds = ["N" if s in NORMAL else "V" if s in VENTRICULAR else "?" for s in marks.symbol]
    labels_N = np.array([kinds[i] for i in at], dtype="<U1")
    return standardise(Record(Path(path).name, rate, signal_CT, np.asarray(marks.sample)[at], labels_N))


def read_noise(path: str | Path) -> Float[np.ndarray, "2 sample"]:
    """Read a noise record of two leads, each with mean 0 and standard deviation 1.

    Parameters
    ----------
    path : str or Path
        The record without an ending; ``.hea`` and ``.dat`` lie there.

    Returns
    -------
    Float[ndarray, "2 sample"]
        As from `helpers.ecg.noise.make`.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If there are fewer than two leads.

    References
    ----------
    Moody, Muldrow and Mark (1984).

    Examples
    --------
    >>> from helpers.ecg import physionet
    >>> physionet.read_noise("nowhere/bw")
    Traceback (most recent call last):
        ...
    FileNotFoundError: nowhere/bw.hea is not there; fetch the record first

    Taught in: ecg-denoising
    """
    signal_CT, rate = _signals(path)
    nobody = np.zeros(0, dtype=int)
    return standardise(Record(Path(path).name, rate, signal_CT, nobody, nobody.astype("<U1"))).signal_CT


def _signals(path: str | Path) -> tuple[np.ndarray, float]:
    """Read the first two leads and their rate."""
    import wfdb

    if not Path(f"{path}.hea").is_file():
        raise FileNotFoundError(f"{path}.hea is not there; fetch the record first")
    found = wfdb.rdrecord(str(path))
    if found.n_sig < 2:
        raise ValueError(f"{path} has {found.n_sig} lead; expected two")
    return np.asarray(found.p_signal, dtype=float).T[:2], float(found.fs)
