"""The images, and the page's full profile on an archive that the test makes; nothing goes over a network."""

import hashlib
import io
import itertools
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace

import nbformat
import numpy as np
import pytest
import torch

from helpers import blocksparse, data
from helpers.session import start
from tools.press.project import ROOT

PAGE = ROOT / "book" / "lean-private-clinical" / "01-block-sparsity.ipynb"


def packed(path, **files):
    """Write an archive as CIFAR-100's is."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-100-binary/{name}.bin")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def pictures(count, seed):
    """Rows of a coarse class, a class and pixels."""
    rows = np.random.default_rng(seed).integers(0, 256, (count, 3074), dtype=np.uint8)
    rows[:, 1] %= 100
    return rows


@pytest.fixture
def archive(tmp_path):
    train, test = pictures(30, 0), pictures(8, 1)
    return packed(tmp_path / "small.tar.gz", train=train.tobytes(), test=test.tobytes()), train, test


def rows(part):
    return {tuple(row.tolist()) for row in part.x_ND.double().round(decimals=4)}


def test_digits_fall_into_three_parts_that_share_none():
    images = blocksparse.digits(seed=3)
    parts = (images.train, images.validation, images.test)
    assert [len(part.target_N) for part in parts] == [998, 300, 499]
    assert len(set().union(*map(rows, parts))) == sum(len(rows(part)) for part in parts)
    assert float(images.train.x_ND.mean()) == pytest.approx(0, abs=1e-5)
    assert float(images.train.x_ND.std()) == pytest.approx(1, abs=1e-5)
    assert not torch.equal(images.test.x_ND, blocksparse.digits(seed=4).test.x_ND)


def test_cifar_keeps_classes_pixels_and_its_own_test_images(archive):
    path, train, test = archive
    images = blocksparse.cifar100(seed=0, archive=path)
    assert images.test.target_N.tolist() == test[:, 1].tolist()
    assert (len(images.train.target_N), len(images.validation.target_N)) == (27, 3)
    learnt = torch.cat([images.train.target_N, images.validation.target_N])
    assert sorted(learnt.tolist()) == sorted(train[:, 1].tolist())
    ours, theirs = images.test.x_ND.flatten().double(), test[:, 2:].reshape(-1).astype(float)
    line = np.polyfit(theirs, ours.numpy(), 1)  # the same pixels, up to shift and scale
    assert np.abs(np.polyval(line, theirs) - ours.numpy()).max() < 1e-4


def test_the_download_is_checked_and_cached(archive, tmp_path, monkeypatch):
    path, _, _ = archive
    place = tmp_path / "cache" / "downloads"
    place.mkdir(parents=True)
    (place / "cifar-100-binary.tar.gz").write_bytes(path.read_bytes())
    monkeypatch.setenv("TML_CACHE", str(tmp_path / "cache"))
    right = replace(data.describe("cifar-100"), sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(data, "describe", lambda name: right)
    assert len(blocksparse.cifar100(seed=0).test.target_N) == 8


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    import pooch

    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr(pooch, "retrieve", fail)
    monkeypatch.setenv("TML_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"put the file at .*cifar-100-binary\.tar\.gz by hand"):
        blocksparse.cifar100(seed=0)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"train": bytes(3074)}, "has no file cifar-100-binary/test.bin"),
        ({"train": bytes(3074), "test": bytes(3073)}, "3073 bytes; expected a multiple of 3074"),
        ({"train": b"", "test": bytes(3074)}, "0 bytes"),
    ],
)
def test_other_archives_are_refused(files, said, tmp_path):
    path = packed(tmp_path / "x.tar.gz", **files)
    with pytest.raises(ValueError, match=said):
        blocksparse.cifar100(seed=0, archive=path)


def test_patches_are_squares_of_all_colours():
    made = blocksparse.PatchTransformer(side=8, patch=4, channels=3, width=8, heads=2, layers=1, seed=0)
    seen = []
    made.embed.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    x = torch.arange(2 * 3 * 8 * 8.0)
    made(x.reshape(2, -1))
    picture = x.reshape(2, 3, 8, 8)
    assert torch.equal(seen[0][1, 2], picture[1, :, 4:, :4].flatten())  # third of four: below, left


def test_the_page_runs_the_paper_s_size(archive, monkeypatch):
    """The cells of the full profile train ViT-tiny, on the small archive for two steps."""
    path, _, _ = archive
    whole = blocksparse.cifar100
    monkeypatch.setattr(blocksparse, "cifar100", lambda **given: whole(archive=path, **given))
    names = {
        "blocksparse": blocksparse, "run": start("full", chapter="block-sparsity", device="cpu", threads=1),
        "PROFILE": "full", "Callable": Callable, "itertools": itertools, "dataclass": dataclass,
    }  # fmt: skip
    cells = {cell.id: cell.source for cell in nbformat.read(PAGE, as_version=4).cells}
    for name in ("data-code", "full-code", "choose-code"):
        exec(cells[name], names)
    assert names["run"]["vit.factors"] == pytest.approx(0.883, abs=0.001)  # the released code's count
    task = replace(names["TASKS"]["ViT-tiny"], steps=2, batch=4, rates=(0.001,))
    done, setting, validation, accuracy = names["chosen"](task, "Kronecker factors", 0)
    assert blocksparse.zero_blocks(done.model, (4, 4), skip=task.skip) == pytest.approx(0.75, abs=0.01)
    assert setting == (4, 0.001)
    assert 0 <= validation <= 100 >= accuracy >= 0


def test_settings_are_chosen_without_the_test_images():
    """A method's choice stays when all answers to the test images are made wrong."""
    cells = {cell.id: cell.source for cell in nbformat.read(PAGE, as_version=4).cells}

    def chosen(spoil):
        names = {
            "blocksparse": blocksparse, "run": start("smoke", chapter="block-sparsity", threads=1),
            "PROFILE": "smoke", "Callable": Callable, "itertools": itertools, "dataclass": dataclass,
        }  # fmt: skip
        exec(cells["data-code"], names)
        exec(cells["choose-code"], names)
        images = blocksparse.digits(seed=0)
        target = (images.test.target_N + spoil) % 10
        images = replace(images, test=images.test._replace(target_N=target))
        task = replace(names["TASKS"]["mlp"], images=lambda seed: images)
        return names["chosen"](task, "iterative pruning", 0)

    fair, spoilt = chosen(0), chosen(1)
    assert fair[1:3] == spoilt[1:3]
    assert spoilt[3] < fair[3]
