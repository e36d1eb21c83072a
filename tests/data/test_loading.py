from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tlcompile.data.augment import Augmentation
from tlcompile.data.digests import digest
from tlcompile.data.folder import scan_folder
from tlcompile.data.loading import load_images
from tlcompile.data.samples import Samples
from tlcompile.errors.data import MixedSizesError, UnreadableImagesError
from tlcompile.zoo.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(10, 8, (0.5,) * 3, (0.25,) * 3, "bilinear", 3)


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
        augmentation = Augmentation(names, 8, seed=0, view=2)
        return load_images(
            make(20), indices, PREPROCESSING, workers=workers, augmentation=augmentation
        )

    assert torch.equal(load([4, 9, 2], 3), load([2, 4, 9], 0)[[1, 2, 0]])


def test_augmented_crop_is_only_normalised() -> None:
    augmentation = Augmentation(("random_resized_crop",), 8, seed=0, view=0)
    loaded = load_images(make(3), [2], PREPROCESSING, workers=0, augmentation=augmentation)
    wanted = PREPROCESSING.normalise(augmentation(make(3).read(2), digest(bytes([2]))))
    assert torch.equal(loaded[0], wanted)


def test_augmented_without_crop_is_resized_and_cropped() -> None:
    augmentation = Augmentation(("horizontal_flip",), 8, seed=0, view=0)
    loaded = load_images(make(9), range(9), PREPROCESSING, workers=0, augmentation=augmentation)
    assert loaded.shape == (9, 3, 8, 8)


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
