"""Features with labels: kept as they are, joined, saved, and refused where another made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graph.tiny import recipe_of, shake
from small_trainer import IMAGES, LABELS, ONE, compiled, loader, same, state
from tiny import TinyNet
from torch import Tensor, nn

from tlcompile.compiler import compile_recipe
from tlcompile.errors.base import TLCompileError
from tlcompile.errors.fitting import WrongFeaturesError
from tlcompile.errors.run import DamagedFileError
from tlcompile.features.rows import Features
from tlcompile.run.feature_trainer import FeatureTrainer


@pytest.fixture
def trainer() -> FeatureTrainer:
    return FeatureTrainer(compiled(), batch_size=4)


def test_features_keep_the_order_of_dimensions_in_memory(tmp_path: Path) -> None:
    """The same numbers in another order in memory give other bits in the suffix."""

    class Permuted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.top = nn.Linear(3, 5), nn.Conv2d(5, 2, 1)

        def forward(self, x: Tensor) -> Any:
            turned = self.low(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            return self.top(turned).mean((2, 3))

    model = compiled("permute_1", base=Permuted())
    features = FeatureTrainer(model, batch_size=4).extract(IMAGES)
    features.save(tmp_path / "kept")
    for one in (features, Features.load(tmp_path / "kept"), features + features):
        assert one.rows[0].stride()[1] == 1
    assert features.rows[0].shape == (11, 5, 8, 8)


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


def test_features_of_sixteen_bits_and_whole_numbers_come_back(tmp_path: Path) -> None:
    """Rows in bf16, beside an input that crosses as it is: the indices of an embedding."""

    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.low, self.look, self.top = nn.Linear(4, 5), nn.Embedding(7, 3), nn.Linear(8, 2)

        def forward(self, one: Tensor, words: Tensor) -> Any:
            return self.top(torch.cat([self.low(one).tanh(), self.look(words).mean(1)], 1))

    text = "base: {model: own}\ninputs: {one: {shape: [4]}, words: {shape: [6], dtype: int64}}\n"
    model = compile_recipe(recipe_of(f"{text}head: keep\nfreeze: tanh\n"), base=Words())
    trainer = FeatureTrainer(model, precision="fast")
    batch = (ONE, torch.randint(7, (6, 6)))
    features = trainer.extract([(batch, LABELS[:6] % 2)])
    assert {rows.dtype for rows in features.rows} == {torch.bfloat16, torch.int64}
    features.save(tmp_path)
    again = Features.load(tmp_path)
    assert all(map(torch.equal, again.rows, features.rows))
    assert torch.equal(trainer.predict(again), trainer.predict(batch))


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
