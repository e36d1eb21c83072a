"""Penalties, clipping, constraints and averages of a recipe: what each does to a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.edits import NoEffectError
from tlcompile.model.compiled import CompiledModel
from tlcompile.recipe.schema import Recipe
from tlcompile.run.regularise import (
    after_step_of,
    average_of,
    before_step_of,
    coefficients,
    refuse_idle_regularisers,
)
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.training.averages import Swa
from tlcompile.training.gradients import ClipNorm, ClipValue, Renormalise
from tlcompile.training.penalties import Penalty

BASE = {"model": "digits_net", "size": 16}
SGD = {"name": "sgd", "lr": 0.1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=5, side=16)


def train(folder: Path, pictures: Path, tune: dict[str, Any], **sections: Any) -> RunResult:
    """Train one epoch of a few steps at a constant rate, unless told otherwise."""
    plain = {"epochs": 1, "batch_size": 4, "optimizer": SGD, "schedule": "constant"}
    sections = {"freeze": "bn1", "data": {"folder": str(pictures)}, **sections}
    recipe = make_recipe(base=BASE, fine_tune={**plain, **tune}, **sections)
    torch.manual_seed(0)
    return train_recipe(recipe, folder, base=TinyNet())


def weights(folder: Path, which: str = "last") -> dict[str, Tensor]:
    names = ("model.safetensors", "frozen.safetensors")
    files = [folder / which / name for name in names if (folder / which / name).exists()]
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> dict[str, Tensor]:
    folder = tmp_path_factory.mktemp("plain") / "run"
    train(folder, pictures, {})
    return weights(folder)


def test_without_regularisers_a_step_calls_nothing() -> None:
    recipe = make_recipe(base=BASE)
    model = compiled(recipe)
    assert before_step_of(recipe, model) == ()
    assert after_step_of(recipe, model) == ()
    assert average_of(recipe, model) is None


# What each option does to a run

WEIGHT, BIAS = "conv2.weight", "conv2.bias"


@pytest.mark.parametrize(
    ("key", "smaller", "same_kind"),
    [("l1", WEIGHT, BIAS), ("l2", WEIGHT, BIAS), ("l1_bias", BIAS, ""), ("l2_bias", BIAS, "")],
)
def test_a_penalty_makes_smaller_what_it_names(
    tmp_path: Path, pictures: Path, plain: dict[str, Tensor], key: str, smaller: str, same_kind: str
) -> None:
    train(tmp_path / "run", pictures, {key: 0.3})
    found = weights(tmp_path / "run")
    assert float(found[smaller].abs().sum()) < float(plain[smaller].abs().sum())
    if same_kind:  # moved a little by what the weights do to gradients, not by the penalty
        moved = (found[same_kind] - plain[same_kind]).abs().max()
        assert float(moved) < 0.05 * float(plain[same_kind].abs().max()) + 1e-2


def test_a_penalty_leaves_the_loss_that_is_told_that_of_the_data(
    tmp_path: Path, pictures: Path
) -> None:
    tune = {"batch_size": 100, "optimizer": {"name": "sgd", "lr": 1e-9}}
    one = train(tmp_path / "a", pictures, tune)
    other = train(tmp_path / "b", pictures, {**tune, "l2": 10.0})
    assert other.history[0].train.loss == pytest.approx(one.history[0].train.loss)


def one_step(folder: Path, pictures: Path, tune: dict[str, Any]) -> dict[str, Tensor]:
    """Return how far each parameter went in one step at rate 0.1, over the rate: its gradient."""
    still = {**tune, "batch_size": 100, "optimizer": {"name": "sgd", "lr": 1e-12}}
    train(folder / "before", pictures, still)
    train(folder / "after", pictures, {**tune, "batch_size": 100})
    before, after = weights(folder / "before"), weights(folder / "after")
    names = [n for n in after if n.startswith(("conv2.", "bn2.", "fc.")) and "running" not in n]
    return {n: (before[n] - after[n]) / 0.1 for n in names if before[n].is_floating_point()}


def norm(gradients: dict[str, Tensor], start: str = "") -> float:
    found = [tensor.flatten() for name, tensor in gradients.items() if name.startswith(start)]
    return float(torch.cat(found).norm())


def test_clipping_bounds_the_step(tmp_path: Path, pictures: Path) -> None:
    free = one_step(tmp_path / "free", pictures, {})
    assert norm(free) > 0.02
    found = one_step(tmp_path / "model", pictures, {"clip": 0.01})
    assert norm(found) == pytest.approx(0.01, rel=1e-2)
    found = one_step(tmp_path / "layer", pictures, {"clip": {"norm": 0.01, "per": "layer"}})
    assert norm(found, "conv2.") == pytest.approx(0.01, rel=1e-2)
    assert norm(found, "fc.") == pytest.approx(0.01, rel=1e-2)
    found = one_step(tmp_path / "value", pictures, {"clip": {"value": 0.001}})
    assert max(float(tensor.abs().max()) for tensor in found.values()) == pytest.approx(
        0.001, rel=1e-2
    )


def test_renormalised_layers_take_steps_of_length_one(tmp_path: Path, pictures: Path) -> None:
    found = one_step(tmp_path, pictures, {"renormalise": "layer"})
    assert [norm(found, f"{layer}.") for layer in ("conv2", "bn2", "fc")] == pytest.approx(
        [1.0] * 3, rel=1e-3
    )


@pytest.mark.parametrize("limit", [{"max_norm": 0.2}, {"unit_norm": True}, {"non_negative": True}])
def test_a_constraint_holds_after_the_run(
    tmp_path: Path, pictures: Path, limit: dict[str, Any]
) -> None:
    train(tmp_path / "run", pictures, {"constraints": limit})
    found = weights(tmp_path / "run")
    for name in ("conv2.weight", "fc.weight"):
        norms = found[name].flatten(1).norm(dim=1)
        if "max_norm" in limit:
            assert float(norms.max()) <= 0.2 * (1 + 1e-6)
        elif "unit_norm" in limit:
            assert norms == pytest.approx(1.0)
        else:
            assert float(found[name].min()) == 0.0
    assert float(found["conv2.bias"].min()) < 0, "biases have no constraint unless asked"


def test_e1_e2_no_penalty_moves_a_frozen_layer_over_a_run(
    tmp_path: Path, pictures: Path, plain: dict[str, Tensor]
) -> None:
    """DL4J's E1 and E2, and its fault #4250: L2 moved frozen layers."""
    tune = {"constraints": {"unit_norm": True, "biases": True}, "l1": 0.1, "l2": 0.1}
    result = train(tmp_path / "run", pictures, tune)
    found = weights(tmp_path / "run")
    for name in result.model.frozen.tensors:
        assert torch.equal(found[name], plain[name]), name


def test_an_average_is_judged_and_kept_and_training_goes_on_without_it(
    tmp_path: Path, pictures: Path, plain: dict[str, Tensor]
) -> None:
    train(tmp_path / "run", pictures, {"average": {"ema": 0.9}})
    last, best = weights(tmp_path / "run"), weights(tmp_path / "run", "bundle")
    for name in plain:
        assert torch.equal(last[name], plain[name]), name
    assert not torch.equal(best["fc.weight"], last["fc.weight"])
    train(tmp_path / "short", pictures, {"average": {"ema": 1e-6}})  # of the last step alone
    best = weights(tmp_path / "short", "bundle")
    assert torch.allclose(best["fc.weight"], last["fc.weight"], atol=1e-5)


def test_swa_of_one_epoch_is_that_epoch_with_statistics_of_its_own(
    tmp_path: Path, pictures: Path, plain: dict[str, Tensor]
) -> None:
    train(tmp_path / "run", pictures, {"average": {"swa": {"start": 1}}})
    best = weights(tmp_path / "run", "bundle")
    for name in plain:
        same = torch.equal(best[name], plain[name])
        assert same != name.startswith("bn2.running"), name


def test_an_average_begins_anew_in_each_phase(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    update = Swa.update_epoch

    def counted(average: Swa, model: CompiledModel) -> None:
        update(average, model)
        seen.append((average.count, bool(average.values)))

    monkeypatch.setattr(Swa, "update_epoch", counted)
    phases = [
        {"name": "head", "freeze": "head", "epochs": 1},
        {"name": "block", "freeze": "bn1", "epochs": 2},
    ]
    tune = {"average": {"swa": {"start": 2}}, "phases": phases}
    recipe = make_recipe(
        base=BASE, data={"folder": str(pictures)}, fine_tune={**tune, "batch_size": 4}
    )
    result = train_recipe(recipe, tmp_path / "run", base=TinyNet())
    assert [row.phase for row in result.history] == ["head", "block", "block"]
    assert seen == [(1, False), (1, False), (2, True)], "start counts the epochs of a phase"


def test_an_override_of_dropout_changes_what_is_learned(tmp_path: Path, pictures: Path) -> None:
    """DL4J #4095, #4368: a dropout of the base cannot be changed, or cleared, without a new layer."""
    losses = [
        train(tmp_path / str(word), pictures, {"override": {"dropout": word}}).history[0].train.loss
        for word in ("none", 0.9)
    ]
    assert losses[0] != losses[1]


# Whose settings hold

NEW = {"layer": "linear", "out": 8, "inputs": "flatten", "feeds": "dropout"}


def compiled(recipe: Recipe) -> CompiledModel:
    return compile_recipe(recipe, TinyNet(), num_classes=2)


def test_an_added_layer_s_own_penalty_wins_and_zero_means_none() -> None:
    recipe = make_recipe(
        base=BASE,
        freeze="bn2",
        add={"new": {**NEW, "l1": 0.5, "l2": 0, "l2_bias": 0.25}},
        fine_tune={"l2": 1e-4},
    )
    model = compiled(recipe)
    assert coefficients(recipe, model, "l1") == {"new.weight": 0.5}
    assert coefficients(recipe, model, "l2") == {"fc.weight": 1e-4}
    assert coefficients(recipe, model, "l2_bias") == {"new.bias": 0.25}


def test_an_added_layer_s_own_constraints_win_and_empty_means_none() -> None:
    limits = {"one": {"max_norm": 0.01}, "two": {}}
    add: dict[str, Any] = {
        "one": {**NEW, "constraints": limits["one"], "feeds": []},
        "two": {"layer": "linear", "out": 8, "inputs": "one", "constraints": {}},
        "three": {"layer": "linear", "out": "classes", "inputs": "two"},
    }
    recipe = make_recipe(
        base=BASE, freeze="bn2", add=add, outputs=["three"],
        fine_tune={"constraints": {"unit_norm": True}},
    )  # fmt: skip
    model = compiled(recipe)
    two = model.get_parameter("two.weight").detach().clone()
    for hook in after_step_of(recipe, model):
        hook(dict(model.trainable()))
    assert model.get_parameter("one.weight").norm(dim=1).tolist() == pytest.approx(
        [0.01] * 8, rel=1e-5
    )
    assert torch.equal(model.get_parameter("two.weight"), two)
    assert model.get_parameter("three.weight").norm(dim=1).tolist() == pytest.approx([1.0] * 2)


def test_a8_b6_dropout_penalties_and_constraints_are_cleared() -> None:
    """DL4J's A8 and B6: clearing differs from saying nothing."""
    new = {**NEW, "dropout": 0.4, "l2": 0, "constraints": {}}
    tune = {"l2": 0.5, "constraints": {"unit_norm": True}, "override": {"dropout": "none"}}
    recipe = make_recipe(base=BASE, freeze="bn2", add={"new": new}, fine_tune=tune)
    model = compiled(recipe)
    assert model.get_submodule("dropout").p == 0.0  # 0.5 in the base
    assert model.get_submodule("new.dropout").p == 0.4
    assert coefficients(recipe, model, "l2") == {"fc.weight": 0.5}
    new_weight = model.get_parameter("new.weight").detach().clone()
    for hook in after_step_of(recipe, model):
        hook(dict(model.trainable()))
    assert torch.equal(model.get_parameter("new.weight"), new_weight)
    assert model.get_parameter("fc.weight").norm(dim=1).tolist() == pytest.approx([1.0] * 2)


def test_penalties_come_before_clipping() -> None:
    """They are part of the loss, so the norm that is clipped is that of both."""
    recipe = make_recipe(base=BASE, fine_tune={"l2": 0.1, "clip": {"norm": 1.0, "per": "layer"}})
    hooks = before_step_of(recipe, compiled(recipe))
    assert [type(hook) for hook in hooks] == [Penalty, ClipNorm]
    assert hooks[1] == ClipNorm(1.0, "layer")
    for tune, wanted in (
        ({"clip": {"value": 0.5}}, ClipValue(0.5)),
        ({"renormalise": "parameter"}, Renormalise("parameter")),
    ):
        recipe = make_recipe(base=BASE, fine_tune=tune)
        assert before_step_of(recipe, compiled(recipe)) == (wanted,)


def test_each_kind_of_average_is_built_as_it_is_written() -> None:
    recipe = make_recipe(base=BASE, fine_tune={"average": {"swa": {"start": 3}}})
    average = average_of(recipe, compiled(recipe))
    assert isinstance(average, Swa)
    assert average.start == 3
    recipe = make_recipe(base=BASE, fine_tune={"average": {"ema": 0.99, "warmup": True}})
    average = average_of(recipe, compiled(recipe))
    assert (average.decay, average.warmup) == (0.99, True)  # type: ignore[union-attr]


# Refusals, each with its place


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ({"clip": {"norm": 1.0, "value": 1.0}}, "exactly one of norm and value"),
        ({"clip": {"value": 1.0, "per": "layer"}}, "per has no effect on value"),
        ({"clip": 1.0, "renormalise": "layer"}, "clip stands beside renormalise"),
        ({"clip": 0}, "clip"),
        ({"constraints": {}}, "constraints is empty"),
        ({"constraints": {"biases": True}}, "biases has no effect without a constraint"),
        ({"constraints": {"max_norm": 1.0, "unit_norm": True}}, "one norm has one rule"),
        ({"constraints": {"min_max_norm": {"min": 2.0, "max": 1.0}}}, "min is above max"),
        ({"average": {}}, "exactly one of ema and swa"),
        ({"average": {"ema": 0.9, "swa": {"start": 1}}}, "exactly one of ema and swa"),
        ({"average": {"swa": {"start": 1}, "warmup": True}}, "warmup has no effect on swa"),
        ({"average": {"ema": 1.0}}, "ema"),
        ({"override": {}}, "override is empty"),
        ({"override": {"activation": "softmax"}}, "activation"),
        ({"l2": -1.0}, "l2"),
    ],
)
def test_what_makes_no_sense_is_refused_at_its_line(tune: dict[str, Any], words: str) -> None:
    with pytest.raises(TLCompileError) as caught:
        make_recipe(base=BASE, fine_tune=tune)
    assert words in str(caught.value)
    assert caught.value.where is not None
    assert caught.value.where.line > 1


def test_a_bias_s_penalty_without_a_bias_is_refused() -> None:
    with pytest.raises(TLCompileError, match="l2_bias has no effect without a bias"):
        make_recipe(base=BASE, add={"new": {**NEW, "bias": False, "l2_bias": 0.1}})


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"freeze": {"only": ["conv1", "conv2", "fc"]}, "fine_tune": {"l1": 0.1}}, "fine_tune.l1"),
        (
            {"freeze": {"only": ["conv1", "conv2", "fc"]},
             "fine_tune": {"constraints": {"unit_norm": True}}},
            "fine_tune.constraints",
        ),
        ({"fine_tune": {"epochs": 3, "average": {"swa": {"start": 4}}}}, "fine_tune.average"),
        ({"fine_tune": {"batch_size": 8}, "run": {"micro_batch": 9}}, "run.micro_batch: 9"),
        (  # the only layer that trains has its own
            {"freeze": {"upto": ["flatten"], "only": ["fc"]}, "fine_tune": {"l2": 0.1},
             "add": {"new": {**NEW, "l2": 0.2}}},
            "fine_tune.l2",
        ),
    ],
)  # fmt: skip
def test_a_line_that_nothing_follows_is_refused(sections: dict[str, Any], line: str) -> None:
    recipe = make_recipe(base=BASE, head="keep", **sections)
    with pytest.raises(NoEffectError) as caught:
        refuse_idle_regularisers(recipe, [compiled(recipe)])
    assert caught.value.line.startswith(line)
    assert caught.value.where is not None


def test_a_micro_batch_below_the_batch_of_some_phase_is_not_refused() -> None:
    phases = [{"name": "a", "epochs": 1, "batch_size": 4}, {"name": "b", "epochs": 1}]
    recipe = make_recipe(base=BASE, fine_tune={"phases": phases}, run={"micro_batch": 32})
    refuse_idle_regularisers(recipe, [compiled(phase) for phase in recipe.phases()])


def test_a_line_that_one_phase_follows_is_not_refused() -> None:
    phases = [
        {"name": "norms", "freeze": {"only": ["conv1", "conv2", "fc"]}, "epochs": 1},
        {"name": "head", "freeze": "head", "epochs": 1},
    ]
    recipe = make_recipe(base=BASE, head="keep", fine_tune={"l2": 0.1, "phases": phases})
    models = [compiled(phase) for phase in recipe.phases()]
    refuse_idle_regularisers(recipe, models)
    assert before_step_of(recipe.phases()[0], models[0]) == ()
