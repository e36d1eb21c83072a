from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import digest, digests_of
from tlcompile.data.folder import scan_folder
from tlcompile.data.loading import load_images, load_pixels
from tlcompile.data.samples import Samples
from tlcompile.errors.augmentation import ImpossibleChangeError
from tlcompile.errors.data import ImageChangedError, MixedSizesError, UnreadableImagesError
from tlcompile.recipe.augment import CHANGES
from tlcompile.recipe.image_changes import Change
from tlcompile.zoo.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(10, 8, (0.5,) * 3, (0.25,) * 3, "bilinear", 3)


def changes(*names: str) -> tuple[Change, ...]:
    return tuple(CHANGES[name]() for name in names)


def make(count: int, *, slow: bool = False) -> Samples:
    def decode(index: int, data: bytes) -> Tensor:
        if slow:
            time.sleep(0.002 * ((index * 7) % 5))  # later images are ready first
        values = torch.randint(256, (3, 12 + index % 3, 14), generator=_seeded(data[0]))
        return values.to(torch.uint8)

    names = tuple(map(str, range(count)))
    return Samples(names, (0,) * count, ("a",), lambda index: bytes([index]), decode)


def _seeded(index: int) -> torch.Generator:
    return torch.Generator().manual_seed(index)


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_order_is_kept_whatever_the_workers(workers: int) -> None:
    samples, indices = make(20, slow=True), [5, 3, 19, 3, 0, 7, 11]
    loaded = load_images(samples, indices, PREPROCESSING, workers=workers)
    wanted = torch.stack([PREPROCESSING.apply(samples.read(i)) for i in indices])
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded, wanted)


@pytest.mark.parametrize("names", [("random_resized_crop", "horizontal_flip"), ("color_jitter",)])
def test_augmentation_is_that_of_the_sample_not_of_its_position(names: tuple[str, ...]) -> None:
    def load(indices: list[int], workers: int) -> Tensor:
        augmentation = Augmentation(changes(*names), 8, seed=0, view=2)
        return load_images(
            make(20), indices, PREPROCESSING, workers=workers, augmentation=augmentation
        )

    assert torch.equal(load([4, 9, 2], 3), load([2, 4, 9], 0)[[1, 2, 0]])


EVERY = {word: change for word, change in CHANGES.items() if word not in ("affine", "elastic")}


@pytest.mark.parametrize("workers", [2, 7])
def test_every_change_is_the_same_whatever_the_workers(workers: int) -> None:
    """torchvision draws from the generator that torch's threads share; ours have their own."""
    every = Augmentation(tuple(change() for change in EVERY.values()), 8, seed=0, view=2)

    def load(workers: int) -> Tensor:
        samples = make(24, slow=workers > 0)
        return load_images(samples, range(24), PREPROCESSING, workers=workers, augmentation=every)

    assert torch.equal(load(workers), load(0))


def test_an_image_too_small_for_a_change_is_named() -> None:
    bent = Augmentation(changes("elastic"), 8, seed=0, view=0)
    with pytest.raises(ImpossibleChangeError, match="image '1'") as caught:
        load_images(make(3), [1, 2], PREPROCESSING, workers=2, augmentation=bent)
    assert (caught.value.name, caught.value.size) == ("elastic", "14 x 13 pixels")


def test_augmented_crop_is_only_normalised() -> None:
    augmentation = Augmentation(changes("random_resized_crop"), 8, seed=0, view=0)
    loaded = load_images(make(3), [2], PREPROCESSING, workers=0, augmentation=augmentation)
    wanted = PREPROCESSING.normalise(augmentation(make(3).read(2), digest(bytes([2]))))
    assert torch.equal(loaded[0], wanted)


def test_augmented_without_crop_is_resized_and_cropped() -> None:
    augmentation = Augmentation(changes("horizontal_flip"), 8, seed=0, view=0)
    loaded = load_images(make(9), range(9), PREPROCESSING, workers=0, augmentation=augmentation)
    assert loaded.shape == (9, 3, 8, 8)


@pytest.mark.parametrize("names", [(), ("horizontal_flip",), ("random_resized_crop",)])
def test_pixels_are_the_images_before_the_last_step(names: tuple[str, ...]) -> None:
    change = Augmentation(changes(*names), 8, seed=0, view=0) if names else None
    pixels = load_pixels(
        make(5),
        [(i, 0) for i in range(5)],
        PREPROCESSING,
        workers=2,
        augmentations=lambda _: change,
    )
    assert (pixels.dtype, pixels.shape) == (torch.uint8, (5, 3, 8, 8))
    images = load_images(make(5), range(5), PREPROCESSING, workers=0, augmentation=change)
    assert torch.equal(PREPROCESSING.normalise(pixels), images)


def counted(samples: Samples) -> tuple[Samples, list[int], list[int]]:
    """Count what is fetched and what is decoded."""
    fetched: list[int] = []
    decoded: list[int] = []

    def fetch(index: int) -> bytes:
        fetched.append(index)
        return samples.fetch(index)

    def decode(index: int, data: bytes) -> Tensor:
        decoded.append(index)
        return samples.decode(index, data)

    return replace(samples, fetch=fetch, decode=decode), fetched, decoded


def test_views_that_stand_together_are_read_and_decoded_once() -> None:
    samples, fetched, decoded = counted(make(3))
    pairs = [(2, 0), (2, 1), (0, 1), (0, 0), (2, 1)]

    def change(view: int) -> Augmentation | None:
        return Augmentation(changes("random_resized_crop"), 8, seed=0, view=view) if view else None

    pixels = load_pixels(samples, pairs, PREPROCESSING, workers=0, augmentations=change)
    assert fetched == decoded == [2, 0, 2]
    alone = [
        load_pixels(make(3), [pair], PREPROCESSING, workers=0, augmentations=change)
        for pair in pairs
    ]
    assert torch.equal(pixels, torch.cat(alone))


def test_the_bytes_that_were_hashed_are_those_that_are_decoded() -> None:
    samples, fetched, _ = counted(make(4))
    digests = digests_of(samples, workers=0)
    fetched.clear()
    change = Augmentation(changes("random_resized_crop"), 8, seed=0, view=0)
    loaded = load_images(
        samples, [1, 3], PREPROCESSING, workers=0, augmentation=change, digests=digests
    )
    assert fetched == [1, 3]
    plain = load_images(make(4), [1, 3], PREPROCESSING, workers=0, augmentation=change)
    assert torch.equal(loaded, plain)


@pytest.mark.parametrize("names", [(), ("horizontal_flip",)])
def test_an_image_that_changed_since_is_refused(make_tree, names: tuple[str, ...]) -> None:  # type: ignore[no-untyped-def]
    folder = make_tree("a/1.png", "a/2.png", "a/3.png")
    samples = scan_folder(folder)["all"]
    digests = digests_of(samples, workers=0)
    path = folder / "a" / "2.png"
    was = path.read_bytes()
    path.write_bytes((folder / "a" / "3.png").read_bytes())  # as sound an image as the first
    change = Augmentation(changes(*names), 8, seed=0, view=0) if names else None
    with pytest.raises(ImageChangedError) as caught:
        load_images(
            samples, range(3), PREPROCESSING, workers=2, augmentation=change, digests=digests
        )
    assert caught.value.path == str(path)
    assert (caught.value.wanted, caught.value.found) == (
        digest(was).hex(),
        digest(path.read_bytes()).hex(),
    )


def test_no_indices_give_an_empty_batch() -> None:
    assert load_images(make(3), [], PREPROCESSING, workers=2).shape == (0, 3, 8, 8)


def test_bad_image_is_named(tmp_path: Path, make_tree) -> None:  # type: ignore[no-untyped-def]
    folder = make_tree("a/1.png", "a/2.png", "a/3.png")
    samples = scan_folder(folder)["all"]
    (folder / "a" / "2.png").write_bytes((folder / "a" / "2.png").read_bytes()[:50])
    with pytest.raises(UnreadableImagesError) as caught:
        load_images(samples, range(3), PREPROCESSING, workers=2)
    assert caught.value.images[0][0] == str(folder / "a" / "2.png")


def test_images_of_several_sizes_without_a_crop_are_named() -> None:
    plain = Preprocessing(None, None, (0.5,) * 3, (0.25,) * 3, "bilinear", 3)
    with pytest.raises(MixedSizesError) as caught:
        load_images(make(3), [0, 1], plain, workers=0)
    assert (caught.value.path, caught.value.found) == ("1", (3, 13, 14))
