"""The recipe as one frozen model. YAML and Python build the same object."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, Strict, model_validator

from tlcompile.errors.base import RecipeKey, Span
from tlcompile.recipe.data import DATASET_CLASSES, Data, Features
from tlcompile.recipe.fields import Count, Init, Name, Names, Positive, Section, Text, as_list
from tlcompile.recipe.fine_tune import FineTune
from tlcompile.recipe.layers import AnyLayer
from tlcompile.recipe.nodes import Mapping, locate


class Base(Section):
    """Where the model starts."""

    model: Name | None = Field(None, description="A name of the zoo; `tlcompile zoo` lists them.")
    run: Text | None = Field(None, description="Not yet: a finished run's folder, edits included.")
    weights: Text = Field(
        "default", description="`default`, a name of the zoo, a .safetensors or .pth file, or none."
    )
    size: Positive | None = Field(
        None, description="Image side, pixels; default: the weights' own."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Base:
        if (self.model is None) == (self.run is None):
            raise ValueError(
                "name exactly one of model and run | add base.model: digits_net (or another; see zoo)"
            )
        return self


class VertexPoint(Section):
    """A freeze point by vertex, where the name is also a keyword."""

    vertex: Name = Field(description="A vertex or a region, even if it is called `stage2`.")


class StagePoint(Section):
    """A freeze point by stage: strides 4, 8, 16, 32 are stages 1 to 4."""

    stage: Annotated[int, Field(ge=1, le=4)] = Field(description="1 to 4.")


class MatchPoint(Section):
    """Every vertex whose name a pattern matches."""

    match: Name = Field(
        description="`*` stands for any text, dots too: `*.bn1`; `plan` prints what it matches."
    )


FreezePoint = VertexPoint | StagePoint | MatchPoint | Name


class Freeze(Section):
    """The freeze point: named vertices and all that they read stop learning."""

    upto: Annotated[tuple[FreezePoint, ...], Strict(False), BeforeValidator(as_list)] = Field(
        ("head",),
        description="Inclusive: vertices, stage1..stage4, `head` (all but the classifier), none, all. "
        "Beside `only`: none.",
    )
    only: Annotated[tuple[MatchPoint | Name, ...], Strict(False), BeforeValidator(as_list)] = Field(
        (), description="These vertices or regions alone; gradients pass through."
    )

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, written: Any) -> Any:
        if isinstance(written, dict) and "only" in written and "upto" not in written:
            return {**written, "upto": "none"}
        return written


class Resize(Section):
    """Another width for a layer of the base."""

    out: Positive | None = Field(None, description="Output width.")
    in_: Positive | None = Field(None, alias="in", description="Input width.")
    init: Init | None = Field(None, description="Of the layer.")
    fan_out_init: Init | None = Field(None, description="Of its readers.")
    overlap: bool = Field(False, description="Keep the weights that both widths have.")


class Input(Section):
    """An input of the model beside the image, or of your own module."""

    shape: Annotated[tuple[Positive, ...], Strict(False)] = Field(
        description="Of one sample, without the batch."
    )
    dtype: Literal["float32", "int64", "bool"] = Field(
        "float32", description="In torch's words; an embedding reads int64."
    )


class Run(Section):
    """What the machine decides; no part of the recipe's identity."""

    device: Literal["auto", "cpu", "cuda", "mps"] = Field("auto", description="Where to train.")
    workers: Count = Field(2, description="Threads that decode images.")
    output_dir: Text = Field("runs", description="The folder above the run's own.")


class Recipe(Section):
    """What the user asked for. Valid by construction."""

    version: Literal[1] = Field(1, description="Of the language.")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")] = Field(
        "recipe", description="Names the run's folder; default: the file's name."
    )
    base: Base = Field(description="Where the model starts.")
    head: Literal["auto", "keep"] | None = Field(
        None, description="auto: a classifier as wide as the task needs. keep: the base's own."
    )
    freeze: Freeze = Field(Freeze(), description="The freeze point.")
    remove: dict[Name, Literal["replace", "drop", "bypass"]] = Field(
        {},
        description="Vertices or regions to take away: replace (its readers wait for an added one of "
        "this name), drop, or bypass (its readers read what it read).",
    )
    resize: dict[Name, Resize] = Field({}, description="Not yet: layers to make wider or narrower.")
    add: dict[Name, AnyLayer] = Field(
        {}, description="New layers, by name; `feeds` puts one in front of readers of its input."
    )
    inputs: dict[Name, Input] = Field(
        {},
        description="Further inputs, read by added layers, as arguments behind the image; or the "
        "shapes of the inputs of your own module.",
    )
    outputs: Names | None = Field(
        None, description="What the model returns; default: the base's own."
    )
    task: Literal["classification", "binary", "multilabel", "regression", "segmentation"] = Field(
        "classification",
        description="Decides loss, metrics and the number of logits; only the first two yet.",
    )
    data: Data = Field(Data(), description="The images.")
    features: Features = Field(Features(), description="Outputs of the frozen part.")
    fine_tune: FineTune = Field(FineTune(), description="How it is trained.")
    run: Run = Field(Run(), description="What the machine decides.")

    _source: Mapping | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _no_line_without_effect(self) -> Recipe:
        if self.features.views is not None and not self.data.augment.train:
            raise ValueError(
                "features.views has no effect without data.augment.train | drop features.views"
            )
        if self.fine_tune.label_smoothing and self.task == "binary":
            raise ValueError("fine_tune.label_smoothing has no effect on task: binary | drop it")
        return self

    def known_classes(self) -> int | None:
        """Return the number of classes that the recipe tells; None: only the images would."""
        if self.task == "binary":
            return 2
        if self.data.classes is not None:
            return len(self.data.classes)
        return DATASET_CLASSES.get(self.data.dataset or "")

    def where(self, key: RecipeKey) -> Span | None:
        """Return the place of a key in the file or on the command line, where there is one."""
        return None if self._source is None else locate(self._source, key)
