"""Turn an 8-bit image into what a base model was trained on. Knows nothing of files or folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F  # noqa: N812, torchvision's own name for it

from tlcompile.errors.data import UnsupportedPreprocessingError


@dataclass(frozen=True)
class Preprocessing:
    """Resize, centre crop, scale to [0, 1] and normalise: the same for train, val and predict.

    Args:
        resize: Length of the shorter side; (height, width) where the weights want both; None
            leaves the size alone.
        crop: Side of the central square; a smaller image is padded with black. None keeps all.
        mean: One number a channel, in [0, 1] units.
        std: One number a channel, in [0, 1] units.
        interpolation: "bilinear" or "bicubic".
        channels: 3 for RGB, 1 for grey; images of the other kind are converted.
        antialias: Whether resizing smooths; False only for torchvision's video weights.
    """

    resize: int | tuple[int, int] | None
    crop: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    channels: int
    antialias: bool = True

    @property
    def size(self) -> int | None:
        """Return the side of the square that comes out; without a crop, the shorter side."""
        if self.crop is not None:
            return self.crop
        return min(self.resize) if isinstance(self.resize, tuple) else self.resize

    def apply(self, image: Tensor) -> Tensor:
        """Prepare one image, or a stack of equally large ones.

        Shape:
            in: (..., 1 or 3, H, W) uint8   out: (..., channels, size, size) float32
        """
        return self.normalise(self.pixels(image))

    def pixels(self, image: Tensor) -> Tensor:
        """Do all but the last step: resize and crop, in 8 bits.

        Shape:
            in: (..., 1 or 3, H, W) uint8   out: (..., channels, size, size) uint8

        Note:
            We resize the 8-bit tensor, `weights.transforms()` on a PIL image lets Pillow resize.
            Both round to 8 bits; some pixels differ by one level, on average less than 2e-4
            after normalisation (tests/zoo/test_preprocessing.py).
        """
        image = self.with_channels(image)
        if self.resize is not None:
            size = [self.resize] if isinstance(self.resize, int) else list(self.resize)
            mode = InterpolationMode(self.interpolation)
            image = F.resize(image, size, interpolation=mode, antialias=self.antialias)
        if self.crop is not None:
            image = F.center_crop(image, [self.crop, self.crop])
        return image

    def with_channels(self, image: Tensor) -> Tensor:
        """Turn grey into RGB, or RGB into grey, where the weights want it."""
        if image.shape[-3] == self.channels:
            return image
        convert = F.grayscale_to_rgb if self.channels == 3 else F.rgb_to_grayscale
        converted: Tensor = convert(image)
        return converted

    def normalise(self, image: Tensor) -> Tensor:
        """Do the last step: scale to [0, 1] and normalise.

        Shape:
            in: (..., 1 or 3, H, W) uint8   out: (..., channels, H, W) float32, contiguous
        """
        # Divided as in `weights.transforms()`; v2's to_dtype multiplies by 1/255, which rounds twice.
        # In place, which is four times as fast as F.normalize and gives the same bits.
        image = self.with_channels(image)
        mean, std = (
            torch.tensor(v, dtype=torch.float32, device=image.device).view(-1, 1, 1)
            for v in (self.mean, self.std)
        )
        pixels = image.to(torch.float32, memory_format=torch.contiguous_format, copy=True)
        return pixels.div_(255).sub_(mean).div_(std)

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and words, for the record of a run."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Preprocessing:
        """Read what `to_dict` wrote."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)


def from_weights(weights: Any) -> Preprocessing:
    """Read the preprocessing that torchvision keeps with a member of a weights enum.

    Raises:
        UnsupportedPreprocessingError: Detection and optical flow weights.

    Note:
        Segmentation weights do not crop. Video weights are read as what happens to one frame;
        where they name two sides, `resize` has both.

    Source:
        torchvision/transforms/_presets.py, version 0.29.
    """
    preset = weights.transforms()
    kind = type(preset).__name__  # by name, because the module that defines them is private
    match kind:
        case "ImageClassification":
            crop, antialias = preset.crop_size[0], preset.antialias
        case "SemanticSegmentation":
            crop, antialias = None, preset.antialias
        case "VideoClassification":
            # torchvision hard-codes it in the preset's forward (pytorch/vision pull 7160).
            crop, antialias = preset.crop_size[0], False
        case _:
            raise UnsupportedPreprocessingError(weights=str(weights), preset=kind)
    return Preprocessing(
        resize=_resize(preset.resize_size),
        crop=crop,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        channels=len(preset.mean),
        antialias=bool(antialias),
    )


def _resize(size: list[int] | None) -> int | tuple[int, int] | None:
    if size is None:
        return None
    return size[0] if len(size) == 1 else (size[0], size[1])
