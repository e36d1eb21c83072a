"""What all layer types share, and the call of torch that each becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from tlcompile.recipe.fields import Activation, Names, NotNegative, Probability, Width
from tlcompile.recipe.initialisers import Init
from tlcompile.recipe.optimizers import OwnSettings
from tlcompile.recipe.regularise import Constraints

Shape = tuple[int, ...]  # of one sample, without the batch


@dataclass(frozen=True)
class Call:
    """What a layer type becomes: a module built with these arguments, or a function called.

    Attributes:
        name: Dotted from torch ("nn.Linear", "flatten"), "own.<function>" of graph/functions.py, or
            "own_modules.<Class>" of graph/own_modules.py.
        kwargs: Its keyword arguments.
        as_list: Whether the inputs are passed as one list (torch.cat).
        factory: Of a plug-in alone: builds the module from kwargs, and `name` is a label.
    """

    name: str
    kwargs: dict[str, Any]
    as_list: bool = False
    factory: Callable[..., Any] | None = None


class Layer(OwnSettings):
    """What all layer types share."""

    num_inputs: ClassVar[tuple[int, int]] = (1, 1)
    wants: ClassVar[str] = "any shape"
    advice: ClassVar[str] = (
        "read a vertex of such a shape; from a map, global_pool and flatten make features"
    )
    reads_integers: ClassVar[bool] = False

    inputs: Names = Field(
        (), description="Vertices that it reads; several are concatenated only by `concat`."
    )
    feeds: Names = Field((), description="Kept readers of its input that read this layer instead.")

    @model_validator(mode="before")
    @classmethod
    def _init_needs_a_weight(cls, data: Any) -> Any:
        if isinstance(data, dict) and "init" in data and "init" not in cls.model_fields:
            word = data.get("layer")
            raise ValueError(
                f"init has no effect: {word} has no weight of two dimensions or more | drop init"
            )
        return data

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show what differs from the defaults: a new setting of a type changes no golden."""
        fields = type(self).model_fields
        return [(k, v) for k, v in super().__repr_args__() if v != fields[str(k)].default]

    def accepts(self, shapes: Sequence[Shape]) -> bool:
        """Tell whether these input shapes fit."""
        return True

    def call(self, shapes: Sequence[Shape], classes: int) -> Call:
        """Return what it becomes, given its input shapes and the number of logits of the task."""
        raise NotImplementedError


class Parametric(Layer):
    """A layer with weights. It is a region: layer, then norm, activation, dropout."""

    channels_first: ClassVar[bool] = False  # its output: (N, channels, ...) or (N, ..., features)
    inherits_activation: ClassVar[bool] = True  # fine_tune.activation, where it names none

    norm: Literal["batch", "layer"] | None = Field(
        None, description="Normalisation behind it, over channels or features."
    )
    activation: Activation | None = Field(
        None, description="Default: fine_tune.activation, not on outputs."
    )
    dropout: Probability | None = Field(
        None, description="Drop probability behind it; default: fine_tune.dropout."
    )
    init: Init | None = Field(
        None, description="Of the weight, by torch.nn.init; default: fine_tune.init."
    )
    l1: NotNegative | None = Field(None, description="Of its weights; default: fine_tune.l1.")
    l2: NotNegative | None = Field(None, description="Of its weights; default: fine_tune.l2.")
    constraints: Constraints | None = Field(
        None, description="Instead of fine_tune.constraints; {}: none."
    )


class Biased(Parametric):
    """A layer with weights and, if it is not told otherwise, a bias."""

    bias: bool = Field(True, description="Whether it has a bias.")
    bias_init: float | None = Field(
        None, description="Value of the bias; default: torch's own, and 0 where init is given."
    )
    l1_bias: NotNegative | None = Field(
        None, description="Of its biases; default: fine_tune.l1_bias."
    )
    l2_bias: NotNegative | None = Field(
        None, description="Of its biases; default: fine_tune.l2_bias."
    )

    @model_validator(mode="after")
    def _bias_init_needs_bias(self) -> Biased:
        for setting in ("bias_init", "l1_bias", "l2_bias"):
            if getattr(self, setting) is not None and not self.bias:
                raise ValueError(f"{setting} has no effect without a bias | drop {setting}")
        return self


class Wide(Biased):
    """A layer that says how wide its output is."""

    out: Width = Field(description="Output width, or `classes`: as many logits as the task needs.")

    def width(self, classes: int) -> int:
        """Return the output width."""
        return classes if self.out == "classes" else int(self.out)


def spatial_dims(shape: Shape) -> int:
    """Return the number of dimensions behind the channels."""
    return len(shape) - 1


def sizes_fit(dims: int, *sizes: int | tuple[int, ...] | None) -> bool:
    """Tell whether each setting is one number, or one for each dimension."""
    return all(len(size) == dims for size in sizes if isinstance(size, tuple))
