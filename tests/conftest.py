"""Shapes in signatures are checked while the tests run: jaxtyping reads them, beartype enforces them."""

import torch
from jaxtyping import install_import_hook

import tests.shapes  # noqa: F401  (the hook finds the checker by its name)

install_import_hook("helpers", "tests.shapes.check")
torch.set_num_threads(1)  # the tensors of the tests are small: a second thread would only wait
