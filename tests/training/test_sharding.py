"""Two processes whose weights are cut over them train what one process trains."""

from __future__ import annotations

from typing import Any

import on_shards
import pytest
import torch
from tiny import make_recipe
from torch import Tensor
from two_processes import Two, difference, run_two

from tlcompile.compiler import compile_recipe
from tlcompile.training.ranks import ALONE
from tlcompile.training.sharding import (
    bring_frozen_part,
    frozen_part,
    gathered,
    is_cut,
    like,
    local,
    whole,
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    return run_two(on_shards.__file__, tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def all_of_two(tmp_path_factory: pytest.TempPathFactory) -> Two:
    return run_two(on_shards.__file__, tmp_path_factory.mktemp("shards"), "all")


def alone(case: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return on_shards.trained(case, ALONE, cut=False)


def last(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out those of the best epoch."""
    return {n: t for n, t in weights.items() if not n.startswith("best/")}


# One process


def test_what_is_not_cut_is_whole() -> None:
    tensor = torch.ones(3)
    assert not is_cut(tensor)
    assert local(tensor) is tensor
    assert whole(tensor) is tensor
    assert like(tensor, tensor) is tensor
    assert gathered({"a": tensor})["a"] is tensor


def test_the_device_gets_the_frozen_part_and_no_more() -> None:
    model = on_shards.model_of("batch norm")
    assert frozen_part(model).keys() == {"conv1.weight", "conv1.bias"}
    bring_frozen_part(model, torch.device("cpu"))
    nothing = compile_recipe(
        make_recipe(base={"model": "digits_net"}, freeze="none"), num_classes=2
    )
    assert frozen_part(nothing) == {}


# Two processes


@pytest.mark.parametrize("case", ["sgd", "adamw"])
def test_two_processes_with_cut_weights_learn_what_one_learns(two: Two, case: str) -> None:
    """With penalty, clipping by norm, constraint, accumulation, EMA and an uneven last batch."""
    weights, told = alone(case)
    assert difference(two.weights(case), weights) <= 1e-5
    start = dict(on_shards.model_of(case).state_dict())
    assert difference(last(weights), start) > 0.01, "nothing was learned: the test shows nothing"
    for row, other in zip(two.told[0][case]["rows"], told["rows"], strict=True):
        for split in ("train", "val"):
            assert row[split]["n"] == other[split]["n"]
            assert row[split]["accuracy"] == other[split]["accuracy"]
            assert row[split]["loss"] == pytest.approx(other[split]["loss"], abs=1e-5)


@pytest.mark.parametrize("case", ["sgd", "adamw"])
def test_each_rank_has_half_of_weights_gradients_and_state(two: Two, case: str) -> None:
    for told in two.told:
        sizes = told[case]["sizes"]
        assert sizes.keys() == {"weights", "gradients", "state"}
        assert all(2 * here == numel for tensors in sizes.values() for numel, here in tensors)
    tensors = {"sgd": 1, "adamw": 2}[case]  # of state, for each parameter
    assert len(sizes["state"]) == tensors * len(sizes["weights"]) == tensors * 4


def test_a_run_with_cut_weights_that_is_resumed_ends_equal_to_the_bit(two: Two) -> None:
    straight, resumed = two.weights("sgd"), two.weights("resumed")
    assert any(name.startswith("best/") for name in resumed), "averages"
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_ranks_hold_the_same_model_when_it_is_gathered(two: Two) -> None:
    for case in ("sgd", "adamw"):
        assert difference(two.weights(case, 0), two.weights(case, 1)) == 0


@pytest.mark.slow
@pytest.mark.parametrize("case", on_shards.CASES)
def test_cut_or_whole_on_each_rank_is_the_same(all_of_two: Two, case: str) -> None:
    """Layers that are used twice, weights that two layers share, bare parameters, batch norms, SWA."""
    cut, whole = (all_of_two.weights(one) for one in (case, f"{case} whole"))
    assert difference(cut, whole) <= 1e-6


@pytest.mark.slow
def test_a_checkpoint_goes_on_cut_or_not(all_of_two: Two) -> None:
    for case, resumed in (("sgd", "no longer cut"), ("adamw", "cut from now on")):
        assert difference(all_of_two.weights(case), all_of_two.weights(resumed)) <= 1e-6


@pytest.mark.slow
def test_optimizers_that_work_number_by_number_step_to_the_same_place(all_of_two: Two) -> None:
    apart = all_of_two.told[0]["steps"]
    assert len(apart) == 11
    assert {name: d for name, d in apart.items() if d > 1e-6} == {}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_that_of_whole_weights(all_of_two: Two, precision: str) -> None:
    cut, whole = (all_of_two.weights(one) for one in (precision, f"{precision} whole"))
    assert difference(cut, whole) <= 1e-4


@pytest.mark.slow
def test_fp16_skips_a_step_on_all_ranks_where_one_overflows(all_of_two: Two) -> None:
    assert [told["skipped"] for told in all_of_two.told] == [True, True]


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 5, 8])
def test_ranks_judge_together_whatever_they_have(all_of_two: Two, count: int) -> None:
    """Of 5 samples in batches of 2 one rank has two batches; of 1 the second has none."""
    wanted = on_shards.judged(ALONE, count)
    for told in all_of_two.told:
        found = told["judged"][str(count)]
        assert (found["n"], found["accuracy"]) == (count, wanted["accuracy"])
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-6)
