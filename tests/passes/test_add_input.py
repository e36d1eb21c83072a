from __future__ import annotations

import pytest
import torch
from graph.tiny import TINY, Chain, recipe_of
from torch import nn

from passes.golden import check_golden, check_promise_can_fail, tiny_after
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.graph.model_graph import ModelGraph
from tlcompile.model.saved import golden_sample
from tlcompile.passes.add_input import AddInput
from tlcompile.run.refuse import refuse_untrainable

META = AddInput(vertex="meta", shape=(4,), key=("inputs", "meta"))

FUSED = """\
base: {model: own, size: 16}
freeze: relu
inputs: {meta: {shape: [4]}}
remove: {fc: replace}
add:
  both: {layer: concat, inputs: [flatten, meta]}
  fc: {layer: linear, out: classes, inputs: both}
"""

TOKENS = """\
base: {model: own, size: 16}
inputs: {tokens: {shape: [5], dtype: int64}}
remove: {fc: replace}
add:
  words: {layer: embedding, num_embeddings: 20, out: 3, inputs: tokens}
  flat: {layer: flatten, inputs: words}
  both: {layer: concat, inputs: [flatten, flat]}
  fc: {layer: linear, out: classes, inputs: both}
"""


@pytest.mark.parametrize("tiny", TINY)
def test_golden(tiny: str, update_goldens: bool) -> None:
    check_golden(tiny, META, update_goldens)


def test_an_added_input_is_the_last_argument() -> None:
    model = compile_recipe(recipe_of(FUSED), base=Chain(), num_classes=3).eval()
    assert model.summary.sample_shapes == {"x": (3, 16, 16), "meta": (4,)}
    x, meta = torch.randn(2, 3, 16, 16), torch.randn(2, 4)
    hidden = torch.flatten(model.pool(model.relu(model.bn(model.conv(x)))), 1)
    assert torch.equal(model(x, meta), model.fc(torch.cat([hidden, meta], 1)))


def test_a_raw_input_of_the_suffix_crosses_as_it_is() -> None:
    model = compile_recipe(recipe_of(FUSED), base=Chain(), num_classes=3).eval()
    x, meta = torch.randn(2, 3, 16, 16), torch.randn(2, 4)
    assert [b.vertex for b in model.boundary] == ["meta", "flatten"]
    crossing = model.prefix(x, meta)
    assert crossing[0] is meta
    assert torch.equal(model.suffix(*crossing), model(x, meta))


def test_whole_numbers_are_an_input_too() -> None:
    model = compile_recipe(recipe_of(TOKENS), base=Chain(), num_classes=3).eval()
    x, tokens = torch.randn(2, 3, 16, 16), torch.randint(20, (2, 5))
    hidden = torch.flatten(model.pool(model.relu(model.bn(model.conv(x)))), 1)
    words = model.words(tokens).flatten(1)
    assert torch.equal(model(x, tokens), model.fc(torch.cat([hidden, words], 1)))


def test_the_golden_sample_of_a_bundle_has_every_input() -> None:
    model = compile_recipe(recipe_of(TOKENS), base=Chain(), num_classes=3).eval()
    golden = golden_sample(model)
    assert golden["input.tokens"].dtype == torch.int64
    again = model(golden["input.x"], golden["input.tokens"])
    assert torch.equal(golden["output.output"], again)


def test_training_with_two_inputs_is_left_to_python() -> None:
    recipe = recipe_of(FUSED)
    model = compile_recipe(recipe, base=Chain(), num_classes=3)
    with pytest.raises(Exception, match="more than one input"):
        refuse_untrainable(recipe, model, 3)


class Two(nn.Module):
    """An image and four numbers, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Conv2d(3, 4, 16)
        self.numbers = nn.Linear(4, 5)
        self.fc = nn.Linear(9, 3)

    def forward(self, picture: torch.Tensor, meta: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.cat([self.image(picture).flatten(1), self.numbers(meta)], 1))


def test_inputs_of_a_users_module_are_declared_by_name() -> None:
    text = "base: {model: own, size: 16}\nhead: keep\nfreeze: image\ninputs: {meta: {shape: [4]}}\n"
    base = Two().eval()
    model = compile_recipe(recipe_of(text), base=base).eval()
    assert model.summary.sample_shapes == {"picture": (3, 16, 16), "meta": (4,)}
    x, meta = torch.randn(2, 3, 16, 16), torch.randn(2, 4)
    assert torch.equal(model(x, meta), base(x, meta))
    assert torch.equal(model.suffix(*model.prefix(x, meta)), base(x, meta))
    assert [b.vertex for b in model.boundary] == ["meta", "flatten"]


def test_an_input_without_a_shape_is_named() -> None:
    text = "base: {model: own, size: 16}\nhead: keep\nfreeze: none\n"
    with pytest.raises(TLCompileError, match=r"inputs: \{meta: \{shape: \[4\]\}\}"):
        compile_recipe(recipe_of(text), base=Two())


def test_the_promise_can_fail() -> None:
    damaged: ModelGraph = tiny_after("chain", META)
    last = [node for node in damaged.graph.nodes if node.op == "placeholder"][-1]
    damaged.graph.erase_node(last)
    check_promise_can_fail(META, damaged, "'meta' is the last input")
