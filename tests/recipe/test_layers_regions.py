"""A layer with weights is a region: norm, activation, dropout follow; defaults; bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from recipe.many_shapes import INPUTS, ManyShapes, compiled, recipe_of
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.bundle import load_bundle, save_bundle
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import ShapeError
from tlcompile.recipe.layers.any_layer import BuiltIn
from tlcompile.recipe.layers.base import Parametric
from tlcompile.run.folder import resolved
from tlcompile.zoo.preprocessing import Preprocessing

V, T, M, D = "vector", "tokens", "body", "volume"
FOLLOWED = {"norm": "batch", "activation": "softmax", "dropout": 0.3}
# One row for each type with weights: its settings, what it reads, and the class of its batch norm;
# None: its features come last, so batch normalisation does not fit.
ROWS: list[tuple[dict[str, Any], list[str], type[nn.Module] | None]] = [
    ({"layer": "linear", "out": 3}, [V], nn.BatchNorm1d),
    ({"layer": "linear", "out": 3}, [T], None),
    ({"layer": "bilinear", "out": 3}, [V, V], nn.BatchNorm1d),
    ({"layer": "conv1d", "out": 3}, [T], nn.BatchNorm1d),
    ({"layer": "conv2d", "out": 3}, [M], nn.BatchNorm2d),
    ({"layer": "conv3d", "out": 3, "padding": 1}, [D], nn.BatchNorm3d),
    ({"layer": "conv_transpose1d", "out": 3}, [T], nn.BatchNorm1d),
    ({"layer": "conv_transpose2d", "out": 3}, [M], nn.BatchNorm2d),
    ({"layer": "conv_transpose3d", "out": 3}, [D], nn.BatchNorm3d),
    ({"layer": "depthwise_conv2d"}, [M], nn.BatchNorm2d),
    ({"layer": "separable_conv1d", "out": 3}, [T], nn.BatchNorm1d),
    ({"layer": "separable_conv2d", "out": 3}, [M], nn.BatchNorm2d),
    ({"layer": "squeeze_excitation"}, [M], nn.BatchNorm2d),
    ({"layer": "rnn", "hidden_size": 3}, [T], None),
    ({"layer": "lstm", "hidden_size": 3}, [T], None),
    ({"layer": "gru", "hidden_size": 3}, [T], None),
    ({"layer": "multi_head_attention", "num_heads": 4}, [T], None),
]


def words(row: Any) -> str:
    return str(row["layer"]) if isinstance(row, dict) else ""


def test_every_type_with_weights_has_a_row() -> None:
    kinds = [kind for kind in get_args(BuiltIn) if issubclass(kind, Parametric)]
    found = {w for kind in kinds for w in get_args(kind.model_fields["layer"].annotation)}
    assert len(found) == 17
    assert {row[0]["layer"] for row in ROWS} | {"embedding"} == found  # embedding reads integers


def chained(model: nn.Module, main: Tensor, *, first: bool) -> Tensor:
    """Compute what follows a layer's own output, by the modules of the region."""
    dim = 1 if first else -1
    normed = model.get_submodule("new.norm")(main)
    return model.get_submodule("new.dropout")(F.softmax(normed, dim))


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize(("layer", "inputs", "batch_norm"), ROWS, ids=words)
def test_norm_activation_and_dropout_follow(
    layer: dict[str, Any], inputs: list[str], batch_norm: type[nn.Module] | None, norm: str
) -> None:
    followed = {**layer, **FOLLOWED, "norm": norm}
    if norm == "batch" and batch_norm is None:
        with pytest.raises(ShapeError, match="norm: layer") as caught:
            compiled(followed, inputs)
        assert caught.value.key == ("add", "new", "norm")
        return
    model = compiled(followed, inputs).train()
    names = [row.name for row in model.summary.vertices if row.name.startswith("new")]
    assert names == [f"new.{layer['layer']}", "new.norm", "new.activation", "new.dropout"]
    if norm == "batch":
        assert type(model.get_submodule("new.norm")) is batch_norm
    x = torch.randn(3, 3, 6, 6)
    module = model.get_submodule("new")
    main = type(module).forward(module, *[INPUTS[name](model, x) for name in inputs])
    torch.manual_seed(7)
    wanted = chained(model, main, first=batch_norm is not None)
    torch.manual_seed(7)
    assert torch.equal(model(x), wanted)


def test_layer_norm_behind_a_convolution_is_over_its_channels() -> None:
    model = compiled({"layer": "conv2d", "out": 3, "norm": "layer"}, [M])
    assert model.state_dict()["new.norm.weight"].shape == (3,)
    maps = model.get_submodule("new")(INPUTS[M](model, torch.randn(2, 3, 6, 6)))
    normed = model.get_submodule("new.norm")(maps)
    assert torch.allclose(normed.mean(1), torch.zeros(2, 4, 4), atol=1e-5)


DEFAULTS = {"fine_tune": {"activation": "tanh", "dropout": 0.25, "init": "ones"}}


@pytest.mark.parametrize(("layer", "inputs"), [row[:2] for row in ROWS], ids=words)
def test_defaults_of_fine_tune_are_inherited(layer: dict[str, Any], inputs: list[str]) -> None:
    own_nonlinearity = {"rnn", "lstm", "gru", "multi_head_attention", "squeeze_excitation"}
    add = {"also": {"layer": "linear", "out": 3, "inputs": V}}  # takes the activation
    add["used"] = {"layer": "flatten", "inputs": "also"}
    both = {"outputs": ["end", "used"], **DEFAULTS}
    model = compiled(layer, inputs, add, **both)
    kinds = {row.name: row.kind for row in model.summary.vertices}
    assert ("new.activation" in kinds) is (layer["layer"] not in own_nonlinearity)
    assert kinds["new.dropout"] == "Dropout"
    weights = [p for n, p in model.named_parameters() if n.startswith("new.") and p.dim() > 1]
    assert weights
    assert all(bool((weight == 1).all()) for weight in weights)


WITH_STATE = [row for row in ROWS if row[2] is None or row[0]["layer"].startswith("separable")]


@pytest.mark.parametrize(("layer", "inputs", "_norm"), WITH_STATE, ids=words)
def test_bundle_gives_back_the_same_layer(
    layer: dict[str, Any], inputs: list[str], _norm: object, tmp_path: Path
) -> None:
    pooled = {"pooled": {"layer": "flatten", "inputs": "new"}}
    pooled["logits"] = {"layer": "linear", "out": "classes", "inputs": "pooled"}
    sections: dict[str, Any] = {"outputs": ["logits"]}
    recipe = recipe_of({**layer, "norm": "layer"}, inputs, pooled, **sections)
    recipe = recipe.model_copy(update={"add": {k: v for k, v in recipe.add.items() if k != "end"}})
    model = compile_recipe(recipe, base=ManyShapes(), num_classes=2).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.125)
    preprocessing = Preprocessing(6, 6, (0.5,) * 3, (0.5,) * 3, "bilinear", 3)
    record = {
        "classes": ["a", "b"],
        "preprocessing": preprocessing.to_dict(),
        "task": "classification",
        "chunk_size": 2,
        "base": {},
    }
    save_bundle(tmp_path / "bundle", model, resolved(recipe), record)
    again = load_bundle(tmp_path / "bundle", base=ManyShapes()).model
    x = torch.randn(3, 3, 6, 6)
    assert torch.equal(again(x), model(x))


def test_a_layer_without_effect_on_the_output_keeps_the_error() -> None:
    with pytest.raises(TLCompileError) as caught:
        compiled({"layer": "linear", "out": 3}, [V], outputs=["fc"])
    assert caught.value.slug == "no-effect"
