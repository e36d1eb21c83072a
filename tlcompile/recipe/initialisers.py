"""Initialisers, by torch.nn.init's names and parameters: a word, or a mapping with `name`.

Knows nothing of torch; graph/initialise.py calls what is named here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from tlcompile.recipe.fields import NotNegative, Positive, Section


class Xavier(Section):
    """Variance 2 / (fan_in + fan_out), times the gain squared."""

    name: Literal["xavier_uniform", "xavier_normal"]
    gain: float = Field(1.0, description="Factor of the standard deviation.")


class Kaiming(Section):
    """Variance gain squared / fan, with the gain of the nonlinearity that follows."""

    name: Literal["kaiming_uniform", "kaiming_normal"]
    mode: Literal["fan_in", "fan_out"] = Field("fan_in", description="Which fan is kept.")
    nonlinearity: Literal["relu", "leaky_relu", "tanh", "sigmoid", "selu", "linear"] = Field(
        "relu", description="What follows; decides the gain."
    )
    a: float = Field(0.0, description="Negative slope of leaky_relu.")

    @model_validator(mode="after")
    def _slope_needs_leaky_relu(self) -> Kaiming:
        if self.a and self.nonlinearity != "leaky_relu":
            raise ValueError(
                f"a has no effect with nonlinearity: {self.nonlinearity} | drop a, or write "
                "nonlinearity: leaky_relu"
            )
        return self


class Lecun(Section):
    """Variance 1 / fan_in: kaiming with nonlinearity: linear."""

    name: Literal["lecun_uniform", "lecun_normal"]


class Orthogonal(Section):
    """Rows or columns of one length at right angles."""

    name: Literal["orthogonal"]
    gain: float = Field(1.0, description="Their length.")


class Normal(Section):
    """Normally distributed."""

    name: Literal["normal"]
    mean: float = Field(0.0, description="Mean.")
    std: NotNegative = Field(0.02, description="Standard deviation.")


class TruncNormal(Section):
    """Normally distributed, drawn again outside of [a, b]."""

    name: Literal["trunc_normal"]
    mean: float = Field(0.0, description="Mean.")
    std: NotNegative = Field(0.02, description="Standard deviation.")
    a: float = Field(-2.0, description="Smallest value, not in units of std.")
    b: float = Field(2.0, description="Largest value.")

    @model_validator(mode="after")
    def _in_order(self) -> TruncNormal:
        _check_order(self.a, self.b)
        return self


class Uniform(Section):
    """Evenly distributed over [a, b]."""

    name: Literal["uniform"]
    a: float = Field(0.0, description="Smallest value.")
    b: float = Field(1.0, description="Largest value.")

    @model_validator(mode="after")
    def _in_order(self) -> Uniform:
        _check_order(self.a, self.b)
        return self


class Sparse(Section):
    """Normally distributed, with a share of zeros in each column; for 2 dimensions."""

    name: Literal["sparse"]
    sparsity: Annotated[float, Field(ge=0, le=1)] = Field(description="Share of zeros.")
    std: NotNegative = Field(0.01, description="Standard deviation of the others.")


class Filled(Section):
    """One value everywhere."""

    name: Literal["constant"]
    val: float = Field(description="The value.")


class Fixed(Section):
    """All zeros, all ones, or the identity of a linear layer."""

    name: Literal["zeros", "ones", "eye"]


class Dirac(Section):
    """The identity of a convolution: each output channel copies an input channel."""

    name: Literal["dirac"]
    groups: Positive = Field(1, description="Groups of channels with an identity each.")


AnyInit = Annotated[
    Xavier
    | Kaiming
    | Lecun
    | Orthogonal
    | Normal
    | TruncNormal
    | Uniform
    | Sparse
    | Filled
    | Fixed
    | Dirac,
    Field(discriminator="name"),
]

# `sparse` and `constant` say nothing without their numbers, so they are no words.
InitWord = Literal[
    "default", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal",
    "lecun_uniform", "lecun_normal", "orthogonal", "normal", "trunc_normal", "uniform", "zeros",
    "ones", "eye", "dirac",
]  # fmt: skip


def _ask_for_numbers(word: Any) -> Any:
    """Refuse a word that says nothing alone, with the mapping that does."""
    examples = {"sparse": "sparsity: 0.1", "constant": "val: 0"}
    if word in examples:
        mapping = f"{{name: {word}, {examples[word]}}}"
        raise ValueError(f"{word} needs its number | write {mapping}")
    return word


def _form(value: Any) -> str:
    """Tell which form is meant, so that a problem is told of that form alone."""
    return "mapping" if isinstance(value, dict | Section) else "word"


Init = Annotated[
    Annotated[InitWord, BeforeValidator(_ask_for_numbers), Tag("word")]
    | Annotated[AnyInit, Tag("mapping")],
    Discriminator(_form),
]


def _check_order(a: float, b: float) -> None:
    if a >= b:
        raise ValueError(f"a: {a:g} is not below b: {b:g} | exchange a and b")


def call_of_init(init: Init) -> tuple[str, dict[str, Any]] | None:
    """Return the function of torch.nn.init and its arguments; None for torch's own default."""
    if init == "default":
        return None
    section = _SECTIONS[init](name=init) if isinstance(init, str) else init
    if isinstance(section, Lecun):
        return section.name.replace("lecun", "kaiming") + "_", {"nonlinearity": "linear"}
    return f"{section.name}_", section.model_dump(exclude={"name"})


_SECTIONS: dict[str, Any] = {
    word: section
    for section in get_args(get_args(AnyInit)[0])
    for word in get_args(section.model_fields["name"].annotation)
}
