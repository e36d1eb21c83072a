"""fine_tune.phases: each phase is a recipe of its own; what it does not say comes from above."""

from __future__ import annotations

import pytest
from graph.tiny import Residual, recipe_of

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError

TEXT = """\
base: {model: own, size: 16}
freeze: layer1
fine_tune:
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  schedule: constant
  phases:
    - {name: head, epochs: 3}
    - {name: all, freeze: none, lr: 1.0e-4, schedule: {name: cosine}, until: {plateau: 2}}
    - {name: last, freeze: {upto: head}, optimizer: {name: adamw}}
"""


def test_a_phase_inherits_what_it_does_not_say() -> None:
    head, everything, last = recipe_of(TEXT).phases()
    assert [p.freeze.upto for p in (head, everything, last)] == [("layer1",), ("none",), ("head",)]
    assert [p.fine_tune.epochs for p in (head, everything, last)] == [3, 10, 10]
    tuned = everything.fine_tune
    assert (tuned.optimizer.name, tuned.optimizer.lr) == ("sgd", 1e-4)
    assert tuned.optimizer.momentum == 0.9  # type: ignore[union-attr]
    assert tuned.schedule.name == "cosine"
    assert (last.fine_tune.optimizer.name, last.fine_tune.optimizer.lr) == ("adamw", None)
    assert last.fine_tune.schedule.name == "constant"
    assert all(phase.fine_tune.phases is None for phase in (head, everything, last))


def test_a_recipe_without_phases_is_its_only_phase() -> None:
    recipe = recipe_of("base: m\n")
    assert recipe.phases() == (recipe,)


def test_a_model_starts_in_its_first_phase() -> None:
    model = compile_recipe(recipe_of(TEXT), base=Residual(), num_classes=3)
    assert "layer1.1.conv2.weight" in model.frozen.tensors
    assert "down.weight" not in model.frozen.tensors


def compile_phases(text: str) -> None:
    for phase in recipe_of(text).phases():
        compile_recipe(phase, base=Residual(), num_classes=3)


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("freeze: none", "freeze: layr1", "8:27", "did you mean 'layer1'?"),
        ("freeze: none", "freeze: {upto: [stem, steam]}", "8:41", "did you mean 'stem'?"),
        ("name: last", "name: head", "4:3", "two phases have one name"),
        ("optimizer: {name: adamw}", "optimizer: {name: adamw, lr: 1}, lr: 2", "9:7", "drop one"),
        ("schedule: constant", "epochs: 5", "4:3", "give each phase its epochs"),
        ("until: {plateau: 2}", "until: {plato: 2}", "8:", "plateau"),
        ("epochs: 3", "epoch: 3", "7:", "epochs"),
    ],
)
def test_a_wrong_phase_is_refused_at_its_place(old: str, new: str, place: str, words: str) -> None:
    assert old in TEXT
    with pytest.raises(TLCompileError) as caught:
        compile_phases(TEXT.replace(old, new))
    assert f"tiny.yaml:{place}" in str(caught.value)
    assert words in str(caught.value)
