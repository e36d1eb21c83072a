"""Averages of weights: equal to torch.optim.swa_utils, exact to resume, and never in the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny import TinyNet, make_recipe
from torch import Tensor
from torch.optim import swa_utils

from tlcompile.compiler import compile_recipe
from tlcompile.errors.resume import OtherStateError
from tlcompile.model.compiled import CompiledModel
from tlcompile.training.averages import Average, Ema, Swa, estimate_statistics

KINDS: dict[str, Callable[[CompiledModel], Average]] = {
    "ema": lambda model: Ema(model, 0.9),
    "warm": lambda model: Ema(model, 0.9, warmup=True),
    "swa": lambda model: Swa(model, 2),
}


def model_of(freeze: str = "bn1", dropout: float = 0.5) -> CompiledModel:
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze=freeze)
    torch.manual_seed(0)
    base = TinyNet(dropout=dropout)
    for norm in (base.bn1, base.bn2):  # as after a training, far from 0 and 1
        norm.running_mean.normal_()  # type: ignore[union-attr]
        norm.num_batches_tracked.fill_(5)  # type: ignore[union-attr]
    return compile_recipe(recipe, base, num_classes=2)


def move(model: CompiledModel, number: int) -> None:
    """Stand for a step: everything that trains goes somewhere else, statistics too."""
    random = torch.Generator().manual_seed(number)
    with torch.no_grad():
        for _, parameter in model.trainable():
            parameter.add_(torch.randn(parameter.shape, generator=random))
    model.train()
    model.suffix(*model.prefix(torch.randn(4, 3, 8, 8, generator=random)))


def drive(average: Average, model: CompiledModel, epochs: range) -> None:
    for epoch in epochs:
        for step in range(3):
            move(model, 10 * epoch + step)
            average.update(model)
        average.update_epoch(model)


def state(model: CompiledModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def test_ema_is_torch_s_own_to_the_bit() -> None:
    model = model_of()
    oracle = swa_utils.AveragedModel(
        model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    oracle.update_parameters(model)  # torch's first update copies
    average = Ema(model, 0.9)
    for number in range(5):
        move(model, number)
        average.update(model)
        oracle.update_parameters(model)
    wanted = oracle.module.state_dict()
    with average.swapped(model):
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():  # torch averages counts of batches, too
                assert torch.equal(tensor, wanted[name]), name


def test_swa_is_the_equal_average_of_epoch_ends_from_the_start_on() -> None:
    model = model_of()
    average, ends = Swa(model, 2), []
    oracle = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_swa_multi_avg_fn())
    for epoch in range(4):
        drive(average, model, range(epoch, epoch + 1))
        ends.append(model.get_parameter("fc.weight").detach().clone())
        if epoch >= 1:
            oracle.update_parameters(model)
    with average.swapped(model):
        found = model.get_parameter("fc.weight").detach().clone()
    assert torch.equal(found, oracle.module.get_parameter("fc.weight"))
    assert torch.allclose(found, torch.stack(ends[1:]).mean(0), atol=1e-6)
    assert not torch.allclose(found, torch.stack(ends).mean(0), atol=1e-3)


def test_before_its_start_swa_is_the_model_itself() -> None:
    model = model_of()
    average = Swa(model, 3)
    drive(average, model, range(2))
    before = state(model)
    assert not average.needs_statistics
    with average.swapped(model):
        assert same(state(model), before)


def test_a_warm_decay_begins_low_and_ends_at_its_own() -> None:
    average = Ema(model_of(), 0.9, warmup=True)
    decays = []
    for count in (0, 1, 80, 1000):
        average.count = count
        decays.append(average.decay_now())
    assert decays == pytest.approx([2 / 11, 3 / 12, 0.9, 0.9])


@pytest.mark.parametrize("kind", KINDS)
def test_swapping_gives_the_model_back_to_the_bit(kind: str) -> None:
    model = model_of()
    average = KINDS[kind](model)
    drive(average, model, range(3))
    before = state(model)
    with average.swapped(model):
        inside = state(model)
        estimate_statistics(model, model.suffix, [model.prefix(torch.randn(4, 3, 8, 8))])
    assert same(state(model), before)
    assert not torch.equal(inside["fc.weight"], before["fc.weight"])
    with pytest.raises(KeyboardInterrupt), average.swapped(model):
        raise KeyboardInterrupt
    assert same(state(model), before)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_frozen_is_neither_kept_nor_touched(kind: str) -> None:
    model = model_of()
    average = KINDS[kind](model)
    drive(average, model, range(3))
    for name in model.frozen.tensors:
        model.state_dict()[name].fill_(7)
    with average.swapped(model):
        frozen = [model.state_dict()[name] for name in sorted(model.frozen.tensors)]
        assert all(bool((tensor == 7).all()) for tensor in frozen)
    kept = {name.removeprefix("value/") for name in average.tensors()} - {"count"}
    assert kept == model.state_dict().keys() - model.frozen.tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_resumed_average_goes_on_to_the_bit(kind: str, epochs: int) -> None:
    whole, cut = model_of(), model_of()
    one, other = KINDS[kind](whole), KINDS[kind](cut)
    drive(one, whole, range(5))
    drive(other, cut, range(epochs))
    saved = {name: tensor.clone() for name, tensor in other.tensors().items()}
    again = KINDS[kind](cut)
    again.load(saved)
    before = {name: tensor.clone() for name, tensor in saved.items()}
    drive(again, cut, range(epochs, 5))
    assert same(saved, before), "what was loaded may be mapped from a file"
    assert same(one.tensors(), again.tensors())


@pytest.mark.parametrize("damage", ["missing", "left over", "empty"])
def test_an_average_of_another_model_is_refused(damage: str) -> None:
    model = model_of()
    tensors = Ema(model, 0.9).tensors()
    if damage == "missing":
        del tensors["value/fc.bias"]
    elif damage == "left over":
        tensors["value/conv1.weight"] = torch.zeros(1)
    else:
        tensors = {"count": torch.tensor(0)}
    with pytest.raises(OtherStateError) as caught:
        Ema(model, 0.9).load(tensors)
    wrong = caught.value.left_over if damage == "left over" else caught.value.missing
    assert {"missing": "fc.bias", "left over": "conv1.weight", "empty": "fc.bias"}[damage] in wrong


def test_statistics_are_torch_s_for_norms_that_learn_and_frozen_norms_keep_theirs() -> None:
    ours, theirs = model_of("bn1", dropout=0.0), model_of("bn1", dropout=0.0)
    images = torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    batches = [ours.prefix(part) for part in images.split(4)]
    before = state(ours)
    estimate_statistics(ours, ours.suffix, iter(batches))
    swa_utils.update_bn([row[0] for row in batches], theirs.suffix_module())
    wanted = theirs.state_dict()
    for name in ("bn2.running_mean", "bn2.running_var", "bn2.num_batches_tracked"):
        assert torch.equal(ours.state_dict()[name], wanted[name]), name
    for name in ours.frozen.tensors:
        assert torch.equal(ours.state_dict()[name], before[name]), name


def test_statistics_leave_modes_momenta_and_dropout_alone() -> None:
    model = model_of()
    model.train()
    modes = [module.training for module in model.modules()]
    rows = model.prefix(torch.randn(4, 3, 8, 8))
    before = torch.get_rng_state()
    estimate_statistics(model, model.suffix, [rows])
    assert torch.equal(torch.get_rng_state(), before), "dropout drew random numbers"
    assert [module.training for module in model.modules()] == modes
    assert model.get_submodule("bn2").momentum == 0.1


def test_only_averages_of_layers_with_statistics_need_them() -> None:
    model = model_of("bn2")  # nothing behind it has statistics
    average = Swa(model, 1)
    drive(average, model, range(1))
    assert not average.needs_statistics
    model = model_of("bn1")
    average = Swa(model, 1)
    drive(average, model, range(1))
    assert average.needs_statistics
    assert not Ema(model, 0.9).needs_statistics
