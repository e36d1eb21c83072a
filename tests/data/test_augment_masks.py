"""A mask goes where its image goes, pixel by pixel."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tlcompile.data.augment import Augmentation
from tlcompile.data.views import Views
from tlcompile.errors.augmentation import UnknownMaskError
from tlcompile.recipe.augment import CHANGES, Augment
from tlcompile.recipe.image_changes import Change

IGNORED = 255
KEYS = [bytes([key]) for key in range(12)]
MOVES: list[dict[str, dict[str, Any]]] = [
    {"random_resized_crop": {"interpolation": "nearest"}},
    {"random_resized_crop": {}},
    {"random_crop": {"padding": 12, "fill": IGNORED}},
    {"random_crop": {"padding": 12, "padding_mode": "reflect"}},
    {"horizontal_flip": {}},
    {"vertical_flip": {}},
    {"rotation": {"degrees": 90, "interpolation": "nearest", "fill": IGNORED}},
    {
        "affine": {
            "degrees": 40, "translate": [0.2, 0.3], "scale": [0.5, 2.0], "shear": 20,
            "fill": IGNORED,
        }
    },
    {"perspective": {"p": 1.0, "interpolation": "nearest", "fill": IGNORED}},
    {"elastic": {"alpha": 400.0, "sigma": 4.0, "interpolation": "nearest", "fill": IGNORED}},
    {"zoom_out": {"p": 1.0, "fill": IGNORED}},
]  # fmt: skip
STAYS = [word for word, change in CHANGES.items() if change.mask == "stays"]
UNKNOWN = [word for word, change in CHANGES.items() if change.mask == "unknown"]


def changes(*entries: Any) -> tuple[Change, ...]:
    return Augment.model_validate({"train": list(entries)}).on_train


def classes(height: int = 40, width: int = 48) -> Tensor:
    """A chessboard of classes 0 to 30; its image shows each class as its number."""
    rows, columns = torch.arange(height) // 8, torch.arange(width) // 8
    return (rows[:, None] * 6 + columns)[None].to(torch.uint8)


def test_every_change_is_of_one_kind() -> None:
    assert len(MOVES) - 2 + len(STAYS) + len(UNKNOWN) == len(CHANGES)
    assert len(UNKNOWN) == 4


@pytest.mark.parametrize("entry", MOVES, ids=lambda entry: next(iter(entry)))
def test_mask_and_image_agree_to_the_pixel(entry: dict[str, dict[str, Any]]) -> None:
    """The image's pixels are their classes, read by the nearest too."""
    for key in KEYS:
        augmentation = Augmentation(changes(entry), 24, 0, 0)
        image = augmentation(classes().expand(3, -1, -1), key)[:1]
        mask = augmentation.on_mask(classes(), key)
        assert (mask.dtype, mask.shape) == (torch.uint8, image.shape)
        if entry == {"random_resized_crop": {}}:  # read in between: borders blend
            assert (mask == image).float().mean() > 0.4
            _aligned(image, mask)
        elif "random_resized_crop" in entry:  # torchvision's nearest is up to half a pixel off
            assert (mask == image).float().mean() > 0.6
        else:
            assert torch.equal(mask, image)


def _aligned(image: Tensor, mask: Tensor) -> None:
    """Shifted by one pixel either way, they agree less, or hardly more."""

    def agree(by: int, axis: int) -> float:
        return (image.roll(by, axis) == mask).float().mean().item()

    here = agree(0, 1)
    assert all(agree(by, axis) <= here + 0.02 for by in (-1, 1) for axis in (1, 2))


def test_several_changes_are_followed_in_order() -> None:
    entry = [*MOVES[5:9], "color_jitter", "random_erasing", "horizontal_flip"]
    augmentation = Augmentation(changes(*entry), 24, (3, 4), 5)
    geometric = Augmentation(changes(*MOVES[5:9], "horizontal_flip"), 24, (3, 4), 5)
    for key in KEYS:
        mask = augmentation.on_mask(classes(), key)
        assert torch.equal(mask, geometric(classes(), key))
        assert not torch.equal(mask, classes())


def test_what_comes_from_nowhere_is_ignored_whatever_fills_the_image() -> None:
    augmentation = Augmentation(changes({"rotation": {"degrees": 90, "fill": 7}}), 24, 0, 0)
    filled = [augmentation.on_mask(torch.zeros(1, 40, 48, dtype=torch.uint8), key) for key in KEYS]
    assert {int(value) for mask in filled for value in mask.unique()} == {0, IGNORED}


@pytest.mark.parametrize("word", STAYS)
def test_colours_leave_the_mask_as_it_is(word: str) -> None:
    augmentation = Augmentation(changes(word), 24, 0, 0)
    assert all(torch.equal(augmentation.on_mask(classes(), key), classes()) for key in KEYS[:3])


@pytest.mark.parametrize("word", UNKNOWN)
def test_a_change_that_masks_cannot_follow_is_refused(word: str) -> None:
    with pytest.raises(UnknownMaskError, match=word):
        Augmentation(changes(word), 24, 0, 0).on_mask(classes(), KEYS[0])


def test_views_of_flips_flip_the_mask() -> None:
    views = Views(changes("horizontal_flip", "vertical_flip"), 24, seed=0, count=4)
    found = [
        one.on_mask(classes(), KEYS[0]) for view in range(1, 4) if (one := views.augmentation(view))
    ]
    wanted = [classes().flip(-1), classes().flip(-2), classes().flip(-1, -2)]
    assert len(found) == 3
    assert all(map(torch.equal, found, wanted))
