"""What the user holds: names, origins, states, modes, and the summary of what was done."""

from __future__ import annotations

import pickle

import torch
from graph.tiny import TINY, recipe, shake

from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel


def chain(freeze: str = "bn") -> CompiledModel:
    return compile_recipe(recipe(freeze=freeze), base=shake(TINY["chain"]()), num_classes=3)


def test_tensors_have_the_base_s_order_and_say_where_they_are_from() -> None:
    rows = {row.name: row for row in chain().tensors()}
    assert list(rows) == list(TINY["chain"]().state_dict())
    assert (rows["conv.weight"].origin, rows["conv.weight"].state) == ("kept", "frozen")
    assert rows["bn.running_mean"].kind == "buffer"
    assert (rows["fc.weight"].origin, rows["fc.weight"].state) == ("replaced", "trains")
    assert rows["fc.weight"].shape == (3, 32)


def test_train_keeps_frozen_modules_in_eval_mode() -> None:
    model = chain()
    assert model.training
    assert not model.get_submodule("bn").training
    assert model.get_submodule("drop").training
    assert not model.eval().get_submodule("drop").training
    assert not model.train().get_submodule("bn").training


def test_only_trainable_parameters_want_gradients() -> None:
    model = chain()
    assert [name for name, _ in model.trainable()] == ["fc.weight", "fc.bias"]
    wanting = [name for name, p in model.named_parameters() if p.requires_grad]
    assert wanting == ["fc.weight", "fc.bias"]


def test_it_moves_loads_and_pickles_as_any_module() -> None:
    model, x = chain().eval(), torch.randn(2, 3, 16, 16)
    wanted = model(x)
    assert torch.allclose(model.double()(x.double()), wanted.double(), atol=1e-5)
    other = chain().eval()
    other.load_state_dict(chain().state_dict(), assign=True)
    assert torch.equal(other(x), chain().eval()(x))
    again = pickle.loads(pickle.dumps(other))
    assert torch.equal(again(x), other(x))
    assert torch.equal(again.suffix(*again.prefix(x)), other(x))


def test_equal_recipes_give_equal_new_weights_and_another_seed_others() -> None:
    def head(seed: int) -> torch.Tensor:
        made = recipe(fine_tune={"seed": seed})
        return compile_recipe(made, base=TINY["chain"](), num_classes=3).get_parameter("fc.weight")

    assert torch.equal(head(1), head(1))
    assert not torch.equal(head(1), head(2))


def test_the_summary_names_what_was_done() -> None:
    summary = compile_recipe(recipe(), base=TINY["branches"](), num_classes=3).summary
    assert summary.dropped == {"classifier.2": "an activation behind the classifier"}
    assert summary.outputs == ("flatten",)
    assert summary.sample_shapes == {"x": (3, 16, 16)}
    row = next(row for row in summary.vertices if row.name == "classifier.1")
    assert (row.kind, row.num_parameters, row.origin, row.frozen) == (
        "Conv2d",
        39,
        "replaced",
        False,
    )
