"""Train with the real library, save with it, read the files with the book's readers, compare the maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helpers.sae import SparseAutoencoder, from_dictionary_learning, from_saelens

LATENTS, K, STEPS, ROWS = 1152, 32, 20, 1024
Maps = tuple[Any, SparseAutoencoder]  # the library's own module, and what our reader makes of its files


def saelens(architecture: str, acts_ND: Tensor, folder: Path, **settings: Any) -> Maps:
    """Train, save and load with SAELens; read with `from_saelens`."""
    from sae_lens import SAE
    from sae_lens.config import SAETrainerConfig
    from sae_lens.registry import get_sae_training_class
    from sae_lens.training.sae_trainer import SAETrainer

    module, config = get_sae_training_class(architecture)
    sae: Any = module(config(d_in=acts_ND.shape[1], d_sae=LATENTS, **settings))
    trainer = SAETrainerConfig(
        total_training_samples=STEPS * ROWS, train_batch_size_samples=ROWS, lr=1e-3, lr_end=1e-3
    )
    SAETrainer(trainer, sae, data_provider=_batches(acts_ND)).fit().save_inference_model(folder)
    return SAE.load_from_disk(folder), from_saelens(folder)


def dictionary_learning(kind: str, acts_ND: Tensor, folder: Path) -> Maps:
    """Train, save and load with dictionary_learning; read with `from_dictionary_learning`."""
    from dictionary_learning.dictionary import AutoEncoder
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
    from dictionary_learning.training import trainSAE

    only: dict[str, Any] = {"topk": {"k": K}, "relu": {"sparsity_warmup_steps": 5}}[kind]
    common = {"steps": STEPS, "warmup_steps": 2, "layer": 0, "lm_name": "", "device": "cpu", "lr": 1e-3}
    shape = {"activation_dim": acts_ND.shape[1], "dict_size": LATENTS}
    trainer = {"topk": TopKTrainer, "relu": StandardTrainer}[kind]
    configs = [{"trainer": trainer, **common, **shape, **only}]
    trainSAE(_batches(acts_ND), configs, steps=STEPS, save_dir=str(folder), device="cpu")
    saved = folder / "trainer_0"
    module = {"topk": AutoEncoderTopK, "relu": AutoEncoder}[kind]
    return module.from_pretrained(saved / "ae.pt"), from_dictionary_learning(saved)


def _batches(acts_ND: Tensor) -> Iterator[Tensor]:
    """Yield as many batches as a check trains on, again and again over the data."""
    parts = acts_ND.split(ROWS)[: len(acts_ND) // ROWS]
    return islice((part for _ in range(STEPS + 1) for part in parts), STEPS + 1)


# SAELens rescales codes by the norms of the decoder's rows unless told otherwise.
CHECKS: dict[str, Callable[[Tensor, Path], Maps]] = {
    "SAELens, TopK": lambda acts, at: saelens("topk", acts, at, k=K),
    "SAELens, TopK, not rescaled": lambda acts, at: saelens(
        "topk", acts, at, k=K, rescale_acts_by_decoder_norm=False
    ),
    "SAELens, TopK, input not centred": lambda acts, at: saelens(
        "topk", acts, at, k=K, apply_b_dec_to_input=False
    ),
    "SAELens, AbsTopK": lambda acts, at: saelens("abstopk", acts, at, k=K),
    "SAELens, standard": lambda acts, at: saelens("standard", acts, at),
    "dictionary_learning, TopK": lambda acts, at: dictionary_learning("topk", acts, at),
    "dictionary_learning, ReLU": lambda acts, at: dictionary_learning("relu", acts, at),
}


@torch.no_grad()
def difference(peer: Any, read: SparseAutoencoder, acts_ND: Tensor) -> float:
    """Give the largest difference in codes or reconstructions."""
    theirs_NP, ours_NP = peer.encode(acts_ND), read.encode(acts_ND)
    codes = (theirs_NP - ours_NP).abs().max()
    rebuilt = (peer.decode(theirs_NP) - read.decode(ours_NP)).abs().max()
    return float(torch.maximum(codes, rebuilt))


def measure(train_ND: Tensor, test_ND: Tensor, folder: Path) -> dict[str, float]:
    """Run all checks in the peers' environment; give the largest difference of each."""
    found = {}
    for number, (name, make) in enumerate(CHECKS.items()):
        torch.manual_seed(number)
        peer, read = make(train_ND, folder / str(number))
        found[name] = difference(peer, read, test_ND[:ROWS])
    return found
