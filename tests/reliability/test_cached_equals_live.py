"""Bar B6: a run whose features come from the store is, to the bit, the run that computes them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, make_recipe
from torch import Tensor, nn

from reliability.small_runs import pictures
from tlcompile.run.train import RunResult, train_recipe

SIDE, CHUNK = 12, 4


class TwoWays(nn.Module):
    """Two tensors cross behind `stem`: one permuted in memory, both of one storage."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.stem(x).relu().chunk(2, dim=1)
        both = self.left(one) + self.right(other.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.fc(both.mean((2, 3)))


class Asks(nn.Module):
    """One vertex, for it asks about its input; with an option and state of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.by = 1.5
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x) * self.by if x.shape[0] < 10**9 else x


class Own(nn.Module):
    """A user's module."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.asks = Asks()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.fc = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.asks(self.conv(x)).flatten(2).transpose(1, 2)
        return self.fc(self.attend(tokens, tokens, tokens, need_weights=False)[0].mean(1))


@dataclass(frozen=True)
class Job:
    """A recipe over small pictures, or over the bundled digits where there is no base."""

    sections: dict[str, Any]
    base: Callable[[], nn.Module] | None = TinyNet
    vertices: tuple[str, ...] = ()  # what the store keeps
    data: dict[str, Any] = field(default_factory=dict)


DIGITS = {"dataset": "digits", "per_class": 4, "classes": ["7", "3", "5"], "split": {"val": 0.02}}
RANDOM = {"augment": {"train": ["random_resized_crop", "rotation"], "seed": 5}}
MIRRORED = {"augment": {"train": ["horizontal_flip"], "val": ["color_jitter"]}}
JOBS: dict[str, Job] = {
    "digits": Job({"freeze": "block1"}, None, ("block1.pool",)),
    "BatchNorm and dropout": Job({"freeze": "bn2"}, TinyNet, ("flatten",)),
    "two tensors cross": Job({"freeze": "stem"}, TwoWays, ("getitem", "permute")),
    "views": Job(
        {"freeze": "bn1", "features": {"views": 3}, "fine_tune": {"epochs": 4}},
        vertices=("relu",),
        data=RANDOM,
    ),
    "mirrored views": Job(
        {"freeze": "bn1", "features": {"views": 2}}, vertices=("relu",), data=MIRRORED
    ),
    "a user's module": Job({"freeze": "asks"}, Own, ("transpose",)),
    "a user's module, up to its attention": Job({"freeze": "attend"}, Own, ("mean",)),
    "two classes, one logit": Job({"freeze": "head", "task": "binary"}, vertices=("flatten",)),
    "freeze.only": Job({"freeze": {"upto": "conv1", "only": ["bn2"]}}, vertices=("conv1",)),
    "a resize behind": Job(
        {"freeze": "conv1", "resize": {"conv2": {"out": 6, "overlap": True}}},
        vertices=("conv1",),
    ),
    "several layers behind": Job(
        {
            "freeze": "conv2",
            "remove": {"fc": "replace"},
            "add": {
                "hidden": {"layer": "linear", "out": 5, "norm": "batch", "inputs": "flatten"},
                "drop": {"layer": "dropout", "p": 0.5, "inputs": "hidden"},
                "fc": {"layer": "linear", "out": "classes", "inputs": "drop"},
            },
        },
        vertices=("conv2",),
    ),
}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return 2 classes of 7 pictures: the last chunks are short."""
    return pictures(tmp_path_factory.mktemp("images"), 7)


def run(job: Job, folder: Path, images: Path, cache: str | None = None) -> RunResult:
    base = None
    if job.base is not None:
        torch.manual_seed(0)
        base = job.base()
    sections = {"base": {"model": "digits_net", "size": SIDE} if base else {"model": "digits_net"}}
    sections |= {**job.sections, "data": {**({"folder": str(images)} if base else DIGITS)}}
    sections["data"] |= job.data
    tune = {"epochs": 2, "batch_size": 5, "optimizer": {"name": "sgd", "lr": 0.05}}
    sections["fine_tune"] = {**tune, **job.sections.get("fine_tune", {})}
    features = {"batch_size": CHUNK, **({"cache": cache} if cache else {})}
    sections["features"] = {**features, **job.sections.get("features", {})}
    return train_recipe(make_recipe(**sections), folder, base=base)


def assert_same(one: RunResult, other: RunResult) -> None:
    for (name, a), b in zip(
        one.model.state_dict().items(), other.model.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name
    for a, b in zip(one.history, other.history, strict=True):
        assert (a.train, a.val, a.lr) == (b.train, b.val, b.lr)


def told(result: RunResult) -> dict[str, Any]:
    """Return what the record says of the store."""
    return dict(result.record["features"])


def kept(result: RunResult) -> tuple[str, ...]:
    return tuple(one["vertex"] for one in told(result).get("store", ()))


@pytest.mark.parametrize("name", JOBS)
def test_cached_equals_live(tmp_path: Path, images: Path, name: str) -> None:
    job = JOBS[name]
    live = run(job, tmp_path / "live", images, "off")
    cold, warm = (run(job, tmp_path / word, images) for word in ("cold", "warm"))
    assert (kept(live), kept(cold), kept(warm)) == ((), job.vertices, job.vertices)
    rows = told(cold)["rows"]
    assert (told(cold)["misses"], told(warm)["misses"], told(warm)["hits"]) == (rows, 0, rows)
    for result in (cold, warm):
        assert_same(live, result)


def test_a_run_that_starts_from_a_run(tmp_path: Path, images: Path) -> None:
    """Its features are of the weights that the first run trained."""
    first = run(JOBS["digits"], tmp_path / "first", images)
    folder = {"run": str(tmp_path / "first")}
    results = []
    for word, cache in (("live", "off"), ("cold", "auto"), ("warm", "auto")):
        tune = {"epochs": 2, "batch_size": 5}
        features = {"batch_size": CHUNK, "cache": cache}
        recipe = make_recipe(base=folder, freeze="block2", fine_tune=tune, features=features)
        results.append(train_recipe(recipe, tmp_path / word))
    live, cold, warm = results
    assert (kept(live), kept(warm)) == ((), ("block2.pool",))
    assert told(cold)["misses"] == told(warm)["hits"] == told(first)["rows"]
    for result in (cold, warm):
        assert_same(live, result)


def test_nothing_frozen(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the prepared images are kept."""
    job = Job({"freeze": "none"})
    with monkeypatch.context() as patch:
        patch.setattr("tlcompile.run.features.describe_pixels", lambda _preprocessing: None)
        live = run(job, tmp_path / "live", images)
    cold, warm = (run(job, tmp_path / word, images) for word in ("cold", "warm"))
    assert (kept(live), kept(cold), kept(warm)) == ((), ("pixels",), ("pixels",))
    assert told(warm)["hits"] == told(cold)["misses"] > 0
    for result in (cold, warm):
        assert_same(live, result)
