"""Two processes with gloo train what one process trains on the same global batch."""

from __future__ import annotations

from typing import Any

import on_ranks
import pytest
import torch
from tiny import make_recipe
from torch import Tensor
from two_processes import Two, difference, run_two

from tlcompile.run.devices import device_notes
from tlcompile.training.ranks import ALONE, Ranks, is_rank, join_ranks


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    return run_two(on_ranks.__file__, tmp_path_factory.mktemp("ranks"))


def alone(case: str) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    states, rows = on_ranks.trained(case, ALONE)
    return {name.removeprefix(f"{case}/"): tensor for name, tensor in states.items()}, rows


# One process


def test_one_process_has_everything_to_itself() -> None:
    assert ALONE.part(range(5)) == range(5)
    assert ALONE.share(5, 5) == 1
    module = torch.nn.Linear(2, 2)
    assert ALONE.wrap(module) is module
    assert ALONE.first_says({"a": 1}) == {"a": 1}
    assert ALONE.largest(True) == 1
    assert ALONE.device("cuda") == torch.device("cuda")
    ALONE.barrier()
    ALONE.close()


def test_a_process_is_a_rank_where_the_environment_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert not is_rank()
    assert join_ranks() is ALONE
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert not is_rank(), "torchrun with one process"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert is_rank()


@pytest.mark.parametrize(("world", "least"), [(1, 1), (2, 1), (2, 2), (3, 2), (8, 1), (8, 2)])
def test_parts_are_the_batch_in_order_and_as_even_as_can_be(world: int, least: int) -> None:
    for count in range(1, 20):
        check_parts(world, least, count)


def check_parts(world: int, least: int, count: int) -> None:
    parts = [Ranks(rank, world).part(range(count), least) for rank in range(world)]
    assert [sample for part in parts for sample in part] == list(range(count))
    sizes = [len(part) for part in parts if part]
    assert max(sizes) - min(sizes) <= 1
    assert count < least or min(sizes) >= least
    if count >= least * world:
        assert len(sizes) == world, "nobody is idle without need"


def test_each_rank_uses_its_own_gpu() -> None:
    assert Ranks(5, 8, local=1).device("cuda") == torch.device("cuda", 1)
    assert Ranks(5, 8, local=1).device("cpu") == torch.device("cpu")


def test_shares_make_the_mean_over_all_samples() -> None:
    sizes = [4, 4, 3]  # of three ranks
    values = torch.arange(11.0).split(sizes)
    averaged = sum(
        part.mean() * Ranks(rank, 3).share(len(part), 11) for rank, part in enumerate(values)
    )
    assert float(averaged / 3) == pytest.approx(5.0, abs=1e-6)  # type: ignore[operator]


# Two processes


def test_ranks_tell_each_other(two: Two) -> None:
    first, second = (told["talk"] for told in two.told)
    assert first["says"] == second["says"] == {"from": 0}
    assert first["sum"] == second["sum"] == {"count": 7, "x": 1.0}
    assert first["largest"] == second["largest"] == 5
    assert first["buffer"] == second["buffer"] == 1
    assert first["gathered"] == {"of 0": 0, "of 1": 1}
    assert first["parts"] == [[0, 1, 2, 3], [0, 1], [0, 1, 2]]
    assert second["parts"] == [[4, 5, 6, 7], [2, 3, 4], []]


@pytest.mark.parametrize(
    ("case", "tolerance"), [("linear", 1e-6), ("convolution", 1e-4), ("pieces", 1e-4)]
)
def test_two_processes_learn_what_one_learns(two: Two, case: str, tolerance: float) -> None:
    weights, _ = alone(case)
    assert difference(two.weights(case), weights) <= tolerance
    start = on_ranks.model_of(case).state_dict()
    assert difference(weights, dict(start)) > 0.01, "nothing was learned: the test shows nothing"


@pytest.mark.parametrize("case", on_ranks.CASES)
def test_ranks_end_with_the_same_weights(two: Two, case: str) -> None:
    one, other = (two.weights(case, rank) for rank in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("case", ["linear", "convolution"])
def test_scores_are_those_of_all_samples(two: Two, case: str) -> None:
    _, rows = alone(case)
    assert len(rows) == on_ranks.EPOCHS
    for row, told in zip(rows, two.told[0][case], strict=True):
        for split, count in (("train", on_ranks.TRAIN), ("val", on_ranks.VAL)):
            assert told[split]["n"] == row[split]["n"] == count
            assert told[split]["accuracy"] == row[split]["accuracy"]
            assert told[split]["loss"] == pytest.approx(row[split]["loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("convolution", "other numbers than on one device"),
        ("pieces", "other numbers than on one device"),
        ("dropout", "dropout draw by (seed, step, device)"),
        ("batch norm", "bn2 learn from the images of each device alone"),
    ],
)
def test_what_the_plan_says_differs_does_differ_and_nothing_else(
    two: Two, case: str, words: str
) -> None:
    notes = device_notes(make_recipe(run={"devices": 2}), [on_ranks.model_of(case)])
    said = any(words in note for note in notes)
    weights, _ = alone(case)
    assert (difference(two.weights(case), weights) > 1e-3) is said


def test_ranks_that_are_resumed_end_equal_to_the_bit(two: Two) -> None:
    """In the middle of an epoch, with each rank's own sums and running statistics."""
    straight, resumed = two.weights("batch norm"), two.weights("resumed batch norm")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    rows, again = two.told[0]["batch norm"], two.told[0]["resumed rows"]
    for row, other in zip(rows[1:], again, strict=True):
        assert {**row, "seconds": 0} == {**other, "seconds": 0}


def test_only_what_trains_is_sent(two: Two) -> None:
    model = on_ranks.model_of("convolution")
    assert two.told[0]["sent"] == sum(p.numel() for _, p in model.trainable())
    assert two.told[0]["sent"] < sum(p.numel() for p in model.parameters())
