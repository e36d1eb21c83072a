"""Changes of an image that leave its pixels where they are, and AutoAugment and its kin.

Knows nothing of torch; data/transforms.py calls what is named here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import Count, NotNegative
from tlcompile.recipe.image_changes import (
    FILL,
    Chance,
    Change,
    Factor,
    Factors,
    ImageChance,
    Interpolation,
    Level,
    Pair,
    Share,
    Shares,
)

HueShift = Annotated[float, Field(ge=-0.5, le=0.5)]
HueShifts = Annotated[tuple[HueShift, HueShift], *Pair]
Small = Annotated[int, Field(ge=1, le=10)]
Bins = Annotated[int, Field(ge=2, le=1000)]


class ColorJitter(Change):
    """Brightness, contrast, saturation and hue, in this order."""

    word = "color_jitter"

    brightness: Share = Field(0.2, description="Factor from 1 - x to 1 + x.")
    contrast: Share = Field(0.2, description="Factor from 1 - x to 1 + x.")
    saturation: Share = Field(0.2, description="Factor from 1 - x to 1 + x.")
    hue: Annotated[float, Field(ge=0, le=0.5)] = Field(
        0.0, description="Largest shift, either way; a share of the colour circle."
    )

    @model_validator(mode="after")
    def _does_something(self) -> ColorJitter:
        if not (self.brightness or self.contrast or self.saturation or self.hue):
            raise ValueError("color_jitter does nothing with all four at 0 | drop it")
        return self

    def changes_grey(self) -> bool:
        """Tell whether it does anything to an image with one channel."""
        return bool(self.brightness or self.contrast)


class RandomPhotometricDistort(Change):
    """Brightness, contrast, saturation, hue and the order of the colours, each by chance."""

    word = "photometric_distort"

    brightness: Factors = Field((0.875, 1.125), description="Smallest and largest factor.")
    contrast: Factors = Field((0.5, 1.5), description="Smallest and largest factor.")
    saturation: Factors = Field((0.5, 1.5), description="Smallest and largest factor.")
    hue: HueShifts = Field((-0.05, 0.05), description="Shift, shares of the colour circle.")
    p: Chance = Field(0.5, description="Chance of each of the five.")


class RandomGrayscale(Change):
    """Without colours; the channels stay."""

    word = "grayscale"

    p: ImageChance = 0.1

    def changes_grey(self) -> bool:
        """Tell whether it does anything to an image with one channel."""
        return False


class RandomChannelPermutation(Change):
    """Red, green and blue in another order."""

    word = "channel_permutation"

    def changes_grey(self) -> bool:
        """Tell whether it does anything to an image with one channel."""
        return False


class GaussianBlur(Change):
    """Blurred; the image is to be larger than half the kernel."""

    word = "gaussian_blur"

    kernel_size: Annotated[int, Field(ge=3, le=255)] = Field(
        9, description="Side of the kernel, pixels; odd."
    )
    sigma: Factors = Field((0.1, 2.0), description="Standard deviation, pixels, drawn between.")

    @model_validator(mode="after")
    def _odd(self) -> GaussianBlur:
        if self.kernel_size % 2 == 0:
            wanted = self.kernel_size + 1
            raise ValueError(
                f"kernel_size {self.kernel_size} has no middle | write kernel_size: {wanted}"
            )
        return self


class ImageNoise(Change):
    """Gaussian noise on every pixel and channel, clipped to black and white."""

    word = "gaussian_noise"

    mean: Annotated[float, Field(ge=-1, le=1)] = Field(
        0.0, description="Shares of the range from black to white."
    )
    sigma: Chance = Field(0.1, description="Standard deviation, share of the range.")


class RandomSolarize(Change):
    """Bright pixels inverted."""

    word = "solarize"

    threshold: Level = Field(128, description="Darkest grey level that is inverted.")
    p: ImageChance = 0.5


class RandomPosterize(Change):
    """Fewer grey levels."""

    word = "posterize"

    bits: Annotated[int, Field(ge=1, le=7)] = Field(4, description="Bits kept of each channel's 8.")
    p: ImageChance = 0.5


class RandomEqualize(Change):
    """All grey levels equally frequent, channel by channel."""

    word = "equalize"

    p: ImageChance = 0.5


class RandomAutocontrast(Change):
    """Stretched from black to white, channel by channel."""

    word = "autocontrast"

    p: ImageChance = 0.5


class RandomAdjustSharpness(Change):
    """Sharper, or below 1 blurred."""

    word = "sharpness"

    sharpness_factor: NotNegative = Field(2.0, description="1 leaves the image as it is.")
    p: ImageChance = 0.5

    @model_validator(mode="after")
    def _does_something(self) -> RandomAdjustSharpness:
        if self.sharpness_factor == 1:
            raise ValueError("sharpness_factor 1 does nothing | write sharpness_factor: 2")
        return self


class RandomInvert(Change):
    """Negative."""

    word = "invert"

    p: ImageChance = 0.5


class RandomErasing(Change):
    """A random rectangle painted over; the mask keeps what was there."""

    word = "random_erasing"

    p: ImageChance = 0.5
    scale: Shares = Field((0.02, 0.33), description="Smallest and largest share of the area.")
    ratio: Factors = Field((0.3, 3.3), description="Smallest and largest height / width.")
    value: Level = Field(0, description="Grey level of the rectangle.")


class _Auto(Change):
    mask = "unknown"

    interpolation: Interpolation = "nearest"
    fill: Level | None = Field(None, description=f"{FILL} Default: black.")


class TrivialAugmentWide(_Auto):
    """TrivialAugment: one change of 14, with a random magnitude."""

    word = "trivial_augment"

    num_magnitude_bins: Bins = Field(31, description="Magnitudes to draw from.")


class RandAugment(_Auto):
    """RandAugment: some changes of 14, all with one magnitude."""

    word = "rand_augment"

    num_ops: Small = Field(2, description="Changes, one after another.")
    magnitude: Count = Field(9, description="Which of the bins; 0 is the weakest.")
    num_magnitude_bins: Bins = Field(31, description="Magnitudes that there are.")

    @model_validator(mode="after")
    def _is_a_bin(self) -> RandAugment:
        if self.magnitude >= self.num_magnitude_bins:
            last = self.num_magnitude_bins - 1
            raise ValueError(
                f"magnitude {self.magnitude} is none of {self.num_magnitude_bins} bins, 0 to {last}"
                f" | write magnitude: {last}"
            )
        return self


class AutoAugment(_Auto):
    """AutoAugment: a pair of changes that was learned on a data set."""

    word = "auto_augment"

    policy: Literal["imagenet", "cifar10", "svhn"] = Field("imagenet", description="Which one.")


class AugMix(_Auto):
    """AugMix: a mixture of the image and of chains of changes to it."""

    word = "augmix"

    severity: Small = Field(3, description="How strong a change may be.")
    mixture_width: Small = Field(3, description="Chains that are mixed.")
    chain_depth: Small | None = Field(None, description="Changes a chain; default: drawn, 1 to 3.")
    alpha: Factor = Field(1.0, description="Of the distributions of the weights.")
    all_ops: bool = Field(True, description="Also brightness, colour, contrast and sharpness.")
    interpolation: Interpolation = "bilinear"
