"""fine_tune's defaults for new layers: a default that no layer inherits is an error."""

from __future__ import annotations

import pytest
from graph.tiny import Chain, recipe_of

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.model.compiled import CompiledModel

BASE = "base: {model: tiny, size: 16}\nfreeze: conv\n"
NEW = "remove: {fc: replace}\nadd: {fc: {layer: linear, out: classes"


def compiled(text: str) -> CompiledModel:
    return compile_recipe(recipe_of(BASE + text), base=Chain(), num_classes=5)


# (text, where the error stands, what it is about)
UNUSED = {
    "activation on the classifier alone": (
        f"fine_tune: {{activation: relu}}\n{NEW}}}}}\n",
        "3:25",
        "fine_tune.activation",
    ),
    "dropout without a new layer": ("fine_tune: {dropout: 0.5}\n", "3:22", "fine_tune.dropout"),
    "init where each has its own": (
        f"fine_tune: {{init: zeros}}\n{NEW}, init: ones}}}}\n",
        "3:19",
        "fine_tune.init",
    ),
    "activation for an lstm": (
        (
            "fine_tune: {activation: relu}\nadd:\n"
            "  long: {layer: reshape, shape: [4, -1], inputs: flatten}\n"
            "  neck: {layer: lstm, hidden_size: 8, inputs: long}\n"
            "  flat: {layer: flatten, inputs: neck, feeds: drop}\n"
        ),
        "3:25",
        "fine_tune.activation",
    ),
}


@pytest.mark.parametrize("case", UNUSED)
def test_default_that_nothing_inherits_is_refused(case: str) -> None:
    text, place, line = UNUSED[case]
    with pytest.raises(NoEffectError) as caught:
        compiled(text)
    assert str(caught.value).startswith(f"tiny.yaml:{place}: {line} has no effect")
    assert f"drop {line}" in str(caught.value)


def test_all_unused_defaults_are_told_at_once() -> None:
    with pytest.raises(TLCompileError) as caught:
        compiled("fine_tune: {activation: relu, dropout: 0.5}\n")
    assert str(caught.value).count("has no effect") == 2


@pytest.mark.parametrize(
    "text",
    [
        "fine_tune: {init: ones}\n",  # head: auto takes it
        "fine_tune: {init: ones}\nhead: keep\nresize: {conv: {out: 5}}\nfreeze: none\n",
        f"fine_tune: {{init: ones}}\n{NEW}}}}}\n",
        "fine_tune: {dropout: 0}\n",  # a value equal to its default
    ],
)
def test_default_that_is_inherited_is_none_too_many(text: str) -> None:
    base = BASE.replace("freeze: conv\n", "") if "freeze" in text else BASE
    assert compile_recipe(recipe_of(base + text), base=Chain(), num_classes=5)


def test_own_settings_win() -> None:
    text = "fine_tune: {activation: relu, dropout: 0.5}\nremove: {fc: replace}\nadd:\n"
    text += "  one: {layer: linear, out: 6, activation: tanh, dropout: 0, inputs: flatten}\n"
    text += "  two: {layer: linear, out: 8, inputs: one}\n"
    text += "  fc: {layer: linear, out: classes, inputs: two}\n"
    model = compiled(text)
    kinds = {row.name: row.kind for row in model.summary.vertices}
    assert kinds["one.activation"] == "Tanh"
    assert "one.dropout" not in kinds
    assert (kinds["two.activation"], kinds["two.dropout"]) == ("ReLU", "Dropout")
