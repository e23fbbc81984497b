"""Send a number in a few bits so that nobody can tell it well from another: private quantisers.

A mechanism takes an input in [-clip, clip] and answers with one of M levels, by chance. It has
**epsilon-local differential privacy** if no answer is more than ``exp(epsilon)`` times as likely under one
input as under any other. Three kinds are here:

- `TwoLevel`: the unbiased family of arXiv 2406.02599. For an input between two levels, draw a level below it
  and a level above it, then choose between the two so that the mean is the input. `rqm`, `exponential`,
  `bracketed_lp` (the paper's) and `joint_lp` (the book's) differ in how the pair is drawn.
- `RoundedNoise`: add Laplace or Gaussian noise, then round to the levels.
- `IntegerSampler`: any of these as a table of whole numbers, drawn from with the system's random bits.

Everything that samples with a floating-point generator here is for teaching: such generators are
predictable, and rounding moves probabilities. `IntegerSampler` shows what a deployment needs.

Read the files in this order: `mechanisms` (what one is, and the family), `limits` (what a budget costs at
least), `measuring` (what a mechanism leaks), `draws` (pairs by a formula), `brackets` (by the paper's linear
programs), `joint` (by the book's), `noise` (the rivals), `tuning` (settings within a budget), `packing` (bits
in bytes), `integers` (for use, not for teaching).

Examples
--------
>>> from helpers import privacy
>>> one_bit = privacy.joint_lp(1.0, privacy.levels(2, margin=1.17))
>>> one_bit.bins_M
array([-2.17,  2.17])
"""

from helpers.privacy.brackets import bracketed_lp
from helpers.privacy.draws import exponential, rqm
from helpers.privacy.integers import IntegerSampler
from helpers.privacy.joint import joint_lp
from helpers.privacy.limits import duchi_level, staircase_error
from helpers.privacy.measuring import audit, privacy_loss, renyi
from helpers.privacy.mechanisms import Mechanism, TwoLevel, levels
from helpers.privacy.noise import RoundedNoise
from helpers.privacy.packing import pack, unpack
from helpers.privacy.tuning import calibrate, search

__all__ = [
    "IntegerSampler", "Mechanism", "RoundedNoise", "TwoLevel", "audit", "bracketed_lp", "calibrate",
    "duchi_level", "exponential", "joint_lp", "levels", "pack", "privacy_loss", "renyi", "rqm", "search",
    "staircase_error", "unpack",
]  # fmt: skip
