"""Options whose effect on a whole run no other test sees: each changes what is learned, or how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor

from tlcompile.run.saving import Saving
from tlcompile.run.train import RunResult, train_recipe

SGD = {"name": "sgd", "lr": 0.1}
HEAD = {"name": "head", "freeze": "head", "epochs": 1}
REST = {"name": "rest", "freeze": "bn1", "epochs": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=5, side=16)


def train(folder: Path, pictures: Path, **sections: Any) -> RunResult:
    """Train an epoch of two steps at a constant rate, unless told otherwise."""
    tune = {"batch_size": 4, "optimizer": SGD, "schedule": "constant"}
    tune |= sections.pop("fine_tune", {})
    tune |= {} if "phases" in tune else {"epochs": 1, **tune}
    sections = sections if "phases" in tune else {"freeze": "bn1", **sections}
    sections["data"] = {"folder": str(pictures), **sections.get("data", {})}
    recipe = make_recipe(
        base={"model": "digits_net", "size": 16, **sections.pop("base", {})},
        fine_tune=tune,
        run={"workers": 0, **sections.pop("run", {})},
        **sections,
    )
    torch.manual_seed(0)
    return train_recipe(recipe, folder, base=TinyNet())


def ending(folder: Path) -> dict[str, Tensor]:
    """Return the weights of the best and of the last epoch."""
    found = {name: load_file(folder / name / "model.safetensors") for name in ("bundle", "last")}
    return {f"{one}/{name}": t for one, tensors in found.items() for name, t in tensors.items()}


def phases(**rest: Any) -> dict[str, Any]:
    return {"fine_tune": {"phases": [HEAD, {**REST, **rest}]}}


def limits(**limit: Any) -> dict[str, Any]:
    return {"fine_tune": {"constraints": {"min_max_norm": {"max": 0.1, **limit}}}}


def views(count: int, **augment: Any) -> dict[str, Any]:
    return {"data": {"augment": {"train": ["rotation"], **augment}}, "features": {"views": count}}


# What both runs have, and what the other has instead.
EFFECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "base.size": ({}, {"base": {"size": 12}}),
    "fine_tune.accumulate": ({}, {"fine_tune": {"accumulate": 2}}),
    "fine_tune.layer_decay": ({}, {"fine_tune": {"layer_decay": 0.5}}),
    "fine_tune.clip.per": (
        {"fine_tune": {"clip": {"norm": 0.01}}},
        {"fine_tune": {"clip": {"norm": 0.01, "per": "parameter"}}},
    ),
    "fine_tune.average.warmup": (
        {"fine_tune": {"average": {"ema": 0.99}}},
        {"fine_tune": {"average": {"ema": 0.99, "warmup": True}}},
    ),
    "fine_tune.constraints.biases": (
        {"fine_tune": {"constraints": {"unit_norm": True}}},
        {"fine_tune": {"constraints": {"unit_norm": True, "biases": True}}},
    ),
    "fine_tune.constraints.min_max_norm.min": (limits(), limits(min=0.05, max=0.05)),
    "fine_tune.constraints.min_max_norm.max": (limits(), limits(max=0.2)),
    "fine_tune.constraints.min_max_norm.rate": (limits(), limits(rate=0.5)),
    "fine_tune.override.activation": ({}, {"fine_tune": {"override": {"activation": "gelu"}}}),
    "fine_tune.phases.groups": (phases(), phases(groups={"conv2": {"lr": 0.01}})),
    "fine_tune.phases.layer_decay": (phases(), phases(layer_decay=0.5)),
    "fine_tune.phases.batch_size": (phases(), phases(batch_size=3)),
    "fine_tune.phases.optimizer": (phases(), phases(optimizer={"name": "adam"})),
    "data.augment.seed": (views(2), views(2, seed=3)),
    "features.views": (views(2), views(3)),
    "run.precision": ({}, {"run": {"precision": "bf16"}}),
    "run.micro_batch": ({"freeze": "none"}, {"freeze": "none", "run": {"micro_batch": 2}}),
}


@pytest.fixture(scope="module")
def plain_runs() -> dict[str, dict[str, Tensor]]:
    """Of each set of common sections, what a run of them ends with: trained once."""
    return {}


@pytest.mark.parametrize("option", EFFECTS)
def test_an_option_changes_what_is_learned(
    tmp_path: Path, pictures: Path, plain_runs: dict[str, dict[str, Tensor]], option: str
) -> None:
    common, changed = EFFECTS[option]
    if str(common) not in plain_runs:
        train(tmp_path / "plain", pictures, **common)
        plain_runs[str(common)] = ending(tmp_path / "plain")
    train(tmp_path / "changed", pictures, **changed)
    plain, other = plain_runs[str(common)], ending(tmp_path / "changed")
    assert any(not torch.equal(plain[name], other[name]) for name in plain)


def test_a_phase_goes_on_from_its_best_epoch_only_where_it_is_asked_to(
    tmp_path: Path, pictures: Path
) -> None:
    # The rate grows until it spoils what was learnt; the phase behind it changes nothing.
    spoilt = {"name": "step", "every": 1, "gamma": 3000}
    still = {**REST, "freeze": "head", "lr": 1e-30}
    for asked in (False, True):
        first = {**HEAD, "epochs": 3, "schedule": spoilt, "restore_best": asked}
        tune = {"phases": [first, still], "monitor": "val/loss"}
        result = train(tmp_path / str(asked), pictures, fine_tune=tune)
        losses = [row.val.loss for row in result.history if row.val is not None]
        assert min(losses[:3]) < losses[2]
        assert losses[3] == (min(losses[:3]) if asked else losses[2])


def test_the_trainable_part_is_compiled_if_asked(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda forward: compiled.append(forward) or forward)
    train(tmp_path / "plain", pictures)
    assert not compiled
    train(tmp_path / "compiled", pictures, run={"compile": True})
    assert compiled


def test_the_device_is_the_one_that_is_named(tmp_path: Path, pictures: Path) -> None:
    result = train(tmp_path / "run", pictures, run={"device": "cpu"})
    assert result.record["device"].startswith("cpu")


def test_checkpoints_inside_an_epoch_come_as_often_as_asked(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places: dict[int, list[int]] = {}
    clock = iter(range(0, 10**6, 10))  # every look at it is ten seconds later
    monkeypatch.setattr("tlcompile.run.saving.time.monotonic", lambda: next(clock))
    save = Saving.save
    for seconds in (1, 10**6):
        seen = places.setdefault(seconds, [])

        def noted(self: Saving, seen: list[int] = seen) -> None:
            seen.append(self.phases.state.step)
            save(self)

        monkeypatch.setattr(Saving, "save", noted)
        train(tmp_path / str(seconds), pictures, run={"checkpoint_seconds": seconds})
    assert any(places[1]), "in the middle of an epoch"
    assert not any(places[10**6]), "at its end alone"
