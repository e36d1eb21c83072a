"""What does not fit is refused before anything moves, in one message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_trainer import IMAGES, LABELS, compiled, loader, same
from tiny import TinyNet
from torch import Tensor
from torch.nn.functional import cross_entropy

from tlcompile.errors.base import TLCompileError
from tlcompile.errors.fitting import NotFiniteFitError
from tlcompile.run.feature_trainer import FeatureTrainer


@pytest.fixture
def trainer() -> FeatureTrainer:
    return FeatureTrainer(compiled(), batch_size=4)


def broken_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, reduction="none")


def first(*values: Any, **options: Any) -> Callable[[FeatureTrainer], Any]:
    return lambda trainer: trainer.fit(*values, **{"epochs": 1, **options})


FRESH = [torch.zeros(1, requires_grad=True)]
REFUSED: dict[str, tuple[Callable[[FeatureTrainer], Any], str, str]] = {
    "empty": (lambda t: t.extract([]), "empty-loader", "a list, gives no sample"),
    "no samples": (lambda t: t.extract(IMAGES[:0]), "empty-loader", "a Tensor"),
    "no features": (lambda t: t.predict(t.extract(IMAGES).take([])), "empty-loader", "Features"),
    "consumed": (lambda t: t.extract(iter(())), "empty-loader", "gives its batches once"),
    "no iterable": (lambda t: t.extract(3), "wrong-argument", "found   int"),
    "another size": (lambda t: t.extract(torch.zeros(2, 3, 9, 9)), "wrong-batch", r"\(2, 3, 9, 9\)"),
    "one image": (lambda t: t.predict(IMAGES[0]), "wrong-batch", "DataLoader"),
    "bytes": (lambda t: t.extract(IMAGES.byte()), "wrong-batch", r"x\.to\(torch.float32\)"),
    "numbers": (lambda t: t.extract([[1, 2]]), "wrong-batch", "found   .int, int."),
    "a name": (lambda t: t.extract({"image": IMAGES}), "wrong-batch", "inputs x"),
    "too many": (lambda t: t.extract([(IMAGES, LABELS, LABELS)]), "wrong-batch", r"go together"),
    "labels as text": (lambda t: t.extract([(IMAGES, ["a"] * 11)]), "wrong-batch", "torch.tensor"),
    "fewer labels": (lambda t: t.extract([(IMAGES, LABELS[:5])]), "wrong-batch", "for 11 samples"),
    "some labels": (lambda t: t.extract([(IMAGES, LABELS), IMAGES]), "wrong-batch", "batch 2"),
    "no labels": (first(IMAGES), "wrong-labels", "found   no labels"),
    "float labels": (first([(IMAGES, LABELS.float())]), "wrong-labels", "found   float32"),
    "four classes": (first([(IMAGES, LABELS + 1)]), "wrong-labels", "indices from 1 to 3"),
    "one logit": (first(loader(), loss="binary"), "wrong-argument", r"\(1, 3\)"),
    "a loss's name": (first(loader(), loss="clasification"), "wrong-argument", "classification'?"),
    "no loss": (first(loader(), loss=3), "wrong-argument", "function of"),
    "many numbers": (first(loader(), loss=broken_loss), "wrong-argument", r"returns float32 \(11,\)"),
    "a constant": (
        first(loader(), loss=lambda _o, _y: torch.zeros(())), "wrong-argument", "does not depend"
    ),
    "optimizer's name": (first(loader(), optimizer="sdg"), "wrong-argument", "mean 'sgd'"),
    "another's optimizer": (
        first(loader(), optimizer=torch.optim.SGD(FRESH, lr=0.1)), "wrong-argument", "moves no"
    ),
    "a closure": (
        first(loader(), optimizer=torch.optim.LBFGS(FRESH)), "wrong-argument", "LBFGS"
    ),
    "two rates": (
        lambda t: t.fit(loader(), optimizer=torch.optim.SGD(t.model.parameters()), lr=0.1),
        "wrong-argument",
        "drop lr",
    ),
    "no rate": (first(loader(), lr=-1.0), "wrong-argument", "-1.0"),
    "no epochs": (first(loader(), epochs=0), "wrong-argument", "'epochs'"),
    "half a batch": (first(loader(), batch_size=0.5), "wrong-argument", "'batch_size'"),
    "no such precision": (
        lambda t: FeatureTrainer(t.model, precision="exat"), "wrong-argument", "mean 'exact'"
    ),
    "no chunk": (lambda t: FeatureTrainer(t.model, batch_size=0), "wrong-argument", "'batch_size'"),
    "plain module": (lambda _t: FeatureTrainer(TinyNet()), "wrong-argument", "compile_recipe"),
    "nothing frozen": (
        lambda _t: FeatureTrainer(compiled("none")), "nothing-frozen", "nothing that computes"
    ),
    "nothing trains": (
        lambda _t: FeatureTrainer(compiled("all", more="head: keep\n")).fit(loader()),
        "nothing-trains",
        "all",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_message(trainer: FeatureTrainer, case: str) -> None:
    use, slug, words = REFUSED[case]
    before = {name: p.clone() for name, p in trainer.model.named_parameters()}
    with pytest.raises(TLCompileError, match=words) as caught:
        use(trainer)
    assert caught.value.slug == slug
    assert same(before, dict(trainer.model.named_parameters()))


def test_a_loss_that_is_not_finite_leaves_the_parameters(trainer: FeatureTrainer) -> None:
    before = {name: p.clone() for name, p in trainer.model.trainable()}
    with pytest.raises(NotFiniteFitError, match=r"fit\(..., lr=0.01\)") as caught:
        trainer.fit(loader(), loss=lambda o, _y: (o / 0).sum(), optimizer="sgd", lr=0.1)
    assert (caught.value.epoch, caught.value.step) == (1, 1)
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.trainable())


def test_features_that_are_not_finite_are_no_matter_of_the_rate(trainer: FeatureTrainer) -> None:
    features = trainer.extract(loader())
    features.rows[0][3] = torch.nan
    with pytest.raises(NotFiniteFitError, match="extract their features anew") as caught:
        trainer.fit(features, lr=0.1)
    assert caught.value.what == "feature"


def test_a_model_that_cannot_be_split_says_why() -> None:
    model = compiled()
    object.__setattr__(model._parts, "boundary", ())
    object.__setattr__(model._parts, "not_cacheable", "'argmax' depends on the batch")
    with pytest.raises(TLCompileError, match="'argmax' depends on the batch"):
        FeatureTrainer(model)
