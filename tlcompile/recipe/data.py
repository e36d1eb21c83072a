"""The sections `data` and `features`: which images, and what is computed from them once."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field, Strict, WithJsonSchema, model_validator

from tlcompile.recipe.fields import (
    Fraction,
    Names,
    NotNegative,
    Positive,
    Probability,
    Section,
    Seed,
    Text,
    as_list,
)

Dataset = Literal["digits", "flower_photos", "hymenoptera"]
Augmentation = Literal[
    "random_resized_crop", "horizontal_flip", "vertical_flip", "color_jitter", "rotation"
]
_ONE = {"enum": list(get_args(Augmentation))}
Augmentations = Annotated[
    tuple[Augmentation, ...],
    Strict(False),
    BeforeValidator(as_list),
    WithJsonSchema({"anyOf": [_ONE, {"type": "array", "items": _ONE}]}),
]


# Known without opening anything, so that `check` needs no data.
DATASET_CLASSES = {"digits": 10, "flower_photos": 5, "hymenoptera": 2}


class Split(Section):
    """A share of the images for validation, class by class."""

    val: Fraction = Field(0.2, description="Share of each class.")
    seed: Seed = Field(0, description="Of the draw.")


class Augment(Section):
    """Random changes to images: a pure function of the seeds, the view or epoch, and the image's bytes."""

    train: Augmentations = Field((), description="On training images.")
    val: Augmentations = Field((), description="On validation images: a shift of domain.")
    seed: Seed = Field(
        0, description="Of the views; without views, fine_tune.seed and the epoch take part too."
    )


class Data(Section):
    """Which images are trained on."""

    folder: Text | None = Field(
        None, description="Class folders; or train/, val/ (and test/) with class folders in each."
    )
    dataset: Dataset | None = Field(None, description="A named data set; `digits` is bundled.")
    split: Split = Field(Split(), description="Used where there is no val/ folder.")
    classes: Names | None = Field(None, description="A subset, in this order.")
    per_class: Positive | None = Field(
        None, description="Training images a class, drawn by the seed."
    )
    augment: Augment = Field(Augment(), description="Random changes to images.")

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        if self.folder is not None and self.dataset is not None:
            raise ValueError(
                "folder and dataset both say where the images are | drop one: ~data.folder or ~data.dataset"
            )
        return self


class FeatureAugment(Section):
    """Random changes to features while training; what is stored stays as it is."""

    noise: NotNegative = Field(
        0.0, description="Gaussian noise, in standard deviations of the batch's features."
    )
    dropout: Probability = Field(0.0, description="Share of the features that are set to 0.")


class Features(Section):
    """Outputs of the frozen part, computed once for an image."""

    cache: Literal["auto", "off"] = Field(
        "auto", description="auto: keep them for all runs. off: compute them in every epoch."
    )
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = Field(
        32, description="Images a pass of the frozen part; part of the result's bits."
    )
    precision: Literal["exact", "fp32-fused", "fast", "auto"] = Field(
        "exact",
        description="exact: fp32, equal to the bit to the live model. fp32-fused: fp32 with folded norms, "
        "within about 1e-6. fast: bf16. auto: the fastest that pays on this machine, measured once.",
    )
    views: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="Cached augmented views an image."
    )
    augment: FeatureAugment = Field(FeatureAugment(), description="Random changes to features.")

    def only_with_a_frozen_part(self) -> tuple[str, ...]:
        """Return the keys that are given and say something only where something is frozen."""
        default = Features()
        keys = ("cache", "views", "precision", "augment")
        return tuple(key for key in keys if getattr(self, key) != getattr(default, key))
