"""The sections `data` and `features`: which images, and what is computed from them once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.augment import Alpha, Augment, Mix
from tlcompile.recipe.fields import (
    DistinctNames,
    Fraction,
    Name,
    NotNegative,
    Positive,
    Probability,
    Section,
    Seed,
    Text,
)

Dataset = Literal[
    "digits", "flower_photos", "hymenoptera",
    "cifar10", "cifar100", "country211", "dtd", "eurosat", "fashion_mnist", "flowers102", "food101",
    "kmnist", "mnist", "oxford_pets", "stl10", "svhn",
]  # fmt: skip


# Known without opening anything, so that `check` needs no data.
DATASET_CLASSES = {
    "digits": 10, "flower_photos": 5, "hymenoptera": 2,
    "cifar10": 10, "cifar100": 100, "country211": 211, "dtd": 47, "eurosat": 10,
    "fashion_mnist": 10, "flowers102": 102, "food101": 101, "kmnist": 10, "mnist": 10,
    "oxford_pets": 37, "stl10": 10, "svhn": 10,
}  # fmt: skip


class Split(Section):
    """A share of the images for validation: of each class, of each label, or of each range of numbers."""

    val: Fraction = Field(0.2, description="Share of each class.")
    seed: Seed = Field(0, description="Of the draw.")
    column: Name | None = Field(
        None, description="Column of data.csv that says train, val or test; default: none does."
    )


class Data(Section):
    """Which images are trained on."""

    folder: Text | None = Field(
        None,
        description="Class folders; or train/, val/ (and test/) with class folders in each. For "
        "segmentation images/ and masks/ instead. With csv: where its relative paths go on.",
    )
    dataset: Dataset | None = Field(
        None, description="A named data set; `digits` is bundled, others are downloaded once."
    )
    csv: Annotated[Text, Field(min_length=1)] | None = Field(
        None, description="A table with a row an image; relative paths go on from its own folder."
    )
    huggingface: Annotated[Text, Field(min_length=1)] | None = Field(
        None,
        description="A data set of the Hugging Face hub, or a folder in its format; needs the extra "
        "huggingface.",
    )
    image: Name | None = Field(
        None,
        description="Column of the images; default: `image`, of huggingface the one that has images.",
    )
    target: DistinctNames | None = Field(
        None,
        description="Columns to predict: of a class's name; of labels as a;b, or one of 0 and 1 for "
        "each; of numbers; of masks' paths. Default: label (mask for segmentation).",
    )
    split: Split = Field(Split(), description="Used where there are no validation images.")
    classes: DistinctNames | None = Field(
        None,
        description="A subset, in this order; for segmentation the names of the masks' values.",
    )
    per_class: Positive | None = Field(
        None, description="Training images a class, drawn by the seed."
    )
    augment: Augment = Field(Augment(), description="Random changes to images.")
    mix: Mix | None = Field(None, description="Training images mixed with one another.")

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        given = [key for key in ("folder", "dataset", "csv", "huggingface") if getattr(self, key)]
        if len(given) > 1 and set(given) != {"folder", "csv"}:
            raise ValueError(
                f"{given[0]} and {given[1]} both say where the images are | "
                f"drop one: ~data.{given[0]} or ~data.{given[1]}"
            )
        if self.csv is None and self.split.column is not None:
            raise ValueError("split.column has no effect without csv | drop split.column")
        if self.csv is None and self.huggingface is None:
            for key in ("image", "target"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} has no effect without csv or huggingface | drop {key}")
        return self

    def columns_of(self, task: str) -> tuple[str, ...]:
        """Return the columns to predict, where the task has one output."""
        return self.target or (("mask",) if task == "segmentation" else ("label",))

    def named_by_columns(self, task: object) -> tuple[str, ...] | None:
        """Return the columns where each is one number or one label to predict."""
        columns = self.target or ()
        each = task == "regression" or (task == "multilabel" and len(columns) > 1)
        return columns if each and columns else None


class FeatureAugment(Section):
    """Random changes to features while training; what is stored stays as it is."""

    noise: NotNegative = Field(
        0.0, description="Gaussian noise, in standard deviations of the batch's features."
    )
    dropout: Probability = Field(0.0, description="Share of the features that are set to 0.")
    mixup: Alpha | None = Field(
        None,
        description="Rows of a batch blended, with what they are compared with; the share is drawn "
        "from Beta(x, x).",
    )


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
