"""One sparse autoencoder for all four operators (arXiv 2510.00404, Section 3).

    z = prox(W x + b_e),  x_hat = z D + b

Rows of D are the dictionary's atoms, of unit norm. Shapes: B batch, D d_model, P latents.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from helpers.sae.operators import OPERATORS, Operator
from helpers.weights import read_safetensors, write_safetensors


class SparseAutoencoder(nn.Module):
    """A dictionary and the one proximal step that encodes into it.

    Parameters
    ----------
    d_model : int
        Width of the activations.
    n_latents : int
        Number of latents P, the rows of the dictionary.
    operator : str
        "relu", "jumprelu", "topk" or "abstopk".
    k : int
        Active latents a token that training aims at, 1 <= k <= n_latents. For "topk" and
        "abstopk" this is the operator's own k; for "relu" and "jumprelu" training moves the
        level until the mean is k.
    seed : int
        Seed of the random dictionary.

    Attributes
    ----------
    encoder_PD, encoder_bias_P, decoder_PD, decoder_bias_D
        The parameters.
    level : Tensor
        The operator's level, k or lambda.
    scale : Tensor
        Activations are divided by it before encoding and multiplied by it after decoding.

    Raises
    ------
    ValueError
        An unknown operator, or k outside [1, n_latents].

    Notes
    -----
    Tied start: W = D and b_e = -D b, which is where the proximal step puts them before they are let loose.

    Examples
    --------
    >>> sae = SparseAutoencoder(8, 32, operator="abstopk", k=4)
    >>> z_BP = sae.encode(torch.randn(5, 8))
    >>> (z_BP != 0).sum(1)
    tensor([4, 4, 4, 4, 4])
    >>> sae.decode(z_BP).shape
    torch.Size([5, 8])

    Taught in: sae-derivation
    """

    level: Tensor
    scale: Tensor

    def __init__(self, d_model: int, n_latents: int, *, operator: str, k: int, seed: int = 0) -> None:
        super().__init__()
        if operator not in OPERATORS:
            raise ValueError(f"operator is {operator!r}; give one of {', '.join(OPERATORS)}")
        if not 1 <= k <= n_latents:
            raise ValueError(f"k is {k}; give a number of latents from 1 to {n_latents}")
        self.operator_name, self.k = operator, k
        noise_PD = torch.randn(n_latents, d_model, generator=torch.Generator().manual_seed(seed))
        self.decoder_PD = nn.Parameter(normalize(noise_PD, dim=1))
        self.encoder_PD = nn.Parameter(self.decoder_PD.detach().clone())
        self.encoder_bias_P = nn.Parameter(torch.zeros(n_latents))
        self.decoder_bias_D = nn.Parameter(torch.zeros(d_model))
        self.register_buffer("level", torch.tensor(float(k) if self.operator.counts else 0.0))
        self.register_buffer("scale", torch.tensor(1.0))

    @property
    def operator(self) -> Operator:
        """The proximal operator of the encoder."""
        return OPERATORS[self.operator_name]

    @property
    def d_model(self) -> int:
        """Width of the activations."""
        return self.decoder_PD.shape[1]

    @property
    def n_latents(self) -> int:
        """Number of latents."""
        return self.decoder_PD.shape[0]

    @torch.no_grad()
    def start_from(self, acts_ND: Float[Tensor, "token d_model"]) -> None:
        """Centre and scale on the data: b is the mean, the mean squared norm becomes d_model, b_e = -D b."""
        mean_D = acts_ND.mean(0)
        self.scale.fill_(float((acts_ND - mean_D).square().mean().sqrt().clamp(min=1e-12)))
        self.decoder_bias_D.copy_(mean_D / self.scale)
        self.encoder_bias_P.copy_(-self.encoder_PD @ self.decoder_bias_D)

    @torch.no_grad()
    def unit_norm(self) -> None:
        """Bring every atom back to length one."""
        self.decoder_PD.copy_(normalize(self.decoder_PD, dim=1))

    def encode(self, acts_BD: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch latents"]:
        """Take the one proximal step: z = prox(W x + b_e), in units of `scale`."""
        u_BP = nn.functional.linear(acts_BD / self.scale, self.encoder_PD, self.encoder_bias_P)
        return self.operator.prox(u_BP, self.level.item())

    def decode(self, z_BP: Float[Tensor, "*batch latents"]) -> Float[Tensor, "*batch d_model"]:
        """Add up the active atoms: x_hat = z D + b, back in the units of the activations."""
        return (z_BP @ self.decoder_PD + self.decoder_bias_D) * self.scale

    def forward(self, acts_BD: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Reconstruct activations."""
        return self.decode(self.encode(acts_BD))

    def save(self, path: str | Path) -> Path:
        """Write weights and settings to one safetensors file, whole or not at all.

        Examples
        --------
        >>> import tempfile
        >>> sae = SparseAutoencoder(4, 8, operator="topk", k=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = SparseAutoencoder.load(sae.save(Path(folder) / "sae.safetensors"))
        >>> torch.equal(again.decoder_PD, sae.decoder_PD)
        True
        """
        return write_safetensors(path, dict(self.state_dict()), settings=self.settings())

    def settings(self) -> dict[str, str | int]:
        """Give the constructor's arguments that shape the module."""
        return {
            "d_model": self.d_model,
            "n_latents": self.n_latents,
            "operator": self.operator_name,
            "k": self.k,
        }

    @classmethod
    def load(cls, path: str | Path) -> SparseAutoencoder:
        """Read what `save` wrote; ValueError if the file is damaged or holds something else."""
        tensors, settings = read_safetensors(path)
        sae = cls(**settings)
        sae.load_state_dict(tensors)
        return sae


def from_saelens(folder: str | Path) -> SparseAutoencoder:
    """Read a TopK, AbsTopK or ReLU ("standard") SAE of SAELens: cfg.json and sae_weights.safetensors.

    Parameters
    ----------
    folder : str | Path
        What SAELens's `save_model` (or `save_inference_model`) wrote.

    Returns
    -------
    SparseAutoencoder
        An SAE that gives the same codes and reconstructions.

    Raises
    ------
    ValueError
        Another architecture, no k where one is needed, or a normalisation of activations that is
        done outside the SAE.
    FileNotFoundError
        A file is missing.

    Notes
    -----
    SAELens may subtract b_dec before encoding; then b_e becomes b_e - W b_dec, the same map. It may rank
    codes as if the decoder's rows had unit norm (its default for TopK); then their norms move from the
    decoder into the encoder.

    Examples
    --------
    >>> from_saelens("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/cfg.json is missing: give a folder with cfg.json and sae_weights.safetensors
    """
    folder = Path(folder)
    settings = _read_json(folder / "cfg.json", "sae_weights.safetensors")
    operators = {"topk": "topk", "abstopk": "abstopk", "standard": "relu"}
    operator = operators.get(settings.get("architecture", ""))
    if operator is None:
        raise ValueError(
            f"architecture is {settings.get('architecture')!r}; 'topk', 'abstopk' and 'standard' can be read"
        )
    if OPERATORS[operator].counts and "k" not in settings:
        raise ValueError(f"{folder / 'cfg.json'} names no k: load it with SAELens 6 or later, save it again")
    if settings.get("normalize_activations", "none") not in ("none", None):
        raise ValueError("activations are normalised outside this SAE: fold that in before you save it")
    weights = load_file(folder / "sae_weights.safetensors")
    norm_P = weights["W_dec"].norm(dim=1).clamp(min=1e-8)
    if not settings.get("rescale_acts_by_decoder_norm"):
        norm_P = torch.ones_like(norm_P)
    return _assemble(
        operator,
        k=int(settings.get("k", 1)),
        encoder_PD=weights["W_enc"].T * norm_P[:, None],
        encoder_bias_P=weights["b_enc"] * norm_P,
        decoder_PD=weights["W_dec"] / norm_P[:, None],
        decoder_bias_D=weights["b_dec"],
        centred=bool(settings.get("apply_b_dec_to_input", True)),
    )


def from_dictionary_learning(folder: str | Path) -> SparseAutoencoder:
    """Read a TopK or ReLU SAE in dictionary_learning's format: config.json and ae.pt.

    Parameters
    ----------
    folder : str | Path
        What a trainer of that library saved. Its ae.pt is read with weights_only=True: tensors,
        no code.

    Returns
    -------
    SparseAutoencoder
        An SAE that gives the same codes and reconstructions.

    Raises
    ------
    ValueError
        Another dictionary class.
    FileNotFoundError
        A file is missing.

    Examples
    --------
    >>> from_dictionary_learning("nowhere")
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/config.json is missing: give a folder with config.json and ae.pt
    """
    folder = Path(folder)
    trainer = _read_json(folder / "config.json", "ae.pt").get("trainer", {})
    operator = {"AutoEncoderTopK": "topk", "AutoEncoder": "relu"}.get(trainer.get("dict_class", ""))
    if operator is None:
        raise ValueError(
            f"dict_class is {trainer.get('dict_class')!r}; AutoEncoderTopK and AutoEncoder can be read"
        )
    weights = torch.load(folder / "ae.pt", map_location="cpu", weights_only=True)
    return _assemble(
        operator,
        k=int(trainer.get("k", 1)),
        encoder_PD=weights["encoder.weight"],
        encoder_bias_P=weights["encoder.bias"],
        decoder_PD=weights["decoder.weight"].T,
        decoder_bias_D=weights["b_dec"] if operator == "topk" else weights["bias"],
        centred=True,
    )


def _assemble(
    operator: str,
    *,
    k: int,
    encoder_PD: Tensor,
    encoder_bias_P: Tensor,
    decoder_PD: Tensor,
    decoder_bias_D: Tensor,
    centred: bool,
) -> SparseAutoencoder:
    """Put weights of another library into one module; `centred` says that it encodes x - b_dec."""
    n_latents, d_model = decoder_PD.shape
    sae = SparseAutoencoder(d_model, n_latents, operator=operator, k=k)
    shift_P = encoder_PD @ decoder_bias_D if centred else torch.zeros_like(encoder_bias_P)
    with torch.no_grad():
        sae.encoder_PD.copy_(encoder_PD)
        sae.encoder_bias_P.copy_(encoder_bias_P - shift_P)
        sae.decoder_PD.copy_(decoder_PD)
        sae.decoder_bias_D.copy_(decoder_bias_D)
    return sae


def _read_json(path: Path, beside: str) -> dict:
    """Read a settings file, or say which two files are expected."""
    for file in (path, path.with_name(beside)):
        if not file.exists():
            raise FileNotFoundError(f"{file} is missing: give a folder with {path.name} and {beside}")
    return json.loads(path.read_text())
