"""Features from Python: extracted once, trained on, predicted from; equal to the model itself."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graph.tiny import recipe_of, shake
from tiny import TinyNet
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import tlcompile
from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.fitting import NotFiniteFitError, WrongFeaturesError
from tlcompile.errors.run import DamagedFileError
from tlcompile.features.prefix import Prefix
from tlcompile.features.rows import Features
from tlcompile.features.sources import LiveSource
from tlcompile.model.compiled import CompiledModel
from tlcompile.run.feature_trainer import FeatureTrainer
from tlcompile.training.loop import Stopping, train_epochs
from tlcompile.training.losses import build_loss
from tlcompile.training.optim import build_optimizer
from tlcompile.training.proof import FreezeProof

CPU = torch.device("cpu")


def compiled(
    freeze: str = "bn1", *, base: nn.Module | None = None, more: str = ""
) -> CompiledModel:
    text = f"base: {{model: own, size: 8}}\nfreeze: {freeze}\n{more}"
    torch.manual_seed(0)
    return compile_recipe(recipe_of(text), base=base or shake(TinyNet()), num_classes=3)


@pytest.fixture
def trainer() -> FeatureTrainer:
    return FeatureTrainer(compiled(), batch_size=4)


IMAGES, LABELS = torch.randn(11, 3, 8, 8), torch.arange(11) % 3


def loader(size: int = 5) -> list[tuple[Tensor, Tensor]]:
    return list(zip(IMAGES.split(size), LABELS.split(size), strict=True))


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[name], other[name]) for name in one)


class Two(nn.Module):
    """Two inputs, two outputs; one input is also read by what trains."""

    def __init__(self) -> None:
        super().__init__()
        self.low, self.top, self.side = nn.Linear(4, 5), nn.Linear(7, 3), nn.Linear(5, 2)

    def forward(self, one: Tensor, other: Tensor) -> Any:
        low = torch.tanh(self.low(one))
        return self.top(torch.cat([low, other], 1)), self.side(low)


def two() -> CompiledModel:
    text = "base: {model: own}\ninputs: {one: {shape: [4]}, other: {shape: [2]}}\n"
    return compile_recipe(
        recipe_of(text + "freeze: tanh\nhead: keep\noutputs: [top, side]\n"), base=Two()
    )


# Extract


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


ONE, OTHER = torch.randn(6, 4), torch.randn(6, 2)
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


def test_features_keep_the_order_of_dimensions_in_memory(tmp_path: Path) -> None:
    """The same numbers in another order in memory give other bits in the suffix."""

    class Permuted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.top = nn.Linear(3, 5), nn.Conv2d(5, 2, 3)

        def forward(self, x: Tensor) -> Any:
            turned = self.low(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.top(turned).mean((2, 3))

    model = compiled("permute_1", base=Permuted())
    features = FeatureTrainer(model, batch_size=4).extract(IMAGES)
    features.save(tmp_path / "kept")
    for one in (features, Features.load(tmp_path / "kept"), features + features):
        assert one.rows[0].stride()[1] == 1
    assert features.rows[0].shape == (11, 5, 8, 8)


# Keep


def test_features_come_back_as_they_were_saved(trainer: FeatureTrainer, tmp_path: Path) -> None:
    labels = {"kind": LABELS, "rest": [LABELS.float(), (LABELS[:, None],)]}
    features = trainer.extract([(IMAGES, labels)])
    features.save(tmp_path / "features")
    again = Features.load(tmp_path / "features")
    assert all(map(torch.equal, again.rows, features.rows))
    assert torch.equal(again.labels["rest"][1][0], LABELS[:, None])
    assert again.made_by == features.made_by
    assert again.made_by[0].ingredients == features.made_by[0].ingredients
    assert torch.equal(trainer.predict(again), trainer.predict(IMAGES))
    assert repr(again) == "<Features of 11 samples: relu (8, 8, 8); 22,528 bytes>"


def test_features_without_labels_come_back_without(trainer: FeatureTrainer, tmp_path: Path) -> None:
    trainer.extract(IMAGES).save(tmp_path)
    assert Features.load(str(tmp_path)).labels is None


@pytest.mark.parametrize("name", ["rows.safetensors", "labels.safetensors", "features.json"])
def test_a_flipped_bit_is_found(trainer: FeatureTrainer, tmp_path: Path, name: str) -> None:
    trainer.extract(loader()).save(tmp_path / "f")
    path = tmp_path / "f" / name
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    with pytest.raises(DamagedFileError) as caught:
        Features.load(tmp_path / "f")
    assert caught.value.path == path


def test_another_folder_holds_no_features(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    for path, found in [
        (tmp_path, "a.txt"),
        (tmp_path / "no", "no such"),
        (tmp_path / "a.txt", "a file"),
    ]:
        with pytest.raises(TLCompileError, match=rf"holds no saved features(.|\n)*{found}"):
            Features.load(path)


def test_more_samples_cost_only_themselves(trainer: FeatureTrainer) -> None:
    first, second = trainer.extract(loader()[:1]), trainer.extract(loader()[1:])
    both, whole = first + second, trainer.extract(loader())
    assert all(map(torch.equal, both.rows, whole.rows))
    assert torch.equal(both.labels, LABELS)
    part = both.take([7, 2])
    assert torch.equal(part.rows[0], whole.rows[0][[7, 2]])
    assert torch.equal(part.labels, LABELS[[7, 2]])
    assert len(both.take(slice(8, None))) == 3
    with pytest.raises(WrongFeaturesError, match="labels"):
        _ = first + trainer.extract(IMAGES)


# Features of another frozen part


def other_weights() -> FeatureTrainer:
    return FeatureTrainer(compiled(base=shake(TinyNet(), seed=1)), batch_size=4)


OTHERS: dict[str, tuple[Callable[[], FeatureTrainer], str]] = {
    "weights": (other_weights, "the values of conv1.weight"),
    "freeze point": (
        lambda: FeatureTrainer(compiled("bn2"), batch_size=4),
        "frozen up to relu, now",
    ),
    "batch size": (lambda: FeatureTrainer(compiled(), batch_size=8), "arithmetic chunk: 4, now 8"),
    "precision": (
        lambda: FeatureTrainer(compiled(), batch_size=4, precision="fp32-fused"),
        "arithmetic precision: exact, now fp32-fused",
    ),
}


@pytest.mark.parametrize("what", OTHERS)
def test_features_of_another_frozen_part_are_refused_with_what_differs(
    trainer: FeatureTrainer, what: str
) -> None:
    features = trainer.extract(loader())
    build, words = OTHERS[what]
    other = build()
    before = state(other.model)
    for use in (other.predict, other.fit, lambda f: other.extract(loader()) + f):
        with pytest.raises(WrongFeaturesError) as caught:
            use(features)
        assert words in str(caught.value)
    assert same(before, state(other.model))


def test_weights_that_changed_since_are_seen(trainer: FeatureTrainer) -> None:
    features = trainer.extract(loader())
    with torch.no_grad():
        trainer.model.get_parameter("conv1.weight")[0, 0, 0, 0] += 1e-6
    with pytest.raises(WrongFeaturesError, match=r"the values of conv1\.weight"):
        trainer.predict(features)


def test_another_head_takes_the_same_features(trainer: FeatureTrainer) -> None:
    features = trainer.extract(loader())
    text = "remove: {fc: replace}\nadd: {fc: {layer: linear, out: 7, inputs: dropout}}\n"
    wider = FeatureTrainer(compiled(more=text), batch_size=4)
    assert wider.predict(features).shape == (11, 7)


def test_another_machine_takes_the_same_features(
    trainer: FeatureTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = trainer.extract(loader())
    monkeypatch.setattr(torch, "get_num_threads", lambda: 17)
    assert torch.equal(trainer.predict(features), trainer.predict(IMAGES))


# Fit


def live(model: CompiledModel, *, epochs: int, seed: int) -> list[float]:
    """Train the whole model on images, the frozen part in chunks of 4, as `fit` promises."""
    source = LiveSource(lambda pairs: IMAGES[[i for i, _ in pairs]], Prefix(model, 4, CPU), LABELS)
    rows = train_epochs(
        model,
        source,
        None,
        task="classification",
        loss=build_loss("classification"),
        optimizer=build_optimizer("sgd", list(model.trainable()), lr=0.1, momentum=0.9),
        rate=lambda _epoch: 0.1,
        epochs=epochs,
        batch_size=3,
        seed=seed,
        stopping=Stopping("train/loss"),
        proof=FreezeProof.take(model),
    )
    return [row.train.loss for row, _ in rows]


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


# Predict


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


# Refusals


def broken_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(outputs, labels, reduction="none")


def first(*values: Any, **options: Any) -> Callable[[FeatureTrainer], Any]:
    return lambda trainer: trainer.fit(*values, **{"epochs": 1, **options})


FRESH = [torch.zeros(1, requires_grad=True)]
REFUSED: dict[str, tuple[Callable[[FeatureTrainer], Any], str, str]] = {
    "empty": (lambda t: t.extract([]), "empty-loader", "a list, gives no sample"),
    "no samples": (lambda t: t.extract(IMAGES[:0]), "empty-loader", "a Tensor"),
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
        lambda t: t.fit(loader(), optimizer=sgd(t.model), lr=0.1), "wrong-argument", "drop lr"
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


def test_a_model_that_cannot_be_split_says_why() -> None:
    model = compiled()
    object.__setattr__(model._parts, "boundary", ())
    object.__setattr__(model._parts, "not_cacheable", "'argmax' depends on the batch")
    with pytest.raises(TLCompileError, match="'argmax' depends on the batch"):
        FeatureTrainer(model)


def test_the_names_are_public() -> None:
    assert tlcompile.FeatureTrainer is FeatureTrainer
    assert tlcompile.Features is Features
