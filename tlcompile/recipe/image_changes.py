"""Changes of an image that move its pixels, each with torchvision's parameters.

Knows nothing of torch; data/transforms.py calls what is named here.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, Strict, model_validator

from tlcompile.recipe.fields import Count, Section


def _in_order(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        raise ValueError(f"{pair[0]:g} is above {pair[1]:g} | write [{pair[1]:g}, {pair[0]:g}]")
    return pair


Pair = (Strict(False), AfterValidator(_in_order))
Share = Annotated[float, Field(ge=0, le=1)]
Shares = Annotated[tuple[Share, Share], *Pair]
Factor = Annotated[float, Field(gt=0, le=100)]
Factors = Annotated[tuple[Factor, Factor], *Pair]
Growth = Annotated[float, Field(ge=1, le=8)]
Growths = Annotated[tuple[Growth, Growth], *Pair]
Degrees = Annotated[float, Field(ge=0, le=180)]
Slant = Annotated[float, Field(gt=0, lt=90)]
Chance = Annotated[float, Field(gt=0, le=1)]  # at 0 the line would have no effect
ImageChance = Annotated[Chance, Field(description="Chance that an image is changed.")]
Level = Annotated[int, Field(ge=0, le=255)]
FILL = "Grey level of the pixels that no pixel moved to."
PIXELS = "How pixels between pixels are read; masks always by the nearest."
Interpolation = Annotated[Literal["nearest", "bilinear"], Field(description=PIXELS)]


class Change(Section):
    """What may happen to an image.

    Attributes:
        word: Its name in a recipe.
        mask: What happens to the mask of an image: it moves along, stays as it is, or nobody can
            say, because torchvision does not (AutoAugment and its kin).
        sizes: Whether the result has the size that the model wants.
    """

    word: ClassVar[str]
    mask: ClassVar[Literal["moves", "stays", "unknown"]] = "stays"
    sizes: ClassVar[bool] = False

    @property
    def tag(self) -> str:
        """Return its name, with all parameters where one is not the default."""
        if self == type(self).model_construct():
            return self.word
        values = ", ".join(f"{key}={value!r}" for key, value in self)
        return f"{self.word}({values})"

    def changes_grey(self) -> bool:
        """Tell whether it does anything to an image with one channel."""
        return True


class _Moves(Change):
    mask = "moves"


class RandomResizedCrop(_Moves):
    """A part of the image, of random size and shape, resized to what the model wants."""

    word = "random_resized_crop"
    sizes = True

    scale: Shares = Field((0.08, 1.0), description="Smallest and largest share of the area.")
    ratio: Factors = Field((3 / 4, 4 / 3), description="Smallest and largest width / height.")
    interpolation: Literal["nearest", "bilinear", "bicubic"] = Field("bilinear", description=PIXELS)

    @model_validator(mode="after")
    def _some_area(self) -> RandomResizedCrop:
        if not self.scale[1]:
            raise ValueError("scale [0, 0] leaves nothing of the image | write scale: [0.08, 1.0]")
        return self


class RandomCrop(_Moves):
    """A square of the size that the model wants, not resized; a smaller image is padded."""

    word = "random_crop"
    sizes = True

    padding: Annotated[Count, Field(le=1024)] = Field(
        0, description="Pixels put on each side before."
    )
    padding_mode: Literal["constant", "edge", "reflect", "symmetric"] = Field(
        "constant", description="What the padding shows."
    )
    fill: Level = Field(0, description="Grey level of constant padding.")

    @model_validator(mode="after")
    def _fill_is_seen(self) -> RandomCrop:
        if self.fill and self.padding_mode != "constant":
            raise ValueError(
                f"fill has no effect with padding_mode: {self.padding_mode} | drop one of them"
            )
        return self


class RandomHorizontalFlip(_Moves):
    """Left and right exchanged."""

    word = "horizontal_flip"

    p: ImageChance = 0.5


class RandomVerticalFlip(_Moves):
    """Top and bottom exchanged."""

    word = "vertical_flip"

    p: ImageChance = 0.5


class RandomRotation(_Moves):
    """Turned about the centre."""

    word = "rotation"

    degrees: Annotated[Degrees, Field(gt=0)] = Field(15.0, description="At most, either way.")
    interpolation: Interpolation = "bilinear"
    fill: Level | None = Field(None, description=f"{FILL} Default: black.")


class RandomAffine(_Moves):
    """Turned, moved, scaled and slanted at once."""

    word = "affine"

    degrees: Degrees = Field(0.0, description="Turned at most, either way.")
    translate: Annotated[tuple[Share, Share], Strict(False)] | None = Field(
        None, description="Largest shift across and down, shares of width and height."
    )
    scale: Factors | None = Field(None, description="Smallest and largest factor of the size.")
    shear: Slant | None = Field(None, description="Slanted at most, degrees, either way.")
    interpolation: Interpolation = "nearest"
    fill: Level = Field(0, description=FILL)

    @model_validator(mode="after")
    def _does_something(self) -> RandomAffine:
        if not (self.degrees or self.scale or self.shear or any(self.translate or ())):
            raise ValueError(f"affine does nothing without a number | {AFFINE}")
        return self


AFFINE = "write {affine: {degrees: 15, translate: [0.1, 0.1]}}"


class RandomPerspective(_Moves):
    """Seen from another place."""

    word = "perspective"

    distortion_scale: Chance = Field(0.5, description="How far a corner may move, share of a half.")
    p: ImageChance = 0.5
    interpolation: Interpolation = "bilinear"
    fill: Level = Field(0, description=FILL)


class ElasticTransform(_Moves):
    """Bent like a rubber sheet; the image is to be larger than 4 sigma each way."""

    word = "elastic"

    alpha: Annotated[float, Field(gt=0, le=10_000)] = Field(
        50.0, description="How strongly, pixels before they are smoothed."
    )
    sigma: Annotated[float, Field(gt=0, le=100)] = Field(
        5.0, description="How smoothly: standard deviation, pixels."
    )
    interpolation: Interpolation = "bilinear"
    fill: Level = Field(0, description=FILL)


class RandomZoomOut(_Moves):
    """Laid somewhere on a larger canvas, and so smaller once it is resized."""

    word = "zoom_out"

    side_range: Growths = Field((1.0, 4.0), description="Smallest and largest factor of the sides.")
    p: ImageChance = 0.5
    fill: Level = Field(0, description="Grey level of the canvas.")
