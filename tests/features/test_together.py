"""One pass for several freeze points: the rows, under the keys, that each recipe alone gives."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from graph.tiny import SIDE, TINY, recipe, shake
from parity.plain import differences, images, plain_model, side_of, stepped
from reliability.small_runs import counted, ending, net, pictures, recipe_of, train
from torch import Tensor, nn

from tlcompile.compiler import compile_opened, compile_together
from tlcompile.errors.graph import UnknownVertexError
from tlcompile.features.fingerprint import describe
from tlcompile.features.layout import memory_order
from tlcompile.features.prefix import Prefix
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.features import SourceBuilder
from tlcompile.run.splits import open_splits
from tlcompile.store.store import About
from tlcompile.zoo.base import base_from_module
from tlcompile.zoo.open import open_base

CPU = torch.device("cpu")
CHUNK = 4  # of 6 images: the second pass is padded
POINTS = {
    "chain": ("conv", "bn", "drop"),
    "residual": ("stem", "layer1.0.conv1", "layer1.0", "layer1", "avgpool"),
    "branches": ("stem", "left", "right"),
    "resnet18": ("bn1", "layer2", "layer3.0.conv1", "head"),
    "mobilenet_v3_small": ("features.0", "features.3", "features.8.block.2.fc1", "features.12"),
    "densenet121": ("features.pool0", "features.denseblock2.denselayer3", "stage3", "head"),
    "vit_b_32": (
        "conv_proj", "encoder.layers.encoder_layer_0", "encoder.layers.encoder_layer_5", "head",
    ),
}  # fmt: skip
QUICK = (*TINY, "resnet18")


def base_of(name: str) -> nn.Module:
    return shake(TINY[name]()) if name in TINY else plain_model(name)


def recipes_of(name: str, points: tuple[str, ...]) -> list[Recipe]:
    return [recipe(base={"model": name}, head="keep", freeze={"upto": [at]}) for at in points]


def side(name: str) -> int:
    return SIDE if name in TINY else side_of(name)


def together(name: str, points: tuple[str, ...]) -> CompiledModel:
    opened = base_from_module(base_of(name), side(name))
    return compile_together(recipes_of(name, points), opened, 3)


def alone(name: str, point: str) -> CompiledModel:
    (only,) = recipes_of(name, (point,))
    return compile_opened(only, base_from_module(base_of(name), side(name)), 3)


def abouts(model: CompiledModel) -> tuple[About, ...]:
    return describe(model, preprocessing=None, chunk_size=CHUNK, precision="exact", device=CPU)


def rows_of(model: CompiledModel, x: Tensor) -> dict[str, Tensor]:
    """Compute the rows of images, by the key of their set."""
    rows = Prefix(model, CHUNK, CPU)(x)
    return {about.key: tensor for about, tensor in zip(abouts(model), rows, strict=True)}


def pictured(name: str) -> Tensor:
    if name not in TINY:
        return images(name, 6)
    return torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.slow) for n in POINTS if n not in QUICK)]
)
def test_rows_and_keys_are_those_of_each_recipe_alone(name: str) -> None:
    model, x = together(name, POINTS[name]), pictured(name)
    found = rows_of(model, x)
    described = {one.vertex: (one, a) for one, a in zip(model.boundary, abouts(model), strict=True)}
    wanted = set()
    for point in POINTS[name]:
        single = alone(name, point)
        assert single.boundary
        for one, about in zip(single.boundary, abouts(single), strict=True):
            assert described[one.vertex] == (one, about), point
        for key, rows in rows_of(single, x).items():
            assert torch.equal(found[key], rows), point
            assert memory_order(found[key]) == memory_order(rows)
            wanted.add(key)
    assert wanted == set(found), "and no other boundary"


def calls_of(model: CompiledModel, x: Tensor) -> Counter[str]:
    """Count how often each module is called in a pass."""
    calls: Counter[str] = Counter()
    for name, module in model.tree.named_modules():
        module.register_forward_hook(lambda *_given, name=name: calls.update([name]))
    model.prefix(x)
    return calls


@pytest.mark.parametrize("name", TINY)
def test_each_vertex_is_computed_once_and_only_where_a_boundary_needs_it(name: str) -> None:
    x = pictured(name)[:2]
    calls = calls_of(together(name, POINTS[name]), x)
    needed: Counter[str] = Counter()
    for point in POINTS[name]:
        needed |= calls_of(alone(name, point), x)
    assert calls == needed


@pytest.mark.parametrize("name", TINY)
def test_it_is_a_model_like_any_other(name: str) -> None:
    """All that is frozen at one of the points is frozen, and the suffix goes on behind them."""
    model, x = together(name, POINTS[name]), pictured(name)
    frozen = [alone(name, point).frozen for point in POINTS[name]]
    assert model.frozen.tensors == frozenset().union(*(one.tensors for one in frozen))
    assert model.frozen.modules == frozenset().union(*(one.modules for one in frozen))

    again = {name for name, _ in model.suffix_module().named_parameters()} & model.frozen.tensors
    assert not again, "what is frozen is behind the suffix"

    class Halves(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Any:
            return self.model.suffix(*self.model.prefix(x))

    whole = {f"model.{k}": v for k, v in stepped(model, x).items()}
    halves = {f"model.{k}": v for k, v in stepped(Halves(), x).items()}
    assert [n for n in differences(whole, halves) if "output" in n] == []
    model.eval()
    assert torch.equal(model(x), Halves()(x))


def test_where_nothing_is_frozen_there_is_nothing_to_compute_with() -> None:
    model = together("branches", ("none", "stem"))
    assert abouts(model) == abouts(alone("branches", "stem"))
    assert together("branches", ("none", "none")).boundary == ()


def test_a_point_that_the_base_does_not_have_is_refused_at_its_own_line() -> None:
    opened = base_from_module(base_of("chain"), SIDE)
    with pytest.raises(UnknownVertexError) as refused:
        compile_together(recipes_of("chain", ("conv", "no_such")), opened, 3)
    assert refused.value.key[:2] == ("freeze", "upto")


def test_the_first_recipe_s_head_is_nobody_else_s_business() -> None:
    base = TINY["branches"]
    edited = recipe(head="auto", freeze={"upto": ["stem"]})
    kept = recipe(head="keep", freeze={"upto": ["left", "right"]})
    torch.manual_seed(0)
    module = base()
    twins = [base() for _ in range(2)]
    for twin in twins:
        twin.load_state_dict(module.state_dict())
    model = compile_together([edited, kept], base_from_module(module, SIDE), 5)
    found = {about.key for about in abouts(model)}
    for one, twin in zip((edited, kept), twins, strict=True):
        single = compile_opened(one, base_from_module(twin, SIDE), 5)
        assert {about.key for about in abouts(single)} <= found


def test_one_pass_serves_runs_at_every_freeze_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that the joint pass has stored are hits for each run, which ends as it ends without."""
    work, data, cache = counted(monkeypatch), pictures(tmp_path / "data", 5), tmp_path / "cache"
    points = ("conv1", "bn1", "conv2", "pool")
    recipes = [recipe_of(data, cache, freeze=point) for point in points]
    opened = open_base(recipes[0], net())
    splits = open_splits(recipes[0], 3, lambda _line: None)
    model = compile_together(recipes, opened, len(splits.classes))
    SourceBuilder(recipes[0], opened.preprocessing, model, CPU, lambda _line: None).sources(
        splits.named()
    )
    assert work.since() == (10, 10), "each image once"
    for point in points:
        result, _ = train(data, tmp_path / point, cache, freeze=point)
        told = result.record["features"]
        assert (told["misses"], told["hits"]) == (0, 10), point
        assert work.since() == (0, 0), "nothing is decoded or computed"
        train(data, tmp_path / f"{point}_live", cache, freeze=point, features={"cache": "off"})
        assert ending(tmp_path / point) == ending(tmp_path / f"{point}_live")
        work.since()
