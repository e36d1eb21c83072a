"""Every initialiser fills a new weight as torch.nn.init does, to the bit, and says its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from recipe.many_shapes import ManyShapes, compiled, recipe_of
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.layers import InitRefusedError
from tlcompile.graph.initialise import derived_seed, describe, initialise
from tlcompile.recipe.initialisers import AnyInit, InitWord
from tlcompile.recipe.load import load_recipe
from tlcompile.recipe.scalars import to_yaml
from tlcompile.run.folder import resolved

LINEAR = {"layer": "linear", "out": 7}
CONV = {"layer": "conv2d", "out": 8}
Fill = Callable[[Tensor], Any]

# (init in the recipe, what torch does to the weight, how reports word it, layer)
ROWS: list[tuple[Any, Fill, str, dict[str, Any]]] = [
    ("xavier_uniform", nn.init.xavier_uniform_, "xavier_uniform", LINEAR),
    (
        {"name": "xavier_uniform", "gain": 1.4},
        lambda w: nn.init.xavier_uniform_(w, gain=1.4),
        "xavier_uniform(gain=1.4)",
        LINEAR,
    ),
    ("xavier_normal", nn.init.xavier_normal_, "xavier_normal", CONV),
    (
        "kaiming_uniform",
        lambda w: nn.init.kaiming_uniform_(w, nonlinearity="relu"),
        "kaiming_uniform(nonlinearity=relu)",
        LINEAR,
    ),
    (
        {"name": "kaiming_normal", "mode": "fan_out", "nonlinearity": "leaky_relu", "a": 0.2},
        lambda w: nn.init.kaiming_normal_(w, a=0.2, mode="fan_out"),
        "kaiming_normal(mode=fan_out, a=0.2)",
        CONV,
    ),
    (
        "lecun_normal",
        lambda w: nn.init.normal_(w, 0, (1 / 4) ** 0.5),
        "lecun_normal",
        LINEAR,
    ),
    (
        "lecun_uniform",
        lambda w: nn.init.kaiming_uniform_(w, nonlinearity="linear"),
        "lecun_uniform",
        CONV,
    ),
    ("orthogonal", nn.init.orthogonal_, "orthogonal", LINEAR),
    (
        {"name": "orthogonal", "gain": 2},
        lambda w: nn.init.orthogonal_(w, gain=2),
        "orthogonal(gain=2.0)",
        CONV,
    ),
    ("normal", lambda w: nn.init.normal_(w, 0, 0.02), "normal(std=0.02)", LINEAR),
    (
        {"name": "normal", "mean": 1, "std": 0.01},
        lambda w: nn.init.normal_(w, 1, 0.01),
        "normal(mean=1.0, std=0.01)",
        LINEAR,
    ),
    (
        {"name": "trunc_normal", "mean": 0.2, "std": 0.5, "a": -1, "b": 1},
        lambda w: nn.init.trunc_normal_(w, 0.2, 0.5, -1, 1),
        "trunc_normal(mean=0.2, std=0.5, a=-1.0, b=1.0)",
        LINEAR,
    ),
    ("uniform", nn.init.uniform_, "uniform", LINEAR),
    (
        {"name": "uniform", "a": -0.1, "b": 0.1},
        lambda w: nn.init.uniform_(w, -0.1, 0.1),
        "uniform(a=-0.1, b=0.1)",
        LINEAR,
    ),
    (
        {"name": "sparse", "sparsity": 0.3, "std": 0.2},
        lambda w: nn.init.sparse_(w, 0.3, 0.2),
        "sparse(sparsity=0.3, std=0.2)",
        LINEAR,
    ),
    (
        {"name": "constant", "val": 0.5},
        lambda w: nn.init.constant_(w, 0.5),
        "constant(val=0.5)",
        LINEAR,
    ),
    ("zeros", nn.init.zeros_, "zeros", LINEAR),
    ("ones", nn.init.ones_, "ones", CONV),
    ("eye", nn.init.eye_, "eye", LINEAR),
    ({"name": "dirac", "groups": 2}, lambda w: nn.init.dirac_(w, 2), "dirac(groups=2)", CONV),
]


def named(init: Any) -> str:
    return init["name"] if isinstance(init, dict) else str(init)


def words() -> set[str]:
    sections = get_args(get_args(AnyInit)[0])
    return {w for s in sections for w in get_args(s.model_fields["name"].annotation)}


def test_every_initialiser_has_a_row() -> None:
    assert len(words()) == 16
    assert {named(row[0]) for row in ROWS} | {"trunc_normal", "dirac"} == words()
    assert set(get_args(InitWord)) == words() - {"sparse", "constant"} | {"default"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2])
def test_init_is_torchs_own(row: tuple[Any, Fill, str, dict[str, Any]]) -> None:
    init, fill, worded, layer = row
    recipe = recipe_of({**layer, "init": init}, ["body" if layer is CONV else "vector"])
    model = compiled({**layer, "init": init}, ["body" if layer is CONV else "vector"])
    plain = nn.Conv2d(4, 8, 3) if layer is CONV else nn.Linear(4, 7)
    torch.manual_seed(derived_seed(42, "init", "new"))
    type(plain)(*((4, 8, 3) if layer is CONV else (4, 7)))  # torch fills first, and draws for it
    fill(plain.weight.data)
    assert torch.equal(model.state_dict()["new.weight"], plain.weight)
    assert not model.state_dict()["new.bias"].any()
    assert describe(recipe.add["new"].init) == worded


@pytest.mark.parametrize("place", ["layer", "fine_tune"])
def test_init_is_inherited_and_overridden(place: str) -> None:
    sections = {"fine_tune": {"init": {"name": "constant", "val": 0.25}}}
    own = {"init": "ones"} if place == "layer" else {}
    if own:
        add = {"inner": {"layer": "linear", "out": 3, "inputs": "vector"}}
        model = compiled({**LINEAR, **own}, ["inner"], add, **sections)
        assert bool((model.state_dict()["inner.weight"] == 0.25).all())
    else:
        model = compiled(LINEAR, ["vector"], **sections)
    wanted = 1.0 if own else 0.25
    assert bool((model.state_dict()["new.weight"] == wanted).all())


def test_bias_init_is_a_number() -> None:
    model = compiled({**LINEAR, "bias_init": 0.5}, ["vector"])
    again = compiled(LINEAR, ["vector"])
    assert bool((model.state_dict()["new.bias"] == 0.5).all())
    assert torch.equal(model.state_dict()["new.weight"], again.state_dict()["new.weight"])


def test_init_reaches_every_matrix_of_a_recurrent_layer() -> None:
    layer = {"layer": "lstm", "hidden_size": 5, "init": {"name": "constant", "val": 2}}
    model = compiled({**layer, "bias_init": 1}, ["tokens"])
    values = {k: set(v.flatten().tolist()) for k, v in model.state_dict().items() if "new" in k}
    assert values == {
        "new.cells.weight_ih_l0": {2.0},
        "new.cells.weight_hh_l0": {2.0},
        "new.cells.bias_ih_l0": {1.0},
        "new.cells.bias_hh_l0": {1.0},
    }


def test_scales_of_norms_keep_torchs_own() -> None:
    norm = nn.LayerNorm(3)
    initialise(norm, "zeros")
    assert norm.weight.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("layer", "vertex", "init"), [(LINEAR, "vector", "dirac"), (CONV, "body", "eye")]
)
def test_init_that_does_not_fit_is_refused_without_weights(
    layer: dict[str, Any], vertex: str, init: str
) -> None:
    with pytest.raises(InitRefusedError) as caught:
        compiled({**layer, "init": init}, [vertex])
    assert caught.value.key == ("add", "new", "init")
    assert f"init {init} cannot fill" in str(caught.value)


def test_init_that_does_not_fit_the_new_classifier_is_refused() -> None:
    recipe = recipe_of(LINEAR, ["vector"]).model_copy(update={"add": {}, "outputs": None})
    tune = recipe.fine_tune.model_copy(update={"init": "dirac"})
    with pytest.raises(InitRefusedError):
        compile_recipe(
            recipe.model_copy(update={"fine_tune": tune, "head": "auto"}),
            base=ManyShapes(),
            num_classes=3,
        )


BASE = "base: digits_net\nremove: {fc: replace}\nadd:\n  fc: {layer: linear, out: classes, "
BAD = {
    "xavier_norml": ("init: xavier_norml", "4:43", "did you mean 'xavier_normal'"),
    "sparse": ("init: sparse", "4:43", "{name: sparse, sparsity: 0.1}"),
    "a number": ("init: 3", "4:43", "write one of"),
    "no name": ("init: {std: 0.1}", "4:43", "add add.fc.init.name"),
    "not its parameter": ("init: {name: orthogonal, std: 0.1}", "4:62", "name, gain"),
    "slope": ("init: {name: kaiming_normal, a: 0.2}", "4:43", "leaky_relu"),
    "order": ("init: {name: uniform, a: 2}", "4:43", "not below"),
    "std": ("init: {name: normal, std: -1}", "4:63", "at least 0"),
    "share": ("init: {name: sparse, sparsity: 2}", "4:68", "at most 1"),
    "no bias": ("bias: false, bias_init: 1", "4:7", "no effect without a bias"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_init_is_one_error_with_its_place(case: str, tmp_path: Any) -> None:
    text, place, word = BAD[case]
    path = tmp_path / "r.yaml"
    path.write_text(f"{BASE}{text}}}\n")
    with pytest.raises(TLCompileError) as caught:
        load_recipe(path)
    assert f"r.yaml:{place}:" in str(caught.value)
    assert word in " ".join(str(caught.value).split())


def test_init_on_a_layer_without_weights_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("base: digits_net\nadd: {f: {layer: flatten, inputs: fc, init: zeros}}\n")
    with pytest.raises(TLCompileError, match=r"init\s+has\s+no\s+effect:\s+flatten"):
        load_recipe(path)


@pytest.mark.parametrize("init", ["normal", "{name: kaiming_normal}", "{name: normal, std: 0.1}"])
def test_a_resolved_recipe_reads_back(init: str, tmp_path: Any) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(f"{BASE}init: {init}}}\n")
    recipe = load_recipe(path)
    path.write_text(to_yaml(resolved(recipe)))
    assert resolved(load_recipe(path)) == resolved(recipe)
