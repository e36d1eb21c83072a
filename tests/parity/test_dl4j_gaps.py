"""What DL4J never tests, as far as it concerns the compiler. Gap by gap: docs/dl4j.md."""

from __future__ import annotations

import copy

import pytest
import torch
from graph.tiny import TINY, Residual, recipe_of, shake
from torch import nn

from parity.dl4j import compiled, fit, labelled, moved, sgd, tensors, unequal
from parity.plain import differences
from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel

IMAGE = (3, 16, 16)


def tiny(name: str, text: str) -> tuple[nn.Module, CompiledModel]:
    """Return a tiny base, and the recipe over it; its classifier is kept."""
    base = shake(TINY[name]())
    recipe = recipe_of(f"base: {{model: own, size: 16}}\nhead: keep\n{text}")
    return base, compile_recipe(recipe, base=base)


def still(model: nn.Module, *names: str) -> nn.Module:
    """Freeze parts of a plain model by hand: no gradients, and eval mode whatever is asked for."""
    for name in names:
        part = model.get_submodule(name)
        part.requires_grad_(False)
        part.train = lambda mode=True, part=part: nn.Module.train(part, False)  # type: ignore[method-assign,misc]
    return model


@pytest.mark.parametrize(
    ("freeze", "parts"),
    [
        ("{upto: [left, right]}", ["stem", "left", "right"]),
        ("{upto: left}", ["stem", "left"]),
        ("{upto: cat}", ["stem", "left", "right"]),  # a merge takes all that enters it
        ("{upto: {match: '*t'}}", ["stem", "left", "right"]),
        ("{only: [left, right]}", ["left", "right"]),
        ("{only: {match: '*ght'}}", ["right"]),
        ("{upto: left, only: classifier.1}", ["stem", "left", "classifier.1"]),
    ],
)
def test_several_names_freeze_what_they_read(freeze: str, parts: list[str]) -> None:
    base, model = tiny("branches", f"freeze: {freeze}\n")
    still(base, *parts)
    before = tensors(model)
    batches = labelled(4, *IMAGE, classes=10, steps=3)
    optimizer = sgd(model, weight_decay=0.1)
    assert fit(model, batches, optimizer=optimizer) == fit(
        base, batches, optimizer=sgd(base, weight_decay=0.1)
    )
    assert not unequal(model, base)
    everything = {name.rpartition(".")[0] for name in before}
    after = model.state_dict()
    same = {n.rpartition(".")[0] for n in before if torch.equal(after[n], before[n])}
    assert same == set(parts) < everything


def test_freezing_through_a_residual_sum_takes_both_ways() -> None:
    base, model = tiny("residual", "freeze: layer1.0.add\n")
    assert {n.rpartition(".")[0] for n in model.frozen.tensors} == {
        "stem", "layer1.0.conv1", "layer1.0.bn1", "layer1.0.conv2", "layer1.0.bn2"
    }  # fmt: skip
    still(base, "stem", "layer1.0")
    batches = labelled(4, *IMAGE, classes=10, steps=3)
    assert fit(model, batches) == fit(base, batches)
    assert not unequal(model, base)


def test_statistics_of_frozen_layers_stand_still_and_are_used() -> None:
    base, model = tiny("residual", "freeze: layer1.0\n")
    before = {n: t.clone() for n, t in model.named_buffers()}
    x = 5 + torch.randn(4, *IMAGE)
    expected = base.eval().layer1[0](base.stem(x))
    assert torch.equal(model.train().prefix(x)[0], expected)
    model(x)
    after = dict(model.named_buffers())
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert len(before) == 12
    assert changed == {name for name in before if name.startswith("layer1.1.")}


def test_dropout_in_frozen_layers_is_off() -> None:
    base, model = tiny("chain", "freeze: drop\n")
    x = torch.randn(4, *IMAGE)
    hidden = torch.flatten(base.pool(base.relu(base.eval().bn(base.conv(x)))), 1)
    assert torch.equal(model.train().prefix(x)[0], hidden)
    assert torch.equal(model(x), base.fc(hidden))
    _, learning = tiny("chain", "freeze: flatten\n")
    assert not torch.equal(learning.train()(x), base.fc(hidden))  # there it is on


def test_unfreezing_changes_what_learns_and_nothing_else() -> None:
    base = Residual()
    first, second = (
        compile_recipe(
            recipe_of(f"base: {{model: own, size: 16}}\nhead: keep\nfreeze: {point}\n"), base=base
        )
        for point in ("layer1", "stem")
    )
    assert list(first.state_dict()) == list(second.state_dict())
    fit(first, labelled(4, *IMAGE, classes=10, steps=2))
    second.load_state_dict(first.state_dict())
    x = torch.randn(2, *IMAGE)
    assert torch.equal(second.eval()(x), first.eval()(x))
    before = tensors(second)
    fit(second, labelled(4, *IMAGE, classes=10, steps=2))
    assert moved(second, before) == {"layer1", "down", "fc"}


def test_features_computed_once_serve_several_epochs_in_any_order() -> None:
    """Batches of one size: features depend on the batch's size in the last bits."""
    _, model = tiny("residual", "freeze: layer1.0\n")
    on_features = copy.deepcopy(model)
    batches = labelled(4, *IMAGE, classes=10, steps=4)
    features = [(on_features.prefix(*x), y) for x, y in batches]
    order = [0, 1, 2, 3, 2, 0, 3, 1, 3, 1, 0, 2]
    scores = fit(model, [batches[i] for i in order])
    assert fit(on_features, [features[i] for i in order], forward=on_features.suffix) == scores
    assert not unequal(on_features, model)


def test_momentum_of_an_optimizer_never_moves_what_is_frozen() -> None:
    """An optimizer that trained a layer before goes on in a model where that layer is frozen."""
    base, model = tiny("residual", "freeze: none\n")
    optimizer = sgd(model, momentum=0.9, weight_decay=0.1)
    batches = labelled(4, *IMAGE, classes=10, steps=2)
    fit(model, batches, optimizer=optimizer)
    _, later = tiny("residual", "freeze: layer1\n")
    later.load_state_dict(model.state_dict())
    again = sgd(later, momentum=0.9, weight_decay=0.1)
    again.load_state_dict(optimizer.state_dict())
    before = tensors(later)
    fit(later, batches, optimizer=again)
    assert moved(later, before) == {"down", "fc"}
    assert not differences(tensors(base), tensors(tiny("residual", "freeze: none\n")[0]))


def test_the_same_recipe_gives_the_same_numbers() -> None:
    """On one machine; on CUDA: tests/e2e/test_gpu.py."""
    text = "freeze: conv\nremove: {fc: replace}\n"
    text += "add: {fc: {layer: linear, out: classes, inputs: drop}}\n"
    models = [
        compile_recipe(
            recipe_of(f"base: {{model: own, size: 16}}\n{text}"),
            base=shake(TINY["chain"]()),
            num_classes=5,
        )
        for _ in range(2)
    ]
    batches = labelled(4, *IMAGE, classes=5, steps=3)
    assert fit(models[0], batches) == fit(models[1], batches)
    assert not unequal(models[0], models[1])


def test_vertices_named_with_the_input_alone() -> None:
    """Freezing what computes nothing is refused, where DL4J would freeze nothing without a word."""
    with pytest.raises(Exception, match="computes nothing"):
        compiled("head: keep\nfreeze: input\n", nn.Sequential(nn.Linear(4, 3)))
