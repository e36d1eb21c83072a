"""Members trained as one get what each gets alone, to the bit."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from graph.tiny import recipe_of
from torch import Tensor, nn
from training.fused_members import (
    alone,
    assert_as_alone,
    drawn,
    member,
    objective,
    same_weights,
    told,
    trained,
)

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.errors.run import NotFiniteLossError
from tlcompile.features.sources import InMemory, KeptSource
from tlcompile.model.compiled import CompiledModel
from tlcompile.training import fused_block
from tlcompile.training.fused import Failed, FusedEpoch, FusedTrainer
from tlcompile.training.fused_block import Member
from tlcompile.training.fused_linear import MemberLinear
from tlcompile.training.fused_suffix import misfit
from tlcompile.training.fused_ways import Ways
from tlcompile.training.loop import Stepped
from tlcompile.training.state import TrainingState

WIDTH, COUNT = 24, 37


class Net(nn.Module):
    """A frozen layer, and behind it what trains: layers in a row."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.low, self.top = nn.Linear(5, WIDTH), nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.top(torch.tanh(self.low(x)))


def head(classes: int = 3) -> tuple[nn.Module, ...]:
    return (nn.Linear(WIDTH, classes),)


def mlp(classes: int = 3) -> tuple[nn.Module, ...]:
    hidden = (nn.Linear(WIDTH, 7), nn.ReLU(inplace=True), nn.Dropout(0.4), nn.GELU())
    return (nn.Dropout(0.3), *hidden, nn.Linear(7, classes))


def compiled(*layers: nn.Module) -> CompiledModel:
    torch.manual_seed(3)
    text = "base: {model: own}\ninputs: {x: {shape: [5]}}\nfreeze: tanh\nhead: keep\n"
    return compile_recipe(recipe_of(text), base=Net(*layers))


def source(count: int, classes: int, seed: int, width: int = WIDTH) -> KeptSource:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(count, width, generator=draw)
    labels = torch.randint(classes, (count,), generator=draw)
    rows[torch.arange(count), labels] += 1.5  # something to learn
    return KeptSource(InMemory((rows,)), TensorTargets(labels))


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("layers", [head, mlp])
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_a_random_group_trains_as_each_alone(layers: Any, kind: str, seed: int) -> None:
    draw = random.Random(f"{kind}{layers.__name__}{seed}")
    classes = draw.choice([2, 3, 6, 19])
    model = compiled(*layers(classes))
    members = [drawn(draw, model, f"m{k}", kind, classes) for k in range(draw.randint(2, 7))]
    train = source(COUNT, classes, seed)
    assert_as_alone(model, members, train, source(13, classes, seed + 9))


def test_members_leave_one_by_one() -> None:
    model = compiled(*head())
    numbers = [{"epochs": 1}, {"epochs": 4}, {"epochs": 9, "patience": 1, "min_delta": 50.0}]
    members = [member(model, f"m{k}", **own) for k, own in enumerate(numbers)]
    found = assert_as_alone(model, members, source(COUNT, 3, 0), source(13, 3, 1))
    assert [len(epochs) for epochs in found.values()] == [1, 4, 2]


@pytest.mark.parametrize("loss", [{"label_smoothing": 0.2}, {"weights": torch.tensor([0.2, 1, 3])},
                                  {"name": "focal", "gamma": 2.0}])  # fmt: skip
def test_any_loss_of_a_classification(loss: dict[str, Any]) -> None:
    model = compiled(*head())
    members = [member(model, str(lr), lr=lr, objective=objective(**loss)) for lr in (0.1, 0.5)]
    members.append(member(model, "plain"))
    assert_as_alone(model, members, source(COUNT, 3, 0), source(13, 3, 1))


def test_a_binary_task() -> None:
    model = compiled(nn.Linear(WIDTH, 1))
    told_by = objective(2, task="binary")
    members = [member(model, str(lr), lr=lr, objective=told_by) for lr in (0.1, 0.5)]
    assert_as_alone(model, members, source(COUNT, 2, 0), source(13, 2, 1))


def test_without_validation() -> None:
    model = compiled(*head())
    members = [member(model, str(lr), lr=lr, monitor="train/loss") for lr in (0.1, 0.5)]
    found = assert_as_alone(model, members, source(COUNT, 3, 0), None)
    assert found["0.1"][-1].row.val is None


def test_blocks_that_do_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_block, "BLOCK_WEIGHTS", 2 * 75)  # two heads of 75 weights
    model = compiled(*head())
    members = [member(model, str(k), lr=0.1 * (k + 1)) for k in range(5)]
    train, val = source(COUNT, 3, 0), source(13, 3, 1)
    sizes = [len(block.members) for block in FusedTrainer(model, train, val, members).blocks]
    assert sizes == [2, 2, 1]
    assert_as_alone(model, members, train, val)


# 5 steps an epoch; one member leaves after the first
@pytest.mark.parametrize(
    "stop", [7, pytest.param(1, marks=pytest.mark.slow), pytest.param(13, marks=pytest.mark.slow)]
)
def test_resumed_is_uninterrupted(stop: int) -> None:
    train, val = source(COUNT, 3, 0), source(13, 3, 1)

    def members() -> list[Member]:
        options = {"momentum": 0.9}
        model = compiled(*mlp())
        return [
            member(model, f"m{k}", epochs=(1, 3)[k > 0], lr=0.1 * (k + 1), options=options)
            for k in range(3)
        ]

    whole = FusedTrainer(compiled(*mlp()), train, val, members())
    wanted = trained(whole)
    first = FusedTrainer(compiled(*mlp()), train, val, members())
    events, steps = first.run(), 0
    while steps < stop:
        steps += isinstance(next(events), Stepped)
    saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
    states = {name: one.state.as_data() for name, one in first.members.items()}
    again = [replace(one, state=TrainingState.from_data(states[one.name])) for one in members()]
    second = FusedTrainer(compiled(*mlp()), train, val, again)
    second.load(saved)
    for _ in second.run():
        pass
    for one in again:
        rows = [told(row) for row in one.state.history]
        assert rows == [told(done.row) for done in wanted[one.name]]
        assert same_weights(second.weights(one.name), whole.weights(one.name))


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_member_saves_what_it_would_save_alone(kind: str) -> None:
    train, val = source(COUNT, 3, 0), source(13, 3, 1)
    model = compiled(*head())
    options = {"momentum": 0.9} if kind == "sgd" else {}
    members = [member(model, str(k), optimizer=kind, options=options) for k in range(2)]
    for steps in (0, 2):
        single = alone(model, members[0], train, val)
        for _ in range(steps):
            next(single.run())
        trainer = FusedTrainer(model, train, val, members)
        for _ in range(steps):
            next(trainer.run())
        mine = {n.partition("/")[2]: t for n, t in trainer.tensors().items() if n.startswith("0/")}
        own = {name: mine.pop(f"model/{name}") for name, _ in model.trainable()}
        assert same_weights(own, dict(single.model.trainable()))
        assert same_weights(mine, single.tensors())


def test_a_member_that_explodes_leaves_as_it_would_alone() -> None:
    train, val = source(COUNT, 3, 0), source(13, 3, 1)
    model = compiled(*head())
    members = [member(model, "good"), member(model, "bad", lr=3e38), member(model, "fine", lr=0.2)]
    singles = [alone(model, one, train, val) for one in members]
    with pytest.raises(NotFiniteLossError) as caught:
        list(singles[1].run())
    start = {name: p.detach().clone() for name, p in model.trainable()}
    trainer = FusedTrainer(model, train, val, members)
    failed = [event for event in trainer.run() if isinstance(event, Failed)]
    assert [one.name for one in failed] == ["bad"]
    assert str(failed[0].error) == str(caught.value)
    assert repr(failed[0].error) == repr(caught.value)
    for place in (0, 2):
        list(singles[place].run())
        own = trainer.weights(members[place].name)
        assert same_weights(own, dict(singles[place].model.trainable()))
    assert same_weights(start, dict(model.trainable())), "the model was only lent"


def test_nothing_is_left_where_all_explode() -> None:
    model = compiled(*head())
    members = [member(model, str(k), lr=3e38) for k in range(2)]
    events = list(FusedTrainer(model, source(COUNT, 3, 0), None, members).run())
    assert [type(event) for event in events[-2:]] == [Failed, Failed]
    assert not any(isinstance(event, FusedEpoch) for event in events)


@pytest.mark.parametrize("classes", [3, 8])
def test_the_sums_behind_a_score_are_those_of_one(classes: int) -> None:
    train, val = source(COUNT, classes, 0), source(40, classes, 1)
    model = compiled(*head(classes))
    members = [member(model, str(k), lr=k + 0.1, epochs=1, objective=objective(classes))
               for k in range(2)]  # fmt: skip
    single = alone(model, members[1], train, val)
    list(single.run())
    trainer = FusedTrainer(model, train, val, members)
    list(trainer.run())
    mine, theirs = trainer.scoring("1"), single.scoring
    assert mine is not None
    assert theirs is not None
    assert same_weights(mine.tensors(), theirs.tensors())
    assert mine.score() == theirs.score()


def test_fast_differs_in_the_last_bits_alone() -> None:
    model = compiled(*mlp())
    train, val = source(COUNT, 3, 0), source(13, 3, 1)
    found = []
    for exact in (True, False):
        members = [member(model, str(k), lr=0.1 * (k + 1)) for k in range(3)]
        trainer = FusedTrainer(model, train, val, members, exact=exact)
        list(trainer.run())
        found.append(trainer.weights("2"))
    for name, wanted in found[0].items():  # 15 steps
        torch.testing.assert_close(found[1][name], wanted, rtol=1e-4, atol=1e-6)


def test_rows_of_any_width_keep_their_bits() -> None:
    """Kernels of matrix products differ by shape: narrow, wide, a last batch of three."""
    for width, classes, members in ((5, 2, 2), (67, 10, 5), (130, 17, 3), (512, 40, 2)):
        rows = torch.randn(11, width)
        grad = torch.randn(11, classes)
        layer = nn.Linear(width, classes)
        every = MemberLinear(layer, members, Ways())
        out = every(rows)
        out.backward(grad.expand(members, -1, -1))
        alone_out = layer(rows)
        alone_out.backward(grad)
        assert torch.equal(out[-1], alone_out)
        assert every.weight.grad is not None
        assert every.bias is not None
        assert torch.equal(every.weight.grad[-1], layer.weight.grad)
        assert torch.equal(every.bias.grad[-1], layer.bias.grad)


def test_a_way_with_other_bits_is_not_taken() -> None:
    given = torch.randn(4, 9)

    def nearly(x: Tensor) -> Tensor:
        return x * (1 + 1e-6)

    def same(x: Tensor) -> Tensor:
        return x + 0

    assert Ways().choose("it", (nearly, same, torch.clone), given) is same
    assert Ways(exact=False).choose("it", (nearly, same, torch.clone), given) is nearly


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (head(), ""),
        (mlp(), ""),
        ((nn.Linear(WIDTH, 3), nn.Softmax(1)), "a layer Softmax"),
        ((nn.Linear(WIDTH, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)), "a layer BatchNorm1d"),
        ((nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3)), "weights beside those of linear"),
        ((nn.Unflatten(1, (2, 12)), nn.Linear(12, 3), nn.Flatten()), "a layer Linear of (N, 2, 3)"),
        ((nn.Unflatten(1, (2, 12)), nn.Flatten(), nn.Linear(WIDTH, 3)), ""),
    ],
)
def test_what_is_no_chain_of_linear_layers(layers: tuple[nn.Module, ...], reason: str) -> None:
    found = misfit(compiled(*layers))
    assert found.startswith("what trains has") or not reason
    assert reason in found
    assert bool(found) == bool(reason)


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 9}, {"optimizer": "adam"}])
def test_members_that_differ_in_more_than_numbers_are_refused(change: dict[str, Any]) -> None:
    model = compiled(*head())
    with pytest.raises(ValueError, match=r"differ|do not train as one"):
        FusedTrainer(
            model, source(COUNT, 3, 0), None, [member(model), member(model, "b", **change)]
        )


def test_a_leaver_frees_no_one_of_the_rows_order() -> None:
    """Who trains beside a member never changes it."""
    model = compiled(*mlp())
    train, val = source(COUNT, 3, 0), source(13, 3, 1)
    together = FusedTrainer(model, train, val, [member(model, "a"), member(model, "b", epochs=1)])
    with_others = [done.row for done in trained(together)["a"]]
    by_itself = [
        done.row for done in trained(FusedTrainer(model, train, val, [member(model)]))["a"]
    ]
    assert list(map(told, with_others)) == list(map(told, by_itself))
