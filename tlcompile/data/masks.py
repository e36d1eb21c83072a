"""Segmentation: images with a map of classes beside each. Masks stay files until a batch wants them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812, torchvision's own name for it

from tlcompile.data.digests import digest
from tlcompile.data.folder import file_samples, images_below
from tlcompile.data.images import FORMATS, MAX_PIXELS, read_bytes
from tlcompile.data.loading import Augmentations
from tlcompile.data.samples import Samples
from tlcompile.data.targets import Pair
from tlcompile.data.threads import in_order
from tlcompile.errors.base import raise_problems
from tlcompile.errors.data import MissingFolderError, NoImagesError, UnreadableImagesError
from tlcompile.errors.tables import BadMaskError, MissingMaskError
from tlcompile.recipe.tasks import IGNORED
from tlcompile.zoo.preprocessing import Preprocessing

IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"
_TURNED = range(5, 9)  # EXIF orientations that swap height and width


def scan_masks(path: str, channels: int) -> dict[str, Samples]:
    """Find images and masks: `images/a.jpg` with `masks/a.png`, alone or below train, val, test.

    Returns:
        Samples by split, without classes; `with_mask_classes` adds them.

    Raises:
        MissingFolderError: There is no such folder, or one of the two is missing.
        NoImagesError: There is no image.
        MissingMaskError: Images without a mask, or masks without an image.
    """
    root = Path(path)
    if not root.is_dir():
        raise MissingFolderError(path=path, near=())
    if (root / "train" / IMAGES).is_dir():
        there = [name for name in ("train", "val", "test") if (root / name / IMAGES).is_dir()]
        return {name: _pairs(root / name, channels) for name in there}
    return {"all": _pairs(root, channels)}


def named_classes(path: str) -> tuple[str, ...] | None:
    """Return the classes that `classes.txt` names, one a line, in the order of the masks' values."""
    file = Path(path) / CLASSES
    if not file.is_file():
        return None
    lines = read_bytes(file).decode("utf-8-sig", errors="replace").splitlines()
    return tuple(line.strip() for line in lines if line.strip())


def with_mask_classes(
    splits: dict[str, Samples], classes: tuple[str, ...] | None, workers: int
) -> dict[str, Samples]:
    """Read every mask once, and name the classes; without names, by the masks' values from 0 on.

    Raises:
        BadMaskError: Masks are damaged, are no maps of classes, have another size than their
            image, or values beyond the classes; all of them.
    """
    pairs = [
        (mask, image, samples.fetch, index)
        for samples in splits.values()
        for index, (mask, image) in enumerate(zip(samples.masks, samples.ids, strict=True))
    ]

    def highest(one: tuple[str, str, Callable[[int], bytes], int]) -> int | str:
        mask, _, fetch, index = one
        try:
            return _highest(mask, fetch(index), classes)
        except BadMaskError as error:
            return error.masks[0][1]

    found = list(in_order(highest, pairs, workers))
    bad = [(pair[0], why) for pair, why in zip(pairs, found, strict=True) if isinstance(why, str)]
    if bad:
        raise BadMaskError(masks=tuple(bad), classes=None if classes is None else len(classes))
    values = [value for value in found if isinstance(value, int)]
    names = classes or tuple(map(str, range(max(values, default=0) + 1)))
    return {word: replace(samples, classes=names) for word, samples in splits.items()}


@dataclass(frozen=True)
class MaskTargets:
    """Masks that are read when a batch wants them.

    Args:
        samples: With a mask file each.
        preprocessing: What the images go through: masks are resized and cropped with them.
        augmentations: What makes a view of an image, and so of its mask.
        workers: Threads.
    """

    samples: Samples
    preprocessing: Preprocessing
    augmentations: Augmentations
    workers: int

    def __len__(self) -> int:
        return len(self.samples)

    def take(self, pairs: Sequence[Pair]) -> Tensor:
        """Return the masks of these samples, each as its image is in that view.

        Shape:
            out: (N, H, W) int64
        """
        return torch.stack(list(in_order(self._one, pairs, self.workers)))

    def _one(self, pair: Pair) -> Tensor:
        sample, view = pair
        mask = read_mask(self.samples.masks[sample])[None]
        change = self.augmentations(view)
        if change is not None:
            mask = change.on_mask(mask, digest(self.samples.fetch(sample)))
        sized = change is not None and change.sizes
        return (mask if sized else fitted(mask, self.preprocessing))[0].long()


def read_mask(path: str) -> Tensor:
    """Read a map of classes: the values of a grey PNG, the indices of one with a palette.

    Raises:
        BadMaskError: It is missing, damaged, no PNG, or has colours.

    Shape:
        out: (H, W) uint8
    """
    try:
        with Image.open(io.BytesIO(read_bytes(path)), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _bad(path, f"{image.width} x {image.height} pixels, more than {MAX_PIXELS:,}")
            if image.mode not in ("L", "P", "1") and not image.mode.startswith("I"):
                raise _bad(path, f"pixels of mode '{image.mode}', which are colours")
            values = np.array(image)
    except BadMaskError:
        raise
    except UnreadableImagesError as cause:
        raise _bad(path, cause.reason()) from cause
    except Exception as cause:  # Pillow's parsers raise nearly every type on damaged bytes.
        raise _bad(path, (str(cause) or type(cause).__name__).splitlines()[0]) from cause
    if values.size and values.max() > IGNORED:
        raise _bad(path, f"value {values.max()}, beyond 255")
    return torch.from_numpy(values.astype(np.uint8))


def masks_digest(samples: Samples, workers: int) -> str:
    """Return the SHA-256 of what the mask files of a split hold, in the order of its samples.

    Raises:
        UnreadableImagesError: One cannot be read any more.
    """
    found = in_order(lambda mask: digest(read_bytes(mask)), samples.masks, workers)
    return hashlib.sha256(b"".join(found)).hexdigest()


def fitted(mask: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resize and crop a mask as its image; each pixel keeps the value of its nearest one.

    What a crop adds around a small image counts for nothing.

    Shape:
        in: (1, H, W) uint8   out: (1, size, size) uint8
    """
    if preprocessing.resize is not None:
        side = preprocessing.resize
        size = [side] if isinstance(side, int) else list(side)
        # As bilinear: by the pixels' centres.
        mask = F.resize(mask, size, interpolation=InterpolationMode.NEAREST_EXACT)
    if preprocessing.crop is not None:
        crop = preprocessing.crop
        # The crop pads with 0, which is a class; counted one up, 0 is what 255 becomes.
        mask = F.center_crop(mask + 1, [crop, crop]) - 1
    return mask


def _pairs(root: Path, channels: int) -> Samples:
    images, masks = root / IMAGES, root / MASKS
    for folder in (images, masks):
        if not folder.is_dir():
            raise MissingFolderError(path=str(folder), near=())
    paths, maps = images_below(images), images_below(masks)
    if not paths:
        raise NoImagesError(path=str(images), loose=0)
    by_image = {_stem(path, images): path for path in paths}
    by_mask = {_stem(path, masks): path for path in maps}
    without = tuple(path for stem, path in by_image.items() if stem not in by_mask)
    alone = tuple(path for stem, path in by_mask.items() if stem not in by_image)
    if without or alone:
        missing = MissingMaskError(folder=str(masks), images=without, masks=alone)
        there = [(mask, by_image[s]) for s, mask in by_mask.items() if s in by_image]
        raise_problems([missing, *_bad_masks(there)])
    if len(by_image) < len(paths):  # a.jpg and a.png would share one mask
        twice = tuple(path for path in paths if path not in by_image.values())
        raise MissingMaskError(folder=str(masks), images=twice, masks=())
    samples = file_samples(tuple(by_image.values()), (), (), channels)
    return replace(samples, masks=tuple(by_mask[stem] for stem in by_image))


def _bad_masks(pairs: Sequence[tuple[str, str]]) -> list[BadMaskError]:
    """Return one error of all masks that are no maps of classes, or do not fit their image."""
    bad: list[tuple[str, str]] = []
    for mask, image in pairs:
        try:
            _highest(mask, read_bytes(image), None)
        except BadMaskError as error:
            bad += error.masks
        except UnreadableImagesError as error:
            bad.append((mask, f"its image cannot be read: {error.reason()}"))
    return [BadMaskError(masks=tuple(bad))] if bad else []


def _stem(path: str, root: Path) -> str:
    return str(Path(path).relative_to(root).with_suffix(""))


def _highest(path: str, image: bytes, classes: tuple[str, ...] | None) -> int:
    """Return the highest class of a mask, which must fit its image and the classes."""
    mask = read_mask(path)
    height, width = _size(image, path)
    if mask.shape != (height, width):
        found = f"{mask.shape[1]} x {mask.shape[0]} pixels, its image {width} x {height}"
        raise _bad(path, found)
    values = mask[mask != IGNORED]
    highest = int(values.max()) if len(values) else 0
    if classes is not None and highest >= len(classes):
        raise _bad(path, f"value {highest}, of {len(classes)} classes")
    return highest


def _size(data: bytes, path: str) -> tuple[int, int]:
    """Return height and width of an image when it stands upright; only its header is read."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation) in _TURNED
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as cause:
        raise _bad(path, "its image cannot be read") from cause


def _bad(path: str, reason: str) -> BadMaskError:
    return BadMaskError(masks=((path, reason),))
