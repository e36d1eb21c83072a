"""Which points of a sweep train as one, and what is said of the others."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import TinyNet, make_recipe
from torchvision.models import squeezenet1_0

from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.sweep.fuse import NO_OTHER, OFF, Fusion, plan_fusion

DIGITS = {"model": "digits_net"}


def recipe(tune: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    sections.setdefault("base", DIGITS)
    return make_recipe(freeze="head", fine_tune=tune or {}, **sections)


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    return compile_recipe(recipe(), num_classes=10)


def planned(model: CompiledModel, *recipes: Recipe) -> Fusion:
    return plan_fusion(recipes, [model] * len(recipes))


SGD = {"name": "sgd", "lr": 0.1}


@pytest.mark.parametrize(
    "tune",
    [
        {"optimizer": {**SGD, "lr": 0.3}},
        {"optimizer": {**SGD, "momentum": 0.9, "weight_decay": 0.1}},
        {"optimizer": SGD, "epochs": 3},
        {"optimizer": SGD, "schedule": {"name": "step", "every": 2}},
        {"optimizer": SGD, "label_smoothing": 0.1},
        {"optimizer": SGD, "early_stop": {"patience": 2}},
        {"optimizer": SGD, "monitor": "val/loss"},
    ],
)
def test_points_that_differ_in_numbers_train_as_one(
    model: CompiledModel, tune: dict[str, Any]
) -> None:
    fusion = planned(model, recipe({"optimizer": SGD}), recipe(tune))
    assert fusion == Fusion(((0, 1),), {})


@pytest.mark.parametrize(
    ("tune", "sections"),
    [
        ({"optimizer": {"name": "adamw", "lr": 0.1}}, {}),
        ({"optimizer": {**SGD, "momentum": 0.9, "nesterov": True}}, {}),
        ({"optimizer": SGD, "seed": 1}, {}),
        ({"optimizer": SGD, "batch_size": 8}, {}),
        ({"optimizer": SGD, "sampling": "balanced"}, {}),
        ({"optimizer": SGD}, {"features": {"precision": "fast"}}),
        ({"optimizer": SGD}, {"data": {"dataset": "digits", "per_class": 3}}),
    ],
)
def test_points_that_differ_in_more_do_not(
    model: CompiledModel, tune: dict[str, Any], sections: dict[str, Any]
) -> None:
    fusion = planned(model, recipe({"optimizer": SGD}), recipe(tune, **sections))
    assert fusion == Fusion((), {0: NO_OTHER, 1: NO_OTHER})


@pytest.mark.parametrize(
    ("tune", "sections", "reason"),
    [
        ({}, {"sweep": {"fuse": "off"}}, OFF),
        ({"clip": 1.0}, {}, "fine_tune.clip"),
        ({"l2": 0.1}, {}, "fine_tune.l2"),
        ({"average": {"ema": 0.9}}, {}, "fine_tune.average"),
        ({"accumulate": 2}, {}, "fine_tune.accumulate"),
        ({"optimizer": {"name": "rmsprop"}}, {}, "rmsprop"),
        ({}, {"features": {"augment": {"noise": 0.1}}}, "at random"),
        ({}, {"run": {"precision": "bf16"}}, "run.precision"),
        ({"phases": [{"name": "one", "epochs": 1}]}, {}, "phases"),
    ],
)
def test_why_a_point_trains_by_itself(
    model: CompiledModel, tune: dict[str, Any], sections: dict[str, Any], reason: str
) -> None:
    one = recipe(tune, **sections)
    fusion = planned(model, one, one)
    assert not fusion.groups
    assert reason in fusion.alone[0]


def test_what_is_no_chain_of_known_layers_trains_by_itself() -> None:
    deeper = compile_recipe(
        make_recipe(base={"model": "digits_net", "size": 8}, freeze="bn1"), TinyNet(), num_classes=2
    )
    fusion = planned(deeper, recipe(), recipe())
    assert "a layer BatchNorm2d" in fusion.alone[0]


@pytest.mark.parametrize("more", [{"activation": "mish"}, {"activation": "relu", "dropout": 0.2}])
def test_an_added_layer_with_what_follows_it_trains_as_one(more: dict[str, Any]) -> None:
    """Its vertices are `mlp.linear` and `mlp.activation`; its module is `mlp`."""
    mlp = {"layer": "linear", "out": 8, "inputs": "flatten", "feeds": "fc", **more}
    recipes = [recipe({"optimizer": {**SGD, "lr": lr}}, add={"mlp": mlp}) for lr in (0.1, 0.2)]
    models = [compile_recipe(one, num_classes=10) for one in recipes]
    assert plan_fusion(recipes, models) == Fusion(((0, 1),), {})


def test_convolution_heads_train_as_one() -> None:
    """Squeezenet's classifier: dropout, a convolution of 1 x 1, pooling over all places."""
    rates = [recipe({"optimizer": {**SGD, "lr": lr}}) for lr in (0.1, 0.2)]
    head = compile_recipe(
        make_recipe(base={"model": "squeezenet1_0"}, freeze="features"), squeezenet1_0(),
        num_classes=2,
    )  # fmt: skip
    assert planned(head, *rates).groups == ((0, 1),)
    deeper = compile_recipe(
        make_recipe(base={"model": "squeezenet1_0"}, freeze="features.11"), squeezenet1_0(),
        num_classes=2,
    )  # fmt: skip
    assert "is no chain" in planned(deeper, *rates).alone[0]


def test_the_plan_says_who_trains_with_whom(model: CompiledModel) -> None:
    rates = [recipe({"optimizer": {**SGD, "lr": lr}}) for lr in (0.1, 0.2, 0.3)]
    fusion = planned(model, *rates[:2], recipe({"clip": 1.0}), rates[2], recipe({"seed": 7}))
    assert fusion.groups == ((0, 1, 3),)
    assert list(fusion.lines()) == [
        "points 1, 2, 4 train as one: they differ in numbers alone",
        "point 3 one by one: fine_tune.clip is of one model",
        f"point 5 one by one: {NO_OTHER}",
    ]
