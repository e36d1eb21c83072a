"""The sections `data.augment` and `data.mix`: random changes to images, and mixtures of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    Strict,
    Tag,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, PydanticKnownError

from tlcompile.recipe.colour_changes import (
    AugMix,
    AutoAugment,
    ColorJitter,
    GaussianBlur,
    ImageNoise,
    RandAugment,
    RandomAdjustSharpness,
    RandomAutocontrast,
    RandomChannelPermutation,
    RandomEqualize,
    RandomErasing,
    RandomGrayscale,
    RandomInvert,
    RandomPhotometricDistort,
    RandomPosterize,
    RandomSolarize,
    TrivialAugmentWide,
)
from tlcompile.recipe.fields import Section, Seed, as_list
from tlcompile.recipe.image_changes import (
    AFFINE,
    Change,
    ElasticTransform,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomPerspective,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    RandomZoomOut,
)

_GIVEN: Any = Field(None, description="Its parameters; the name alone means the defaults.")


class OneChange(Section):
    """A change with parameters: a mapping with one key, its name."""

    random_resized_crop: RandomResizedCrop = _GIVEN
    random_crop: RandomCrop = _GIVEN
    horizontal_flip: RandomHorizontalFlip = _GIVEN
    vertical_flip: RandomVerticalFlip = _GIVEN
    rotation: RandomRotation = _GIVEN
    affine: RandomAffine = _GIVEN
    perspective: RandomPerspective = _GIVEN
    elastic: ElasticTransform = _GIVEN
    zoom_out: RandomZoomOut = _GIVEN
    color_jitter: ColorJitter = _GIVEN
    photometric_distort: RandomPhotometricDistort = _GIVEN
    grayscale: RandomGrayscale = _GIVEN
    channel_permutation: RandomChannelPermutation = _GIVEN
    gaussian_blur: GaussianBlur = _GIVEN
    gaussian_noise: ImageNoise = _GIVEN
    solarize: RandomSolarize = _GIVEN
    posterize: RandomPosterize = _GIVEN
    equalize: RandomEqualize = _GIVEN
    autocontrast: RandomAutocontrast = _GIVEN
    sharpness: RandomAdjustSharpness = _GIVEN
    invert: RandomInvert = _GIVEN
    random_erasing: RandomErasing = _GIVEN
    trivial_augment: TrivialAugmentWide = _GIVEN
    rand_augment: RandAugment = _GIVEN
    auto_augment: AutoAugment = _GIVEN
    augmix: AugMix = _GIVEN

    @model_validator(mode="after")
    def _one(self) -> OneChange:
        if len(self.model_fields_set) != 1:
            names = ", ".join(sorted(self.model_fields_set)) or "a name"
            raise ValueError(f"one change an entry | write a list: [{names}]")
        return self


CHANGES: Mapping[str, type[Change]] = MappingProxyType(
    {name: cast("type[Change]", field.annotation) for name, field in OneChange.model_fields.items()}
)


def _known(word: str) -> str:
    if word not in CHANGES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, CHANGES))})
    if word == "affine":
        raise ValueError(f"affine does nothing without a number | {AFFINE}")
    return word


def _form(value: Any) -> str:
    """Tell which form is meant, so that a problem is told of that form alone."""
    return "mapping" if isinstance(value, dict | Section) else "word"


class _OneOrMany:
    """In the schema: one entry is a list of one."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


_Word = Annotated[str, AfterValidator(_known), WithJsonSchema({"enum": list(CHANGES)})]
_Entry = Annotated[
    Annotated[_Word, Tag("word")] | Annotated[OneChange, Tag("mapping")], Discriminator(_form)
]


def change_of(entry: str | OneChange) -> Change:
    """Return what an entry of the list stands for: a name is the change with its defaults."""
    if isinstance(entry, str):
        return CHANGES[entry]()
    change: Change = getattr(entry, next(iter(entry.model_fields_set)))
    return change


def _once_each(entries: tuple[str | OneChange, ...]) -> tuple[str | OneChange, ...]:
    """Two of a name would draw the same."""
    words = [change_of(entry).word for entry in entries]
    twice = next((word for word in words if words.count(word) > 1), None)
    if twice is not None:
        raise ValueError(f"{twice} stands there twice | keep one")
    return entries


Augmentations = Annotated[
    tuple[_Entry, ...],
    Strict(False),
    BeforeValidator(as_list),
    AfterValidator(_once_each),
    _OneOrMany(),
]


class Augment(Section):
    """Random changes to images: a pure function of the seeds, the view or epoch, and the image's bytes."""

    train: Augmentations = Field((), description="On training images.")
    val: Augmentations = Field((), description="On validation images: a shift of domain.")
    seed: Seed = Field(
        0, description="Of the views; without views, fine_tune.seed and the epoch take part too."
    )

    @property
    def on_train(self) -> tuple[Change, ...]:
        """Return what is done to training images, in this order."""
        return tuple(map(change_of, self.train))

    @property
    def on_val(self) -> tuple[Change, ...]:
        """Return what is done to validation images, in this order."""
        return tuple(map(change_of, self.val))


Alpha = Annotated[float, Field(gt=0, le=100)]


class Mix(Section):
    """Training images of a batch mixed with one another, and what they are compared with."""

    mixup: Alpha | None = Field(
        None, description="Two images blended; the share is drawn from Beta(x, x)."
    )
    cutmix: Alpha | None = Field(
        None,
        description="A rectangle of another image; its share of the area is drawn from Beta(x, x).",
    )

    @model_validator(mode="after")
    def _one_at_least(self) -> Mix:
        if self.mixup is None and self.cutmix is None:
            raise ValueError("mix needs mixup, cutmix or both | write mix: {mixup: 0.2}")
        return self
