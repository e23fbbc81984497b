"""From measurements to the rows of the table that the page `benchmarks` shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Row = dict[str, Any]
Samples = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Target:
    """What a row is to reach: a ratio to the other side, or a value of ours."""

    of: Literal["ratio", "value"]
    sign: Literal["≥", "≤"]
    limit: float

    def __str__(self) -> str:
        return f"{self.of} {self.sign} {self.limit:g}"

    def reached(self, row: Row) -> bool:
        """Say whether a row reaches it."""
        found = row["ratio"] if self.of == "ratio" else row["ours"]
        return bool(found >= self.limit if self.sign == "≥" else found <= self.limit)


def row(
    name: str, unit: str, ours: Sequence[float], *,
    against: Sequence[float] | None = None, target: Target | None = None,
) -> Row:  # fmt: skip
    """Return a row: medians, our range, and the median of the ratios, taken repeat by repeat.

    Examples
    --------
    >>> found = row("speed", "tokens/s", [30, 20, 40], against=[10, 10, 10], target=Target("ratio", "≥", 2.5))
    >>> found["ours"], found["low"], found["high"], found["ratio"], found["holds"]
    (30, 20, 40, 3.0, True)
    """
    found = sorted(ours)
    ratios = [] if against is None else [a / b for a, b in zip(ours, against, strict=True)]
    made: Row = {
        "name": name,
        "unit": unit,
        "ours": _tidy(median(found)),
        "low": _tidy(found[0]) if len(found) > 1 else None,
        "high": _tidy(found[-1]) if len(found) > 1 else None,
        "peer": None if against is None else _tidy(median(against)),
        "ratio": median(ratios) if ratios else None,
        "target": None if target is None else str(target),
        "holds": None,
        "n": len(ours),
    }
    return made if target is None else {**made, "holds": target.reached(made)}


def _tidy(value: float) -> float:
    """Return thousands without decimals: nothing behind the point is measured there."""
    return round(value) if abs(value) >= 1000 else value


def rows(samples: Samples, versions: Mapping[str, str]) -> list[Row]:
    """Return all rows."""
    cost = [*_training(samples, versions), *_collection(samples), _fairness(samples), *_patching(samples)]
    cost += _denoising(samples)
    return [*cost, *_values(samples)]


def peers(versions: Mapping[str, str]) -> dict[str, str]:
    """Return the peers that train, by contender, with the names that readers see."""
    lens = f"SAELens {versions['sae-lens']}"
    return {
        "dictionary_learning": f"dictionary_learning {versions['dictionary-learning']}",
        "saelens": lens,
        "saelens_sparse": f"{lens} with sparse codes, norms left free",
    }


def _training(samples: Samples, versions: Mapping[str, str]) -> list[Row]:
    """Return speed against each peer and the bound, and error against each peer."""
    ours, made = samples["ours"], []
    for contender, peer in peers(versions).items():
        target = Target("ratio", "≥", 2.5)
        name = f"SAE training, against {peer}"
        made.append(_speed(name, samples, contender, target))
    bound = Target("ratio", "≥", 0.75)
    name = "SAE training, against the two encoder products alone"
    made.append(_speed(name, samples, "bound", bound))
    for contender, peer in peers(versions).items():
        theirs, no_worse = samples[contender]["unexplained"], Target("ratio", "≤", 1.01)
        name = f"Held-out error at equal steps, against {peer}"
        made.append(row(name, "variance unexplained", ours["unexplained"], against=theirs, target=no_worse))
    return made


def _collection(samples: Samples) -> list[Row]:
    """Return speed of collection and equality of what is collected."""
    what, bare = "Activation collection, against", Target("ratio", "≥", 0.97)
    found = samples["collect"]
    return [
        row(f"{what} a bare hook", "tokens/s", found["ours"], against=found["hook"], target=bare),
        row(f"{what} a full forward pass", "tokens/s", found["ours"], against=found["full"]),
    ]


def _fairness(samples: Samples) -> Row:
    """Return the time of post-processing against that of training anew."""
    found, cheap = samples["fair"], Target("ratio", "≤", 1 / 20)
    name = "Fair regression by post-processing, against training anew with a reduction of fairlearn"
    return row(name, "s", found["ours"], against=found["reduction"], target=cheap)


def _patching(samples: Samples) -> list[Row]:
    """Return the cost of patching a head and of estimating all, and whether the estimates are right."""
    found, agree = samples["patch"], "correlation with exact patching"
    fast, cheap, right = Target("ratio", "≥", 50), Target("value", "≤", 1.3), Target("value", "≥", 0.97)
    ways = {
        "gradient": "by the plain gradient",
        "relp": "by RelP",
        "checked": "by both, the most disputed measured",
    }
    made = [row("Exact patching of one attention head", "forward passes", found["passes"], target=cheap)]
    for way, words in ways.items():
        name = f"Attention heads {words}"
        made += [
            row(name, "heads/s", found[way], against=found["exact"], target=fast),
            row(name, agree, found[f"r_{way}"], target=right),
        ]
    return made


def _denoising(samples: Samples) -> list[Row]:
    """Return how much faster than the heart a recording is denoised."""
    found, fast = samples["denoise"], Target("value", "≥", 250)
    unit = "seconds of ECG a second"
    return [
        row("Denoising a recording of two leads, the book's model", unit, found["book"], target=fast),
        row("Denoising a recording of two leads, the authors' width", unit, found["wide"], target=fast),
        row("Denoising a recording of two leads, the authors' size", unit, found["paper"], target=fast),
    ]


def _speed(name: str, samples: Samples, against: str, target: Target) -> Row:
    """Return a row that compares tokens/s of training."""
    one, other = samples["ours"]["tokens_per_second"], samples[against]["tokens_per_second"]
    return row(name, "tokens/s", one, against=other, target=target)


def _values(samples: Samples) -> list[Row]:
    """Return the import time and the differences of values."""
    difference, same = samples["collect_difference"]["difference"], Target("value", "≤", 0)
    close = Target("value", "≤", 1e-5)
    return [
        row("`import helpers`", "s", samples["import"]["seconds"], target=Target("value", "≤", 0.3)),
        row("Activations, helper and bare hook", "largest difference", difference, target=same),
        *(
            row(f"Codes and reconstructions of a file of {name}", "largest difference", found, target=close)
            for name, found in samples["check"].items()
        ),
    ]
