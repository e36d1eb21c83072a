"""A prefix on a folded, rounded copy computes what the model's own does, or says that it cannot."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
import torchvision
from graph.tiny import shake
from tiny import TinyNet, make_recipe
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.vision_transformer import VisionTransformer

from tlcompile.compiler import compile_recipe
from tlcompile.errors.precision import NotHardenedError
from tlcompile.features import hard
from tlcompile.features.folded import copy_prefix
from tlcompile.features.hard import FAST, FUSED, harden
from tlcompile.features.prefix import Prefix, Rows
from tlcompile.model.compiled import CompiledModel

CPU = torch.device("cpu")
FEW, MANY = 8, 10**12  # images: too few to compile for, and enough
# Relative, in the Euclidean norm. bf16 keeps 8 bits of a number: one rounding is up to 2^-9 = 2e-3 of
# it, and a net adds up those of its layers.
NEAR = {FUSED: 1e-6, FAST: 2e-2}


def compiled(base: nn.Module, upto: str, side: int = 16, **sections: Any) -> CompiledModel:
    recipe = make_recipe(base={"model": "digits_net", "size": side}, freeze=upto, **sections)
    return compile_recipe(recipe, shake(base), num_classes=2).eval()


def hardened(
    model: CompiledModel, precision: str, images: int = FEW, say: Callable[[str], None] = print
) -> Callable[..., Rows]:
    return harden(model, precision, CPU, images=images, say=say)


def assert_near(model: CompiledModel, precision: str, *inputs: Tensor) -> None:
    computed, exact = hardened(model, precision)(*inputs), model.prefix(*inputs)
    for one, other in zip(computed, exact, strict=True):
        assert one.dtype == (torch.bfloat16 if precision == FAST else torch.float32)
        assert one.shape == other.shape
        assert (one.double() - other.double()).norm() <= NEAR[precision] * other.double().norm()


def narrow_convnext() -> nn.Module:
    stages = [CNBlockConfig(a, b, 1) for a, b in itertools.pairwise([8, 16, 24, 32, None])]
    return ConvNeXt(stages, num_classes=4)


def small_vit() -> nn.Module:
    return VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=4)


ZOO = {
    "tiny": (TinyNet, "head", 16),
    "convnext": (narrow_convnext, "head", 64),
    "vit": (small_vit, "head", 32),
    "resnet18": (torchvision.models.resnet18, "layer3", 64),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, "features.9", 64),
}
LARGE = {
    "densenet121": (torchvision.models.densenet121, "features.denseblock3", 64),
    "vit_b_16": (partial(torchvision.models.vit_b_16, image_size=64), "head", 64),
    "swin_t": (torchvision.models.swin_t, "head", 64),
    "convnext_tiny": (torchvision.models.convnext_tiny, "features.5", 64),
    "efficientnet_b0": (torchvision.models.efficientnet_b0, "head", 64),
    "maxvit_t": (torchvision.models.maxvit_t, "head", 224),
    "vgg11_bn": (torchvision.models.vgg11_bn, "features.20", 64),
}


@cache
def of_the_zoo(name: str) -> CompiledModel:
    build, upto, side = {**ZOO, **LARGE}[name]
    return compiled(build(), upto, side)


@pytest.mark.parametrize("precision", [FUSED, FAST])
@pytest.mark.parametrize(
    "name", [*ZOO, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_it_computes_what_exact_computes(name: str, precision: str) -> None:
    side = {**ZOO, **LARGE}[name][2]
    assert_near(of_the_zoo(name), precision, torch.randn(4, 3, side, side))


@pytest.mark.parametrize("precision", [FUSED, FAST])
def test_the_model_stays_as_it_is(precision: str) -> None:
    model = compiled(TinyNet(), "head")
    tensors = {name: (t, t.clone(), t._version) for name, t in model.state_dict().items()}
    modules = [(type(module), module.training) for module in model.modules()]
    hardened(model, precision)(torch.randn(4, 3, 16, 16))
    for name, now in model.state_dict().items():
        held, was, version = tensors[name]
        assert now.data_ptr() == held.data_ptr()
        assert torch.equal(now, was)
        assert (now.dtype, now.stride(), now._version) == (was.dtype, was.stride(), version)
    assert [(type(module), module.training) for module in model.modules()] == modules


def test_nothing_is_copied_before_the_first_image(monkeypatch: pytest.MonkeyPatch) -> None:
    copies: list[CompiledModel] = []
    monkeypatch.setattr(hard, "copy_prefix", lambda m: copies.append(m) or copy_prefix(m))
    model = compiled(TinyNet(), "head")
    run = hardened(model, FUSED)
    assert not copies
    for _ in range(3):
        run(torch.randn(4, 3, 16, 16))
    assert copies == [model]


def test_the_copy_holds_the_prefix_alone() -> None:
    root = copy_prefix(compiled(TinyNet(), "bn1"))
    assert {name.partition(".")[0] for name in root.state_dict()} == {"conv1", "bn1"}


class Awkward(TinyNet):
    """Norms before a layer, behind one that is used twice, and behind one that is the boundary."""

    def __init__(self) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(self.bn0(x))).relu()
        once = self.bn2(self.conv2(x)).relu()
        return self.fc(self.flatten(self.pool(once + self.conv2(once))))


@pytest.mark.parametrize("precision", [FUSED, FAST])
@pytest.mark.parametrize("upto", ["head", "conv1", "bn1"])
def test_norms_that_cannot_be_folded_are_computed(upto: str, precision: str) -> None:
    model = compiled(Awkward(), upto)
    assert len(model.folds) == (upto != "conv1")
    assert_near(model, precision, torch.randn(4, 3, 16, 16))


class Tied(TinyNet):
    """Two convolutions with one weight, each with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv2.weight = self.conv1.weight

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.cat([x, x, x[:, :2]], 1))


def test_a_weight_of_two_layers_is_folded_into_each() -> None:
    model = compiled(Tied(), "head")
    assert len(model.folds) == 2
    assert_near(model, FUSED, torch.randn(4, 3, 16, 16))


class TwoInputs(TinyNet):
    """An image, and a class that picks a row of a table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8)

    def forward(self, x: Tensor, kind: Tensor) -> Tensor:
        x = self.pool(self.bn1(self.conv1(x)).relu()).flatten(1)
        return self.fc(x + self.table(kind))


def test_inputs_that_are_no_images_pass() -> None:
    inputs = {"kind": {"shape": [], "dtype": "int64"}}
    base = {"model": "digits_net", "size": 16}
    recipe = make_recipe(base=base, inputs=inputs, freeze="add")
    model = compile_recipe(recipe, shake(TwoInputs()), num_classes=2).eval()
    for precision in (FUSED, FAST):
        assert_near(model, precision, torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 1, 1]))


def test_rows_can_be_trained_on() -> None:
    model = compiled(TinyNet(), "bn1")
    prefix = Prefix(model, 4, CPU, hardened(model, FUSED))
    model.train()
    model.suffix(*prefix(torch.randn(4, 3, 16, 16))).sum().backward()
    assert model.get_parameter("conv2.weight").grad is not None


class Complex(TinyNet):
    """An operation that takes no bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return super().forward(torch.complex(x, x).abs())


def test_a_prefix_that_refuses_bf16_is_refused_by_name() -> None:
    model, images = compiled(Complex(), "abs"), torch.randn(4, 3, 16, 16)
    assert_near(model, FUSED, images)
    with pytest.raises(NotHardenedError) as refused:
        hardened(model, FAST)(images)
    assert "BFloat16" in refused.value.facts()["found"]
    assert refused.value.key == ("features", "precision")
    assert "features.precision=exact" in str(refused.value)


@pytest.mark.parametrize("precision", [FUSED, FAST])
@pytest.mark.parametrize("factor", [1.5, float("nan")])
def test_other_numbers_are_refused(
    monkeypatch: pytest.MonkeyPatch, precision: str, factor: float
) -> None:
    def spoiled(model: CompiledModel) -> nn.Module:
        root = copy_prefix(model)
        root.get_parameter("conv1.weight").mul_(factor)
        return root

    monkeypatch.setattr(hard, "copy_prefix", spoiled)
    with pytest.raises(NotHardenedError, match="'relu' differs from exact by"):
        hardened(compiled(TinyNet(), "bn1"), precision)(torch.randn(4, 3, 16, 16))


@pytest.mark.parametrize("precision", [FUSED, FAST])
def test_without_a_compiler_it_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    model, lines, images = compiled(TinyNet(), "bn2"), list[str](), torch.randn(4, 3, 16, 16)
    (computed,) = hardened(model, precision, MANY, lines.append)(images)
    (expected,) = hardened(model, precision)(images)
    assert torch.equal(computed, expected)
    (line,) = lines
    assert "no C++ compiler" in line


def broken(model: nn.Module, **_options: Any) -> Callable[..., Rows]:
    raise RuntimeError("out of registers")


def lying(model: nn.Module, **_options: Any) -> Callable[..., Rows]:
    return lambda *inputs: tuple(1.1 * tensor for tensor in model(*inputs))


@pytest.mark.parametrize(
    ("compiler", "why"), [(broken, "out of registers"), (lying, "differs from exact")]
)
def test_a_compiler_that_fails_costs_one_line(
    monkeypatch: pytest.MonkeyPatch, compiler: Callable[..., Any], why: str
) -> None:
    monkeypatch.setattr(hard, "_has_compiler", lambda: True)
    monkeypatch.setattr(torch, "compile", compiler)
    model, lines, images = compiled(TinyNet(), "bn2"), list[str](), torch.randn(4, 3, 16, 16)
    (computed,) = hardened(model, FUSED, MANY, lines.append)(images)
    (expected,) = hardened(model, FUSED)(images)
    assert torch.equal(computed, expected)
    (line,) = lines
    assert why in line


def test_few_images_are_not_compiled_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", broken)
    lines: list[str] = []
    hardened(compiled(TinyNet(), "bn2"), FUSED, FEW, lines.append)(torch.randn(4, 3, 16, 16))
    assert not lines


@pytest.mark.slow
@pytest.mark.parametrize("precision", [FUSED, FAST])
def test_compiled_it_computes_what_exact_computes(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """A tenth model, too: torch.compile gives up on code that it has compiled for eight others."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    lines, images = list[str](), torch.randn(4, 3, 16, 16)
    for number in range(10):
        graphs = counters["stats"]["unique_graphs"]
        model = compiled(TinyNet(width=4 + number), "bn2")
        run = hardened(model, precision, MANY, lines.append)
        (computed,), (exact,) = run(images), model.prefix(images)
        assert counters["stats"]["unique_graphs"] == graphs + 1
        assert (computed.double() - exact).norm() <= NEAR[precision] * exact.norm()
    assert not lines


def test_fast_rows_give_the_predictions_of_exact_ones() -> None:
    """A probe that was fitted to exact features sees fast ones: at least 99 of 100 answers stay."""
    model = compiled(torchvision.models.resnet18(), "head", 32)
    labels = torch.arange(300) % 3
    images = torch.randn(300, 3, 32, 32) + torch.eye(3)[labels][:, :, None, None] * 0.5
    (exact,), (fast,) = model.prefix(images), hardened(model, FAST)(images)
    targets = torch.eye(3)[labels]
    probe = torch.linalg.lstsq(exact[:200] - exact.mean(0), targets[:200], driver="gelsd").solution
    wanted, found = (((rows.float() - exact.mean(0)) @ probe).argmax(1) for rows in (exact, fast))
    assert (wanted[200:] == labels[200:]).float().mean() > 0.5, "or the probe has learned nothing"
    assert (wanted != found)[200:].sum() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [FUSED, FAST])
def test_a_graph_of_the_gpu_computes_what_exact_computes(precision: str) -> None:
    model, lines = compiled(TinyNet(), "head").to("cuda"), list[str]()
    run = harden(model, precision, torch.device("cuda"), images=FEW, say=lines.append)
    first, second = torch.randn(2, 4, 3, 16, 16)
    (one,) = run(first)
    kept = one.clone()
    run(second)
    assert torch.equal(one, kept), "a replay must not overwrite rows that were given"
    assert not lines
    for images in (first, second, first[:3]):  # the last has another shape, and no graph
        (computed,), (exact,) = run(images), model.prefix(images.to("cuda"))
        assert (computed.double() - exact).norm() <= NEAR[precision] * exact.norm()
