"""B12: the same recipe twice is the same run; NaN stops within one step; memory that runs out is borne."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor
from torch.nn import functional as F  # noqa: N812, torch's own name for it

from reliability.small_runs import ending
from tlcompile.errors.run import NotFiniteLossError, OutOfMemoryError
from tlcompile.recipe.schema import Recipe
from tlcompile.run.saving import Saving
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.training.checkpoint import Checkpoints
from tlcompile.training.loop import PhaseTrainer
from tlcompile.training.objective import Objective
from tlcompile.training.step import Step

NAN, INF = float("nan"), float("inf")
IMAGES, BATCH, EPOCHS = 20, 8, 3
STEPS_AN_EPOCH = 3  # 20 images in batches of 8
STEPS = EPOCHS * STEPS_AN_EPOCH
SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.9}
TUNE: dict[str, Any] = {"epochs": EPOCHS, "batch_size": BATCH, "optimizer": SGD}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of two classes: ten of each to train, two to validate."""
    root = tmp_path_factory.mktemp("data") / "pictures"
    make_pictures(root / "train", count=IMAGES // 2, side=12)
    make_pictures(root / "val", count=2, side=12)
    return root


@pytest.fixture(autouse=True)
def saved_at_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs of milliseconds are not worth a checkpoint each, but for what is tested here."""
    monkeypatch.setattr(Saving, "is_worth", lambda _self: True)


def recipe_of(pictures: Path, *, freeze: Any = "bn1", **sections: Any) -> Recipe:
    """A recipe whose trainable part has dropout and a BatchNorm, unless it says otherwise."""
    tune = {**TUNE, **sections.pop("fine_tune", {})}
    if "phases" in tune:  # which have their own
        tune.pop("epochs")
    else:
        sections["freeze"] = freeze
    return make_recipe(
        base={"model": "digits_net", "size": 8},
        data={"folder": str(pictures), **sections.pop("data", {})},
        fine_tune=tune,
        run={"workers": 0, **sections.pop("run", {})},
        **sections,
    )


def train(recipe: Recipe, folder: Path, **how: Any) -> RunResult:
    torch.manual_seed(0)
    base = TinyNet()
    torch.manual_seed(random.randrange(2**31))  # nothing may depend on it
    return train_recipe(recipe, folder, base=base, **how)


# (a) The same recipe twice

PHASES = [
    {"name": "head", "freeze": "head", "epochs": 1},
    {"name": "all", "freeze": "none", "epochs": 2},
]
VARIANTS: dict[str, dict[str, Any]] = {
    "everything trains": {"freeze": "none"},
    "phases": {"fine_tune": {"phases": PHASES}},
    "mixup": {"features": {"augment": {"mixup": 0.4}}},
    "one layer": {"freeze": "head"},
    "views": {"data": {"augment": {"train": ["rotation"]}}, "features": {"views": 3}},
    "live": {"data": {"augment": {"train": ["rotation"]}}, "features": {"cache": "off"}},
    "noise": {"features": {"augment": {"noise": 0.1, "dropout": 0.1}}},
    "adamw": {"fine_tune": {"optimizer": {"name": "adamw", "lr": 0.01}}},
    "rmsprop": {"fine_tune": {"optimizer": {"name": "rmsprop", "lr": 0.01}}},
    "ema": {"fine_tune": {"average": {"ema": 0.9}}},
    "swa": {"fine_tune": {"average": {"swa": {"start": 2}}}},
    "accumulate": {"fine_tune": {"accumulate": 2}},
    "clip": {"fine_tune": {"clip": 0.5}},
    "one cycle": {"fine_tune": {"schedule": {"name": "one_cycle"}}},
    "plateau": {"fine_tune": {"schedule": {"name": "plateau", "patience": 1}}},
    "balanced": {"fine_tune": {"sampling": "balanced"}},
    "label smoothing": {"fine_tune": {"label_smoothing": 0.1}},
    "binary": {"task": "binary"},
    "micro-batches": {"run": {"micro_batch": 4}},
    "deterministic": {"run": {"deterministic": True}},
}
QUICK = ("phases",)


def variants() -> Iterator[Any]:
    for name in VARIANTS:
        yield pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)


@pytest.fixture
def determinism_stays() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", [*variants()])
@pytest.mark.usefixtures("determinism_stays")
def test_the_same_recipe_twice_is_the_same_run(tmp_path: Path, pictures: Path, name: str) -> None:
    recipe = recipe_of(pictures, **VARIANTS[name])
    for folder in ("one", "other"):
        train(recipe, tmp_path / folder)
    assert ending(tmp_path / "one") == ending(tmp_path / "other")


@pytest.mark.usefixtures("determinism_stays")
def test_deterministic_kernels_alone_are_taken_if_asked(tmp_path: Path, pictures: Path) -> None:
    seen = []
    for asked in (False, True):
        recipe = recipe_of(pictures, fine_tune={"epochs": 1}, run={"deterministic": asked})
        on_epoch = lambda *_: seen.append(torch.are_deterministic_algorithms_enabled())  # noqa: E731
        train(recipe, tmp_path / str(asked), on_epoch=on_epoch)
    assert seen == [False, True]


def test_the_record_has_what_decides_the_bits(tmp_path: Path, pictures: Path) -> None:
    record = train(recipe_of(pictures, fine_tune={"epochs": 1}), tmp_path / "run").record
    assert record["threads"] == torch.get_num_threads()
    assert record["device"].startswith("cpu")
    assert record["versions"]["torch"] == torch.__version__


# (b) Values that are not finite


def spoil(kind: str, step: Step, batches: list[Any], place: int, bad: float) -> list[Any]:
    """Spoil what a step is about to read: one sample, or one weight."""
    (rows, targets), *rest = batches
    if kind == "weight":
        with torch.no_grad():
            next(iter(step.parameters.values())).view(-1)[place] = bad
    if kind == "feature":
        rows = (rows[0].clone(), *rows[1:])
        rows[0][place].view(-1)[0] = bad
    if kind == "label":
        targets = F.one_hot(targets, 2).float()
        targets[place] = bad
    return [(rows, targets), *rest]


def inject(patch: pytest.MonkeyPatch, kind: str, at: int, place: int, bad: float) -> None:
    """Let one value of one step not be finite."""
    call, learn, loss = Step.__call__, Step._learn, Objective.loss
    now = -1

    def called(self: Step, batches: Sequence[Any], *rest: Any) -> None:
        nonlocal now
        now = rest[-1].steps
        call(self, spoil(kind, self, [*batches], place, bad) if now == at else batches, *rest)

    def learned(self: Step, piece: Any, step: int, **how: Any) -> None:
        learn(self, piece, step, **how)
        if step == at and kind == "gradient":
            gradient = [p.grad for p in self.parameters.values() if p.grad is not None][-1]
            gradient.view(-1)[0] = bad

    def lost(self: Objective, outputs: Any, targets: Any) -> Tensor:
        value = loss(self, outputs, targets)
        return value * bad if now == at and kind == "loss" else value

    patch.setattr(Step, "__call__", called)
    patch.setattr(Step, "_learn", learned)
    patch.setattr(Objective, "loss", lost)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("undisturbed")
    train(recipe_of(pictures), folder)
    return ending(folder)


KINDS = ("loss", "gradient", "weight", "feature", "label")


def cases() -> Iterator[Any]:
    """One of each kind, and nine more that are slow: 50 random steps."""
    draw = random.Random(12)
    for kind in KINDS:
        for number in range(10):
            case = (kind, draw.randrange(STEPS), draw.randrange(2), draw.choice((NAN, INF, -INF)))
            yield pytest.param(*case, marks=pytest.mark.slow if number else ())


@pytest.mark.parametrize(("kind", "at", "place", "bad"), [*cases()])
def test_a_value_that_is_not_finite_stops_the_run_within_a_step(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    undisturbed: dict[str, Any], kind: str, at: int, place: int, bad: float,
) -> None:  # fmt: skip
    recipe, folder = recipe_of(pictures), tmp_path / "run"
    with monkeypatch.context() as patch:
        inject(patch, kind, at, place, bad)
        with pytest.raises(NotFiniteLossError) as caught:
            train(recipe, folder)
    error = caught.value
    assert (error.epoch - 1) * STEPS_AN_EPOCH + error.step - 1 == at
    assert error.what == kind
    assert 0 < error.lr <= 0.02
    assert error.gradient_norm is not None
    names = {path.name for path in (pictures / "train").rglob("*.png")}
    assert error.samples
    assert all(Path(name).name in names for name in error.samples)
    assert (len(error.samples) == 1) == (kind in ("feature", "label"))
    assert (error.first_layer is not None) == (kind in ("gradient", "weight"))
    _check_kept(folder, at)
    train(recipe, folder)
    assert ending(folder) == undisturbed


def test_fp16_that_scales_no_more_is_no_excuse(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An overflow skips its step and halves the scale; a gradient that is NaN for good must not."""
    learn, at_a_time = Step._learn, list[float]()

    def learned(self: Step, piece: Any, step: int, **how: Any) -> None:
        learn(self, piece, step, **how)
        assert self.compute._scaler is not None
        at_a_time.append(self.compute._scaler.get_scale())
        next(p.grad for p in self.parameters.values() if p.grad is not None).fill_(NAN)

    monkeypatch.setattr(Step, "_learn", learned)
    recipe = recipe_of(pictures, fine_tune={"epochs": 9}, run={"precision": "fp16"})
    with pytest.raises(NotFiniteLossError) as caught:
        train(recipe, tmp_path / "run")
    assert caught.value.what == "gradient"
    assert at_a_time == [2.0**power for power in range(16, -1, -1)]


def _check_kept(folder: Path, at: int) -> None:
    """Look whether the last checkpoint is that of the last epoch before, and sound."""
    saved = Checkpoints(folder, run=folder.name, say=lambda _line: None).newest()
    epochs = at // STEPS_AN_EPOCH
    assert (saved is not None) == (epochs > 0)
    if saved is None:
        return
    assert len(saved.data["state"]["history"]) == epochs
    kept = {**saved.tensors, **(saved.best or {})}
    assert kept
    assert all(bool(torch.isfinite(t).all()) for t in kept.values() if t.is_floating_point())


def test_a_fresh_head_that_is_far_too_large_is_warned_of(tmp_path: Path, pictures: Path) -> None:
    """New head silently badly initialised: transformers #31841."""
    said: list[str] = []
    wild = {"init": {"name": "normal", "std": 300.0}}
    told = {"init": {"name": "normal", "std": 1e-4}}  # what the warning says to write
    for folder, init in (("good", {}), ("told", told), ("bad", wild)):
        said.clear()
        recipe = recipe_of(pictures, fine_tune={"epochs": 1, **init})
        train(recipe, tmp_path / folder, say=said.append)
        warned = [line for line in said if "the first loss is" in line]
        assert bool(warned) == (folder == "bad")
    assert "chance is 0.69" in warned[0]
    assert "fine_tune.init={name: normal, std: 1e-4}" in warned[0]


# (c) Memory that runs out


class ShortOfMemory:
    """Refuses pieces of more than so many samples, from one step on, once a step has begun."""

    def __init__(self, patch: pytest.MonkeyPatch, *, limit: int, since: int = 0) -> None:
        self.limit, self.since, self.refused = limit, since, list[int]()
        learn = Step._learn

        def learned(step: Step, piece: Any, number: int, *, last: bool) -> None:
            learn(step, piece, number, last=last)
            if len(piece.samples) > limit and number >= since and last:
                self.refused.append(number)
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        patch.setattr(Step, "_learn", learned)


@contextlib.contextmanager
def halved_before(patch: pytest.MonkeyPatch, at: int, halvings: int) -> Iterator[None]:
    """Let a run take less at once from a step on, without an aborted step."""
    taken: Callable[..., bool] = PhaseTrainer._taken

    def chosen(self: PhaseTrainer, *given: Any) -> bool:
        self.state.halvings = halvings if self.state.steps >= at else 0
        return taken(self, *given)

    with patch.context() as inside:
        inside.setattr(PhaseTrainer, "_taken", chosen)
        yield


def moments() -> Iterator[Any]:
    draw = random.Random(3)
    for number in range(50):
        case = (draw.randrange(STEPS), draw.choice((1, 2, 3)), draw.choice((1, 2)))
        yield pytest.param(*case, marks=pytest.mark.slow if number else ())


@pytest.mark.parametrize(("since", "halvings", "accumulate"), [*moments()])
def test_memory_that_runs_out_gives_the_run_that_took_less_from_there(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch,
    since: int, halvings: int, accumulate: int,
) -> None:  # fmt: skip
    """Gradients, sums and running statistics of the aborted steps are gone; the batch stays as big."""
    recipe = recipe_of(pictures, fine_tune={"accumulate": accumulate})
    since //= accumulate
    with halved_before(monkeypatch, since, halvings):
        wanted = train(recipe, tmp_path / "wanted")
    with monkeypatch.context() as patch:
        short = ShortOfMemory(patch, limit=BATCH // 2**halvings, since=since)
        result = train(recipe, tmp_path / "run")
    assert short.refused == [since] * halvings
    assert ending(tmp_path / "run") == ending(tmp_path / "wanted")
    assert [row.train.count for row in result.history] == [IMAGES] * EPOCHS
    assert [row.train for row in result.history] == [row.train for row in wanted.history]


def test_memory_that_runs_out_at_once_gives_the_run_with_that_micro_batch(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe_of(pictures, run={"micro_batch": BATCH // 4}), tmp_path / "wanted")
    with monkeypatch.context() as patch:
        ShortOfMemory(patch, limit=BATCH // 4)
        train(recipe_of(pictures), tmp_path / "run")
    assert ending(tmp_path / "run") == ending(tmp_path / "wanted")
    train(recipe_of(pictures), tmp_path / "plenty")
    assert ending(tmp_path / "plenty") != ending(tmp_path / "run")  # statistics of another batch


def test_a_resumed_run_does_not_try_the_larger_size_again(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, folder = recipe_of(pictures), tmp_path / "run"
    with monkeypatch.context() as patch:
        ShortOfMemory(patch, limit=4)
        train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        save, saves = Saving.save, []

        def die(self: Saving) -> None:
            save(self)
            saves.append(self)
            raise ZeroDivisionError

        ShortOfMemory(patch, limit=4)
        patch.setattr(Saving, "save", die)
        with pytest.raises(ZeroDivisionError):
            train(recipe, folder)
    with monkeypatch.context() as patch:
        again = ShortOfMemory(patch, limit=4)
        train(recipe, folder)
    assert not again.refused
    assert ending(folder) == ending(tmp_path / "whole")


def test_after_three_halvings_it_is_said_clearly(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ShortOfMemory(monkeypatch, limit=0)
    with pytest.raises(OutOfMemoryError) as caught:
        train(recipe_of(pictures, fine_tune={"batch_size": 16}), tmp_path / "run")
    assert (caught.value.halvings, caught.value.micro_batch) == (3, 2)
    assert "out of memory" in caught.value.reason


def test_another_error_of_the_step_is_not_taken_for_memory(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_given: Any, **_how: Any) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Step, "_learn", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        train(recipe_of(pictures), tmp_path / "run")
