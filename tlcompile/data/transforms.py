"""The recipe's changes of images as torchvision's transforms, drawing from a generator of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F  # noqa: N812, torchvision's own name for it

from tlcompile.recipe.image_changes import Change
from tlcompile.recipe.tasks import IGNORED

DRAWS = frozenset(
    {
        torch.rand,
        torch.randint,
        torch.randn_like,
        torch.randperm,
        torch._sample_dirichlet,  # of torch.distributions.Beta, and of AugMix
        Tensor.uniform_,
        Tensor.normal_,
    }
)


class DrawingFrom(TorchFunctionMode):
    """Within the block, torch's random functions draw from this generator, in this thread alone.

    torchvision's transforms take no generator: they draw from torch's global one, which all
    threads share, so that results would depend on how the threads take turns.
    """

    def __init__(self, random: torch.Generator) -> None:
        super().__init__()
        self.random = random

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch; hand it the generator where it draws."""
        given = dict(kwargs or {})
        if func in DRAWS and given.get("generator") is None:
            given["generator"] = self.random
        return func(*args, **given)


@dataclass(frozen=True)
class ColorJitter:
    """Adjust colours as torchvision's does, but always in this order: as version 1 did."""

    brightness: float
    contrast: float
    saturation: float
    hue: float

    def __call__(self, image: Tensor) -> Tensor:
        """Adjust one image."""
        for adjust, spread in (
            (F.adjust_brightness, self.brightness),
            (F.adjust_contrast, self.contrast),
            (F.adjust_saturation, self.saturation),
        ):
            factor = torch.empty(1).uniform_(1 - spread, 1 + spread).item()
            image = adjust(image, factor) if spread else image
        shift = torch.empty(1).uniform_(-self.hue, self.hue).item()
        return F.adjust_hue(image, shift) if self.hue else image


Transform = Callable[[Tensor], Tensor]
TRANSFORMS: MappingProxyType[str, Callable[..., Transform]] = MappingProxyType(
    {
        "random_resized_crop": v2.RandomResizedCrop,
        "random_crop": v2.RandomCrop,
        "horizontal_flip": v2.RandomHorizontalFlip,
        "vertical_flip": v2.RandomVerticalFlip,
        "rotation": v2.RandomRotation,
        "affine": v2.RandomAffine,
        "perspective": v2.RandomPerspective,
        "elastic": v2.ElasticTransform,
        "zoom_out": v2.RandomZoomOut,
        "color_jitter": ColorJitter,
        "photometric_distort": v2.RandomPhotometricDistort,
        "grayscale": v2.RandomGrayscale,
        "channel_permutation": v2.RandomChannelPermutation,
        "gaussian_blur": v2.GaussianBlur,
        "gaussian_noise": v2.GaussianNoise,
        "solarize": v2.RandomSolarize,
        "posterize": v2.RandomPosterize,
        "equalize": v2.RandomEqualize,
        "autocontrast": v2.RandomAutocontrast,
        "sharpness": v2.RandomAdjustSharpness,
        "invert": v2.RandomInvert,
        "random_erasing": v2.RandomErasing,
        "trivial_augment": v2.TrivialAugmentWide,
        "rand_augment": v2.RandAugment,
        "auto_augment": v2.AutoAugment,
        "augmix": v2.AugMix,
    }
)


@cache
def transform_of(change: Change, size: int, *, mask: bool = False) -> Transform:
    """Return the transform of a change; it keeps no state, so that all threads can share it.

    Args:
        change: What the recipe names.
        size: Side of the square that the model wants.
        mask: Whether it is for masks, with the same draws: a pixel is that of its nearest one.
    """
    given = dict(change)
    if change.sizes:
        given["size"] = size
    if change.word == "random_crop":
        given["pad_if_needed"] = True  # else a small image ends the run
    if mask and "fill" in given:
        given["fill"] = IGNORED
    if mask and "interpolation" in given:
        # Resizing has a nearest that is off by half a pixel; the others have not.
        given["interpolation"] = "nearest-exact" if change.sizes else "nearest"
    if "policy" in given:
        given["policy"] = v2.AutoAugmentPolicy(given["policy"])
    if "chain_depth" in given:
        given["chain_depth"] = given["chain_depth"] or -1
    return TRANSFORMS[change.word](**given)
