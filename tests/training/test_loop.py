"""The loop on a tiny network: what stops it, what it proves, what each option changes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from phase_trainers import epochs_of, own_loss, phase_trainer
from safetensors.torch import load_file
from tiny import TinyNet, make_pictures, make_recipe
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.run import NotFiniteLossError
from tlcompile.errors.training import FrozenMovedError, NoGradientError
from tlcompile.features.prefix import Prefix
from tlcompile.features.sources import InMemory, KeptSource, compute_rows
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.train import RunResult, train_recipe
from tlcompile.training.goal import simple_goal
from tlcompile.training.gradients import ClipNorm
from tlcompile.training.loop import scored
from tlcompile.training.metrics import Score
from tlcompile.training.objective import Objective
from tlcompile.training.proof import FreezeProof
from tlcompile.training.ranks import Ranks
from tlcompile.training.state import EpochRow


@pytest.fixture
def model() -> CompiledModel:
    return compile_recipe(
        make_recipe(base={"model": "digits_net", "size": 8}), TinyNet(), num_classes=2
    )


def source(model: CompiledModel, count: int = 9) -> KeptSource:
    images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    prefix = Prefix(model, 4, torch.device("cpu"))
    rows = compute_rows(lambda pairs: images[[i for i, _ in pairs]], prefix, count)
    return KeptSource(InMemory(rows), TensorTargets(torch.arange(count) % 2))


def epochs(
    model: CompiledModel, proof: FreezeProof | None = None, **changes: Any
) -> list[tuple[EpochRow, bool]]:
    rows = source(model)
    if proof is not None:
        changes["proof"] = proof
    changes.setdefault("monitor", "val/loss")
    return epochs_of(phase_trainer(model, rows, rows, **changes))


def test_rows_count_from_one_and_name_the_rate(model: CompiledModel) -> None:
    rows = [row for row, _ in epochs(model, schedule=lambda when: 1 / (when.epoch + 1))]
    assert [row.epoch for row in rows] == [1, 2, 3, 4]
    assert [row.lr for row in rows] == pytest.approx([0.1, 0.05, 0.1 / 3, 0.025])
    assert all(row.train.count == 9 for row in rows)
    assert all(row.val is not None and row.val.count == 9 for row in rows)


def test_without_validation_there_is_no_score(model: CompiledModel) -> None:
    ((row, best),) = epochs_of(phase_trainer(model, source(model), None, epochs=1))
    assert row.val is None
    assert best
    assert math.isnan(row.value("val/loss"))
    assert row.value("train/accuracy") == row.train.accuracy


def test_every_rank_judges_where_there_are_fewer_samples_than_ranks(model: CompiledModel) -> None:
    """A rank without a sample left auroc and map to the others, which waited for it for good."""
    judge = partial(scored, model, source(model, 2), batch_size=4)
    goal = Objective({"": simple_goal("classification", 2)})
    alone = judge(objective=goal).score()
    assert alone.count == 2
    for rank in range(3):
        assert judge(objective=goal, ranks=Ranks(rank, 3)).score() == alone


def test_a_loss_that_is_no_number_stops_at_its_epoch_and_step(model: CompiledModel) -> None:
    seen = 0

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        nonlocal seen
        seen += int(logits.requires_grad)
        value = cross_entropy(logits, labels)
        return value * float("nan") if seen == 4 else value

    with pytest.raises(NotFiniteLossError) as caught:  # 9 samples in batches of 4: steps 4 and 5
        epochs(model, objective=own_loss(loss))
    assert (caught.value.epoch, caught.value.step, caught.value.lr) == (2, 2, 0.1)
    assert caught.value.first_layer is None
    assert all(bool(torch.isfinite(p).all()) for _, p in model.trainable()), "nothing was spoilt"


def test_early_stop(model: CompiledModel) -> None:
    rows = epochs(model, epochs=9, patience=2, min_delta=100.0)
    assert len(rows) == 3


def test_a_moved_frozen_tensor_is_caught(model: CompiledModel) -> None:
    proof = FreezeProof.take(model)
    epochs(model, proof, epochs=1)
    assert "frozen tensors byte-identical" in proof.check(model)
    with torch.no_grad():
        model.get_parameter("bn1.weight")[3] += 1e-7 * 2
    with pytest.raises(FrozenMovedError) as caught:
        proof.check(model)
    assert caught.value.names == ("bn1.weight",)


def test_a_parameter_without_gradient_is_caught(model: CompiledModel) -> None:
    proof = FreezeProof.take(model)
    bias = model.get_parameter("fc.bias")
    bias.requires_grad_(False)
    epochs(model, proof, epochs=1)
    with pytest.raises(NoGradientError) as caught:
        proof.check(model)
    assert caught.value.names == ("fc.bias",)


def test_the_proof_counts_what_moved(model: CompiledModel) -> None:
    proof = FreezeProof.take(model)
    epochs(model, proof, epochs=1, schedule=lambda _when: 0.0)
    assert "0 of 2 trainable tensors moved" in proof.check(model)


def test_batch_statistics_of_frozen_layers_stay(model: CompiledModel) -> None:
    before = {n: t.clone() for n, t in model.state_dict().items() if n in model.frozen.tensors}
    epochs(model)
    assert any(name.endswith("running_mean") for name in before)
    for name, tensor in before.items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_gradients_are_clipped_together(model: CompiledModel) -> None:
    start = {n: p.detach().clone() for n, p in model.trainable()}
    rows = source(model)
    one_step = {"epochs": 1, "batch_size": len(rows.targets)}
    epochs(model, before_step=[ClipNorm(0.01, "model")], **one_step)
    moved = torch.cat([(p.detach() - start[n]).flatten() for n, p in model.trainable()])
    assert float(moved.norm()) == pytest.approx(0.1 * 0.01, rel=1e-3)


def test_dropout_depends_on_seed_and_step_alone() -> None:
    recipe = make_recipe(base={"model": "digits_net", "size": 8}, freeze="bn2")
    base = TinyNet()
    losses = []
    for noise in (1, 2):
        model = compile_recipe(recipe, base, num_classes=2)
        torch.manual_seed(noise)
        losses.append([row.train.loss for row, _ in epochs(model)])
    assert losses[0] == losses[1]
    model = compile_recipe(recipe, base, num_classes=2)
    assert [row.train.loss for row, _ in epochs(model, seed=5)] != losses[0]


# Whole runs, for what the recipe's options do


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", count=7, side=20)


def run(folder: Path, pictures: Path, **sections: Any) -> RunResult:
    base = sections.pop("module", None) or TinyNet()
    data = {"folder": str(pictures), **sections.pop("data", {})}
    recipe = make_recipe(base={"model": "digits_net", "size": 16}, data=data, **sections)
    return train_recipe(recipe, folder, base=base)


def test_a_binary_task_learns(tmp_path: Path, pictures: Path) -> None:
    tune = {"epochs": 12, "batch_size": 4, "optimizer": {"name": "adam", "lr": 0.05}}
    base = TinyNet(dropout=0.0)
    result = run(tmp_path / "run", pictures, module=base, task="binary", fine_tune=tune)
    assert result.model.fc.weight.shape[0] == 1  # type: ignore[union-attr, index]
    assert result.history[-1].train.accuracy >= 0.9
    assert result.history[-1].train.loss < result.history[0].train.loss * 0.7
    assert result.best.val is not None
    assert result.best.val.accuracy == 1.0
    assert result.record["task"] == "binary"


def test_a_batch_bigger_than_the_data_is_one_step(tmp_path: Path, pictures: Path) -> None:
    result = run(tmp_path / "run", pictures, fine_tune={"batch_size": 500, "epochs": 1})
    assert result.history[0].train.count == 12


def test_the_best_epoch_is_kept_not_the_last(tmp_path: Path, pictures: Path) -> None:
    # The rate grows until it spoils what was learnt.
    tune = {"epochs": 6, "batch_size": 4, "monitor": "train/loss",
            "optimizer": {"name": "sgd", "lr": 0.1},
            "schedule": {"name": "step", "every": 3, "gamma": 3000}}  # fmt: skip
    result = run(tmp_path / "run", pictures, fine_tune=tune)
    assert result.best.epoch < 6
    kept, end = (
        load_file(tmp_path / "run" / name / "model.safetensors") for name in ("bundle", "last")
    )
    assert torch.equal(kept["fc.weight"], result.model.state_dict()["fc.weight"])
    assert not torch.equal(kept["fc.weight"], end["fc.weight"])


def different(one: RunResult, other: RunResult) -> bool:
    def told(result: RunResult) -> list[Any]:
        return [(row.train, row.val, row.lr) for row in result.history]

    return told(one) != told(other)


SGD = {"name": "sgd", "lr": 0.05}
BASE_LINE: dict[str, Any] = {"epochs": 2, "batch_size": 4, "optimizer": SGD}
EFFECTS: dict[str, dict[str, Any]] = {
    "seed": {"seed": 1},
    "optimizer": {"optimizer": {"name": "adam", "lr": 0.05}},
    "lr": {"optimizer": {**SGD, "lr": 0.1}},
    "momentum": {"optimizer": {**SGD, "momentum": 0.9}},
    "nesterov": {"optimizer": {**SGD, "momentum": 0.9, "nesterov": True}},
    "weight_decay": {"optimizer": {**SGD, "weight_decay": 0.5}},
    "schedule": {"schedule": "constant"},
    "epochs": {"epochs": 3},
    "batch_size": {"batch_size": 5},
    "label_smoothing": {"label_smoothing": 0.3},
    "clip": {"clip": 0.01},
}


@pytest.mark.parametrize("name", EFFECTS)
def test_an_option_of_fine_tune_has_an_effect(tmp_path: Path, pictures: Path, name: str) -> None:
    base = TinyNet()
    plain = run(tmp_path / "a", pictures, module=base, fine_tune=BASE_LINE)
    changed = run(tmp_path / "b", pictures, module=base, fine_tune={**BASE_LINE, **EFFECTS[name]})
    same = run(tmp_path / "c", pictures, module=base, fine_tune=BASE_LINE)
    assert different(plain, changed)
    assert not different(plain, same)


def test_nesterov_is_not_plain_momentum(tmp_path: Path, pictures: Path) -> None:
    base = TinyNet()
    runs = [
        run(tmp_path / name, pictures, module=base, fine_tune={**BASE_LINE, **EFFECTS[name]})
        for name in ("momentum", "nesterov")
    ]
    assert different(*runs)


def test_early_stop_of_a_recipe(tmp_path: Path, pictures: Path) -> None:
    tune = {**BASE_LINE, "epochs": 9, "early_stop": {"patience": 2, "min_delta": 50.0}}
    assert len(run(tmp_path / "run", pictures, fine_tune=tune).history) == 3


def test_monitor_names_the_best(tmp_path: Path, pictures: Path) -> None:
    tune = {**BASE_LINE, "epochs": 4}
    for monitor in ("val/loss", "train/loss"):
        result = run(tmp_path / monitor, pictures, fine_tune={**tune, "monitor": monitor})
        values = [row.value(monitor) for row in result.history]
        assert result.best.epoch == values.index(min(values)) + 1
        assert result.record["monitor"] == monitor


LAYER = {"remove": {"fc": "drop"}, "outputs": ["new"]}


def with_layer(**layer: Any) -> dict[str, Any]:
    add = {
        "mid": {"layer": "linear", "out": 6, "inputs": "flatten", **layer},
        "new": {"layer": "linear", "out": "classes", "inputs": "mid"},
    }
    return {"add": add, "freeze": "flatten", **LAYER}


@pytest.mark.parametrize("option", [{"activation": "relu"}, {"dropout": 0.5}, {"init": "zeros"}])
def test_a_default_of_new_layers(tmp_path: Path, pictures: Path, option: dict[str, Any]) -> None:
    base = TinyNet()
    plain = run(tmp_path / "a", pictures, module=base, fine_tune=BASE_LINE, **with_layer())
    tuned = {**BASE_LINE, **option}
    changed = run(tmp_path / "b", pictures, module=base, fine_tune=tuned, **with_layer())
    assert plain.history[0].train != changed.history[0].train


# What data and features do


def counts(result: RunResult) -> dict[str, Any]:
    found: dict[str, Any] = result.record["images"]
    return found


def test_options_of_data(tmp_path: Path, pictures: Path) -> None:
    tune = {"epochs": 1}

    def images(name: str, **data: Any) -> dict[str, Any]:
        return counts(run(tmp_path / name, pictures, data=data, fine_tune=tune))

    assert images("plain") == {"train": {"ants": 6, "bees": 6}, "val": {"ants": 1, "bees": 1}}
    half = images("split", split={"val": 0.5})
    assert half == {"train": {"ants": 3, "bees": 3}, "val": {"ants": 4, "bees": 4}}
    few = images("few", per_class=2)
    assert few["train"] == {"ants": 2, "bees": 2}
    assert list(images("order", classes=["bees", "ants"])["train"]) == ["bees", "ants"]


def test_the_split_has_a_seed(tmp_path: Path, pictures: Path) -> None:
    base, tune = TinyNet(), {"epochs": 1}
    runs = [
        run(tmp_path / str(seed), pictures, module=base, data={"split": {"val": 0.5, "seed": seed}},
            fine_tune=tune)
        for seed in (0, 1)
    ]  # fmt: skip
    assert different(*runs)


def test_augmentation_of_both_splits(tmp_path: Path, pictures: Path) -> None:
    base, tune = TinyNet(), {"epochs": 1, "batch_size": 4}
    live = {"cache": "off"}
    plain = run(tmp_path / "a", pictures, module=base, fine_tune=tune, features=live)
    turned = {"augment": {"train": ["rotation"]}}
    train = run(tmp_path / "b", pictures, module=base, data=turned, fine_tune=tune, features=live)
    shifted = {"augment": {"val": ["color_jitter"]}}
    val = run(tmp_path / "c", pictures, module=base, data=shifted, fine_tune=tune)
    assert different(plain, train)
    assert plain.history[0].train == val.history[0].train
    assert plain.history[0].val != val.history[0].val


def test_a_class_of_one_leaves_nothing_to_judge_by(tmp_path: Path) -> None:
    data = make_pictures(tmp_path / "data", count=1)
    result = run(tmp_path / "run", data, fine_tune={"epochs": 2})
    assert result.best.val is None
    assert result.record["monitor"] == "train/accuracy"


def test_a_test_folder_is_used_once(tmp_path: Path) -> None:
    for name in ("train", "val", "test"):
        make_pictures(tmp_path / "data" / name, count=4)
    result = run(tmp_path / "run", tmp_path / "data", fine_tune={"epochs": 2})
    assert result.record["test"]["n"] == 8


def test_an_error_has_no_place_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(TLCompileError):
        run(tmp_path / "run", tmp_path / "nowhere")


def test_a_score_is_whole() -> None:
    row = EpochRow(1, "main", Score(1.0, 1, 2), Score(2.0, 2, 2), 0.1, 1.0)
    assert row.value("train/loss") == 1.0
    assert row.value("val/accuracy") == 1.0
