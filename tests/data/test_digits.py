from __future__ import annotations

import hashlib

import pytest
import torch

from tlcompile.data.digits import FILE, load_digits

DIGEST = "5295659ea00fa62cb164698ca329c1387b9268604f5f47d8935ef2e379b2d7fc"


def test_file_is_the_one_we_built() -> None:
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() == DIGEST
    assert FILE.with_name("DIGITS_LICENSE.md").is_file()


def test_digits_are_all_there() -> None:
    digits = load_digits()
    assert len(digits) == len(set(digits.ids)) == 1797
    assert digits.classes == tuple("0123456789")
    # The class distribution in scikit-learn's digits.rst is that of the UCI test part.
    assert list(digits.counts().values()) == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_values_are_scaled_exactly() -> None:
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    digits = load_digits()
    assert digits.labels == tuple(sklearn.target.tolist())
    for index in range(0, 1797, 10):
        wanted = [[round(v * 255 / 16) for v in row] for row in sklearn.images[index].tolist()]
        assert digits.read(index).tolist() == [wanted]


def test_three_channels_on_request() -> None:
    image = load_digits(channels=3).read(5)
    assert image.dtype == torch.uint8
    assert torch.equal(image, load_digits().read(5).expand(3, 8, 8))
