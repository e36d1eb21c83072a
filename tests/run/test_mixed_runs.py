"""Mixing in a run: it changes what is learned, never what is judged, and where it stands matters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlcompile.compiler import compile_recipe
from tlcompile.data.samples import generator
from tlcompile.data.targets import TensorTargets
from tlcompile.features.augment import AugmentedSource
from tlcompile.features.mixed import MixedSource
from tlcompile.features.prefix import Prefix
from tlcompile.features.sources import InMemory, KeptSource, LiveSource
from tlcompile.run.mixing import mixed_rows, with_mixed_images
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.training.goal import Goal
from tlcompile.training.mixing import Mixing
from tlcompile.training.objective import Objective

TUNE = {"epochs": 1, "batch_size": 4, "optimizer": {"name": "sgd", "lr": 0.05}}
LIVE = {"cache": "off"}
HEAD = {"upto": "flatten"}
NET = TinyNet(dropout=0.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"), side=16)


def run(folder: Path, pictures: Path, **sections: Any) -> RunResult:
    data = {"folder": str(pictures), **sections.pop("data", {})}
    base = {"model": "digits_net", "size": 16}
    return train_recipe(
        make_recipe(base=base, data=data, fine_tune=TUNE, **sections), folder, base=NET
    )


WAYS: dict[str, dict[str, Any]] = {
    "mixup of images": {"data": {"mix": {"mixup": 1.0}}, "freeze": "none"},
    "cutmix of images": {"data": {"mix": {"cutmix": 1.0}}, "freeze": "none"},
    "mixup of images before a frozen part": {
        "data": {"mix": {"mixup": 1.0}}, "freeze": HEAD, "features": LIVE,
    },
    "mixup of kept features": {"features": {"augment": {"mixup": 1.0}}, "freeze": HEAD},
    "mixup of a binary task": {
        "data": {"mix": {"mixup": 1.0}}, "freeze": "none", "task": "binary",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_mixing_changes_what_is_learned_and_not_what_is_judged(
    tmp_path: Path, pictures: Path, name: str
) -> None:
    sections = WAYS[name]
    data = {k: v for k, v in sections.get("data", {}).items() if k != "mix"}
    features = {k: v for k, v in sections.get("features", {}).items() if k != "augment"}
    plain = run(tmp_path / "a", pictures, **{**sections, "data": data, "features": features})
    mixed = run(tmp_path / "b", pictures, **sections)
    assert mixed.history[0].train.loss != plain.history[0].train.loss
    assert mixed.history[0].val is not None
    assert mixed.history[0].val.count == 2


def test_a_run_that_mixes_is_the_same_again(tmp_path: Path, pictures: Path) -> None:
    once, again = (run(tmp_path / n, pictures, **WAYS["mixup of images"]) for n in "ab")
    assert once.history[0].train == again.history[0].train
    found, same = once.model.state_dict(), again.model.state_dict()
    assert all(torch.equal(found[key], same[key]) for key in found)


def objective(*outputs: str) -> Objective:
    loss = cross_entropy
    goals = {name: Goal(task="classification", classes=("a", "b"), loss=loss) for name in outputs}
    goals |= {} if "" in outputs else {"age": Goal(task="regression", classes=("age",), loss=loss)}
    return Objective(goals)


def test_where_nothing_is_frozen_the_loop_mixes_images() -> None:
    recipe = make_recipe(data={"mix": {"mixup": 0.3, "cutmix": 1.0}}, freeze="none")
    model = compile_recipe(recipe, TinyNet(), num_classes=2)
    assert mixed_rows(recipe, model, objective("")) == Mixing(0.3, 1.0, 2)
    several = mixed_rows(recipe, model, objective("kind"))
    assert several == Mixing(0.3, 1.0, {"kind": 2, "age": None})


def test_where_features_are_kept_the_loop_mixes_them_alone() -> None:
    recipe = make_recipe(features={"augment": {"mixup": 0.3}}, freeze=HEAD)
    model = compile_recipe(recipe, TinyNet(), num_classes=2)
    assert mixed_rows(recipe, model, objective("")) == Mixing(0.3, None, 2)
    assert mixed_rows(make_recipe(freeze=HEAD), model, objective("")) is None


def live(recipe: Any) -> tuple[Any, LiveSource, Tensor]:
    model = compile_recipe(recipe, TinyNet(), num_classes=2)
    images = torch.randn(10, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    prefix = Prefix(model, 4, torch.device("cpu"))
    targets = TensorTargets(torch.arange(10) % 2)
    return model, LiveSource(lambda pairs: images[[i for i, _ in pairs]], prefix, targets), images


MIXED = {"data": {"mix": {"mixup": 1.0}}, "features": LIVE, "freeze": HEAD}


def test_a_frozen_part_sees_mixed_images() -> None:
    recipe = make_recipe(**MIXED)
    model, source, images = live(recipe)
    train = with_mixed_images({"train": source}, recipe, model, objective(""))["train"]
    batches = [[3, 1, 4, 5, 9], [2, 6, 0]]
    for number, (rows, targets) in enumerate(train.batches(batches, epoch=2)):
        random = generator(42, "mix", 2, number, 0)
        labels = torch.tensor(batches[number]) % 2
        wanted, soft = Mixing(1.0, None, 2)((images[batches[number]],), labels, random)
        assert torch.equal(targets, soft)
        assert all(map(torch.equal, rows, source.prefix(*wanted)))


def test_a_frozen_part_after_a_resume_sees_the_same() -> None:
    recipe = make_recipe(**MIXED)
    model, source, _ = live(recipe)
    train = with_mixed_images({"train": source}, recipe, model, objective(""))["train"]
    batches = [[3, 1, 4], [2, 6, 0], [7, 8]]
    whole = list(train.batches(batches, epoch=1))
    rest = list(train.batches(batches, epoch=1, first=1))
    assert len(rest) == 2
    for (rows, targets), (again, soft) in zip(whole[1:], rest, strict=True):
        assert torch.equal(targets, soft)
        assert all(map(torch.equal, rows, again))


def test_only_training_images_before_a_frozen_part_are_mixed() -> None:
    recipe = make_recipe(**MIXED)
    model, source, _ = live(recipe)
    noisy = AugmentedSource(source, 0.1, 0.0, 42)
    kept = KeptSource(InMemory((torch.zeros(1),)), source.targets)
    given = {"train": noisy, "val": source, "test": kept}
    found = with_mixed_images(given, recipe, model, objective(""), rank=3)
    assert found["val"] is source
    assert found["test"] is kept
    train = found["train"]
    assert isinstance(train, AugmentedSource)
    assert isinstance(train.source, MixedSource)
    assert (train.noise, train.source.rank, train.source.seed) == (0.1, 3, 42)
    plain = make_recipe(features=LIVE, freeze=HEAD)
    assert with_mixed_images(given, plain, model, objective("")) == given
