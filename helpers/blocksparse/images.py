"""Images with their classes, in three parts: to train on, to choose settings on, and to test once."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from helpers import data

__all__ = ["Images", "Part", "cifar100", "digits"]

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz"
CIFAR_ROW = 2 + 3 * 32 * 32  # coarse class, fine class, then all red, all green and all blue pixels


class Part(NamedTuple):
    """Some images and their classes.

    Parameters
    ----------
    x_ND : Float[Tensor, "image pixel"]
        One image a row.
    target_N : Int[Tensor, "image"]
        Its class.
    """

    x_ND: Float[Tensor, "image pixel"]
    target_N: Int[Tensor, "image"]


@dataclass(frozen=True)
class Images:
    """Three parts that share no image.

    Parameters
    ----------
    train, validation, test : Part
        Pixels have mean 0 and standard deviation 1 over the training part.
    """

    train: Part
    validation: Part
    test: Part


def digits(*, seed: int) -> Images:
    """Split scikit-learn's 1,797 images of handwritten digits: 998, 300 and 499 of 8 x 8 pixels.

    Parameters
    ----------
    seed : int
        Decides which image falls into which part.

    Returns
    -------
    Images
        Pixels of one image in a row of 64.

    References
    ----------
    Alpaydin, Kaynak (1998), *Optical Recognition of Handwritten Digits*.

    Examples
    --------
    >>> from helpers import blocksparse
    >>> blocksparse.digits(seed=0).test.x_ND.shape
    torch.Size([499, 64])

    Taught in: block-sparsity
    """
    from sklearn.datasets import load_digits

    x, target = load_digits(return_X_y=True)
    whole = Part(torch.tensor(x, dtype=torch.float32), torch.tensor(target))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    train, validation, test = (_rows(whole, rows) for rows in order.split((998, 300, 499)))
    return _standardised(train, validation, test)


def cifar100(*, seed: int, archive: Path | None = None, device: str | torch.device = "cpu") -> Images:
    """Fetch CIFAR-100, and split a tenth of its training images off for validation.

    The archive is the binary version: two bytes of classes and 3,072 bytes of pixels an image. Nothing is
    unpickled. The file is cached, and its SHA-256 is checked before it is read. The author publishes an MD5
    alone; the data's card says where the SHA-256 is from.

    Parameters
    ----------
    seed : int
        Decides which training images are for validation; the test images are the data set's own.
    archive : Path, optional
        A file of that format to read in place of the fetched one.
    device : str or torch.device
        Where the tensors go.

    Returns
    -------
    Images
        Pixels of one image in a row of 3,072, colour by colour; 100 classes.

    Raises
    ------
    FileNotFoundError
        If the given archive is not there.
    ConnectionError
        If the archive is not in the cache and cannot be downloaded.
    ValueError
        If its hash is another, a file is missing in it, or its length is not that of whole images.

    References
    ----------
    Krizhevsky (2009), *Learning Multiple Layers of Features from Tiny Images*.

    Examples
    --------
    >>> from pathlib import Path
    >>> from helpers import blocksparse
    >>> blocksparse.cifar100(seed=0, archive=Path("nowhere.tar.gz"))
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'nowhere.tar.gz'

    Taught in: block-sparsity
    """
    if archive is None:
        archive = data.fetch(CIFAR_URL, str(data.describe("cifar-100").sha256), CIFAR_URL.rpartition("/")[2])
    learn, test = (_read_cifar(archive, name, device) for name in ("train", "test"))
    order = torch.randperm(len(learn.x_ND), generator=torch.Generator().manual_seed(seed)).to(device)
    some = len(order) // 10
    return _standardised(_rows(learn, order[some:]), _rows(learn, order[:some]), test)


def _read_cifar(archive: Path, name: str, device: str | torch.device) -> Part:
    """Read one file of the archive, in memory: nothing is unpacked to disk."""
    inside = f"cifar-100-binary/{name}.bin"
    with tarfile.open(archive) as files:
        if inside not in files.getnames():
            raise ValueError(f"{archive} has no file {inside}; give the binary version of CIFAR-100")
        member = files.extractfile(inside)
        content = b"" if member is None else member.read()
    if not content or len(content) % CIFAR_ROW:
        raise ValueError(
            f"{inside} has {len(content)} bytes; expected a multiple of {CIFAR_ROW}, the bytes of an image"
        )
    rows = torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(-1, CIFAR_ROW).copy()).to(device)
    return Part(rows[:, 2:].float(), rows[:, 1].long())


def _rows(part: Part, rows: Tensor) -> Part:
    """Return some of the images."""
    return Part(part.x_ND[rows], part.target_N[rows])


def _standardised(train: Part, validation: Part, test: Part) -> Images:
    """Shift and scale all pixels as the training part asks."""
    mean, spread = train.x_ND.mean(), train.x_ND.std()
    return Images(*(Part((part.x_ND - mean) / spread, part.target_N) for part in (train, validation, test)))
