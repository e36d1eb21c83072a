"""Random changes to images, each a pure function of (seed, view, the image's stored bytes)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812, torchvision's own name for it

from tlcompile.data.samples import generator
from tlcompile.errors.data import UnknownAugmentationError

VERSION = 1  # of the changes below; count it up with any change to what they do to a pixel
CROP_SCALE = (0.08, 1.0)  # share of the image's area; torchvision's RandomResizedCrop
CROP_RATIO = (3 / 4, 4 / 3)  # width / height; the same
CROP_TRIES = 10
FLIP_CHANCE = 0.5
JITTER = 0.2  # brightness, contrast and saturation are multiplied by 0.8 to 1.2
ROTATION = 15.0  # degrees, either way

Augment = Callable[[Tensor, int, torch.Generator], Tensor]


def _uniform(low: float, high: float, random: torch.Generator) -> float:
    return torch.empty(1).uniform_(low, high, generator=random).item()


def _integer(below: int, random: torch.Generator) -> int:
    return int(torch.randint(below, (1,), generator=random).item())


def crop_box(height: int, width: int, random: torch.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop.

    Source:
        torchvision 0.29, RandomResizedCrop.get_params, draw for draw; equal under one seed
        (tests/data/test_augment.py).
    """
    low, high = torch.log(torch.tensor(CROP_RATIO)).tolist()
    for _ in range(CROP_TRIES):
        area = height * width * _uniform(*CROP_SCALE, random)
        ratio = torch.exp(torch.empty(1).uniform_(low, high, generator=random)).item()
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = _integer(height - h + 1, random)
            return top, _integer(width - w + 1, random), h, w
    w = min(width, round(height * CROP_RATIO[1]))
    h = min(height, round(width / CROP_RATIO[0]))
    return (height - h) // 2, (width - w) // 2, h, w


def _random_resized_crop(image: Tensor, size: int, random: torch.Generator) -> Tensor:
    box = crop_box(image.shape[-2], image.shape[-1], random)
    cropped: Tensor = F.resized_crop(image, *box, size=[size, size], antialias=True)
    return cropped


def _horizontal_flip(image: Tensor, _size: int, random: torch.Generator) -> Tensor:
    return image.flip(-1) if _uniform(0, 1, random) < FLIP_CHANCE else image


def _vertical_flip(image: Tensor, _size: int, random: torch.Generator) -> Tensor:
    return image.flip(-2) if _uniform(0, 1, random) < FLIP_CHANCE else image


def _color_jitter(image: Tensor, _size: int, random: torch.Generator) -> Tensor:
    for adjust in (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation):
        image = adjust(image, _uniform(1 - JITTER, 1 + JITTER, random))
    return image


def _rotation(image: Tensor, _size: int, random: torch.Generator) -> Tensor:
    angle = _uniform(-ROTATION, ROTATION, random)
    rotated: Tensor = F.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)
    return rotated


def _mirror(image: Tensor, _size: int, _random: torch.Generator) -> Tensor:
    return image.flip(-1)


def _upside_down(image: Tensor, _size: int, _random: torch.Generator) -> Tensor:
    return image.flip(-2)


AUGMENTATIONS: MappingProxyType[str, Augment] = MappingProxyType(
    {
        "random_resized_crop": _random_resized_crop,
        "horizontal_flip": _horizontal_flip,
        "vertical_flip": _vertical_flip,
        "color_jitter": _color_jitter,
        "rotation": _rotation,
    }
)
# Not for recipes, which name the random ones: what views of flips alone are made of.
EXACT: MappingProxyType[str, Augment] = MappingProxyType(
    {"mirror": _mirror, "upside_down": _upside_down}
)
SIZING = frozenset({"random_resized_crop"})  # these give the size that the model wants


@dataclass(frozen=True)
class Augmentation:
    """What one view, or one epoch, does to images; called as `augmentation(image, key)`.

    Args:
        names: Names in `AUGMENTATIONS` or `EXACT`, done in this order.
        size: Side of the square that the model wants.
        seed: Decides all draws, with the view and the sample's key; two seeds, where the run's own
            takes part.
        view: Counts from 0; an epoch, where nothing is kept.

    Raises:
        UnknownAugmentationError: There is no augmentation of a name.
    """

    names: tuple[str, ...]
    size: int
    seed: int | tuple[int, int]
    view: int

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in AUGMENTATIONS and name not in EXACT:
                raise UnknownAugmentationError(name=name, names=tuple(AUGMENTATIONS))

    @property
    def sizes(self) -> bool:
        """Say whether the result has its final size, so that resizing it again is wrong."""
        return not SIZING.isdisjoint(self.names)

    @property
    def tag(self) -> str:
        """Return all that decides what becomes of an image's pixels."""
        names = ", ".join(self.names)
        if EXACT.keys() >= set(self.names):
            return f"augment {VERSION}: {names}"
        seed = f"size {self.size}, seed {self.seed}, view {self.view}"
        return f"augment {VERSION}: {names}; {seed}"

    def __call__(self, image: Tensor, key: bytes) -> Tensor:
        """Change one image; the global random state is neither read nor moved.

        Args:
            image: The image as it was decoded.
            key: SHA-256 of its stored bytes: other images, names and places change no draw.

        Shape:
            in: (C, H, W) uint8   out: (C, size, size) uint8 with a crop, else as it came in
        """
        for name in self.names:
            # One generator a name: adding a flip leaves the crops as they were.
            random = generator(self.seed, self.view, key.hex(), name)
            change = AUGMENTATIONS.get(name) or EXACT[name]
            image = change(image, self.size, random)
        return image
