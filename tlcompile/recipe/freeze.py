"""The section `freeze`: what stops learning."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, Strict, model_validator

from tlcompile.recipe.fields import Name, Section, as_list


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
        if isinstance(written, dict) and written.get("only") and "upto" not in written:
            return {**written, "upto": "none"}
        return written
