"""What a denoised ECG is worth: its error, the beats that are found in it, and those made up or erased."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from helpers.ecg.signals import Record

__all__ = [
    "Agreement", "BeatNet", "beats", "f1", "find_peaks", "fit_beats", "heart_rate", "kept", "match",
    "rmse", "template", "template_hits",
]  # fmt: skip

Array = np.ndarray
BEFORE, AFTER = 0.25, 0.45  # seconds of a beat around its R peak
TOLERANCE = 0.075  # seconds that a found peak may be off


def rmse(
    clean_CT: Float[Array, "*batch lead sample"], found_CT: Float[Array, "*batch lead sample"]
) -> Float[Array, "*batch"] | float:
    """Return the root of the mean squared error over leads and samples.

    Parameters
    ----------
    clean_CT, found_CT : Float[ndarray, "batch lead sample"]
        What it should be, and what it is.

    Returns
    -------
    Float[ndarray, "batch"]
        In the unit of the signal; 10^0.2 = 1.585 for a signal of variance 1 with noise at -4 dB.

    References
    ----------
    The released code of arXiv 2407.11065, metrics.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import evaluation
    >>> evaluation.rmse(np.zeros((2, 4)), np.full((2, 4), 3.0))
    np.float64(3.0)

    Taught in: ecg-denoising
    """
    return np.sqrt(((clean_CT - found_CT) ** 2).mean((-2, -1)))


def find_peaks(lead_T: Float[Array, "sample"], *, rate: int) -> Int[Array, "peak"]:
    """Find R peaks with neurokit2's detector.

    Parameters
    ----------
    lead_T : Float[ndarray, "sample"]
        One lead, some seconds long.
    rate : int
        Samples a second.

    Returns
    -------
    Int[ndarray, "peak"]
        Their samples; none in a flat lead.

    References
    ----------
    Makowski et al. (2021); Brammer (2020) for the detector.

    Examples
    --------
    >>> from helpers.ecg import evaluation, signals
    >>> record = signals.simulate(0, seconds=10, heart_rate=60.0, premature=0.0)
    >>> len(evaluation.find_peaks(record.signal_CT[0], rate=360))
    10

    Taught in: ecg-denoising
    """
    import neurokit2 as nk

    if np.ptp(lead_T) < 1e-9:
        return np.zeros(0, dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = nk.ecg_findpeaks(lead_T, sampling_rate=rate, method="neurokit")
    return np.asarray(found["ECG_R_Peaks"], dtype=int)


@dataclass(frozen=True)
class Agreement:
    """Count how the beats that were found agree with those that are there.

    Parameters
    ----------
    hits, invented, missed : int
        Found and there, found and not there, there and not found.

    Examples
    --------
    >>> from helpers.ecg import evaluation
    >>> evaluation.Agreement(8, 2, 2).f1
    0.8

    Taught in: ecg-denoising
    """

    hits: int
    invented: int
    missed: int

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall; 1 if there is nothing and nothing was found."""
        total = 2 * self.hits + self.invented + self.missed
        return 2 * self.hits / total if total else 1.0


def match(found_N: Int[Array, "found"], true_N: Int[Array, "true"], *, rate: float) -> Agreement:
    """Pair found peaks with true ones, each at most once, within 75 ms.

    Parameters
    ----------
    found_N, true_N : Int[ndarray, "peak"]
        Samples, increasing.
    rate : float
        Samples a second.

    Returns
    -------
    Agreement
        The counts.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import evaluation
    >>> evaluation.match(np.array([99, 300]), np.array([100, 200]), rate=360)
    Agreement(hits=1, invented=1, missed=1)

    Taught in: ecg-denoising
    """
    hits, first = 0, 0
    for place in found_N:
        while first < len(true_N) and true_N[first] < place - TOLERANCE * rate:
            first += 1
        if first < len(true_N) and true_N[first] <= place + TOLERANCE * rate:
            hits, first = hits + 1, first + 1
    return Agreement(hits, len(found_N) - hits, len(true_N) - hits)


def heart_rate(peaks_N: Int[Array, "peak"], *, rate: float) -> float:
    """Return the beats a minute from the median interval; 0 with fewer than two peaks.

    Parameters
    ----------
    peaks_N : Int[ndarray, "peak"]
        Samples, increasing.
    rate : float
        Samples a second.

    Returns
    -------
    float
        Beats a minute.

    Examples
    --------
    >>> import numpy as np
    >>> from helpers.ecg import evaluation
    >>> evaluation.heart_rate(np.array([0, 360, 720]), rate=360)
    60.0

    Taught in: ecg-denoising
    """
    return float(60 * rate / np.median(np.diff(peaks_N))) if len(peaks_N) > 1 else 0.0


def beats(record: Record, signal_CT: Float[Array, "2 sample"] | None = None) -> tuple[Tensor, Tensor]:
    """Cut out every beat that lies wholly inside the record, a quarter second before its peak to 0.45 after.

    Parameters
    ----------
    record : Record
        Where the beats are and what they are.
    signal_CT : Float[ndarray, "2 sample"], optional
        What to cut; the record's own signal by default, or a noisy or denoised version of it.

    Returns
    -------
    tuple of Tensor
        Beats (beat, 2, sample), each with mean 0 and mean square 1; and 1 for every V, else 0.

    Examples
    --------
    >>> from helpers.ecg import evaluation, signals
    >>> beats, is_v = evaluation.beats(signals.simulate(0, seconds=10, rate=180))
    >>> beats.shape[1:], is_v.dtype
    (torch.Size([2, 126]), torch.int64)

    Taught in: ecg-denoising
    """
    signal_CT = record.signal_CT if signal_CT is None else signal_CT
    before, after = int(BEFORE * record.rate), int(AFTER * record.rate)
    inside_N = (record.peaks_N >= before) & (record.peaks_N + after <= signal_CT.shape[1])
    cuts = [signal_CT[:, peak - before : peak + after] for peak in record.peaks_N[inside_N]]
    made_BCT = np.stack(cuts) if cuts else np.zeros((0, 2, before + after))
    made_BCT = made_BCT - made_BCT.mean((1, 2), keepdims=True)
    made_BCT = made_BCT / (np.sqrt((made_BCT**2).mean((1, 2), keepdims=True)) + 1e-9)
    is_v_B = torch.from_numpy((record.labels_N[inside_N] == "V").astype(np.int64))
    return torch.from_numpy(made_BCT).float(), is_v_B


class BeatNet(nn.Module):
    """Tell premature ventricular beats from normal ones: a small residual network over a beat of two leads.

    Parameters
    ----------
    width : int
        Channels of the first stage.

    References
    ----------
    Stands in for the bottleneck ResNet of arXiv 2407.11065's code.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import evaluation
    >>> evaluation.BeatNet()(torch.zeros(3, 2, 126)).shape
    torch.Size([3, 2])

    Taught in: ecg-denoising
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width]
        self.stem = nn.Conv1d(2, width, 7, stride=2, padding=3)
        self.shortcuts = nn.ModuleList(
            nn.Conv1d(a, b, 1, stride=2) for a, b in zip([width, *widths], widths, strict=False)
        )
        self.bodies = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(a, b, 5, stride=2, padding=2), nn.GroupNorm(1, b), nn.ReLU(),
                nn.Conv1d(b, b, 5, padding=2), nn.GroupNorm(1, b),
            )
            for a, b in zip([width, *widths], widths, strict=False)
        )  # fmt: skip
        self.head = nn.Linear(widths[-1], 2)

    def forward(self, x_BCT: Float[Tensor, "beat 2 sample"]) -> Float[Tensor, "beat 2"]:
        """Return the logits of N and V."""
        x_BCT = self.stem(x_BCT).relu()
        for shortcut, body in zip(self.shortcuts, self.bodies, strict=True):
            x_BCT = (shortcut(x_BCT) + body(x_BCT)).relu()
        return self.head(x_BCT.mean(2))


def fit_beats(
    beats_BCT: Float[Tensor, "beat 2 sample"], is_v_B: Int[Tensor, "beat"], *, steps: int = 150, seed: int = 0
) -> BeatNet:
    """Train the classifier of beats with Adam on batches of 64.

    Parameters
    ----------
    beats_BCT : Float[Tensor, "beat 2 sample"]
        Clean beats.
    is_v_B : Int[Tensor, "beat"]
        1 for V.
    steps : int
        Batches.
    seed : int
        Of the start and the batches.

    Returns
    -------
    BeatNet
        In ``eval()``.

    Examples
    --------
    >>> from helpers.ecg import evaluation, signals
    >>> net = evaluation.fit_beats(*evaluation.beats(signals.simulate(0, rate=180)), steps=2)
    >>> net.training
    False

    Taught in: ecg-denoising
    """
    torch.manual_seed(seed)
    net = BeatNet()
    optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
    dice = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        chosen = torch.randint(len(beats_BCT), (64,), generator=dice)
        value = F.cross_entropy(net(beats_BCT[chosen]), is_v_B[chosen])
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    return net.eval()


def f1(found_B: Int[Tensor, "beat"], is_v_B: Int[Tensor, "beat"]) -> float:
    """Return the F1 score of the V beats.

    Parameters
    ----------
    found_B, is_v_B : Int[Tensor, "beat"]
        1 for V: as classified, and as it is.

    Returns
    -------
    float
        0 to 1; 1 if there is none and none was found.

    Examples
    --------
    >>> import torch
    >>> from helpers.ecg import evaluation
    >>> evaluation.f1(torch.tensor([1, 1, 0]), torch.tensor([1, 0, 1]))
    0.5

    Taught in: ecg-denoising
    """
    hits = int((found_B * is_v_B).sum())
    return Agreement(hits, int(found_B.sum()) - hits, int(is_v_B.sum()) - hits).f1


def kept(
    record: Record, found_CT: Float[Array, "2 sample"], *, reach: float = 0.1
) -> tuple[Float[Array, "beat"], Array]:
    """Measure how much of each beat is left: the part of the QRS complex that the output holds.

    Parameters
    ----------
    record : Record
        The clean record.
    found_CT : Float[ndarray, "2 sample"]
        What a denoiser made of it.
    reach : float
        Seconds on either side of the peak.

    Returns
    -------
    tuple of ndarray
        ``<x, found> / <x, x>`` over the window with its mean taken off, 1 for a beat that is all there and 0
        for one that is gone; and the labels of these beats.

    Examples
    --------
    >>> from helpers.ecg import evaluation, signals
    >>> record = signals.simulate(0, seconds=10)
    >>> evaluation.kept(record, 0.5 * record.signal_CT)[0][:2].round(6)
    array([0.5, 0.5])

    Taught in: ecg-denoising
    """
    half = int(reach * record.rate)
    inside_N = (record.peaks_N >= half) & (record.peaks_N + half < found_CT.shape[1])
    shares = []
    for peak in record.peaks_N[inside_N]:
        true_CT, seen_CT = (x[:, peak - half : peak + half + 1] for x in (record.signal_CT, found_CT))
        true_CT = true_CT - true_CT.mean(1, keepdims=True)
        shares.append((true_CT * seen_CT).sum() / (true_CT**2).sum())
    return np.array(shares), record.labels_N[inside_N]


def template(records: Sequence[Record], *, reach: float = 0.07) -> Float[Array, "sample"]:
    """Return the mean QRS complex of the first lead over normal beats, with mean 0 and length 1.

    Parameters
    ----------
    records : sequence of Record
        Clean records of one rate.
    reach : float
        Seconds on either side of the peak.

    Returns
    -------
    Float[ndarray, "sample"]
        The template.

    Examples
    --------
    >>> from helpers.ecg import evaluation, signals
    >>> len(evaluation.template([signals.simulate(0, rate=180)]))
    25

    Taught in: ecg-denoising
    """
    half = int(reach * records[0].rate)
    total_T = np.zeros(2 * half + 1)
    for record in records:
        for peak in record.peaks_N[record.labels_N == "N"]:
            if half <= peak < record.signal_CT.shape[1] - half:
                total_T += record.signal_CT[0, peak - half : peak + half + 1]
    total_T -= total_T.mean()
    return total_T / np.linalg.norm(total_T)


def template_hits(
    lead_T: Float[Array, "sample"], template_T: Float[Array, "window"], *, least: float,
    alike: float = 0.9, apart: int = 36,
) -> Int[Array, "hit"]:  # fmt: skip
    """Find places that look like a QRS complex, whatever else is in the recording.

    A detector of R peaks adapts to what it gets, and so finds "peaks" in anything. This one does not: a place
    counts if its correlation with the template is high and it is tall enough.

    Parameters
    ----------
    lead_T : Float[ndarray, "sample"]
        One lead.
    template_T : Float[ndarray, "window"]
        From `template`.
    least : float
        Height (largest minus smallest sample in the window) that counts, in the unit of the lead.
    alike : float
        Correlation that counts, 0 to 1.
    apart : int
        Samples between two hits, at least.

    Returns
    -------
    Int[ndarray, "hit"]
        The samples.

    Examples
    --------
    >>> from helpers.ecg import evaluation, signals
    >>> record = signals.simulate(0, seconds=10, rate=180, premature=0.0)
    >>> shape = evaluation.template([record])
    >>> hits = evaluation.template_hits(record.signal_CT[0], shape, least=1.0)
    >>> len(hits) == len(record.peaks_N)
    True

    Taught in: ecg-denoising
    """
    view_TW = np.lib.stride_tricks.sliding_window_view(lead_T, len(template_T))
    centred_TW = view_TW - view_TW.mean(1, keepdims=True)
    alike_T = centred_TW @ template_T / (np.linalg.norm(centred_TW, axis=1) + 1e-12)
    good_T = np.where((alike_T >= alike) & (np.ptp(view_TW, axis=1) >= least), alike_T, 0)
    hits: list[int] = []
    for place in np.argsort(-good_T):
        if good_T[place] == 0:
            break
        if all(abs(place - other) >= apart for other in hits):
            hits.append(int(place))
    return np.sort(np.array(hits, dtype=int)) + len(template_T) // 2
