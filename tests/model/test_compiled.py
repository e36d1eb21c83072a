"""What the user holds: names, origins, states, modes, and the summary of what was done."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from graph.tiny import TINY, Chain, recipe, shake

from tlcompile.compiler import compile_recipe
from tlcompile.errors.edits import ClassCountError
from tlcompile.errors.graph import AlreadyCompiledError
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.saved import golden_sample


def chain(freeze: str = "bn") -> CompiledModel:
    return compile_recipe(recipe(freeze=freeze), base=shake(TINY["chain"]()), num_classes=3)


def test_tensors_have_the_base_s_order_and_say_where_they_are_from() -> None:
    rows = {row.name: row for row in chain().tensors()}
    assert list(rows) == list(TINY["chain"]().state_dict())
    assert (rows["conv.weight"].origin, rows["conv.weight"].state) == ("loaded", "frozen")
    assert rows["conv.weight"].source == "given"
    assert rows["bn.running_mean"].kind == "buffer"
    assert (rows["fc.weight"].origin, rows["fc.weight"].state) == ("replaced", "trains")
    assert (rows["fc.weight"].shape, rows["fc.weight"].was) == ((3, 32), (10, 32))
    assert (rows["fc.weight"].init, rows["conv.weight"].init) == ("default", "")


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


def test_tensors_of_the_base_that_are_gone_are_named_last() -> None:
    narrow = recipe(
        freeze="relu",
        remove={"pool": "drop", "flatten": "drop", "drop": "drop", "fc": "drop"},
        add={
            "small": {"layer": "global_pool", "inputs": ["relu"]},
            "new": {"layer": "linear", "out": 3, "init": "xavier_normal", "inputs": ["flat"]},
            "flat": {"layer": "flatten", "inputs": ["small"]},
        },
        outputs=["new"],
    )
    model = compile_recipe(narrow, base=TINY["chain"](), num_classes=3)
    rows = {row.name: row for row in model.tensors()}
    assert list(rows)[-2:] == ["fc.weight", "fc.bias"]
    assert (rows["fc.weight"].state, rows["fc.weight"].shape) == ("dropped", (10, 32))
    assert (rows["new.weight"].origin, rows["new.weight"].init) == ("added", "xavier_normal")
    removed = {row.name: row for row in model.summary.removed}
    assert list(removed) == ["pool", "flatten", "drop", "fc"]
    assert (removed["fc"].shape, removed["fc"].reads) == ("(N, 10)", ("drop",))
    assert removed["fc"].origin == "drop fc"


def test_a_vertex_says_what_it_was_and_what_it_costs() -> None:
    rows = {row.name: row for row in chain().summary.vertices}
    assert (rows["fc"].was, rows["fc"].shape, rows["fc"].init) == ("(N, 10)", "(N, 3)", "default")
    assert (rows["conv"].was, rows["conv"].init) == ("", "")
    assert rows["conv"].flops == 2 * 8 * 8 * 8 * 3 * 3 * 3  # out maps x kernel, two a product
    assert rows["conv"].num_bytes == 8 * 8 * 8 * 4
    assert rows["fc"].flops == 2 * 32 * 3


def test_a_layer_added_under_a_name_of_the_base_replaces_it() -> None:
    again = recipe(
        freeze="pool",
        remove={"fc": "replace"},
        add={"fc": {"layer": "linear", "out": 3, "inputs": ["drop"]}},
    )
    model = compile_recipe(again, base=TINY["chain"](), num_classes=3)
    assert model.summary.vertices[-1].origin == "replaced"
    assert model.origins == {"fc.weight": "replaced", "fc.bias": "replaced"}
    assert model.summary.removed == ()


def test_a_compiled_model_is_no_base() -> None:
    model = compile_recipe(recipe(head="keep", freeze="none"), base=Chain())
    with pytest.raises(AlreadyCompiledError, match=r"base: \{run: FOLDER\}"):
        compile_recipe(recipe(head="keep", freeze="none"), base=model)


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_classes_is_at_least_one(count: int) -> None:
    with pytest.raises(ClassCountError, match=f"cannot be {count}"):
        compile_recipe(recipe(), base=Chain(), num_classes=count)


class Several(Chain):
    """It returns a tuple with a dictionary in it."""

    def forward(self, x: torch.Tensor) -> Any:
        scores = super().forward(x)
        return scores, {"double": scores * 2}


def test_the_golden_sample_has_every_tensor_that_is_returned() -> None:
    model = compile_recipe(recipe(head="keep", freeze="none"), base=Several().eval())
    golden = golden_sample(model)
    first, second = (value for name, value in golden.items() if name.startswith("output."))
    assert torch.equal(first * 2, second)
