"""Batches as loaders give them: every form is read, whatever the size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_trainer import CPU, IMAGES, LABELS, ONE, OTHER, compiled, loader, two
from torch.utils.data import DataLoader, TensorDataset

from tlcompile.features.prefix import Prefix
from tlcompile.run.feature_trainer import FeatureTrainer


@pytest.fixture
def trainer() -> FeatureTrainer:
    return FeatureTrainer(compiled(), batch_size=4)


@pytest.mark.parametrize("size", [1, 3, 4, 11])
def test_features_are_the_same_whatever_the_loader_s_batches(
    trainer: FeatureTrainer, size: int
) -> None:
    features = trainer.extract(loader(size))
    whole = Prefix(trainer.model, 4, CPU)(IMAGES)
    assert len(features) == 11
    assert [one.vertex for one in features.made_by] == ["relu"]
    assert all(map(torch.equal, features.rows, whole))
    assert torch.equal(features.labels, LABELS)


FORMS: dict[str, tuple[Callable[[], Any], Any]] = {
    "a dictionary": (lambda: {"other": OTHER, "one": ONE}, None),
    "a tuple": (lambda: (ONE, OTHER), None),
    "a list of batches": (lambda: [(ONE[:4], OTHER[:4]), (ONE[4:], OTHER[4:])], None),
    "inputs and labels": (lambda: [((ONE, OTHER), LABELS[:6])], LABELS[:6]),
    "in a row": (lambda: [[ONE, OTHER, LABELS[:6]]], LABELS[:6]),
    "named inputs and labels": (lambda: [({"one": ONE, "other": OTHER}, LABELS[:6])], LABELS[:6]),
    "a DataLoader": (
        lambda: DataLoader(TensorDataset(ONE, OTHER, LABELS[:6]), batch_size=5),
        LABELS[:6],
    ),
    "a generator": (lambda: ((o, p) for o, p in [(ONE, OTHER)]), None),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_batch_is_read(form: str) -> None:
    data, labels = FORMS[form]
    features = FeatureTrainer(two()).extract(data())
    assert {one.vertex for one in features.made_by} == {"tanh", "other"}
    crossing = dict(zip([one.vertex for one in features.made_by], features.rows, strict=True))
    assert torch.equal(crossing["other"], OTHER)
    assert len(features) == 6
    assert features.labels is None if labels is None else torch.equal(features.labels, labels)


def test_labels_that_belong_together_stay_together(trainer: FeatureTrainer) -> None:
    batches = [(x, {"kind": y, "boxes": (y.float(), torch.stack([y, y], 1))}) for x, y in loader()]
    labels = trainer.extract(batches).labels
    assert torch.equal(labels["kind"], LABELS)
    assert torch.equal(labels["boxes"][1], torch.stack([LABELS, LABELS], 1))
