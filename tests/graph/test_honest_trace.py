"""Modules whose forward a graph could get silently wrong: right, or refused by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.recipe.schema import Recipe


class Small(nn.Module):
    """A flat linear net; subclasses say what else the forward does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3 * 4 * 4, 5)
        self.mean = torch.tensor([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.change(x).flatten(1))

    def change(self, x: Tensor) -> Tensor:
        return x


class TrainingInRoot(Small):
    def change(self, x: Tensor) -> Tensor:
        return F.dropout(x, training=self.training)


class ModeInRoot(Small):
    def change(self, x: Tensor) -> Tensor:
        return x * 2 if self.training else x


class ValueInRoot(Small):
    def change(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class SizeInRoot(Small):
    def change(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[-1] == 4 and not x.shape[1] > 3 else x


class Optional(Small):
    def forward(self, x: Tensor, scale: float = 2.0, mask: Tensor | None = None) -> Tensor:
        return super().forward(x * scale if mask is None else x * mask)


class Positive(nn.Module):
    """Looks at the values of its data."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) if bool((x > 0).any()) else x


class ValueBelow(Small):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(nn.Linear(4, 4), Positive())

    def change(self, x: Tensor) -> Tensor:
        return self.steps(x)


class AlwaysRandom(Small):
    def change(self, x: Tensor) -> Tensor:
        return F.dropout(x)


class Noisy(Small):
    def change(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class WritesThroughView(Small):
    def forward(self, x: Tensor) -> Tensor:
        x = x + 0
        flat = x.flatten(1)
        F.relu(x, inplace=True)
        return self.fc(flat)


class Constant(Small):
    def change(self, x: Tensor) -> Tensor:
        return x - torch.tensor(0.5)


class PlainAttribute(Small):
    def change(self, x: Tensor) -> Tensor:
        return x - self.mean


def recipe(freeze: str, head: str) -> Recipe:
    base = {"model": "own", "size": 4}
    return Recipe.model_validate({"base": base, "freeze": {"upto": [freeze]}, "head": head})


@pytest.mark.parametrize(
    ("module", "freeze", "slug"),
    [
        (ModeInRoot(), "none", "not-traceable"),
        (ValueInRoot(), "none", "not-traceable"),
        (AlwaysRandom(), "head", "random-vertex"),
        (Noisy(), "head", "random-vertex"),
        (WritesThroughView(), "none", "not-traceable"),
        (Small().half(), "none", "wrong-dtype"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_what_a_graph_cannot_hold_is_refused(module: nn.Module, freeze: str, slug: str) -> None:
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe(freeze, "keep"), base=module)
    assert caught.value.slug == slug


@pytest.mark.parametrize("kind", [Constant, PlainAttribute])
def test_tensors_that_are_no_buffers_are_kept(kind: type[Small]) -> None:
    module = kind().eval()
    names = list(module.state_dict())
    x = torch.randn(3, 3, 4, 4)
    for head, freeze in (("keep", "none"), ("auto", "head")):
        model = compile_recipe(recipe(freeze, head), base=module, num_classes=5).eval()
        assert list(model.state_dict()) == names
        if head == "keep":
            assert torch.equal(model(x), module(x))
        else:
            assert torch.equal(model.suffix(*model.prefix(x)), model(x))
    assert not hasattr(module, "_tensor_constant0")


def test_randomness_outside_of_the_frozen_part_is_the_users_own() -> None:
    model = compile_recipe(recipe("none", "keep"), base=Noisy()).eval()
    x = torch.zeros(1, 3, 4, 4)
    torch.manual_seed(0)
    one = model(x)
    torch.manual_seed(0)
    assert torch.equal(one, model(x))


def same(module: Small, sections: dict[str, object]) -> None:
    """Compare the module itself with its compiled copy, in both modes, under one seed."""
    x = torch.randn(3, 3, 4, 4)
    wanted = Recipe.model_validate({"base": {"model": "own", "size": 4}, **sections})
    model = compile_recipe(wanted, base=module)
    for mode in (True, False):
        torch.manual_seed(0)
        theirs = module.train(mode)(x)
        torch.manual_seed(0)
        assert torch.equal(model.train(mode)(x), theirs)


KEEP: dict[str, object] = {"head": "keep", "freeze": {"upto": ["none"]}}


def test_a_function_that_the_root_tells_its_mode_follows_the_mode() -> None:
    module = TrainingInRoot()
    same(module, KEEP)
    x = torch.randn(8, 3, 4, 4)
    model = compile_recipe(recipe("none", "keep"), base=module)
    assert not torch.equal(model.train()(x), model.eval()(x))
    frozen = compile_recipe(recipe("flatten", "keep"), base=module).train()
    assert torch.equal(*(torch.cat(frozen.prefix(x)) for _ in range(2)))


def test_the_root_may_ask_for_sizes_and_is_held_to_the_answer() -> None:
    module = SizeInRoot()
    same(module, KEEP)
    model = compile_recipe(recipe("none", "keep"), base=module)
    with pytest.raises(AssertionError, match="another size"):
        model(torch.randn(2, 3, 6, 6))


def test_arguments_with_a_default_keep_it() -> None:
    same(Optional(), KEEP)


def test_a_module_that_cannot_be_traced_is_one_vertex_and_named() -> None:
    module = ValueBelow()
    same(module, KEEP)
    model = compile_recipe(recipe("steps.0", "keep"), base=module)
    rows = {row.name: row for row in model.summary.vertices}
    assert rows["steps.1"].kind == "Positive"
    assert rows["steps.1"].shape == rows["fc"].shape == "depends on the data"
    assert "Positive cannot be traced" in model.summary.notes[0]
    assert "steps.1" in model.summary.notes[0]
    x = torch.randn(3, 3, 4, 4)
    assert torch.equal(model.eval().suffix(*model.prefix(x)), module.eval()(x))


def test_a_freeze_point_inside_one_vertex_is_refused() -> None:
    with pytest.raises(TLCompileError) as caught:
        compile_recipe(recipe("steps.1.inner", "keep"), base=ValueBelow())
    assert caught.value.slug == "inside-leaf"


def test_what_only_data_can_tell_is_frozen_and_runs_in_every_step() -> None:
    model = compile_recipe(recipe("steps.1", "keep"), base=ValueBelow())
    assert [b.vertex for b in model.boundary] == ["steps.0"]
    assert "what 'steps.1' computes depends on the data" in model.summary.notes[-1]


def test_hooks_run_with_their_module_and_not_while_it_is_traced() -> None:
    module, seen = Small(), []
    module.fc.register_forward_hook(lambda *a: seen.append(type(a[2])))
    model = compile_recipe(recipe("none", "keep"), base=module)
    seen.clear()
    model(torch.randn(1, 3, 4, 4))
    assert seen == [torch.Tensor]


def test_hooks_of_the_root_are_refused() -> None:
    module = Small()
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(TLCompileError, match="forward hooks"):
        compile_recipe(recipe("none", "keep"), base=module)
