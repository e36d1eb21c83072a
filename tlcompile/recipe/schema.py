"""The recipe as one frozen model. YAML and Python build the same object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr, Strict, model_validator

from tlcompile.errors.base import RecipeKey, Span
from tlcompile.recipe.data import DATASET_CLASSES, Data, Features
from tlcompile.recipe.data_effect import refuse_idle_data
from tlcompile.recipe.fields import Name, Names, Positive, RuleAt, Section, Text
from tlcompile.recipe.fine_tune import FineTune
from tlcompile.recipe.freeze import Freeze
from tlcompile.recipe.initialisers import Init
from tlcompile.recipe.layers.any_layer import AnyLayer
from tlcompile.recipe.nodes import Mapping, locate
from tlcompile.recipe.phases import Phase
from tlcompile.recipe.run import Run
from tlcompile.recipe.sweep import Sweep
from tlcompile.recipe.tasks import (
    OF_ONE_OUTPUT,
    OutputTask,
    Tasks,
    idle_lines,
    misfits_of_several,
)


class Base(Section):
    """Where the model starts."""

    model: Name | None = Field(
        None,
        description="A name of the zoo; `tlcompile zoo` lists them.",
        examples=["resnet18"],
    )
    run: Text | None = Field(
        None,
        description="A finished run instead, by its folder or a unique beginning of its name: its "
        "edits, classifier and best weights; its task, data and seed too, unless given here.",
    )
    weights: Text = Field(
        "default", description="`default`, a name of the zoo, a .safetensors or .pth file, or none."
    )
    size: Positive | None = Field(
        None, description="Image side, pixels; default: the weights' own."
    )

    @model_validator(mode="after")
    def _one_source(self) -> Base:
        if self.model is not None and self.run is not None:
            raise ValueError(
                "name exactly one of model and run | drop one: ~base.model or ~base.run"
            )
        if self.model is None and self.run is None:
            raise ValueError(
                "name exactly one of model and run | add base.model: digits_net (or another; see zoo)"
            )
        return self


class Resize(Section):
    """Another width for a layer of the base; what reads it follows by itself."""

    out: Positive | None = Field(None, description="Output width: channels or features.")
    in_: Positive | None = Field(
        None,
        alias="in",
        description="Input width, where an edit changes what the layer reads; a resize alone infers it.",
    )
    init: Init | None = Field(
        None, description="Of the layer's new weights; default: fine_tune.init."
    )
    fan_out_init: Init | None = Field(
        None, description="Of its readers' new weights; default: as `init`."
    )
    overlap: bool = Field(
        False, description="Keep the weights that both widths have; else all are new."
    )

    @model_validator(mode="after")
    def _changes_something(self) -> Resize:
        if self.out is None and self.in_ is None:
            raise ValueError("name a width: out or in | write out: 256, or drop the line")
        if self.out is None and self.fan_out_init is not None:
            raise ValueError(
                "fan_out_init has no effect without out: no reader changes | drop fan_out_init"
            )
        return self


class Input(Section):
    """An input of the model beside the image, or of your own module."""

    shape: Annotated[tuple[Positive, ...], Strict(False)] = Field(
        description="Of one sample, without the batch."
    )
    dtype: Literal["float32", "int64", "bool"] = Field(
        "float32", description="In torch's words; an embedding reads int64."
    )


class Recipe(Section):
    """What the user asked for. Valid by construction."""

    version: Literal[1] = Field(1, description="Of the language.")
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$")] = Field(
        "recipe", description="Names the run's folder; default: the file's name."
    )
    base: Base = Field(description="Where the model starts.", examples=["{model: resnet18}"])
    head: Literal["auto", "keep"] | None = Field(
        None, description="auto: a classifier as wide as the task needs. keep: the base's own."
    )
    freeze: Freeze = Field(Freeze(), description="The freeze point.")
    remove: dict[Name, Literal["replace", "drop", "bypass"]] = Field(
        {},
        description="Vertices or regions to take away: replace (its readers wait for an added one of "
        "this name), drop, or bypass (its readers read what it read).",
    )
    resize: dict[Name, Resize] = Field(
        {}, description="Layers to make wider or narrower, all at once; readers follow."
    )
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
    task: Tasks = Field(
        "classification",
        description="Decides loss, metrics and the number of logits. Of several outputs: the task of "
        "each, by its vertex.",
    )
    data: Data = Field(Data(), description="The images.")
    features: Features = Field(Features(), description="Outputs of the frozen part.")
    fine_tune: FineTune = Field(FineTune(), description="How it is trained.")
    run: Run = Field(Run(), description="What the machine decides.")
    sweep: Sweep = Field(Sweep(), description="How the points of a sweep are run.")

    _source: Mapping | None = PrivateAttr(None)
    # Which phase it is of, and the keys that this phase has itself.
    _phase: tuple[int, frozenset[str]] | None = PrivateAttr(None)
    _freezes: tuple[tuple[RecipeKey, Freeze], ...] = PrivateAttr(())  # of all phases

    @model_validator(mode="after")
    def _no_line_without_effect(self) -> Recipe:
        if self.features.views is not None and not self.data.augment.train:
            rule = "has no effect without data.augment.train | drop features.views"
            raise RuleAt(rule, "features", "views")
        augment = self.data.augment
        if augment.seed and not (augment.train or augment.val):
            rule = "has no effect without data.augment.train or .val | drop it"
            raise RuleAt(rule, "data", "augment", "seed")
        self._refuse_unfit_tasks()
        refuse_idle_data(self.data, self.fine_tune.sampling, self.task)
        return self

    def _refuse_unfit_tasks(self) -> None:
        if isinstance(self.task, str):
            for key, rule in idle_lines(self.output_tasks()[""]):
                raise RuleAt(rule, "fine_tune", key)
            return
        own = [key for key in OF_ONE_OUTPUT if getattr(self.fine_tune, key)]
        as_wide = [name for name, one in self.add.items() if getattr(one, "out", None) == "classes"]
        returned = None if self.outputs is None and self.base.run else self.outputs or ()
        for *place, rule in misfits_of_several(self.task, returned, own, as_wide):
            raise RuleAt(rule, *place)
        if self.head == "auto":
            raise RuleAt("head: auto makes one output, and task names several | drop head", "head")

    def output_tasks(self) -> dict[str, OutputTask]:
        """Return what each output is trained on, by its vertex; the only one is called ""."""
        if not isinstance(self.task, str):
            return self.task
        tune = self.fine_tune
        alone = OutputTask.model_construct(
            task=self.task,
            loss=tune.loss,
            label_smoothing=tune.label_smoothing,
            class_weights=tune.class_weights,
        )
        return {"": alone}

    def known_classes(self) -> int | None:
        """Return the number of classes that the recipe tells; None: only the images would."""
        if self.task == "binary":
            return 2
        if self.data.classes is not None:
            return len(self.data.classes)
        if names := self.data.named_by_columns(self.task):
            return len(names)
        return DATASET_CLASSES.get(self.data.dataset or "")

    def phases(self) -> tuple[Recipe, ...]:
        """Return the recipe of each phase, with its freeze point and rates; else itself alone."""
        phases = self.fine_tune.phases
        if phases is None:
            return (self,)
        return tuple(self._during(index, phase) for index, phase in enumerate(phases))

    def _during(self, index: int, phase: Phase) -> Recipe:
        own = {"freeze": phase.freeze or self.freeze, "fine_tune": self.fine_tune.during(phase)}
        recipe = self.model_copy(update=own)
        recipe._phase = index, frozenset(phase.model_fields_set - {"name"})
        recipe._freezes = self.freezes()
        return recipe

    def freezes(self) -> tuple[tuple[RecipeKey, Freeze], ...]:
        """Return what each phase freezes, with its key; the recipe of one phase knows all of them."""
        phases = self.fine_tune.phases
        if phases is None:
            return self._freezes or ((("freeze",), self.freeze),)
        return tuple(
            (("freeze",), self.freeze)
            if phase.freeze is None
            else (("fine_tune", "phases", index, "freeze"), phase.freeze)
            for index, phase in enumerate(phases)
        )

    def idle_beside_phases(self) -> Iterator[RecipeKey]:
        """Yield the keys that no phase inherits, since each has its own."""
        phases = self.fine_tune.phases
        if phases is None:
            return
        own = {
            key for key in Phase.model_fields if all(getattr(p, key) is not None for p in phases)
        }
        if "freeze" in own:
            yield ("freeze",)
        yield from (("fine_tune", key) for key in _INHERITED if key in own)
        rates = all(phase.lr is not None or phase.optimizer is not None for phase in phases)
        if rates and "optimizer" not in own:
            yield ("fine_tune", "optimizer", "lr")

    def writes(self, key: RecipeKey) -> bool:
        """Tell whether a key below sections was given, as its default or not."""
        section: Section = self
        for name in key[:-1]:
            section = getattr(section, str(name))
        return key[-1] in section.model_fields_set

    def written_at(self, key: RecipeKey) -> RecipeKey:
        """Return where the whole recipe says what `key` says in that of a phase."""
        below = key[1:] if key[:1] == ("fine_tune",) else key
        if self._phase is not None and below and below[0] in self._phase[1]:
            return ("fine_tune", "phases", self._phase[0], *below)
        return key

    def where(self, key: RecipeKey) -> Span | None:
        """Return the place of a key in the file or on the command line, where there is one."""
        return None if self._source is None else locate(self._source, self.written_at(key))


_INHERITED = ("optimizer", "schedule", "layer_decay", "groups")
