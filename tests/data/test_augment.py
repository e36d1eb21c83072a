from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from tlcompile.data.augment import Augmentation
from tlcompile.data.transforms import DrawingFrom, transform_of
from tlcompile.errors.augmentation import ImpossibleChangeError
from tlcompile.recipe.augment import CHANGES, Augment
from tlcompile.recipe.image_changes import Change

# affine says nothing alone
ENTRIES: dict[str, Any] = {word: word for word in CHANGES} | {
    "affine": {"affine": {"degrees": 20, "translate": [0.2, 0.1], "scale": [0.7, 1.3], "shear": 9}}
}
ALL = pytest.mark.parametrize("name", ENTRIES)


def changes(*entries: Any) -> tuple[Change, ...]:
    return Augment.model_validate(
        {"train": [ENTRIES.get(str(one), one) for one in entries]}
    ).on_train


def image(height: int = 30, width: int = 40, channels: int = 3) -> Tensor:
    """A slope with noise: flat enough to be posterised, rough enough to be blurred."""
    random = torch.Generator().manual_seed(1)
    slope = torch.linspace(30, 200, height * width).reshape(height, width)
    noise = torch.randint(40, (channels, height, width), generator=random)
    return (slope + noise).to(torch.uint8)


def change(image: Tensor, *entries: Any, seed: int = 0, view: int = 0, key: int = 0) -> Tensor:
    return Augmentation(changes(*entries), 24, seed, view)(image, bytes([key]))


def many(entry: Any, count: int = 12) -> list[Tensor]:
    return [change(image(), entry, key=i) for i in range(count)]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return len(a) == len(b) > 0 and all(map(torch.equal, a, b))


@ALL
def test_augmentation_is_a_function_of_seed_view_and_bytes(name: str) -> None:
    def run(**place: int) -> list[Tensor]:
        return [change(image(), name, key=i, **place) for i in range(12)]

    first = run()
    torch.manual_seed(7)
    assert same(run(), first)
    assert not same(run(seed=1), first)
    assert not same(run(view=1), first)
    assert not same(first[1:], first[:-1])


@ALL
def test_global_random_state_is_not_moved(name: str) -> None:
    before = torch.get_rng_state()
    many(name, 3)
    assert torch.equal(torch.get_rng_state(), before)


@ALL
def test_colours_and_grey_are_changed_to_uint8_of_the_right_size(name: str) -> None:
    """`check` refuses what says that it does nothing to grey (tests/run/test_refuse_augment.py)."""
    side = (24, 24) if name in ("random_resized_crop", "random_crop") else (30, 40)
    for channels in (1, 3):
        given = image(channels=channels)
        found = [change(given, name, key=key) for key in range(12)]
        assert {one.dtype for one in found} == {torch.uint8}
        assert {one.shape[0] for one in found} == {channels}
        assert name == "zoom_out" or {one.shape[1:] for one in found} == {side}
        changed = not all(torch.equal(one, given) for one in found)
        assert changed == (channels == 3 or changes(name)[0].changes_grey())


@ALL
def test_an_image_of_8_pixels_is_changed_or_refused_by_name(name: str) -> None:
    for key in range(8):
        given = image(8, 8, 1 + key % 2 * 2)
        if name == "elastic":
            with pytest.raises(ImpossibleChangeError, match="'elastic' cannot be done") as caught:
                change(given, name, key=key)
            assert caught.value.size == "8 x 8 pixels"
        else:
            assert change(given, name, key=key).dtype == torch.uint8


def test_a_smaller_number_bends_small_images_too() -> None:
    assert change(image(8, 8), {"elastic": {"sigma": 1.5}}).shape == (3, 8, 8)


# What the names stand for

THEIRS: dict[str, Any] = {
    "random_resized_crop": v2.RandomResizedCrop(24),
    "random_crop": v2.RandomCrop(24),
    "horizontal_flip": v2.RandomHorizontalFlip(),
    "vertical_flip": v2.RandomVerticalFlip(),
    "rotation": v2.RandomRotation(15, v2.InterpolationMode.BILINEAR, fill=None),
    "affine": v2.RandomAffine(20, translate=(0.2, 0.1), scale=(0.7, 1.3), shear=9),
    "perspective": v2.RandomPerspective(),
    "elastic": v2.ElasticTransform(),
    "zoom_out": v2.RandomZoomOut(),
    "photometric_distort": v2.RandomPhotometricDistort(),
    "grayscale": v2.RandomGrayscale(),
    "channel_permutation": v2.RandomChannelPermutation(),
    "gaussian_blur": v2.GaussianBlur(9),
    "gaussian_noise": v2.GaussianNoise(),
    "solarize": v2.RandomSolarize(128),
    "posterize": v2.RandomPosterize(4),
    "equalize": v2.RandomEqualize(),
    "autocontrast": v2.RandomAutocontrast(),
    "sharpness": v2.RandomAdjustSharpness(2),
    "invert": v2.RandomInvert(),
    "random_erasing": v2.RandomErasing(),
    "trivial_augment": v2.TrivialAugmentWide(),
    "rand_augment": v2.RandAugment(),
    "auto_augment": v2.AutoAugment(),
    "augmix": v2.AugMix(),
}


def test_every_name_but_ours_is_compared_with_torchvision() -> None:
    assert set(CHANGES) - set(THEIRS) == {"color_jitter"}


@pytest.mark.parametrize("name", THEIRS)
def test_draws_and_pixels_are_torchvisions_under_one_seed(name: str) -> None:
    ours = transform_of(changes(name)[0], 24)
    with torch.random.fork_rng():
        for seed in range(6):
            torch.manual_seed(seed)
            wanted = THEIRS[name](image())
            with DrawingFrom(torch.Generator().manual_seed(seed)):
                assert torch.equal(ours(image()), wanted)


def test_color_jitter_keeps_its_order() -> None:
    """torchvision draws the order of the four too; ours is the one that stored features have."""
    random = torch.Generator().manual_seed(3)
    factors = [torch.empty(1).uniform_(0.8, 1.2, generator=random).item() for _ in range(3)]
    wanted = v2.functional.adjust_brightness(image(), factors[0])
    wanted = v2.functional.adjust_contrast(wanted, factors[1])
    wanted = v2.functional.adjust_saturation(wanted, factors[2])
    with DrawingFrom(torch.Generator().manual_seed(3)):
        assert torch.equal(transform_of(changes("color_jitter")[0], 24)(image()), wanted)


def test_threads_that_draw_at_once_do_not_disturb_each_other() -> None:
    """Every thread decodes and changes images of its own; torch has one generator for all."""
    names = ("rand_augment", "augmix", "random_erasing", "gaussian_noise", "elastic")
    wanted = {name: many(name, 4) for name in names}
    found: dict[str, list[Tensor]] = {}
    begin = threading.Barrier(len(names) + 1)

    def run(name: str) -> None:
        begin.wait()
        found[name] = many(name, 4)

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    before = torch.get_rng_state()
    begin.wait()
    torch.rand(1000)  # as the main thread does, for dropout
    for thread in threads:
        thread.join()
    assert all(same(found[name], wanted[name]) for name in names)
    torch.set_rng_state(before)


# Parameters

P1 = {"p": 1.0}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # what is given beside, other values
    "random_resized_crop": (
        {}, {"scale": [0.5, 0.6], "ratio": [2.0, 2.5], "interpolation": "bicubic"},
    ),
    "random_crop": ({"padding": 20}, {"padding": 3, "padding_mode": "edge", "fill": 9}),
    "horizontal_flip": ({}, P1),
    "vertical_flip": ({}, P1),
    "rotation": ({}, {"degrees": 40, "interpolation": "nearest", "fill": 200}),
    "affine": (
        {"degrees": 9},
        {
            "degrees": 20, "translate": [0.3, 0.3], "scale": [0.5, 0.6], "shear": 30,
            "interpolation": "bilinear", "fill": 200,
        },
    ),
    "perspective": (
        {}, {"distortion_scale": 0.9, "p": 1.0, "interpolation": "nearest", "fill": 200},
    ),
    "elastic": (
        {"alpha": 900.0}, {"alpha": 100.0, "sigma": 3.0, "interpolation": "nearest", "fill": 200},
    ),
    "zoom_out": ({}, {"side_range": [1.1, 1.2], "p": 1.0, "fill": 200}),
    "color_jitter": ({}, {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.3}),
    "photometric_distort": (
        {},
        {
            "brightness": [0.2, 0.3], "contrast": [0.2, 0.3], "saturation": [0.0001, 0.1],
            "hue": [0.2, 0.3], "p": 1.0,
        },
    ),
    "grayscale": ({}, P1),
    "channel_permutation": ({}, {}),
    "gaussian_blur": ({}, {"kernel_size": 3, "sigma": [3.0, 4.0]}),
    "gaussian_noise": ({}, {"mean": 0.3, "sigma": 0.5}),
    "solarize": ({}, {"threshold": 60, "p": 1.0}),
    "posterize": ({}, {"bits": 2, "p": 1.0}),
    "equalize": ({}, P1),
    "autocontrast": ({}, P1),
    "sharpness": ({}, {"sharpness_factor": 0.2, "p": 1.0}),
    "invert": ({}, P1),
    "random_erasing": ({}, {"p": 1.0, "scale": [0.5, 0.6], "ratio": [3.0, 3.2], "value": 200}),
    "trivial_augment": (
        {}, {"num_magnitude_bins": 7, "interpolation": "bilinear", "fill": 200},
    ),
    "rand_augment": (
        {},
        {
            "num_ops": 4, "magnitude": 20, "num_magnitude_bins": 60, "interpolation": "bilinear",
            "fill": 200,
        },
    ),
    "auto_augment": ({}, {"policy": "svhn", "interpolation": "bilinear", "fill": 200}),
    "augmix": (
        {},
        {
            "severity": 9, "mixture_width": 5, "chain_depth": 7, "alpha": 5.0, "all_ops": False,
            "interpolation": "nearest", "fill": 200,
        },
    ),
}  # fmt: skip
CASES = [(word, key) for word, (_, others) in OTHERS.items() for key in others]


def test_every_parameter_has_a_case() -> None:
    wanted = {(word, key) for word, change in CHANGES.items() for key in change.model_fields}
    assert set(CASES) == wanted


@pytest.mark.parametrize(("word", "key"), CASES)
def test_every_parameter_changes_pixels_and_tag(word: str, key: str) -> None:
    beside, others = OTHERS[word]
    plain, other = {word: beside}, {word: {**beside, key: others[key]}}
    assert not same(many(plain), many(other))
    tags = [Augmentation(changes(entry), 24, 0, 0).tag for entry in (plain, other)]
    assert tags[0] != tags[1]


# Together


def test_flips_turn_about_half_of_the_images() -> None:
    for name, axis in (("horizontal_flip", -1), ("vertical_flip", -2)):
        found = many(name, 200)
        flipped = sum(torch.equal(out, image().flip(axis)) for out in found)
        kept = sum(torch.equal(out, image()) for out in found)
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


def test_only_the_crops_size() -> None:
    def sizes(*names: str) -> bool:
        return Augmentation(changes(*names), 24, 0, 0).sizes

    assert sizes("horizontal_flip", "random_resized_crop")
    assert sizes("random_crop")
    assert not sizes("horizontal_flip", "zoom_out")
    assert sizes("zoom_out", "random_crop")
    assert not sizes("random_crop", "zoom_out")
