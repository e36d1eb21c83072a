"""torchvision's classification data sets as samples; torchvision downloads, checks and unpacks them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision import datasets

from tlcompile.data.folder import file_samples
from tlcompile.data.samples import Samples
from tlcompile.durable import make_folder
from tlcompile.durable.system import typed
from tlcompile.errors.archives import (
    DatasetDownloadError,
    IncompleteDatasetError,
    MissingPackageError,
)

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Kind:
    """How torchvision's class is asked, and where it keeps what it read.

    Args:
        open: Makes torchvision's data set of (root, its name of the split, download).
        splits: Its names by ours; one split alone is ours to divide ("all").
        images: Returns (N, H, W) or (N, H, W, C) uint8, or the paths of image files.
        labels: Returns the class of each.
        classes: Instead of its own list.
    """

    open: Callable[[str, Any, bool], Any]
    splits: Mapping[str, Any]
    images: Callable[[Any], Pixels | Sequence[Any]]
    labels: Callable[[Any], Sequence[int]]
    classes: tuple[str, ...] | None = None


def _by_train(kind: Any) -> Callable[[str, Any, bool], Any]:
    return lambda root, train, download: kind(root, train=train, download=download)


def _by_split(kind: Any) -> Callable[[str, Any, bool], Any]:
    return lambda root, split, download: kind(root, split=split, download=download)


def _whole(kind: Any) -> Callable[[str, Any, bool], Any]:
    return lambda root, _split, download: kind(root, download=download)


def _labels(found: Any) -> Sequence[int]:
    return found._labels  # type: ignore[no-any-return]  # torchvision has no public name for it


def _files(found: Any) -> Sequence[Any]:
    return found._image_files  # type: ignore[no-any-return]  # the same


def _rows_last(found: Any) -> Pixels:
    return np.ascontiguousarray(np.transpose(found.data, (0, 2, 3, 1)))


_TWO = MappingProxyType({"train": True, "test": False})
_NAMED = MappingProxyType({"train": "train", "test": "test"})
_THREE = MappingProxyType({"train": "train", "val": "val", "test": "test"})
_ALL = MappingProxyType({"all": None})


def _mnist(kind: Any) -> Kind:
    return Kind(_by_train(kind), _TWO, lambda d: d.data.numpy(), lambda d: d.targets.tolist())


def _cifar(kind: Any) -> Kind:
    return Kind(_by_train(kind), _TWO, lambda d: d.data, lambda d: d.targets)


def _image_files(kind: Any, splits: Mapping[str, str] = _NAMED) -> Kind:
    return Kind(_by_split(kind), splits, _files, _labels)


def _folders(opened: Callable[[str, Any, bool], Any], splits: Mapping[str, Any]) -> Kind:
    return Kind(opened, splits, lambda d: [path for path, _ in d.samples], lambda d: d.targets)


KINDS: MappingProxyType[str, Kind] = MappingProxyType(
    {
        "cifar10": _cifar(datasets.CIFAR10),
        "cifar100": _cifar(datasets.CIFAR100),
        "country211": _folders(
            _by_split(datasets.Country211), {"train": "train", "val": "valid", "test": "test"}
        ),
        "dtd": _image_files(datasets.DTD, _THREE),
        "eurosat": _folders(_whole(datasets.EuroSAT), _ALL),
        "fashion_mnist": _mnist(datasets.FashionMNIST),
        "flowers102": _image_files(datasets.Flowers102, _THREE),
        "food101": _image_files(datasets.Food101),
        "kmnist": _mnist(datasets.KMNIST),
        "mnist": _mnist(datasets.MNIST),
        "oxford_pets": Kind(
            _by_split(datasets.OxfordIIITPet),
            {"train": "trainval", "test": "test"},
            lambda d: d._images,
            _labels,
        ),
        "stl10": Kind(_by_split(datasets.STL10), _NAMED, _rows_last, lambda d: d.labels.tolist()),
        "svhn": Kind(
            _by_split(datasets.SVHN),
            _NAMED,
            _rows_last,
            lambda d: d.labels.tolist(),
            tuple("0123456789"),
        ),
    }
)


def open_torchvision(
    name: str, root: Path, channels: int, *, say: Callable[[str], None]
) -> dict[str, Samples]:
    """Open one of torchvision's data sets; download it the first time.

    The download goes into a folder beside, which gets its name when everything is there: one that
    was cut short is never taken for whole.

    Args:
        name: Of `KINDS`.
        root: Folder that keeps data sets.
        channels: 3 for RGB, 1 for grey.
        say: Takes a line about the download.

    Returns:
        Samples by split; classes in the data set's own order.

    Raises:
        DatasetDownloadError: It cannot be fetched, or is not what torchvision's checksum says.
        IncompleteDatasetError: The folder that is there is not what torchvision expects.
        MissingPackageError: Its format wants a package that is not installed.
    """
    kind, folder = KINDS[name], root / name
    if not folder.is_dir():
        say(f"downloading {name}, through torchvision, into {folder}")
        _download(name, kind, folder)
    found: dict[str, Any] = {}
    try:
        for split, word in kind.splits.items():
            found[split] = kind.open(str(folder), word, False)
    except ImportError as cause:
        raise _missing(name, cause) from cause
    except (RuntimeError, OSError, ValueError) as cause:
        raise IncompleteDatasetError(name=name, folder=str(folder), cause=str(cause)) from cause
    return {split: _samples(name, split, kind, one, channels) for split, one in found.items()}


def _download(name: str, kind: Kind, folder: Path) -> None:
    make_folder(folder.parent)
    with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as temporary:
        inner = Path(temporary) / name
        inner.mkdir()
        try:
            for word in kind.splits.values():
                kind.open(str(inner), word, True)
        except ImportError as cause:
            raise _missing(name, cause) from cause
        except (RuntimeError, OSError, ValueError, EOFError) as cause:
            raise DatasetDownloadError(name=name, cause=str(cause)) from cause
        if not folder.is_dir():  # Another process may have been first; its folder is as good.
            with typed(folder):
                inner.replace(folder)


def _missing(name: str, cause: ImportError) -> MissingPackageError:
    package = str(cause.name).partition(".")[0]
    return MissingPackageError(package=package, needed_by=f"data set {name}", install=package)


def _samples(name: str, split: str, kind: Kind, found: Any, channels: int) -> Samples:
    images, labels = kind.images(found), tuple(map(int, kind.labels(found)))
    classes = kind.classes or tuple(map(str, found.classes))
    if not isinstance(images, np.ndarray):
        return file_samples(tuple(map(str, images)), labels, classes, channels)
    return array_samples(f"{name}/{split}", images, labels, classes, channels)


def array_samples(
    name: str, images: Pixels, labels: tuple[int, ...], classes: tuple[str, ...], channels: int
) -> Samples:
    """Make samples of images of one size that are in memory.

    Args:
        name: What the samples' names begin with.
        images: (N, H, W) grey, or (N, H, W, 3) RGB.
        labels: One position in `classes` a sample.
        classes: Class names.
        channels: 3 for RGB, 1 for grey.

    Shape:
        read: (channels, H, W) uint8
    """
    shape, mode = images.shape[1:], "RGB" if channels == 3 else "L"

    def decode(_index: int, data: bytes) -> Tensor:
        image = Image.fromarray(np.frombuffer(data, np.uint8).reshape(shape))
        array = np.array(image.convert(mode)).reshape(*shape[:2], channels)
        return torch.from_numpy(array).permute(2, 0, 1)

    return Samples(
        ids=tuple(f"{name}/{index:06d}" for index in range(len(labels))),
        labels=labels,
        classes=classes,
        fetch=lambda index: images[index].tobytes(),
        decode=decode,
    )
