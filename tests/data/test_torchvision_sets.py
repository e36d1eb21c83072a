"""torchvision's own readers on small files in their layouts; only the checksums are set aside."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torchvision.datasets import cifar, flowers102, mnist, stl10, svhn

from tlcompile.data.datasets import NAMES, open_dataset
from tlcompile.data.samples import Samples
from tlcompile.data.torchvision_sets import KINDS, array_samples
from tlcompile.errors.archives import (
    DatasetDownloadError,
    IncompleteDatasetError,
    MissingPackageError,
)
from tlcompile.recipe.data import DATASET_CLASSES, Dataset

Write = Callable[[Path], None]


def silent(text: str) -> None:
    pass


def picture(path: Path, red: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), (red, 0, 0)).save(path, format="PNG")  # whatever its name says


def idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def write_mnist(folder: str) -> Write:
    def write(root: Path) -> None:
        for word, count in (("train", 3), ("t10k", 2)):
            images = np.arange(count).repeat(28 * 28).reshape(count, 28, 28)
            idx(root / folder / "raw" / f"{word}-images-idx3-ubyte", images)
            idx(root / folder / "raw" / f"{word}-labels-idx1-ubyte", np.arange(count)[::-1])

    return write


def write_cifar(base: str, train: list[str], meta: str, key: str, labels: str) -> Write:
    def write(root: Path) -> None:
        (root / base).mkdir(parents=True)
        for name in [*train, "test" if base.endswith("100-python") else "test_batch"]:
            data = np.arange(2 * 3072, dtype=np.uint64).reshape(2, 3072).astype(np.uint8)
            (root / base / name).write_bytes(pickle.dumps({"data": data, labels: [1, 0]}))
        (root / base / meta).write_bytes(pickle.dumps({key: ["ant", "bee"]}))

    return write


def write_stl10(root: Path) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for word in ("train", "test"):
        data = np.zeros((2, 3, 96, 96), np.uint8)
        data[1, 0, :, 5] = 9  # stored column by column
        (folder / f"{word}_X.bin").write_bytes(data.tobytes())
        (folder / f"{word}_y.bin").write_bytes(bytes([2, 1]))
    (folder / "unlabeled_X.bin").write_bytes(b"")
    (folder / "class_names.txt").write_text("airplane\nbird\n")


def write_svhn(root: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    root.mkdir(parents=True)
    data = np.zeros((32, 32, 3, 2), np.uint8)
    data[3, 4, 0, 1] = 7
    for word in ("train", "test"):
        savemat(root / f"{word}_32x32.mat", {"X": data, "y": np.array([[10], [3]])})


def write_pets(root: Path) -> None:
    folder = root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for number, name in enumerate(("Abyssinian_1", "great_pyrenees_2")):
        picture(folder / "images" / f"{name}.jpg", number)
    lines = "Abyssinian_1 1 1 1\ngreat_pyrenees_2 2 2 1\n"
    for word in ("trainval", "test"):
        (folder / "annotations" / f"{word}.txt").write_text(lines)


def write_flowers(root: Path) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    folder = root / "flowers-102"
    for number in range(1, 4):
        picture(folder / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 102, 7]])})
    ids = {"trnid": [[1, 2]], "valid": [[3, 3]], "tstid": [[2, 2]]}
    savemat(folder / "setid.mat", {name: np.array(ids[name]) for name in ids})


def write_food(root: Path) -> None:
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for word in ("train", "test"):
        named = {"soup": ["soup/1"], "bread": ["bread/2"]}
        (folder / "meta" / f"{word}.json").write_text(json.dumps(named))
    picture(folder / "images" / "soup" / "1.jpg", 1)
    picture(folder / "images" / "bread" / "2.jpg", 2)


def write_eurosat(root: Path) -> None:
    for number, name in enumerate(("Forest", "River")):
        picture(root / "eurosat" / "2750" / name / f"{number}.jpg", number)


def write_dtd(root: Path) -> None:
    folder = root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for word in ("train", "val", "test"):
        (folder / "labels" / f"{word}1.txt").write_text("dots/1.jpg\nlines/2.jpg\n")
    picture(folder / "images" / "dots" / "1.jpg", 1)
    picture(folder / "images" / "lines" / "2.jpg", 2)


def write_country(root: Path) -> None:
    for word in ("train", "valid", "test"):
        for number, name in enumerate(("AT", "CH")):
            picture(root / "country211" / word / name / f"{number}.jpg", number)


BATCHES = [f"data_batch_{number}" for number in range(1, 6)]
LAYOUTS: dict[str, Write] = {
    "cifar10": write_cifar("cifar-10-batches-py", BATCHES, "batches.meta", "label_names", "labels"),
    "cifar100": write_cifar(
        "cifar-100-python", ["train"], "meta", "fine_label_names", "fine_labels"
    ),
    "country211": write_country,
    "dtd": write_dtd,
    "eurosat": write_eurosat,
    "fashion_mnist": write_mnist("FashionMNIST"),
    "flowers102": write_flowers,
    "food101": write_food,
    "kmnist": write_mnist("KMNIST"),
    "mnist": write_mnist("MNIST"),
    "oxford_pets": write_pets,
    "stl10": write_stl10,
    "svhn": write_svhn,
}


@pytest.fixture
def no_checksums(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (cifar, flowers102, mnist, stl10, svhn):
        monkeypatch.setattr(module, "check_integrity", lambda path, md5=None: os.path.isfile(path))


def opened(name: str, tmp_path: Path, channels: int = 3) -> dict[str, Samples]:
    if not (tmp_path / name).is_dir():
        LAYOUTS[name](tmp_path / name)
    return open_dataset(name, tmp_path, channels, say=silent)


def test_every_name_of_the_recipe_can_be_opened_and_its_classes_are_known() -> None:
    assert set(get_args(Dataset)) == set(NAMES) == set(DATASET_CLASSES)
    assert set(LAYOUTS) == set(KINDS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_it_gives_what_torchvision_gives(name: str, tmp_path: Path, no_checksums: None) -> None:
    """Images, labels, classes, sample by sample."""
    kind = KINDS[name]
    for split, samples in opened(name, tmp_path).items():
        theirs = kind.open(str(tmp_path / name), kind.splits[split], False)
        assert len(samples) == len(theirs) > 0
        for index in range(len(samples)):
            image, label = theirs[index]
            wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
            assert torch.equal(samples.read(index), wanted)
            assert samples.labels[index] == label
        assert samples.classes == (kind.classes or tuple(theirs.classes))


def test_splits_have_our_names(tmp_path: Path, no_checksums: None) -> None:
    assert list(opened("country211", tmp_path)) == ["train", "val", "test"]
    assert list(opened("oxford_pets", tmp_path)) == ["train", "test"]
    assert list(opened("eurosat", tmp_path)) == ["all"]


def test_known_numbers_of_classes_are_torchvisions() -> None:
    sets = torchvision.datasets
    for name in ("mnist", "fashion_mnist", "kmnist", "flowers102"):
        kind: Any = {
            "mnist": sets.MNIST,
            "fashion_mnist": sets.FashionMNIST,
            "kmnist": sets.KMNIST,
            "flowers102": sets.Flowers102,
        }[name]
        assert len(kind.classes) == DATASET_CLASSES[name]


def test_grey_of_an_array_is_pillows() -> None:
    images = torch.randint(256, (2, 5, 7, 3), dtype=torch.uint8).numpy()
    samples = array_samples("x", images, (0, 0), ("a",), 1)
    wanted = np.array(Image.fromarray(images[1]).convert("L"))
    assert torch.equal(samples.read(1), torch.from_numpy(wanted)[None])
    assert samples.read(1).shape == (1, 5, 7)


def test_download_gets_its_name_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def fetch(self: Any) -> None:
        if not Path(self.raw_folder).exists():
            write_mnist("MNIST")(Path(self.root))
        assert not (tmp_path / "mnist").exists(), "the name that says that all is there"

    monkeypatch.setattr(mnist.MNIST, "download", fetch)
    found = open_dataset("mnist", tmp_path, 1, say=said.append)
    assert len(found["train"]) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["mnist"]
    assert said[0].startswith("downloading mnist")
    monkeypatch.setattr(mnist.MNIST, "download", lambda self: pytest.fail("downloaded twice"))
    assert len(open_dataset("mnist", tmp_path, 1, say=pytest.fail)["test"]) == 2


@pytest.mark.parametrize(
    "error", [URLError("no route"), RuntimeError("File not found or corrupted.")]
)
def test_download_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fetch(self: Any) -> None:
        (Path(self.root) / "half").mkdir(parents=True)
        raise error

    monkeypatch.setattr(mnist.MNIST, "download", fetch)
    with pytest.raises(DatasetDownloadError, match="cannot be downloaded"):
        open_dataset("mnist", tmp_path, 1, say=silent)
    assert not list(tmp_path.iterdir())


def test_folder_that_is_not_whole_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(IncompleteDatasetError, match="not whole in"):
        open_dataset("cifar10", tmp_path, 3, say=silent)


def test_damaged_file_is_seen_by_torchvisions_checksum(tmp_path: Path) -> None:
    LAYOUTS["cifar10"](tmp_path / "cifar10")  # sound, but not what the checksum says
    with pytest.raises(IncompleteDatasetError):
        open_dataset("cifar10", tmp_path, 3, say=silent)


def test_format_of_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_checksums: None
) -> None:
    (tmp_path / "svhn").mkdir()
    for word in ("train", "test"):
        (tmp_path / "svhn" / f"{word}_32x32.mat").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    monkeypatch.setitem(__import__("sys").modules, "scipy", None)
    with pytest.raises(MissingPackageError, match="pip install 'scipy'"):
        open_dataset("svhn", tmp_path, 3, say=silent)
