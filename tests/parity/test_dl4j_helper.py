"""DL4J's tests of its TransferLearningHelper (D1 to D3), with the trainer that stands in its place."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parity.dl4j import Batch, chain, compiled, fit, labelled, scored, sgd, tensors, unequal
from parity.plain import differences
from parity.test_dl4j_branches import numbers, three
from tlcompile.data.samples import generator
from tlcompile.errors.fitting import NothingFrozenError
from tlcompile.errors.run import NothingTrainsError
from tlcompile.features.rows import Features
from tlcompile.run.feature_trainer import FeatureTrainer

SEED = 3
CENTRE = ("denseCentre0", "denseCentre1", "denseCentre2")

# Sample by sample and in memory of its own, on both sides: in layers as narrow as DL4J's (10 to 9
# numbers) the last bits of a row of a matrix product depend on where it lies, and `fit` has an order.


def as_fitted(batch: Batch, epochs: int) -> list[Batch]:
    """Return the steps that `fit` makes of some samples."""
    inputs, targets = batch
    order = [
        int(place)
        for epoch in range(epochs)
        for place in torch.randperm(len(inputs[0]), generator=generator(SEED, "order", epoch))
    ]
    return [(_at(inputs, place), _at(targets, place)) for place in order]


def _at(values: Sequence[Tensor], place: int) -> tuple[Tensor, ...]:
    return tuple(value[place : place + 1].clone() for value in values)


def losses(scores: Sequence[Tensor], epochs: int) -> list[float]:
    """Return the mean score of each epoch."""
    each = torch.stack(list(scores)).double().reshape(epochs, -1)
    return [sum(epoch.tolist()) / len(epoch) for epoch in each]


def fitted(trainer: FeatureTrainer, data: Any, *, epochs: int) -> list[float]:
    """Train as `parity.dl4j.fit` does, one sample a step; return the loss of each epoch."""
    history = trainer.fit(
        data,
        epochs=epochs,
        optimizer=sgd(trainer.model, 0.01),
        loss=scored,
        batch_size=1,
        seed=SEED,
    )
    return [row.train.loss for row in history]


def test_d1_the_suffix_has_the_boundary_as_inputs_and_all_outputs() -> None:
    base, model = three()
    trainer = FeatureTrainer(model, batch_size=4)
    inputs = (torch.randn(4, 10), torch.randn(4, 2))
    features = trainer.extract(inputs)
    assert "in_right" in [one.vertex for one in features.made_by]
    assert len(features.rows) == 3
    computed, whole = trainer.suffix(*features.rows), base(*inputs)
    assert len(computed) == len(whole) == 3
    assert all(map(torch.equal, computed, whole))
    names = {name.split(".")[0] for name, _ in trainer.suffix.named_parameters()}
    assert names == {name for name, _ in base.named_children()} - set(CENTRE)


def test_d2_fit_on_features_is_training_the_frozen_whole() -> None:
    base, model = three()
    (batch,) = numbers(4, 5, 6, steps=1)
    before = tensors(model, *CENTRE)
    for name in CENTRE:
        base.get_submodule(name).requires_grad_(False)
    trainer = FeatureTrainer(model, batch_size=1)
    found = fitted(trainer, trainer.extract([batch]), epochs=3)
    scores = fit(base, as_fitted(batch, 3), optimizer=sgd(base, 0.01))
    assert found == losses(scores, 3)
    assert not unequal(model, base)
    assert not differences(tensors(model, *CENTRE), before)


def test_d2_another_number_of_epochs_is_another_training() -> None:
    """The comparison can fail."""
    base, model = three()
    (batch,) = numbers(4, 5, 6, steps=1)
    fitted(FeatureTrainer(model, batch_size=1), [batch], epochs=1)
    fit(base, as_fitted(batch, 2), optimizer=sgd(base, 0.01))
    assert unequal(model, base)


def test_d3_features_are_the_forward_and_a_tail_learns_the_same() -> None:
    base = chain(4, 3, 2, 3, 3, between=nn.Identity)
    model = compiled("head: keep\nfreeze: layer1\n", base)
    whole, tail = copy.deepcopy(model), copy.deepcopy(base[3:])
    (batch,) = labelled(10, 4)
    trainer = FeatureTrainer(model, batch_size=1)
    features = trainer.extract([batch])
    by_hand = [base[:3](x.clone()) for x in batch[0][0].split(1)]
    assert torch.equal(features.rows[0], torch.cat(by_hand))
    assert torch.equal(features.labels[0], batch[1][0])
    found, steps = fitted(trainer, features, epochs=5), as_fitted(batch, 5)
    assert found == losses(fit(whole, steps, optimizer=sgd(whole, 0.01)), 5)
    assert not unequal(model, whole)
    given = [((base[:3](*inputs),), targets) for inputs, targets in steps]
    assert found == losses(fit(tail, given, optimizer=sgd(tail, 0.01)), 5)
    mine = {name: t for name, t in tensors(model).items() if name[:6] in ("layer2", "layer3")}
    assert not differences(mine, tensors(tail))


def test_features_survive_on_the_disk_and_serve_a_second_training(tmp_path: Path) -> None:
    """DL4J leaves files, epochs and the order of samples to its user."""
    _, model = three()
    again = copy.deepcopy(model)
    (batch,) = numbers(4, 5, 6, steps=1)
    trainer = FeatureTrainer(model, batch_size=4)
    features = trainer.extract([batch])
    features.save(tmp_path / "features")
    losses = fitted(trainer, features, epochs=2)
    loaded = Features.load(tmp_path / "features")
    assert fitted(FeatureTrainer(again, batch_size=4), loaded, epochs=2) == losses
    assert not unequal(again, model)


def test_a_suffix_without_parameters_predicts_and_is_not_fitted() -> None:
    """#4635, #3302."""
    model = compiled("head: keep\nfreeze: all\n", chain(4, 5, 3))
    trainer = FeatureTrainer(model, batch_size=4)
    x = torch.randn(4, 4)
    features = trainer.extract(x)
    assert torch.equal(trainer.predict(features), model(x))
    with pytest.raises(NothingTrainsError):
        trainer.fit(features)


def test_a_model_without_a_freeze_has_no_features() -> None:
    with pytest.raises(NothingFrozenError, match="freeze: head"):
        FeatureTrainer(compiled("head: keep\nfreeze: none\n", chain(4, 5, 3)))
