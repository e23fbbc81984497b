"""Packing, there and back."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers import privacy


@given(st.integers(1, 8), st.lists(st.integers(0, 255), max_size=40))
def test_packing_loses_nothing(bits: int, numbers: list[int]) -> None:
    index = torch.tensor([n % 2**bits for n in numbers], dtype=torch.long)
    packed = privacy.pack(index, bits=bits)
    assert len(packed) == math.ceil(len(index) * bits / 8)
    assert torch.equal(privacy.unpack(packed, bits=bits, count=len(index)), index)
