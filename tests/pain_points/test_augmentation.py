"""Random changes to images, and what others' users lost by them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import TinyNet, make_pictures, make_recipe

from tlcompile.data.augment import Augmentation
from tlcompile.errors.augmentation import MixedFrozenError
from tlcompile.errors.training import AugmentedFrozenError
from tlcompile.recipe.augment import CHANGES
from tlcompile.run.train import train_recipe


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"augment": {"train": ["rand_augment"]}}, AugmentedFrozenError),
        ({"mix": {"mixup": 0.2}}, MixedFrozenError),
    ],
)
def test_kept_features_never_silence_augmentation(
    tmp_path: Path, data: dict[str, object], error: type[Exception]
) -> None:
    """mozilla/DeepSpeech #2396: the feature cache silently switched augmentation off."""
    pictures = make_pictures(tmp_path / "pictures", side=16)
    recipe = make_recipe(data={"folder": str(pictures), **data}, freeze={"upto": "flatten"})
    with pytest.raises(error, match="computed once"):
        train_recipe(recipe, tmp_path / "run", base=TinyNet())


@pytest.mark.parametrize("name", ["trivial_augment", "augmix", "random_erasing"])
def test_batches_that_a_resume_skips_draw_nothing(name: str) -> None:
    """huggingface/transformers PR #46628: skipping batches on resume consumed random numbers."""
    image = torch.arange(3 * 24 * 24, dtype=torch.int64).reshape(3, 24, 24).remainder(251)
    keys = [bytes([number]) for number in range(6)]

    def epoch(first: int) -> list[torch.Tensor]:
        augmentation = Augmentation((CHANGES[name](),), 24, (0, 42), 3)
        return [augmentation(image.to(torch.uint8), key) for key in keys[first:]]

    assert all(map(torch.equal, epoch(4), epoch(0)[4:]))
