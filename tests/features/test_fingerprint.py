"""The key of a set: what is asked for, and how it is told to people."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tiny import TinyNet, make_recipe
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from tlcompile.compiler import compile_recipe
from tlcompile.features import canonical
from tlcompile.features.fingerprint import describe, describe_pixels, differs, key_of
from tlcompile.model.compiled import CompiledModel
from tlcompile.store.about import About, about_bytes, read_about
from tlcompile.zoo.preprocessing import Preprocessing

PLAIN = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bilinear", 3)


def model_of(base: nn.Module | None = None, freeze: str = "bn2") -> CompiledModel:
    recipe = make_recipe(base={"model": "digits_net", "size": 16}, freeze=freeze)
    if base is None:
        torch.manual_seed(0)
        base = TinyNet()
    return compile_recipe(recipe, base, num_classes=2)


def abouts(model: CompiledModel, **given: Any) -> tuple[About, ...]:
    given = {"chunk_size": 8, "precision": "exact", "device": torch.device("cpu"), **given}
    return describe(model, preprocessing=given.pop("preprocessing", PLAIN), **given)


def test_one_set_for_each_boundary_tensor() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.side = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
            self.later = nn.Conv2d(4, 4, 1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            stem = self.stem(x)
            return self.fc((self.later(stem) + self.later(self.side(stem))).mean((2, 3)))

    base = Skips()
    model = model_of(base, freeze="side")
    stem, side = abouts(model)
    assert (stem.vertex, side.vertex) == tuple(one.vertex for one in model.boundary)
    assert (stem.shape, stem.dtype) == ((4, 16, 16), "float32")
    assert stem.ingredients["modules"].keys() < side.ingredients["modules"].keys()
    assert abouts(model_of(base, freeze="stem")) == (stem,), "shared by other freeze points"


def test_a_model_without_a_boundary_has_no_set() -> None:
    assert abouts(model_of(freeze="none")) == ()


def test_only_tensors_of_the_frozen_part_are_hashed_and_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[tuple[int, ...]] = []
    original = canonical._tensor

    def counted(tensor: torch.Tensor) -> dict[str, Any]:
        hashed.append(tuple(tensor.shape))
        return original(tensor)

    monkeypatch.setattr(canonical, "_tensor", counted)
    model = model_of(freeze="bn1")
    abouts(model)
    assert sorted(hashed) == sorted([(8, 3, 3, 3), (8,), (8,), (8,), (8,), (8,), ()])


def test_weights_are_read_anew_each_time() -> None:
    model = model_of()
    before = abouts(model)
    with torch.no_grad():
        model.get_submodule("conv1").weight.view(-1)[0] += 1
    assert abouts(model) != before


def test_a_child_that_is_a_vertex_is_not_part_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A region that an earlier run added has its norm inside the convolution's module."""
    model = model_of(freeze="conv1")
    assert "conv1" in abouts(model)[0].ingredients["modules"]
    before = abouts(model)
    model.get_submodule("conv1").add_module("norm", nn.BatchNorm2d(8))
    assert abouts(model) != before
    targets = model.targets | {"conv1.norm"}
    monkeypatch.setattr(CompiledModel, "targets", targets)
    assert abouts(model) == before


def test_the_key_is_that_of_the_ingredients_but_for_what_is_only_told() -> None:
    (about,) = abouts(model_of())
    assert key_of(about.ingredients) == about.key
    assert key_of({**about.ingredients, "base": "another", "weights": "V2"}) == about.key
    assert key_of({**about.ingredients, "vertex": "another"}) != about.key


def test_ingredients_are_plain_json() -> None:
    for about in (*abouts(model_of()), describe_pixels(PLAIN)):
        assert about is not None
        assert json.loads(json.dumps(about.ingredients)) == about.ingredients
        assert read_about(about_bytes(about)) == about


def test_fast_rows_are_bfloat16() -> None:
    (about,) = abouts(model_of(), precision="fast")
    assert about.dtype == "bfloat16"


@pytest.mark.parametrize(
    ("resize", "crop", "shape"),
    [
        (18, 16, (3, 16, 16)),
        ((8, 9), None, (3, 8, 9)),
        ((8, 9), 7, (3, 7, 7)),
        (None, 5, (3, 5, 5)),
    ],
)
def test_pixels_have_the_shape_of_what_is_cut_out(
    resize: Any, crop: int | None, shape: tuple[int, ...]
) -> None:
    about = describe_pixels(Preprocessing(resize, crop, (0.5,), (0.5,), "bilinear", 3))
    assert about is not None
    assert (about.vertex, about.shape, about.dtype) == ("pixels", shape, "uint8")


@pytest.mark.parametrize("resize", [None, 16])
def test_pixels_of_several_sizes_have_no_set(resize: int | None) -> None:
    assert describe_pixels(Preprocessing(resize, None, (0.5,), (0.5,), "bilinear", 3)) is None


def said(change: Any = None, **given: Any) -> list[str]:
    model, other = model_of(), model_of()
    if change is not None:
        change(other)
    (old,), (new,) = abouts(model), abouts(other, **given)
    return differs(new, old)


def test_what_differs_is_said_in_words() -> None:
    other = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "bicubic", 3)
    assert said() == []
    assert said(preprocessing=other) == ["preprocessing interpolation: bilinear, now bicubic"]
    assert said(chunk_size=16) == ["arithmetic chunk: 8, now 16"]
    assert said(lambda model: setattr(model.bn1, "eps", 0.1)) == ["eps of bn1: 1e-05, now 0.1"]
    assert said(precision="fast") == [
        "dtype: float32, now bfloat16",
        "arithmetic precision: exact, now fast",
    ]


def test_many_tensors_are_one_line() -> None:
    def trained(model: CompiledModel) -> None:
        with torch.no_grad():
            for module in (model.conv1, model.conv2):
                module.weight.mul_(2)

    assert said(trained) == ["the values of conv1.weight, conv2.weight"]


def test_another_freeze_point_is_said() -> None:
    (old,), (new,) = abouts(model_of(freeze="bn1")), abouts(model_of(freeze="bn2"))
    names = "running_mean running_var num_batches_tracked"
    of_norm = [f"bn2.{name}" for name in ("weight", "bias", *names.split())]
    tensors = ", ".join(["conv2.weight", "conv2.bias", *of_norm])
    assert differs(new, old) == [
        "the operations of the frozen part",
        "modules that are new: conv2, bn2, pool, flatten",
        f"tensors that are new: {tensors}",
        "vertex: relu, now flatten",
        "shape: [8, 16, 16], now [8]",
    ]


def test_code_is_said_by_its_name() -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.shape[0] < 10**9 else x

    def compiled() -> About:
        torch.manual_seed(0)
        base = TinyNet()
        base.bn1 = Asks()  # type: ignore[assignment]
        return abouts(model_of(base))[0]

    def forward(self: Asks, x: torch.Tensor) -> torch.Tensor:
        return x * 3 if x.shape[0] < 10**9 else x

    old = compiled()
    forward.__qualname__ = Asks.forward.__qualname__
    Asks.forward = forward  # type: ignore[method-assign]
    assert differs(compiled(), old) == [f"the code of {__name__}.{forward.__qualname__}"]


def test_hooks_of_all_modules_count() -> None:
    model = model_of()
    before = abouts(model)[0].key
    hook = register_module_forward_hook(lambda _module, _inputs, output: output * 2)
    try:
        assert abouts(model)[0].key != before
    finally:
        hook.remove()
    assert abouts(model)[0].key == before


def test_precisions_that_were_set_one_by_one_are_read() -> None:
    """torch.get_float32_matmul_precision raises then."""
    of_products = torch.backends.mkldnn.matmul
    before = of_products.fp32_precision
    of_products.fp32_precision = "bf16"
    try:
        flags = abouts(model_of())[0].ingredients["arithmetic"]["flags"]
    finally:
        of_products.fp32_precision = before
    assert flags["matmul_precision"] == "bf16"
