from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from tlcompile.data.augment import AUGMENTATIONS, Augmentation, crop_box
from tlcompile.errors.data import UnknownAugmentationError

ALL = tuple(AUGMENTATIONS)


def image(height: int = 40, width: int = 60, channels: int = 3) -> Tensor:
    values = torch.randint(256, (channels, height, width), generator=torch.Generator())
    return values.to(torch.uint8)


def change(image: Tensor, *names: str, seed: int = 0, view: int = 0, key: int = 0) -> Tensor:
    return Augmentation(names, 24, seed, view)(image, bytes([key]))


def many(name: str, count: int = 40) -> list[Tensor]:
    return [change(image(), name, key=i) for i in range(count)]


@pytest.mark.parametrize("name", ALL)
def test_augmentation_is_a_function_of_seed_view_and_bytes(name: str) -> None:
    def run(**place: int) -> list[Tensor]:
        return [change(image(), name, key=i, **place) for i in range(20)]

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(map(torch.equal, a, b))

    first = run()
    torch.manual_seed(7)
    assert same(run(), first)
    assert not same(run(seed=1), first)
    assert not same(run(view=1), first)
    assert not same(first[1:], first[:-1])


@pytest.mark.parametrize("name", ALL)
def test_global_random_state_is_not_moved(name: str) -> None:
    before = torch.get_rng_state()
    many(name, 3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("channels", [1, 3])
def test_result_is_uint8_of_the_right_size(name: str, channels: int) -> None:
    result = change(image(40, 60, channels), name)
    side = (24, 24) if name == "random_resized_crop" else (40, 60)
    assert result.shape == (channels, *side)
    assert result.dtype == torch.uint8


@pytest.mark.parametrize(("height", "width"), [(40, 60), (300, 200), (5, 100), (100, 5), (1, 1)])
def test_crop_boxes_equal_torchvisions(height: int, width: int) -> None:
    for seed in range(50):
        torch.manual_seed(seed)
        theirs = RandomResizedCrop.get_params(image(height, width), [0.08, 1.0], [3 / 4, 4 / 3])
        assert crop_box(height, width, torch.Generator().manual_seed(seed)) == theirs


def test_flips_turn_about_half_of_the_images() -> None:
    for name, axis in (("horizontal_flip", -1), ("vertical_flip", -2)):
        flipped = sum(torch.equal(out, image().flip(axis)) for out in many(name, 200))
        kept = sum(torch.equal(out, image()) for out in many(name, 200))
        assert flipped + kept == 200
        assert 70 < flipped < 130


def test_adding_a_flip_leaves_the_crop_as_it_was() -> None:
    def run(*names: str) -> Tensor:
        return change(image(), *names, key=3)

    crop, both = run("random_resized_crop"), run("random_resized_crop", "horizontal_flip")
    assert torch.equal(both, crop) or torch.equal(both, crop.flip(-1))


def test_names_are_done_in_order() -> None:
    def run(*names: str) -> Tensor:
        return change(image(), *names)

    assert run("rotation", "random_resized_crop").shape == (3, 24, 24)
    assert not torch.equal(
        run("rotation", "random_resized_crop"), run("random_resized_crop", "rotation")
    )


def test_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownAugmentationError, match="did you mean 'horizontal_flip'"):
        Augmentation(("horizontal_flipp",), 24, seed=0, view=0)


def test_only_the_crop_sizes() -> None:
    assert Augmentation(("horizontal_flip", "random_resized_crop"), 24, 0, 0).sizes
    assert not Augmentation(("horizontal_flip",), 24, 0, 0).sizes
