"""Where the cut lies: with the frozen part, behind what saves bytes, and before what has no rows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from graph.tiny import SIDE, TINY, Chain, recipe, shake
from tlcompile.compiler import compile_recipe
from tlcompile.model.compiled import CompiledModel
from tlcompile.model.part import part_of


def frozen_at(base: nn.Module, point: str, **sections: Any) -> CompiledModel:
    plain = {"head": "keep", "freeze": {"upto": [point]}, **sections}
    return compile_recipe(recipe(**plain), base=base, num_classes=3)


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE)


def check_halves(model: CompiledModel, *inputs: Tensor) -> None:
    """Prefix and suffix are the whole in both modes, under one seed, at two sizes of the batch."""
    for given in (inputs, tuple(tensor[:3] for tensor in inputs)):
        for mode in (False, True):
            model.train(mode)
            whole, halves = [], []
            for found, compute in (
                (whole, lambda x: model(*x)),
                (halves, lambda x: model.suffix(*model.prefix(*x))),
            ):
                torch.manual_seed(0)
                found += torch.utils._pytree.tree_leaves(compute(given))
            assert len(whole) == len(halves) > 0
            assert all(map(torch.equal, whole, halves)), mode


def cut_of(model: CompiledModel) -> list[str]:
    return [one.vertex for one in model.boundary]


# One boundary tensor, alone.


@pytest.mark.parametrize("name", TINY)
def test_a_boundary_s_program_computes_it_alone(name: str) -> None:
    points = {"chain": "bn", "residual": "layer1.0", "branches": "left"}
    model, x = frozen_at(shake(TINY[name]()), points[name]).eval(), images()
    assert len(model.boundary) == {"branches": 2}.get(name, 1)
    for one, tensor in zip(model.boundary, model.prefix(x), strict=True):
        assert one.program.inputs == ("x",)
        with torch.no_grad():
            assert torch.equal(one.program.function()(model.tree, x), tensor)
        assert one.targets == one.program.targets
        alone = part_of(model.tree, set(one.targets))
        with torch.no_grad():
            assert torch.equal(one.program.function()(alone, x), tensor)


def test_a_boundary_s_program_is_the_same_whatever_stands_behind() -> None:
    base = Chain()
    both = {"layer": "concat", "inputs": ["flatten", "meta"]}
    fc = {"layer": "linear", "out": 3, "inputs": ["drop"]}
    wide = {"wide": {"layer": "linear", "out": 7, "inputs": ["drop"], "activation": "relu"}}
    behind: list[dict[str, Any]] = [
        {},
        {"head": "auto"},
        {"freeze": {"upto": ["conv"]}},
        {"freeze": {"upto": ["pool"]}},
        {"remove": {"fc": "replace"}, "add": {**wide, "fc": {**fc, "inputs": ["wide"]}}},
        {
            "remove": {"fc": "replace", "drop": "bypass"},
            "add": {"fc": {**fc, "inputs": ["flatten"]}},
        },
        {
            "inputs": {"meta": {"shape": [4]}},
            "remove": {"fc": "replace"},
            "add": {"both": both, "fc": {**fc, "inputs": ["both"]}},
        },
        {"outputs": ["fc", "flatten"]},
    ]
    found: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for sections in behind:
        for one in frozen_at(base, "bn", **sections).boundary:
            found.setdefault(one.vertex, set()).add((one.program.source, one.targets))
    assert found.keys() == {"conv", "flatten", "meta"}
    assert all(len(texts) == 1 for texts in found.values())


class Kinds(nn.Module):
    """Rows of several dtypes cross."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        seen = self.conv(x)
        half, sure = seen.to(torch.bfloat16), seen > 0
        low = self.fc(half.float().mean((2, 3)))
        return low * sure.flatten(1)[:, :3], self.fc(half.to(torch.float32).amax((2, 3)))


def test_a_boundary_says_its_dtype_and_its_bytes() -> None:
    model = frozen_at(Kinds(), "gt")
    sizes = {one.vertex: (one.dtype, one.num_bytes) for one in model.boundary}
    assert sizes["getitem"] == ("bool", 3)
    assert all(num_bytes > 0 for _, num_bytes in sizes.values())
    check_halves(model, images())


# Behind the freeze point: what saves bytes, and is the same in both modes.


class Behind(nn.Module):
    """A frozen convolution, something behind it, a classifier over the mean of what is left."""

    def __init__(self, behind: Callable[[Tensor], Tensor] | nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.behind = behind
        self.fc = nn.LazyLinear(3)
        with torch.no_grad():
            self(torch.zeros(2, 3, SIDE, SIDE))

    def forward(self, x: Tensor) -> Any:
        return self.fc(self.behind(self.conv(x)).flatten(1))


class Both(nn.Module):
    """The average and the maximum of a map, side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_avg_pool2d(x, 1), F.adaptive_max_pool2d(x, 1)], 1)


MOVED = [
    (nn.Identity(), "flatten"),
    (nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), "flatten"),
    (Both(), "flatten"),
    (lambda x: x.clamp(min=0).mean((2, 3)), "flatten"),
    (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(0.5)), "behind.0"),
]


@pytest.mark.parametrize(("behind", "vertex"), MOVED)
def test_the_cut_lies_behind_what_saves_bytes(behind: Any, vertex: str) -> None:
    model = frozen_at(Behind(behind), "conv")
    assert cut_of(model) == [vertex]
    assert model.frozen.modules == {"conv"}
    assert {name for name, _ in model.trainable()} == {"fc.weight", "fc.bias"}
    check_halves(model, images())


@fx.wrap
def drawn(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2) * torch.rand_like(x[..., :7, :7])


@fx.wrap
def mean(x: Tensor) -> Tensor:
    """A user's own: torch's name, another function."""
    return drawn(x)


def hooked() -> nn.Module:
    pool = nn.AvgPool2d(2)
    pool.register_forward_hook(lambda *_: None)
    return pool


class Doubling(nn.AvgPool2d):
    """A user's own pool: torch's name, another forward."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (2 if self.training else 1)


STAYED = {
    "grows": lambda x: torch.cat([x, x], 1),
    "is none of the known ones": nn.Upsample(scale_factor=2),
    "random in train mode": nn.Sequential(nn.Dropout(0.5), nn.AvgPool2d(2)),
    "random in both modes": lambda x: F.avg_pool2d(F.dropout(x, 0.5, True), 2),
    "random leaf of torch": nn.FractionalMaxPool2d(2, output_size=4),
    "tuple of a function that draws": lambda x: F.fractional_max_pool2d(
        x, 2, output_size=4, return_indices=True
    )[0],
    "function that draws": lambda x: drawn(x),
    "function with a name of torch's": lambda x: mean(x),
    "normalises by the batch": nn.Sequential(nn.BatchNorm2d(4, affine=False), nn.AvgPool2d(2)),
    "softmax over the samples": nn.Sequential(nn.Softmax(0), nn.AvgPool2d(2)),
    "reads other samples": lambda x: F.avg_pool2d(x.roll(1, 0), 2),
    "divides by the batch": lambda x: F.avg_pool2d(x / x.shape[0], 2),
    "takes a batch of one away": lambda x: x.amax((2, 3), keepdim=True).squeeze().relu(),
    "has a hook": hooked(),
    "is the user's own": Doubling(2),
}


@pytest.mark.parametrize("why", STAYED)
def test_it_stays_in_the_suffix_where_it(why: str) -> None:
    model = frozen_at(Behind(STAYED[why]), "conv")
    assert cut_of(model) == (["amax"] if "away" in why else ["conv"])
    check_halves(model, images())


def test_the_cut_stays_where_another_branch_needs_the_map() -> None:
    assert cut_of(frozen_at(TINY["residual"](), "layer1.0")) == ["layer1.0.relu_1"]


def test_what_is_frozen_alone_is_never_in_the_prefix() -> None:
    freeze = {"upto": ["bn"], "only": ["pool"]}
    assert cut_of(frozen_at(Chain(), "bn", freeze=freeze)) == ["relu"]


def test_an_added_vertex_that_saves_nothing_stays_behind_the_rows() -> None:
    flat = {"flat": {"layer": "flatten", "inputs": ["pooled"]}}
    pooled = {"pooled": {"layer": "global_pool", "inputs": ["bn"]}}
    fc = {"fc": {"layer": "linear", "out": 3, "inputs": ["flat"]}}
    for point in ("bn", "conv"):
        model = frozen_at(Chain(), point, remove={"fc": "replace"}, add={**pooled, **flat, **fc})
        assert cut_of(model) == (["pooled"] if point == "bn" else ["conv"])


def test_where_nothing_learns_the_output_is_computed_in_the_suffix() -> None:
    model = frozen_at(Behind(nn.ReLU()), "conv", outputs=["behind"])
    assert not list(model.trainable())
    assert cut_of(model) == ["conv"]
    check_halves(model, images())


# Before the freeze point: what has no row for each sample.


class Windows(nn.Module):
    """Attention in windows, as in Swin: the windows of all images lie below each other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5))
        self.mix = nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.norm(self.stem(x)).permute(0, 2, 3, 1)
        count, high, wide, width = x.shape
        x = x.view(count, high // 2, 2, wide // 2, 2, width).permute(0, 1, 3, 2, 4, 5)
        x = self.mix(self.inner(x.reshape(-1, 4, width)))
        x = x.view(count, high // 2, wide // 2, 4, width)
        return self.fc(x.mean((1, 2, 3)))


class StepsFirst(nn.Module):
    """Tokens with the batch second, as torch's transformers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.norm, self.low, self.top = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.fc = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Any:
        steps = self.norm(self.conv(x).flatten(2).permute(2, 0, 1))
        return self.fc(self.top(self.low(steps)).mean(0))


class Recurrent(nn.Module):
    """A recurrent layer that returns a tuple in a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 4, stride=4)
        self.cells = nn.LSTM(8, 5, batch_first=True)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Any:
        _, (hidden, _) = self.cells(self.conv(x).flatten(2).transpose(1, 2))
        return self.fc(hidden[-1])


class Gram(nn.Module):
    """Each sample against each: as many columns as rows."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.fc = nn.Linear(768, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.low(x.flatten(1))
        return self.fc(torch.matmul(x, x.t()).softmax(1) @ x)


MOVED_BACK = [
    (Gram, "softmax", ["low"], "softmax"),
    (Windows, "inner", ["permute_1"], "inner.1"),
    (Windows, "mix", ["permute_1"], "mix"),
    (StepsFirst, "low", ["flatten"], "low"),
    (Recurrent, "cells", ["transpose"], "getitem_2"),
]


@pytest.mark.parametrize(("kind", "point", "cut", "named"), MOVED_BACK)
def test_the_cut_lies_before_what_has_no_rows(
    kind: Callable[[], nn.Module], point: str, cut: list[str], named: str
) -> None:
    model = frozen_at(shake(kind()), point)
    assert cut_of(model) == cut
    assert model.not_cacheable == ""
    assert any(f"'{named}' (" in note and cut[0] in note for note in model.summary.notes)
    check_halves(model, images())


def test_what_is_frozen_and_runs_in_the_suffix_stays_frozen() -> None:
    model = frozen_at(shake(Windows()), "mix").train()
    before = {n: t.clone() for n, t in model.state_dict().items() if n in model.frozen.tensors}
    assert {"inner.0.weight", "mix.bias", "norm.running_mean"} <= before.keys()
    rows, optimizer = model.prefix(images()), torch.optim.SGD(model.parameters(), lr=0.1)
    first, again = model.suffix(*rows), model.suffix(*rows)
    assert torch.equal(first, again)  # its dropout is off
    first.sum().backward()
    optimizer.step()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == {
        "fc.weight",
        "fc.bias",
    }
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items() if n in before)


class Mixed(nn.Module):
    """Everything that is frozen lies behind the samples of all images in one long row."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.top, self.fc = nn.Linear(8, 6), nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Any:
        x = self.top(self.low(x.flatten(1).reshape(-1, 8)))
        return self.fc(x.view(-1, 96, 6).mean(1))


def test_where_nothing_can_be_kept_the_model_says_so_and_runs() -> None:
    model = frozen_at(shake(Mixed()), "top")
    assert model.boundary == ()
    assert model.not_cacheable.count("'top' (96N, 6) has no row for each sample") == 1
    assert model.not_cacheable in model.summary.notes
    assert model.frozen.modules == {"low", "top"}
    check_halves(model, images())
    assert copy.deepcopy(model).not_cacheable == model.not_cacheable


def test_where_nothing_is_frozen_nothing_is_missing() -> None:
    model = frozen_at(Chain(), "none")
    assert (model.boundary, model.not_cacheable, model.summary.notes) == ((), "", ())


# Several tensors, raw inputs, several outputs, values that are no tensors.


class Several(nn.Module):
    """Two inputs, two outputs, sizes on both sides of the cut, an input that both sides read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.low = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 3)
        self.side, self.top = nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)
        self.fc, self.numbers = nn.Linear(5, 3), nn.Linear(2, 5)

    def forward(self, x: Tensor, meta: Tensor) -> Any:
        stem = self.stem(x)
        low = self.low(stem)
        count, high, wide = low.shape[0], low.size(2), low.shape[-1]
        side = self.side(stem)[:, :, :high, :wide]
        scaled = (side + self.top(low)).view(count, -1, high * wide).mean(-1)
        scaled = scaled + self.numbers(meta) + torch.zeros(1, dtype=low.dtype, device=low.device)
        return {"logits": self.fc(scaled) + meta.sum() / count, "mean": low.mean((2, 3))}


def test_several_tensors_inputs_and_outputs_cross() -> None:
    text: dict[str, Any] = {"inputs": {"meta": {"shape": [2]}}}
    model = frozen_at(shake(Several()), "low", **text)
    assert cut_of(model) == ["meta", "stem", "low"]
    x, meta = images(), torch.randn(4, 2)
    check_halves(model, x, meta)
    assert model.prefix(x, meta)[0] is meta
    assert [one.program.inputs for one in model.boundary] == [("meta",), ("x",), ("x",)]
    assert set(model.suffix(*model.prefix(x, meta))) == {"logits", "mean"}
