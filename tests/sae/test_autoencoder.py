"""The module: shapes, units, files of its own and of other libraries."""

import json

import pytest
import torch
from safetensors.torch import save_file

from helpers.sae import SparseAutoencoder, from_dictionary_learning, from_saelens


@pytest.mark.parametrize("operator", ["relu", "jumprelu", "topk", "abstopk"])
def test_forward_is_decode_of_encode(operator):
    sae = SparseAutoencoder(6, 12, operator=operator, k=3)
    x = torch.randn(2, 5, 6)
    assert sae(x).shape == x.shape
    assert torch.equal(sae(x), sae.decode(sae.encode(x)))


def test_tied_start_is_the_proximal_step():
    sae = SparseAutoencoder(6, 12, operator="abstopk", k=12)
    data = 5 + 3 * torch.randn(1000, 6)
    sae.start_from(data)
    x = data[:4]
    scaled = x / sae.scale
    expected = (scaled - sae.decoder_bias_D) @ sae.decoder_PD.T
    torch.testing.assert_close(sae.encode(x), expected)
    assert abs(float(((data / sae.scale) - sae.decoder_bias_D.detach()).square().sum(1).mean()) - 6) < 1e-3


def test_scale_changes_units_not_the_map():
    sae = SparseAutoencoder(6, 12, operator="topk", k=3)
    x = torch.randn(4, 6)
    before = sae(x)
    sae.scale.fill_(10.0)
    torch.testing.assert_close(sae(10 * x), 10 * before)


@pytest.mark.parametrize(
    ("operator", "k", "said"), [("soft", 2, "relu, jumprelu"), ("topk", 0, "1 to 8"), ("topk", 9, "1 to 8")]
)
def test_bad_settings_say_what_is_allowed(operator, k, said):
    with pytest.raises(ValueError, match=said):
        SparseAutoencoder(4, 8, operator=operator, k=k)


def test_save_and_load_give_the_same_map(tmp_path):
    sae = SparseAutoencoder(4, 8, operator="jumprelu", k=2, seed=5)
    sae.level.fill_(0.3)
    sae.scale.fill_(2.0)
    again = SparseAutoencoder.load(sae.save(tmp_path / "deep" / "sae.safetensors"))
    x = torch.randn(9, 4)
    assert torch.equal(sae(x), again(x))
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["sae.safetensors"]


@pytest.mark.parametrize("content", [b"", b"not a tensor file", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_damaged_file_is_refused(tmp_path, content):
    path = tmp_path / "sae.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"damaged or was not written by this book"):
        SparseAutoencoder.load(path)


def saelens_folder(folder, *, centred, architecture="topk", **extra):
    dice = torch.Generator().manual_seed(0)
    weights = {
        "W_enc": torch.randn(4, 8, generator=dice),
        "W_dec": torch.randn(8, 4, generator=dice),
        "b_enc": torch.randn(8, generator=dice),
        "b_dec": torch.randn(4, generator=dice),
    }
    save_file(weights, folder / "sae_weights.safetensors")
    settings = {"architecture": architecture, "k": 3, "apply_b_dec_to_input": centred, **extra}
    (folder / "cfg.json").write_text(json.dumps(settings))
    return weights


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("rescaled", [True, False])
@pytest.mark.parametrize("architecture", ["topk", "abstopk", "standard"])
def test_saelens_weights_give_saelens_codes(tmp_path, centred, rescaled, architecture):
    w = saelens_folder(
        tmp_path, centred=centred, architecture=architecture, rescale_acts_by_decoder_norm=rescaled
    )
    x = torch.randn(7, 4)
    norm = w["W_dec"].norm(dim=1) if rescaled else torch.ones(8)
    u = ((x - w["b_dec"] if centred else x) @ w["W_enc"] + w["b_enc"]) * norm
    z = u if architecture == "abstopk" else u.relu()
    if architecture != "standard":
        kept = z.abs().topk(3).indices
        z = torch.zeros_like(u).scatter(1, kept, z.gather(1, kept))
    sae = from_saelens(tmp_path)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x), z / norm @ w["W_dec"] + w["b_dec"])


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"architecture": "gated"}, "'abstopk' and 'standard'"),
        ({"normalize_activations": "layer_norm"}, "normalised outside"),
    ],
)
def test_saelens_files_that_would_be_misread_are_refused(tmp_path, extra, said):
    saelens_folder(tmp_path, centred=True, **extra)
    with pytest.raises(ValueError, match=said):
        from_saelens(tmp_path)


def test_saelens_topk_file_without_k_is_refused(tmp_path):
    saelens_folder(tmp_path, centred=True)
    old = {"architecture": "topk", "activation_fn_kwargs": {"k": 3}}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    with pytest.raises(ValueError, match="names no k: load it with SAELens 6"):
        from_saelens(tmp_path)


@pytest.mark.parametrize("dict_class", ["AutoEncoderTopK", "AutoEncoder"])
def test_dictionary_learning_weights_give_its_codes(tmp_path, dict_class):
    w = {
        "encoder.weight": torch.randn(8, 4),
        "encoder.bias": torch.randn(8),
        "decoder.weight": torch.randn(4, 8),
    }
    bias = "b_dec" if dict_class == "AutoEncoderTopK" else "bias"
    torch.save({**w, bias: torch.randn(4)}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": dict_class, "k": 3}}))
    b = torch.load(tmp_path / "ae.pt", weights_only=True)[bias]
    x = torch.randn(7, 4)
    u = ((x - b) @ w["encoder.weight"].T + w["encoder.bias"]).relu()
    z = (
        u
        if dict_class == "AutoEncoder"
        else torch.zeros_like(u).scatter(1, u.topk(3).indices, u.topk(3).values)
    )
    sae = from_dictionary_learning(tmp_path)
    torch.testing.assert_close(sae.encode(x), z)
    torch.testing.assert_close(sae(x), z @ w["decoder.weight"].T + b)


def test_dictionary_learning_other_class_is_refused(tmp_path):
    torch.save({}, tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "GatedAutoEncoder"}}))
    with pytest.raises(ValueError, match="AutoEncoderTopK and AutoEncoder"):
        from_dictionary_learning(tmp_path)
