"""Field types that every section of the recipe uses. A field's text is its help in an editor."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from tlcompile.recipe.sizes import WANTED, parse_bytes


class Section(BaseModel):
    """A mapping of the recipe: frozen, strict, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class RuleAt(ValueError):  # noqa: N818, Pydantic wants a ValueError, users see a RuleError
    """A rule that is broken at a place below the section that checks it."""

    def __init__(self, text: str, *key: str | int) -> None:
        super().__init__(text)
        self.key = key


def _as_written(value: Any) -> Any:
    """Return a number's text: the vertex `1.10` is not the vertex `1.1`."""
    return getattr(value, "text", value)


def as_list(value: Any) -> Any:
    """Return one value as a list of one."""
    return value if isinstance(value, list | tuple) else [value]


Name = Annotated[str, BeforeValidator(_as_written), Field(min_length=1, max_length=200)]
# One name is a list of one; numbers are names as they are written.
_NAME_SCHEMA = {"type": ["string", "number"]}
Names = Annotated[
    tuple[Name, ...],
    Strict(False),
    BeforeValidator(as_list),
    WithJsonSchema({"anyOf": [_NAME_SCHEMA, {"type": "array", "items": _NAME_SCHEMA}]}),
]
Text = Annotated[str, BeforeValidator(_as_written), Field(max_length=4096)]


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    twice = next((name for place, name in enumerate(names) if name in names[:place]), None)
    if twice is not None:
        raise ValueError(f"it names '{twice}' twice | drop one of the two")
    return names


DistinctNames = Annotated[Names, AfterValidator(_each_once)]  # one name would be two classes


def _is_size(value: str) -> str:
    try:
        parse_bytes(value)
    except ValueError as error:
        raise PydanticCustomError("size", WANTED) from error
    return value


NumBytes = Annotated[str, BeforeValidator(_as_written), AfterValidator(_is_size)]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
NotNegative = Annotated[float, Field(ge=0, le=1e6)]
Width = Annotated[Positive | Literal["classes"], Field(examples=["classes"])]
# One number for all dimensions, or one a dimension.
_UP_TO_3 = Field(min_length=1, max_length=3)
Sizes = Positive | Annotated[tuple[Positive, ...], Strict(False), _UP_TO_3]
CountSizes = Count | Annotated[tuple[Count, ...], Strict(False), _UP_TO_3]

Activation = Literal[
    "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "softplus",
    "hardswish", "hardsigmoid", "hardtanh", "hardshrink", "softshrink", "tanhshrink", "tanh",
    "sigmoid", "logsigmoid", "softsign", "rrelu", "softmax", "log_softmax", "identity",
]  # fmt: skip
