"""Tiny models of every family that know the words of the tasks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from helpers.circuits import Prompts, ioi
from helpers.circuits.tasks import word_tokenizer
from helpers.models import LanguageModel
from tests import families


def make(family: str, seed: int = 0) -> LanguageModel:
    """Return a tiny model in float64; normalisations still compute in float32 where the family does."""
    made = families.model(family, seed).double().requires_grad_(False)
    return LanguageModel(family, made, word_tokenizer())


@pytest.fixture(params=families.FAMILY_NAMES)
def lm(request: Any) -> LanguageModel:
    return make(request.param)


@pytest.fixture
def llama() -> LanguageModel:
    return make("llama")


@pytest.fixture
def prompts(lm: LanguageModel) -> Prompts:
    return ioi(lm, n=8, seed=1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
