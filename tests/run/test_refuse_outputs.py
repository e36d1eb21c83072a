"""Outputs, losses and monitors that do not go with the task are refused by `check`, with their place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graph.tiny import recipe_of
from torch import Tensor, nn

from run.refusals import check_place, refusal
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.run.refuse import refuse_untrainable

TWO = (
    "add:\n"
    "  kind: {layer: linear, out: 3, inputs: flatten}\n"
    "  age: {layer: linear, out: 1, inputs: flatten}\n"
    "outputs: [kind, age]\n"
)
NAMED = "task:\n  kind: {task: classification}\n  age: {task: regression}\n"
SIGMOID = TWO.replace("out: 1", "out: 1, activation: sigmoid")
CSV = "data: {csv: a.csv}\n"
CASES = [
    ("task: segmentation\n", 1, 1, "wrong-width"),
    ("fine_tune: {monitor: val/accurcy}\n", 2, 22, "unknown-metric"),
    ("fine_tune: {monitor: train/f1}\n", 2, 22, "unknown-metric"),
    ("task: regression\ndata: {csv: a.csv, target: g}\nfine_tune: {monitor: val/f1}\n", 4, 22,
     "unknown-metric"),
    (f"{TWO}{NAMED}{CSV}fine_tune: {{monitor: val/accuracy}}\n", 10, 22, "unknown-metric"),
    (f"{TWO}{NAMED}{CSV}fine_tune: {{label_smoothing: 0.1}}\n", 10, 30, "bad-rule"),
    (f"{TWO}{NAMED}{CSV}head: auto\n", 10, 7, "bad-rule"),
    (f"{TWO}task: {{kind: {{task: classification}}}}\n{CSV}", 6, 7, "bad-rule"),
    (f"{TWO}task:\n  kind: {{}}\n  other: {{}}\n{CSV}", 7, 3, "bad-rule"),
    (f"{TWO}task:\n  kind: {{}}\n  age: {{task: segmentation}}\n{CSV}", 8, 15, "bad-rule"),
    (f"{TWO.replace('out: 3', 'out: classes')}{NAMED}{CSV}", 3, 30, "bad-rule"),
    (f"{SIGMOID}task:\n  kind: {{}}\n  age: {{task: binary}}\n{CSV}", 4, 44, "output-activation"),
    ("fine_tune: {loss: mse}\n", 2, 19, "bad-rule"),
    ("task: binary\nfine_tune: {label_smoothing: 0.1}\n", 3, 30, "bad-rule"),
    ("fine_tune: {loss: focal, label_smoothing: 0.1}\n", 2, 43, "bad-rule"),
    ("task: regression\ndata: {csv: a.csv, target: g}\nfine_tune: {class_weights: balanced}\n",
     4, 28, "bad-rule"),
    ("task: segmentation\ndata: {folder: f}\nfine_tune: {class_weights: balanced}\n", 4, 28,
     "bad-rule"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "slug"), CASES)
def test_refusal_has_its_place(
    tmp_path: Path, text: str, line: int, column: int, slug: str
) -> None:
    check_place(refusal(tmp_path, text), (line, column), slug)


GOOD = [
    f"{TWO}{NAMED}{CSV}",
    f"{TWO}{NAMED}{CSV}fine_tune: {{monitor: val/kind/f1}}\n",
    f"{TWO}{NAMED}{CSV}fine_tune: {{monitor: train/age/mae}}\n",
    "fine_tune: {monitor: val/f1, loss: focal, class_weights: {cats: 2.0}}\n",
    "task: regression\ndata: {csv: a.csv, target: g}\nfine_tune: {monitor: val/r2, loss: huber}\n",
    "task: multilabel\ndata: {csv: a.csv}\nfine_tune: {class_weights: balanced}\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_what_goes_together_is_not_refused(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text) is None


def test_each_output_has_the_width_of_its_own_data(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"{TWO}{NAMED}{CSV}", kind=4, age=1)
    assert error is not None
    assert error.slug == "wrong-width"
    assert "write out: 4" in str(error)
    assert refusal(tmp_path, f"{TWO}{NAMED}{CSV}", kind=3, age=1) is None


class Chances(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.fc, self.softmax = nn.Flatten(), nn.Linear(192, 3), nn.Softmax(1)

    def forward(self, x: Tensor) -> Any:
        return self.softmax(self.fc(self.flatten(x)))


def test_a_base_that_ends_in_a_softmax_is_refused_for_its_logits() -> None:
    recipe = recipe_of("base: {model: own, size: 8}\nhead: keep\nfreeze: none\n")
    model = compile_recipe(recipe, base=Chances(), num_classes=3)
    with pytest.raises(TLCompileError, match="ends in softmax") as caught:
        refuse_untrainable(recipe, model, 3)
    assert "write outputs: [fc]" in str(caught.value)
    assert "from add" not in str(caught.value)
