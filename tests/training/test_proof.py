"""The freeze proof: phase by phase, through a stop, and what the optimizer's groups may not do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.compiler import compile_recipe
from tlcompile.errors.training import FrozenMovedError, NoGradientError, NotOneGroupError
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.training.groups import Group
from tlcompile.training.proof import FreezeProof, refuse_ungrouped


@pytest.fixture
def model() -> CompiledModel:
    """Frozen up to bn1; conv2, bn2 and fc train."""
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze="bn1")
    return compile_recipe(recipe, TinyNet(), num_classes=2)


def learn(model: CompiledModel, proof: FreezeProof) -> None:
    """Give every trainable tensor a gradient, and move it."""
    for _, parameter in model.trainable():
        parameter.grad = torch.ones_like(parameter)
    proof.see_gradients(model)
    with torch.no_grad():
        for _, parameter in model.trainable():
            parameter.sub_(0.1)


def stopped(proof: FreezeProof) -> FreezeProof:
    """The proof as a resumed run has it."""
    return FreezeProof.from_data(json.loads(json.dumps(proof.as_data())))


def test_the_line_names_the_phase_and_counts(model: CompiledModel) -> None:
    proof = FreezeProof.take(model, "head")
    learn(model, proof)
    frozen, trained = len(model.frozen.tensors), len([*model.trainable()])
    told = f"{frozen} frozen tensors byte-identical, {trained} of {trained} trainable tensors moved"
    assert proof.check(model) == f"head: {told}"
    assert not proof.warn_of_unmoved(model)


@pytest.mark.parametrize("name", ["conv1.weight", "bn1.running_mean", "bn1.num_batches_tracked"])
def test_one_bit_of_a_frozen_tensor_fails_it_though_the_run_was_stopped(
    model: CompiledModel, name: str
) -> None:
    proof = FreezeProof.take(model)
    learn(model, proof)
    model.state_dict()[name].view(-1).view(torch.uint8)[0] ^= 1
    with pytest.raises(FrozenMovedError) as caught:
        stopped(proof).check(model)
    assert caught.value.names == (name,)


def test_who_waits_for_a_gradient_survives_a_stop(model: CompiledModel) -> None:
    proof = FreezeProof.take(model)
    model.get_parameter("fc.weight").grad = torch.ones_like(model.get_parameter("fc.weight"))
    proof.see_gradients(model)
    again = stopped(proof)
    assert again == proof
    assert "fc.weight" not in again.waiting
    assert "fc.bias" in again.waiting
    with pytest.raises(NoGradientError):
        again.refuse_unreached()
    learn(model, again)
    again.refuse_unreached()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_none(model: CompiledModel, bad: float) -> None:
    proof = FreezeProof.take(model)
    for _, parameter in model.trainable():
        parameter.grad = torch.full_like(parameter, bad)
    proof.see_gradients(model)
    assert proof.waiting == {name for name, _ in model.trainable()}


def test_tensors_that_did_not_move_are_named_and_no_failure(model: CompiledModel) -> None:
    """A trainable tensor that sits in no optimizer: luxonis-train #358 (0 of 10 moved, silently)."""
    proof = FreezeProof.take(model)
    kept = model.get_parameter("fc.bias").detach().clone()
    learn(model, proof)
    with torch.no_grad():
        model.get_parameter("fc.bias").copy_(kept)
    assert proof.warn_of_unmoved(model) == "dead: 1 trainable tensors did not move: fc.bias"
    assert "5 of 6 trainable tensors moved" in proof.check(model)


def test_half_precision_has_bytes_too(model: CompiledModel) -> None:
    proof = FreezeProof.take(model.to(torch.bfloat16))
    learn(model, proof)
    assert "byte-identical" in proof.check(model)


# Groups


def names(model: CompiledModel) -> tuple[str, ...]:
    return tuple(name for name, _ in model.trainable())


def group(*parameters: str) -> Group:
    return Group(str(len(parameters)), parameters, "sgd", 0.1)


def test_each_trainable_tensor_in_one_group_is_right(model: CompiledModel) -> None:
    first, *rest = names(model)
    refuse_ungrouped(model, [group(first), group(*rest)])


def test_a_tensor_in_no_group_is_refused(model: CompiledModel) -> None:
    """luxonis-train #358, Lightning's value-equality filter, opacus #489: it would never move."""
    first, *rest = names(model)
    with pytest.raises(NotOneGroupError) as caught:
        refuse_ungrouped(model, [group(*rest)])
    assert (caught.value.absent, caught.value.twice, caught.value.frozen) == ((first,), (), ())


def test_a_tensor_in_two_groups_is_refused(model: CompiledModel) -> None:
    every = names(model)
    with pytest.raises(NotOneGroupError) as caught:
        refuse_ungrouped(model, [group(*every), group(every[0])])
    assert caught.value.twice == (every[0],)


def test_a_frozen_tensor_in_a_group_is_refused(model: CompiledModel) -> None:
    """With weight decay an optimizer moves it though it has no gradient flag: yolov5 #1213."""
    with pytest.raises(NotOneGroupError) as caught:
        refuse_ungrouped(model, [group(*names(model), "conv1.weight")])
    assert caught.value.frozen == ("conv1.weight",)


# Whole runs


def run(tmp_path: Path, **sections: object) -> RunResult:
    data = tmp_path / "data"
    if not data.exists():
        make_pictures(data, count=4, side=12)
    recipe = make_recipe(
        base={"model": "digits_net", "size": 8}, data={"folder": str(data)}, **sections
    )
    return train_recipe(recipe, tmp_path / "run", base=TinyNet())


def test_each_phase_has_its_proof(tmp_path: Path) -> None:
    """Frozen BatchNorm drifts: pytorch #86590, lightly #1438, keras #9965, gt-pyg #112.

    What is frozen in the first phase and trains in the second is proved in the first alone.
    """
    phases = [
        {"name": "head", "freeze": "head", "epochs": 1},
        {"name": "block", "freeze": "bn1", "epochs": 1},
    ]
    head, block = run(tmp_path, fine_tune={"phases": phases, "batch_size": 4}).record[
        "freeze_proof"
    ]
    assert head == "head: 14 frozen tensors byte-identical, 2 of 2 trainable tensors moved"
    assert block.startswith("block: 7 frozen tensors byte-identical, ")


def test_a_tensor_that_the_loss_does_not_reach_fails_the_run_after_its_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after the last one, which may be days later."""
    monkeypatch.setattr(FreezeProof, "see_gradients", lambda _self, _model: None)
    with pytest.raises(NoGradientError):
        run(tmp_path, freeze="bn1", fine_tune={"epochs": 5, "batch_size": 4})
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 1 + 1


def test_tensors_that_did_not_move_are_warned_of_by_the_run(tmp_path: Path) -> None:
    tune = {"epochs": 1, "optimizer": {"name": "sgd", "lr": 1e-30}}
    said: list[str] = []
    make_pictures(tmp_path / "data", count=4, side=12)
    recipe = make_recipe(
        base={"model": "digits_net", "size": 8}, data={"folder": str(tmp_path / "data")},
        freeze="head", fine_tune=tune,
    )  # fmt: skip
    train_recipe(recipe, tmp_path / "run", base=TinyNet(), say=said.append)
    assert any("dead: " in line and "fc.weight" in line for line in said)
    assert '"dead: ' in (tmp_path / "run" / "events.jsonl").read_text()
