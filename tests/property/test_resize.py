"""Random widths in random models: the result runs and keeps what it says, or one error names why."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from graph.tiny import graph_with_shapes, shake
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from tiny import make_recipe
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from property.drawn import SIDE, Description, Net, descriptions
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.resize import ResizeMembersError
from tlcompile.graph import overlap
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.load import spell_out
from tlcompile.recipe.nodes import Mapping
from tlcompile.recipe.scalars import to_data
from tlcompile.recipe.yaml_reader import read_recipe_text

REFUSALS = {
    "fixed-width", "no-effect", "not-divisible", "overlap-unknown", "resize-clash",
    "resize-disagree", "resize-follower", "shared-width", "written-width",
}  # fmt: skip
Lines = dict[str, dict[str, Any]]


class Residual(nn.Module):
    """The input plus a branch of its width; with `excite` the branch has a squeeze-excitation."""

    def __init__(self, width: int, excite: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, width, 1)
        self.squeeze = nn.Conv2d(width, 2, 1) if excite else None
        self.excite = nn.Conv2d(2, width, 1) if excite else None

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(torch.relu(self.norm(self.conv1(x))))
        if self.squeeze is not None and self.excite is not None:
            out = out * torch.sigmoid(self.excite(torch.relu(self.squeeze(out.mean((2, 3), True)))))
        return out + x


class Branches(nn.Module):
    """Three branches side by side: plain, depthwise, and what comes in; 3 times as wide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.plain = nn.Conv2d(width, width, 1)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.scale = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.plain(x), self.deep(x), self.scale * x], 1)


def block(kind: str, width: int) -> tuple[nn.Module, int]:
    """Return a block that reads `width` channels, and how many it gives."""
    if kind == "conv":
        return nn.Conv2d(width, 4, 3, padding=1), 4
    if kind == "branches":
        return Branches(width), 3 * width
    blocks: dict[str, Callable[[], nn.Module]] = {
        "norm": lambda: nn.BatchNorm2d(width),
        "relu": nn.ReLU,
        "pool": lambda: nn.MaxPool2d(2, ceil_mode=True),
        "residual": lambda: Residual(width, False),
        "excited": lambda: Residual(width, True),
    }
    return blocks[kind](), width


KINDS = ("conv", "norm", "relu", "pool", "residual", "excited", "branches")


def network(kinds: Sequence[str]) -> nn.Sequential:
    """Build a stem, blocks, a flatten and a classifier, with weights that hide nothing."""
    torch.manual_seed(7)
    parts: list[nn.Module] = [nn.Conv2d(3, 3, 3, stride=2, padding=1)]
    width = 3
    for kind in kinds:
        made, width = block(kind, width)
        parts.append(made)
    parts += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 4)]
    return shake(nn.Sequential(*parts))  # type: ignore[return-value]


@st.composite
def cases(draw: st.DrawFn) -> tuple[nn.Module, Lines]:
    """Draw a model and one or two lines; now and then of a vertex that is no layer."""
    if draw(st.booleans()):
        base: nn.Module = base_of(draw(descriptions()))
    else:
        base = network(draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5)))
    every = list(graph_with_shapes(base, SIDE).names())[1:]
    layers = [name for name, layer in base.named_modules() if isinstance(layer, DECIDING)]
    keep = {"overlap": True} if draw(st.booleans()) else {}
    lines: Lines = {}
    for _ in range(draw(st.sampled_from((1, 1, 2)))):
        vertex = draw(st.sampled_from(layers if layers and draw(st.integers(0, 9)) else every))
        lines[vertex] = {"out": draw(st.sampled_from((1, 2, 6, 7, 8, 9, 12))), **keep}
    return base, lines


DECIDING = (nn.Conv2d, nn.Linear)


def base_of(description: Description) -> Net:
    torch.manual_seed(7)
    net = Net(description)
    shake(net)
    return net


def compiled(base: nn.Module, lines: Lines) -> CompiledModel:
    recipe = make_recipe(
        base={"model": "own", "size": SIDE}, freeze="none", head="keep", resize=lines
    )
    return compile_recipe(recipe, base=base)


def happened(what: str) -> None:
    """Count an event; outside of hypothesis nobody counts."""
    with contextlib.suppress(InvalidArgument):
        event(what)


def outcome(base: nn.Module, lines: Lines) -> tuple[CompiledModel | None, Lines]:
    """Compile; where the members of a sum are named, paste the line that the error prints."""
    try:
        return compiled(base, lines), lines
    except TLCompileError as error:
        refusal = error
    happened(f"refused: {refusal.slug}")
    assert refusal.where is not None, str(refusal)
    if isinstance(refusal, ResizeMembersError):
        assert set(refusal.members) & lines.keys()
        return outcome(base, pasted(refusal.line))
    assert refusal.slug in REFUSALS, str(refusal)
    return None, lines


def pasted(line: str) -> Lines:
    tree = spell_out(read_recipe_text(line, "pasted.yaml"))
    assert isinstance(tree, Mapping)
    lines: Lines = to_data(tree)["resize"]
    return lines


def check_case(case: tuple[nn.Module, Lines]) -> None:
    base, asked = case
    model, lines = outcome(base, asked)
    if model is None:
        return
    happened("compiled")
    check_widths(model, lines)
    check_kept(model, base)
    check_running(model)
    check_computing(base, lines)


def check_widths(model: CompiledModel, lines: Lines) -> None:
    for vertex, line in lines.items():
        row = next(row for row in model.summary.vertices if row.name == vertex)
        assert row.shape.split(", ")[1].rstrip(")") == str(line["out"]), row


def check_kept(model: CompiledModel, base: nn.Module) -> None:
    """What is not resized is the base's to the bit; whatever has another shape is resized."""
    old = base.state_dict()
    origin = {row.name: row.origin for row in model.tensors()}
    for name, tensor in model.state_dict().items():
        if origin[name] == "loaded":
            assert torch.equal(tensor, old[name]), name
        else:
            assert origin[name] == "resized"


def check_running(model: CompiledModel) -> None:
    x = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    outputs = tensors(copy.deepcopy(model).train()(x))
    assert all(output.shape[0] == 5 for output in outputs)
    sum(output.sum() for output in outputs).backward()  # type: ignore[union-attr]


def tensors(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def check_computing(base: nn.Module, lines: Lines) -> None:
    """Wider with the base's part kept and the rest zero, the model computes what the base computes.

    Whatever stands between a layer and its readers, their zero columns must meet the new channels.
    """
    zeros = {"init": "zeros", "overlap": True}
    layers = {row.name: row.shape for row in compiled_as_it_is(base).summary.vertices}
    wider = {v: {"out": 2 * int(layers[v].split(", ")[1].rstrip(")")), **zeros} for v in lines}
    model, _ = outcome(base, wider)
    if model is None:
        return
    resized = {row.kind for row in model.summary.vertices if row.origin == "resized"}
    if "LayerNorm" in resized:
        return  # it counts the new channels, too
    x = torch.randn(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(2)).double()
    with torch.no_grad():
        ours = tensors(model.eval().double()(x))
        theirs = tensors(copy.deepcopy(base).eval().double()(x))
    for one, other in zip(ours, theirs, strict=True):
        if one.shape == other.shape:
            happened("computes the same")
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-9)


def compiled_as_it_is(base: nn.Module) -> CompiledModel:
    recipe = make_recipe(base={"model": "own", "size": SIDE}, freeze="none", head="keep")
    return compile_recipe(recipe, base=base)


quiet = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)


@settings(quiet, max_examples=40)
@given(cases())
def test_random_resizes(case: tuple[nn.Module, Lines]) -> None:
    check_case(case)


@pytest.mark.slow
@settings(quiet, max_examples=400)
@given(cases())
def test_many_random_resizes(case: tuple[nn.Module, Lines]) -> None:
    check_case(case)


@pytest.mark.parametrize("kinds", [["branches"], ["pool", "excited"], ["residual", "branches"]])
def test_a_column_at_the_wrong_place_is_seen(
    kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of what is computed can fail: a map that is off by one channel."""
    lines: Lines = {"0": {"out": 5, "overlap": True}}
    check_case((network(kinds), lines))
    wrong = overlap.first
    monkeypatch.setattr(overlap, "first", lambda old, new: wrong(old, new).roll(1))
    with pytest.raises(AssertionError):
        check_case((network(kinds), lines))
