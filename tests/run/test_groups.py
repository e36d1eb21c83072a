"""Groups: each trainable tensor in exactly one, at the rate that the recipe says."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from graph.tiny import SIDE, TINY, Residual, recipe
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.groups import Stages, groups_of
from tlcompile.training.groups import Group
from tlcompile.training.optim import Optimizers

SGD = {"name": "sgd", "lr": 0.5}
MODELS = ("digits_net", "resnet18", "squeezenet1_0", "vit_b_16")
ALL_FAMILIES = (*MODELS, "vgg11", "densenet121", "mobilenet_v3_small", "swin_t", "convnext_tiny")


def compiled(base: nn.Module | None = None, **sections: Any) -> tuple[Recipe, CompiledModel]:
    made = recipe(**sections)
    return made, compile_recipe(made, base=base or Residual(), num_classes=3)


def groups(base: nn.Module | None = None, **sections: Any) -> dict[str, Group]:
    found = groups_of(*compiled(base, **sections))
    assert len({group.name for group in found}) == len(found)
    return {group.name: group for group in found}


def rates(base: nn.Module | None = None, **sections: Any) -> dict[str, float]:
    """Return the rate of each parameter."""
    found = groups(base, **sections)
    return {name: group.lr for group in found.values() for name in group.parameters}


def refuse_no_partition(made: Recipe, model: CompiledModel) -> None:
    """Every trainable tensor is in one group, by identity; no other is in any."""
    found = groups_of(made, model)
    named = dict(model.named_parameters(remove_duplicate=False))
    held = [id(named[name]) for group in found for name in group.parameters]
    wanted = {id(p) for p in model.parameters() if p.requires_grad}
    assert len(held) == len(set(held))
    assert set(held) == wanted
    assert len({group.name for group in found}) == len(found)


EVERYTHING = {
    "optimizer": {"name": "muon", "lr": 0.5},
    "layer_decay": 0.7,
    "no_decay": ["bias", "norm", "embedding"],
    "bias_lr_factor": 2.0,
}


def of_the_zoo(name: str, freeze: str, **tune: Any) -> tuple[Recipe, CompiledModel]:
    made = Recipe.model_validate(
        {"base": {"model": name}, "freeze": {"upto": [freeze]}, "fine_tune": tune}
    )
    return made, prove_recipe(made, num_classes=3)


@functools.cache
def everything(name: str) -> tuple[Recipe, CompiledModel]:
    return of_the_zoo(name, "none", **EVERYTHING)


@pytest.mark.parametrize("name", MODELS)
def test_groups_are_a_partition_of_what_trains(name: str) -> None:
    refuse_no_partition(*everything(name))


@pytest.mark.slow
@pytest.mark.parametrize("tune", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("freeze", ["none", "stage2", "head"])
@pytest.mark.parametrize("name", ALL_FAMILIES)
def test_groups_are_a_partition_at_every_freeze_point(
    name: str, freeze: str, tune: dict[str, Any]
) -> None:
    refuse_no_partition(*of_the_zoo(name, freeze, **tune))


class Tied(nn.Module):
    """Two layers with one weight, a parameter of its own, and a layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, stride=4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.scale = nn.Parameter(torch.ones(4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3))
        x = self.second(self.first(self.first(x))) * self.scale
        return self.fc(x)


@pytest.mark.parametrize("tune", [{}, EVERYTHING], ids=["plain", "everything"])
@pytest.mark.parametrize("base", [*TINY.values(), Tied])
def test_groups_of_odd_modules_are_a_partition(
    base: Callable[[], nn.Module], tune: dict[str, Any]
) -> None:
    made, model = compiled(base(), freeze="none", fine_tune=tune)
    refuse_no_partition(made, model)


def test_nothing_that_is_frozen_is_in_a_group() -> None:
    made, model = compiled(freeze="layer1")
    (group,) = groups_of(made, model)
    assert group.parameters == ("down.weight", "down.bias", "fc.weight", "fc.bias")
    assert (group.name, group.optimizer, group.lr) == ("all", "adamw", 1e-4)


def test_a_recipe_that_says_nothing_of_rates_has_the_defaults() -> None:
    assert set(rates(freeze="head").values()) == {1e-3}
    assert set(rates(freeze="none").values()) == {1e-4}
    assert set(rates(freeze="head", fine_tune={"optimizer": {"name": "adadelta"}}).values()) == {1}


ADDED = {
    "remove": {"fc": "replace"},
    "outputs": ["fc"],
}


def with_layer(**own: Any) -> dict[str, Any]:
    layer = {"layer": "linear", "out": 3, "inputs": ["flatten"], **own}
    return {**ADDED, "add": {"fc": layer}, "freeze": "none", "fine_tune": {"optimizer": SGD}}


@pytest.mark.parametrize("own", [{"lr": 0.25}, {"optimizer": {"lr": 0.25}}])
def test_an_added_layer_has_its_own_rate(own: dict[str, Any]) -> None:
    found = rates(**with_layer(**own))
    assert found["fc.weight"] == found["fc.bias"] == 0.25
    assert {rate for name, rate in found.items() if not name.startswith("fc")} == {0.5}


def test_an_added_layer_has_its_own_optimizer() -> None:
    found = groups(**with_layer(optimizer={"name": "adam", "betas": [0.5, 0.5]}))
    assert (found["fc"].optimizer, found["fc"].lr) == ("adam", 0.5)
    assert found["fc"].options["betas"] == (0.5, 0.5)
    assert found["all"].optimizer == "sgd"


def test_an_added_layer_has_its_own_weight_decay() -> None:
    found = groups(**with_layer(weight_decay=0.125))
    assert found["fc"].options["weight_decay"] == 0.125
    assert found["all"].options["weight_decay"] == 0


def test_an_added_layer_s_norm_is_of_its_region() -> None:
    made = with_layer(lr=0.25, norm="batch", activation="relu")
    made["add"]["last"] = {"layer": "linear", "out": 3, "inputs": ["fc"]}
    found = rates(**{**made, "remove": {"fc": "replace"}, "outputs": ["last"]})
    assert {name for name, rate in found.items() if rate == 0.25} > {"fc.weight", "fc.bias"}
    assert sum(rate == 0.25 for rate in found.values()) == 4


def test_a_group_is_named_by_a_vertex_or_a_region() -> None:
    tune = {"optimizer": SGD, "groups": {"layer1": {"lr": 0.125}, "stem": {"lr": 0.25}}}
    found = rates(freeze="none", fine_tune=tune)
    assert {n.split(".")[0]: rate for n, rate in found.items()} == {
        "stem": 0.25, "layer1": 0.125, "down": 0.5, "fc": 0.5,
    }  # fmt: skip


def test_of_nested_names_the_innermost_wins_setting_by_setting() -> None:
    inner, outer = {"weight_decay": 0.25}, {"lr": 0.125, "weight_decay": 0.5}
    tune = {"optimizer": SGD, "groups": {"layer1.1": inner, "layer1": outer}}
    found = groups(freeze="none", fine_tune=tune)
    assert (found["layer1"].lr, found["layer1"].options["weight_decay"]) == (0.125, 0.5)
    assert (found["layer1.1"].lr, found["layer1.1"].options["weight_decay"]) == (0.125, 0.25)
    assert all(name.startswith("layer1.1.") for name in found["layer1.1"].parameters)


def test_a_group_s_optimizer_is_whole() -> None:
    inner = {"optimizer": {"name": "adamw"}}
    tune = {"optimizer": SGD, "groups": {"layer1.1": inner, "layer1": {"weight_decay": 0.5}}}
    found = groups(freeze="none", fine_tune=tune)
    assert found["layer1.1"].options["weight_decay"] == 0.01
    assert found["layer1"].options["weight_decay"] == 0.5


def test_an_added_layer_wins_over_a_group_and_a_group_over_fine_tune() -> None:
    made = with_layer(lr=0.25)
    made["fine_tune"]["groups"] = {"fc": {"lr": 0.125, "weight_decay": 0.5}, "stem": {"lr": 0.0625}}
    found = rates(**made)
    assert (found["fc.weight"], found["stem.weight"], found["down.weight"]) == (0.25, 0.0625, 0.5)
    assert groups(**made)["fc"].options["weight_decay"] == 0.5


def test_the_rate_of_a_phase_wins_over_that_of_fine_tune() -> None:
    made = recipe(
        freeze="none",
        fine_tune={
            "optimizer": SGD,
            "groups": {"stem": {"lr": 0.0625}},
            "phases": [{"name": "a", "epochs": 1}, {"name": "b", "epochs": 1, "lr": 0.125}],
        },
    )
    found = []
    for phase in made.phases():
        model = compile_recipe(phase, base=Residual(), num_classes=3)
        found.append(
            {name: group.lr for group in groups_of(phase, model) for name in group.parameters}
        )
    assert [(one["stem.weight"], one["fc.weight"]) for one in found] == [
        (0.0625, 0.5),
        (0.0625, 0.125),
    ]


def resnet18(**tune: Any) -> tuple[Recipe, CompiledModel]:
    return of_the_zoo("resnet18", "none", optimizer=SGD, **tune)


def test_layer_decay_counts_the_stages_from_the_classifier() -> None:
    found = {}
    for group in groups_of(*resnet18(layer_decay=0.5)):
        found |= {name.split(".")[0]: group.lr for name in group.parameters}
    assert found == {
        "conv1": 0.5**5, "bn1": 0.5**5, "layer1": 0.5**5,
        "layer2": 0.5**4, "layer3": 0.5**3, "layer4": 0.5**2, "fc": 0.5,
    }  # fmt: skip


def test_layer_decay_leaves_layers_with_an_lr_of_their_own() -> None:
    tune = {"layer_decay": 0.5, "groups": {"layer2": {"lr": 0.25}, "layer3": {"weight_decay": 0.1}}}
    found = {group.name: group.lr for group in groups_of(*resnet18(**tune))}
    assert (found["layer2"], found["layer3 stage3"], found["stage4"]) == (0.25, 0.125, 0.25)


def test_a_group_is_named_by_a_stage() -> None:
    found = {g.name: g for g in groups_of(*resnet18(groups={"stage1": {"lr": 0.125}}))}
    assert {name.split(".")[0] for name in found["stage1"].parameters} == {"conv1", "bn1", "layer1"}
    assert found["stage1"].lr == 0.125


def test_layer_decay_knows_the_stage_of_an_added_layer_with_an_activation() -> None:
    """Its vertices are `fc2.linear` and `fc2.activation`, its weights `fc2.weight` and `fc2.bias`."""
    made = Recipe.model_validate(
        {"base": {"model": "resnet18", "size": 64, "weights": "none"}, "freeze": {"upto": ["none"]},
         "add": {"fc2": {"layer": "linear", "out": 5, "activation": "relu", "inputs": ["flatten"],
                         "feeds": "fc"}},
         "fine_tune": {"optimizer": SGD, "layer_decay": 0.5}}
    )  # fmt: skip
    found = groups_of(made, prove_recipe(made, num_classes=3))
    rate = {name: group.lr for group in found for name in group.parameters}
    assert rate["fc2.weight"] == rate["fc2.bias"] == rate["fc.weight"] == 0.5
    assert rate["layer4.1.conv1.weight"] == 0.25


def test_a_stage_that_loses_its_end_ends_earlier() -> None:
    made = Recipe.model_validate(
        {"base": {"model": "resnet18", "size": 64, "weights": "none"}, "freeze": {"upto": ["none"]},
         "remove": {"layer4.1": "bypass"}, "fine_tune": {"optimizer": SGD, "layer_decay": 0.5}}
    )  # fmt: skip
    model = prove_recipe(made, num_classes=3)
    stages = Stages(model)
    assert stages.of("layer4.0.conv1.weight") == ("stage4", 1)
    assert stages.of("fc.weight") == ("head", 0)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_lies_in_the_stage_of_its_vertex(name: str) -> None:
    _, model = everything(name)
    stages = Stages(model)
    names = [name for name, _ in model.trainable()]
    assert all(stages.of(name) for name in names)
    depths = [stages.of(name)[1] for name in names]
    assert depths[0] == max(depths) == len(stages.ends) >= 2
    assert depths[-1] == 0


def decays(*kinds: str, base: nn.Module | None = None) -> set[str]:
    """Return what keeps its weight decay."""
    tune = {"optimizer": {"name": "adamw", "weight_decay": 0.5}, "no_decay": list(kinds)}
    found = groups(base, freeze="none", fine_tune=tune)
    return {n for g in found.values() if g.options["weight_decay"] for n in g.parameters}


def test_no_decay_takes_biases_and_norms() -> None:
    every = decays()
    assert every - decays("bias") == {name for name in every if name.endswith("bias")}
    assert every - decays("norm") == {name for name in every if ".bn" in name}
    assert decays("bias", "norm") == {n for n in every if "bn" not in n and n.endswith("weight")}


class WithTable(nn.Module):
    """A table of tokens, a position for each, a class token."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.pos_embedding = nn.Parameter(torch.zeros(1, 3, 4))
        self.class_token = nn.Parameter(torch.zeros(1, 3, 4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.table(x) + self.pos_embedding + self.class_token
        return self.fc(x.mean(1))


def test_no_decay_takes_embeddings() -> None:
    made = recipe(
        freeze="none",
        inputs={"x": {"shape": [3], "dtype": "int64"}},
        fine_tune={"optimizer": {"name": "adamw"}, "no_decay": ["embedding"]},
    )
    model = compile_recipe(made, base=WithTable(), num_classes=3)
    free = {g.name: set(g.parameters) for g in groups_of(made, model)}["no decay"]
    assert free == {"table.weight", "pos_embedding", "class_token"}


def test_biases_have_their_factor() -> None:
    found = rates(freeze="none", fine_tune={"optimizer": SGD, "bias_lr_factor": 2.0})
    assert {rate for name, rate in found.items() if name.endswith("bias")} == {1.0}
    assert {rate for name, rate in found.items() if name.endswith("weight")} == {0.5}


def test_muon_moves_matrices_and_adamw_the_rest() -> None:
    tune = {"optimizer": {"name": "muon", "lr": 0.5, "others_lr": 0.125}}
    found = groups(freeze="none", fine_tune=tune)
    assert (found["all"].optimizer, found["all"].parameters) == ("muon", ("fc.weight",))
    assert (found["adamw"].optimizer, found["adamw"].lr) == ("adamw", 0.125)
    same = groups(freeze="none", fine_tune={"optimizer": {"name": "muon", "lr": 0.5}})
    assert same["adamw"].lr == 0.5


def test_groups_are_a_pure_function_of_recipe_and_model() -> None:
    made, model = compiled(freeze="none", fine_tune=EVERYTHING | {"layer_decay": 1.0})
    first = groups_of(made, model)
    model.train()
    assert groups_of(made, model) == first


def test_a_group_trains_at_its_rate() -> None:
    tune = {"optimizer": SGD, "groups": {"stem": {"lr": 0.125}}}
    made, model = compiled(freeze="none", fine_tune=tune)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizers = Optimizers(groups_of(made, model), dict(model.trainable()))
    model(torch.randn(2, 3, SIDE, SIDE)).square().sum().backward()
    optimizers.step()
    for name, parameter in model.named_parameters():
        rate = 0.125 if name.startswith("stem") else 0.5
        assert parameter.grad is not None
        assert torch.equal(parameter, before[name].add(parameter.grad, alpha=-rate))
