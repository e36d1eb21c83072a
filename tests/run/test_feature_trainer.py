"""Train on features from Python: equal to training and running the whole model."""

from __future__ import annotations

import copy

import pytest
import torch
from graph.tiny import recipe_of
from phase_trainers import epochs_of, phase_trainer
from small_trainer import CPU, IMAGES, LABELS, ONE, OTHER, compiled, loader, same, state, two
from tiny import TinyNet
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import tlcompile
from tlcompile.compiler import compile_recipe
from tlcompile.data.targets import TensorTargets
from tlcompile.features.prefix import Prefix
from tlcompile.features.rows import Features
from tlcompile.features.sources import LiveSource
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.feature_trainer import FeatureTrainer
from tlcompile.training.goal import simple_goal
from tlcompile.training.objective import Objective
from tlcompile.training.optim import Given


@pytest.fixture
def trainer() -> FeatureTrainer:
    return FeatureTrainer(compiled(), batch_size=4)


def live(model: CompiledModel, *, epochs: int, seed: int) -> list[float]:
    """Train the whole model on images, the frozen part in chunks of 4, as `fit` promises."""
    targets = TensorTargets(LABELS)
    source = LiveSource(lambda pairs: IMAGES[[i for i, _ in pairs]], Prefix(model, 4, CPU), targets)
    trainer = phase_trainer(
        model,
        source,
        None,
        objective=Objective({"": simple_goal("classification", 3)}),
        optimizers=Given(sgd(model)),
        epochs=epochs,
        batch_size=3,
        seed=seed,
    )
    return [row.train.loss for row, _ in epochs_of(trainer)]


def sgd(model: CompiledModel) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for _, p in model.trainable()], lr=0.1, momentum=0.9)


def test_training_on_features_is_training_the_whole_model(trainer: FeatureTrainer) -> None:
    """To the bit, with BatchNorm and dropout in the trainable part; what is frozen stays."""
    whole = copy.deepcopy(trainer.model)
    before = state(trainer.model)
    losses = live(whole, epochs=3, seed=5)
    history = trainer.fit(
        trainer.extract(loader()),
        epochs=3,
        optimizer=sgd(trainer.model),
        batch_size=3,
        seed=5,
    )
    assert [row.train.loss for row in history] == losses
    after = state(trainer.model)
    assert same(after, state(whole))
    moved = {name for name in after if not torch.equal(after[name], before[name])}
    assert not moved & trainer.model.frozen.tensors
    assert {"conv2.weight", "bn2.running_mean", "fc.bias"} <= moved


def test_a_loader_is_extracted_and_fitted(trainer: FeatureTrainer) -> None:
    twin = copy.deepcopy(trainer.model)
    trainer.fit(trainer.extract(loader()), epochs=2)
    other = FeatureTrainer(twin, batch_size=4)
    history = other.fit(iter(loader(2)), epochs=2, validation=loader())
    assert same(state(twin), state(trainer.model))
    assert [row.val.count for row in history if row.val] == [11, 11]
    assert history[0].lr == 1e-4, "old layers train, too"


def test_the_same_seed_gives_the_same_weights(trainer: FeatureTrainer) -> None:
    features = trainer.extract(loader())
    start, found = state(trainer.model), []
    for seed in (1, 1, 2):
        trainer.model.load_state_dict(start)
        torch.rand(seed)  # what ran before never matters
        trainer.fit(features, epochs=1, lr=0.01, batch_size=4, seed=seed)
        found.append(state(trainer.model))
    assert same(found[0], found[1])
    assert not same(found[0], found[2])


def test_fit_leaves_the_mode_and_the_caller_s_random_numbers(trainer: FeatureTrainer) -> None:
    trainer.model.eval()
    before = torch.get_rng_state()
    trainer.fit(loader(), epochs=1)
    trainer.predict(IMAGES)
    assert torch.equal(torch.get_rng_state(), before)
    assert not trainer.model.training
    assert not trainer.model.bn2.training
    trainer.model.train()
    trainer.predict(IMAGES)
    assert trainer.model.bn2.training


def test_an_optimizer_keeps_its_own_rates(trainer: FeatureTrainer) -> None:
    model = trainer.model
    still = [p for name, p in model.trainable() if not name.startswith("fc")]
    groups = [{"params": still, "lr": 0.0}, {"params": model.fc.parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
    before = state(model)
    trainer.fit(loader(), epochs=2, optimizer=optimizer, on_epoch=lambda _row: schedule.step())
    assert torch.equal(model.conv2.weight, before["conv2.weight"])
    assert not torch.equal(model.fc.weight, before["fc.weight"])
    assert optimizer.param_groups[1]["lr"] == pytest.approx(1e-3)


def test_a_binary_task_learns_one_logit() -> None:
    model = compile_recipe(
        recipe_of("base: {model: own, size: 8}\nfreeze: bn1\ntask: binary\n"),
        base=TinyNet(),
        num_classes=2,
    )
    history = FeatureTrainer(model).fit([(IMAGES, LABELS % 2)], epochs=1, loss="binary")
    assert history[0].train.correct is not None
    assert history[0].train.count == 11


def test_a_loss_of_your_own_reads_labels_as_they_are() -> None:
    """Several inputs and outputs, labels in a dictionary: the recipe's `train` refuses both."""
    model = two()
    trainer = FeatureTrainer(model, batch_size=4)
    labels = {"top": LABELS[:6], "side": torch.randn(6, 2)}

    def loss(outputs: dict[str, Tensor], labels: dict[str, Tensor]) -> Tensor:
        top = cross_entropy(outputs["top"], labels["top"])
        return top + mse_loss(outputs["side"], labels["side"])

    history = trainer.fit([((ONE, OTHER), labels)], epochs=3, loss=loss, lr=0.01, batch_size=2)
    assert history[-1].train.loss < history[0].train.loss
    assert history[0].train.correct is None
    assert history[0].train.accuracy != history[0].train.accuracy
    part = trainer.fit(  # of an output that the loss leaves out nothing is asked
        [((ONE, OTHER), labels)], epochs=1, loss=lambda o, y: cross_entropy(o["top"], y["top"])
    )
    assert len(part) == 1


def test_predictions_are_the_same_from_features_and_images(trainer: FeatureTrainer) -> None:
    features = trainer.extract(loader())
    wanted = trainer.predict(features)
    for data in (IMAGES, loader(1), loader(11), DataLoader(TensorDataset(IMAGES), batch_size=2)):
        assert torch.equal(trainer.predict(data), wanted)
    trainer.model.eval()
    with torch.no_grad():
        raw = torch.cat([trainer.model(chunk) for chunk in IMAGES.split(4)])
    assert torch.equal(wanted[:8], raw[:8]), "raw logits; the last chunk is padded"


def test_several_outputs_are_a_dictionary() -> None:
    model = two()
    trainer = FeatureTrainer(model, batch_size=2)
    outputs = trainer.predict((ONE, OTHER))
    assert list(outputs) == ["top", "side"]
    assert torch.equal(outputs["side"], trainer.predict(trainer.extract((ONE, OTHER)))["side"])
    assert torch.allclose(outputs["top"], model(ONE, OTHER)["top"])


@pytest.mark.parametrize("precision", ["fp32-fused", "fast"])
def test_a_faster_precision_is_equal_to_itself(precision: str) -> None:
    trainer = FeatureTrainer(compiled(), batch_size=4, precision=precision)
    features = trainer.extract(loader())
    wanted = {"fp32-fused": torch.float32, "fast": torch.bfloat16}[precision]
    assert features.rows[0].dtype == wanted
    assert torch.equal(trainer.predict(features), trainer.predict(IMAGES))
    trainer.fit(features, epochs=1)
    with torch.no_grad():  # a hard prefix is a copy, which must not outlive the weights
        trainer.model.conv1.weight.mul_(2)
    fresh = FeatureTrainer(copy.deepcopy(trainer.model), batch_size=4, precision=precision)
    assert torch.equal(trainer.predict(IMAGES), fresh.predict(IMAGES))


def test_prefix_and_suffix_are_modules_that_share_the_model_s_tensors(
    trainer: FeatureTrainer,
) -> None:
    prefix, suffix = trainer.prefix, trainer.suffix
    assert all(p is trainer.model.get_parameter(n) for n, p in suffix.named_parameters())
    assert {n for n, _ in suffix.named_parameters()} >= {n for n, _ in trainer.model.trainable()}
    trainer.fit(loader(), epochs=1)
    trainer.model.eval()
    suffix.eval()
    chunk = IMAGES[:4]
    with torch.no_grad():
        computed = prefix(chunk)
        rows = computed if isinstance(computed, tuple) else (computed,)
        assert torch.equal(suffix(*rows), trainer.model(chunk))


def test_the_names_are_public() -> None:
    assert tlcompile.FeatureTrainer is FeatureTrainer
    assert tlcompile.Features is Features
