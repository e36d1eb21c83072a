"""fine_tune.phases: each phase is a recipe of its own; what it does not say comes from above."""

from __future__ import annotations

from typing import Any

import pytest
from graph.tiny import Residual, recipe_of

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.fine_tune import EarlyStop
from tlcompile.recipe.phases import UNTIL_EPOCHS
from tlcompile.run.refuse import refuse_untrainable
from tlcompile.run.refuse_rates import refuse_unfit_rates, refuse_without_validation

TEXT = """\
base: {model: own, size: 16}
freeze: layer1
fine_tune:
  optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
  schedule: constant
  phases:
    - {name: head, epochs: 3}
    - {name: all, freeze: none, lr: 1.0e-4, schedule: {name: cosine}, until: {plateau: 2}}
    - {name: last, freeze: {upto: head}, optimizer: {name: adamw}, epochs: 2}
"""


def test_a_phase_inherits_what_it_does_not_say() -> None:
    head, everything, last = recipe_of(TEXT).phases()
    assert [p.freeze.upto for p in (head, everything, last)] == [("layer1",), ("none",), ("head",)]
    assert [p.fine_tune.epochs for p in (head, everything, last)] == [3, UNTIL_EPOCHS, 2]
    tuned = everything.fine_tune
    assert (tuned.optimizer.name, tuned.optimizer.lr) == ("sgd", 1e-4)
    assert tuned.optimizer.momentum == 0.9  # type: ignore[union-attr]
    assert tuned.schedule.name == "cosine"
    assert (last.fine_tune.optimizer.name, last.fine_tune.optimizer.lr) == ("adamw", None)
    assert last.fine_tune.schedule.name == "constant"
    assert all(phase.fine_tune.phases is None for phase in (head, everything, last))


def test_what_ends_a_phase_is_the_early_stop_of_its_recipe() -> None:
    text = TEXT.replace("{plateau: 2}", "{plateau: 2, min_delta: 0.01}, epochs: 7")
    head, everything, last = recipe_of(text).phases()
    assert everything.fine_tune.early_stop == EarlyStop(patience=2, min_delta=0.01)
    assert everything.fine_tune.epochs == 7
    assert (head.fine_tune.early_stop, last.fine_tune.early_stop) == (None, None)


OWN: dict[str, tuple[str, Any]] = {
    "layer_decay": ("0.5", 0.5),
    "batch_size": ("7", 7),
    "groups": ("{stem: {lr: 0.5}}", {"stem": 0.5}),
}


@pytest.mark.parametrize("key", OWN)
def test_a_phase_may_say_it_itself(key: str) -> None:
    written, wanted = OWN[key]
    text = TEXT.replace("  schedule: constant\n", "  batch_size: 9\n  groups: {fc: {lr: 0.25}}\n")
    head, everything, _ = recipe_of(text.replace("lr: 1.0e-4", f"{key}: {written}")).phases()

    def said(recipe: Any) -> Any:
        value = getattr(recipe.fine_tune, key)
        return {n: g.lr for n, g in value.items()} if key == "groups" else value

    assert said(everything) == wanted
    assert said(head) == {"layer_decay": 1.0, "batch_size": 9, "groups": {"fc": 0.25}}[key]


def test_a_rate_under_optimizer_is_the_rate_of_the_phase() -> None:
    short = TEXT.replace("lr: 1.0e-4", "optimizer: {lr: 1.0e-4}")
    ours, theirs = ([p.fine_tune for p in recipe_of(text).phases()] for text in (short, TEXT))
    assert ours == theirs


def test_a_recipe_without_phases_is_its_only_phase() -> None:
    recipe = recipe_of("base: m\n")
    assert recipe.phases() == (recipe,)


def test_a_model_starts_in_its_first_phase() -> None:
    model = compile_recipe(recipe_of(TEXT), base=Residual(), num_classes=3)
    assert "layer1.1.conv2.weight" in model.frozen.tensors
    assert "down.weight" not in model.frozen.tensors


def compile_phases(text: str) -> None:
    recipe = recipe_of(text)
    models = [compile_recipe(p, base=Residual(), num_classes=10) for p in recipe.phases()]
    for phase, model in zip(recipe.phases(), models, strict=True):
        refuse_untrainable(phase, model, 10)
    refuse_unfit_rates(recipe, models)


def test_the_text_of_these_tests_is_not_refused() -> None:
    compile_phases(TEXT)


PHASES = TEXT[TEXT.index("  phases:") :]


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        # What the issue lists
        (PHASES, "  phases: []\n", "6:11", "phases is an empty list"),
        ("name: last", "name: head", "9:14", "two phases have one name: head"),
        (", epochs: 2}", "}", "9:7", "phase last says neither epochs nor until"),
        ("epochs: 3", "epochs: 0", "7:28", "at least 1"),
        ("freeze: {upto: head}", "freeze: all", "10:28", "nothing trains"),
        ("freeze: none", "freeze: layr1", "8:27", "did you mean 'layer1'?"),
        ("freeze: none", "freeze: {upto: [stem, steam]}", "8:41", "did you mean 'stem'?"),
        ("freeze: {upto: head}", "freeze: fc", "9:28", "'fc' is replaced by this recipe"),
        ("lr: 1.0e-4", "lr: 0", "8:37", "above 0"),
        ("lr: 1.0e-4", "lr: -1", "8:37", "above 0"),
        ("epochs: 3", "epochs: 3, groups: {stem: {lr: 1}}", "7:46", "frozen in phase 'head'"),
        ("schedule: constant", "epochs: 5", "5:11", "give each phase its epochs"),
        # And what else could be meant
        ("schedule: constant", "early_stop: 5", "5:15", "write until: {plateau: 5}"),
        ("optimizer: {name: adamw}", "optimizer: {name: adamw, lr: 1}, lr: 2", "9:7", "drop one"),
        ("until: {plateau: 2}", "until: {plato: 2}", "8:", "plateau"),
        ("until: {plateau: 2}", "until: {plateau: 0}", "8:88", "at least 1"),
        ("epochs: 3", "epoch: 3", "7:", "epochs"),
        ("lr: 1.0e-4", "layer_decay: 0", "8:46", "above 0"),
        ("lr: 1.0e-4", "groups: {stem: {}}", "8:48", "a group is empty"),
        ("lr: 1.0e-4", "groups: {steam: {lr: 1}}", "8:49", "did you mean 'stem'?"),
        ("epochs: 2", "epochs: 2, layer_decay: 0.5", "9:92", "has no effect"),
    ],
)
def test_a_wrong_phase_is_refused_at_its_place(old: str, new: str, place: str, words: str) -> None:
    text = (
        TEXT.replace("freeze: layer1", "head: keep\nfreeze: layer1")
        if new == "freeze: all"
        else TEXT
    )
    assert old in text
    with pytest.raises(TLCompileError) as caught:
        compile_phases(text.replace(old, new, 1))
    assert f"tiny.yaml:{place}" in str(caught.value)
    assert words in " ".join(str(caught.value).split())


WAITING = TEXT.replace("schedule: {name: cosine}", "schedule: {name: plateau}")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        (TEXT, "8:78", "until of phase 'all' waits for val/accuracy"),
        (TEXT.replace("schedule: constant", "schedule: plateau"), "5:13", "schedule of phase"),
        (
            TEXT.replace(", until: {plateau: 2}", ", epochs: 3").replace("cosine", "plateau"),
            "8:55",
            "schedule of phase 'all' waits for val/accuracy",
        ),
    ],
)
def test_waiting_for_validation_is_refused_where_there_is_none(
    text: str, place: str, words: str
) -> None:
    with pytest.raises(TLCompileError) as caught:
        refuse_without_validation(recipe_of(text), "val/accuracy")
    assert f"tiny.yaml:{place}" in str(caught.value)
    assert words in " ".join(str(caught.value).split())
    assert "fine_tune.monitor=train/accuracy" in str(caught.value)


def test_waiting_for_training_needs_no_validation() -> None:
    refuse_without_validation(recipe_of(WAITING), "train/loss")
