"""fp16 and memory: what a step leaves where it was not taken, and what a checkpoint has of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from phase_trainers import phase_trainer
from tiny import TinyNet, make_recipe
from torch import Tensor

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.errors.run import NotFiniteLossError, OutOfMemoryError
from tlcompile.features.prefix import Prefix, Rows
from tlcompile.features.sources import Batches, InMemory, KeptSource, compute_rows
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.compute import Compute
from tlcompile.training.groups import Group
from tlcompile.training.loop import PhaseTrainer
from tlcompile.training.optim import Optimizers
from tlcompile.training.ranks import Ranks

STEPS = 3  # an epoch: 11 samples in batches of 4


def model_of(freeze: str = "conv1") -> CompiledModel:
    torch.manual_seed(0)
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze=freeze)
    return compile_recipe(recipe, TinyNet(), num_classes=2)


def source(model: CompiledModel, count: int = 11) -> KeptSource:
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    prefix = Prefix(model, 4, torch.device("cpu"))
    rows = compute_rows(lambda pairs: images[[i for i, _ in pairs]], prefix, count)
    return KeptSource(InMemory(rows), TensorTargets(torch.arange(count) % 2))


def two_optimizers(model: CompiledModel) -> Optimizers:
    names = [name for name, _ in model.trainable()]
    groups = (
        Group("base", tuple(n for n in names if n[:2] != "fc"), "adamw", 0.01),
        Group("head", tuple(n for n in names if n[:2] == "fc"), "sgd", 0.1),
    )
    return Optimizers(groups, dict(model.trainable()))


def trainer_of(model: CompiledModel, **changes: Any) -> PhaseTrainer:
    rows = source(model)
    return phase_trainer(model, rows, rows, epochs=2, **changes)


def steps(trainer: PhaseTrainer, count: int) -> None:
    events = trainer.run()
    for _ in range(count):
        next(events)


def weights(model: CompiledModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


# fp16


def overflowing(at: int) -> Callable[..., Any]:
    """Return a hook that lets a gradient of the classifier overflow, in one backward."""
    seen = 0

    def hook(gradient: Tensor) -> Tensor:
        nonlocal seen
        seen += 1
        return gradient * torch.inf if seen == at else gradient

    return hook


def fp16(model: CompiledModel) -> dict[str, Any]:
    return {"compute": Compute("fp16"), "optimizers": two_optimizers(model)}


def test_where_one_gradient_overflows_no_optimizer_steps() -> None:
    model = model_of()
    model.get_parameter("fc.weight").register_hook(overflowing(1))
    names = [name for name, _ in model.trainable()]
    before, called = weights(model), list[str]()
    note = {"after_step": [lambda _p: called.append("after")]}
    trainer = trainer_of(model, **fp16(model), **note)
    steps(trainer, 1)
    assert same({name: before[name] for name in names}, weights(model))
    assert not called
    steps(trainer, 1)
    assert not any(torch.equal(before[name], weights(model)[name]) for name in names)
    assert called


def test_the_scale_of_fp16_goes_on_where_it_was() -> None:
    whole = model_of()
    whole.get_parameter("fc.weight").register_hook(overflowing(1))
    steps(trainer_of(whole, **fp16(whole)), 2 * STEPS)
    model = model_of()
    model.get_parameter("fc.weight").register_hook(overflowing(1))
    first = trainer_of(model, **fp16(model))
    steps(first, 2)
    held = {name: tensor.clone() for name, tensor in first.tensors().items()}
    assert float(held["scale/scale"]) == 2.0**15
    second = trainer_of(model, state=first.state, **fp16(model))
    second.load(held)
    steps(second, 2 * STEPS - 2)
    assert second.tensors()["scale/scale"] == 2.0**15
    assert same(weights(whole), weights(model))


class Beside(Ranks):
    """A rank beside one whose loss is no number."""

    def largest(self, mine: int) -> int:
        return 1


def test_a_rank_does_not_go_on_alone_where_the_loss_of_another_overflows() -> None:
    """The gradients of both do, and say no more: they would wait for each other at two places."""
    model = model_of()
    model.get_parameter("fc.weight").register_hook(overflowing(1))
    with pytest.raises(NotFiniteLossError):
        steps(trainer_of(model, ranks=Beside(), **fp16(model)), 1)


# Memory that runs out


class Short:
    """A source that has no memory for one batch, the first time."""

    def __init__(self, source: KeptSource, at: int) -> None:
        self.source, self.targets, self.left = source, source.targets, at

    def batches(self, batches: Batches, epoch: int, first: int = 0) -> Iterator[tuple[Rows, Any]]:
        for found in self.source.batches(batches, epoch, first):
            self.left -= 1
            if not self.left:
                raise torch.OutOfMemoryError("CUDA out of memory")
            yield found


def test_memory_that_runs_out_before_a_step_begins_undoes_nothing() -> None:
    """Where the frozen part ran out of it, the statistics of the step before went back in silence."""
    model = model_of()
    trainer = phase_trainer(model, Short(source(model), 2), None, epochs=2)
    steps(trainer, 3)
    assert trainer.state.halvings == 1
    counted = model.state_dict()["bn2.num_batches_tracked"]
    assert int(counted) == 1 + 2 + 1  # pieces of 4, 4 and 3 samples: of 4, then of 2 or 3


def test_memory_that_runs_out_while_the_weights_move_ends_the_run() -> None:
    """Half of the weights have moved: less at once would move them twice."""

    def greedy(_parameters: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    model = model_of()
    trainer = trainer_of(model, after_step=[greedy])
    with pytest.raises(OutOfMemoryError) as caught:
        steps(trainer, 1)
    assert caught.value.halvings == 0
    assert trainer.running.count == 4, "nothing was counted twice"
