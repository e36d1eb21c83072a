"""DL4J's tests of saved models, saved settings and its zoo. Case ids: docs/dl4j.md."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from graph.tiny import recipe, recipe_of
from tiny import TinyNet, make_pictures, make_recipe
from torch import nn

from parity.dl4j import chain, compiled, fit, labelled, moved, tensors, unequal
from parity.plain import plain_model
from tlcompile.bundle import load_bundle
from tlcompile.compiler import compile_recipe, prove_recipe
from tlcompile.errors.run import NothingTrainsError
from tlcompile.recipe.load import recipe_from, spell_out
from tlcompile.recipe.scalars import to_yaml
from tlcompile.recipe.yaml_reader import read_recipe_text
from tlcompile.run.folder import recipe_digest, resolved
from tlcompile.run.refuse import refuse_untrainable
from tlcompile.run.train import train_recipe

DROPPING = """
head: keep
freeze: layer1
add: {drop: {layer: dropout, p: 0.5, inputs: act1, feeds: layer2}}
"""


def test_f1_a_frozen_chain_with_dropout_is_saved_and_loaded() -> None:
    """A pickle keeps the freeze; a state dict has the base's names, whatever is frozen."""
    base = chain(4, 5, 2, 3, 3)
    model = compiled(DROPPING, base)
    fit(model, labelled(10, 4, steps=2))
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    again = torch.load(file, weights_only=False)
    assert again.frozen == model.frozen
    x = torch.randn(3, 4)
    assert torch.equal(again.eval()(x), model.eval()(x))
    before = tensors(again)
    fit(again, labelled(10, 4, steps=2))
    assert moved(again, before) == {"layer2", "layer3"}
    base.load_state_dict(model.state_dict())
    assert torch.equal(base(x), model(x))


def test_f2_a_frozen_run_is_saved_and_loaded(tmp_path: Path) -> None:
    pictures = make_pictures(tmp_path / "pictures", side=16)
    asked = make_recipe(
        base={"model": "digits_net", "size": 16},
        freeze="bn1",
        data={"folder": str(pictures)},
        fine_tune={"epochs": 1, "batch_size": 4},
    )
    trained = train_recipe(asked, tmp_path / "run", base=TinyNet()).model
    loaded = load_bundle(tmp_path / "run", base=TinyNet()).model
    assert loaded.frozen == trained.frozen
    assert [n for n, _ in loaded.trainable()] == [n for n, _ in trained.trainable()]
    assert not unequal(loaded, trained)
    x = torch.randn(3, 3, 16, 16)
    assert torch.equal(loaded.eval()(x), trained.eval()(x))
    assert loaded.train()(x).shape == (3, 2)
    assert not loaded.get_submodule("bn1").training


def test_f3_settings_survive_a_round_trip_through_text() -> None:
    text = """
base: {model: own}
freeze: {only: [layer1]}
add: {a: {layer: linear, out: 3, inputs: layer1}, '3.10': {layer: dropout, inputs: a}}
outputs: ['3.10']
fine_tune:
  activation: elu
  optimizer: {name: rmsprop, lr: 1e-2, momentum: 0.5}
  schedule: {name: step, every: 2}
"""
    first = recipe_of(text)
    written = to_yaml(resolved(first))  # as a run's folder holds it
    second = recipe_from(spell_out(read_recipe_text(written, "again.yaml")), (), "tiny")
    assert second.fine_tune == first.fine_tune
    assert second.model_dump() == first.model_dump()
    assert to_yaml(resolved(second)) == written
    assert recipe_digest(second) == recipe_digest(first)


# Section G: the zoo. Darknet19, TinyYOLO, YOLO2 and Xception are no models of torchvision.


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "vgg19", "squeezenet1_0"])
def test_g2_a_zoo_model_ends_in_a_thousand_classes(name: str) -> None:
    model = prove_recipe(
        recipe(base={"model": name, "weights": "none"}, head="keep", freeze="none")
    )
    assert model.summary.vertices[-1].shape == "(N, 1000)"


def test_g2_the_last_layer_of_resnet50_is_replaced_and_fitted() -> None:
    base = plain_model("resnet50")
    text = "base: {model: own, size: 32}\nfreeze: none\n"
    text += "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes, inputs: flatten}}\n"
    model = compile_recipe(recipe_of(text), base=base, num_classes=10)
    base.fc = nn.Linear(2048, 10)
    base.load_state_dict(model.state_dict())
    batches = labelled(2, 3, 32, 32, classes=10)
    assert fit(model, batches) == fit(base, batches)
    assert not unequal(model, base)


def test_g3_a_trainable_part_without_parameters_computes_and_is_not_trained() -> None:
    asked = recipe_of("base: {model: own, size: 16}\nhead: keep\nfreeze: conv2\n")
    base = nn.Sequential()
    base.add_module("conv1", nn.Conv2d(3, 4, 3))
    base.add_module("conv2", nn.Conv2d(4, 2, 1))
    base.add_module("pool", nn.AdaptiveAvgPool2d(1))
    base.add_module("flat", nn.Flatten())
    model = compile_recipe(asked, base=base)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(model.suffix(*model.prefix(x)), base(x))
    with pytest.raises(NothingTrainsError, match="freeze"):
        refuse_untrainable(asked, model, 2)
