"""Training on features that were computed once equals training live, to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from tiny import TinyNet, make_pictures, make_recipe
from torch import nn
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from tlcompile.features.sources import KeptSource, LiveSource
from tlcompile.run.train import RunResult, train_recipe

LIVE = {"cache": "off"}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 2 classes of 9 pictures: 14 to train on, so a last batch is short."""
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=9, side=64)


def run(
    folder: Path, pictures: Path, base: nn.Module, features: dict[str, Any], **sections: Any
) -> RunResult:
    size = sections.pop("size", 32)
    sections.setdefault(
        "fine_tune", {"epochs": 2, "batch_size": 4, "optimizer": {"name": "sgd", "lr": 0.05}}
    )
    data = {"folder": str(pictures), **sections.pop("data", {})}
    recipe = make_recipe(
        base={"model": "digits_net", "size": size},
        data=data,
        features={"batch_size": 4, **features},
        **sections,
    )
    return train_recipe(recipe, folder, base=base)


def assert_equal(one: RunResult, other: RunResult) -> None:
    for (name, a), (_, b) in zip(
        one.model.state_dict().items(), other.model.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name
    for a, b in zip(one.history, other.history, strict=True):
        assert (a.train, a.val, a.lr) == (b.train, b.val, b.lr)


def sources_used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tell which kind of source each epoch used: a test of equality must compare two kinds."""
    used: list[str] = []
    for kind in (LiveSource, KeptSource):
        original = kind.batches

        def batches(self: Any, *given: Any, _original: Any = original) -> Any:
            used.append(type(self).__name__)
            return _original(self, *given)

        monkeypatch.setattr(kind, "batches", batches)
    return used


@pytest.mark.parametrize("batch_size", [4, 16])
@pytest.mark.parametrize("upto", ["bn1", "bn2", "flatten", "head"])
def test_tiny_net(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch, upto: str, batch_size: int
) -> None:
    used = sources_used(monkeypatch)
    base = TinyNet()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    tune = {"epochs": 3, "batch_size": batch_size}
    once = run(tmp_path / "a", pictures, base, {}, freeze=upto, fine_tune=tune)
    assert set(used) == {"KeptSource"}
    used.clear()
    live = run(tmp_path / "b", pictures, base, LIVE, freeze=upto, fine_tune=tune)
    assert set(used) == {"LiveSource"}
    assert_equal(once, live)
    for (name, was), now in zip(before.items(), base.state_dict().values(), strict=True):
        assert torch.equal(was, now), f"the user's own module is as it was: {name}"


ZOO = {
    "resnet18": ("layer3", torchvision.models.resnet18),
    "mobilenet_v3_small": ("features.9", torchvision.models.mobilenet_v3_small),
    "squeezenet1_0": ("features.7", torchvision.models.squeezenet1_0),
    "densenet121": ("features.denseblock3", torchvision.models.densenet121),
    "vgg11": ("features.15", torchvision.models.vgg11),
    "vit_b_16": (
        "encoder.layers.encoder_layer_9",
        partial(torchvision.models.vit_b_16, image_size=64),
    ),
}
# Their bundles take half a gigabyte a run; of the others one batch size is enough by default.
LARGE = ("vgg11", "vit_b_16", "densenet121")
CASES = [
    pytest.param(name, size, marks=pytest.mark.slow if name in LARGE or size == 4 else ())
    for name in ZOO
    for size in (4, 16)
]


@pytest.mark.parametrize(("name", "batch_size"), CASES)
def test_models_of_the_zoo(tmp_path: Path, pictures: Path, name: str, batch_size: int) -> None:
    upto, build = ZOO[name]
    base = build(num_classes=4)
    tune = {"epochs": 1, "batch_size": batch_size, "optimizer": {"name": "sgd", "lr": 0.01}}
    runs = [
        run(
            tmp_path / str(n),
            pictures,
            base,
            {"batch_size": 8, **kind},
            size=64,
            freeze=upto,
            fine_tune=tune,
        )
        for n, kind in enumerate([{}, LIVE])
    ]
    assert runs[0].model.boundary
    assert_equal(*runs)


def narrow_convnext() -> nn.Module:
    """Build a ConvNeXt whose four stages are one thin block each; the layouts are convnext_tiny's."""
    widths = [8, 16, 24, 32, None]
    stages = [CNBlockConfig(a, b, 1) for a, b in itertools.pairwise(widths)]
    return ConvNeXt(stages, num_classes=4)


@pytest.mark.parametrize(
    "build",
    [
        narrow_convnext,
        pytest.param(
            partial(torchvision.models.convnext_tiny, num_classes=4), marks=pytest.mark.slow
        ),
    ],
)
def test_a_boundary_in_a_permuted_layout(
    tmp_path: Path, pictures: Path, build: Callable[[], nn.Module]
) -> None:
    base = build()
    # The boundary is a block's own input, whose memory is channels-last.
    runs = [
        run(
            tmp_path / str(n),
            pictures,
            base,
            kind,
            size=64,
            freeze="features.5",
            fine_tune={"epochs": 1, "batch_size": 4},
        )
        for n, kind in enumerate([{}, LIVE])
    ]
    with torch.no_grad():
        (tensor,) = runs[0].model.prefix(torch.zeros(2, 3, 64, 64))
    assert not tensor.is_contiguous(), "or this test shows nothing"
    assert_equal(*runs)


AUGMENT = {"augment": {"train": ["random_resized_crop", "horizontal_flip"]}}


def test_one_view_is_the_same_kept_and_live(tmp_path: Path, pictures: Path) -> None:
    base, tune = TinyNet(), {"epochs": 2, "batch_size": 4}
    once = run(tmp_path / "a", pictures, base, {"views": 1}, data=AUGMENT, fine_tune=tune)
    live = run(tmp_path / "b", pictures, base, {"views": 1, **LIVE}, data=AUGMENT, fine_tune=tune)
    plain = run(tmp_path / "c", pictures, base, {}, fine_tune=tune)
    assert_equal(once, live)
    assert once.history[0].train.loss != plain.history[0].train.loss


def test_the_number_of_workers_changes_nothing(tmp_path: Path, pictures: Path) -> None:
    base = TinyNet()
    runs = [
        run(
            tmp_path / str(workers),
            pictures,
            base,
            {"views": 2},
            data=AUGMENT,
            run={"workers": workers},
        )
        for workers in (0, 1, 3)
    ]
    assert_equal(runs[0], runs[1])
    assert_equal(runs[0], runs[2])


def test_the_same_recipe_gives_the_same_bytes(tmp_path: Path, pictures: Path) -> None:
    base = TinyNet()
    for name in ("a", "b"):
        run(tmp_path / name, pictures, base, {}, freeze="bn1")
        torch.manual_seed(99)  # what ran before never matters
    for path in (
        "bundle/model.safetensors",
        "bundle/golden.safetensors",
        "last/model.safetensors",
        "recipe.yaml",
    ):
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_another_seed_gives_another_result(tmp_path: Path, pictures: Path) -> None:
    base = TinyNet()
    runs = [
        run(tmp_path / str(seed), pictures, base, {}, fine_tune={"seed": seed, "epochs": 1})
        for seed in (1, 2)
    ]
    assert not torch.equal(runs[0].model.fc.weight, runs[1].model.fc.weight)


def test_views_kept_equal_views_live(tmp_path: Path, pictures: Path) -> None:
    """The views of a recipe are the same whether they fit in memory or not."""
    base = TinyNet()
    augment = {"augment": {"train": ["random_resized_crop", "horizontal_flip"]}}
    runs = [
        run(
            tmp_path / str(n),
            pictures,
            base,
            {"views": 3, **kind},
            freeze="bn1",
            data=augment,
            fine_tune={"epochs": 4, "batch_size": 4},
        )
        for n, kind in enumerate([{}, LIVE])
    ]
    assert len({row.train.loss for row in runs[0].history}) == 4
    assert_equal(*runs)
