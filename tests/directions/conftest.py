"""A tiny model of every family, and a source of chance."""

import pytest
import torch

from helpers import models
from tests import families


@pytest.fixture
def dice():
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=families.FAMILY_NAMES)
def lm(request, tmp_path):
    return models.load_model(families.write(request.param, tmp_path / request.param), device="cpu")
